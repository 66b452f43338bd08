package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

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

// ResultsOf returns what was answered on drill.res.<who>.<name> so far, oldest
// first.
func (b *Bus) ResultsOf(ctx context.Context, who, name string) ([][]byte, error) {
	if !token(who) || !token(name) {
		return nil, fmt.Errorf("results for %q of %q: both must be single subject tokens", name, who)
	}
	var out [][]byte
	err := b.readAll(ctx, feed{stream: StreamResults, filter: "drill.res." + who + "." + name}, func(r record) error {
		out = append(out, r.Data)
		return nil
	})
	return out, err
}

// HistoryAfter is History without the messages up to a place that the caller
// has read: the Tail of the last one it got from History, Follow or HistoryAfter.
// The messages are verified as by History, those before are not read again. It
// includes every append that was acknowledged before the call, and gives none,
// without an error, when the place is the drill's end. What was read before an
// error comes along with it. Each message costs a
// round trip: meant for the few events since the last look at a live drill.
func (b *Bus) HistoryAfter(ctx context.Context, drill string, at Tail) ([]Stored, error) {
	if !event.IsDrillID(drill) {
		return nil, fmt.Errorf("history of drill %q: that is no drill id: %w", drill, ErrNoDrill)
	}
	c := chain{at: at}
	var out []Stored
	for {
		r, err := b.get(ctx, StreamDrills, getRequest{Seq: c.at.Seq + 1, NextFor: drillFilter(drill)})
		if errors.Is(err, errNoRecord) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("history of drill %s after sequence %d: %w", drill, at.Seq, err)
		}
		s := c.link(open(r, b.keyring))
		b.tails.put(drill, s)
		out = append(out, s)
	}
}
