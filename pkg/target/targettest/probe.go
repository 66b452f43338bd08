package targettest

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// deadline is an attempt's, and slack what the suite allows beyond it: a few
// milliseconds on an idle machine, more on one that runs other tests.
const (
	deadline = 250 * time.Millisecond
	slack    = 150 * time.Millisecond
)

func (s suite) spec(name, lane string) target.ProbeSpec {
	return target.ProbeSpec{Drill: drill, Probe: s.Write, Name: name, Lane: lane, Epoch: 1, Deadline: deadline}
}

func (s suite) openLanes(t *testing.T, ctx context.Context, tg *target.Target, name string) map[string]target.Probe {
	t.Helper()
	out := map[string]target.Probe{}
	for _, lane := range []string{target.LanePooled, target.LaneFresh} {
		p, err := tg.Observer.OpenProbe(ctx, s.spec(name, lane))
		if err != nil {
			t.Fatalf("open lane %s: %v", lane, err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Errorf("close lane: %v", err)
			}
		})
		out[lane] = p
	}
	return out
}

// attempt makes one attempt with a deadline and says how long it took.
func attempt(ctx context.Context, p target.Probe, seq int64) (target.Outcome, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	began := time.Now()
	o := p.Attempt(ctx, seq)
	return o, time.Since(began)
}

func tryOK(ctx context.Context, p target.Probe) error {
	if o, _ := attempt(ctx, p, 1<<40); o.Result != target.OK {
		return fmt.Errorf("outcome %c: %w", o.Result, o.Err)
	}
	return nil
}

// probes checks the lanes on a healthy server.
func (s suite) probes(t *testing.T) {
	tg, ctx := s.open(t), s.ctx(t)
	for lane, p := range s.openLanes(t, ctx, tg, "healthy") {
		for i := range int64(3) {
			o, _ := attempt(ctx, p, 100+i)
			if want := i == 0 || lane == target.LaneFresh; o.Result != target.OK || o.Connected != want {
				t.Errorf("lane %s: attempt %d of one after the other: %c, connected: %t, want %t, %v", lane, i+1, o.Result, o.Connected, want, o.Err)
			}
		}
		var wg sync.WaitGroup
		for i := range int64(20) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				if o := p.Attempt(ctx, i+1); o.Result != target.OK || o.Err != nil {
					t.Errorf("lane %s: attempt %d: %c %v", lane, i+1, o.Result, o.Err)
				}
			})
		}
		wg.Wait()
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if o := p.Attempt(ended, 1<<41); o.Result == target.OK || o.Err == nil {
			t.Errorf("lane %s: an attempt whose time is over: %+v", lane, o)
		}
	}
	if err := tg.Observer.DropLedgers(ctx, drill); err != nil {
		t.Error(err)
	}
}

// outage makes attempts under a fault: none may succeed, none may block, and one
// whose fate is open may not be called failed when the server had taken it.
func (s suite) outage(t *testing.T, probes map[string]target.Probe, hangs bool) {
	stalls := WatchStalls(t)
	for lane, p := range probes {
		var wg sync.WaitGroup
		var longest atomic.Int64
		for i := range int64(15) {
			wg.Go(func() {
				o, took := attempt(t.Context(), p, 1000+i)
				for old := longest.Load(); int64(took) > old && !longest.CompareAndSwap(old, int64(took)); old = longest.Load() {
				}
				if o.Result == target.OK || o.Err == nil {
					t.Errorf("lane %s: attempt %d under the fault: %+v", lane, i, o)
				}
				if took > deadline+slack+6*stalls.Longest() {
					t.Errorf("lane %s: attempt %d took %v, its deadline was %v, the longest stall %v", lane, i, took, deadline, stalls.Longest())
				}
				if o.Err != nil {
					s.noSecrets(t, "an attempt's error", o.Err.Error())
				}
			})
		}
		wg.Wait()
		// Each of these failures let go of what was kept.
		if o, _ := attempt(t.Context(), p, 2000); o.Result != target.Unsent && !o.Connected {
			t.Errorf("lane %s: an attempt after failures, on a connection that is older: %c %v", lane, o.Result, o.Err)
		}
		t.Logf("lane %s: the longest attempt took %v, the longest stall %v", lane, time.Duration(longest.Load()), stalls.Longest())
	}
}

// ledger checks that canaries are found as they were stored, neither more nor
// fewer, apart from those of other lanes and claims.
func (s suite) ledger(t *testing.T) {
	tg, ctx := s.open(t), s.ctx(t)
	spec := s.spec("ledger", target.LanePooled)
	p := s.openLanes(t, ctx, tg, "ledger")
	for _, seq := range []int64{1, 2, 3, 5, 6, 9} {
		if o := p[target.LanePooled].Attempt(ctx, seq); o.Result != target.OK {
			t.Fatalf("write %d: %+v", seq, o)
		}
	}
	if o := p[target.LaneFresh].Attempt(ctx, 4); o.Result != target.OK {
		t.Fatalf("write on the other lane: %+v", o)
	}
	want := func(what string, spec target.ProbeSpec, upTo int64, present event.Ranges, dups map[int64]int64) {
		t.Helper()
		h, err := tg.Observer.ReadLedger(ctx, spec, upTo)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if h.Present.Len() != present.Len() || present.Len() > 0 && !reflect.DeepEqual(h.Present, present) || len(h.Duplicates) != len(dups) {
			t.Errorf("%s: found %v, %v; want %v, %v", what, h.Present, h.Duplicates, present, dups)
		}
		for k, v := range dups {
			if h.Duplicates[k] != v {
				t.Errorf("%s: canary %d found %d times, want %d", what, k, h.Duplicates[k], v)
			}
		}
	}
	want("all", spec, 100, event.Ranges{{1, 3}, {5, 6}, {9, 9}}, nil)
	want("up to a cut", spec, 5, event.Ranges{{1, 3}, {5, 5}}, nil)
	other := spec
	other.Epoch = 2
	want("another claim", other, 100, nil, nil)
	if s.Duplicate != nil {
		if err := s.Duplicate(ctx, spec.Ledger(), 6); err != nil {
			t.Fatal(err)
		}
		want("with a duplicate", spec, 100, event.Ranges{{1, 3}, {5, 6}, {9, 9}}, map[int64]int64{6: 2})
	}
	s.reads(t, ctx, tg, spec)
	for range 2 {
		if err := tg.Observer.DropLedgers(ctx, "contract"); err != nil {
			t.Fatal(err)
		}
		want("after another drill's were dropped", spec, 5, event.Ranges{{1, 3}, {5, 5}}, nil)
	}
	for range 2 {
		if err := tg.Observer.DropLedgers(ctx, drill); err != nil {
			t.Fatal(err)
		}
		want("dropped", spec, 100, nil, nil)
	}
}

// reads checks that a read probe sees the highest canary of the write probe.
func (s suite) reads(t *testing.T, ctx context.Context, tg *target.Target, of target.ProbeSpec) {
	if s.Read == "" {
		return
	}
	for _, lane := range []string{target.LanePooled, target.LaneFresh} {
		spec := of
		spec.Probe, spec.Name, spec.Lane, spec.Params = s.Read, "reads", lane, s.ReadParams(of.Name)
		p, err := tg.Observer.OpenProbe(ctx, spec)
		if err != nil {
			t.Fatal(err)
		}
		if o := p.Attempt(ctx, 1); o.Result != target.OK || o.Observed != 9 {
			t.Errorf("read on lane %s: %+v, want canary 9", lane, o)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if _, err := tg.Observer.OpenProbe(ctx, target.ProbeSpec{Drill: drill, Probe: s.Read, Name: "r", Lane: lane, Params: json.RawMessage(`{"no-such-parameter":1}`)}); err == nil {
			t.Error("a read probe takes an unknown parameter")
		}
	}
}
