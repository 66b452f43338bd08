package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// leaveMirrorWork stores, in a state directory where no firedrill runs, all that can be
// asked of the mirror "theirs".
func leaveMirrorWork(t *testing.T, dir string) {
	t.Helper()
	server, b := openStore(t, dir, "")
	defer server.Shutdown()
	defer b.Close()
	for _, subject := range []string{"mirror.req.mallory.theirs", "mirror.req.drill.theirs", "mirror.tick.theirs.sync", "mirror.work.theirs.1-x.1"} {
		if _, err := b.Publish(t.Context(), subject, []byte("{}"), ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestALoneRunLeavesMirrorsAlone: it runs the mirror that is a step of its drill, and
// what lies in its store waits for the next `firedrill up`.
func TestALoneRunLeavesMirrorsAlone(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(data, name) }
	if err := os.Mkdir(at("src"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("src/file"), []byte("wal"), 0o600); err != nil {
		t.Fatal(err)
	}
	inventory := write(t, "inventory.yaml", strings.ReplaceAll(`apiVersion: firedrill/v1
kind: Inventory
spec:
  mirrors:
    - {name: own, from: "dir:DATA/src", to: "dir:DATA/own"}
    - {name: theirs, from: "dir:DATA/src", to: "dir:DATA/theirs", every: 24h}
`, "DATA", data))
	raw, err := os.ReadFile(simDrill(t, "{}", "1m", mend))
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, "keeps.yaml", string(raw)+"      keep: [{name: offsite, mirror: own}]\n")
	leaveMirrorWork(t, dir)
	did := command(t, dir, "run", "--json", "--out", filepath.Join(dir, "out"), "--inventory", inventory, file)
	if did.code == run.BadArguments || did.code == run.Crash {
		t.Fatalf("%+v", did)
	}
	if kept, err := os.ReadFile(at("own/file")); err != nil || string(kept) != "wal" {
		t.Errorf("the step of its drill: %q, %v\n%s", kept, err, did.out)
	}
	if _, err := os.Lstat(at("theirs")); !os.IsNotExist(err) {
		t.Errorf("it ran another mirror: %v", err)
	}
	mirrorWorkIsLeft(t, dir)
	up := start(t, dir, "up", "--listen", "127.0.0.1:0", "--http", "", "--inventory", inventory, "--out", filepath.Join(dir, "out"))
	up.says("firedrill is up")
	awaitMirror(t, dir, "theirs")
	if _, err := os.Stat(at("theirs/file")); err != nil {
		t.Errorf("the next up: %v", err)
	}
	if err := up.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := up.ends(); code != run.OK {
		t.Errorf("up exits with %d:\n%s", code, up.words())
	}
}

// TestAnAbortedLoneRunCallsItsMirrorOff: nobody goes on with what it was bringing up to
// date, so that it does not look as if somebody did.
func TestAnAbortedLoneRunCallsItsMirrorOff(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	src := filepath.Join(data, "src")
	if err := errors.Join(os.Mkdir(src, 0o700), os.WriteFile(filepath.Join(src, "file"), make([]byte, 4<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	inventory := write(t, "inventory.yaml", strings.ReplaceAll(`apiVersion: firedrill/v1
kind: Inventory
spec:
  mirrors:
    - {name: own, from: "dir:DATA/src", to: "dir:DATA/own", bytesPerSecond: 1}
`, "DATA", data))
	raw, err := os.ReadFile(simDrill(t, "{}", "1m", mend))
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, "keeps.yaml", string(raw)+"      keep: [{name: offsite, mirror: own}]\n")
	p := start(t, dir, "run", "--out", filepath.Join(dir, "out"), "--inventory", inventory, file)
	log := filepath.Join(dir, "mirrors", "own")
	awaitBegun(t, log)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.ends()
	l, known, err := runlog.Read(log)
	if err != nil || !known || l.Last == nil || l.Last.Ended.IsZero() || !strings.Contains(l.Last.Problem, fleet.ErrCancelled.Error()) {
		t.Errorf("the log: %+v, %v, %v\n%s", l.Last, known, err, p.words())
	}
}

// awaitBegun waits until a mirror's log says that a run began.
func awaitBegun(t *testing.T, log string) {
	t.Helper()
	limit, tick := time.NewTimer(time.Minute), time.NewTicker(20*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for {
		if _, known, err := runlog.Read(log); err != nil {
			t.Fatal(err)
		} else if known {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("the mirror's run does not begin")
		}
	}
}

// mirrorWorkIsLeft fails the test unless all of leaveMirrorWork is as it was.
func mirrorWorkIsLeft(t *testing.T, dir string) {
	t.Helper()
	server, b := openStore(t, dir, "")
	defer server.Shutdown()
	defer b.Close()
	for _, who := range []string{"mallory", "drill"} {
		if _, waits, err := b.MirrorRequested(t.Context(), who, "theirs"); err != nil || !waits {
			t.Errorf("the request by %s waits: %v, %v", who, waits, err)
		}
	}
	if waits, err := b.MirrorWorkWaits(t.Context(), "theirs", "1-x", 1); err != nil || !waits {
		t.Errorf("the work waits: %v, %v", waits, err)
	}
	if last, _, err := b.MirrorRequested(t.Context(), "schedule", "theirs"); err != nil || last.Seq != 0 {
		t.Errorf("the tick was taken, as request %d: %v", last.Seq, err)
	}
	if at, err := b.MirrorTimes(t.Context(), bus.MirrorSchedule{Mirror: "theirs", What: "sync"}); err != nil || at.Spec != "" {
		t.Errorf("it was scheduled: %+v, %v", at, err)
	}
	if rec, told, err := b.LastMirror(t.Context(), "theirs"); err != nil || told {
		t.Errorf("it is answered: %s, %v", rec.Data, err)
	}
	if dead, err := b.DeadLetters(t.Context()); err != nil || len(dead) != 0 {
		t.Errorf("dead letters: %+v, %v", dead, err)
	}
}

// awaitMirror waits until a run of a mirror has ended well.
func awaitMirror(t *testing.T, dir, mirror string) {
	t.Helper()
	followMirror(t, dir, mirror, func(r bus.Record) error {
		switch r.Kind {
		case fleet.KindFinished:
			return bus.Stop
		case fleet.KindWaiting, fleet.KindStarted, fleet.KindProgress:
			return nil
		}
		return fmt.Errorf("%s: %s", r.Kind, r.Data)
	})
}

// followMirror calls until with all that is told of a mirror, which has to end it by bus.Stop
// within a minute.
func followMirror(t *testing.T, dir, mirror string, until func(bus.Record) error) {
	t.Helper()
	s, err := (&app{stateDir: dir, logLevel: "error"}).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.bus.FollowMirror(ctx, mirror, 0, until); err != nil {
		t.Fatalf("mirror %s: %v", mirror, err)
	}
}
