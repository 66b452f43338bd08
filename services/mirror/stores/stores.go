// Package stores says how the bucket that a location names is reached: as a store of
// the inventory is, or with a user's own keys.
package stores

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
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
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. A bucket for which nobody named keys is
// reached without; see Keyless. Keys that were named and are not there are an error, as
// nobody meant to be a stranger then. Secrets are read anew by each call. The error is
// a *StoreError where the store's certificates or keys could not be read, a *KeyError where
// the process's own keys could not; else it wraps ErrLocation.
func Config(l location.Location, inventory []drill.Store, ownKeys bool) (bucket.Config, error) {
	c := bucket.Config{Endpoint: l.Endpoint, Bucket: l.Bucket, Prefix: l.Prefix}
	var err error
	if l.Store == "" {
		if !ownKeys {
			return c, fmt.Errorf("%w: %s is not a location that requests may name: add its store to the inventory, and write s3:store/bucket", ErrLocation, l)
		}
		c.Region = os.Getenv("AWS_REGION")
		if c.Credentials, err = own(); err != nil {
			return c, fmt.Errorf("%s: %w", l, err)
		}
		return c, nil
	}
	i := slices.IndexFunc(inventory, func(s drill.Store) bool { return s.Name == l.Store })
	if i < 0 {
		return c, fmt.Errorf("%w: %s: the inventory has no store %q: add it under spec.stores, and name the inventory's file with --inventory", ErrLocation, l, l.Store)
	}
	s := inventory[i]
	c.Endpoint, c.Region = s.Endpoint, s.Region
	if s.CAFile != "" {
		if c.TLS, err = trust(s.CAFile); err != nil {
			err = fmt.Errorf("caFile: %w", err)
		}
	}
	if err == nil {
		c.Credentials, err = keys(s)
	}
	if err != nil {
		return c, &StoreError{s.Name, err}
	}
	return c, nil
}

// Unresolved finds what the stores refer to and this process cannot read: keys and
// certificates. Their fields are those of an inventory.
func Unresolved(inventory []drill.Store) (out []drill.Problem) {
	for i, s := range inventory {
		at := fmt.Sprintf("spec.stores[%d].", i)
		if s.CAFile != "" {
			if _, err := trust(s.CAFile); err != nil {
				out = append(out, drill.Problem{Field: at + "caFile", Value: s.CAFile, Fix: err.Error()})
			}
		}
		for _, ref := range references(s) {
			if ref.source == nil {
				continue // The inventory's own check says so.
			}
			if _, err := ref.read(); err != nil {
				out = append(out, drill.Problem{Field: at + err.Field, Value: err.Name, Fix: err.Fix})
			}
		}
	}
	return out
}

// Keyless says why a bucket is reached without keys; "" where l names none, or there are
// keys for it.
func Keyless(l location.Location, inventory []drill.Store) string {
	switch i := slices.IndexFunc(inventory, func(s drill.Store) bool { return s.Name == l.Store }); {
	case !l.IsBucket():
	case l.Store == "" && !hasOwn():
		return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"
	case l.Store != "" && i >= 0 && inventory[i].AccessKey == nil && inventory[i].SecretKey == nil:
		return "the store has no accessKey and secretKey in the inventory"
	}
	return ""
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
		return fmt.Errorf("%w (without keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set)", err)
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
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return &tls.Config{RootCAs: roots}, nil
}
