package minio

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	neturl "net/url"
	"os"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firedrill/firedrill/pkg/target"
)

// login is a user with its secret.
type login struct{ user, secret string }

// url is a server's scheme, host and port, with what its certificate is checked by.
type url struct {
	scheme, host string
	roots        *x509.CertPool
}

func parseURL(raw, caFile string) (url, error) {
	u, err := neturl.Parse(raw)
	if err != nil {
		return url{}, errors.New("endpoint: not a URL") // its text may hold a password
	}
	out := url{scheme: u.Scheme, host: u.Host}
	if caFile == "" {
		return out, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return out, fmt.Errorf("caFile: %w", err)
	}
	out.roots = x509.NewCertPool()
	if !out.roots.AppendCertsFromPEM(pem) {
		return out, &target.FieldError{Field: "caFile", Value: caFile, Fix: "it holds no certificate in PEM form"}
	}
	return out, nil
}

func (u url) String() string { return u.scheme + "://" + u.host }

// transport is one client's set of connections; a fresh one keeps none.
func (u url) transport(fresh bool) *http.Transport {
	return &http.Transport{
		DialContext:       dial,
		TLSClientConfig:   &tls.Config{RootCAs: u.roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: fresh,
		// As many as a lane may have in use: none is closed for being one too many.
		MaxIdleConnsPerHost: 1000,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
}

// conn is a connection that knows when it was begun.
type conn struct {
	net.Conn
	begun time.Time
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	begun := time.Now()
	d := net.Dialer{KeepAlive: 15 * time.Second}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn{c, begun}, nil
}

// begunBy is when a client's connection was begun.
func begunBy(c net.Conn) time.Time {
	if secured, ok := c.(*tls.Conn); ok {
		c = secured.NetConn()
	}
	return c.(conn).begun
}

// noticing is a context whose requests tell when their connections were begun.
func noticing(ctx context.Context, begun func(time.Time)) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { begun(begunBy(i.Conn)) },
	})
}

// conns is a client with connections of its own. It is safe for concurrent use.
type conns struct {
	at    url
	login login
	fresh bool

	mu        sync.Mutex
	transport *http.Transport
	core      *minio.Core
}

func newConns(at url, l login, fresh bool) (*conns, error) {
	out := &conns{at: at, login: l, fresh: fresh}
	return out, out.renew()
}

// renew makes a client without any connection. The one before closes those that it
// keeps, and those in use when they come back.
func (c *conns) renew() error {
	t := c.at.transport(c.fresh)
	core, err := minio.NewCore(c.at.host, &minio.Options{
		Creds: credentials.NewStaticV4(c.login.user, c.login.secret, ""), Secure: c.at.scheme == "https",
		// A region that is given is not asked for, which would be a request more.
		Region: "us-east-1", Transport: t, BucketLookup: minio.BucketLookupPath,
		// An attempt is one attempt.
		MaxRetries: 1,
	})
	if err != nil {
		return fmt.Errorf("client of %s: %w", c.at, err)
	}
	c.mu.Lock()
	old := c.transport
	c.transport, c.core = t, core
	c.mu.Unlock()
	if old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

// client is the client as of now.
func (c *conns) client() *minio.Core {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core
}

// reset drops the connections. Making a client again can only fail as it did the
// first time; then the old one goes on with new connections.
func (c *conns) reset() {
	if c.renew() != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.transport.CloseIdleConnections()
	}
}

// maxBody bounds what is read of an object.
const maxBody = 1<<20 + 4096

// get reads an object of at most maxBody bytes in full.
func get(ctx context.Context, c *minio.Core, bucket, key string) ([]byte, error) {
	body, _, _, err := c.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	if len(raw) > maxBody {
		return nil, fmt.Errorf("larger than %d bytes", maxBody)
	}
	return raw, nil
}

// refused is the server's answer in an error: its HTTP status and code. The status
// is 0 when there was none.
func refused(err error) (status int, code string) {
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return e.StatusCode, e.Code
	}
	return 0, ""
}

// isMissing reports whether the server says that there is no such object.
func isMissing(err error) bool {
	status, _ := refused(err)
	return status == http.StatusNotFound
}
