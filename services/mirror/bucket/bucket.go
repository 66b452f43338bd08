// Package bucket is a bucket of an S3 server as the mirror needs it: listing in
// key order, writing alone, in batches and in parts, reading and deleting. What
// is written is guarded by CRC32C on the way and compared with what the server
// says it has; what a listing or a batch leaves out is an error, never a silence.
// It decides nothing: which key is written or deleted is its caller's choice.
//
// Requests go through minio-go, except for listings and contents, which are asked for
// by hand and signed by AWS's signer: for listings minio-go takes nine times the
// processor time and 24 times the memory, and for signing twice.
package bucket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// Config says where a bucket is and how to talk to it.
type Config struct {
	// Endpoint is the server's URL without a path, such as https://s3.example:9000.
	// It must hold no user or password.
	Endpoint string
	// Bucket is the bucket's name. It must exist.
	Bucket string
	// Prefix goes before every key, which callers neither pass nor see. It ends
	// with '/', which is added if missing; "" is the whole bucket.
	Prefix string
	// Region is the bucket's; "" means us-east-1, which is also MinIO's.
	Region string
	// Credentials provide the keys; nil means anonymous.
	Credentials *credentials.Credentials
	// TLS holds the roots to trust and the client's certificate; nil means the
	// system's roots. It is not changed.
	TLS *tls.Config
	// ReadOnly has all that writes return ErrUnsupported; no batches are offered.
	ReadOnly bool
	// Limits bound the connections and the patience.
	Limits Limits
	// Pressure, if not nil, is called after every answer with the time that it
	// took, the request's body included, and whether the server asked to slow down
	// (503, 429). It is called concurrently and must return at once.
	Pressure func(latency time.Duration, throttled bool)
}

// Limits of the transport. Zero fields mean the defaults.
type Limits struct {
	// Connections is how many may be open at once; 64 by default. More callers wait.
	Connections int
	// Dial bounds connecting, with TLS; 10 s by default.
	Dial time.Duration
	// Answer bounds the wait for an answer after the request was sent; 2 min by
	// default: a server joins the parts of a large object before it answers.
	Answer time.Duration
	// Attempts is how often a request that may be repeated is tried; 5 by default.
	Attempts int
}

// Capabilities are what the server and the bucket were found to be able to do.
// The zero value can nothing.
type Capabilities struct {
	// Server is what the server calls itself, such as "MinIO".
	Server string
	// Snowball says that the server unpacks a tar into objects: PutBatch works.
	Snowball bool
	// ListMetadata says that listings can carry user metadata.
	ListMetadata bool
	// Versioning says that a deleted or overwritten object stays as a version.
	Versioning bool
	// SetMTime says that PutOptions.MTime becomes the object's LastModified: only
	// MinIO can, and only where the bucket never had versions, since there the
	// newest version is the one with the latest time, not the one written last; and only
	// where the server tells the bucket's age, as else nothing but the times that it gives
	// itself tells the bucket from another of its name. It is known of what is opened for
	// reading, too, for what others wrote so.
	SetMTime bool
}

// MinIO is what such a server calls itself: see [Capabilities.Server].
const MinIO = "MinIO"

// Bucket is an open bucket. Its methods are safe for concurrent use.
type Bucket struct {
	name, prefix, region string
	// base is the URL of the bucket itself, ending with '/'.
	base      *url.URL
	endpoint  string
	secure    bool
	readOnly  bool
	attempts  int
	caps      Capabilities
	created   time.Time
	creds     *credentials.Credentials
	transport *http.Transport
	observed  *observer // the transport, as all requests use it
	signer    signer
	core      *minio.Core
	checksums checksums
	// compressors are *s2.Writer that no batch uses: each has megabytes of its own.
	compressors sync.Pool
}

// Open connects to a bucket and finds out what it can do. Its errors wrap
// ErrUnreachable, ErrCredentials, ErrDenied, ErrNoBucket or a *ClockSkewError.
// It needs the right to list, and writes nothing. Close the bucket after use.
func Open(ctx context.Context, c Config) (*Bucket, error) {
	b, err := newBucket(c)
	if err != nil {
		return nil, err
	}
	if err := b.discover(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close ends the idle connections. Requests of callers that still run are not ended.
func (b *Bucket) Close() {
	b.checksums.end()
	b.transport.CloseIdleConnections()
}

// Capabilities returns what Open found.
func (b *Bucket) Capabilities() Capabilities { return b.caps }

// String names the bucket and the prefix, without secrets.
func (b *Bucket) String() string { return b.endpoint + "/" + b.name + "/" + b.prefix }

// Path is the bucket's name and the prefix with a '/' between them, which are the
// same under another name of the server.
func (b *Bucket) Path() string { return b.name + "/" + b.prefix }

func newBucket(c Config) (*Bucket, error) {
	endpoint, err := parseEndpoint(c.Endpoint)
	if err != nil {
		return nil, err
	}
	if err := s3utils.CheckValidBucketName(c.Bucket); err != nil {
		return nil, fmt.Errorf("bucket name %q: %w", c.Bucket, err)
	}
	if c.Prefix != "" && !strings.HasSuffix(c.Prefix, "/") {
		c.Prefix += "/"
	}
	if c.Prefix != "" && !isClean(c.Prefix) {
		return nil, fmt.Errorf("prefix %q of bucket %s: no '/' at the start, no empty, '.' or '..' component is allowed", c.Prefix, c.Bucket)
	}
	b := &Bucket{
		name: c.Bucket, prefix: c.Prefix, region: c.Region, endpoint: endpoint.String(),
		secure: endpoint.Scheme == "https", readOnly: c.ReadOnly, attempts: c.Limits.Attempts, creds: c.Credentials,
		transport: newTransport(c.TLS, c.Limits),
	}
	if b.region == "" {
		b.region = "us-east-1"
	}
	if b.attempts <= 0 {
		b.attempts = 5
	}
	if b.creds == nil {
		b.creds = credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
	}
	base := *endpoint
	base.Path = "/" + c.Bucket + "/"
	// The signer takes the scheme's own port away, and the brackets of an IPv6 address with it.
	base.Host = strings.TrimSuffix(base.Host, map[string]string{"http": ":80", "https": ":443"}[base.Scheme])
	if s3utils.IsVirtualHostSupported(base, c.Bucket) {
		base.Host, base.Path = c.Bucket+"."+base.Host, "/"
	}
	b.base = &base
	b.observed = &observer{next: b.transport, pressure: c.Pressure}
	// Repeating is ours: minio-go repeats whatever can be rewound, conditional writes too.
	b.core, err = minio.NewCore(endpoint.Host, &minio.Options{Creds: b.creds, Secure: b.secure, Transport: b.observed, Region: b.region, MaxRetries: 1})
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", b.endpoint, err)
	}
	return b, nil
}

// parseEndpoint never repeats what it was given: it might hold a password.
func parseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("endpoint: it is not a URL; write it like https://s3.example:9000")
	case u.User != nil:
		return nil, errors.New("endpoint: it holds a user or password; give them as credentials")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return nil, errors.New("endpoint: it must be http:// or https:// and a host, without a path; write it like https://s3.example:9000")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

func newTransport(config *tls.Config, l Limits) *http.Transport {
	if l.Connections <= 0 {
		l.Connections = 64
	}
	if l.Dial <= 0 {
		l.Dial = 10 * time.Second
	}
	if l.Answer <= 0 {
		l.Answer = 2 * time.Minute
	}
	if config != nil {
		config = config.Clone()
	}
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: l.Dial, KeepAlive: 30 * time.Second}).DialContext,
		// One connection for each request that runs: HTTP/2 would put a batch and a
		// listing behind each other's bytes.
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   l.Dial,
		ResponseHeaderTimeout: l.Answer,
		MaxConnsPerHost:       l.Connections,
		MaxIdleConns:          l.Connections,
		MaxIdleConnsPerHost:   l.Connections,
		IdleConnTimeout:       90 * time.Second,
		// An object's bytes are wanted as they are stored.
		DisableCompression: true,
		// The default of 4 KiB costs one system call for each.
		WriteBufferSize: 64 << 10,
		ReadBufferSize:  64 << 10,
	}
}
