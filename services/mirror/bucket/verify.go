package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
)

// Expected is what an object should be.
type Expected struct {
	Key  string
	Size int64
	// ETag is without quotes.
	ETag string
	// Meta is the user metadata, with names in any case; nil is not compared.
	Meta map[string]string
	// stamp, if not zero, is the time by which a listing without metadata tells that an
	// object is the one that was just written.
	stamp time.Time
}

// verifyHeads is how many objects are looked at alone at the same time.
const verifyHeads = 16

// sparse is how many keys a page of a listing may hold for one that is wanted:
// beyond it, asking for each costs the server less.
const sparse = 8

// Verify compares objects with what they should be: by listing where the keys lie
// close to each other, else one by one. The error is a *KeysError with the keys
// that are missing or different (ErrNotStored), that listings do not show
// (ErrHidden), or that could not be looked at.
func (b *Bucket) Verify(ctx context.Context, expected []Expected) error {
	failed := &KeysError{Op: "verify " + b.String(), Of: len(expected), Failed: b.verify(ctx, expected)}
	return failed.orNil()
}

// verify returns the keys that are not as expected.
func (b *Bucket) verify(ctx context.Context, expected []Expected) []*KeyError {
	sorted := slices.SortedFunc(slices.Values(expected), func(x, y Expected) int { return cmp.Compare(x.Key, y.Key) })
	failed, rest, err := b.verifyListed(ctx, sorted, !b.stamped(ctx, sorted))
	if err != nil {
		for _, e := range rest {
			failed = append(failed, &KeyError{Key: e.Key, Err: err})
		}
		return failed
	}
	errs := b.verifyAlone(ctx, rest)
	b.verifyVisible(ctx, rest, errs)
	for i, err := range errs {
		if err != nil {
			failed = append(failed, &KeyError{Key: rest[i].Key, Err: err})
		}
	}
	return failed
}

// verifyVisible looks above those that are there, once for each directory.
func (b *Bucket) verifyVisible(ctx context.Context, expected []Expected, errs []error) {
	in := map[string][]int{}
	for i, e := range expected {
		if dir := Parent(e.Key); errs[i] == nil {
			in[dir] = append(in[dir], i)
		}
	}
	dirs := slices.Sorted(maps.Keys(in))
	var seen unhidden
	atOnce(len(dirs), func(n int) {
		by, err := b.Obstacle(ctx, expected[in[dirs[n]][0]].Key, seen.has)
		if err == nil && by == "" {
			seen.add(dirs[n])
		}
		if err == nil && by != "" {
			err = fmt.Errorf("%w: there is, or was with versions left, an object %q", ErrHidden, by)
		}
		for _, i := range in[dirs[n]] {
			errs[i] = err
		}
	})
}

// stamped reports whether a listing without metadata will do for all: they can be
// told by their time, and those that were asked for, the one with the longest among them,
// have their metadata.
func (b *Bucket) stamped(ctx context.Context, expected []Expected) bool {
	if len(expected) == 0 || slices.ContainsFunc(expected, func(e Expected) bool { return e.stamp.IsZero() }) {
		return false
	}
	longest := slices.MaxFunc(expected, func(x, y Expected) int { return cmp.Compare(metaSize(x.Meta), metaSize(y.Meta)) })
	for _, e := range []Expected{longest, expected[rand.N(len(expected))]} {
		if b.verifyOne(ctx, e) != nil {
			return false
		}
	}
	return true
}

func metaSize(meta map[string]string) (n int) {
	for name, value := range meta {
		n += len(name) + len(value)
	}
	return n
}

// unhidden are directories that nothing hides. The zero value knows none.
type unhidden struct{ dirs sync.Map }

func (u *unhidden) has(dir string) bool {
	_, ok := u.dirs.Load(dir)
	return ok
}

// add adds a directory and all above it.
func (u *unhidden) add(dir string) {
	for ; dir != "" && !u.has(dir); dir = Parent(dir) {
		u.dirs.Store(dir, true)
	}
}

// verifyListed compares as long as the listing is dense. It returns what is
// different, and the rest: what was not in the listing is there or is not. Without
// meta, what is not as expected is part of the rest.
func (b *Bucket) verifyListed(ctx context.Context, sorted []Expected, meta bool) (failed []*KeyError, rest []Expected, err error) {
	if meta && !b.caps.ListMetadata || len(sorted) == 0 {
		return nil, sorted, nil
	}
	var absent []Expected
	q := pageRequest{prefix: b.prefix, meta: meta, after: before(b.prefix + sorted[0].Key), max: min(2*len(sorted)+sparse, 1000)}
	var p page
	for rest = sorted; len(rest) > 0; q.token, q.after = p.next, p.last {
		err := b.do(ctx, "list", "", repeatable, func(ctx context.Context, _ *exchange) error { return b.fetchPage(ctx, q, &p) })
		if err != nil {
			return failed, append(absent, rest...), err
		}
		had := len(rest)
		for _, o := range p.objects {
			o.Key = o.Key[len(b.prefix):]
			for len(rest) > 0 && rest[0].Key < o.Key {
				absent, rest = append(absent, rest[0]), rest[1:]
			}
			if len(rest) > 0 && rest[0].Key == o.Key {
				if !meta {
					if !rest[0].isStamped(o) {
						absent = append(absent, rest[0])
					}
				} else if err := rest[0].compare(o); err != nil {
					failed = append(failed, &KeyError{Key: o.Key, Err: err})
				}
				rest = rest[1:]
			}
		}
		if !p.truncated {
			break // for MinIO that need not be the end
		}
		if (had-len(rest))*sparse < len(p.objects) {
			break
		}
	}
	return failed, append(absent, rest...), nil
}

// before is a key that comes before another, and close to it.
func before(key string) string {
	_, size := utf8.DecodeLastRuneInString(key)
	return key[:len(key)-size]
}

// verifyAlone asks for each object, and returns what came of each.
func (b *Bucket) verifyAlone(ctx context.Context, expected []Expected) []error {
	errs := make([]error, len(expected))
	atOnce(len(expected), func(i int) { errs[i] = b.verifyOne(ctx, expected[i]) })
	return errs
}

// atOnce does something for all indices below n, several at once.
func atOnce(n int, do func(int)) {
	var g errgroup.Group
	g.SetLimit(verifyHeads)
	for i := range n {
		g.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = g.Wait() // do keeps its errors itself
}

func (b *Bucket) verifyOne(ctx context.Context, e Expected) error {
	o, err := b.Stat(ctx, e.Key)
	switch refused, ok := errors.AsType[*RequestError](err); {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: %w: put it alone to learn why", ErrNotStored, ErrNotFound)
	case ok && !refused.passing() && refused.Reason == nil && ctx.Err() == nil:
		// Such as a name that is too long: it cannot be there.
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	if err != nil {
		return err
	}
	return e.compare(o)
}

// isStamped reports whether a listing shows what was written.
func (e Expected) isStamped(o Object) bool {
	return o.Size == e.Size && o.ETag == e.ETag && o.LastModified.Equal(e.stamp)
}

func (e Expected) compare(o Object) error {
	switch {
	case o.Size != e.Size:
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrNotStored, o.Size, e.Size)
	case o.ETag != e.ETag:
		return fmt.Errorf("%w: its ETag is %q, not %q", ErrNotStored, o.ETag, e.ETag)
	case e.Meta == nil:
		return nil
	case o.Meta == nil:
		return fmt.Errorf("%w: its metadata cannot be read: let these credentials read objects", ErrNotStored)
	}
	want := make(map[string]string, len(e.Meta))
	for name, value := range e.Meta {
		want[http.CanonicalHeaderKey(name)] = value
	}
	if !maps.Equal(want, o.Meta) {
		return fmt.Errorf("%w: its metadata is %q, not %q", ErrNotStored, o.Meta, want)
	}
	return nil
}
