package bucket

import (
	"fmt"
	"slices"
	"testing"

	"github.com/minio/minio-go/v7"
)

// TestChildren asks for parts of a directory, below whose directories there is more.
func TestChildren(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	c.Prefix = "below & here/"
	b := open(t, c)
	for _, key := range []string{"d/a", "d/a.b", "d/a x/1", "d/a x/2/3", "d/ä/1", "d/ö", "d/.hidden", "d/b/", "e/1", "d.1"} {
		put(t, b, key, "", PutOptions{})
	}
	for prefix, want := range map[string][2][]string{
		"":       {{"d.1"}, {"d/", "e/"}},
		"d":      {{"d.1"}, {"d/"}},
		"d/":     {{"d/.hidden", "d/a", "d/a.b", "d/ö"}, {"d/a x/", "d/b/", "d/ä/"}},
		"d/a":    {{"d/a", "d/a.b"}, {"d/a x/"}},
		"d/a x/": {{"d/a x/1"}, {"d/a x/2/"}},
		"d/ä":    {nil, {"d/ä/"}},
		"none":   {nil, nil},
	} {
		got, err := b.Children(t.Context(), prefix)
		must(t, err)
		var keys []string
		for _, o := range got.Objects {
			keys = append(keys, o.Key)
		}
		if !slices.Equal(keys, want[0]) || !slices.Equal(got.Dirs, want[1]) || !got.All {
			t.Errorf("%q: got %q, %q, all %v, want %q", prefix, keys, got.Dirs, got.All, want)
		}
	}
	var items []BatchItem
	for i := range MaxBatchItems {
		items = append(items, item(fmt.Sprintf("many/%d", i), "x", nil))
	}
	_, err := b.PutBatch(t.Context(), items)
	must(t, err)
	put(t, b, "many/more/1", "", PutOptions{})
	if got, err := b.Children(t.Context(), "many/"); err != nil || len(got.Objects) != 1000 || got.All {
		t.Errorf("of more than a page got %d, all %v, %v", len(got.Objects), got.All, err)
	}
}

// TestAFlatPage is about what a server might say of directories.
func TestAFlatPage(t *testing.T) {
	page1 := func(dirs ...string) string {
		text := fmt.Sprintf("<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>%d</KeyCount>", len(dirs))
		for _, d := range dirs {
			text += "<CommonPrefixes><Prefix>" + d + "</Prefix></CommonPrefixes>"
		}
		return text + "</ListBucketResult>"
	}
	scan := func(q pageRequest, text string) (page, error) {
		var p page
		p.body.WriteString(text)
		return p, p.scan(q)
	}
	if p, err := scan(pageRequest{prefix: "a", flat: true}, page1("a/", "a0/")); err != nil || !slices.Equal(p.dirs, []string{"a/", "a0/"}) {
		t.Errorf("got %q, %v", p.dirs, err)
	}
	for name, text := range map[string]string{
		"no slash": page1("a"), "elsewhere": page1("b/"), "no order": page1("a0/", "a/"), "twice": page1("a/", "a/"), "no name": page1(""),
	} {
		if _, err := scan(pageRequest{prefix: "a", flat: true}, text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// Nobody asked for directories: what lies in them is missing.
	if _, err := scan(pageRequest{prefix: "a"}, page1("a/")); err == nil {
		t.Error("no error for directories that were not asked for")
	}
}
