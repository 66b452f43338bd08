package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/services/mirror/snapshots"
	"github.com/firedrill/firedrill/services/mirror/zfs"
	"github.com/firedrill/firedrill/services/mirror/zfs/reach"
)

// replicateFlags are those of replicate.
type replicateFlags struct {
	fromVia, toVia string
	dryRun         bool
	recursive      bool
	replication    zfs.Replication
	update         zfs.UpdateOptions
}

func (a *app) zfsReplicateCmd(o *mirrorOptions) *cobra.Command {
	var fl replicateFlags
	c := &cobra.Command{
		Use: "replicate FROM TO", Args: cobra.ExactArgs(2),
		Short: "Take a snapshot and bring the second dataset on to it",
		Long: `Take a snapshot of FROM, and send it to TO with all others that TO lacks, each as the
increment from the one before it. TO is made by the first run, in a dataset that is there,
and stays read-only and unmounted. Each snapshot is verified by its guid when it has
arrived, and the newest that both have is held on FROM, so that nobody prunes it away. The
next run goes on with one that was broken off.

With --recursive all datasets below FROM are sent as well, each with its own chain, to the
place below TO that it has below FROM. Each is taken at a moment of its own. What does not
exist below FROM any more stays below TO.

Where TO was changed, or has newer snapshots that FROM does not know, nothing is done
without --rollback. Whether a snapshot could be sent is looked at, as far as that can be
known, before it is taken, so that a run that fails leaves none behind.`,
	}
	keep := keepFlag(c.Flags(), "what stays, such as hourly=24,daily=7,weekly=4,monthly=12; default: all. On FROM it is for what this command took for TO, on TO for all that firedrill took; other snapshots stay anyway")
	c.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if fl.update.Keep, err = keep(); err != nil {
			return err
		}
		return a.replicate(cmd.Context(), o, fl, args[0], args[1])
	}
	f := c.Flags()
	viaFlag(f, &fl.fromVia, "from-via", "FROM")
	viaFlag(f, &fl.toVia, "to-via", "TO")
	f.BoolVar(&fl.dryRun, "dry-run", false, "do nothing, print what would be taken, sent and destroyed, and exit as the run would")
	f.BoolVar(&fl.recursive, "recursive", false, "all datasets below FROM, too")
	f.BoolVar(&fl.update.NoSnapshot, "no-snapshot", false, "take none, and send what there is")
	f.BoolVar(&fl.replication.Rollback, "rollback", false, "destroy what TO has, or was changed by, after the newest snapshot that both have")
	zfsLimitFlag(f, &fl.replication.BytesPerSecond, "of each stream")
	return c
}

func (a *app) replicate(ctx context.Context, o *mirrorOptions, fl replicateFlags, from, to string) (err error) {
	r := fl.replication
	if r.From, err = reach.Dataset(from); err != nil {
		return fmt.Errorf("FROM: %w", err)
	}
	if r.To, err = reach.Dataset(to); err != nil {
		return fmt.Errorf("TO: %w", err)
	}
	if r.From == r.To && fl.fromVia == fl.toVia {
		return fmt.Errorf("%s is both FROM and TO: name another dataset, or its machine with --to-via", from)
	}
	if fl.recursive && fl.fromVia == fl.toVia {
		if err := snapshots.Apart(r.From, r.To); err != nil {
			return fmt.Errorf("--recursive: %w", err)
		}
	}
	if r.Source, err = reach.Host(ctx, fl.fromVia); err != nil {
		return failure(fmt.Errorf("FROM: %w", err))
	}
	if r.Target, err = reach.Host(ctx, fl.toVia); err != nil {
		return failure(fmt.Errorf("TO: %w", err))
	}
	env, _, err := a.mirrorEnv(o)
	if err != nil {
		return err
	}
	p := a.zfsPrinter(o)
	watch, end := p.work(ctx, env.Locks, r.From, r.BytesPerSecond)
	defer end()
	r.Watch = watch
	if !fl.recursive {
		return p.end(a.replicateOne(ctx, p, fl, r))
	}
	datasets, err := r.Source.Datasets(ctx, r.From)
	if err != nil {
		return interrupted(ctx, "nothing was done", zfsExit(err))
	}
	return p.each(ctx, datasets, func(dataset string) (printed, err error) {
		one := r
		one.Root, one.From, one.To = r.To, dataset, snapshots.Below(dataset, r.From, r.To)
		return a.replicateOne(ctx, p, fl, one)
	})
}

// replicateOne replicates one dataset. It returns whether the result could not be
// printed, and why it failed.
func (a *app) replicateOne(ctx context.Context, p *zfsPrinter, fl replicateFlags, r zfs.Replication) (printed, err error) {
	r.Job = snapshots.Job(r.To, fl.toVia)
	fl.update.Now = time.Now()
	if fl.dryRun {
		plan, err := r.PlanUpdate(ctx, fl.update)
		return p.planned(r, plan, err), interrupted(ctx, "nothing was done", replicateFailure(err))
	}
	release, err := a.lockZFS(r.Job)
	if err != nil {
		return nil, err
	}
	defer release()
	done, err := r.Update(ctx, fl.update)
	p.clear()
	return p.replicated(r, done, err), interrupted(ctx, goesOn, replicateFailure(err))
}

// replicateFailure names the flag that allows what the error is about.
func replicateFailure(err error) error {
	if errors.Is(err, zfs.ErrTouched) || errors.Is(err, zfs.ErrDiverged) {
		err = fmt.Errorf("%w; --rollback does so", err)
	}
	return zfsExit(err)
}
