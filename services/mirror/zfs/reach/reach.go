// Package reach opens what a user names: the ZFS of a machine, and an archive in a
// bucket.
package reach

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/stores"
	"github.com/firedrill/firedrill/services/mirror/zfs"
)

// ErrLocation says that a location is of the wrong kind.
var ErrLocation = errors.New("not usable here")

// Host opens the ZFS that a command such as "ssh root@backup --" reaches, or this
// machine's if via is blank. The command's words are separated by spaces.
func Host(ctx context.Context, via string) (*zfs.Host, error) {
	c := control.Config{Kind: control.KindLocal}
	if words := strings.Fields(via); len(words) > 0 {
		c = control.Config{Kind: control.KindExec, Argv: words}
	}
	m, err := zfs.NewMachine(c)
	if err != nil {
		return nil, err
	}
	return zfs.Open(ctx, m)
}

// Dataset reads a location such as zfs:pool/name. The error wraps ErrLocation or
// location.ErrLocation.
func Dataset(s string) (string, error) {
	l, err := location.Parse(s)
	if err != nil {
		return "", err
	}
	if l.Scheme != location.ZFS {
		return "", fmt.Errorf("%w: %s: write zfs:pool/dataset", ErrLocation, l)
	}
	return l.Path, nil
}

// Bucket reads the location of a bucket, written as for a mirror. The error wraps
// ErrLocation or location.ErrLocation.
func Bucket(s string) (location.Location, error) {
	l, err := location.Parse(s)
	if err == nil && !l.IsBucket() {
		err = fmt.Errorf("%w: %s: an archive lies in a bucket: write s3:store/bucket/prefix or s3+https://host:port/bucket/prefix", ErrLocation, l)
	}
	return l, err
}

// Archives finds the archives that lie right below a location, each named like its
// dataset, in the order of their names; none where the location is an archive itself, or
// nothing is archived there. Keys and errors are as of [Archive].
func Archives(ctx context.Context, l location.Location, inventory []drill.Store, ownKeys bool) ([]location.Location, error) {
	c, err := stores.Config(l, inventory, ownKeys)
	if err != nil {
		return nil, err
	}
	c.ReadOnly = true
	b, err := bucket.Open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l, stores.Explain(l, c, err))
	}
	defer b.Close()
	itself, err := isArchive(ctx, b, "")
	if err != nil {
		return nil, fmt.Errorf("look for archives in %s: %w", l, err)
	}
	if itself {
		return nil, nil
	}
	there, err := b.Children(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("look for archives in %s: %w", l, err)
	}
	if !there.All {
		return nil, fmt.Errorf("look for archives in %s: %w: more than a thousand things lie there: name one archive", l, ErrLocation)
	}
	var found []location.Location
	for _, dir := range there.Dirs {
		holds, err := isArchive(ctx, b, dir)
		if err != nil {
			return nil, fmt.Errorf("look for archives in %s: %w", l, err)
		}
		if holds {
			own := l
			own.Prefix += dir
			found = append(found, own)
		}
	}
	return found, nil
}

// isArchive asks for what an archive has, as a listing of a directory that holds much else
// would not come to it.
func isArchive(ctx context.Context, b *bucket.Bucket, dir string) (bool, error) {
	for _, own := range zfs.ArchiveDirs() {
		c, err := b.Children(ctx, dir+own)
		if err != nil || len(c.Objects)+len(c.Dirs) > 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// Archive opens an archive in a bucket, with the keys that the inventory's stores name,
// or with ownKeys, of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for a location that
// names its server. The caller calls done when it needs it no more. The error of a location that
// names no store is stores.ErrLocation.
func Archive(ctx context.Context, l location.Location, inventory []drill.Store, ownKeys, readOnly bool) (a *zfs.Archive, done func(), err error) {
	c, err := stores.Config(l, inventory, ownKeys)
	if err != nil {
		return nil, nil, err
	}
	c.ReadOnly = readOnly
	b, err := bucket.Open(ctx, c)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", l, stores.Explain(l, c, err))
	}
	return zfs.NewArchive(b), b.Close, nil
}
