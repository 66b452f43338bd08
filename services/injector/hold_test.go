package injector

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

// TestDrillsOfTwoStoresKeepApart: while one has broken a system, another firedrill of this
// machine, with a store of its own, breaks nothing there; afterwards it may.
func TestDrillsOfTwoStoresKeepApart(t *testing.T) {
	locks := filepath.Join(t.TempDir(), "systems")
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
	if st.Abort == nil || st.Abort.Cause != drill.CauseGuard || !strings.Contains(st.Abort.Reason, "another firedrill on this machine drills it: drill "+id) || len(d2.faults) > 0 {
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

// TestLocksAreSharedByAll: what another user has made is taken too, a link is not followed,
// and a drill with two targets of one system has it once.
func TestLocksAreSharedByAll(t *testing.T) {
	dir := t.TempDir()
	s := drill.State{ID: "d-1", Systems: map[string]string{"a": "pg/1", "b": "pg/1"}}
	var h holds
	if err := h.take(dir, s); err != nil || len(h.files) != 1 {
		t.Fatalf("%d files, %v", len(h.files), err)
	}
	path := h.files[0].Name()
	if err := h.release(); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := h.take(dir, s); err != nil {
		t.Errorf("a file that may only be read: %v", err)
	}
	if err := h.release(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(secret, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, path); err != nil {
		t.Fatal(err)
	}
	if err := h.take(dir, s); err == nil {
		t.Error("a link was followed")
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "kept" {
		t.Errorf("what the link led to: %q, %v", b, err)
	}
}
