package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	requestPrefix = "drill.req."
	// unnamed stands for the name that a request's subject lacks.
	unnamed = "unnamed"
)

// RequestSubject is where who asks for a drill under a name.
func RequestSubject(who, name string) string { return requestPrefix + who + "." + name }

// ReadRequestSubject takes a request's subject apart; the answers to it go to who
// and name (see PublishResult). ok is false when it is not of the form
// drill.req.<who>.<name>: name is then one that an answer can be given under all
// the same, for senders listen on drill.res.<who>.>. who is empty when nobody
// could be answered.
func ReadRequestSubject(subject string) (who, name string, ok bool) {
	rest, ours := strings.CutPrefix(subject, requestPrefix)
	who, name, _ = strings.Cut(rest, ".")
	if !ours || !token(who) {
		return "", "", false
	}
	if token(name) {
		return who, name, true
	}
	if name, _, _ = strings.Cut(name, "."); !token(name) {
		name = unnamed
	}
	return who, name, false
}

// Request is a stored request for a drill, as it was published.
type Request struct {
	Subject string
	Seq     uint64
	// MsgID is the message id that it was published with.
	MsgID string
	// Data is the request's body.
	Data []byte
	// Stored is when the server stored it, on the server's wall clock.
	Stored time.Time
}

// ErrNoRequest means that no request is stored at the sequence: it never was, or
// the stream's age limit has removed it.
var ErrNoRequest = errors.New("no such request")

// RequestAt reads the request that Publish stored at a sequence of the stream
// REQUESTS, such as a duplicate's ack names. It retries for up to 10 s.
func (b *Bus) RequestAt(ctx context.Context, seq uint64) (Request, error) {
	r, err := b.get(ctx, StreamRequests, getRequest{Seq: seq})
	switch {
	case errors.Is(err, errNoRecord):
		return Request{}, fmt.Errorf("request %d: %w", seq, ErrNoRequest)
	case err != nil:
		return Request{}, fmt.Errorf("request %d: %w", seq, err)
	}
	return Request{Subject: r.Subject, Seq: r.Seq, MsgID: r.Header.Get("Nats-Msg-Id"), Data: r.Data, Stored: r.Time}, nil
}

// ResultsOf gives fn, oldest first, what was answered on drill.res.<who>.<name> since
// then, by the server's clock; the zero time means all there is. fn's error ends it and
// is returned, but for Stop, which only ends it.
func (b *Bus) ResultsOf(ctx context.Context, who, name string, since time.Time, fn func([]byte) error) error {
	if !token(who) || !token(name) {
		return fmt.Errorf("results for %q of %q: both must be single subject tokens", name, who)
	}
	return b.readAll(ctx, feed{stream: StreamResults, filter: "drill.res." + who + "." + name, since: since}, func(r record) error { return fn(r.Data) })
}
