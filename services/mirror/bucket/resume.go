package bucket

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
)

// MinIO keeps a listing under way in a cache, by an id that the tokens carry. Without
// it - the server was restarted, nobody asked for three minutes, its disk is full -
// it answers as if it had been asked for what comes after a key, and that may end too
// early (see [ListOptions.After]): whoever believed it would take the rest of the
// bucket for deleted. Such a page is right as far as it goes, so that only the last
// page of a listing is doubtful. Whether the cache was there tells a token that is
// given out after it, and where it was not, the listing goes on with a token that has
// the server make a new one.
//
// The tokens are those of cmd/metacache-marker.go in MinIO's sources, unchanged since
// 2021. Those of other servers are left alone.

const (
	tokenTag  = "[minio_cache:"
	returnTag = tokenTag + "v2,return:]"
)

// tagOf is what MinIO says of a cache in a token: its id, or that one shall be made. It
// is "" for tokens of other servers.
func tagOf(token string) string {
	text, err := base64.StdEncoding.DecodeString(token)
	at := strings.LastIndex(string(text), tokenTag)
	if err != nil || at < 0 || !strings.HasSuffix(string(text), "]") {
		return ""
	}
	return string(text[at:])
}

// tokenAfter continues a listing after a key.
func tokenAfter(key, tag string) string {
	return base64.StdEncoding.EncodeToString([]byte(key + tag))
}

// idOf is the cache's in a tag; "" if it has none.
func idOf(tag string) string {
	_, id, _ := strings.Cut(strings.TrimSuffix(tag, "]"), ",id:")
	id, _, _ = strings.Cut(id, ",")
	return id
}

// tail are the last keys of a listing, the very last at the end.
type tail [3]string

func (t *tail) add(p *page) {
	for _, o := range p.objects[max(0, len(p.objects)-len(t)):] {
		*t = tail{t[1], t[2], o.Key}
	}
}

// goOn has a listing that ended with a page go on after it if it cannot be relied on
// to be the last.
func (b *Bucket) goOn(ctx context.Context, q pageRequest, p *page, last tail) error {
	tag := tagOf(q.token)
	if p.truncated || tag == "" {
		return nil
	}
	ended, err := b.ended(ctx, q, tag, last)
	if err != nil || ended {
		return err
	}
	p.truncated, p.next = true, tokenAfter(p.last, returnTag)
	if p.next == q.token {
		return fmt.Errorf("%w: it ends without the cache that MinIO should have made of it; see whether the server's disk is full", ErrListing)
	}
	return nil
}

// ended reports whether MinIO had the cache from which the last page should be: asked
// for a key that is known to have another one after it, it has to continue in it.
func (b *Bucket) ended(ctx context.Context, q pageRequest, tag string, last tail) (bool, error) {
	var p page
	q.token, q.after, q.max = tokenAfter(last[0], tag), last[0], 1
	err := b.do(ctx, "list", "", repeatable, func(ctx context.Context, _ *exchange) error { return b.fetchPage(ctx, q, &p) })
	if err != nil {
		return false, err
	}
	is, was := idOf(tagOf(p.next)), idOf(tag)
	return is != "" && (was == "" || was == is), nil
}
