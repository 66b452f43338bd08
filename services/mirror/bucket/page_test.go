package bucket

import (
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// reference reads a page with encoding/xml.
type reference struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string
	EncodingType          string
	Contents              []struct {
		Key, ETag    string
		Size         int64
		LastModified time.Time
		UserMetadata *struct {
			Items []struct {
				XMLName xml.Name
				Value   string `xml:",chardata"`
			} `xml:",any"`
		}
	}
}

// objects turns what was read into what page.scan yields.
func (r reference) objects() ([]Object, error) {
	var out []Object
	for _, c := range r.Contents {
		o := Object{Key: c.Key, Size: c.Size, ETag: strings.Trim(c.ETag, `"`), LastModified: c.LastModified}
		if r.EncodingType == "url" {
			var err error
			if o.Key, err = url.QueryUnescape(c.Key); err != nil {
				return nil, err
			}
		}
		if c.UserMetadata != nil {
			o.Meta = map[string]string{}
			for _, item := range c.UserMetadata.Items {
				if name := item.XMLName.Local; len(name) > len(metaPrefix) && strings.EqualFold(name[:len(metaPrefix)], metaPrefix) {
					o.Meta[http.CanonicalHeaderKey(name[len(metaPrefix):])] = item.Value
				}
			}
		}
		out = append(out, o)
	}
	return out, nil
}

func scan(text string) (*page, error) {
	p := new(page)
	p.body.WriteString(text)
	return p, p.scan(pageRequest{meta: true})
}

// escaped writes text as XML in one of the ways that servers have.
func escaped(t *rapid.T, text string) string {
	var s strings.Builder
	if rapid.Bool().Draw(t, "numeric") {
		need(t, xml.EscapeText(&s, []byte(text)))
		return s.String()
	}
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;", "\r", "&#xD;", "\n", "&#xa;", "\t", "&#9;").Replace(text)
}

func need(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// xmlText is text that XML can hold.
func xmlText() *rapid.Generator[string] {
	return rapid.StringOf(rapid.RuneFrom([]rune("abz/09 .%+&<>\"'\t\n\r-_~äß€日🙂\u0301"))).Filter(func(s string) bool { return s != "" })
}

func element(name, text string) string { return "<" + name + ">" + text + "</" + name + ">" }

// drawPage writes a page as servers do, in any order of elements, and says what
// it holds.
func drawPage(t *rapid.T) (text string, want []Object) {
	encoded := rapid.Bool().Draw(t, "encoded")
	keys := rapid.SliceOfNDistinct(xmlText(), 0, 5, rapid.ID).Draw(t, "keys")
	slices.Sort(keys)
	var parts []string
	space := func() string { return rapid.SampledFrom([]string{"", "\n", "  \t", "\r\n"}).Draw(t, "space") }
	for _, key := range keys {
		o := Object{Key: key, Size: rapid.Int64Min(0).Draw(t, "size"), ETag: rapid.StringMatching(`[0-9a-f]{32}(-[1-9])?`).Draw(t, "etag")}
		o.LastModified = time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "time")).UTC()
		written := key
		if encoded {
			written = url.QueryEscape(key)
		}
		fields := []string{
			element("Key", escaped(t, written)), element("Size", decimal(o.Size)),
			element("LastModified", o.LastModified.Format("2006-01-02T15:04:05.000Z")),
			element("ETag", escaped(t, `"`+o.ETag+`"`)),
			rapid.SampledFrom([]string{"", "<StorageClass>STANDARD</StorageClass>", "<Owner><ID>&lt;x</ID><DisplayName/></Owner>"}).Draw(t, "more"),
		}
		if rapid.Bool().Draw(t, "meta") {
			o.Meta = map[string]string{"Name": xmlText().Draw(t, "value")}
			fields = append(fields, element("UserMetadata", element("X-Amz-Meta-Name", escaped(t, o.Meta["Name"]))+element("content-type", "text/plain")))
		}
		parts = append(parts, element("Contents", space()+strings.Join(rapid.Permutation(fields).Draw(t, "fields"), space())+space()))
		want = append(want, o)
	}
	head := []string{element("IsTruncated", "false"), "<Prefix/>", element("MaxKeys", "1000"), element("KeyCount", decimal(int64(len(keys))))}
	if encoded {
		head = append(head, element("EncodingType", "url"))
	}
	at := rapid.IntRange(0, len(head)).Draw(t, "at")
	parts = slices.Concat(head[:at], parts, head[at:])
	prolog := rapid.SampledFrom([]string{"", `<?xml version="1.0" encoding="UTF-8"?>`, "  " + xml.Header}).Draw(t, "prolog")
	attribute := rapid.SampledFrom([]string{"", ` xmlns="http://s3.amazonaws.com/doc/2006-03-01/"`, ` a='1' xmlns:b="x y" `}).Draw(t, "attribute")
	return prolog + "<ListBucketResult" + attribute + ">" + strings.Join(parts, space()) + "</ListBucketResult>" + space(), want
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// TestPagesReadAsWithEncodingXML compares the scanner with what was written and
// with the standard library, and cuts each page everywhere.
func TestPagesReadAsWithEncodingXML(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, want := drawPage(t)
		p, err := scan(text)
		need(t, err)
		var r reference
		need(t, xml.Unmarshal([]byte(text), &r))
		other, err := r.objects()
		need(t, err)
		if !same(p.objects, want) || !same(p.objects, other) {
			t.Fatalf("%s\n got %+v\nwant %+v\n xml %+v", text, p.objects, want, other)
		}
		whole := strings.TrimRight(text, " \t\r\n")
		cut := rapid.IntRange(0, len(whole)-1).Draw(t, "cut")
		if _, err := scan(whole[:cut]); err == nil {
			t.Fatalf("it takes half a page: %s", whole[:cut])
		}
	})
}

func same(a, b []Object) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

const onePage = `<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>1</KeyCount><Contents><Key>a</Key><Size>1</Size><LastModified>2020-01-02T03:04:05.678Z</LastModified></Contents></ListBucketResult>`

// TestBadPages changes a good page into ones that must not be believed.
func TestBadPages(t *testing.T) {
	if _, err := scan(onePage); err != nil {
		t.Fatal(err)
	}
	contents := onePage[strings.Index(onePage, "<Contents>") : strings.Index(onePage, "</Contents>")+len("</Contents>")]
	for name, change := range map[string][2]string{
		"no word on more":     {"<IsTruncated>false</IsTruncated>", ""},
		"twice a word":        {"<KeyCount>", "<IsTruncated>true</IsTruncated><KeyCount>"},
		"neither yes nor no":  {">false<", ">maybe<"},
		"more, but not where": {">false<", ">true<"},
		"a wrong count":       {"<KeyCount>1", "<KeyCount>2"},
		"a negative count":    {"<KeyCount>1", "<KeyCount>-1"},
		"a key less":          {contents, ""},
		"an entry twice":      {contents, contents + contents},
		"no key":              {"<Key>a</Key>", ""},
		"an empty key":        {"<Key>a</Key>", "<Key></Key>"},
		"two keys":            {"<Key>a</Key>", "<Key>a</Key><Key>b</Key>"},
		"a nested key":        {"<Key>a</Key>", "<Key>a<b/></Key>"},
		"no size":             {"<Size>1</Size>", ""},
		"a negative size":     {"<Size>1<", "<Size>-1<"},
		"a huge size":         {"<Size>1<", "<Size>9223372036854775808<"},
		"no time":             {"<LastModified>2020-01-02T03:04:05.678Z</LastModified>", ""},
		"a strange time":      {"2020-01-02T", "2020-13-02T"},
		"an error":            {"ListBucketResult", "Error"},
		"text between":        {"<KeyCount>", "oops<KeyCount>"},
		"a wrong end":         {"</Contents>", "</Content>"},
		"an unknown entity":   {"<Key>a", "<Key>&nbsp;"},
		"half an entity":      {"<Key>a", "<Key>&amp"},
		"no character":        {"<Key>a", "<Key>&#0;"},
		"a control character": {"<Key>a", "<Key>\x01"},
		"no UTF-8":            {"<Key>a", "<Key>\xff"},
		"a comment":           {"<Key>", "<!-- x --><Key>"},
		"CDATA":               {"<Key>a", "<Key><![CDATA[a]]>"},
		"a document type":     {"<ListBucketResult>", "<!DOCTYPE x><ListBucketResult>"},
		"a strange encoding":  {"<KeyCount>", "<EncodingType>rot13</EncodingType><KeyCount>"},
		"a bad escape":        {"<Key>a</Key>", "<Key>%zz</Key>"},
		"more after it":       {"</ListBucketResult>", "</ListBucketResult><x/>"},
		"deep nesting":        {"<KeyCount>", strings.Repeat("<x>", 1000) + strings.Repeat("</x>", 1000) + "<KeyCount>"},
	} {
		text := strings.ReplaceAll(onePage, change[0], change[1])
		if name == "a bad escape" {
			text = strings.Replace(text, "<KeyCount>", "<EncodingType>url</EncodingType><KeyCount>", 1)
		}
		if text == onePage {
			t.Fatalf("%s: the change does not fit", name)
		}
		if _, err := scan(text); err == nil {
			t.Errorf("%s: it is taken: %s", name, text)
		}
	}
	p := new(page)
	p.body.WriteString(onePage)
	if p.scan(pageRequest{prefix: "b"}) == nil || p.scan(pageRequest{after: "a"}) == nil || p.scan(pageRequest{prefix: "a"}) != nil {
		t.Error("the prefix or the order is not checked")
	}
}

// FuzzPage looks for what makes the scanner fail, or read other than encoding/xml.
func FuzzPage(f *testing.F) {
	f.Add(onePage)
	f.Add(xml.Header + strings.Replace(onePage, ">a<", ">&#97;&amp;%20<", 1))
	f.Add(strings.Replace(onePage, "<Size>", "<UserMetadata><X-Amz-Meta-A>b\r\nc</X-Amz-Meta-A></UserMetadata><Size>", 1))
	f.Add(`<ListBucketResult x="y" ><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></ListBucketResult >`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := scan(text)
		if err != nil {
			return
		}
		var r reference
		if err := xml.Unmarshal([]byte(text), &r); err != nil {
			// Names of metadata are wider than those of XML, and declarations are not read.
			if _, syntax := errors.AsType[*xml.SyntaxError](err); !syntax || strings.ContainsAny(text, "?!#$%'*+^`|~&") {
				return
			}
			t.Fatalf("encoding/xml refuses it: %v", err)
		}
		other, err := r.objects()
		if err != nil || !same(p.objects, other) || p.truncated != r.IsTruncated || p.next != r.NextContinuationToken {
			t.Fatalf("got %+v\nxml %+v (%v)", p, r, err)
		}
	})
}
