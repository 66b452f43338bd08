// Package stores says how the bucket that a location names is reached: as a store of
// the inventory is, or with a user's own keys.
package stores

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/location"
)

// ErrLocation says that a location names a store that is not there, or a server where
// only stores may be named.
var ErrLocation = errors.New("not usable here")

// Config says how the bucket that l names is reached. ownKeys lets a location name a
// server by its address, which is reached with the keys in this process's
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. A bucket for which there are no keys is
// reached without; see NoKeys. Secrets are read anew by each call. The error wraps
// ErrLocation unless the store's certificates or keys could not be read.
func Config(l location.Location, inventory []drill.Store, ownKeys bool) (bucket.Config, error) {
	c := bucket.Config{Endpoint: l.Endpoint, Bucket: l.Bucket, Prefix: l.Prefix}
	if l.Store == "" {
		if !ownKeys {
			return c, fmt.Errorf("%w: %s is not a location that requests may name: add its store to the inventory, and write s3:store/bucket", ErrLocation, l)
		}
		c.Region = os.Getenv("AWS_REGION")
		id, key := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
		switch {
		case id != "" && key == "":
			return c, errors.New("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not: set both, or neither for a public bucket")
		case id == "" && key != "":
			return c, errors.New("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not: set both, or neither for a public bucket")
		case id != "":
			c.Credentials = credentials.NewStaticV4(id, key, os.Getenv("AWS_SESSION_TOKEN"))
		}
		return c, nil
	}
	i := slices.IndexFunc(inventory, func(s drill.Store) bool { return s.Name == l.Store })
	if i < 0 {
		return c, fmt.Errorf("%w: %s: the inventory has no store %q: add it under spec.stores, and name the inventory's file with --inventory", ErrLocation, l, l.Store)
	}
	s := inventory[i]
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

// NoKeys adds to the error of opening what l names, with c, why there were no keys,
// unless there were.
func NoKeys(l location.Location, c bucket.Config, err error) error {
	switch {
	case err == nil || c.Credentials != nil:
		return err
	case l.Store == "":
		return fmt.Errorf("%w (without keys: AWS_ACCESS_KEY_ID is not set)", err)
	}
	return fmt.Errorf("%w (without keys: the store has no accessKey and secretKey in the inventory)", err)
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
