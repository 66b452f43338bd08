package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// TestAFailedRunIsSeen: in the log of the process, in what is noted of the mirror,
// and with the event.
func TestAFailedRunIsSeen(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	var log lines
	w.start(func(c *fleet.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	})
	w.ask("out", "{}") // there is no source
	var failed fleet.Event
	var seq uint64
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, w.me.FollowMirror(ctx, "out", 0, func(r bus.Record) error {
		if r.Kind != fleet.KindFailed {
			return nil
		}
		seq = r.Seq
		return errors.Join(json.Unmarshal(r.Data, &failed), bus.Stop)
	}))
	if failed.Log == nil || failed.Log.Failure == nil || failed.Log.Success != nil || !strings.Contains(failed.Log.Failure.Problem, "src") {
		t.Errorf("with the event: %+v", failed.Log)
	}
	if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "a mirror's run failed") || !strings.Contains(text, "mirror=out") {
		t.Errorf("logged %q", text)
	}
	w.tree("src", 3)
	w.ask("out", "{}")
	e, _ := w.await("out", seq, fleet.KindFinished)
	if e.Log == nil || e.Log.Success == nil || e.Log.Success.Copied != 3 || e.Log.Failure == nil || e.Log.Last.By != "test" {
		t.Errorf("with the event: %+v", e.Log)
	}
	l, known, err := runlog.Read(filepath.Join(w.dir, "state", "out"))
	if err != nil || !known || l.Success == nil || !l.Success.Whole || l.Success.Root == nil {
		t.Errorf("noted %+v, %v, %v", l, known, err)
	}
}

// TestALargeFileMakesProgress: before any of it is done.
func TestALargeFileMakesProgress(t *testing.T) {
	const size = 6 << 20
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1 << 20})
	must(t, os.MkdirAll(filepath.Join(w.dir, "src"), 0o755))
	must(t, os.WriteFile(filepath.Join(w.dir, "src", "large"), make([]byte, size), 0o600))
	w.start()
	w.ask("out", "{}")
	var seen *fleet.Progress
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, w.me.FollowMirror(ctx, "out", 0, func(r bus.Record) error {
		var e fleet.Event
		must(t, json.Unmarshal(r.Data, &e))
		if p := e.Progress; p != nil && p.DoneActions == 0 && p.DoneBytes > 0 && seen == nil {
			seen = p // the first: at the last all may be read, and not be paid for yet
		}
		if r.Kind == fleet.KindFinished {
			return bus.Stop
		}
		return nil
	}))
	if seen == nil || !seen.Planned || seen.DoneBytes >= size || seen.Bytes != size || seen.LeftSeconds == nil {
		t.Errorf("of a file under way it told %+v", seen)
	}
}

// A disk that is not mounted is named in the run's event and in what is noted of it; another
// source than the mirror's fails the run before it begins, as a refusal.
func TestWhatIsNotMountedIsSeen(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", Mode: drill.MirrorMirror, From: "dir:DIR/src", To: "dir:DIR/dst"})
	src, disk := filepath.Join(w.dir, "src"), filepath.Join(w.dir, "src/disk")
	must(t, os.MkdirAll(disk, 0o755))
	must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { _ = unix.Unmount(disk, 0) }) // if it still is
	w.tree("src", 3)
	w.tree("src/disk", 2)
	w.start()
	var seq uint64
	finished := func() (e fleet.Event) {
		t.Helper()
		w.ask("out", "{}")
		e, seq = w.await("out", seq, fleet.KindFinished)
		return e
	}
	noted := func(want string) {
		t.Helper()
		if l, known, err := runlog.Read(filepath.Join(w.dir, "state", "out")); err != nil || !known || l.Failure == nil || !strings.Contains(l.Failure.Problem, want) {
			t.Errorf("noted %+v, %v, %v", l, known, err)
		}
	}
	if e := finished(); !e.Result.Whole {
		t.Fatalf("%+v", e.Result)
	}
	must(t, unix.Unmount(disk, 0))
	const mount = `another file system, or none, at "disk" in the source`
	for range 3 {
		if e := finished(); e.Result.Whole || !strings.Contains(strings.Join(e.Result.Problems, "\n"), mount) {
			t.Errorf("%+v", e.Result)
		}
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "dst/disk/*/*")); err != nil || len(left) != 2 {
		t.Errorf("left is %q, %v", left, err)
	}
	noted(mount)

	must(t, os.Rename(src, src+".away"))
	w.tree("src", 3)
	w.ask("out", "{}")
	e, _ := w.await("out", seq, fleet.KindFailed, fleet.KindFinished)
	const place = "src is not the place that the mirror was set up with"
	if e.Fault != job.FaultRefused || !strings.Contains(e.Reason, place) {
		t.Errorf("%+v", e)
	}
	noted(place)
}
