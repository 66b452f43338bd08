package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
	"github.com/firedrill/firedrill/services/mirror/stores"
	"github.com/firedrill/firedrill/services/mirror/zfs"
	"github.com/firedrill/firedrill/services/mirror/zfs/reach"
)

func (a *app) zfsCmd() *cobra.Command {
	o := &mirrorOptions{}
	c := &cobra.Command{
		Use:   "zfs",
		Short: "Replicate ZFS snapshots to another pool or machine, or archive them in a bucket",
		Long: `Bring the snapshots of a ZFS dataset elsewhere as ZFS streams: into another pool, here
or on another machine, or into a bucket; and restore them.

Datasets: zfs:pool/name, without those below it unless --recursive is given; a --via flag
names the command that reaches another machine, such as --to-via "ssh root@backup --".
Archives: s3:store/bucket/prefix with a store of the inventory, or
s3+https://host:port/bucket/prefix with the keys in AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY. Each dataset has a prefix of its own.
A mirror of the inventory with snapshots does the same by itself, see firedrill mirror.

Exit codes: 0 all is as it should be, 1 it is not, 130 interrupted, 254 bad arguments,
255 failed.`,
	}
	f := c.PersistentFlags()
	f.BoolVar(&o.json, "json", false, "print the result, and what goes wrong, as JSON")
	f.BoolVar(&o.quiet, "quiet", false, "draw no progress")
	a.inventoryFlag(f, "file that lists stores")
	c.AddCommand(a.zfsReplicateCmd(o), a.zfsArchiveCmd(o), a.zfsPointsCmd(o), a.zfsRestoreCmd(o), a.zfsCheckCmd(o), a.zfsPruneCmd(o))
	for _, sub := range c.Commands() {
		a.errorsAsJSON(sub, o)
	}
	return c
}

// keepFlag adds --keep and gives what was asked for; nil for nothing.
func keepFlag(f *pflag.FlagSet, usage string) func() (*zfs.Keep, error) {
	return policyFlag(f, "keep", usage)
}

// policyFlag is keepFlag under another name.
func policyFlag(f *pflag.FlagSet, name, usage string) func() (*zfs.Keep, error) {
	text := f.String(name, "", usage)
	return func() (*zfs.Keep, error) {
		if *text == "" {
			return nil, nil
		}
		k, err := zfs.ParseKeep(*text)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", name, err)
		}
		return &k, nil
	}
}

func viaFlag(f *pflag.FlagSet, into *string, name, whose string) {
	f.StringVar(into, name, "", `command that reaches the machine of `+whose+`, such as "ssh root@backup --"; default: this one`)
}

// zfsLimitFlag adds --bwlimit; which says of which bytes it is.
func zfsLimitFlag(f *pflag.FlagSet, into *int64, which string) {
	f.Var((*bandwidth)(into), "bwlimit", "bytes per second, "+which+", such as 10M (10,000,000) or 10Mi (10,485,760); 0 is no limit")
}

// inventoryStores are the stores of the inventory, if one is named.
func (a *app) inventoryStores() ([]drill.Store, error) {
	if a.inventory == "" {
		return nil, nil
	}
	inv, err := injector.ReadInventory(a.inventory, a.registry)
	return inv.Spec.Stores, err
}

// openArchive opens an archive; the caller calls done.
func (a *app) openArchive(ctx context.Context, l location.Location, readOnly bool) (_ *zfs.Archive, done func(), err error) {
	known, err := a.inventoryStores()
	if err != nil {
		return nil, nil, err
	}
	archive, done, err := reach.Archive(ctx, l, known, true, readOnly)
	return archive, done, zfsExit(err)
}

// archivesAt finds the archives of several datasets at a location; none where it is, or
// could be, the archive of one.
func (a *app) archivesAt(ctx context.Context, l location.Location) ([]location.Location, error) {
	known, err := a.inventoryStores()
	if err != nil {
		return nil, err
	}
	found, err := reach.Archives(ctx, l, known, true)
	return found, interrupted(ctx, "nothing was done", zfsExit(err))
}

// goesOn is what an interrupted command leaves.
const goesOn = "what has arrived whole stays, and the same command goes on from there"

// zfsExit gives an error its exit code.
func zfsExit(err error) error {
	is := func(some ...error) bool {
		for _, one := range some {
			if errors.Is(err, one) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return nil
	case is(zfs.ErrName, zfs.ErrOther, location.ErrLocation, reach.ErrLocation, stores.ErrLocation, snapshots.ErrPlace):
		return err
	case is(zfs.ErrTouched, zfs.ErrDiverged, zfs.ErrNoCommon, zfs.ErrCorrupt, zfs.ErrBusy, zfs.ErrCloned):
		return &exitError{code: run.Fail, err: err}
	}
	return failure(err)
}

// lockZFS keeps a second run to the same place out until release is called, also one that
// `firedrill up` makes in the same state directory.
func (a *app) lockZFS(job string) (release func(), err error) {
	release, err = snapshots.Lock(a.locks(), job)
	return release, failure(err)
}

// locks is where runs with snapshots lock each other out.
func (a *app) locks() string { return filepath.Join(a.stateDir, "mirrors") }
