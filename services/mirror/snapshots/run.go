package snapshots

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/zfs"
	"github.com/firedrill/firedrill/services/mirror/zfs/reach"
)

// Options say how a mirror is run.
type Options struct {
	// DryRun does nothing but count what would be done.
	DryRun bool
	// Begun and Ended, if not nil, note the run: Begun is called, with when it began, once
	// this process has the mirror, or could not take it for another reason than that
	// somebody else has it; Ended after every such run, with what Run returns.
	Begun func(at time.Time)
	Ended func(res job.Result, err error)
	// Pass, if not nil, is asked before more of a stream is sent, as that of engine.Job.
	Pass func(ctx context.Context) error
	// Watch, if not nil, is told how far it is, often and from another goroutine.
	Watch func(engine.Progress)
}

// Run makes one run of a mirror that brings over snapshots: with zfs.Update, of each of
// its datasets. In the result a snapshot that was sent or archived is put, one that was
// let go, or a point, is deleted; where there are several datasets, those that failed are
// its failures, and the others are done all the same. Errors are *job.SpecError,
// *state.LockedError while the mirror runs elsewhere, or why nothing could be done. What
// was done is in the result with an error, too.
func Run(ctx context.Context, env job.Env, m drill.Mirror, o Options) (res job.Result, err error) {
	began, begun := env.Now(), false
	begin := func() {
		if begun = true; o.Begun != nil {
			o.Begun(began)
		}
	}
	defer func() {
		if errors.Is(err, state.ErrLocked) {
			return // somebody else's run is under way
		}
		if !begun {
			begin()
		}
		if o.Ended != nil {
			o.Ended(res, err)
		}
	}()
	t, problems := parse(m)
	if len(problems) > 0 {
		p := problems[0]
		return res, &job.SpecError{Mirror: m.Name, Field: p.Field, Problem: fmt.Sprintf("%q", p.Value), Fix: p.Fix}
	}
	lock, err := state.Open(filepath.Join(env.StateDir, m.Name))
	if err != nil {
		return res, fmt.Errorf("mirror %s: %w", m.Name, err)
	}
	begin()
	r := &running{task: t, env: env, options: o}
	r.report.Began, r.report.Done, r.report.Bytes = began, map[plan.Op]int64{}, map[plan.Op]int64{}
	err = errors.Join(r.all(ctx), lock.Close())
	r.report.Ended = env.Now()
	if err != nil {
		err = fmt.Errorf("mirror %s: %w", m.Name, err)
	}
	return job.Result{Report: r.report}, err
}

// running is a run.
type running struct {
	task
	env            job.Env
	options        Options
	source, target *zfs.Host
	report         engine.Report

	mu sync.Mutex // guards what follows, which is told
	// snapshot is the one under way, passed what has passed of it, before what did of
	// those before.
	snapshot       string
	passed, before int64
}

// all brings over every dataset.
func (r *running) all(ctx context.Context) (err error) {
	if r.source, err = reach.Host(ctx, r.Snapshots.FromVia); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	one := r.archive
	if r.to.Scheme == location.ZFS {
		one = r.replicate
		if r.target, err = reach.Host(ctx, r.Snapshots.ToVia); err != nil {
			return fmt.Errorf("to: %w", err)
		}
	}
	if !r.Snapshots.Recursive {
		return one(ctx, r.from)
	}
	if r.to.IsBucket() {
		err := r.open(ctx, r.to, func(a *zfs.Archive) error { return MayHoldArchives(ctx, a, r.to) })
		if err != nil {
			return err
		}
	}
	datasets, err := r.source.Datasets(ctx, r.from)
	if err != nil {
		return err
	}
	for _, dataset := range datasets {
		err := one(ctx, dataset)
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if err != nil {
			r.report.Fail(dataset, plan.Put, err)
		}
	}
	return nil
}

func (r *running) replicate(ctx context.Context, dataset string) error {
	to := Below(dataset, r.from, r.to.Path)
	one := zfs.Replication{
		Source: r.source, Target: r.target, From: dataset, To: to, Job: Job(to, r.Snapshots.ToVia),
		BytesPerSecond: r.BytesPerSecond, Watch: r.watched(ctx),
	}
	if r.Snapshots.Recursive {
		one.Root = r.to.Path
	}
	release, err := Lock(r.env.StateDir, one.Job)
	if err != nil {
		return err
	}
	defer release()
	o := zfs.UpdateOptions{Now: r.env.Now(), Keep: r.keep}
	if r.options.DryRun {
		would, err := one.PlanUpdate(ctx, o)
		if would.Take != "" {
			r.count(plan.Put, len(would.Send)+1) // the one that would be taken
			r.count(plan.Delete, len(would.PruneSource)+len(would.PruneTarget))
		}
		return err
	}
	done, err := one.Update(ctx, o)
	r.count(plan.Put, len(done.Steps))
	for _, s := range done.Steps {
		r.report.Bytes[plan.Put] += s.Stream.Bytes
	}
	r.count(plan.Delete, len(done.PrunedSource)+len(done.PrunedTarget))
	return err
}

func (r *running) archive(ctx context.Context, dataset string) error {
	where := r.to
	if r.Snapshots.Recursive {
		var err error
		if where, err = ArchiveOf(dataset, r.to); err != nil {
			return err
		}
	}
	name := Job(where.String(), "")
	release, err := Lock(r.env.StateDir, name)
	if err != nil {
		return err
	}
	defer release()
	return r.open(ctx, where, func(a *zfs.Archive) error {
		if r.options.DryRun {
			return r.archivePlan(ctx, a, dataset)
		}
		done, err := a.Update(ctx, r.source, dataset, zfs.SaveOptions{
			Job: name, BytesPerSecond: r.BytesPerSecond, WholeEvery: r.Snapshots.WholeEvery.D(), Watch: r.watched(ctx),
		}, zfs.UpdateOptions{Now: r.env.Now(), Keep: r.keep, KeepPoints: r.keepPoints})
		r.count(plan.Put, len(done.Points))
		for _, p := range done.Points {
			r.report.Bytes[plan.Put] += p.Stream.Bytes
		}
		r.count(plan.Delete, len(done.Pruned)+len(done.Thinned.Gone))
		return err
	})
}

// archivePlan counts what would be archived. What would be let go afterwards depends on
// what was archived.
func (r *running) archivePlan(ctx context.Context, a *zfs.Archive, dataset string) error {
	send, err := a.Lacks(ctx, r.source, dataset)
	if errors.Is(err, zfs.ErrNoSnapshots) && !errors.Is(err, zfs.ErrCorrupt) {
		err = nil
	}
	if err == nil || errors.Is(err, zfs.ErrCorrupt) {
		r.count(plan.Put, len(send)+1) // the one that would be taken
	}
	return err
}

// open opens an archive for as long as do takes.
func (r *running) open(ctx context.Context, where location.Location, do func(*zfs.Archive) error) error {
	a, done, err := reach.Archive(ctx, where, r.env.Stores, r.env.OwnKeys, r.options.DryRun)
	if err != nil {
		return err
	}
	defer done()
	return do(a)
}

func (r *running) count(op plan.Op, n int) {
	if n > 0 {
		r.report.Done[op] += int64(n)
	}
}

// watched tells how far the run is. The stream waits for it, and may have to wait until more
// of it may be sent.
func (r *running) watched(ctx context.Context) func(zfs.Progress) {
	return func(g zfs.Progress) {
		r.watch(g)
		if r.options.Pass != nil {
			_ = r.options.Pass(ctx) // The stream ends by itself when ctx does.
		}
	}
}

// watch tells how far the run is. How much there is below a dataset nobody knows before.
func (r *running) watch(g zfs.Progress) {
	if r.options.Watch == nil {
		return
	}
	r.mu.Lock()
	if g.Snapshot != r.snapshot {
		r.before, r.snapshot = r.before+r.passed, g.Snapshot
	}
	r.passed = g.Bytes
	told := engine.Progress{
		At: r.env.Now(), Began: r.report.Began, Planned: !r.Snapshots.Recursive, Seen: int64(g.Number), Actions: int64(g.Of), DoneActions: int64(g.Number - 1),
		DoneBytes: r.before + r.passed, Bytes: r.before + max(r.passed, g.Total),
	}
	r.mu.Unlock()
	r.options.Watch(told)
}
