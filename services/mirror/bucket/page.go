package bucket

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// page is one answer to a listing. Its memory is used again for the next.
type page struct {
	body    bytes.Buffer
	objects []Object
	// keys are those of the objects as they are written in the body.
	keys      [][]byte
	truncated bool
	// dirs are the directories of a flat page.
	dirs []string
	// next continues the listing after this page.
	next string
	// last is the last key, with the prefix: what must come next is greater.
	last string
	err  error
}

// fields of an object in a listing, to tell that each is there once.
const (
	fieldKey = 1 << iota
	fieldSize
	fieldModified
	fieldETag
	fieldMeta
	fieldsNeeded = fieldKey | fieldSize | fieldModified
)

// scan reads the page that was asked for from its body. Keys have the prefix, and are
// greater than what they come after and than each other. Nothing of a page is used
// unless all of it was read.
func (p *page) scan(q pageRequest) error {
	p.objects, p.keys, p.dirs = p.objects[:0], p.keys[:0], nil
	p.truncated, p.next, p.last = false, "", q.after
	t, err := newTags(p.body.Bytes())
	if err != nil {
		return err
	}
	root, closes, err := t.tag()
	if err != nil {
		return err
	}
	if closes || string(root) != "ListBucketResult" {
		return t.errorf("a ListBucketResult is expected, not %s", root)
	}
	list := listing{page: p, tags: t, meta: q.meta, flat: q.flat, count: -1}
	if err := t.children(root, list.field); err != nil {
		return err
	}
	if t.space(); t.at < len(t.data) {
		return t.errorf("there is more after the end")
	}
	if err := list.check(); err != nil {
		return err
	}
	if err := p.resolve(q.prefix, list.encoded); err != nil {
		return err
	}
	return p.resolveDirs(q.prefix, list.encoded)
}

// listing is what a page is while it is read.
type listing struct {
	*page
	tags *tags
	meta bool
	flat bool
	// encoded says that keys are percent-encoded; it is told after them.
	encoded bool
	// count is how many keys the server says there are, or -1.
	count int
	// told notes that the server said whether there are more pages.
	told bool
	seen map[string]bool
}

// field reads one element of the listing.
func (l *listing) field(name []byte) error {
	switch string(name) {
	case "Contents":
		return l.object(name)
	case "CommonPrefixes":
		return l.dir(name)
	case "IsTruncated", "NextContinuationToken", "KeyCount", "EncodingType":
	default:
		return l.tags.skip(name, 1)
	}
	text, err := l.tags.leaf(name)
	if err != nil {
		return err
	}
	if l.seen[string(name)] {
		return l.tags.errorf("%s is there twice", name)
	}
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	l.seen[string(name)] = true
	switch string(name) {
	case "IsTruncated":
		l.told, l.truncated = true, string(text) == "true"
		if !l.truncated && string(text) != "false" {
			return l.tags.errorf("IsTruncated is %q", text)
		}
	case "NextContinuationToken":
		l.next = string(text)
	case "KeyCount":
		if l.count, err = strconv.Atoi(string(text)); err != nil || l.count < 0 {
			return l.tags.errorf("KeyCount is %q", text)
		}
	case "EncodingType":
		if l.encoded = string(text) == "url"; !l.encoded && len(text) > 0 {
			return l.tags.errorf("EncodingType is %q", text)
		}
	}
	return nil
}

// dir reads one CommonPrefixes element.
func (l *listing) dir(prefixes []byte) error {
	if !l.flat {
		return l.tags.skip(prefixes, 1)
	}
	return l.tags.children(prefixes, func(name []byte) error {
		if string(name) != "Prefix" {
			return l.tags.skip(name, 2)
		}
		text, err := l.tags.leaf(name)
		l.dirs = append(l.dirs, string(text))
		return err
	})
}

// object reads one Contents element.
func (l *listing) object(contents []byte) error {
	var o Object
	var key []byte
	seen := 0
	err := l.tags.children(contents, func(name []byte) error {
		field := 0
		switch string(name) {
		case "Key":
			field = fieldKey
		case "Size":
			field = fieldSize
		case "LastModified":
			field = fieldModified
		case "ETag":
			field = fieldETag
		case "UserMetadata":
			field = fieldMeta
		default:
			return l.tags.skip(name, 2)
		}
		if seen&field != 0 {
			return l.tags.errorf("an object has %s twice", name)
		}
		seen |= field
		if field == fieldMeta {
			return l.userMeta(name, &o)
		}
		text, err := l.tags.leaf(name)
		if err != nil {
			return err
		}
		if field == fieldKey {
			key = text
			return nil
		}
		return l.attribute(field, text, &o)
	})
	if err != nil {
		return err
	}
	if seen&fieldsNeeded != fieldsNeeded || len(key) == 0 {
		return l.tags.errorf("an object lacks its key, size or time")
	}
	l.keys = append(l.keys, key)
	l.objects = append(l.objects, o)
	return nil
}

func (l *listing) attribute(field int, text []byte, o *Object) (err error) {
	switch field {
	case fieldSize:
		if o.Size, err = strconv.ParseInt(string(text), 10, 64); err != nil || o.Size < 0 {
			return l.tags.errorf("a size is %q", text)
		}
	case fieldModified:
		if o.LastModified, err = time.Parse(time.RFC3339, string(text)); err != nil {
			return l.tags.errorf("a time is %q", text)
		}
	case fieldETag:
		o.ETag = string(bytes.Trim(text, `"`))
	}
	return nil
}

// userMeta reads the metadata that MinIO adds when it is asked to.
func (l *listing) userMeta(name []byte, o *Object) error {
	if !l.meta {
		return l.tags.skip(name, 3)
	}
	o.Meta = map[string]string{}
	return l.tags.children(name, func(header []byte) error {
		name := string(header)
		text, err := l.tags.leaf(header)
		if err != nil {
			return err
		}
		if len(name) > len(metaPrefix) && strings.EqualFold(name[:len(metaPrefix)], metaPrefix) {
			o.Meta[http.CanonicalHeaderKey(name[len(metaPrefix):])] = string(text)
		}
		return nil
	})
}

// check compares what the server says of the page with what was in it.
func (l *listing) check() error {
	switch {
	case !l.told:
		return l.tags.errorf("it does not say whether there is more")
	case l.truncated && l.next == "":
		return l.tags.errorf("there is more, and it does not say where")
	case l.count >= 0 && l.count != len(l.keys)+len(l.dirs):
		return l.tags.errorf("it says that there are %d keys, and %d are there", l.count, len(l.keys)+len(l.dirs))
	}
	return nil
}

// resolve decodes the keys and checks their order.
func (p *page) resolve(prefix string, encoded bool) error {
	for i, raw := range p.keys {
		key, err := decodeKey(string(raw), prefix, encoded)
		if err != nil {
			return err
		}
		if key <= p.last {
			return fmt.Errorf("key %q comes after %q: this server does not list in order, which the mirror needs", key, p.last)
		}
		p.last, p.objects[i].Key = key, key
	}
	return nil
}

// resolveDirs decodes the directories of a flat page and checks their order.
func (p *page) resolveDirs(prefix string, encoded bool) error {
	last := ""
	for i, raw := range p.dirs {
		dir, err := decodeKey(raw, prefix, encoded)
		switch {
		case err != nil:
			return err
		case !strings.HasSuffix(dir, "/"):
			return fmt.Errorf("the directory %q does not end with a slash", dir)
		case dir <= last:
			return fmt.Errorf("the directory %q comes after %q", dir, last)
		}
		last, p.dirs[i] = dir, dir
	}
	return nil
}

// decodeKey gives a key, which has a prefix, as it is in the bucket.
func decodeKey(key, prefix string, encoded bool) (string, error) {
	if encoded {
		raw := key
		var err error
		if key, err = url.QueryUnescape(raw); err != nil {
			return "", fmt.Errorf("key %q: %w", raw, err)
		}
	}
	if !strings.HasPrefix(key, prefix) {
		return "", fmt.Errorf("key %q does not begin with %q", key, prefix)
	}
	return key, nil
}
