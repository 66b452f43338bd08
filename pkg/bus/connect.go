package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/event"
)

const (
	// connectWait bounds how long Connect waits for a server that is not up yet.
	connectWait = 15 * time.Second
	// drainWait bounds how long Close waits for what is under way.
	drainWait = 5 * time.Second
	// pingInterval and maxPings find a dead TCP connection within ten seconds.
	pingInterval = 5 * time.Second
	maxPings     = 2
)

// Options say where the server is and who connects.
type Options struct {
	// URL is the server's, or several joined by commas. It is ignored when
	// Embedded is set, whose server is then reached without a socket.
	URL      string
	Embedded *Embedded
	Identity Identity
	// Keyring decides which events are trusted.
	Keyring event.Keyring
	// CredentialsFile (JWT) or NKeySeedFile log in; at most one may be set.
	CredentialsFile string
	NKeySeedFile    string
	// Seed logs in to a private server of another process, and stands alone.
	Seed Seed
	// CAFile holds the certificates (PEM) that the server's is checked against; empty
	// means those of the system. ClientCertFile and ClientKeyFile, both or none, are
	// shown to a server that asks for them. A connection with any of the three is
	// made by TLS or not at all. They are read again with every connection.
	CAFile         string
	ClientCertFile string
	ClientKeyFile  string
	// Log receives the connection's ups and downs; nil means slog.Default.
	Log *slog.Logger
}

// Bus is one identity's connection to JetStream.
type Bus struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	id      Identity
	keyring event.Keyring
	log     *slog.Logger
	closed  chan struct{}
	tails   tailCache
	// lost is the connection once it was lost, for those who try to get it back.
	lost atomic.Pointer[nats.Conn]

	mu     sync.Mutex
	denied []string
	// changed is closed and replaced whenever denied grows.
	changed chan struct{}
}

// Connect connects, waiting up to 15 s (or for ctx, if that ends sooner) for a
// server that is not up yet; ErrTLS and refused credentials end that at once. Once
// connected it reconnects for ever. The caller must Close the Bus.
func Connect(ctx context.Context, o Options) (*Bus, error) {
	if o.Identity.Service == "" || o.Identity.Instance == "" || o.Identity.Clock == nil {
		return nil, errors.New("connect to NATS: the identity needs a service, an instance and a clock")
	}
	b := &Bus{
		id: o.Identity, keyring: o.Keyring, log: o.Log,
		closed: make(chan struct{}), changed: make(chan struct{}),
	}
	if b.log == nil {
		b.log = slog.Default()
	}
	options, err := b.options(o)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	servers := o.URL
	if o.Embedded != nil {
		servers = o.Embedded.URL()
	}
	if b.nc, err = dial(ctx, servers, options); err != nil {
		return nil, fmt.Errorf("connect to NATS at %s as %s: %w", Redact(servers), o.Identity.Service, err)
	}
	if b.js, err = jetstream.New(b.nc); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("connect to JetStream: %w", err)
	}
	return b, nil
}

// dial tries until the server is there. Refused credentials and certificates end it
// at once.
func dial(ctx context.Context, servers string, options []nats.Option) (*nats.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	for try := 0; ; try++ {
		nc, err := nats.Connect(servers, options...)
		if err == nil {
			return nc, nil
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) {
			return nil, err
		}
		if refused := tlsRefusal(err); refused != nil {
			return nil, refused
		}
		if unread, ok := errors.AsType[*url.Error](err); ok {
			return nil, fmt.Errorf("the URL cannot be read: %w", unread.Err) // without the URL, which may hold a password
		}
		if pause(ctx, backoff(try)) != nil {
			return nil, fmt.Errorf("%w (gave up after %d tries)", err, try+1)
		}
	}
}

// reconnectDelay is how long a lost connection waits before its next try. It tells of a
// handshake that failed, of which nats.go tells nobody: a certificate that has run out
// would look like a server that is down.
func (b *Bus) reconnectDelay(tries int) time.Duration {
	if nc := b.lost.Load(); nc != nil {
		if refused := tlsRefusal(nc.LastError()); refused != nil {
			b.log.Warn("NATS cannot be reached again", "error", refused)
		}
	}
	return backoff(tries)
}

func (b *Bus) options(o Options) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("firedrill-" + o.Identity.Service + "/" + o.Identity.Instance),
		// Each service may subscribe below its own inbox only.
		nats.CustomInboxPrefix("_INBOX_" + o.Identity.Service),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(b.reconnectDelay),
		// An account being changed must not end a service for good.
		nats.IgnoreAuthErrorAbort(),
		// Without a connection a publish fails at once and is retried here, where
		// it is known what has been sent; a hidden buffer would send it later.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPings),
		nats.DrainTimeout(drainWait),
		nats.ErrorHandler(b.onError),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			b.lost.Store(nc)
			if err != nil {
				b.log.Warn("NATS connection lost; reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			b.log.Info("NATS connection is back", "server", nc.ConnectedServerName())
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
	}
	if o.Embedded != nil {
		options = append(options, nats.InProcessServer(o.Embedded.server))
	}
	seed := o.Seed
	if o.Embedded != nil {
		seed = o.Embedded.seed
	}
	switch {
	case seed != "":
		login, err := seed.login()
		if err != nil {
			return nil, err
		}
		options = append(options, login)
	case o.CredentialsFile != "" && o.NKeySeedFile != "":
		return nil, errors.New("a credentials file and an nkey seed file are both given; use one")
	case o.CredentialsFile != "":
		options = append(options, nats.UserCredentials(o.CredentialsFile))
	case o.NKeySeedFile != "":
		nkey, err := nats.NkeyOptionFromSeed(o.NKeySeedFile)
		if err != nil {
			return nil, fmt.Errorf("nkey seed file %s: %w", o.NKeySeedFile, err)
		}
		options = append(options, nkey)
	}
	certificates, err := o.tlsOptions()
	if err != nil {
		return nil, err
	}
	return append(options, certificates...), nil
}

// Identity returns who this Bus writes as.
func (b *Bus) Identity() Identity { return b.id }

// Close lets what is under way finish, for up to 5 s, and disconnects.
// Everything that blocks on the Bus must have been told to end by its context.
func (b *Bus) Close() {
	if err := b.nc.Drain(); err != nil {
		b.nc.Close()
	}
	timer := time.NewTimer(drainWait + time.Second)
	defer timer.Stop()
	select {
	case <-b.closed:
	case <-timer.C:
		b.nc.Close()
		<-b.closed
	}
}

// onError keeps permission violations for Ready: otherwise a denied publish
// would show as nothing but a timeout.
func (b *Bus) onError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		b.log.Warn("NATS error", "error", err)
		return
	}
	b.log.Error("NATS refuses a subject; see deploy/nats for the permissions a service needs", "error", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.denied) < maxDenied {
		b.denied = append(b.denied, err.Error())
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// maxDenied bounds what is kept of a stream of violations.
const maxDenied = 20

func (b *Bus) violations() ([]string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.denied...), b.changed
}

// backoff is the delay before try number n+1: 50 ms doubling up to half a
// second, with jitter so that many clients do not come back in step. It stays
// short because an election's end must not be slept through.
func backoff(n int) time.Duration {
	d := 500 * time.Millisecond
	if n < 4 {
		d = 50 * time.Millisecond << max(n, 0)
	}
	return d/2 + rand.N(d/2)
}

// pause waits for d or for the context.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
