// Package reach opens what a user names: the ZFS of a machine, and an archive in a
// bucket.
package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/zfs"
)

// ErrLocation says that a location is of the wrong kind, or names a store that is not
// there.
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

// Archive opens an archive in a bucket, with the keys that the stores name, or of
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for a location that names its server.
// The caller calls done when it needs it no more.
func Archive(ctx context.Context, l location.Location, stores []drill.Store, readOnly bool) (a *zfs.Archive, done func(), err error) {
	c, err := config(l, stores)
	if err != nil {
		return nil, nil, err
	}
	c.ReadOnly = readOnly
	b, err := bucket.Open(ctx, c)
	switch {
	case err == nil:
		return zfs.NewArchive(b), b.Close, nil
	case c.Credentials != nil:
		return nil, nil, fmt.Errorf("open %s: %w", l, err)
	case l.Store == "":
		return nil, nil, fmt.Errorf("open %s: %w (without keys: AWS_ACCESS_KEY_ID is not set)", l, err)
	}
	return nil, nil, fmt.Errorf("open %s: %w (without keys: the store has no accessKey and secretKey in the inventory)", l, err)
}

func config(l location.Location, stores []drill.Store) (bucket.Config, error) {
	c := bucket.Config{Endpoint: l.Endpoint, Bucket: l.Bucket, Prefix: l.Prefix}
	if l.Store == "" {
		c.Region = os.Getenv("AWS_REGION")
		if id := os.Getenv("AWS_ACCESS_KEY_ID"); id != "" {
			c.Credentials = credentials.NewStaticV4(id, os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN"))
		}
		return c, nil
	}
	i := slices.IndexFunc(stores, func(s drill.Store) bool { return s.Name == l.Store })
	if i < 0 {
		return c, fmt.Errorf("%w: %s: no inventory names a store %q: add it under spec.stores, and name the file with --inventory", ErrLocation, l, l.Store)
	}
	s := stores[i]
	c.Endpoint, c.Region = s.Endpoint, s.Region
	var err error
	if s.CAFile != "" {
		c.TLS, err = trust(s.CAFile)
	}
	if err == nil && s.AccessKey != nil && s.SecretKey != nil {
		c.Credentials, err = keys(s)
	}
	if err != nil {
		return c, fmt.Errorf("store %s: %w", s.Name, err)
	}
	return c, nil
}

func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("its certificates: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("its certificates: %s holds none in PEM", file)
	}
	return &tls.Config{RootCAs: roots}, nil
}

func keys(s drill.Store) (*credentials.Credentials, error) {
	id, err := secret(s.AccessKey)
	key, kerr := secret(s.SecretKey)
	if err := errors.Join(err, kerr); err != nil {
		return nil, fmt.Errorf("its keys: %w", err)
	}
	return credentials.NewStaticV4(id, key, ""), nil
}

func secret(s *drill.SecretSource) (string, error) {
	return target.SecretRef{Env: s.Env, File: s.File}.Resolve()
}
