package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
	"github.com/firedrill/firedrill/services/mirror/zfs"
	"github.com/firedrill/firedrill/services/mirror/zfs/reach"
)

// pruneFlags are those of prune.
type pruneFlags struct {
	via, prefix  string
	taken        bool
	read, dryRun bool
}

func (a *app) zfsPruneCmd(o *mirrorOptions) *cobra.Command {
	var fl pruneFlags
	c := &cobra.Command{
		Use: "prune DATASET|WHERE --keep POLICY", Args: cobra.ExactArgs(1),
		Short: "Destroy the snapshots, or the points of an archive, that a policy lets go",
		Long: `Destroy those of the snapshots that firedrill took of DATASET, or that it received, which
the policy lets go. Those taken otherwise are no concern of it, unless --prefix names them.
The newest stays, and so do those that are held, cloned or being read.

Of the archive WHERE, delete the points that the policy lets go and on which none that
stays builds. An increment needs all before it up to a whole one, so archive with
--whole-every, or nothing but the end of a chain ever goes. Before anything is deleted the
sizes of all parts that stay are compared, with --read their hashes; while an index cannot
be read nothing is deleted. Afterwards it is looked whether all that stays is there.
Neither archive nor restore there meanwhile from another machine or state directory. Where
the bucket keeps versions, its own rules free the space.`,
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
		l, err := location.Parse(args[0])
		if err != nil {
			return err
		}
		fl.taken = !cmd.Flags().Changed("prefix")
		if l.IsBucket() {
			return a.pruneArchive(cmd.Context(), o, fl, *k, l)
		}
		return a.pruneDataset(cmd.Context(), o, fl, *k, args[0])
	}
	viaFlag(c.Flags(), &fl.via, "via", "DATASET")
	c.Flags().StringVar(&fl.prefix, "prefix", "", `the policy is for all snapshots whose names begin so, whoever took them; "" is all`)
	c.Flags().BoolVar(&fl.read, "read", false, "of an archive: read all that stays, and compare its hashes, before anything is deleted")
	c.Flags().BoolVar(&fl.dryRun, "dry-run", false, "do nothing, and print what would be destroyed")
	return c
}

func (a *app) pruneDataset(ctx context.Context, o *mirrorOptions, fl pruneFlags, k zfs.Keep, where string) error {
	dataset, err := reach.Dataset(where)
	if err == nil && fl.read {
		err = errors.New("--read: of a dataset nothing is read: leave it out, or name an archive")
	}
	if err != nil {
		return err
	}
	h, err := reach.Host(ctx, fl.via)
	if err != nil {
		return failure(err)
	}
	gone, err := h.Prune(ctx, dataset, zfs.PruneOptions{Keep: k, Prefix: fl.prefix, Taken: fl.taken, DryRun: fl.dryRun})
	p := a.zfsPrinter(o)
	return p.end(p.pruned(dataset, fl.dryRun, gone, err), interrupted(ctx, "what was not destroyed yet stays", zfsExit(err)))
}

func (a *app) pruneArchive(ctx context.Context, o *mirrorOptions, fl pruneFlags, k zfs.Keep, where location.Location) error {
	if fl.via != "" {
		return fmt.Errorf("--via: %s is reached from here: leave it out, or name a dataset", where)
	}
	archive, done, err := a.openArchive(ctx, where, fl.dryRun)
	if err != nil {
		return err
	}
	defer done()
	if !fl.dryRun {
		// What is archived meanwhile might build on what goes.
		release, err := a.lockZFS(snapshots.Job(where.String(), ""))
		if err != nil {
			return err
		}
		defer release()
	}
	p := a.zfsPrinter(o)
	thinned, err := archive.Thin(ctx, zfs.ThinOptions{
		Keep: k, Prefix: fl.prefix, Taken: fl.taken, Read: fl.read, DryRun: fl.dryRun, Watch: p.progress,
	})
	p.clear()
	return p.end(p.thinned(where.String(), fl.dryRun, thinned, err),
		interrupted(ctx, "what was not deleted yet stays, and all that is left can be restored", zfsExit(err)))
}
