package bus_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// TestRebuildingAnIndexIsNoWarning: after a kill the server finds its index older
// than the messages and makes it anew, which it says as if something were wrong.
func TestRebuildingAnIndexIsNoWarning(t *testing.T) {
	dir := t.TempDir()
	index := filepath.Join(dir, "jetstream", "$G", "streams", bus.StreamDrills, "msgs", "index.db")
	w := &world{t: t, signers: newSigners(t)}
	var stale []byte
	for i := range 2 {
		w.server = startServer(t, bus.EmbeddedOptions{StoreDir: dir})
		b := w.connect(event.Injector)
		if err := b.Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Append(t.Context(), "d", [][]event.Draft{{accepted()}, {phase(1)}}[i]...); err != nil {
			t.Fatal(err)
		}
		b.Close()
		w.server.Shutdown()
		if i == 0 {
			var err error
			if stale, err = os.ReadFile(index); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(index, stale, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: dir, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	w.server = server
	history, err := w.connect("cli").History(t.Context(), "d")
	if err != nil || len(history) != 2 {
		t.Fatalf("%d events, %v", len(history), err)
	}
	server.Shutdown() // nothing more is logged
	if strings.Contains(log.String(), "WARN") || !strings.Contains(log.String(), "will rebuild") {
		t.Errorf("the start said:\n%s", log.String())
	}
}
