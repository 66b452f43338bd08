package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
	"github.com/firedrill/firedrill/services/mirror/zfs"
	"github.com/firedrill/firedrill/services/mirror/zfs/reach"
)

// restoreFlags are those of restore.
type restoreFlags struct {
	via, point string
	recursive  bool
	restore    zfs.RestoreOptions
}

func (a *app) zfsRestoreCmd(o *mirrorOptions) *cobra.Command {
	var fl restoreFlags
	c := &cobra.Command{
		Use: "restore WHERE TO", Args: cobra.ExactArgs(2),
		Short: "Make a dataset of what an archive holds",
		Long: `Receive a point of the archive, and those that it builds on, into the dataset TO, which
does not exist yet, or which an interrupted restore has left. Every part is verified before
ZFS gets it; of a damaged one nothing is received. TO is not mounted.

With --recursive, WHERE is where archive --recursive has put an archive for each dataset:
the topmost is restored as TO, and each other to where it was below that. Of each it is the
newest point, and each was taken at a moment of its own.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.restore(cmd.Context(), o, fl, args) },
	}
	viaFlag(c.Flags(), &fl.via, "via", "TO")
	c.Flags().StringVar(&fl.point, "point", "", "snapshot to restore, by its name or guid as `firedrill zfs points` lists them; default: the newest")
	c.Flags().BoolVar(&fl.recursive, "recursive", false, "all datasets whose archives are at WHERE")
	c.Flags().BoolVar(&fl.restore.Whole, "whole", false, "where the point cannot be restored, do not leave those before it either")
	zfsLimitFlag(c.Flags(), &fl.restore.BytesPerSecond, "after unpacking")
	return c
}

func (a *app) restore(ctx context.Context, o *mirrorOptions, fl restoreFlags, args []string) error {
	to, err := reach.Dataset(args[1])
	if err != nil {
		return fmt.Errorf("TO: %w", err)
	}
	where, err := reach.Bucket(args[0])
	if err != nil {
		return err
	}
	if fl.recursive && fl.point != "" {
		return errors.New("--point: the points of each dataset have names of their own: leave it out, or restore the archives one by one")
	}
	found, err := a.archivesAt(ctx, where)
	switch {
	case err != nil:
		return err
	case fl.recursive && len(found) == 0:
		return fmt.Errorf("--recursive: %s is no place at which there are archives of several datasets: leave it out to restore one archive, and see that the location is right", where)
	case !fl.recursive && len(found) > 0:
		return fmt.Errorf("%s is no archive: it has one for each dataset, such as %s: name that, or restore all with --recursive", where, found[0])
	}
	h, err := reach.Host(ctx, fl.via)
	if err != nil {
		return failure(err)
	}
	p := a.zfsPrinter(o)
	fl.restore.Watch = p.progress
	if !fl.recursive {
		return p.end(a.restoreOne(ctx, p, fl, h, where, to))
	}
	archives := map[string]location.Location{}
	var datasets []string
	for _, own := range found {
		dataset := snapshots.DatasetOf(own)
		archives[dataset], datasets = own, append(datasets, dataset)
	}
	top, err := snapshots.Top(datasets)
	if err != nil {
		return fmt.Errorf("--recursive: %w", err)
	}
	return p.each(ctx, sorted(datasets), func(dataset string) (printed, err error) {
		return a.restoreOne(ctx, p, fl, h, archives[dataset], snapshots.Below(dataset, top, to))
	})
}

// restoreOne restores one archive. It returns whether the result could not be printed, and
// why it failed.
func (a *app) restoreOne(ctx context.Context, p *zfsPrinter, fl restoreFlags, h *zfs.Host, where location.Location, to string) (printed, err error) {
	// What is being read must not be let go.
	release, err := snapshots.Share(a.locks(), snapshots.Job(where.String(), ""))
	if err != nil {
		return nil, failure(err)
	}
	defer release()
	archive, done, err := a.openArchive(ctx, where, true)
	if err != nil {
		return nil, interrupted(ctx, goesOn, err)
	}
	defer done()
	points, err := archive.Points(ctx)
	if err != nil && !isDamaged(err) {
		return nil, interrupted(ctx, goesOn, zfsExit(err))
	}
	point, unknown := zfs.Choose(points, fl.point)
	switch {
	case unknown != nil && (err != nil || fl.point == ""):
		return nil, &exitError{code: run.Fail, err: fmt.Errorf("%s: %w", where, errors.Join(unknown, err))}
	case unknown != nil:
		return nil, fmt.Errorf("--point: %w; `firedrill zfs points` lists them", unknown)
	}
	received, err := archive.Restore(ctx, h, to, point.GUID, fl.restore)
	p.clear()
	return p.restored(to, point, received, err), interrupted(ctx, goesOn, zfsExit(err))
}
