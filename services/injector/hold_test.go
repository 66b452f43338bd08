package injector

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/target"
)

// pair is two firedrills of one machine with an event store each, and one system. The
// fault of whoever calls hang does not end before mend is called.
type pair struct {
	t      *testing.T
	locks  machine.Locks
	rigs   [2]*rig
	fakes  [2]*fakeDriver
	broken chan struct{}
	mended chan struct{}
	mend   func()
}

func newPair(t *testing.T) *pair {
	p := &pair{
		t: t, locks: machine.Locks(t.TempDir()), rigs: [2]*rig{newRig(t), newRig(t)}, fakes: [2]*fakeDriver{newFakeDriver(), newFakeDriver()},
		broken: make(chan struct{}), mended: make(chan struct{}),
	}
	p.mend = sync.OnceFunc(func() { close(p.mended) })
	return p
}

func (p *pair) inject(i int, log *slog.Logger) (stop func()) {
	stop = p.rigs[i].injectWith(Config{Registry: target.NewRegistry(p.fakes[i]), Inventory: drill.OpenInventory(), Clock: clock.System(), Locks: p.locks, Log: log}, "i1")
	p.t.Cleanup(p.mend) // before that one's end, which waits for what it does
	return stop
}

func (p *pair) hang(i int) {
	broken := sync.OnceFunc(func() { close(p.broken) })
	p.fakes[i].do = func(context.Context, target.Operation) error {
		broken()
		<-p.mended
		return nil
	}
}

// drill runs one drill to its end.
func (p *pair) drill(i int, id string, each func(bus.Stored)) <-chan []bus.Stored {
	out := make(chan []bus.Stored, 1)
	go func() {
		defer close(out)
		out <- p.rigs[i].playOthers(id, each)
	}()
	return out
}

// until waits for what takes milliseconds.
func (p *pair) until(what string, c <-chan struct{}) {
	p.t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("it never came: %s", what)
	}
}

// TestDrillsOfTwoStoresKeepApart: while one has broken a system, another firedrill of this
// machine, with a store of its own, breaks nothing there; right afterwards it may.
func TestDrillsOfTwoStoresKeepApart(t *testing.T) {
	p := newPair(t)
	p.hang(0)
	p.inject(0, nil)
	p.inject(1, nil)
	id := p.rigs[0].accepted(fakeDrill)
	first := p.drill(0, id, nil)
	p.until("the first one's fault", p.broken)
	r2, d2 := p.rigs[1], p.fakes[1]
	st := r2.outcome(r2.playOthers(r2.accepted(fakeDrill), nil), d2)
	if st.Abort == nil || st.Abort.Cause != drill.CauseGuard || !strings.Contains(st.Abort.Reason, "another firedrill on this machine drills it (drill "+id+" of ") || len(d2.faults) > 0 {
		t.Errorf("beside it: abort %+v, done %v", st.Abort, d2.faults)
	}
	p.mend()
	if st := p.rigs[0].outcome(<-first, p.fakes[0]); st.Abort != nil {
		t.Errorf("the first one: %+v", st.Abort)
	}
	if st := r2.outcome(r2.playOthers(r2.accepted(fakeDrill), nil), d2); st.Abort != nil || len(d2.faults) == 0 {
		t.Errorf("after it: abort %+v, done %v", st.Abort, d2.faults)
	}
}

// listener is a log that waits for a message.
type listener struct {
	slog.Handler
	message string
	said    func()
}

func (l listener) Enabled(context.Context, slog.Level) bool { return true }

func (l listener) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l listener) Handle(_ context.Context, r slog.Record) error {
	if r.Message == l.message {
		l.said()
	}
	return nil
}

// TestWhoIsTakenUpKeepsApart: a drill that another injector takes up waits while another
// firedrill of this machine drills its system, and goes on then.
func TestWhoIsTakenUpKeepsApart(t *testing.T) {
	p := newPair(t)
	p.hang(1)
	stop := p.inject(0, nil)
	p.inject(1, nil)
	id := p.rigs[0].accepted(strings.Replace(fakeDrill, "spec:", "spec:\n  guards: {approval: true}", 1))
	asked := make(chan struct{})
	ask := sync.OnceFunc(func() { close(asked) })
	first := p.drill(0, id, func(s bus.Stored) {
		if s.Event.Type == event.TypeApprovalRequested {
			ask()
		}
	})
	p.until("the question for approval", asked)
	stop()
	second := p.drill(1, p.rigs[1].accepted(fakeDrill), nil)
	p.until("the other one's fault", p.broken)
	waits := make(chan struct{})
	p.inject(0, slog.New(listener{message: "the drill is taken up later", said: sync.OnceFunc(func() { close(waits) })}))
	p.until("that the drill has to wait", waits)
	p.mend()
	if err := p.rigs[0].bus.Command(t.Context(), id, "approve", []byte(`{"by":"boss"}`)); err != nil {
		t.Error(err)
	}
	histories := [2][]bus.Stored{<-first, <-second}
	for i, history := range histories {
		if st := p.rigs[i].outcome(history, p.fakes[i]); st.Abort != nil || len(p.fakes[i].faults) == 0 {
			t.Errorf("drill %d: abort %+v, done %v", i+1, st.Abort, p.fakes[i].faults)
		}
	}
	over := histories[1][len(histories[1])-1].Event.Time
	for _, s := range histories[0] {
		if l, ok := s.Payload.(*event.LeaseTaken); ok && l.Epoch > 1 && s.Event.Time.Before(over) {
			t.Errorf("taken up at %s, and the other drill ended at %s", s.Event.Time, over)
		}
	}
}

// TestALockIsWaitedFor as long as one takes that is given back after a drill's end.
func TestALockIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, log, system := machine.Locks(t.TempDir()), slog.New(slog.DiscardHandler), map[string]string{"a": "pg/1"}
		var first, second holds
		if err := first.take(dir, drill.State{ID: "d-1"}, system, log); err != nil {
			t.Fatal(err)
		}
		if err := second.wait(t.Context(), dir, drill.State{ID: "d-2"}, system, log); !errors.As(err, new(*heldError)) {
			t.Errorf("a lock that stays held: %v", err)
		}
		got := make(chan error)
		go func() { got <- second.wait(t.Context(), dir, drill.State{ID: "d-2"}, system, log) }()
		synctest.Wait()
		if err := first.release(); err != nil {
			t.Error(err)
		}
		if err := <-got; err != nil {
			t.Errorf("a lock that is given back: %v", err)
		}
		if err := second.release(); err != nil {
			t.Error(err)
		}
	})
}

// TestASystemIsLockedOnce, also where two targets are one system, and another drill is told
// by whom.
func TestASystemIsLockedOnce(t *testing.T) {
	dir, log := machine.Locks(t.TempDir()), slog.New(slog.DiscardHandler)
	s, systems := drill.State{ID: "d-1"}, map[string]string{"a": "pg/1", "b": "pg/1"}
	var h, other holds
	if err := h.take(dir, s, systems, log); err != nil || len(h.has) != 1 {
		t.Fatalf("%d locks, %v", len(h.has), err)
	}
	held, ok := errors.AsType[*heldError](other.take(dir, s, systems, log))
	if !ok || !strings.HasPrefix(held.holder, "drill d-1 of ") {
		t.Errorf("a second holder: %+v", held)
	}
	if err := h.release(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(other.take(dir, s, systems, log), other.release()); err != nil {
		t.Errorf("after the drill: %v", err)
	}
}

// TestWhatCannotBeLocked is no reason to wait, or to keep from a drill.
func TestWhatCannotBeLocked(t *testing.T) {
	var h holds
	if err := h.take(machine.Locks(filepath.Join(t.TempDir(), "none")), drill.State{}, map[string]string{"a": "pg/1"}, slog.New(slog.DiscardHandler)); err != nil || len(h.has) > 0 {
		t.Errorf("%d locks, %v", len(h.has), err)
	}
}
