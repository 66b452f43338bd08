// Package stores says how the bucket that a location names is reached: as a store of
// the inventory is, or with a user's own keys.
package stores

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/location"
)

// ErrLocation says that a location names a store that is not there, or a server where
// only stores may be named.
var ErrLocation = errors.New("not usable here")

// StoreError says that what the inventory says of a store cannot be used.
type StoreError struct {
	// Store is its name. Err names the field.
	Store string
	Err   error
}

// Error describes the fault.
func (e *StoreError) Error() string { return fmt.Sprintf("store %s: %v", e.Store, e.Err) }

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// Config says how the bucket that l names is reached. ownKeys lets a location name a
// server by its address, which is reached with the keys in this process's
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. A bucket for which there are no keys is
// reached without; see Explain. Secrets are read anew by each call. The error is
// a *StoreError where the store's certificates or keys could not be read; else it wraps
// ErrLocation, or says which of the keys is missing.
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
		return c, &StoreError{s.Name, err}
	}
	return c, nil
}

// Explain adds to the error of opening what l names, with c, what to write where the
// server does not speak what its address says, and why there were no keys, unless there
// were.
func Explain(l location.Location, c bucket.Config, err error) error {
	if said, ok := otherwise(l, c, err); ok {
		return said
	}
	switch {
	case err == nil || c.Credentials != nil:
		return err
	case l.Store == "":
		return fmt.Errorf("%w (without keys: AWS_ACCESS_KEY_ID is not set)", err)
	}
	return fmt.Errorf("%w (without keys: the store has no accessKey and secretKey in the inventory)", err)
}

// otherwise says how the location is written where the server speaks TLS and its address
// says that it does not, or the reverse; false if neither is so.
func otherwise(l location.Location, c bucket.Config, err error) (error, bool) {
	refused, ok := errors.AsType[*bucket.RequestError](err)
	if !ok {
		return nil, false
	}
	scheme, host, _ := strings.Cut(c.Endpoint, "://")
	write := func(scheme string) string {
		if l.Store != "" {
			return fmt.Sprintf("endpoint: %s://%s, of the store %s in the inventory", scheme, host, l.Store)
		}
		l.Scheme, l.Endpoint = "s3+"+scheme, scheme+"://"+host
		return l.String()
	}
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w (here: %s)", err, write("http")), true
	case scheme == "http" && refused.Status == http.StatusBadRequest && strings.HasPrefix(refused.Code, "400"):
		// What a server that speaks TLS makes of a request without: the code is no S3 error's.
		return fmt.Errorf("%w (if it speaks TLS, write %s)", err, write("https")), true
	}
	return nil, false
}

func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("caFile: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("caFile: %s holds no certificate in PEM", file)
	}
	return &tls.Config{RootCAs: roots}, nil
}

func keys(s drill.Store) (*credentials.Credentials, error) {
	id, err := secret("accessKey", s.AccessKey)
	key, kerr := secret("secretKey", s.SecretKey)
	switch {
	case err != nil && kerr != nil:
		return nil, fmt.Errorf("%w; %w", err, kerr)
	case err != nil || kerr != nil:
		return nil, cmp.Or(err, kerr)
	}
	return credentials.NewStaticV4(id, key, ""), nil
}

// secret reads what a field of a store refers to.
func secret(field string, s *drill.SecretSource) (string, error) {
	text, err := target.SecretRef{Env: s.Env, File: s.File}.Resolve()
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	return text, nil
}
