package observer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/observer/probe"
)

// laneID names a lane within a phase.
type laneID struct{ probe, lane string }

func (l laneID) String() string { return l.probe + "/" + l.lane }

// watch is the probing of one phase. Its fields belong to the session's
// goroutine; the openers reach it by the channels.
type watch struct {
	phase drill.Phase
	live  *verdict.Live
	lanes []*watched
	// missing are the lanes that are not open, with the reason of the last try.
	missing map[laneID]string
	// openedAt is when the last lane was opened.
	openedAt int64
	// past is what earlier claims measured in the phase. The openers set it before
	// the first lane opens.
	past past
	// baseFrom is where the baseline begins: there all lanes of past had been opened.
	// 0 where there are none: at openedAt.
	baseFrom int64
	burst    bool
	// armed is true once the steady state is about to be told: the fault is near.
	armed   bool
	steady  *steadyTask
	settle  *settleTask
	cut     *cutTask
	stopped map[string]int64

	opened  chan openedLane
	openers sync.WaitGroup
	cancel  context.CancelFunc
	relax   func() // the process need not be on time for this watch any more
	targets struct {
		sync.Mutex
		open []*target.Target
	}
	// fresh finds a probe's fresh lane from the attempts' goroutines.
	fresh map[string]*atomic.Pointer[probe.Lane]
}

// watched is one lane of a watch.
type watched struct {
	id     laneID
	key    verdict.LaneKey
	probe  drill.Probe
	lane   *probe.Lane
	first  int64  // the first attempt's number
	taken  int64  // the last number taken from the lane
	reason string // the text of the latest bad attempt
}

// openedLane is what an opener reports.
type openedLane struct {
	id    laneID
	kind  string
	probe target.Probe
	err   error
}

// openWatch starts to open every lane of the phase: a pooled and a fresh one for
// each probe. Lanes begin to make attempts as soon as they are open.
func (s *session) openWatch(ctx context.Context, p drill.Phase) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{
		phase: p, live: verdict.NewLive(), cancel: cancel, relax: onTime.keep(),
		missing: map[laneID]string{}, stopped: map[string]int64{},
		opened: make(chan openedLane, 16),
		fresh:  map[string]*atomic.Pointer[probe.Lane]{},
	}
	byTarget := map[string][]drill.Probe{}
	for _, pr := range p.Probes {
		byTarget[pr.Target] = append(byTarget[pr.Target], pr)
		w.fresh[pr.Name] = &atomic.Pointer[probe.Lane]{}
		for _, lane := range []string{target.LanePooled, target.LaneFresh} {
			w.missing[laneID{pr.Name, lane}] = "it is being opened"
		}
	}
	o := opening{c: s.c, drill: s.state.Drill, id: s.id, epoch: s.claim.own, clean: make(chan struct{})}
	first := s.claim.own == 1 && !s.cleaned
	s.cleaned = true
	w.openers.Go(func() {
		defer close(o.clean)
		if first {
			o.cleanBefore(ctx)
		}
		if o.epoch > 1 {
			w.past = o.recall(ctx, p.Name)
		}
	})
	for name, probes := range byTarget {
		w.openers.Go(func() { w.open(ctx, o, name, probes) })
	}
	return w
}

// opening is what the openers need; they must not look into the session.
type opening struct {
	c     Config
	drill drill.Drill
	id    string
	epoch int64
	// clean is closed when lanes may open.
	clean chan struct{}
}

// open opens a target and then its lanes, and keeps trying.
func (w *watch) open(ctx context.Context, o opening, name string, probes []drill.Probe) {
	for {
		t, err := o.c.openTarget(ctx, o.drill, name)
		if err == nil {
			w.targets.Lock()
			w.targets.open = append(w.targets.open, t)
			w.targets.Unlock()
			<-o.clean
			for _, pr := range probes {
				for _, lane := range []string{target.LanePooled, target.LaneFresh} {
					spec := target.ProbeSpec{
						Drill: o.id, Probe: pr.Probe, Name: pr.Name, Lane: lane,
						Params: pr.Params, Epoch: o.epoch, Deadline: pr.Deadline.D(),
					}
					w.openers.Go(func() { w.openLane(ctx, t.Observer, spec, kindOf(t.Driver, pr.Probe)) })
				}
			}
			return
		}
		for _, pr := range probes {
			for _, lane := range []string{target.LanePooled, target.LaneFresh} {
				w.report(ctx, openedLane{id: laneID{pr.Name, lane}, err: err})
			}
		}
		if !pause(ctx, time.Second) {
			return
		}
	}
}

// laneTime bounds one try to open a lane.
const laneTime = 10 * time.Second

func (w *watch) openLane(ctx context.Context, o target.Observer, spec target.ProbeSpec, kind string) {
	id := laneID{spec.Name, spec.Lane}
	for {
		p, err := target.Call(ctx, laneTime, "open lane "+id.String(), func(ctx context.Context) (target.Probe, error) {
			return o.OpenProbe(ctx, spec)
		}, func(p target.Probe) { _ = p.Close() })
		if err == nil && p == nil {
			err = errors.New("open lane " + id.String() + ": the driver returned no probe")
		}
		if !w.report(ctx, openedLane{id: id, kind: kind, probe: p, err: err}) && err == nil {
			_ = p.Close()
		}
		if err == nil || !pause(ctx, time.Second) {
			return
		}
	}
}

func (w *watch) report(ctx context.Context, o openedLane) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case w.opened <- o:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// admitLanes starts the lanes that were opened.
func (s *session) admitLanes(ctx context.Context) {
	for {
		select {
		case o := <-s.watch.opened:
			s.admit(ctx, o)
		default:
			return
		}
	}
}

func (s *session) admit(ctx context.Context, o openedLane) {
	w := s.watch
	if o.err != nil {
		w.missing[o.id] = o.err.Error()
		return
	}
	i := slices.IndexFunc(w.phase.Probes, func(p drill.Probe) bool { return p.Name == o.id.probe })
	l := &watched{
		id:    o.id,
		key:   verdict.LaneKey{Probe: o.id.probe, Kind: o.kind, Name: o.id.lane, Epoch: s.claim.own},
		probe: w.phase.Probes[i],
	}
	l.first = max(s.next[o.id], 1)
	l.taken = l.first - 1
	deadline := w.resume(l)
	c := probe.Config{
		Probe: o.probe, Clock: s.c.Clock, Interval: w.interval(l), Deadline: deadline,
		FirstSeq: l.first,
	}
	pooled, fresh := o.id.lane == target.LanePooled, w.fresh[o.id.probe]
	if pooled {
		// A stale connection says little about the service: ask on a new one at once,
		// and then between the slots, which halves how long a recovery goes unseen.
		c.AskExtra = func() {
			if f := fresh.Load(); f != nil {
				f.Extra()
			}
		}
	}
	// The lane outlives the session's context until stop: its last attempts count.
	l.lane = probe.Start(context.WithoutCancel(ctx), c)
	if !pooled {
		fresh.Store(l.lane)
	}
	w.lanes = append(w.lanes, l)
	delete(w.missing, o.id)
	w.openedAt = s.c.Clock.Now().Mono
}

func (w *watch) interval(l *watched) time.Duration {
	switch {
	case l.id.lane == target.LaneFresh:
		return l.probe.Fresh.D()
	case w.burst:
		return l.probe.Burst.D()
	}
	return l.probe.Interval.D()
}

// stop ends the openers and all lanes at once, and closes the targets.
func (w *watch) stop(ctx context.Context) error {
	defer w.relax()
	w.cancel()
	w.openers.Wait()
	for len(w.opened) > 0 {
		if o := <-w.opened; o.err == nil {
			_ = o.probe.Close()
		}
	}
	errs := make([]error, len(w.lanes))
	var wg sync.WaitGroup
	for i, l := range w.lanes {
		wg.Go(func() {
			if err := l.lane.Stop(ctx); err != nil {
				errs[i] = fmt.Errorf("lane %s: %w", l.id, err)
			}
		})
	}
	wg.Wait()
	for _, t := range w.targets.open {
		errs = append(errs, t.Release(ctx))
	}
	return errors.Join(errs...)
}

// setRate keeps the lanes at the rate that the drill's course asks for.
func (s *session) setRate() {
	w := s.watch
	want := s.wantBurst()
	if want == w.burst {
		return
	}
	w.burst = want
	for _, l := range w.lanes {
		l.lane.SetInterval(w.interval(l))
	}
}

// wantBurst is true from 3 s before the fault until things are stable, and again
// from the first restore action or undo until the steady state afterwards is
// asked for.
func (s *session) wantBurst() bool {
	p := s.watch.phase.Name
	status := func(k drill.StepKind, name string) drill.Status { return s.state.Step(drill.StepID(p, k, name)).Status }
	if status(drill.StepSteady, drill.After) != drill.Waiting {
		return false
	}
	if s.failback {
		return true
	}
	switch status(drill.StepSettle, "") {
	case drill.Done, drill.Failed:
		return false
	}
	return s.watch.armed || status(drill.StepSteady, drill.Before) == drill.Done
}

// arm raises each lane's deadline to what its baseline allows for, and brings
// the burst.
func (s *session) arm() {
	w := s.watch
	if w.armed {
		return
	}
	w.armed = true
	base := w.live.Steady(verdict.SteadyQuery{From: w.openedAt, To: s.c.Clock.Now().Mono})
	for _, sum := range base.Lanes {
		for _, l := range w.lanes {
			if l.id == (laneID{sum.Probe, sum.Lane}) {
				d := max(l.lane.Deadline(), deadlineFactor*time.Duration(sum.P99))
				l.lane.SetDeadline(d)
				w.live.Open(l.key, l.taken+1, int64(d))
			}
		}
	}
	s.setRate()
}

// deadlineFactor times the baseline's p99 is the least D (facts: D = max(250 ms, 5 x p99)).
const deadlineFactor = 5
