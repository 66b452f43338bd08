package bus_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// Who may not make its lanes is not ready.
func TestWhoMayMakeNoLanesIsNotReady(t *testing.T) {
	g := newIdentities(t)
	conf, err := os.ReadFile(deployedConfig)
	must(t, "read the configuration", err)
	const permission = `"$JS.API.CONSUMER.CREATE.MIRROR_WORK.*.mirror.work.>"`
	if n := strings.Count(string(conf), permission); n != 1 {
		t.Fatalf("the permission is given %d times", n)
	}
	path := filepath.Join(t.TempDir(), "firedrill.conf")
	must(t, "write it", os.WriteFile(path, bytes.Replace(conf, []byte(permission), nil, 1), 0o600))
	g.start(path)
	must(t, "bootstrap", g.connect("bootstrap").Bootstrap(t.Context(), bus.BootstrapOptions{}))
	err = g.connect(event.Mirror).Ready(t.Context())
	if !errors.Is(err, bus.ErrDenied) || !strings.Contains(err.Error(), "make a lane of durable mirror-work in stream MIRROR_WORK") {
		t.Errorf("it is ready: %v", err)
	}
}

// lines hands on each line that is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// A lane that the server refuses to make is told of at once.
func TestALaneThatIsRefusedIsToldOf(t *testing.T) {
	w := newWorld(t)
	s, err := w.js(t).Stream(t.Context(), bus.StreamMirrorWork)
	must(t, "stream", err)
	cfg := s.CachedInfo().Config
	must(t, "delete it", w.js(t).DeleteStream(t.Context(), cfg.Name))
	cfg.MaxConsumers = 1
	_, err = w.js(t).CreateStream(t.Context(), cfg)
	must(t, "make it for one consumer", err)
	told := make(lines, 100)
	b, err := bus.Connect(t.Context(), bus.Options{
		Embedded: w.server, Identity: w.identity(event.Mirror, "mirror-1"), Keyring: w.ring,
		Log: slog.New(slog.NewTextHandler(told, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	must(t, "connect", err)
	t.Cleanup(b.Close)
	spawn(t, func(ctx context.Context) error {
		return b.WorkLanes(ctx, bus.MirrorWork, []bus.Lane{{Name: "a"}, {Name: "b"}}, bus.WorkOptions{}, func(context.Context, bus.Message) error { return nil })
	})
	if line := await(t, told, 10*time.Second, "warning"); !strings.Contains(line, "maximum consumers limit reached") || !strings.Contains(line, "durable=mirror-work-") {
		t.Errorf("it was told %s", line)
	}
}
