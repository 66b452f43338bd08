package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

// fixture is a shell with a bus that is never connected, and what it did.
type fixture struct {
	*shell
	args    []string
	dir     string
	got     bus.Options
	closed  bool
	out     bytes.Buffer
	errs    bytes.Buffer
	signals chan os.Signal
}

func newFixture(t *testing.T, f func(context.Context, Process) error) *fixture {
	t.Helper()
	x := &fixture{dir: filepath.Join(t.TempDir(), "keys"), signals: make(chan os.Signal, 2)}
	if _, err := keys.LoadOrCreate(x.dir); err != nil {
		t.Fatal(err)
	}
	x.args = []string{"--signing-seed-file", keys.SeedFile(x.dir, event.Observer), "--keyring", filepath.Join(x.dir, keys.KeyringFile)}
	x.shell = &shell{name: event.Observer, f: f, stop: time.Minute,
		connect: func(_ context.Context, o bus.Options) (*bus.Bus, error) { x.got = o; return nil, nil },
		close:   func(*bus.Bus) { x.closed = true },
	}
	return x
}

func (x *fixture) run(args ...string) int {
	return execute(x.main, append(x.args, args...), nil, &x.out, &x.errs, x.signals, nil)
}

func TestServiceConnectsAndEnds(t *testing.T) {
	x := newFixture(t, func(_ context.Context, p Process) error {
		p.Log.Info("working", "url", p.NATSURL)
		return nil
	})
	code := x.run("--nats-url", "nats://example:1", "--instance", "o-1", "--creds", "c", "--nkey-seed-file", "n", "--ca-file", "ca",
		"--client-cert-file", "cert", "--client-key-file", "key", "--log-format", "json")
	if code != OK || !x.closed || x.got.URL != "nats://example:1" || x.got.CredentialsFile != "c" || x.got.NKeySeedFile != "n" ||
		x.got.CAFile != "ca" || x.got.ClientCertFile != "cert" || x.got.ClientKeyFile != "key" {
		t.Fatalf("%d, %+v\n%s", code, x.got, x.errs.String())
	}
	id := x.got.Identity
	if id.Service != event.Observer || id.Instance != "o-1" || !x.got.Keyring.Allows(event.Observer, id.Signer.Public()) || id.Clock.Now().IsZero() {
		t.Fatalf("%+v", id)
	}
	for _, line := range strings.Split(strings.TrimSpace(x.errs.String()), "\n") {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil || m["service"] != event.Observer || m["instance"] != "o-1" {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestServiceTakesFlagsFromTheEnvironment(t *testing.T) {
	t.Setenv("FIREDRILL_NATS_URL", "nats://env:1")
	t.Setenv("FIREDRILL_INSTANCE", "from-env")
	t.Setenv("FIREDRILL_LISTEN", "from-env")
	x := newFixture(t, nil)
	var listen string
	var seen Process
	x.f = func(_ context.Context, p Process) error { seen = p; return nil }
	WithFlags(func(fs *flag.FlagSet) { fs.StringVar(&listen, "listen", "default", "") })(x.shell)
	if code := x.run("--instance", "from-flag"); code != OK {
		t.Fatal(x.errs.String())
	}
	if seen.NATSURL != "nats://env:1" || seen.Instance != "from-flag" || listen != "from-env" {
		t.Fatalf("%+v, listen %s", seen.Flags, listen)
	}
}

func TestServiceRefusesBadArguments(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("SUNOTASEED"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign, err := keys.LoadOrCreate(filepath.Join(dir, "foreign"))
	if err != nil || foreign == nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		env  [2]string
		says string
	}{
		"unknown flag":  {args: []string{"--nats"}, says: "-nats"},
		"an argument":   {args: []string{"start"}, says: `"start"`},
		"level":         {args: []string{"--log-level", "loud"}, says: "log level"},
		"format":        {args: []string{"--log-format", "xml"}, says: "log format"},
		"instance":      {args: []string{"--instance", "a.b"}, says: "--instance"},
		"no seed":       {args: []string{"--signing-seed-file", ""}, says: "--signing-seed-file"},
		"bad seed":      {args: []string{"--signing-seed-file", empty}, says: "--signing-seed-file"},
		"no keyring":    {args: []string{"--keyring", ""}, says: "--keyring"},
		"bad keyring":   {args: []string{"--keyring", empty}, says: "--keyring"},
		"other keyring": {args: []string{"--keyring", filepath.Join(dir, "foreign", keys.KeyringFile)}, says: "does not list the key"},
		"environment":   {env: [2]string{"FIREDRILL_TRIES", "many"}, says: "FIREDRILL_TRIES"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
			}
			x := newFixture(t, func(context.Context, Process) error { t.Error("it ran"); return nil })
			WithFlags(func(fs *flag.FlagSet) { fs.Int("tries", 1, "") })(x.shell)
			code := x.run(c.args...)
			if code != BadArguments || !strings.Contains(x.errs.String(), c.says) || !strings.Contains(x.errs.String(), "--help") {
				t.Fatalf("%d, %s", code, x.errs.String())
			}
			if strings.Contains(x.errs.String(), "SUNOTASEED") {
				t.Fatalf("the seed is shown: %s", x.errs.String())
			}
		})
	}
}

func TestServiceHelpAndVersion(t *testing.T) {
	for arg, want := range map[string]string{"--help": "-nats-url", "--version": "firedrill-observer "} {
		x := newFixture(t, nil)
		if code := x.run(arg); code != OK || !strings.Contains(x.out.String(), want) || x.errs.Len() > 0 {
			t.Errorf("%s: %d, %s%s", arg, code, x.out.String(), x.errs.String())
		}
	}
}

func TestServiceFailures(t *testing.T) {
	broken := errors.New("the thing broke")
	x := newFixture(t, func(context.Context, Process) error { return broken })
	if code := x.run(); code != Fail || !x.closed || !strings.Contains(x.errs.String(), broken.Error()) {
		t.Fatalf("%d, %s", code, x.errs.String())
	}
	x = newFixture(t, func(context.Context, Process) error { t.Error("it ran"); return nil })
	x.connect = func(context.Context, bus.Options) (*bus.Bus, error) { return nil, broken }
	if code := x.run("--nats-url", "nats://u:hunter2@h"); code != Fail || x.closed || !strings.Contains(x.errs.String(), "--nats-url") || strings.Contains(x.errs.String(), "hunter2") {
		t.Fatalf("%d, %s", code, x.errs.String())
	}
}

func TestServiceEndsWithASignal(t *testing.T) {
	x := newFixture(t, nil)
	x.f = func(ctx context.Context, _ Process) error {
		x.signals <- syscall.SIGTERM
		<-ctx.Done()
		return ctx.Err()
	}
	if code := x.run(); code != OK || !x.closed || !strings.Contains(x.errs.String(), "stopped by signal") {
		t.Fatalf("%d, %s", code, x.errs.String())
	}
	// An error that has nothing to do with the signal is still one.
	x = newFixture(t, nil)
	x.f = func(ctx context.Context, _ Process) error {
		x.signals <- syscall.SIGTERM
		<-ctx.Done()
		return errors.New("lost something")
	}
	if code := x.run(); code != Fail {
		t.Fatalf("%d, %s", code, x.errs.String())
	}
}

func TestServiceThatDoesNotEndIsLeft(t *testing.T) {
	hold := make(chan struct{})
	left := make(chan struct{})
	x := newFixture(t, nil)
	x.stop = 50 * time.Millisecond
	x.f = func(context.Context, Process) error {
		defer close(left)
		x.signals <- syscall.SIGTERM
		<-hold
		return nil
	}
	code := x.run()
	close(hold)
	<-left
	if code != Fail || x.closed || !strings.Contains(x.errs.String(), "did not stop within 50ms") {
		t.Fatalf("%d, closed %v, %s", code, x.closed, x.errs.String())
	}
}

func TestServiceCrash(t *testing.T) {
	x := newFixture(t, func(context.Context, Process) error { panic("ouch") })
	if code := x.run(); code != Crash || !strings.Contains(x.errs.String(), "crash: ouch (at service_test.go:") {
		t.Fatalf("%d, %s", code, x.errs.String())
	}
}

func TestHostInstanceIsStableAndFits(t *testing.T) {
	if a, b := hostInstance(), hostInstance(); a != b || checkInstance(a) != nil {
		t.Fatalf("%q, %q", a, b)
	}
}
