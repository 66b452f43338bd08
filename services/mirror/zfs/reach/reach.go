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
		return nil, nil, fmt.Errorf("open %s: %w", l, stores.NoKeys(l, c, err))
	}
	return zfs.NewArchive(b), b.Close, nil
}
