package injector

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDrillRunsToItsEnd(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.inject("i1", d, time.Second)
	id := r.accepted(fakeDrill)
	st := r.outcome(r.playOthers(id, nil), d)
	if !st.Finished.Complete || st.Abort != nil {
		t.Fatalf("%+v, abort %+v", st.Finished, st.Abort)
	}
}

// TestTakeover: the injector is stopped at each of its events; another one ends
// the drill, injects nothing twice and leaves nothing broken.
func TestTakeover(t *testing.T) {
	for k := range 14 {
		t.Run(fmt.Sprintf("event %d", k), func(t *testing.T) {
			t.Parallel()
			takeoverAt(t, k)
		})
	}
}

func takeoverAt(t *testing.T, k int) {
	r, d := newRig(t), newFakeDriver()
	var whose sync.Map
	note := func(_ context.Context, op target.Operation) error {
		if op.Run == "" {
			t.Errorf("%s does not tell its drill from others of the id", op.Step)
		}
		whose.Store(op.Whose(), true)
		return nil
	}
	d.do, d.undo = note, note
	stop := r.inject("i0", d, 300*time.Millisecond)
	id := r.accepted(fakeDrill)
	n := 0
	history := r.playOthers(id, func(s bus.Stored) {
		if s.Event.Service() != event.Injector {
			return
		}
		if n == k {
			stop()
			r.inject("i1", d, 300*time.Millisecond)
		}
		n++
	})
	r.outcome(history, d)
	names := 0
	whose.Range(func(any, any) bool { names++; return true })
	if names != 1 {
		t.Errorf("its conductors act for %d drills", names)
	}
	if n <= k {
		t.Fatalf("the injector wrote only %d events", n)
	}
}

// TestZombieIsFenced: an injector whose effect hangs past its lease is replaced;
// when it wakes up, its outcome is not recorded and it does nothing more.
func TestZombieIsFenced(t *testing.T) {
	r := newRig(t)
	asleep, wake := make(chan struct{}), make(chan struct{})
	zombie := newFakeDriver()
	zombie.do = func(ctx context.Context, op target.Operation) error {
		if op.Step == "p/fault/break" {
			close(asleep)
			<-wake
		}
		return nil
	}
	stop := r.inject("zombie", zombie, time.Hour) // it never renews in time
	id := r.accepted(fakeDrill)
	go func() {
		<-asleep
		fresh := newFakeDriver()
		r.inject("fresh", fresh, 300*time.Millisecond)
	}()
	history := r.playOthers(id, nil)
	close(wake)
	stop()
	st := fold(history)
	if st.Lease.Holder != "fresh" || st.Finished.Complete || st.Abort == nil {
		t.Fatalf("lease %+v finished %+v", st.Lease, st.Finished)
	}
	for _, h := range history {
		if h.Event.Type == event.TypeFaultInjected {
			t.Fatal("the zombie's outcome was recorded")
		}
	}
}

func TestAbortUndoesEverything(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.inject("i1", d, time.Second)
	id := r.accepted(fakeDrill)
	history := r.playOthers(id, func(s bus.Stored) {
		if s.Event.Type == event.TypeFaultInjected {
			if err := r.bus.Command(t.Context(), id, "abort", []byte(`{"by":"me","reason":"enough"}`)); err != nil {
				t.Error(err)
			}
		}
	})
	st := r.outcome(history, d)
	if st.Abort == nil || st.Abort.By != "me" || st.Finished.Complete {
		t.Fatalf("abort %+v finished %+v", st.Abort, st.Finished)
	}
}

func TestHaltAbortsAndBlocks(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.inject("i1", d, time.Second)
	id := r.accepted(fakeDrill)
	history := r.playOthers(id, func(s bus.Stored) {
		if s.Event.Type == event.TypeFaultInjected {
			if err := r.bus.SetHalt(t.Context(), bus.Halt{Halted: true, By: "boss", Reason: "fire"}); err != nil {
				t.Error(err)
			}
		}
	})
	if st := r.outcome(history, d); st.Abort == nil || st.Abort.Cause != drill.CauseHalt {
		t.Fatalf("abort %+v", st.Abort)
	}
	if res := r.ask(fakeDrill); res.State != "rejected" || !strings.Contains(res.Reason, "boss") {
		t.Fatalf("a halted firedrill answered %+v", res)
	}
	if err := r.bus.SetHalt(t.Context(), bus.Halt{By: "boss"}); err != nil {
		t.Fatal(err)
	}
	r.outcome(r.playOthers(r.accepted(fakeDrill), nil), newFakeDriver())
}

// TestBusyTargetIsRefused: one target is under one drill at a time.
func TestBusyTargetIsRefused(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.inject("i1", d, time.Second)
	id := r.accepted(fakeDrill)
	if res := r.ask(fakeDrill); res.State != "rejected" || !strings.Contains(res.Reason, id) {
		t.Fatalf("answer: %+v", res)
	}
	r.outcome(r.playOthers(id, nil), d)
}

// TestDriverFailures: errors and panics of a driver end in a clean drill.
func TestDriverFailures(t *testing.T) {
	cases := map[string]func(*fakeDriver){
		"fault fails": func(d *fakeDriver) {
			d.do = func(_ context.Context, op target.Operation) error { return fakeError(op, "p/fault/break") }
		},
		"fault panics": func(d *fakeDriver) {
			d.do = func(_ context.Context, op target.Operation) error { panic("boom") }
		},
		"plan panics":     func(d *fakeDriver) { d.plan = func(target.Operation) error { panic("boom") } },
		"identity panics": func(d *fakeDriver) { d.identify = func() { panic("boom") } },
		"undo fails": func(d *fakeDriver) {
			d.undo = func(_ context.Context, op target.Operation) error { return fakeError(op, "p/fault/break") }
		},
		"undo panics": func(d *fakeDriver) {
			d.undo = func(context.Context, target.Operation) error { panic("boom") }
		},
	}
	for name, sabotage := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, d := newRig(t), newFakeDriver()
			sabotage(d)
			r.inject("i1", d, time.Second)
			st := r.outcome(r.playOthers(r.accepted(fakeDrill), nil), d)
			if st.Finished.Complete || st.Finished.Reason == "" || strings.Contains(name, "panics") && d.undo == nil && !strings.Contains(st.Finished.Reason, "the driver panicked: boom") {
				t.Fatalf("finished %+v", st.Finished)
			}
			if undo := d.undo != nil; undo != (len(st.Finished.Outstanding) > 0) {
				t.Fatalf("outstanding %v", st.Finished.Outstanding)
			}
		})
	}
}

// TestADriverThatStumblesOverARequest: what a requester wrote ends no process.
func TestADriverThatStumblesOverARequest(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	d.check = func(json.RawMessage) error { panic("boom") }
	r.inject("i1", d, time.Second)
	res := r.ask(fakeDrill)
	if res.State != "rejected" || len(res.Problems) != 1 || res.Problems[0].Field != "spec.targets[0].config" || !strings.Contains(res.Problems[0].Fix, "the driver panicked: boom") {
		t.Fatalf("%+v", res)
	}
}

// TestADriversPanicIsInTheServicesLog: that is where its operator looks.
func TestADriversPanicIsInTheServicesLog(t *testing.T) {
	d := newFakeDriver()
	d.check = func(json.RawMessage) error { panic("boom") }
	var out bytes.Buffer
	Check(t.Context(), Config{Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Log: slog.New(slog.NewTextHandler(&out, nil))}, VerbValidate, []byte(fakeDrill))
	if !strings.Contains(out.String(), "the driver panicked") || !strings.Contains(out.String(), "boom") {
		t.Errorf("the log: %q", out.String())
	}
}

// brokenClock makes every conductor panic as soon as it has the lease.
type brokenClock struct{}

func (brokenClock) Now() event.Reading { panic("no time") }

// TestAConductorThatPanicsIsReplaced: it would panic again and again, and by taking
// its own lease back each time keep every other injector off the drill.
func TestAConductorThatPanicsIsReplaced(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second // longer than conductPause
	r, d := newRig(t), newFakeDriver()
	r.injectWith(Config{Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Clock: brokenClock{}, LeaseTTL: ttl}, "broken")
	id := r.accepted(fakeDrill)
	leases := map[string]int{}
	history := r.playOthers(id, func(s bus.Stored) {
		if p, ok := s.Payload.(*event.LeaseTaken); ok {
			if leases[p.Holder]++; p.Holder == "broken" && leases[p.Holder] == 1 {
				r.inject("sound", d, ttl)
			}
			if leases[p.Holder] > 1 {
				t.Errorf("%s took the drill again: %+v", p.Holder, p)
			}
		}
	})
	if st := r.outcome(history, d); st.Lease.Holder != "sound" || !st.Finished.Complete || leases["broken"] != 1 {
		t.Fatalf("lease %+v, finished %+v, leases %v", st.Lease, st.Finished, leases)
	}
}

func TestStayingAwayGrows(t *testing.T) {
	last := DefaultLeaseTTL
	for panics := 1; panics <= 6; panics++ {
		got := stayAway(DefaultLeaseTTL, panics)
		if got <= last {
			t.Errorf("after %d panics %s, before that %s", panics, got, last)
		}
		last = got
	}
	if got := stayAway(DefaultLeaseTTL, 1000); got != last {
		t.Errorf("after very many panics %s, want at most %s", got, last)
	}
}

// TestAfterAPanicTheLeaseIsWaitedFor: it is resumed at once only by who merely failed.
func TestAfterAPanicTheLeaseIsWaitedFor(t *testing.T) {
	r := newRig(t)
	b := r.connect(event.Injector, "i1")
	history, err := b.AppendAt(t.Context(), "d-1", bus.Tail{},
		event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Spec: []byte("{}")}},
		event.Draft{Type: event.TypeLeaseTaken, Data: event.LeaseTaken{Holder: "i1", Epoch: 1}})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{Config: Config{Bus: b, LeaseTTL: time.Hour}}
	for _, c := range []struct {
		panics int
		epoch  int64
	}{{1, 0}, {0, 2}} {
		next := s.conductorAfter(c.panics, "d-1", r.log())
		next.halted, next.heard = &bus.Halt{}, time.Now()
		for _, h := range history {
			next.apply(h)
		}
		if wait, err := next.awaitLease(t.Context()); err != nil || next.epoch != c.epoch || (wait > time.Minute) != (c.epoch == 0) {
			t.Errorf("after %d panics: epoch %d, waits %s, %v", c.panics, next.epoch, wait, err)
		}
	}
}
