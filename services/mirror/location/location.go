// Package location reads the names of places that the mirror copies between.
package location

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// The schemes of locations.
const (
	// Dir is a directory on the worker's machine: dir:/srv/data.
	Dir = "dir"
	// ZFS is a ZFS dataset on the worker's machine, read through a snapshot:
	// zfs:tank/data.
	ZFS = "zfs"
	// S3 is a bucket of a store that the inventory names: s3:backup/bucket/prefix.
	S3 = "s3"
	// S3HTTP and S3HTTPS are buckets by their server's address:
	// s3+https://minio.example:9000/bucket/prefix. The keys come from the
	// environment, so they are for a user's own command line.
	S3HTTP  = "s3+http"
	S3HTTPS = "s3+https"
)

// ErrLocation is returned for a location that cannot be understood.
var ErrLocation = errors.New("not a location")

// SyntaxError says what of a location cannot be understood, and what to write.
type SyntaxError struct {
	// Location is as it was written; empty where it may hold a password.
	Location string
	// Fix says what is wrong or what to write instead.
	Fix string
}

// Error describes the fault.
func (e *SyntaxError) Error() string {
	shown := e.Location
	if shown == "" {
		shown = "(not shown, as it may hold a password)"
	}
	return fmt.Sprintf("%v: %q: %s", ErrLocation, shown, e.Fix)
}

// Unwrap returns ErrLocation.
func (e *SyntaxError) Unwrap() error { return ErrLocation }

// Location is where something lies.
type Location struct {
	Scheme string
	// Path is a directory's, absolute and clean, or a dataset's name.
	Path string
	// Store is the name of a store, Endpoint the URL of a server: a bucket has
	// either. Prefix is empty or ends with '/'.
	Store, Endpoint, Bucket, Prefix string
}

// String writes the location as it is read.
func (l Location) String() string {
	switch l.Scheme {
	case S3:
		return l.Scheme + ":" + l.Store + "/" + l.Bucket + strings.TrimSuffix("/"+l.Prefix, "/")
	case S3HTTP, S3HTTPS:
		prefix := url.URL{Path: strings.TrimSuffix("/"+l.Prefix, "/")}
		return "s3+" + l.Endpoint + "/" + l.Bucket + prefix.EscapedPath()
	}
	return l.Scheme + ":" + l.Path
}

// IsBucket reports whether the location is in a bucket.
func (l Location) IsBucket() bool { return l.Bucket != "" }

// Parse reads a location. Its errors are *SyntaxError and never repeat what may be a
// password.
func Parse(s string) (Location, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return Location{}, fault(s, "write scheme:path, such as dir:/var/lib/x or s3:store/bucket/prefix")
	}
	switch scheme {
	case Dir:
		return parseDir(s, rest)
	case ZFS:
		return parseDataset(s, rest)
	case S3:
		store, rest, _ := strings.Cut(rest, "/")
		if !storePattern().MatchString(store) {
			return Location{}, fault(s, fmt.Sprintf("%q is no name of a store: write s3:store/bucket/prefix with one that the inventory has, or s3+https://host:port/bucket/prefix", store))
		}
		return parseBucket(s, Location{Scheme: S3, Store: store}, rest)
	case S3HTTP, S3HTTPS:
		return parseURL(s)
	}
	return Location{}, fault(s, fmt.Sprintf("scheme %q is not known; use dir, zfs, s3, s3+http or s3+https", scheme))
}

func fault(s, fix string) error {
	if strings.Contains(s, "@") {
		s = ""
	}
	return &SyntaxError{Location: s, Fix: fix}
}

func parseDir(s, p string) (Location, error) {
	switch {
	case strings.ContainsRune(p, 0):
		return Location{}, fault(s, "a path holds no NUL byte")
	case !filepath.IsAbs(p):
		return Location{}, fault(s, "the path must be absolute, such as dir:/var/lib/x")
	case filepath.Clean(p) == "/":
		return Location{}, fault(s, "the root directory is refused; name a directory below it")
	}
	return Location{Scheme: Dir, Path: filepath.Clean(p)}, nil
}

var (
	storePattern = lazy.Regexp(`^[a-z0-9][a-z0-9-]{0,62}$`)
	// What ZFS takes, see zfs(8), without the '@' of snapshots.
	datasetPattern = lazy.Regexp(`^[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*$`)
)

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// noBucket says why S3 does not take a bucket's name; "" if it does, as it does the longer and
// looser names of old buckets and MinIO's. As a pattern, {2,254} of them, it takes longer to
// compile than the rest of a command's start.
func noBucket(name string) string {
	switch n := len(name); {
	case n == 0:
		return "the bucket is missing"
	case n < 3:
		return fmt.Sprintf("the bucket's name %q is too short: it must have 3 to 255 characters", name)
	case n > 255:
		return fmt.Sprintf("the bucket's name has %d characters: it must have 3 to 255", n)
	case strings.Trim(name, alphanumeric+"._-") != "" || !strings.Contains(alphanumeric, name[:1]):
		return fmt.Sprintf("the bucket's name %q has other characters than letters, digits, dots, dashes and underscores, or does not begin with a letter or digit", name)
	}
	return ""
}

func parseDataset(s, name string) (Location, error) {
	if !datasetPattern().MatchString(name) || len(name) > 255 {
		return Location{}, fault(s, "write zfs:pool/dataset, without a snapshot")
	}
	return Location{Scheme: ZFS, Path: name}, nil
}

func parseURL(s string) (Location, error) {
	u, err := url.Parse(strings.TrimPrefix(s, "s3+"))
	switch {
	case err != nil:
		return Location{}, fault(s, "the address is no URL; write s3+https://host:port/bucket/prefix")
	case u.User != nil:
		return Location{}, fault(s, "it must hold no user or password: put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.Host == "":
		return Location{}, fault(s, "the host is missing; write s3+https://host:port/bucket/prefix")
	case u.RawQuery != "" || u.Fragment != "":
		return Location{}, fault(s, "it must hold no ? and no #; write them as %3F and %23")
	}
	return parseBucket(s, Location{Scheme: "s3+" + u.Scheme, Endpoint: u.Scheme + "://" + u.Host}, strings.TrimPrefix(u.Path, "/"))
}

func parseBucket(s string, l Location, rest string) (Location, error) {
	bucket, prefix, _ := strings.Cut(rest, "/")
	if why := noBucket(bucket); why != "" {
		return Location{}, fault(s, why+"; write s3:store/bucket/prefix, or s3+https://host:port/bucket/prefix")
	}
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix != "" && (path.Clean("/"+prefix) != "/"+prefix) {
		return Location{}, fault(s, "the prefix must be clean: without //, . and ..")
	}
	l.Bucket = bucket
	if prefix != "" {
		l.Prefix = prefix + "/"
	}
	return l, nil
}

// Server writes a server's URL in one way: without a path, without the port that goes
// without saying, and in small letters. What is no URL stays as it is.
func Server(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return endpoint
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch port := u.Port(); {
	case port == "", scheme == "http" && port == "80", scheme == "https" && port == "443":
		host = strings.TrimSuffix(host, ":"+port)
	}
	return scheme + "://" + host
}

// Overlap reports whether one of two locations holds the other, so that a mirror
// between them would copy into itself. Paths are compared as they are written, and so are
// the names of stores: who opens directories has to look through links.
func Overlap(a, b Location) bool {
	if a.IsBucket() != b.IsBucket() || a.Scheme != b.Scheme {
		return false
	}
	if a.IsBucket() {
		return a.Store == b.Store && Server(a.Endpoint) == Server(b.Endpoint) && a.Bucket == b.Bucket &&
			(strings.HasPrefix(a.Prefix, b.Prefix) || strings.HasPrefix(b.Prefix, a.Prefix))
	}
	return a.Path == b.Path || strings.HasPrefix(a.Path, b.Path+"/") || strings.HasPrefix(b.Path, a.Path+"/")
}
