package observer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// armTime is how long before the fault the burst begins.
const armTime = 3 * time.Second

// serve answers what the injector waits for in the open phase.
func (s *session) serve(ctx context.Context) {
	p := s.watch.phase.Name
	for _, moment := range []string{drill.Before, drill.After} {
		id := drill.StepID(p, drill.StepSteady, moment)
		if st := s.state.Step(id); st.Status == drill.Asked {
			s.serveSteady(ctx, id, moment, st.At)
		}
	}
	if i := s.state.Position(); i < len(s.state.Program) {
		if st := s.state.Program[i]; st.Kind == drill.StepSettle && st.Phase == p && !s.holding() {
			s.serveSettle(ctx, st.ID)
		}
	}
}

// serveCuts settles the ledgers for checks that were asked for, also after an
// abort: whether all is back in place is checked then as well.
func (s *session) serveCuts(ctx context.Context) {
	for _, moment := range []string{drill.Recovered, drill.Restored} {
		id := drill.StepID(s.watch.phase.Name, drill.StepChecks, moment)
		if s.state.Step(id).Status == drill.Asked && !s.cut[id] {
			s.serveCut(ctx, id)
		}
	}
}

// holding reports whether a fault that ends by itself still lasts.
func (s *session) holding() bool {
	return slices.ContainsFunc(s.state.Debts, func(d drill.Debt) bool {
		return d.Phase == s.watch.phase.Name && slices.ContainsFunc(s.watch.phase.Faults, func(f drill.Fault) bool {
			return f.Hold > 0 && d.Step == drill.StepID(d.Phase, drill.StepFault, f.Name)
		})
	})
}

// local is a reading as a moment of the observer's clock; now where the two
// clocks were not compared.
func (s *session) local(r event.Reading) int64 {
	if r.Clock == s.clock {
		return r.Mono
	}
	if in, err := s.clocks.Map(r); err == nil {
		return in.Hi
	}
	return s.c.Clock.Now().Mono
}

// steadyTask is a steady state that is being watched for.
type steadyTask struct {
	step  string
	asked int64
	// from is where the window that is tried begins; 0 until all lanes are open.
	from    int64
	reasons []string
	lanes   []event.LaneSummary
}

func (s *session) serveSteady(ctx context.Context, step, moment string, asked event.Reading) {
	if d, told := s.judgeSteady(step, moment, asked); told {
		s.answer(ctx, d)
	}
}

// judgeSteady slides a window over the attempts until it holds or none began in time.
// It says the same again until the answer is in the history: an answer that could not
// be stored at once is not overtaken by one for a window that began too late.
func (s *session) judgeSteady(step, moment string, asked event.Reading) (answer event.Draft, told bool) {
	w, now := s.watch, s.c.Clock.Now().Mono
	if w.steady == nil || w.steady.step != step {
		w.steady = &steadyTask{step: step, asked: s.local(asked), reasons: []string{"no window was watched in time"}}
	}
	t, spec := w.steady, w.phase.SteadyState
	late := t.asked + int64(spec.Timeout.D())
	if len(w.missing) > 0 {
		return t.violated(w.whyMissing()), now > late
	}
	if t.from == 0 {
		t.from = max(t.asked, w.openedAt)
	}
	if t.from > late {
		return t.violated(t.reasons), true
	}
	to := t.from + int64(spec.Window.D())
	if moment == drill.Before && to-now <= int64(armTime) {
		s.arm()
	}
	if now < to {
		return answer, false
	}
	got := w.live.Steady(verdict.SteadyQuery{From: t.from, To: to, MinAvailability: spec.MinAvailability, MaxP95: int64(spec.MaxP95.D())})
	switch {
	case !got.Settled:
		return answer, false // each attempt ends by its deadline
	case got.Holds:
		return event.Draft{Type: event.TypeSteadyEstablished, Data: event.SteadyEstablished{Step: step, Window: spec.Window, Lanes: got.Lanes}}, true
	}
	t.reasons, t.lanes = got.Reasons, got.Lanes
	t.from = nextWindow(w.live, t.from, spec)
	return answer, false
}

// nextWindow is where the next window worth trying begins: past the latest bad
// attempt, if none is allowed for.
func nextWindow(live *verdict.Live, from int64, spec drill.SteadyState) int64 {
	next := from + int64(max(spec.Window.D()/20, tick))
	if bad, ok := live.LastBad(from); ok && spec.MinAvailability >= 100 {
		next = max(next, bad)
	}
	return next
}

func (t *steadyTask) violated(reasons []string) event.Draft {
	return event.Draft{Type: event.TypeSteadyViolated, Data: event.SteadyViolated{Step: t.step, Reasons: reasons, Lanes: t.lanes}}
}

func (w *watch) whyMissing() []string {
	var out []string
	for id, why := range w.missing {
		out = append(out, fmt.Sprintf("lane %s is not open: %s", id, why))
	}
	slices.Sort(out)
	return out
}

// settleTask is the wait for stability after the last fault.
type settleTask struct{ from int64 }

// clockPatience is how long a comparison with the injector's clock is waited for.
const clockPatience = 5 * time.Second

// serveSettle says stable as soon as every lane is, or missing at the timeout.
func (s *session) serveSettle(ctx context.Context, step string) {
	w, now := s.watch, s.c.Clock.Now().Mono
	if w.settle == nil {
		w.settle = &settleTask{from: s.local(s.state.Last)}
	}
	waited := now - w.settle.from
	first, last, err := s.faultTimes()
	if err != nil {
		if waited < int64(clockPatience) {
			return
		}
		first, last = w.settle.from, w.settle.from
	}
	// Nobody watched between an earlier claim's end and this one's lanes: no stable
	// window reaches across, and nothing is said not to have failed.
	got := w.live.Stable(verdict.StableQuery{
		From: cmp.Or(w.baseFrom, w.openedAt), FirstFault: first, Since: max(last, w.openedAt), Window: int64(w.phase.Stable.Window.D()),
	})
	if got.Stable && len(w.missing) == 0 {
		at, never := got.At, got.NeverFailed && w.openedAt <= last
		if never {
			at = max(at, last)
		}
		s.answer(ctx, event.Draft{Type: event.TypeRecoveryStable, Data: event.RecoveryStable{Step: step, At: s.reading(at), NeverFailed: never}})
		return
	}
	if waited <= int64(w.phase.Stable.Timeout.D()) {
		return
	}
	reasons := append(slices.Clone(got.Reasons), w.whyMissing()...)
	if len(reasons) == 0 {
		reasons = []string{"the lanes were not stable for " + w.phase.Stable.Window.String()}
	}
	s.answer(ctx, event.Draft{Type: event.TypeRecoveryMissing, Data: event.RecoveryMissing{Step: step, Waited: event.Duration(waited), Reasons: reasons}})
}

// faultTimes are f0 of the phase's first and last fault on the observer's clock.
func (s *session) faultTimes() (first, last int64, err error) {
	if len(s.faults) == 0 {
		return 0, 0, fmt.Errorf("no fault of phase %s was injected", s.watch.phase.Name)
	}
	for i, f := range s.faults {
		t, err := s.clocks.Fault(f)
		if err != nil {
			return 0, 0, fmt.Errorf("fault %s on the observer's clock: %w", f.Step, err)
		}
		if i == 0 || t.F0 < first {
			first = t.F0
		}
		if i == 0 || t.F0 > last {
			last = t.F0
		}
	}
	return first, last, nil
}

// cutTask waits until what was attempted when the cut was asked for is settled.
type cutTask struct {
	step  string
	marks map[laneID]int64
}

// serveCut publishes all attempts up to the cut along with the cut itself.
func (s *session) serveCut(ctx context.Context, step string) {
	w := s.watch
	if w.cut == nil || w.cut.step != step {
		w.cut = &cutTask{step: step, marks: map[laneID]int64{}}
		for _, l := range w.lanes {
			w.cut.marks[l.id] = l.lane.LastSeq()
		}
	}
	for _, l := range w.lanes {
		if l.taken < w.cut.marks[l.id] {
			return
		}
	}
	s.answer(ctx, event.Draft{Type: event.TypeLedgerCut, Data: event.LedgerCut{Step: step, Lanes: s.cutLanes()}})
}

// cutLanes are the phase's lanes with writes, those of earlier claims included:
// their canaries must have survived as well.
func (s *session) cutLanes() []event.LaneCut {
	upTo := map[verdict.LaneKey]int64{}
	for k, n := range s.published[s.watch.phase.Name] {
		upTo[k] = n
	}
	for _, l := range s.watch.lanes {
		upTo[l.key] = l.taken
	}
	var out []event.LaneCut
	for k, n := range upTo {
		if k.Kind == kindWrite {
			out = append(out, event.LaneCut{Probe: k.Probe, Lane: k.Name, Epoch: k.Epoch, UpTo: n})
		}
	}
	slices.SortFunc(out, func(a, b event.LaneCut) int {
		if c := strings.Compare(a.Probe+"/"+a.Lane, b.Probe+"/"+b.Lane); c != 0 {
			return c
		}
		return int(a.Epoch - b.Epoch)
	})
	return out
}
