package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/services/mirror/zfs"
	"github.com/firedrill/firedrill/services/mirror/zfs/reach"
)

// replicateFlags are those of replicate.
type replicateFlags struct {
	fromVia, toVia string
	dryRun         bool
	replication    zfs.Replication
	update         zfs.UpdateOptions
}

func (a *app) zfsReplicateCmd(o *mirrorOptions) *cobra.Command {
	var fl replicateFlags
	c := &cobra.Command{
		Use: "replicate FROM TO", Args: cobra.ExactArgs(2),
		Short: "Take a snapshot and bring the second dataset on to it",
		Long: `Take a snapshot of FROM, and send it to TO with all others that TO lacks, each as the
increment from the one before it. TO is made by the first run, below a dataset that is
there, and stays read-only and unmounted. Each snapshot is verified by its guid when it has arrived, and the newest that
both have is held on FROM, so that nobody prunes it away. A run that was broken off is gone
on with by the next one.

Where TO was changed, or has newer snapshots that FROM does not know, nothing is done
without --rollback.`,
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
	f.BoolVar(&fl.dryRun, "dry-run", false, "do nothing, and print what would be taken, sent and destroyed")
	f.BoolVar(&fl.update.NoSnapshot, "no-snapshot", false, "take none, and send what there is")
	f.BoolVar(&fl.replication.Rollback, "rollback", false, "destroy what TO has, or was changed by, after the newest snapshot that both have")
	f.Int64Var(&fl.replication.BytesPerSecond, "bwlimit", 0, "bytes per second; 0 is no limit")
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
	r.Job = zfsJob(r.To, fl.toVia)
	if r.Source, err = reach.Host(ctx, fl.fromVia); err != nil {
		return failure(fmt.Errorf("FROM: %w", err))
	}
	if r.Target, err = reach.Host(ctx, fl.toVia); err != nil {
		return failure(fmt.Errorf("TO: %w", err))
	}
	p := a.zfsPrinter(o)
	r.Watch, fl.update.Now = p.progress, time.Now()
	if fl.dryRun {
		plan, err := r.PlanUpdate(ctx, fl.update)
		return p.end(p.planned(r, plan, err), interrupted(ctx, "nothing was done", replicateFailure(err)))
	}
	release, err := a.lockZFS(r.Job)
	if err != nil {
		return err
	}
	defer release()
	done, err := r.Update(ctx, fl.update)
	p.clear()
	return p.end(p.replicated(r, done, err), interrupted(ctx, goesOn, replicateFailure(err)))
}

// replicateFailure names the flag that allows what the error is about.
func replicateFailure(err error) error {
	if errors.Is(err, zfs.ErrTouched) || errors.Is(err, zfs.ErrDiverged) {
		err = fmt.Errorf("%w; --rollback does so", err)
	}
	return zfsExit(err)
}

func (a *app) zfsPruneCmd(o *mirrorOptions) *cobra.Command {
	var via, prefix string
	var dryRun bool
	c := &cobra.Command{
		Use: "prune DATASET --keep POLICY", Args: cobra.ExactArgs(1),
		Short: "Destroy the snapshots that a policy lets go",
		Long: `Destroy those of the snapshots that firedrill took of DATASET, or that it received, which
the policy lets go. Those taken otherwise are no concern of it, unless --prefix names them.
The newest stays, and so do those that are held, cloned or being read.`,
	}
	keep := keepFlag(c.Flags(), "how many stay, such as hourly=24,daily=7,weekly=4,monthly=12: the newest of each of the last so many hours, days, weeks and months that have any")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		k, err := keep()
		if err == nil && k == nil {
			err = errors.New("--keep is missing: say what stays, such as --keep hourly=24,daily=7")
		}
		if err != nil {
			return err
		}
		dataset, err := reach.Dataset(args[0])
		if err != nil {
			return err
		}
		h, err := reach.Host(cmd.Context(), via)
		if err != nil {
			return failure(err)
		}
		gone, err := h.Prune(cmd.Context(), dataset, zfs.PruneOptions{
			Keep: *k, Prefix: prefix, Taken: !cmd.Flags().Changed("prefix"), DryRun: dryRun,
		})
		p := a.zfsPrinter(o)
		return p.end(p.pruned(dataset, dryRun, gone, err), interrupted(cmd.Context(), "what was not destroyed yet stays", zfsExit(err)))
	}
	viaFlag(c.Flags(), &via, "via", "DATASET")
	c.Flags().StringVar(&prefix, "prefix", "", `the policy is for all snapshots whose names begin so, whoever took them; "" is all`)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "do nothing, and print what would be destroyed")
	return c
}
