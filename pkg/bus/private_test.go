package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/filelock"
	"github.com/firedrill/firedrill/pkg/keys"
)

// heard is what a log has said, to any goroutine.
type heard struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all.String()
}

// TestAPrivateServerLetsInWhoHasTheSeed, and nobody else: no login, another one's, a
// token and a password are refused at once. The seed is not in what is logged.
func TestAPrivateServerLetsInWhoHasTheSeed(t *testing.T) {
	var said heard
	e, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Private: true,
		Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	ring := newSigners(t)
	inside := connect(t, bus.Options{Embedded: e, Identity: ring.identity("cli", "inside"), Keyring: ring.ring})
	if err := inside.Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	outside := bus.Options{URL: e.URL(), Identity: ring.identity("cli", "outside"), Keyring: ring.ring}
	with := func(seed bus.Seed) bus.Options { o := outside; o.Seed = seed; return o }
	if err := connect(t, with(e.Seed())).Ready(t.Context()); err != nil {
		t.Errorf("who has the seed: %v", err)
	}
	another, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: t.TempDir(), Private: true, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(another.Shutdown)
	if another.Seed() == e.Seed() {
		t.Fatal("two servers have one seed")
	}
	for name, o := range map[string]bus.Options{"without a seed": outside, "with another one's": with(another.Seed())} {
		o.Log = quiet()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		b, err := bus.Connect(ctx, o)
		cancel()
		if err == nil {
			b.Close()
		}
		if !errors.Is(err, nats.ErrAuthorization) || o.Seed != "" && strings.Contains(err.Error(), string(o.Seed)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	signer, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]nats.Option{
		"a token": nats.Token("x"), "a password": nats.UserInfo("firedrill", "firedrill"),
		"another nkey": nats.Nkey(signer.Public(), func([]byte) ([]byte, error) { return make([]byte, 64), nil }),
	} {
		if nc, err := nats.Connect(e.URL(), option); !errors.Is(err, nats.ErrAuthorization) {
			nc.Close()
			t.Errorf("%s: %v", name, err)
		}
	}
	if strings.Contains(said.String(), string(e.Seed())) || strings.Contains(said.String(), "level=WARN") {
		t.Errorf("the log:\n%s", said.String())
	}
}

// TestASeedIsNotPrinted, however it is.
func TestASeedIsNotPrinted(t *testing.T) {
	o := bus.Options{Seed: "SUSECRET"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, o.Seed) + fmt.Sprintf(verb, struct{ S bus.Seed }{o.Seed}); strings.Contains(got, "SECRET") {
			t.Errorf("%s: %s", verb, got)
		}
	}
	_, err := bus.Connect(t.Context(), bus.Options{URL: "nats://127.0.0.1:1", Seed: o.Seed, Identity: newSigners(t).identity("cli", "x")})
	if err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "nkey seed") {
		t.Errorf("a seed that is none: %v", err)
	}
}

// TestAConfigurationIsNotPrivate: it has logins of its own.
func TestAConfigurationIsNotPrivate(t *testing.T) {
	_, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: t.TempDir(), ConfigFile: "x.conf", Private: true})
	if err == nil || !strings.Contains(err.Error(), "x.conf") {
		t.Error(err)
	}
}

// TestStoreHolder: it is said who has a store, and looking keeps nobody out.
func TestStoreHolder(t *testing.T) {
	dir := t.TempDir()
	free := func() {
		t.Helper()
		if err := bus.StoreHolder(dir); err != nil {
			t.Errorf("nobody has it: %v", err)
		}
	}
	free()
	e := startServer(t, bus.EmbeddedOptions{StoreDir: dir})
	var locked *bus.StoreLockedError
	if err := bus.StoreHolder(dir); !errors.As(err, &locked) || locked.PID != strconv.Itoa(os.Getpid()) || locked.Dir != dir {
		t.Errorf("it is in use: %v", err)
	}
	e.Shutdown()
	free()
	startServer(t, bus.EmbeddedOptions{StoreDir: dir})
}

// TestAStoreThatIsLookedAtIsWaitedFor: who looks into it or switches something has it
// only for a moment, which is no reason to start nothing.
func TestAStoreThatIsLookedAtIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "firedrill.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := filelock.Try(f); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = filelock.LetGo(f) })
	startServer(t, bus.EmbeddedOptions{StoreDir: dir})
}
