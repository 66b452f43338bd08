package injector

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// TestDrillsOfTwoStoresKeepApart: while one has broken a system, another firedrill of this
// machine, with a store of its own, breaks nothing there; afterwards it may.
func TestDrillsOfTwoStoresKeepApart(t *testing.T) {
	locks := t.TempDir()
	inject := func(r *rig, d *fakeDriver) {
		r.injectWith(Config{Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Clock: clock.System(), Locks: locks}, "i1")
	}
	r1, r2, d1, d2 := newRig(t), newRig(t), newFakeDriver(), newFakeDriver()
	broken, mend := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d1.do = func(context.Context, target.Operation) error {
		once.Do(func() { close(broken) })
		<-mend
		return nil
	}
	inject(r1, d1)
	inject(r2, d2)
	id := r1.accepted(fakeDrill)
	var first drill.State
	var ended sync.WaitGroup
	ended.Go(func() { first = r1.outcome(r1.playOthers(id, nil), d1) })
	<-broken
	st := r2.outcome(r2.playOthers(r2.accepted(fakeDrill), nil), d2)
	if st.Abort == nil || st.Abort.Cause != drill.CauseGuard || !strings.Contains(st.Abort.Reason, "another firedrill on this machine drills it (drill "+id+" of ") || len(d2.faults) > 0 {
		t.Errorf("beside it: abort %+v, done %v", st.Abort, d2.faults)
	}
	close(mend)
	ended.Wait()
	if first.Abort != nil {
		t.Errorf("the first one: %+v", first.Abort)
	}
	if st := r2.outcome(r2.playOthers(r2.accepted(fakeDrill), nil), d2); st.Abort != nil || len(d2.faults) == 0 {
		t.Errorf("after it: abort %+v, done %v", st.Abort, d2.faults)
	}
}

// TestWhoIsTakenUpKeepsApart: an injector that takes up a drill breaks nothing that another
// firedrill of this machine has begun to drill meanwhile.
func TestWhoIsTakenUpKeepsApart(t *testing.T) {
	locks := t.TempDir()
	inject := func(r *rig, d *fakeDriver) (stop func()) {
		return r.injectWith(Config{Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Clock: clock.System(), Locks: locks}, "i1")
	}
	r1, r2, d1, d2 := newRig(t), newRig(t), newFakeDriver(), newFakeDriver()
	broken, mend := make(chan struct{}), make(chan struct{})
	var once, asked sync.Once
	d2.do = func(context.Context, target.Operation) error {
		once.Do(func() { close(broken) })
		<-mend
		return nil
	}
	stop := inject(r1, d1)
	inject(r2, d2)
	id := r1.accepted(strings.Replace(fakeDrill, "spec:", "spec:\n  guards: {approval: true}", 1))
	var second drill.State
	var ended sync.WaitGroup
	first := r1.outcome(r1.playOthers(id, func(s bus.Stored) {
		if s.Event.Type != event.TypeApprovalRequested {
			return
		}
		asked.Do(func() {
			stop()
			other := r2.accepted(fakeDrill)
			ended.Go(func() { second = r2.outcome(r2.playOthers(other, nil), d2) })
			<-broken
			inject(r1, d1)
			if err := r1.bus.Command(t.Context(), id, "approve", []byte(`{"by":"boss"}`)); err != nil {
				t.Error(err)
			}
		})
	}), d1)
	if a := first.Abort; a == nil || a.Cause != drill.CauseGuard || !strings.Contains(a.Reason, "another firedrill on this machine drills it") || len(d1.faults) > 0 {
		t.Errorf("the one that was taken up: abort %+v, done %v", a, d1.faults)
	}
	close(mend)
	ended.Wait()
	if second.Abort != nil || len(d2.faults) == 0 {
		t.Errorf("the other one: abort %+v, done %v", second.Abort, d2.faults)
	}
}

// TestLocksAreSharedByAll: what another user has made is taken too, and a drill with two
// targets of one system has it once.
func TestLocksAreSharedByAll(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	umask := syscall.Umask(0o077)
	defer syscall.Umask(umask)
	s, systems := drill.State{ID: "d-1"}, map[string]string{"a": "pg/1", "b": "pg/1"}
	var h, other holds
	if err := h.take(dir, s, systems, log); err != nil || len(h.files) != 1 {
		t.Fatalf("%d files, %v", len(h.files), err)
	}
	path := h.files[0].Name()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("another user cannot lock it: %v, %v", info.Mode(), err)
	}
	held, ok := errors.AsType[*heldError](other.take(dir, s, systems, log))
	if !ok || !strings.HasPrefix(held.holder, "drill d-1 of ") {
		t.Errorf("a second holder: %+v", held)
	}
	if err := h.release(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || len(b) > 0 {
		t.Errorf("after the drill it says %q, %v", b, err)
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := other.take(dir, s, systems, log); err != nil || len(other.files) != 1 {
		t.Errorf("a file that may only be read: %d files, %v", len(other.files), err)
	}
	if err := other.release(); err != nil {
		t.Error(err)
	}
}

// TestOnlyPlainFilesAreLocked: whatever somebody laid there instead is left alone, and no
// reason to wait, or to keep from a drill.
func TestOnlyPlainFilesAreLocked(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(secret, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, lay := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(secret, path) },
		"hard link": func(path string) error { return os.Link(secret, path) },
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"directory": func(path string) error { return os.Mkdir(path, 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
			var h holds
			if err := h.take(dir, drill.State{ID: "d-1"}, map[string]string{"a": "pg/1"}, log); err != nil {
				t.Fatal(err)
			}
			path := h.files[0].Name()
			if err := errors.Join(h.release(), os.Remove(path), lay(path)); err != nil {
				t.Fatal(err)
			}
			if err := h.take(dir, drill.State{ID: "d-1"}, map[string]string{"a": "pg/1"}, log); err != nil || len(h.files) > 0 {
				t.Errorf("%d files, %v", len(h.files), err)
			}
			if b, err := os.ReadFile(secret); err != nil || string(b) != "kept" {
				t.Errorf("what it led to: %q, %v", b, err)
			}
		})
	}
	var h holds
	if err := h.take(filepath.Join(t.TempDir(), "none"), drill.State{}, map[string]string{"a": "pg/1"}, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("where nothing can be locked: %v", err)
	}
}
