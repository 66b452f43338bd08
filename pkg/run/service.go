package run

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/telemetry"
)

const (
	// connectTimeout bounds the wait for NATS at the start.
	connectTimeout = 30 * time.Second
	// stopTimeout bounds a clean shutdown after a signal: enough for a service to
	// finish a message, and less than what Kubernetes grants.
	stopTimeout = 20 * time.Second
	// flushTimeout bounds the export of the last spans.
	flushTimeout = 5 * time.Second
)

// Process is what a service gets to run with.
type Process struct {
	Name string
	Bus  *bus.Bus
	Log  *slog.Logger
	// Signer signs this service's events, and whatever else it vouches for; nil
	// where no key was given.
	Signer event.Signer
	Flags
}

// Option changes a service's shell.
type Option func(*shell)

// WithFlags adds flags of the service's own; they take part in the environment
// rule. register is called before parsing.
func WithFlags(register func(*flag.FlagSet)) Option {
	return func(s *shell) { s.flags = register }
}

// shell is a service's process; its functions are replaced in tests.
type shell struct {
	name    string
	f       func(context.Context, Process) error
	flags   func(*flag.FlagSet)
	connect func(context.Context, bus.Options) (*bus.Bus, error)
	close   func(*bus.Bus)
	stop    time.Duration
}

// Service runs a service as a process of its own and exits: it reads flags and
// environment, connects to NATS, sets up logs and tracing, and calls f until a
// signal ends its context or f returns. An error of f is exit code Fail. When f
// does not return within a bound after the signal, the process exits anyway,
// with Fail: whoever takes over relies on what is stored, not on a farewell.
func Service(name string, f func(ctx context.Context, p Process) error, options ...Option) {
	s := &shell{name: name, f: f, connect: bus.Connect, close: (*bus.Bus).Close, stop: stopTimeout}
	for _, o := range options {
		o(s)
	}
	Main(s.main)
}

func (s *shell) main(ctx context.Context, args []string, _ io.Reader, out, errs io.Writer) int {
	var flags Flags
	fs := flag.NewFlagSet(s.name, flag.ContinueOnError)
	flags.register(fs)
	if s.flags != nil {
		s.flags(fs)
	}
	bad := func(err error) int {
		fmt.Fprintf(errs, "firedrill-%s: %s\nsee firedrill-%s --help\n", s.name, scrub(err.Error()), s.name)
		return BadArguments
	}
	switch err := parse(fs, args); {
	case errors.Is(err, flag.ErrHelp):
		usage(out, s.name, fs)
		return OK
	case err != nil:
		return bad(err)
	case flags.version:
		fmt.Fprintf(out, "firedrill-%s %s\n", s.name, version())
		return OK
	}
	log, err := Logger(errs, flags.LogFormat, flags.LogLevel)
	if err != nil {
		return bad(err)
	}
	o, err := s.options(flags, log)
	if err != nil {
		return bad(err)
	}
	log = log.With("service", s.name, "instance", flags.Instance)
	o.Log = log
	slog.SetDefault(log)
	if err := s.serve(ctx, o, Process{Name: s.name, Log: log, Signer: o.Identity.Signer, Flags: flags}); err != nil {
		log.Error("the service ended", "error", err)
		return Fail
	}
	log.Info("stopped")
	return OK
}

// options reads the files that the flags name.
func (s *shell) options(f Flags, log *slog.Logger) (bus.Options, error) {
	if err := checkInstance(f.Instance); err != nil {
		return bus.Options{}, err
	}
	signer, keyring, err := readKeys(s.name, f)
	if err != nil {
		return bus.Options{}, err
	}
	return bus.Options{
		URL: f.NATSURL, CredentialsFile: f.Creds, NKeySeedFile: f.NKeySeedFile,
		CAFile: f.CAFile, ClientCertFile: f.ClientCertFile, ClientKeyFile: f.ClientKeyFile,
		Identity: bus.Identity{Service: s.name, Instance: f.Instance, Signer: signer, Clock: clock.System()},
		Keyring:  keyring, Log: log,
	}, nil
}

func (s *shell) serve(ctx context.Context, o bus.Options, p Process) error {
	flush, err := telemetry.Setup(ctx, s.name, p.Instance)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		if err := flush(ctx); err != nil {
			p.Log.Warn("the last traces could not be exported", "error", err)
		}
	}()
	connecting, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no NATS server in %v", connectTimeout))
	defer cancel()
	p.Bus, err = s.connect(connecting, o)
	if err != nil {
		return fmt.Errorf("%w; check --nats-url, the credentials and the certificates", err)
	}
	p.Log.Info("started", "nats", bus.Redact(p.NATSURL), "version", version())
	err = s.bounded(ctx, p)
	var late *lateError
	if errors.As(err, &late) {
		// f still uses the bus: closing it under its feet helps nobody.
		return err
	}
	s.close(p.Bus)
	return err
}

// lateError says that a service did not stop in time.
type lateError struct{ after time.Duration }

func (e *lateError) Error() string {
	return fmt.Sprintf("it did not stop within %v of the signal; what it was doing is taken over from the stored events", e.after)
}

// bounded runs f, and after the end of ctx waits for it no longer than s.stop.
func (s *shell) bounded(ctx context.Context, p Process) error {
	done := make(chan error, 1)
	crashed := make(chan *crash, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				crashed <- newCrash(v)
			}
		}()
		done <- s.f(ctx, p)
	}()
	ended := ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case err := <-done:
			return withoutEnd(ctx, err)
		case c := <-crashed:
			panic(c)
		case <-ended:
			p.Log.Info("stopping", "cause", context.Cause(ctx))
			ended = nil
			timer := time.NewTimer(s.stop)
			defer timer.Stop()
			late = timer.C
		case <-late:
			return &lateError{s.stop}
		}
	}
}

// withoutEnd drops an error that only says that the context ended.
func withoutEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}

// readKeys reads the service's signer and everybody's public keys, and checks
// that they fit: events that nobody accepts are better refused at the start.
func readKeys(service string, f Flags) (event.Signer, event.Keyring, error) {
	const how = "`firedrill up` makes a set in the keys directory of its state"
	if f.SigningSeedFile == "" {
		return nil, nil, errors.New("--signing-seed-file: it is needed, as every event is signed; " + how)
	}
	if f.Keyring == "" {
		return nil, nil, errors.New("--keyring: it is needed, as no event can be trusted without the public keys; " + how)
	}
	signer, err := keys.Load(f.SigningSeedFile)
	if err != nil {
		return nil, nil, fmt.Errorf("--signing-seed-file: %w", err)
	}
	keyring, err := keys.ReadKeyring(f.Keyring)
	if err != nil {
		return nil, nil, fmt.Errorf("--keyring: %w", err)
	}
	if !keyring.Allows(service, signer.Public()) {
		return nil, nil, fmt.Errorf("--keyring %s: it does not list the key %s of --signing-seed-file under %q, so nobody would accept this service's events; add it there, or use the right seed", f.Keyring, signer.Public(), service)
	}
	return signer, keyring, nil
}

// version is the module's version or commit, as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += " " + s.Value[:12]
		}
	}
	return v
}
