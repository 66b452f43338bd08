package bucket

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"
)

// exchange keeps what minio-go does not hand on of the last answer to a request.
type exchange struct {
	status int
	header http.Header
	at     time.Time
}

type exchangeKey struct{}

// observer is a transport that measures, and keeps answers for their askers.
type observer struct {
	next     http.RoundTripper
	pressure func(time.Duration, bool)
}

// RoundTrip implements http.RoundTripper.
func (o *observer) RoundTrip(q *http.Request) (*http.Response, error) {
	began := time.Now()
	a, err := o.next.RoundTrip(q)
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok && string(e.RecordHeader[:]) == "HTTP/" {
		err = http.ErrSchemeMismatch
	}
	if err != nil {
		return nil, err
	}
	if o.pressure != nil {
		o.pressure(time.Since(began), a.StatusCode == http.StatusServiceUnavailable || a.StatusCode == http.StatusTooManyRequests)
	}
	if x, ok := q.Context().Value(exchangeKey{}).(*exchange); ok {
		*x = exchange{status: a.StatusCode, header: a.Header, at: time.Now()}
	}
	return a, nil
}

// again says when a request may be sent once more.
type again int

const (
	// once: what was read for its body is gone.
	once again = iota
	// refused: only after the server refused to begin, as its effect must not be
	// met by its own repetition.
	refused
	// repeatable: after whatever may pass, as doing it twice is doing it once.
	repeatable
)

const (
	firstPause = 100 * time.Millisecond
	longPause  = 3 * time.Second
)

// do runs a request until it succeeds, must not be repeated, or was tried often
// enough, and explains its error. call gets the exchange of its own attempt.
func (b *Bucket) do(ctx context.Context, op, key string, when again, call func(context.Context, *exchange) error) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		x := &exchange{}
		err := b.explain(op, key, x, call(context.WithValue(ctx, exchangeKey{}, x), x))
		if e, ok := errors.AsType[*RequestError](err); ok && e.Reason == ErrUnreachable && ctx.Err() != nil {
			// Who gave up was the caller.
			e.Reason, e.Advice = nil, ""
		}
		if err == nil || attempt >= b.attempts || !when.may(err) || ctx.Err() != nil {
			return err
		}
		// Jitter, so that workers that were refused together do not come back together.
		wait := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return err
		}
		pause = min(2*pause, longPause)
	}
}

func (a again) may(err error) bool {
	if a == once {
		return false
	}
	if errors.Is(err, ErrThrottled) {
		return true
	}
	e, ok := errors.AsType[*RequestError](err)
	return a == repeatable && ok && e.passing()
}
