package bus_test

import (
	"errors"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestRequestAt(t *testing.T) {
	b := newWorld(t).connect(event.Reporter)
	ack, err := b.Publish(t.Context(), "drill.req.ci.x", []byte("a drill"), "key-1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.RequestAt(t.Context(), ack.Seq)
	if err != nil || string(got.Data) != "a drill" || got.Subject != "drill.req.ci.x" || got.MsgID != "key-1" || got.Seq != ack.Seq || got.Stored.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := b.RequestAt(t.Context(), ack.Seq+1); !errors.Is(err, bus.ErrNoRequest) {
		t.Errorf("a request that was never stored: %v, want ErrNoRequest", err)
	}
}

// TestHistoryAfter reads a growing history piece by piece, with another drill's
// events and a forged message in between: the pieces are the whole.
func TestHistoryAfter(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	grow := func(drill string, drafts ...event.Draft) {
		t.Helper()
		if _, err := b.Append(t.Context(), drill, drafts...); err != nil {
			t.Fatal(err)
		}
	}
	grow("d1", accepted(), phase(1))
	grow("d2", accepted())
	pieces, err := b.History(t.Context(), "d1")
	if err != nil {
		t.Fatal(err)
	}
	if none, err := b.HistoryAfter(t.Context(), "d1", pieces[1].Tail()); err != nil || len(none) != 0 {
		t.Errorf("after the end: %d messages, %v", len(none), err)
	}
	grow("d1", phase(2))
	w.raw(t, "drill.evt.d1.injector.phase-started", []byte("forged"))
	grow("d2", phase(1))
	grow("d1", phase(3), phase(4))
	for range 2 {
		more, err := b.HistoryAfter(t.Context(), "d1", pieces[len(pieces)-1].Tail())
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, more...)
	}
	whole, err := b.History(t.Context(), "d1")
	if err != nil {
		t.Fatal(err)
	}
	if len(pieces) != len(whole) || len(whole) != 6 {
		t.Fatalf("the pieces have %d messages, the whole %d", len(pieces), len(whole))
	}
	for i, p := range pieces {
		if x := whole[i]; p.Seq != x.Seq || string(p.Raw) != string(x.Raw) || (p.Trust == nil) != (x.Trust == nil) || p.Tail() != x.Tail() || (p.Payload == nil) != (x.Payload == nil) {
			t.Errorf("message %d: %+v, in the whole history %+v", i+1, p, x)
		}
	}
	if from, err := b.HistoryAfter(t.Context(), "d1", bus.Tail{}); err != nil || len(from) != len(whole) {
		t.Errorf("from the start: %d messages, %v", len(from), err)
	}
}
