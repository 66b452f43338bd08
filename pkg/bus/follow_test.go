package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestWatchDrillsNowThenNew(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	appendAll := func(drill string, drafts ...event.Draft) {
		t.Helper()
		if _, err := b.Append(t.Context(), drill, drafts...); err != nil {
			t.Fatal(err)
		}
	}
	appendAll("old", accepted(), finished())
	appendAll("running", accepted(), phase(1))
	// A forged opening makes no drill, and a forged ending ends none.
	w.raw(t, "drill.evt.forged.injector.drill-accepted", []byte(`{}`))
	w.raw(t, "drill.evt.running.injector.drill-finished", []byte(`{}`))
	watch := func(got chan string) func(context.Context) error {
		return func(ctx context.Context) error {
			return b.WatchDrills(ctx, func(s bus.Stored) { got <- s.Event.Subject })
		}
	}
	first := make(chan string, 10)
	stop := spawn(t, watch(first))
	if id := await(t, first, 10*time.Second, "drill"); id != "running" {
		t.Fatalf("the first drill is %s, want running", id)
	}
	appendAll("new", accepted())
	if id := await(t, first, 10*time.Second, "new drill"); id != "new" {
		t.Fatalf("the second drill is %s, want new", id)
	}
	stop()
	appendAll("running", finished())
	second := make(chan string, 10)
	spawn(t, watch(second))
	if id := await(t, second, 10*time.Second, "drill after a restart"); id != "new" {
		t.Errorf("after a restart the first drill is %s, want new", id)
	}
	list, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 3 || list[0].Drill != "old" || list[0].Finished == nil || list[2].Finished != nil || list[0].Published != nil {
		t.Errorf("list is %+v", list)
	}
}

// TestForeignMessagesDoNotBreakTheChain puts junk, a copy of a signed event and
// another drill's event into a history: readers set them aside, writers go on,
// and the verification names each.
func TestForeignMessagesDoNotBreakTheChain(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	first, err := b.Append(t.Context(), "d", accepted(), phase(1))
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Append(t.Context(), "other", accepted())
	if err != nil {
		t.Fatal(err)
	}
	w.raw(t, "drill.evt.d.injector.phase-started", first[1].Raw)
	w.raw(t, "drill.evt.d.injector.drill-accepted", other[0].Raw)
	w.raw(t, "drill.evt.d.injector.drill-finished", []byte("junk"))
	fresh := w.connect(event.Injector)
	if _, err := fresh.Append(t.Context(), "d", phase(2), finished()); err != nil {
		t.Fatal(err)
	}
	history, err := b.History(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	var raws [][]byte
	trusted := 0
	for _, s := range history {
		raws = append(raws, s.Raw)
		switch {
		case s.Trust == nil:
			trusted++
		case !errors.Is(s.Trust, bus.ErrUntrusted) || s.Payload != nil:
			t.Errorf("message %d: trust %v, payload %v", s.Seq, s.Trust, s.Payload)
		}
	}
	if trusted != 4 || len(history) != 7 {
		t.Errorf("%d of %d messages are trusted, want 4 of 7", trusted, len(history))
	}
	v := event.VerifyHistory(raws, w.ring)
	if len(v.Findings) != 3 || v.Events != 4 {
		t.Errorf("verification: %d events, findings %v", v.Events, v.Findings)
	}
	if at := history[6].Tail(); at.Index != 4 {
		t.Errorf("the tail is %+v", at)
	}
	if _, err := b.AppendAt(t.Context(), "d", history[6].Tail(), phase(3)); err != nil {
		t.Error(err)
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

// TestHistoryAfterAsksLittle: a few messages leave no consumer behind, and many do
// not cost a request each.
func TestHistoryAfterAsksLittle(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	head, err := b.Append(t.Context(), "d", accepted())
	if err != nil {
		t.Fatal(err)
	}
	const gets, consumers = "$JS.API.STREAM.MSG.GET." + bus.StreamDrills, "$JS.API.CONSUMER.CREATE." + bus.StreamDrills + ".>"
	for _, c := range []struct{ events, gets, consumers int }{{1, 2, 0}, {2, 4, 0}, {20, 4, 1}} {
		for n := range c.events {
			if _, err := b.Append(t.Context(), "d", phase(n)); err != nil {
				t.Fatal(err)
			}
		}
		nc := w.plain(t)
		end, err := nc.SubscribeSync("drill.res.me.end")
		if err != nil {
			t.Fatal(err)
		}
		asked := map[string]*nats.Subscription{}
		for _, subject := range []string{gets, consumers} {
			if asked[subject], err = nc.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.HistoryAfter(t.Context(), "d", head[0].Tail()); err != nil {
			t.Fatal(err)
		}
		// What b sends is passed on in its order: when this has come, all before it has.
		if err := b.PublishResult(t.Context(), "me", "end", namedAnswer{c.events}); err != nil {
			t.Fatal(err)
		}
		if _, err := end.NextMsg(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		for subject, want := range map[string]int{gets: c.gets, consumers: c.consumers} {
			if got, _, err := asked[subject].Pending(); err != nil || got != want {
				t.Errorf("%d more events: %d requests to %s, %v, want %d", c.events, got, subject, err, want)
			}
		}
	}
}

func TestFirst(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	for _, id := range []string{"none", "", "d.*"} {
		if _, err := b.First(t.Context(), id); !errors.Is(err, bus.ErrNoDrill) {
			t.Errorf("%q: %v", id, err)
		}
	}
	w.raw(t, "drill.evt.forged.injector.drill-accepted", []byte(`{}`))
	if s, err := b.First(t.Context(), "forged"); err != nil || !errors.Is(s.Trust, bus.ErrUntrusted) {
		t.Errorf("forged: %v, %v", s.Trust, err)
	}
	want, err := b.Append(t.Context(), "d", accepted(), phase(1))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := b.First(t.Context(), "d"); err != nil || s.Trust != nil || s.Tail() != want[0].Tail() {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestFollowEndsAsAsked(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	if _, err := b.Append(t.Context(), "d", accepted(), phase(1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Follow(t.Context(), "d", func(bus.Stored) error { return bus.Stop }); err != nil {
		t.Errorf("Stop: %v", err)
	}
	mine := errors.New("mine")
	if err := b.Follow(t.Context(), "d", func(bus.Stored) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("own error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := b.Follow(ctx, "d", func(s bus.Stored) error {
		if s.Event.ChainIndex == 2 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := b.Follow(t.Context(), "d.*", func(bus.Stored) error { return nil }); err == nil {
		t.Error("a wildcard drill was followed")
	}
}
