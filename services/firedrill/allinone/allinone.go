// Package allinone runs the five services and an embedded NATS server in one
// process: the default for one machine. It is wiring only; the services are the
// same code as the separate programs.
package allinone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/mirror"
	"github.com/firedrill/firedrill/services/observer"
	"github.com/firedrill/firedrill/services/reporter"
	"github.com/firedrill/firedrill/services/validator"
)

// Instance is what each service of an all-in-one calls itself: a lease in its own name
// was left by its predecessor.
const Instance = "allinone"

// Options configure Start.
type Options struct {
	// StateDir holds the event store, the signing keys and up.json.
	StateDir string
	// Listen is the address that NATS clients connect to; "" serves this process only.
	Listen string
	// Private lets in only who may read up.json, which holds the login. So is the
	// firedrill of a single `firedrill run`, which does whatever it is asked for.
	Private bool
	// NATSConfig is a server configuration file, for accounts and TLS.
	NATSConfig string
	// HTTPAddr serves the page and the API; "" serves neither.
	HTTPAddr string
	// HTTPToken is what API clients must present.
	HTTPToken string
	// OutDir receives a folder of report files for each drill.
	OutDir   string
	Registry target.Registry
	// Inventory is what requests may drill; the zero value lets nothing.
	Inventory drill.Inventory
	// Only says which requests for drills are taken, nil all of them: see injector.Config.
	// An all-in-one with it does what comes of these and nothing else: mirrors run as
	// steps of its drills, and what others have asked of them is left to the next one.
	Only     func(subject string, data []byte, msgID string) bool
	LeaseTTL time.Duration
	// Locks is as in injector.Config and mirror.Config.
	Locks machine.Locks
	Log   *slog.Logger
}

// HTTPError is that nothing can be served at Options.HTTPAddr.
type HTTPError struct{ Err error }

// Error says why.
func (e *HTTPError) Error() string { return "page and API: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *HTTPError) Unwrap() error { return e.Err }

// Stack is a running all-in-one.
type Stack struct {
	// Bus is a connection for the process's own use; it has no signing key.
	Bus     *bus.Bus
	Keyring event.Keyring

	server *bus.Embedded
	// http is where the page is served; nil where it is not.
	http   net.Listener
	buses  []*bus.Bus
	record string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	err   error
	ended chan struct{}
}

// Start starts the server and the services and returns when they are connected.
// Close ends them.
func Start(ctx context.Context, o Options) (*Stack, error) {
	ring, err := keys.LoadOrCreate(filepath.Join(o.StateDir, "keys"))
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: StoreDir(o.StateDir), Listen: o.Listen, Private: o.Private, ConfigFile: o.NATSConfig, Log: o.Log})
	if err != nil {
		return nil, err
	}
	// What a killed one has left would be taken for this one's, had both the same number,
	// as in containers.
	_ = os.Remove(recordPath(o.StateDir)) // there is none, as a rule
	s := &Stack{server: server, Keyring: ring.Keyring, ended: make(chan struct{})}
	if err := s.start(ctx, o, ring); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context, o Options, ring *keys.Set) error {
	var err error
	if o.HTTPAddr != "" {
		if s.http, err = reporter.Listen(ctx, o.HTTPAddr); err != nil {
			return &HTTPError{err}
		}
		o.HTTPAddr = s.http.Addr().String()
	}
	if s.Bus, err = s.connect(ctx, o, bus.Identity{Service: "cli", Instance: "cli", Clock: clock.System()}); err != nil {
		return err
	}
	if err := s.Bus.Bootstrap(ctx, bus.BootstrapOptions{Replicas: 1}); err != nil {
		return fmt.Errorf("creating the streams: %w", err)
	}
	// The services outlive the caller's context only until Close.
	ctx, s.cancel = context.WithCancel(ctx)
	s.wg.Go(func() {
		if err := s.server.Watch(ctx); err != nil {
			s.fail(err)
		}
	})
	for name, run := range s.services(o, ring) {
		signer, err := ring.Signer(name)
		if err != nil {
			return err
		}
		b, err := s.connect(ctx, o, bus.Identity{Service: name, Instance: Instance, Signer: signer, Clock: clock.System()})
		if err != nil {
			return err
		}
		s.wg.Go(func() {
			if err := run(ctx, b, o.Log.With("service", name)); err != nil && !errors.Is(err, context.Canceled) {
				s.fail(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	if o.Only == nil {
		s.reportAgain(ctx, o.Log)
	}
	if o.Listen == "" {
		return nil
	}
	s.record = recordPath(o.StateDir)
	return writeRecord(s.record, Record{PID: os.Getpid(), NATSURL: s.server.URL(), Seed: s.server.Seed(), HTTP: o.HTTPAddr, OutDir: o.OutDir})
}

// service runs one of the services until its context ends.
type service func(context.Context, *bus.Bus, *slog.Logger) error

// services are all five, by name.
func (s *Stack) services(o Options, ring *keys.Set) map[string]service {
	return map[string]service{
		event.Injector: func(ctx context.Context, b *bus.Bus, l *slog.Logger) error {
			return injector.Run(ctx, injector.Config{Bus: b, Registry: o.Registry, Inventory: o.Inventory, Clock: clock.System(), Log: l, LeaseTTL: o.LeaseTTL, Only: o.Only,
				Locks: o.Locks, Room: func() error { return bus.Room(StoreDir(o.StateDir)) }})
		},
		event.Observer: func(ctx context.Context, b *bus.Bus, l *slog.Logger) error {
			return observer.Run(ctx, observer.Config{Bus: b, Registry: o.Registry, Clock: clock.System(), Log: l})
		},
		event.Validator: func(ctx context.Context, b *bus.Bus, l *slog.Logger) error {
			return validator.Run(ctx, validator.Config{Bus: b, Registry: o.Registry, Clock: clock.System(), Log: l})
		},
		event.Mirror: func(ctx context.Context, b *bus.Bus, l *slog.Logger) error {
			signer, err := ring.Signer(event.Mirror)
			if err != nil {
				return err
			}
			return mirror.Run(ctx, mirror.Config{
				Bus: b, Clock: clock.System(), Log: l, Signer: signer,
				Inventory: o.Inventory, StateDir: filepath.Join(o.StateDir, "mirrors"), Locks: o.Locks, Single: o.Only != nil,
			})
		},
		event.Reporter: func(ctx context.Context, b *bus.Bus, l *slog.Logger) error {
			return reporter.Run(ctx, reporter.Config{Bus: b, Log: l, Keyring: s.Keyring, OutDir: o.OutDir, HTTP: s.http, Token: o.HTTPToken})
		},
	}
}

func (s *Stack) connect(ctx context.Context, o Options, id bus.Identity) (*bus.Bus, error) {
	b, err := bus.Connect(ctx, bus.Options{Embedded: s.server, Identity: id, Keyring: s.Keyring, Log: o.Log.With("service", id.Service)})
	if err != nil {
		return nil, fmt.Errorf("connecting %s: %w", id.Service, err)
	}
	s.buses = append(s.buses, b)
	return b, nil
}

// reportAgain hands out the reports that could not be made again, as for want of a
// folder to write to: whoever starts anew may have mended that. What no reporter came to
// an end with stays where it is, as it might take this one down, too.
func (s *Stack) reportAgain(ctx context.Context, log *slog.Logger) {
	letters, err := s.Bus.DeadLetters(ctx)
	for _, d := range letters {
		if d.Durable == reporter.Durable && !d.Unfinished() {
			err = errors.Join(err, s.Bus.ReplayDead(ctx, d.Seq))
		}
	}
	if err != nil {
		log.Warn("not every report that could not be made is tried again: firedrill dead list names them", "error", err)
	}
}

// fail ends the stack when a service cannot go on: half a firedrill is worse
// than none.
func (s *Stack) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.ended)
	}
}

// Ended is closed when a service failed; Err says why.
func (s *Stack) Ended() <-chan struct{} { return s.ended }

// Err is the failure that ended the stack, if any.
func (s *Stack) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close stops the services, then their connections, then the server.
func (s *Stack) Close() {
	if s.cancel != nil {
		s.cancel()
	}
	s.wg.Wait()
	if s.http != nil {
		_ = s.http.Close() // the reporter has, unless it never ran
	}
	for _, b := range s.buses {
		b.Close()
	}
	// First the record, then the lock: the next one writes its own.
	if s.record != "" {
		_ = os.Remove(s.record) // a stale record is recognised
	}
	s.server.Shutdown()
}
