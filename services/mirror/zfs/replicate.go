package zfs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Replication brings a dataset's snapshots to another, on the same machine or on
// another one. It is a value: nothing of it is open between runs.
type Replication struct {
	Source, Target *Host
	// From and To are the datasets. To does not exist before the first run, but what
	// is above it does.
	From, To string
	// Root, if not "", is the dataset at the target that a run for several datasets begins
	// with: a plan takes what lies between it and To for made by that run.
	Root string
	// Job names the hold on the source's last common snapshot. It belongs to this
	// pair of datasets alone.
	Job string
	// BytesPerSecond bounds each stream; 0 does not.
	BytesPerSecond int64
	// Rollback lets go what the target has, or was changed by, after the newest
	// common snapshot, where that is in the way.
	Rollback bool
	// Watch, if not nil, is told how far a run is, often and from another goroutine.
	Watch func(Progress)
}

// Step is one snapshot that was sent, received and verified.
type Step struct {
	// From is where the increment began, nil for a whole stream.
	From *Snapshot
	// To is the snapshot as the target has it.
	To Snapshot
	// Stream is what was sent.
	Stream Stream
}

// Replicated is what a run did, also one that failed.
type Replicated struct {
	Steps []Step
	// Common is the newest snapshot that both have now, as the source has it.
	Common *Snapshot
	// RolledBack says that the target lost what it had after the newest common
	// snapshot of then; Lost are the snapshots among it.
	RolledBack bool
	Lost       []Snapshot
}

// Plan says what Run would do, and changes nothing. The error is what Run would
// fail with, as far as that can be known: a *ChainError, or ErrNoSnapshots.
func (r Replication) Plan(ctx context.Context) (Chain, error) {
	both, err := r.look(ctx)
	return both.chain, err
}

// sides are what both sides have, oldest first.
type sides struct {
	source, target []Snapshot
	chain          Chain
	// exists says that the target is there, and now what it refers to, in bytes.
	exists bool
	now    int64
}

// look sees what both sides have. What is wrong with the target comes before what the
// source lacks, which may be about to be made.
func (r Replication) look(ctx context.Context) (both sides, err error) {
	if err := errors.Join(checkDataset(r.From), checkDataset(r.To), checkJob(r.Job)); err != nil {
		return sides{}, err
	}
	if both.source, err = r.Source.Snapshots(ctx, r.From); err != nil {
		return sides{}, err
	}
	if err = r.lookAtTarget(ctx, &both); err != nil {
		return sides{}, err
	}
	both.chain = Compare(both.source, both.target)
	wrong := &ChainError{Source: r.From, Target: r.To, Common: both.chain.Common, Ahead: both.chain.Ahead}
	switch {
	case both.exists && both.chain.Common == nil:
		wrong.Reason = ErrNoCommon
	case len(both.chain.Ahead) > 0 && !r.Rollback:
		wrong.Reason = ErrDiverged
	case len(sendable(both.source)) == 0:
		return both, fmt.Errorf("replicate %s to %s: %w: take one first", r.From, r.To, ErrNoSnapshots)
	default:
		return both, nil
	}
	return both, wrong
}

// lookAtTarget also tells whether the target exists. One without snapshots is what a
// receive leaves for a moment after its command was killed.
func (r Replication) lookAtTarget(ctx context.Context, both *sides) error {
	errEmpty := errors.New("it is there without a snapshot")
	err := r.Target.retry(ctx, func() (err error) {
		both.target, both.now, err = r.Target.list(ctx, r.To)
		if err == nil && len(both.target) == 0 {
			return fmt.Errorf("%w: %w", ErrBusy, errEmpty)
		}
		return err
	})
	switch {
	case errors.Is(err, ErrNotExist):
		both.target = nil
		return nil
	case errors.Is(err, errEmpty) && ctx.Err() == nil:
		both.target, both.exists = nil, true
		return nil
	}
	both.exists = err == nil
	return err
}

// ready is look before a snapshot is taken: it finds, as far as that can be known without
// sending anything, why what was taken could not be received, so that a run that fails
// each time leaves nothing each time. above is the dataset in which a target is to be made
// that does not exist; "" is none.
func (r Replication) ready(ctx context.Context, o UpdateOptions, above string) (sides, error) {
	both, err := r.look(ctx)
	switch none := errors.Is(err, ErrNoSnapshots); {
	case err != nil && (!none || o.NoSnapshot):
		return both, err
	case !both.exists:
		return both, r.receivable(ctx, above)
	case o.NoSnapshot && len(both.chain.Send) == 0:
		return both, nil // nothing is sent
	}
	newest := both.target[len(both.target)-1]
	if len(both.chain.Ahead) == 0 && !r.Rollback && both.now != newest.Refers {
		return both, fmt.Errorf("replicate %s to %s: %w, %s: it refers to %d bytes and not to %d; %w",
			r.From, r.To, ErrTouched, newest, both.now, newest.Refers, errAllowRollback)
	}
	return both, nil
}

// receivable refuses a target that could not be made, as what it is to lie in is not there.
func (r Replication) receivable(ctx context.Context, above string) error {
	err, fix := ErrNotExist, "name a dataset in a pool that is there"
	if above != "" {
		if _, err = r.Target.property(ctx, above, "type"); err == nil {
			return nil
		}
	}
	if strings.Contains(above, "/") {
		fix = fmt.Sprintf("make that with `zfs create -p %s`, or name another target", above)
	}
	if errors.Is(err, ErrNotExist) {
		err = fmt.Errorf("%w; a target is made only in a dataset that is there: %s", err, fix)
	}
	return fmt.Errorf("replicate %s to %s: %w", r.From, r.To, err)
}

// parent is the dataset that another one lies in; "" of a pool's own.
func parent(dataset string) string {
	return dataset[:max(0, strings.LastIndexByte(dataset, '/'))]
}

// Run sends what the target does not have, one snapshot after the other, each
// verified by its guid before the next. It goes on where an earlier run was ended,
// with the increment that was under way then. The target is not mounted by it, and
// is made readonly=on and atime=off, as even reading it would keep the next
// increment out. The source's newest common snapshot is held; when a run of another
// job is to take over, Release it. What it did is returned with an error too.
func (r Replication) Run(ctx context.Context) (Replicated, error) {
	both, err := r.look(ctx)
	done := Replicated{Common: both.chain.Common}
	if err != nil {
		return done, err
	}
	if err := r.prepare(ctx, both, &done); err != nil {
		return done, err
	}
	for i, next := range both.chain.Send {
		at := Progress{Snapshot: next.String(), Number: i + 1, Of: len(both.chain.Send)}
		step, err := r.step(ctx, done.Common, next, at.watch(r.Watch), &done)
		if err != nil {
			return done, fmt.Errorf("replicate %s to %s: %w", next, r.To, err)
		}
		done.Steps = append(done.Steps, step)
		if previous := done.Common; previous != nil {
			if err := r.Source.Release(ctx, *previous, r.Job); err != nil {
				return done, err
			}
		}
		done.Common = &next
	}
	return done, nil
}

// prepare makes both sides what the first step needs.
func (r Replication) prepare(ctx context.Context, both sides, done *Replicated) error {
	chain := both.chain
	if chain.Common == nil {
		return nil
	}
	if err := r.Source.Hold(ctx, *chain.Common, r.Job); err != nil {
		return err
	}
	// A run that crashed may have left holds on older ones, or on the next.
	if err := holdOnly(ctx, r.Source, held(both.source), *chain.Common, r.Job); err != nil {
		return err
	}
	if len(chain.Ahead) > 0 {
		if err := r.rollBack(ctx, *chain.Common, done); err != nil {
			return err
		}
		done.Lost = chain.Ahead
	}
	return r.protect(ctx)
}

// protect keeps the target as it was received.
func (r Replication) protect(ctx context.Context) error {
	for _, want := range [][2]string{{"readonly", "on"}, {"atime", "off"}} {
		have, err := r.Target.property(ctx, r.To, want[0])
		if err == nil && have != want[1] {
			_, err = r.Target.zfs(ctx, "set", want[0]+"="+want[1], r.To)
		}
		if err != nil {
			return fmt.Errorf("set %s=%s on %s: %w", want[0], want[1], r.To, err)
		}
	}
	return nil
}

// rollBack takes the target back to the newest common snapshot, whatever that is
// named there.
func (r Replication) rollBack(ctx context.Context, common Snapshot, done *Replicated) error {
	found, err := r.Target.Snapshots(ctx, r.To)
	if err != nil {
		return err
	}
	for _, s := range found {
		if s.GUID != common.GUID {
			continue
		}
		err := r.Target.retry(ctx, func() error {
			_, err := r.Target.zfs(ctx, "rollback", "-r", s.String())
			return err
		})
		if err != nil {
			return fmt.Errorf("roll %s back: %w", s, err)
		}
		done.RolledBack = true
		return nil
	}
	return fmt.Errorf("roll %s back to %s: %w: it went meanwhile", r.To, common, ErrNotExist)
}

// errAllowRollback is what to do about a target that was changed.
var errAllowRollback = errors.New("allow a rollback, which loses the change")

// step brings one snapshot over.
func (r Replication) step(ctx context.Context, from *Snapshot, to Snapshot, watch func(int64), done *Replicated) (Step, error) {
	// Held before it is sent: what is common afterwards must not go in between.
	if err := r.Source.Hold(ctx, to, r.Job); err != nil {
		return Step{}, err
	}
	stream, err := r.transfer(ctx, from, to, watch)
	if errors.Is(err, ErrTouched) && r.Rollback && from != nil {
		if err := r.rollBack(ctx, *from, done); err != nil {
			return Step{}, err
		}
		stream, err = r.transfer(ctx, from, to, watch)
	}
	if errors.Is(err, ErrTouched) {
		err = fmt.Errorf("%w; %w", err, errAllowRollback)
	}
	if err != nil {
		return Step{}, err
	}
	got, err := r.Target.verify(ctx, r.To, to)
	if err == nil && from == nil {
		err = r.protect(ctx)
	}
	return Step{From: from, To: got, Stream: stream}, err
}

// transfer waits for what a killed receive may still do to the target.
func (r Replication) transfer(ctx context.Context, from *Snapshot, to Snapshot, watch func(int64)) (stream Stream, err error) {
	err = r.Target.retry(ctx, func() error {
		stream, err = transfer(ctx, r.Source, r.Target, sendArgv(from, to), receiveArgv(r.To, to.Name), r.BytesPerSecond, watch)
		return err
	})
	return stream, err
}

// receiveArgv is the command that receives a snapshot under its name. Nothing is
// mounted: a mounted dataset may be read, and so changed, before it is protected.
func receiveArgv(dataset, name string) []string {
	return []string{"zfs", "receive", "-u", dataset + "@" + name}
}

// verify compares what was received with what was sent.
func (h *Host) verify(ctx context.Context, dataset string, want Snapshot) (Snapshot, error) {
	got, err := h.look(ctx, dataset, want.Name)
	if err != nil {
		return Snapshot{}, err
	}
	if got.GUID != want.GUID {
		return Snapshot{}, fmt.Errorf("verify %s: %w: it was received with guid %d, and %s is %s",
			got, ErrCorrupt, got.GUID, want, strconv.FormatUint(want.GUID, 10))
	}
	return got, nil
}
