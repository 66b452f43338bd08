package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
	"github.com/firedrill/firedrill/services/mirror/zfs"
	"github.com/firedrill/firedrill/services/mirror/zfs/reach"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// archiveFlags are those of archive.
type archiveFlags struct {
	via       string
	recursive bool
	save      zfs.SaveOptions
	update    zfs.UpdateOptions
}

func (a *app) zfsArchiveCmd(o *mirrorOptions) *cobra.Command {
	var fl archiveFlags
	c := &cobra.Command{
		Use: "archive FROM WHERE", Args: cobra.ExactArgs(2),
		Short: "Take a snapshot and archive it in a bucket, with all that are not there yet",
		Long: `Take a snapshot of FROM, and write it to the archive with all that came after the newest
archived one, each as the increment from the one before it. Streams are compressed and cut
into parts with hashes; a point is there when all of it is. The newest archived snapshot is
held on FROM, as the next increment begins there.

With --recursive all datasets below FROM are archived as well, each in an archive of its
own below WHERE, which is named as the dataset is with = for /: WHERE/tank=home=me. points
and check take WHERE for all of them, as restore --recursive does, and any one of them.
Each is taken at a moment of its own.`,
	}
	keep := keepFlag(c.Flags(), "which of the snapshots that this command took stay on FROM, such as hourly=24,daily=7; default: all")
	points := policyFlag(c.Flags(), "keep-points", "which of the archive's points stay, as of zfs prune; default: all. It needs --whole-every")
	c.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if fl.update.Keep, err = keep(); err != nil {
			return err
		}
		if fl.update.KeepPoints, err = points(); err != nil {
			return err
		}
		switch {
		case fl.save.WholeEvery < 0:
			return fmt.Errorf("--whole-every: %s is no span: write one such as 168h", fl.save.WholeEvery)
		case fl.update.KeepPoints != nil && fl.save.WholeEvery == 0:
			return errors.New("--keep-points: each point needs all before it up to a whole one, so that none could go: say how often one is whole, such as --whole-every 168h")
		}
		return a.archive(cmd.Context(), o, fl, args)
	}
	viaFlag(c.Flags(), &fl.via, "via", "FROM")
	c.Flags().BoolVar(&fl.recursive, "recursive", false, "all datasets below FROM, too, each in an archive below WHERE")
	c.Flags().BoolVar(&fl.update.NoSnapshot, "no-snapshot", false, "take none, and archive what there is")
	c.Flags().DurationVar(&fl.save.WholeEvery, "whole-every", 0, "archive a snapshot whole that was taken so long after the last that was, such as 168h, and the others as increments; 0 is the first only")
	zfsLimitFlag(c.Flags(), &fl.save.BytesPerSecond, "before compression")
	return c
}

func (a *app) archive(ctx context.Context, o *mirrorOptions, fl archiveFlags, args []string) error {
	dataset, err := reach.Dataset(args[0])
	if err != nil {
		return fmt.Errorf("FROM: %w", err)
	}
	where, err := reach.Bucket(args[1])
	if err != nil {
		return fmt.Errorf("WHERE: %w", err)
	}
	h, err := reach.Host(ctx, fl.via)
	if err != nil {
		return failure(err)
	}
	env, _, err := a.mirrorEnv(o)
	if err != nil {
		return err
	}
	p := a.zfsPrinter(o)
	watch, end := p.work(ctx, env.Locks, dataset, fl.save.BytesPerSecond)
	defer end()
	fl.save.Watch = watch
	if !fl.recursive {
		return p.end(a.archiveOne(ctx, p, fl, h, dataset, where))
	}
	if err := a.folderOfArchives(ctx, where); err != nil {
		return interrupted(ctx, "nothing was done", err)
	}
	datasets, err := h.Datasets(ctx, dataset)
	if err != nil {
		return interrupted(ctx, "nothing was done", zfsExit(err))
	}
	return p.each(ctx, datasets, func(dataset string) (printed, err error) {
		own, err := snapshots.ArchiveOf(dataset, where)
		if err != nil {
			return nil, err
		}
		return a.archiveOne(ctx, p, fl, h, dataset, own)
	})
}

// archiveOne archives one dataset. It returns whether the result could not be printed,
// and why it failed.
func (a *app) archiveOne(ctx context.Context, p *zfsPrinter, fl archiveFlags, h *zfs.Host, dataset string, where location.Location) (printed, err error) {
	archive, done, err := a.openArchive(ctx, where, false)
	if err != nil {
		return nil, interrupted(ctx, goesOn, err)
	}
	defer done()
	fl.save.Job, fl.update.Now = snapshots.Job(where.String(), ""), time.Now()
	release, err := a.lockZFS(fl.save.Job)
	if err != nil {
		return nil, err
	}
	defer release()
	got, err := archive.Update(ctx, h, dataset, fl.save, fl.update)
	p.clear()
	return p.archived(dataset, where.String(), got, err), interrupted(ctx, goesOn, zfsExit(err))
}

func (a *app) zfsPointsCmd(o *mirrorOptions) *cobra.Command {
	return &cobra.Command{
		Use: "points WHERE", Args: cobra.ExactArgs(1),
		Short: "List what can be restored from an archive",
		Long: `List what can be restored from the archive WHERE, or, where archive --recursive has put
one for each dataset there, from each of them.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withArchives(cmd.Context(), o, args[0], func(p *zfsPrinter, where string, archive *zfs.Archive) (printed, err error) {
				points, err := archive.Points(cmd.Context())
				if err != nil && !isDamaged(err) {
					return nil, zfsExit(err)
				}
				err = asArchived(where, points, err)
				return p.points(where, points, err), err
			})
		},
	}
}

func (a *app) zfsCheckCmd(o *mirrorOptions) *cobra.Command {
	return &cobra.Command{
		Use: "check WHERE", Args: cobra.ExactArgs(1),
		Short: "Read an archive and prove that all of it can be restored",
		Long: `Read every part of every point, compare all hashes, and see that each point leads back to
a whole one. It needs no ZFS, and changes nothing. Where archive --recursive has put an
archive for each dataset at WHERE, all of them are checked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withArchives(cmd.Context(), o, args[0], func(p *zfsPrinter, where string, archive *zfs.Archive) (printed, err error) {
				c, err := archive.CheckAll(cmd.Context(), p.progress)
				p.clear()
				if err != nil {
					return nil, interrupted(cmd.Context(), "nothing was changed, and nothing is known", zfsExit(err))
				}
				err = asChecked(where, c)
				return p.checked(where, c, err), err
			})
		},
	}
}

// isDamaged tells damage, of which the rest may be shown, from what kept it from looking.
func isDamaged(err error) bool {
	return errors.Is(err, zfs.ErrCorrupt) || errors.Is(err, zfs.ErrUnsupported)
}

// asArchived says whether what is archived is as it should be: each point can be
// restored, as far as the indexes tell.
func asArchived(where string, points []zfs.Point, damaged error) error {
	if lost := len(points) - len(zfs.Restorable(points)); lost > 0 {
		damaged = errors.Join(damaged, fmt.Errorf("%s cannot be restored: what they are increments to is not there", fold.Plural(lost, "point")))
	}
	if damaged == nil {
		return nil
	}
	return &exitError{code: run.Fail, err: fmt.Errorf("%s: %w", where, damaged)}
}

// asChecked says whether all of an archive can be restored.
func asChecked(where string, c zfs.Checked) error {
	switch {
	case !c.Whole():
		return &exitError{code: run.Fail, err: fmt.Errorf("%s: NOT whole: %s of %d cannot be restored, and %s cannot be read; archive to a new prefix while the source has its snapshots",
			where, fold.Plural(len(c.Damaged), "point"), c.Points, fold.Plural(len(c.Indexes), "index object"))}
	case c.Points == 0:
		// Of a mistyped location all would be well.
		return &exitError{code: run.Fail, err: fmt.Errorf("%s: nothing is archived there: see that the location is right", where)}
	}
	return nil
}

// withArchives does something with the archive at a location, or with each of those that
// lie there, and ends the command: do returns whether its result could not be printed, and
// why it failed.
func (a *app) withArchives(ctx context.Context, o *mirrorOptions, where string, do func(p *zfsPrinter, where string, archive *zfs.Archive) (printed, err error)) error {
	l, err := reach.Bucket(where)
	if err != nil {
		return err
	}
	found, err := a.archivesAt(ctx, l)
	if err != nil {
		return err
	}
	p := a.zfsPrinter(o)
	one := func(l location.Location) (printed, err error) {
		archive, done, err := a.openArchive(ctx, l, true)
		if err != nil {
			return nil, err
		}
		defer done()
		return do(p, l.String(), archive)
	}
	if len(found) == 0 {
		return p.end(one(l))
	}
	archives := map[string]location.Location{}
	var names []string
	for _, own := range found {
		archives[own.String()], names = own, append(names, own.String())
	}
	return p.each(ctx, names, func(name string) (printed, err error) { return one(archives[name]) })
}
