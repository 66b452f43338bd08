package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/runlog"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// runner plans runs.
type runner struct {
	Config
	turns *turns
	// slots bound the runs that have begun.
	slots chan struct{}
}

// ErrCancelled is the cause of a run that was called off.
var ErrCancelled = errors.New("the run was called off")

// onRequest makes one run.
func (r *runner) onRequest(ctx context.Context, m bus.Message) error {
	req, err := bus.ReadMirrorRequest(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	// Each try of a request is a run of its own: nothing of another one's is taken
	// for it.
	run := runOf(m.Seq) + strings.ToLower(rand.Text()[:10])
	e := Event{Mirror: req.Mirror, Run: run, By: req.Who}
	body, check, err := parseRequest(m.Data)
	mirror, known := r.Inventory.FindMirror(req.Mirror)
	switch {
	case err != nil:
		e.Reason = err.Error()
		return r.reject(ctx, e)
	case !known:
		e.Reason = fmt.Sprintf("%v: the operator adds it under spec.mirrors", ErrUnknown)
		return r.reject(ctx, e)
	}
	done, err := r.turns.take(ctx, mirror)
	if err != nil {
		return err
	}
	defer done()
	return r.alone(ctx, mirror.Name, run, func(ctx context.Context) error {
		if over, err := r.answered(ctx, mirror.Name, m); over || err != nil {
			return err
		}
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
		return r.run(ctx, mirror, e, m, job.SyncOptions{Check: check, DryRun: body.DryRun})
	})
}

// answered reports whether a request was handed out again although its run has ended:
// who made that run was cut off before it could say that it is done with the request.
func (r *runner) answered(ctx context.Context, mirror string, m bus.Message) (bool, error) {
	if m.Delivered < 2 {
		return false, nil
	}
	for _, kind := range []string{KindFinished, KindFailed, KindCancelled} {
		last, known, err := r.Bus.LastMirrorEvent(ctx, mirror, kind)
		if err != nil {
			return false, err
		}
		var e Event
		if known && json.Unmarshal(last.Data, &e) == nil && strings.HasPrefix(e.Run, runOf(m.Seq)) {
			return true, nil
		}
	}
	return false, nil
}

// runOf begins the names of the runs that a request is answered with.
func runOf(seq uint64) string { return strconv.FormatUint(seq, 10) + "-" }

func (r *runner) run(ctx context.Context, m drill.Mirror, e Event, asked bus.Message, o job.SyncOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := r.tell(ctx, KindStarted, e); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { r.awaitCancel(ctx, m.Name, asked.Seq, cancel) })
	res, err := r.sync(ctx, m, e, o)
	e.Log = r.known(m)
	switch {
	case errors.Is(context.Cause(ctx), ErrCancelled):
		r.Log.Warn("a mirror's run was called off", "mirror", m.Name, "run", e.Run, "by", e.By)
		return r.tell(context.WithoutCancel(ctx), KindCancelled, e)
	case ctx.Err() != nil:
		return ctx.Err() // the process stops; another one goes on
	case err != nil:
		r.Log.Error("a mirror's run failed", "mirror", m.Name, "run", e.Run, "by", e.By, "error", err)
		e.Reason = err.Error()
		return r.tell(ctx, KindFailed, e)
	}
	e.Result = summary(res, o.DryRun)
	if left := runlog.Left(&res.Report); left > 0 && !o.DryRun {
		r.Log.Warn("a mirror's run left something undone", "mirror", m.Name, "run", e.Run, "by", e.By, "problems", left, "first", e.Result.Problems)
	}
	return r.tell(ctx, KindFinished, e)
}

func (r *runner) reject(ctx context.Context, e Event) error {
	r.Log.Warn("a request for a mirror's run is rejected", "mirror", e.Mirror, "by", e.By, "reason", e.Reason)
	return r.tell(ctx, KindRejected, e)
}

// awaitCancel ends the run when that is asked for.
func (r *runner) awaitCancel(ctx context.Context, mirror string, after uint64, cancel context.CancelCauseFunc) {
	err := r.Bus.FollowMirrorCommands(ctx, mirror, after, func(rec bus.Record) error {
		if rec.Kind != "cancel" {
			return nil
		}
		cancel(ErrCancelled)
		return bus.Stop
	})
	if err != nil && ctx.Err() == nil {
		r.Log.Warn("a run cannot be called off any more", "mirror", mirror, "error", err)
	}
}

// sync opens the mirror and makes the run over all workers.
func (r *runner) sync(ctx context.Context, m drill.Mirror, e Event, o job.SyncOptions) (job.Result, error) {
	began := r.Env.Now()
	j, err := r.open(ctx, m, !o.DryRun)
	r.noteBegin(ctx, m, o, e.By, began)
	if err != nil {
		r.noteEnd(ctx, m, o, job.Result{}, err)
		return job.Result{}, err
	}
	pulse := newPulse(r, m, e)
	o.Watch = pulse.feel
	var wg sync.WaitGroup
	beat, stop := context.WithCancel(ctx)
	if j.Shared() {
		p := newPool(r.Bus, m.Name, e.Run, j.Worker())
		o.Pool, pulse.read = p, &p.read
		wg.Go(func() { p.follow(beat) })
	} else {
		w := j.Worker()
		w.Read = pulse.read.count
		o.Pool = engine.Local{Worker: w, Items: r.Items}
	}
	wg.Go(func() { pulse.beat(beat) })
	res, err := j.Sync(ctx, o)
	stop()
	wg.Wait()
	r.noteEnd(ctx, m, o, res, err)
	if j.Shared() {
		// What nobody has begun of a run that has ended is not wanted any more.
		tidy := context.WithoutCancel(ctx)
		if terr := errors.Join(r.Bus.DropMirrorWork(tidy, m.Name, e.Run), r.Bus.DropMirrorDone(tidy, m.Name, e.Run)); terr != nil {
			r.Log.Warn("tidy up after a run", "mirror", m.Name, "error", terr)
		}
	}
	return res, errors.Join(err, j.Close(ctx))
}

// lockedEvery is how often a mirror is looked at that another process has open.
const lockedEvery = time.Second

// open opens a mirror, and waits while somebody runs it at the command line.
func (r *runner) open(ctx context.Context, m drill.Mirror, write bool) (*job.Job, error) {
	tick := time.NewTicker(lockedEvery)
	defer tick.Stop()
	for {
		j, err := r.Env.Open(ctx, m, write)
		if !errors.Is(err, state.ErrLocked) {
			return j, err
		}
		r.Log.Debug("a run waits for another process", "mirror", m.Name, "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

func (r *runner) tell(ctx context.Context, kind string, e Event) error {
	e.At = r.Env.Now().UTC()
	id := e.Mirror + "/" + e.Run + "/" + kind
	if kind == KindProgress || kind == KindStalled {
		id = ""
	}
	if err := r.Bus.PublishMirrorEvent(ctx, e.Mirror, kind, id, e); err != nil {
		return fmt.Errorf("mirror %s: tell that it %s: %w", e.Mirror, kind, err)
	}
	return nil
}

// fewProblems is how many problems an event lists.
const fewProblems = 20

func summary(res job.Result, dry bool) *Result {
	out := &Result{
		Whole: res.Whole(), DryRun: dry, Seconds: res.Ended.Sub(res.Began).Seconds(), Done: map[string]int64{}, Believed: res.Believed,
		Bytes: res.Bytes[plan.Put], Failed: res.Failed, HeldBack: res.HeldBack, Entries: res.Root.Root.Entries,
	}
	for op, n := range res.Done {
		out.Done[op.String()] = n
	}
	if res.Root.Root.Entries > 0 {
		out.Root = res.Root.Root.Hash.String()
	}
	all := runlog.Problems(&res.Report)
	out.Problems = all[:min(len(all), fewProblems)]
	return out
}

// pulse publishes how far a run is, and raises the alarm when it stands still.
type pulse struct {
	runner  *runner
	event   Event
	stalled time.Duration
	// read is what was read so far, also of what is not done yet.
	read *tally

	mu    sync.Mutex
	last  engine.Progress
	moved time.Time
}

// pulseEvery is how often progress is published.
const pulseEvery = 2 * time.Second

func newPulse(r *runner, m drill.Mirror, e Event) *pulse {
	p := &pulse{runner: r, event: e, read: &tally{}, stalled: m.Stalled.D(), moved: r.Env.Now()}
	if p.stalled == 0 {
		p.stalled = drill.DefaultStalled
	}
	return p
}

// feel is told of progress by the engine and must be quick.
func (p *pulse) feel(g engine.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.Seen != p.last.Seen || g.DoneActions != p.last.DoneActions || g.DoneBytes != p.last.DoneBytes {
		p.moved = g.At
	}
	p.last = g
}

// beat publishes until ctx ends.
func (p *pulse) beat(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	raised := false
	told := int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, read := p.runner.Env.Now(), p.read.bytes()
		p.mu.Lock()
		if read != told {
			p.moved, told = now, read
		}
		g, still := p.last.WithRead(read), now.Sub(p.moved)
		p.mu.Unlock()
		g.At = now
		kind, e := KindProgress, p.event
		e.Progress = describe(g)
		switch {
		case still < p.stalled:
			raised = false
		case raised:
			continue
		default:
			raised, kind = true, KindStalled
			e.Reason = fmt.Sprintf("no progress for %s", still.Round(time.Second))
			p.runner.Log.Error("a mirror stands still", "mirror", e.Mirror, "run", e.Run, "for", still)
		}
		if err := p.runner.tell(ctx, kind, e); err != nil && ctx.Err() == nil {
			p.runner.Log.Warn("publish progress", "error", err)
		}
	}
}

func describe(g engine.Progress) *Progress {
	p := &Progress{Planned: g.Planned, Seen: g.Seen, Actions: g.Actions, DoneActions: g.DoneActions, Bytes: g.Bytes, DoneBytes: g.DoneBytes, Failed: g.Failed}
	if left, ok := g.ETA(); ok {
		s := left.Seconds()
		p.LeftSeconds = &s
	}
	return p
}

// turns lets runs that share a location take turns, in the order in which they came.
type turns struct {
	mu    sync.Mutex
	queue []*turn
}

type turn struct {
	mirror string
	at     [2]location.Location
	begun  bool
	moved  chan struct{}
}

func newTurns() *turns { return &turns{} }

// waits reports whether a run of the mirror waits for its turn.
func (t *turns) waits(mirror string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.queue {
		if one.mirror == mirror && !one.begun {
			return true
		}
	}
	return false
}

// take waits until no earlier run has a location in common. The caller calls done
// when its run has ended.
func (t *turns) take(ctx context.Context, m drill.Mirror) (done func(), err error) {
	me := &turn{mirror: m.Name, moved: make(chan struct{}, 1)}
	for i, text := range []string{m.From, m.To} {
		// What cannot be read is refused when it is opened.
		me.at[i], _ = location.Parse(text)
	}
	t.mu.Lock()
	t.queue = append(t.queue, me)
	me.begun = t.free(me)
	begun := me.begun
	t.mu.Unlock()
	done = func() { t.end(me) }
	for !begun {
		select {
		case <-ctx.Done():
			done()
			return nil, ctx.Err()
		case <-me.moved:
		}
		t.mu.Lock()
		begun = me.begun
		t.mu.Unlock()
	}
	return done, nil
}

// free reports whether nobody before has a location in common.
func (t *turns) free(me *turn) bool {
	for _, one := range t.queue {
		if one == me {
			return true
		}
		for _, a := range one.at {
			for _, b := range me.at {
				if one.mirror == me.mirror || location.Overlap(a, b) {
					return false
				}
			}
		}
	}
	return true
}

func (t *turns) end(me *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.queue[:0]
	for _, one := range t.queue {
		if one != me {
			kept = append(kept, one)
		}
	}
	clear(t.queue[len(kept):])
	t.queue = kept
	for _, one := range t.queue {
		if !one.begun && t.free(one) {
			one.begun = true
			one.moved <- struct{}{}
		}
	}
}
