package bucket

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/minio/minio-go/v7"
)

// Object is what is known of an object. A field that was not asked for, or that
// the server did not tell, is zero.
type Object struct {
	// Key is without the bucket's prefix.
	Key string
	// Size is the number of bytes of the whole object.
	Size int64
	// ETag is without quotes: the content's MD5, unless it was written in parts or
	// is encrypted.
	ETag string
	// LastModified is when it was written, or what PutOptions.MTime said; in
	// milliseconds from a listing, in seconds otherwise.
	LastModified time.Time
	// Asked is the server's own time, in whole seconds, when it answered Stat or Get;
	// zero if it did not say.
	Asked time.Time
	// Meta is the user metadata, by names in the form of http.CanonicalHeaderKey,
	// without X-Amz-Meta-. nil means not told, empty means none.
	Meta map[string]string
	// Headers are those that say what the content is, as far as they are set:
	// Content-Type, Content-Encoding, Content-Language, Content-Disposition,
	// Cache-Control and Expires. Stat and Get tell them.
	Headers map[string]string
	// Encryption is how the server encrypts it, such as "AES256" or "aws:kms": with
	// the latter the ETag is no MD5. Stat and Get tell it.
	Encryption string
	// VersionID is set by Stat and Get in a bucket with versions.
	VersionID string
	// CRC32C is that of the whole content, from Stat and Get; nil if the server
	// does not know it.
	CRC32C *uint32
}

// ListOptions say what of a bucket is listed.
type ListOptions struct {
	// Prefix is what keys begin with, beside the bucket's own prefix.
	Prefix string
	// Metadata asks for Object.Meta. Where the credentials may not read an object
	// MinIO keeps it back without an error, and Meta is nil. It needs
	// Capabilities.ListMetadata.
	Metadata bool
	// After leaves out the keys up to this one, itself included. It costs the
	// server more than Prefix, and with MinIO such a listing may end too early: a
	// key that is not in it may be in the bucket. Where it begins in a/, the server
	// walks a-x/ and a.x/ before it, leaves out what it found there, and stops when
	// it has walked over as many as a page holds, although it has given none.
	After string
	// Without leaves out a directory right below the bucket's own prefix, which ends with
	// '/': where that can be done it is not even walked. Passed, if not nil, is told, maybe
	// more than once, that there is something in it.
	Without string
	Passed  func()
	// PageSize is how many keys one request asks for: 1 to 1000. 0 means 1000, and that
	// the next page is fetched while one is used; whoever asks for less may want no more.
	PageSize int
}

// List lists objects in the order of their keys' bytes, the latest version of
// each. An error comes last, with a zero Object; without one the listing was
// complete. A page that breaks off, is malformed, out of order or not what it says
// of itself wraps ErrListing, and none of its keys were yielded. MinIO is asked for
// large directories by prefixes of their own, several at once. Memory does not grow
// with the bucket.
func (b *Bucket) List(ctx context.Context, o ListOptions) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if o.Metadata && !b.caps.ListMetadata {
			yield(Object{}, fmt.Errorf("list %s: %w: the server lists no metadata; ask for each object", b, ErrUnsupported))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		l := &lister{Bucket: b, ctx: ctx, yield: yield, passed: o.Passed}
		if o.Without != "" {
			l.without = b.prefix + o.Without
		}
		defer l.fetchers.Wait()
		defer cancel()
		all := l.fetch(o, new(page))
		first, ok := <-all.ready
		if !ok {
			l.cancelled(o.Prefix)
			return
		}
		if dirs := l.split(o, first); dirs != nil {
			l.listDirs(o, all, first, dirs)
			return
		}
		if o.PageSize == 0 {
			all.used <- new(page)
		}
		if l.show(first, "") && first.truncated {
			all.used <- first
			l.drain(all, o.Prefix, "")
		}
	}
}

// lister is one call of List.
type lister struct {
	*Bucket
	ctx      context.Context
	yield    func(Object, error) bool
	fetchers sync.WaitGroup
	// without is ListOptions.Without with the bucket's prefix.
	without string
	passed  func()
	// last is the key, with the bucket's prefix, that was yielded last.
	last string
}

// fetching is a listing of one prefix under way: its pages come out of ready in order,
// and what comes back into used is filled again.
type fetching struct{ used, ready chan *page }

// fetch begins a listing. As many pages are fetched ahead as it has.
func (l *lister) fetch(o ListOptions, pages ...*page) fetching {
	f := fetching{make(chan *page, 2), make(chan *page)}
	for _, p := range pages {
		f.used <- p
	}
	l.fetchers.Go(func() {
		defer close(f.ready)
		l.fetchPages(l.ctx, o, f.used, f.ready)
	})
	return f
}

// drain yields the rest of a listing, as far as it comes after a key, and reports
// whether more is wanted.
func (l *lister) drain(f fetching, prefix, after string) bool {
	for p := range f.ready {
		if !l.show(p, after) {
			return false
		}
		if !p.truncated {
			return true
		}
		f.used <- p
	}
	l.cancelled(prefix)
	return false
}

// show yields what a page holds.
func (l *lister) show(p *page, after string) bool {
	if p.err != nil {
		l.yield(Object{}, p.err)
		return false
	}
	for _, object := range p.objects {
		if object.Key <= after {
			continue
		}
		l.last = object.Key
		if l.without != "" && strings.HasPrefix(object.Key, l.without) {
			l.pass()
			continue
		}
		object.Key = object.Key[len(l.prefix):]
		if !l.yield(object, nil) {
			return false
		}
	}
	return true
}

// pass tells that there is something in what is left out.
func (l *lister) pass() {
	if l.passed != nil {
		l.passed()
		l.passed = nil
	}
}

// cancelled says why a listing came without a last page: only one that was cancelled does.
func (l *lister) cancelled(prefix string) {
	l.yield(Object{}, l.gaveUp(l.ctx, "list", prefix))
}

// fetchPages sends pages until the last or an error.
func (b *Bucket) fetchPages(ctx context.Context, o ListOptions, used <-chan *page, ready chan<- *page) {
	q := pageRequest{prefix: b.prefix + o.Prefix, meta: o.Metadata, max: o.PageSize}
	if o.After != "" {
		q.after = b.prefix + o.After
	}
	if q.max <= 0 || q.max > 1000 {
		q.max = 1000
	}
	var last tail
	q.max = max(q.max, len(last)) // so that after the first page it is full
	for {
		var p *page
		select {
		case p = <-used:
		case <-ctx.Done():
			return
		}
		p.err = b.do(ctx, "list", o.Prefix, repeatable, func(ctx context.Context, _ *exchange) error { return b.fetchPage(ctx, q, p) })
		if p.err == nil {
			last.add(p)
			p.err = b.goOn(ctx, q, p, last)
		}
		if p.err == nil && p.truncated && p.next == q.token {
			p.err = fmt.Errorf("list %s: %w: the server continues where it was", b, ErrListing)
		}
		done := p.err != nil || !p.truncated
		q.token, q.after = p.next, p.last
		if end := behind(b.prefix + o.Without); o.Without != "" && b.caps.Server != MinIO && strings.HasPrefix(p.last, b.prefix+o.Without) && p.last < end {
			q.token, q.after = "", end // MinIO may end such a listing too early
		}
		select {
		case ready <- p:
		case <-ctx.Done():
			return
		}
		if done {
			return
		}
	}
}

// behind is a key that comes after nearly all in a directory, and before all behind it.
func behind(dir string) string { return dir + string(utf8.MaxRune) }

// pageRequest asks for a page. Keys are with the bucket's prefix.
type pageRequest struct {
	prefix, after, token string
	meta                 bool
	// flat asks for directories instead of what lies in them.
	flat bool
	max  int
}

// maxPage bounds a page: a thousand keys of 1 KiB, encoded, with metadata.
const maxPage = 64 << 20

// fetchPage fetches and scans one page, completely or not at all.
func (b *Bucket) fetchPage(ctx context.Context, q pageRequest, p *page) error {
	query := url.Values{"list-type": {"2"}, "encoding-type": {"url"}, "prefix": {q.prefix}, "max-keys": {strconv.Itoa(q.max)}}
	switch {
	case q.token != "":
		query.Set("continuation-token", q.token)
	case q.after != "":
		query.Set("start-after", q.after)
	}
	if q.meta {
		query.Set("metadata", "true")
	}
	if q.flat {
		query.Set("delimiter", "/")
	}
	u := *b.base
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	answer, err := b.get(ctx, u.String(), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return readError(answer)
	}
	p.body.Reset()
	n, err := p.body.ReadFrom(io.LimitReader(answer.Body, maxPage+1))
	if err != nil {
		return fmt.Errorf("%w: it broke off after %d bytes: %w", ErrUnreachable, n, err)
	}
	if n > maxPage {
		return fmt.Errorf("%w: a page is larger than %d bytes", ErrListing, maxPage)
	}
	if err := p.scan(q); err != nil {
		return fmt.Errorf("%w: %w", ErrListing, err)
	}
	return nil
}

// get sends a signed GET, past minio-go, which parses answers to the last header, needed
// or not.
func (b *Bucket) get(ctx context.Context, url string, header http.Header) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(q.Header, header)
	return b.roundTrip(q, emptySHA256)
}

// roundTrip signs a request and sends it, past http.Client, which has nothing to add:
// redirects are not followed. payload is the hash of its body, or what stands for it. The
// caller looks at the status and closes the answer's body.
func (b *Bucket) roundTrip(q *http.Request, payload string) (*http.Response, error) {
	from := b.core.CredContext()
	from.Context = q.Context()
	keys, err := b.creds.GetWithContext(from)
	if err != nil {
		return nil, fmt.Errorf("%w: none can be had: %w", ErrCredentials, err)
	}
	if err := b.signer.sign(q, payload, keys, b.region); err != nil {
		return nil, err
	}
	return b.observed.RoundTrip(q)
}

// readError reads an S3 error as minio-go does.
func readError(answer *http.Response) error {
	e := minio.ErrorResponse{Code: answer.Status, Message: "the answer holds no S3 error: is this an S3 server?"}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err == nil {
		var told minio.ErrorResponse
		if xml.Unmarshal(text, &told) == nil && told.Code != "" {
			e = told
		}
	}
	e.StatusCode = answer.StatusCode
	if e.Region == "" {
		e.Region = answer.Header.Get("X-Amz-Bucket-Region")
	}
	return e
}
