package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/heavy"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/runlog"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// runner plans runs.
type runner struct {
	Config
	turns *turns
	// turn says what a job needs for itself; it asks the file system.
	turn func(drill.Mirror, job.Use) job.Turn
	// slots bound the runs that have begun.
	slots chan struct{}
	// single says that no other process has a part in its runs, nor this one by the
	// queue of work.
	single bool
}

func newRunner(c Config) *runner {
	return &runner{Config: c, turns: newTurns(), turn: c.Env.Turn, slots: make(chan struct{}, c.Runs)}
}

// request is one that is in this process's hands, as a run of its own: nothing of another
// try of it is taken for it.
type request struct {
	message bus.Message
	mirror  drill.Mirror
	task    task
	// needs is what the run needs for itself.
	needs job.Turn
	// event is what all that is told of it has in common.
	event Event
	calls *calls
	waits *waits
}

// onRequest makes one run.
func (r *runner) onRequest(ctx context.Context, m bus.Message) error {
	asked, err := bus.ReadMirrorRequest(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	e := Event{Mirror: asked.Mirror, Run: runOf(m.Seq) + strings.ToLower(rand.Text()[:10]), By: asked.Who}
	t, err := parseRequest(m.Data)
	mirror, known := r.Inventory.FindMirror(asked.Mirror)
	if e.Do = t.do; err == nil && known {
		err = t.on(mirror)
	}
	switch {
	case err != nil:
		e.Reason = err.Error()
		return r.reject(ctx, e)
	case !known:
		e.Reason = fmt.Sprintf("%v: the operator adds it under spec.mirrors", ErrUnknown)
		return r.reject(ctx, e)
	}
	err = r.attempt(ctx, &request{message: m, mirror: mirror, task: t, event: e})
	if err != nil && ctx.Err() == nil && m.Delivered >= maxTries && !errors.Is(err, ErrAbandoned) {
		// Nobody tries again, and somebody may wait for an answer.
		r.Log.Error("a mirror's run is given up", "mirror", e.Mirror, "run", e.Run, "by", e.By, "error", err)
		e.Reason = "given up after " + strconv.Itoa(m.Delivered) + " tries: " + err.Error()
		err = errors.Join(bus.Poison(err), r.tell(ctx, KindFailed, e))
	}
	return err
}

// attempt makes the run once it has its turn and nobody else has the mirror, or until it is
// called off.
func (r *runner) attempt(ctx context.Context, q *request) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	q.calls, q.waits = &calls{run: q.event.Run, cancel: cancel}, &waits{runner: r, event: q.event}
	wg.Go(func() { r.awaitCancel(ctx, q.mirror.Name, q.message.Seq, q.calls) })
	err := r.inTurn(ctx, q)
	q.waits.over()
	if err != nil && errors.Is(context.Cause(ctx), ErrCancelled) {
		e := q.event // before it began
		e.Reason = context.Cause(ctx).Error()
		return r.tell(context.WithoutCancel(ctx), KindCancelled, e)
	}
	return err
}

// inTurn makes the run when it has its turn.
func (r *runner) inTurn(ctx context.Context, q *request) error {
	if q.message.Delivered > maxTries { // It is only to be answered.
		q.waits.begin(ctx, "")
		return r.once(ctx, q)
	}
	if err := r.look(ctx, q); err != nil {
		return err
	}
	q.waits.begin(ctx, "")
	done, err := r.turns.take(ctx, q.mirror.Name, q.needs)
	if err != nil {
		return err
	}
	defer done()
	return r.unlocked(ctx, q)
}

// look finds out what the run needs for itself. A mount that does not answer keeps whoever
// follows its links for ever: such a run tells that it stands still, as one that has begun
// does, and is called off all the same.
func (r *runner) look(ctx context.Context, q *request) error {
	found := make(chan job.Turn, 1)
	go func() { found <- r.turn(q.mirror, q.task.use()) }() // which goes on with the mount alone
	p := newBeats(r, q.mirror, q.event)
	var told sync.WaitGroup
	defer told.Wait()
	beat, stop := context.WithCancel(ctx)
	defer stop()
	told.Go(func() { p.publish(beat) })
	select {
	case q.needs = <-found:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unlocked makes the run, and again and again tries to, while somebody runs the mirror at
// the command line, or another process of this machine works on one of its places:
// meanwhile others have the slot and the lease.
func (r *runner) unlocked(ctx context.Context, q *request) error {
	once := func() error {
		end, err := r.Env.Begin(ctx, q.needs)
		if err == nil {
			err = errors.Join(r.once(ctx, q), end())
		}
		if busy, ok := errors.AsType[*state.LockedError](err); ok {
			why := busy.Error()
			if busy.By == "" {
				why = "somebody has the mirror open: " + why
			}
			q.waits.begin(ctx, why)
		}
		return err
	}
	return state.Wait(ctx, once, func(busy *state.LockedError) error {
		r.Log.Info("a run waits", "mirror", q.mirror.Name, "run", q.event.Run, "error", busy)
		return nil
	})
}

// once makes the run as soon as nobody else plans this mirror and a slot is free.
func (r *runner) once(ctx context.Context, q *request) error {
	return r.alone(ctx, q.mirror.Name, q.event.Run, func(ctx context.Context, h *held) error {
		if over, err := r.answered(ctx, q.mirror.Name, q.message); over || err != nil {
			return err
		}
		if q.message.Delivered > maxTries {
			return r.abandon(ctx, q)
		}
		q.waits.over()
		if err := r.tell(ctx, KindStarted, q.event); err != nil {
			return err
		}
		// It is this run's, as no other one has the mirror.
		started, _, err := r.Bus.LastMirrorEvent(ctx, q.mirror.Name, KindStarted)
		if err != nil {
			return err
		}
		q.calls.begin(started.Seq)
		return r.run(ctx, h, q)
	})
}

// ErrAbandoned says that a request is not tried again, as nobody who tried it lived to
// say what came of it.
var ErrAbandoned = errors.New("abandoned")

// abandon answers a request that each process which took it was cut off from. One try
// is left for that: after the last one nobody would see the request again.
func (r *runner) abandon(ctx context.Context, q *request) error {
	e := q.event
	err := fmt.Errorf("%w: each of the %d processes that took the request was killed, stopped or cut off before its run ended: see their logs, and ask again once that is mended",
		ErrAbandoned, q.message.Delivered-1)
	r.Log.Error("a mirror's run is given up", "mirror", e.Mirror, "run", e.Run, "by", e.By, "error", err)
	if !q.task.compares() {
		r.noteBegin(ctx, q, r.Env.Now())
		r.noteEnd(ctx, q, job.Result{}, err)
	}
	e.Reason, e.Log = err.Error(), r.known(q.mirror)
	return errors.Join(bus.Poison(err), r.tell(ctx, KindFailed, e))
}

// answered reports whether a request was handed out again although its run has ended:
// who made that run was cut off before it could say that it is done with the request.
func (r *runner) answered(ctx context.Context, mirror string, m bus.Message) (bool, error) {
	if m.Delivered < 2 {
		return false, nil
	}
	for _, kind := range Endings() {
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

// untried counts the runs of a request whose processes were stopped or killed while they
// waited, and that had begun nothing which could have been the reason.
func (r *runner) untried(ctx context.Context, m bus.Message) (n int, err error) {
	asked, err := bus.ReadMirrorRequest(m.Subject)
	if err != nil {
		return 0, nil // which the next try will say
	}
	waits := map[string]bool{}
	err = r.Bus.MirrorEventsSince(ctx, asked.Mirror, "*", m.Stored, func(rec bus.Record) error {
		var e Event
		if json.Unmarshal(rec.Data, &e) == nil && strings.HasPrefix(e.Run, runOf(m.Seq)) {
			waits[e.Run] = e.Since != nil
		}
		return nil
	})
	for _, last := range waits {
		if last {
			n++
		}
	}
	return n, err
}

// runOf begins the names of the runs that a request is answered with.
func runOf(seq uint64) string { return strconv.FormatUint(seq, 10) + "-" }

func (r *runner) run(ctx context.Context, h *held, q *request) error {
	e, err := r.carry(ctx, h, q)
	e.Log = r.known(q.mirror)
	switch {
	case errors.Is(context.Cause(ctx), ErrCancelled):
		r.Log.Warn("a mirror's run was called off", "mirror", e.Mirror, "run", e.Run, "by", e.By)
		e.Reason, e.Result, e.Outcome = context.Cause(ctx).Error(), nil, nil
		return r.tell(context.WithoutCancel(ctx), KindCancelled, e)
	case ctx.Err() != nil:
		return ctx.Err() // the process stops; another one goes on
	case errors.Is(err, state.ErrLocked), errors.Is(err, ErrTaken):
		return err // it is made later, or by another one
	case err != nil:
		r.Log.Error("a mirror's run failed", "mirror", e.Mirror, "run", e.Run, "by", e.By, "do", e.Do, "error", err)
		e.Reason, e.Fault, e.Result, e.Outcome = err.Error(), job.FaultOf(err), nil, nil
		return r.tell(ctx, KindFailed, e)
	case e.Outcome != nil:
		return r.tellOutcome(ctx, e)
	}
	if err := r.tell(ctx, KindFinished, e); err != nil {
		return err
	}
	if !r.single && e.Result.Whole && !e.Result.DryRun {
		r.followers(ctx, e.Mirror)
	}
	return nil
}

// carry carries out what is asked for, and gives the event that tells what it came to. The
// pulse begins first: opening a place may take for ever, too.
func (r *runner) carry(ctx context.Context, h *held, q *request) (Event, error) {
	e, p := q.event, newBeats(r, q.mirror, q.event)
	var wg sync.WaitGroup
	defer wg.Wait()
	beat, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { p.publish(beat) })
	var err error
	if q.task.compares() {
		e.Outcome, err = r.compare(ctx, h, q, p)
		return e, err
	}
	res, err := r.sync(ctx, h, q, p)
	if err != nil {
		return e, err
	}
	e.Result = summary(q.mirror, res.Result, q.task.sync.DryRun)
	e.Result.FirstRun, e.Result.KeptByMode, e.Result.Keyless = res.first, res.kept[plan.KeepMode], r.Env.Keyless(q.mirror)
	for _, why := range slices.Sorted(maps.Keys(res.kept)) {
		e.Result.Kept = append(e.Result.Kept, Kept{string(why), res.kept[why]})
	}
	at := []any{"mirror", e.Mirror, "run", e.Run, "by", e.By}
	if left := runlog.Left(&res.Report); left > 0 && !q.task.sync.DryRun {
		r.Log.Warn("a mirror's run left something undone", append(at, "problems", left, "first", e.Result.Problems)...)
	} else {
		r.Log.Info("a mirror's run ended well", append(at, "dryRun", q.task.sync.DryRun, "seconds", e.Result.Seconds, "copied", e.Result.Done[plan.Put.String()], "bytes", e.Result.Bytes,
			"deleted", e.Result.Done[plan.Delete.String()], "equal", e.Result.Done[plan.Equal.String()],
			"permissionsSet", e.Result.PermissionsSet, "sourcePermissionsSet", e.Result.SourcePermissionsSet)...)
	}
	return e, nil
}

// ByDrill asks for the runs of mirrors that are steps of drills.
const ByDrill = "drill"

// work is what the run, which has all else that it waits for, is to the machine's other heavy
// work; nil where it is none. A drill's step never waits for others: its time is what the
// drill measures. The caller ends it.
func (r *runner) work(ctx context.Context, h *held, q *request, p *beats) *heavy.Work {
	if q.event.By == ByDrill {
		return nil
	}
	return heavy.OfMirror(ctx, q.mirror, heavy.Options{
		Locks: r.Env.Locks, By: job.Called(q.mirror), Long: r.Long,
		Waits: func(first *machine.Head) {
			h.slot.release() // Who waits is in nobody's way.
			p.waits(ctx, first)
		},
		Unlocked: func(why error) {
			r.Log.Warn("a run waits for no other heavy work of this machine: who is at it cannot be told", "mirror", q.event.Mirror, "run", q.event.Run, "error", why)
		},
	})
}

// begins says that a run has the mirror open, or cannot open it.
func (r *runner) begins(q *request) {
	r.Log.Info("a mirror's run begins", "mirror", q.mirror.Name, "run", q.event.Run, "by", q.event.By, "do", q.event.Do)
}

func (r *runner) reject(ctx context.Context, e Event) error {
	r.Log.Warn("a request for a mirror's run is rejected", "mirror", e.Mirror, "by", e.By, "reason", e.Reason)
	return r.tell(ctx, KindRejected, e)
}

// synced is what a sync came to, and what else there is to say of it.
type synced struct {
	job.Result
	// first says that no run had come to look at the places before, kept counts, by reason,
	// what was not deleted.
	first bool
	kept  map[plan.Reason]int64
}

// sync opens the mirror and makes the run over all workers.
func (r *runner) sync(ctx context.Context, h *held, q *request, p *beats) (out synced, err error) {
	o := q.task.sync
	o.Watch = p.Feel
	if q.mirror.Snapshots != nil {
		load := r.work(ctx, h, q, p)
		defer load.End()
		o.Pass = load.Pass
		out.Result, err = r.snapshots(ctx, q, o)
		return out, err
	}
	out.kept = map[plan.Reason]int64{}
	o.Each = func(d engine.Done) {
		if d.Err == nil && d.Action.Op == plan.Keep {
			out.kept[d.Action.Reason]++
		}
	}
	began := r.Env.Now()
	out.first = !runlog.Begun(runlog.Dir(r.Env, q.mirror))
	var load *heavy.Work
	defer func() { load.End() }()
	env := r.Env
	env.Pass = func(ctx context.Context) error { // It waits before it changes anything.
		load = r.work(ctx, h, q, p)
		return load.Pass(ctx)
	}
	j, err := env.OpenRun(ctx, q.mirror, o.DryRun)
	if errors.Is(err, state.ErrLocked) || err != nil && ctx.Err() != nil {
		return out, err
	}
	r.begins(q)
	r.noteBegin(ctx, q, began)
	var own bus.MirrorMemory
	if err == nil {
		own, err = r.recall(ctx, h, j, &o)
	}
	if err != nil {
		r.noteEnd(ctx, q, job.Result{}, err)
		return out, err
	}
	if load == nil {
		load = r.work(ctx, h, q, p)
	}
	o.Pass = load.Pass
	out.Result, err = r.carryOut(ctx, j, q.mirror.Name, q.event.Run, p.read, o)
	r.noteEnd(ctx, q, out.Result, err)
	if !o.DryRun {
		r.left(h, j, own)
	}
	return out, errors.Join(err, j.Close(ctx))
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
	if kind == KindProgress || kind == KindStalled || kind == KindWaiting {
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
		Whole: res.Whole(), DryRun: dry, Began: res.Began, Seconds: res.Ended.Sub(res.Began).Seconds(), Done: map[string]int64{}, Believed: res.Believed, Listed: res.Listed,
		Bytes: res.Bytes[plan.Put], Failed: res.Failed, NotTried: res.NotTried, HeldBack: res.HeldBack, Entries: res.Root.Root.Entries,
		From: m.From, To: m.To, Mode: m.Mode, NewDestination: res.New, Replaced: res.Replaced,
		PermissionsSet: res.Mended[plan.Source] + res.Mended[plan.Dest], SourcePermissionsSet: res.Mended[plan.Source],
		OwnersNotSet: res.Disowned, Scans: m.Deletes.Scans, Unchecked: res.Unread, Untried: res.Untried, Unasked: res.Unasked,
	}
	for op, n := range res.Done {
		out.Done[op.String()] = n
	}
	if res.Check == engine.CheckAudit {
		out.Compared = map[string]int64{plan.Source.String(): res.Compared[plan.Source], plan.Dest.String(): res.Compared[plan.Dest]}
	}
	if res.Root.Root.Entries > 0 {
		out.Root = res.Root.Root.Hash.String()
	}
	all := runlog.Problems(&res.Report)
	out.Problems = all[:min(len(all), fewProblems)]
	return out
}
