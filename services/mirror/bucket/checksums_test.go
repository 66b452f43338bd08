package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
)

// asking counts how often a server is asked for its checksums, and what else is written.
type asking struct {
	asked, written atomic.Int64
	// answer, if not nil, is what becomes of the question's answers.
	answer atomic.Pointer[func(*http.Response) error]
}

func (a *asking) isQuestion(q *http.Request) bool {
	return q.Method == http.MethodPost && q.URL.Query().Has("uploads") && strings.HasSuffix(q.URL.Path, ".firedrill-probe")
}

func (a *asking) between(t *testing.T, c Config) Config {
	c = proxy(t, c, func(q *http.Request) {
		switch {
		case a.isQuestion(q):
			a.asked.Add(1)
		case q.Method != http.MethodGet && q.Method != http.MethodHead:
			a.written.Add(1)
		}
	}, func(r *http.Response) error {
		if answer := a.answer.Load(); answer != nil && a.isQuestion(r.Request) {
			return (*answer)(r)
		}
		return nil
	})
	c.Limits.Attempts = 1
	return c
}

// TestWhatAsksForChecksums: the first write of an object by itself, and nothing else.
func TestWhatAsksForChecksums(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	etag := put(t, open(t, c), "there", "text", PutOptions{}).ETag
	for name, step := range map[string]struct {
		do    func(b *Bucket) error
		asked int64
	}{
		"open": {func(*Bucket) error { return nil }, 0},
		"list": {func(b *Bucket) error { list(t, b, ListOptions{Metadata: true}); return nil }, 0},
		"read": {func(b *Bucket) error {
			r, _, err := b.Get(t.Context(), "there", 0, -1)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			return errors.Join(err, r.Close())
		}, 0},
		"batch":  {func(b *Bucket) error { _, err := b.PutBatch(t.Context(), []BatchItem{item("a", "a", nil)}); return err }, 0},
		"delete": {func(b *Bucket) error { return b.Delete(t.Context(), []string{"gone"}) }, 0},
		"attributes": {func(b *Bucket) error {
			_, err := b.SetMeta(t.Context(), "there", SetMetaOptions{IfMatch: etag})
			return err
		}, 0},
		"rewritten": {func(b *Bucket) error {
			_, err := b.SetMeta(t.Context(), "there", SetMetaOptions{IfMatch: etag, Rewrite: true})
			return err
		}, 1},
		"put": {func(b *Bucket) error {
			_, err := b.Put(t.Context(), "a", strings.NewReader("a"), 1, PutOptions{})
			return err
		}, 1},
		"parts": {func(b *Bucket) error {
			u, parts := upload(t, b, "parts", []byte("parts"), MinPart)
			_, err := b.FinishParts(t.Context(), u, parts, FinishOptions{})
			return err
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var a asking
			b := open(t, a.between(t, c))
			if a.written.Load() > 0 {
				t.Errorf("opening writes %d times", a.written.Load())
			}
			must(t, step.do(b))
			if a.asked.Load() != step.asked {
				t.Errorf("asked %d times, want %d", a.asked.Load(), step.asked)
			}
		})
	}
}

// TestAllWhoWaitHearTheAnswer: of all who write at once one question is asked, and its
// failure is that of all of them; only who comes later has it asked again.
func TestAllWhoWaitHearTheAnswer(t *testing.T) {
	var a asking
	const writers = 8
	held, broken := make(chan struct{}), func(*http.Response) error { return errors.New("broken off") }
	hold := func(r *http.Response) error { <-held; return broken(r) }
	a.answer.Store(&hold)
	b := open(t, a.between(t, makeBucket(t, server(t, false), minio.MakeBucketOptions{})))
	write := func(ctx context.Context, i int) error {
		_, err := b.Put(ctx, fmt.Sprint(i), strings.NewReader("a"), 1, PutOptions{})
		return err
	}
	var all, wait sync.WaitGroup
	errs := make([]error, writers)
	wait.Add(writers)
	for i := range writers {
		all.Go(func() { errs[i] = write(&awaited{t.Context(), sync.OnceFunc(wait.Done)}, i) })
	}
	// Who gives up hears that, and not what becomes of the question.
	gone, leave := context.WithCancelCause(t.Context())
	_, err := b.KeepsCRC32C(&awaited{gone, func() { leave(ErrNotFound) }})
	if wants(t, err, context.Canceled); errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreachable) {
		t.Errorf("who gave up hears %v", err)
	}
	wait.Wait()
	close(held)
	all.Wait()
	for _, err := range errs {
		wants(t, err, ErrUnreachable)
	}
	if n := a.asked.Load(); n != 1 || a.written.Load() > 0 {
		t.Errorf("asked %d times, and wrote %d times", n, a.written.Load())
	}
	before := a.asked.Load()
	a.answer.Store(nil)
	must(t, write(t.Context(), 0))
	must(t, write(t.Context(), 1))
	if n := a.asked.Load() - before; n != 1 {
		t.Errorf("asked %d times more", n)
	}
}

// awaited is a context that tells when somebody waits for its end.
type awaited struct {
	context.Context
	waits func()
}

func (a *awaited) Done() <-chan struct{} {
	a.waits()
	return a.Context.Done()
}

// TestWhatIsBelievedOfChecksums: only an answer to the question is kept.
func TestWhatIsBelievedOfChecksums(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	for code, want := range map[string]struct {
		status int
		err    error // nil: it is believed that none are kept
	}{
		"":                   {http.StatusNotFound, ErrNotFound},
		"NotImplemented":     {http.StatusNotImplemented, nil},
		"InvalidArgument":    {http.StatusBadRequest, nil},
		"AccessDenied":       {http.StatusForbidden, nil},
		"InternalError":      {http.StatusInternalServerError, errAny},
		"SlowDown":           {http.StatusServiceUnavailable, ErrThrottled},
		"ExpiredToken":       {http.StatusBadRequest, ErrCredentials},
		"InvalidAccessKeyId": {http.StatusForbidden, ErrCredentials},
		"NoSuchBucket":       {http.StatusNotFound, ErrNoBucket},
	} {
		t.Run(code, func(t *testing.T) {
			var a asking
			refuse := func(r *http.Response) error {
				r.Header.Del("X-Amz-Checksum-Algorithm")
				return answerWith(r, want.status, code)
			}
			a.answer.Store(&refuse)
			b := open(t, a.between(t, c))
			keeps, err := b.KeepsCRC32C(t.Context())
			if keeps || (err == nil) != (want.err == nil) || err != nil && want.err != errAny && !errors.Is(err, want.err) {
				t.Errorf("%v, %v; want %v", keeps, err, want.err)
			}
			a.answer.Store(nil)
			if keeps, err = b.KeepsCRC32C(t.Context()); err != nil || keeps != (want.err != nil) {
				t.Errorf("asked again: %v, %v", keeps, err)
			}
		})
	}
}

var errAny = errors.New("some error")

// TestClosingEndsTheQuestion that nobody waits for any more; that nothing goes on is seen
// when the tests end.
func TestClosingEndsTheQuestion(t *testing.T) {
	var a asking
	came, held := make(chan struct{}), make(chan struct{})
	come := sync.OnceFunc(func() { close(came) })
	hold := func(*http.Response) error { come(); <-held; return nil }
	a.answer.Store(&hold)
	b, err := Open(t.Context(), a.between(t, makeBucket(t, server(t, false), minio.MakeBucketOptions{})))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-came; cancel() }()
	_, err = b.Put(ctx, "a", bytes.NewReader(nil), 0, PutOptions{})
	wants(t, err, context.Canceled)
	b.Close()
	if _, err := b.KeepsCRC32C(ctx); err == nil {
		t.Error("an answer came")
	}
	b.Close()
	close(held)
}
