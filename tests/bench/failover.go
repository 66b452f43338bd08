package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/observer/probe"
)

// Failovers kills a real primary n times and compares the achieved recovery time with
// the truth. That ends when the relay, after the promotion, switched clients to the new
// primary, as the relay itself stamped it. It begins between the driver's own readings
// right before and after the kill, in the middle: nothing else sees the moment.
func Failovers(ctx context.Context, n int, say func(string, ...any)) ([]Figure, error) {
	quiet := slog.New(slog.DiscardHandler)
	l, err := lab.StartPostgres(ctx, lab.PostgresOptions{Synchronous: true, Log: quiet})
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Stop() }() // Stop has said what was wrong by then
	t, err := postgres.Driver{}.Open(ctx, target.Config{Name: "orders", Raw: l.Config(), Clock: clock.System(), Log: quiet})
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close() }()
	b := &failoverBench{lab: l, target: t, rnd: rand.New(rand.NewPCG(1, 2))}
	costs, err := b.costs(ctx)
	if err != nil {
		return nil, err
	}
	for i := range n {
		if err := b.trial(ctx, i); err != nil {
			return nil, fmt.Errorf("trial %d: %w", i, err)
		}
		say("failover %d: width %.1f ms, midpoint error %.1f ms", i+1, b.widths[i], b.errors[i])
	}
	return append(costs, []Figure{
		{Name: "failover/truth-inside", Value: float64(b.inside) / float64(n), Unit: "of trials", Goal: 1, Better: "higher", N: n,
			Means: fmt.Sprintf("intervals that contain the truth: from the middle of the driver's own readings before and after the kill (f0, f1), so up to %.2f ms off, to the relay's own stamp of its switch", b.blur)},
		{Name: "failover/width-median", Value: percentile(b.widths, 50), Unit: "ms", Goal: 20, Better: "lower", N: n},
		{Name: "failover/width-max", Value: percentile(b.widths, 100), Unit: "ms", Goal: 100, Better: "lower", N: n},
		{Name: "failover/midpoint-error-p95", Value: percentile(b.errors, 95), Unit: "ms", Goal: 10, Better: "lower", N: n,
			Means: "between the interval's middle and the same truth"},
	}...), nil
}

// costs is what probing takes, beside the least that asks as often in the same minute:
// the two take turns, and the median of each counts.
func (b *failoverBench) costs(ctx context.Context) ([]Figure, error) {
	const rounds = 3
	took := map[string][]float64{}
	for range rounds {
		for _, way := range []string{"prober", "bare"} {
			for _, every := range []time.Duration{baseline, burst} {
				percent, err := probing(ctx, way, b.lab.Config(), every)
				if err != nil {
					return nil, err
				}
				took[way+every.String()] = append(took[way+every.String()], percent)
			}
		}
	}
	median := func(way string, every time.Duration) float64 { return percentile(took[way+every.String()], 50) }
	return []Figure{
		{Name: "prober/cpu-baseline", Value: median("prober", baseline), Unit: "% of a core", Goal: 3, Better: "lower", N: rounds},
		{Name: "prober/cpu-burst", Value: median("prober", burst), Unit: "% of a core", Goal: 3, Better: "lower", N: rounds},
		{Name: "prober/cpu-burst-vs-bare", Value: median("prober", burst) / median("bare", burst), Unit: "x", Goal: 1.2, Better: "lower", N: rounds,
			Means: fmt.Sprintf("the prober's CPU time in the burst as a multiple of the least that writes as often with pgx, which took %.2f %% of a core here", median("bare", burst))},
	}, nil
}

type failoverBench struct {
	lab    *lab.Postgres
	target *target.Target
	rnd    *rand.Rand
	inside int
	widths []float64
	errors []float64
	// blur is how far the truth may be off at most, in milliseconds: half the widest of
	// the readings around a kill.
	blur float64
}

// baseline and burst are the distances between attempts before and around a
// fault, deadline is their D.
const (
	baseline = 100 * time.Millisecond
	burst    = 10 * time.Millisecond
	fresh    = 200 * time.Millisecond
	deadline = 250 * time.Millisecond
)

// lanes starts the two lanes that the observer runs, the pooled one at a distance.
func (b *failoverBench) lanes(ctx context.Context, run string, every time.Duration) (pooled, freshLane *probe.Lane, err error) {
	open := func(lane string, every time.Duration) (*probe.Lane, error) {
		p, err := b.target.Observer.OpenProbe(ctx, target.ProbeSpec{Drill: run, Probe: "write", Name: "writes", Lane: lane, Epoch: 1, Deadline: deadline})
		if err != nil {
			return nil, err
		}
		c := probe.Config{Probe: p, Clock: clock.System(), Interval: every, Deadline: deadline}
		if lane == target.LanePooled {
			c.AskExtra = func() { freshLane.Extra() }
		}
		return probe.Start(ctx, c), nil
	}
	if freshLane, err = open(target.LaneFresh, fresh); err != nil {
		return nil, nil, err
	}
	pooled, err = open(target.LanePooled, every)
	return pooled, freshLane, err
}

func (b *failoverBench) trial(ctx context.Context, i int) error {
	run := fmt.Sprintf("bench-%d", i)
	pooled, freshLane, err := b.lanes(ctx, run, burst)
	if err != nil {
		return err
	}
	from := clock.System().Now().Mono
	pause(ctx, time.Second+time.Duration(b.rnd.IntN(100))*time.Millisecond)
	kill, undo, err := b.do(ctx, run, "fault/kill", "kill", nil)
	if err != nil {
		return err
	}
	pause(ctx, time.Second)
	for _, action := range []string{"promote", "redirect"} {
		if _, _, err := b.do(ctx, run, "recovery/"+action, action, json.RawMessage(`{"node":"b"}`)); err != nil {
			return err
		}
	}
	pause(ctx, 1500*time.Millisecond)
	until := clock.System().Now().Mono
	if err := pooled.Stop(ctx); err != nil {
		return err
	}
	if err := freshLane.Stop(ctx); err != nil {
		return err
	}
	b.judge(verdict.Measure(verdict.Input{
		Lanes:  []verdict.Lane{lane(target.LanePooled, pooled), lane(target.LaneFresh, freshLane)},
		Faults: []verdict.FaultTime{{Step: "kill", F0: kill.Began.Mono, F1: kill.Ended.Mono, Proven: kill.Proof.Proven}},
		From:   from, Until: until, StableWindow: int64(time.Second),
	}), kill)
	if _, err := b.target.Injector.Undo(ctx, target.Operation{Drill: run, Step: "fault/kill", Name: "kill"}, undo); err != nil {
		return fmt.Errorf("putting the lab back: %w", err)
	}
	return b.target.Observer.DropLedgers(ctx, run)
}

func (b *failoverBench) do(ctx context.Context, run, step, name string, params json.RawMessage) (target.Effect, json.RawMessage, error) {
	op := target.Operation{Drill: run, Step: step, Name: name, Params: params, Limit: time.Minute}
	plan, err := b.target.Injector.Plan(ctx, op)
	if err != nil {
		return target.Effect{}, nil, err
	}
	eff, err := b.target.Injector.Do(ctx, op, plan)
	return eff, plan.Undo, err
}

func lane(name string, l *probe.Lane) verdict.Lane {
	out := verdict.Lane{Probe: "writes", Kind: "write", Name: name, Epoch: 1, Deadline: int64(deadline)}
	for _, r := range l.Take(nil) {
		out.Attempts = append(out.Attempts, r.Attempt)
	}
	return out
}

// judge compares a measurement with the truth.
func (b *failoverBench) judge(m verdict.Measurement, kill target.Effect) {
	got := event.Interval{Lo: math.MaxInt64}
	if len(m.Faults) == 1 {
		got = m.Faults[0].TTFS // the relay's switch is the first moment that clients can be served
	}
	switched := b.lab.Service().State().SwitchedAt
	truth := switched - (kill.Began.Mono+kill.Ended.Mono)/2
	if got.Contains(truth) && !got.Open {
		b.inside++
	}
	b.blur = max(b.blur, float64(kill.Ended.Mono-kill.Began.Mono)/2e6)
	b.widths = append(b.widths, float64(got.Width())/1e6)
	b.errors = append(b.errors, math.Abs(float64(got.Mid()-truth))/1e6)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
