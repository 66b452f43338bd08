package bus_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestStoreIsLocked(t *testing.T) {
	dir := t.TempDir()
	e := startServer(t, bus.EmbeddedOptions{StoreDir: dir})
	_, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: dir, Log: quiet()})
	var locked *bus.StoreLockedError
	if !errors.Is(err, bus.ErrStoreLocked) || !errors.As(err, &locked) {
		t.Fatalf("a second server: %v, want ErrStoreLocked", err)
	}
	if locked.PID != strconv.Itoa(os.Getpid()) || !strings.Contains(err.Error(), "process "+locked.PID) {
		t.Errorf("the error names holder %q: %v", locked.PID, err)
	}
	e.Shutdown()
	startServer(t, bus.EmbeddedOptions{StoreDir: dir})
}

// TestKilledHolderFreesTheStore: the lock does not outlive a kill -9, and what
// was acknowledged before it is there.
func TestKilledHolderFreesTheStore(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperServer$", "-test.v")
	cmd.Env = append(os.Environ(), "FIREDRILL_HELPER_STORE="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked := readUntil(t, out, "acked ")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // It was killed; the error says only that.
	e := startServer(t, bus.EmbeddedOptions{StoreDir: dir})
	w := &world{t: t, signers: newSigners(t), server: e}
	history, err := w.connect("cli").History(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	if got := history[len(history)-1].Event.ID; got != acked {
		t.Errorf("the last event is %s, want the acknowledged %s", got, acked)
	}
}

// TestHelperServer is not a test of its own: it is the process that
// TestKilledHolderFreesTheStore kills.
func TestHelperServer(t *testing.T) {
	dir := os.Getenv("FIREDRILL_HELPER_STORE")
	if dir == "" {
		return
	}
	w := &world{t: t, signers: newSigners(t)}
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: dir})
	b := w.connect(event.Injector)
	if err := b.Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := b.Append(t.Context(), "d", accepted(), phase(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stdout.WriteString("acked " + s[1].Event.ID + "\n"); err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done()
}

// readUntil returns the rest of the first line that begins with prefix.
func readUntil(t *testing.T, from interface{ Read([]byte) (int, error) }, prefix string) string {
	t.Helper()
	var all strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		all.Write(buf[:n])
		if _, rest, ok := strings.Cut(all.String(), prefix); ok {
			if line, _, ok := strings.Cut(rest, "\n"); ok {
				return line
			}
		}
		if err != nil {
			t.Fatalf("the helper ended without %q: %s", prefix, all.String())
		}
	}
}

func TestNoSocketWithoutListen(t *testing.T) {
	e := startServer(t, bus.EmbeddedOptions{StoreDir: t.TempDir()})
	if a := e.Server().Addr(); a != nil {
		t.Errorf("the server listens on %s", a)
	}
	open := startServer(t, bus.EmbeddedOptions{StoreDir: t.TempDir(), Listen: "127.0.0.1:0"})
	c, err := net.Dial("tcp", strings.TrimPrefix(open.URL(), "nats://"))
	if err != nil {
		t.Fatalf("with Listen: %v", err)
	}
	_ = c.Close()
}

func TestEmbeddedRefusesBadOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]bus.EmbeddedOptions{
		"no directory":   {},
		"a file":         {StoreDir: file},
		"no port":        {StoreDir: t.TempDir(), Listen: "localhost"},
		"port range":     {StoreDir: t.TempDir(), Listen: "localhost:99999"},
		"missing config": {StoreDir: t.TempDir(), ConfigFile: file + ".conf"},
	} {
		o.Log = quiet()
		if e, err := bus.StartEmbedded(o); err == nil {
			e.Shutdown()
			t.Errorf("%s: started", name)
		}
	}
}

// TestEveryWriteIsSynchronised: a kill leaves the kernel what it has not yet written,
// a power cut does not; so the running server itself is asked, also where its
// configuration says otherwise.
func TestEveryWriteIsSynchronised(t *testing.T) {
	dir := t.TempDir()
	lazy := filepath.Join(dir, "lazy.conf")
	if err := os.WriteFile(lazy, []byte("jetstream { store_dir: \""+dir+"/own\", sync_interval: 1h }\nlisten: \"127.0.0.1:-1\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]bus.EmbeddedOptions{
		"alone":                {StoreDir: filepath.Join(dir, "alone")},
		"listening":            {StoreDir: filepath.Join(dir, "listening"), Listen: "127.0.0.1:0"},
		"private":              {StoreDir: filepath.Join(dir, "private"), Listen: "127.0.0.1:0", Private: true},
		"another's settings":   {ConfigFile: lazy},
		"other settings, here": {StoreDir: filepath.Join(dir, "here"), ConfigFile: lazy},
	} {
		config := startServer(t, o).Server().JetStreamConfig()
		if config == nil || !config.SyncAlways {
			t.Errorf("%s: the server does not synchronise each write: %+v", name, config)
		}
	}
}

func TestReady(t *testing.T) {
	w := &world{t: t, dir: t.TempDir(), signers: newSigners(t)}
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir})
	b := w.connect(event.Injector)
	if err := b.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "bootstrap") {
		t.Errorf("ready without streams: %v", err)
	}
	for range 2 { // It is idempotent.
		if err := b.Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, service := range append(event.Services(), "cli") {
		if err := w.connect(service).Ready(t.Context()); err != nil {
			t.Errorf("%s: %v", service, err)
		}
	}
	mirror := w.connect(event.Mirror)
	if err := w.js(t).DeleteStream(t.Context(), bus.StreamMirrorWork); err != nil {
		t.Fatal(err)
	}
	if err := mirror.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "make a lane of durable mirror-work in stream MIRROR_WORK") || !strings.Contains(err.Error(), "run bootstrap") {
		t.Errorf("without the stream of its lanes: %v", err)
	}
	if _, err := b.History(t.Context(), "readiness"); !errors.Is(err, bus.ErrNoDrill) {
		t.Errorf("the readiness check stored something: %v", err)
	}
}

// TestHistoryCannotBeDeleted: not even with full permissions.
func TestHistoryCannotBeDeleted(t *testing.T) {
	w := newWorld(t)
	s, err := w.connect(event.Injector).Append(t.Context(), "d", accepted())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := w.js(t).Stream(t.Context(), bus.StreamDrills)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err == nil {
		t.Error("the stream was purged")
	}
	if err := stream.DeleteMsg(t.Context(), s[0].Seq); err == nil {
		t.Error("a message was deleted")
	}
}

func TestConnectRefuses(t *testing.T) {
	t.Parallel()
	s := newSigners(t)
	if _, err := bus.Connect(t.Context(), bus.Options{URL: "nats://127.0.0.1:1"}); err == nil {
		t.Error("connected without an identity")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := bus.Connect(ctx, bus.Options{URL: "nats://me:geheim@127.0.0.1:1", Identity: s.identity("cli", "c"), Log: quiet()})
	if err == nil || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("nobody there: %v", err)
	}
}
