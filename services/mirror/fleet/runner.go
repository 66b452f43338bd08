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
	// single says that no other process has a part in its runs, nor this one by the
	// queue of work.
	single bool
}

func newRunner(c Config) *runner {
	return &runner{Config: c, turns: newTurns(), slots: make(chan struct{}, c.Runs)}
}

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
	if m.Delivered <= maxTries { // else it is only to be answered
		done, err := r.turns.take(ctx, mirror)
		if err != nil {
			return err
		}
		defer done()
	}
	err = r.attempt(ctx, m, mirror, e, job.SyncOptions{Check: check, DryRun: body.DryRun})
	if err != nil && ctx.Err() == nil && m.Delivered >= maxTries && !errors.Is(err, ErrAbandoned) {
		// Nobody tries again, and somebody may wait for an answer.
		r.Log.Error("a mirror's run is given up", "mirror", e.Mirror, "run", e.Run, "by", e.By, "error", err)
		e.Reason = "given up after " + strconv.Itoa(m.Delivered) + " tries: " + err.Error()
		err = errors.Join(bus.Poison(err), r.tell(ctx, KindFailed, e))
	}
	return err
}

// attempt makes the run once nobody else has the mirror, or until it is called off.
func (r *runner) attempt(ctx context.Context, m bus.Message, mirror drill.Mirror, e Event, o job.SyncOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	c := &calls{run: e.Run, cancel: cancel}
	wg.Go(func() { r.awaitCancel(ctx, mirror.Name, m.Seq, c) })
	err := r.unlocked(ctx, mirror.Name, e.Run, func() error { return r.once(ctx, m, mirror, e, o, c) })
	if err != nil && errors.Is(context.Cause(ctx), ErrCancelled) {
		return r.tell(context.WithoutCancel(ctx), KindCancelled, e) // before it began
	}
	return err
}

// unlocked calls fn again and again while somebody runs the mirror at the command
// line: meanwhile others have the slot and the lease.
func (r *runner) unlocked(ctx context.Context, mirror, run string, fn func() error) error {
	return state.Wait(ctx, fn, func(busy *state.LockedError) error {
		r.Log.Info("a run waits: somebody has the mirror open", "mirror", mirror, "run", run, "error", busy)
		return nil
	})
}

// once makes the run as soon as nobody else plans this mirror and a slot is free.
func (r *runner) once(ctx context.Context, m bus.Message, mirror drill.Mirror, e Event, o job.SyncOptions, c *calls) error {
	return r.alone(ctx, mirror.Name, e.Run, func(ctx context.Context, h *held) error {
		if over, err := r.answered(ctx, mirror.Name, m); over || err != nil {
			return err
		}
		if m.Delivered > maxTries {
			return r.abandon(ctx, mirror, m, e, o)
		}
		if err := r.tell(ctx, KindStarted, e); err != nil {
			return err
		}
		// It is this run's, as no other one has the mirror.
		started, _, err := r.Bus.LastMirrorEvent(ctx, mirror.Name, KindStarted)
		if err != nil {
			return err
		}
		c.begin(started.Seq)
		return r.run(ctx, h, mirror, e, o)
	})
}

// ErrAbandoned says that a request is not tried again, as nobody who tried it lived to
// say what came of it.
var ErrAbandoned = errors.New("abandoned")

// abandon answers a request that each process which took it was cut off from. One try
// is left for that: after the last one nobody would see the request again.
func (r *runner) abandon(ctx context.Context, mirror drill.Mirror, m bus.Message, e Event, o job.SyncOptions) error {
	err := fmt.Errorf("%w: each of the %d processes that took the request was killed, stopped or cut off before its run ended: see their logs, and ask again once that is mended",
		ErrAbandoned, m.Delivered-1)
	r.Log.Error("a mirror's run is given up", "mirror", e.Mirror, "run", e.Run, "by", e.By, "error", err)
	r.noteBegin(ctx, mirror, o, e.By, r.Env.Now())
	r.noteEnd(ctx, mirror, o, job.Result{}, err)
	e.Reason, e.Log = err.Error(), r.known(mirror)
	return errors.Join(bus.Poison(err), r.tell(ctx, KindFailed, e))
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

func (r *runner) run(ctx context.Context, h *held, m drill.Mirror, e Event, o job.SyncOptions) error {
	res, err := r.sync(ctx, h, m, e, o)
	e.Log = r.known(m)
	switch {
	case errors.Is(context.Cause(ctx), ErrCancelled):
		r.Log.Warn("a mirror's run was called off", "mirror", m.Name, "run", e.Run, "by", e.By)
		return r.tell(context.WithoutCancel(ctx), KindCancelled, e)
	case ctx.Err() != nil:
		return ctx.Err() // the process stops; another one goes on
	case errors.Is(err, state.ErrLocked), errors.Is(err, ErrTaken):
		return err // it is made later, or by another one
	case err != nil:
		r.Log.Error("a mirror's run failed", "mirror", m.Name, "run", e.Run, "by", e.By, "error", err)
		e.Reason = err.Error()
		return r.tell(ctx, KindFailed, e)
	}
	e.Result = summary(m, res, o.DryRun)
	if left := runlog.Left(&res.Report); left > 0 && !o.DryRun {
		r.Log.Warn("a mirror's run left something undone", "mirror", m.Name, "run", e.Run, "by", e.By, "problems", left, "first", e.Result.Problems)
	}
	return r.tell(ctx, KindFinished, e)
}

func (r *runner) reject(ctx context.Context, e Event) error {
	r.Log.Warn("a request for a mirror's run is rejected", "mirror", e.Mirror, "by", e.By, "reason", e.Reason)
	return r.tell(ctx, KindRejected, e)
}

// sync opens the mirror and makes the run over all workers. The pulse begins first:
// opening a place may take for ever, too.
func (r *runner) sync(ctx context.Context, h *held, m drill.Mirror, e Event, o job.SyncOptions) (job.Result, error) {
	pulse := newPulse(r, m, e)
	o.Watch = pulse.feel
	var wg sync.WaitGroup
	defer wg.Wait()
	beat, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { pulse.beat(beat) })
	if m.Snapshots != nil {
		return r.snapshots(ctx, m, e, o)
	}
	began := r.Env.Now()
	j, err := r.Env.OpenRun(ctx, m, o.DryRun)
	if errors.Is(err, state.ErrLocked) {
		return job.Result{}, err
	}
	r.noteBegin(ctx, m, o, e.By, began)
	var own bus.MirrorMemory
	if err == nil {
		own, err = r.recall(ctx, h, j, &o)
	}
	if err != nil {
		r.noteEnd(ctx, m, o, job.Result{}, err)
		return job.Result{}, err
	}
	res, err := r.carryOut(ctx, j, m.Name, e.Run, pulse.read, o)
	r.noteEnd(ctx, m, o, res, err)
	if !o.DryRun {
		r.left(h, j, own)
	}
	return res, errors.Join(err, j.Close(ctx))
}

// carryOut makes the run of an open mirror.
func (r *runner) carryOut(ctx context.Context, j *job.Job, mirror, run string, read *tally, o job.SyncOptions) (job.Result, error) {
	o.Run = run
	if r.single || !j.Shared() {
		w := j.Worker()
		w.Read = read.count
		o.Pool = engine.Local{Worker: w, Items: r.Items, SplitAbove: r.SplitAbove}
		return j.Sync(ctx, o)
	}
	p := newPool(r.Bus, mirror, run, j.Worker(), read)
	p.split = r.SplitAbove
	o.Pool = p
	var wg sync.WaitGroup
	follow, stop := context.WithCancel(ctx)
	wg.Go(func() { p.follow(follow) })
	res, err := j.Sync(ctx, o)
	stop()
	wg.Wait()
	// What nobody has begun of a run that has ended is not wanted any more.
	tidy := context.WithoutCancel(ctx)
	if terr := errors.Join(r.Bus.DropMirrorWork(tidy, mirror, run), r.Bus.DropMirrorDone(tidy, mirror, run)); terr != nil {
		r.Log.Warn("tidy up after a run", "mirror", mirror, "error", terr)
	}
	return res, err
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

func summary(m drill.Mirror, res job.Result, dry bool) *Result {
	out := &Result{
		Whole: res.Whole(), DryRun: dry, Seconds: res.Ended.Sub(res.Began).Seconds(), Done: map[string]int64{}, Believed: res.Believed,
		Bytes: res.Bytes[plan.Put], Failed: res.Failed, NotTried: res.NotTried, HeldBack: res.HeldBack, Entries: res.Root.Root.Entries,
		From: m.From, To: m.To, Mode: m.Mode, NewDestination: res.New, Replaced: res.Replaced,
		PermissionsSet: res.Mended, OwnersNotSet: res.Disowned, Unchecked: res.Unread, Untried: res.Untried,
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
		case raised: // It goes on telling: who is silent is taken for dead.
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
