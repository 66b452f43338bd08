package zfs

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
)

// TestOnlyWhatIsAllowedCanBeBroken: each of these is one step too far.
func TestOnlyWhatIsAllowedCanBeBroken(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	r.put(t, "precious", []byte("x"))
	if err := os.Symlink("../precious", filepath.Join(r.root(), "victims", "link")); err != nil {
		t.Fatal(err)
	}
	foreign := r.openWith(t, r.edit(t, func(c map[string]any) { c["breakableVdevs"] = r.Vdevs("alone") }))
	alone := r.openWith(t, r.edit(t, func(c map[string]any) {
		c["pool"], c["dataset"], c["breakableVdevs"] = "alone", "alone", r.Vdevs("alone")
	}))
	for name, try := range map[string]struct {
		pool   *pool
		fault  string
		params string
		says   string
	}{
		"another file":        {p, FaultCorruptVdev, `{"file":"precious"}`, "breakableFiles"},
		"a namesake":          {p, FaultCorruptVdev, `{"file":"victimsX/file"}`, "breakableFiles"},
		"a way out":           {p, FaultCorruptVdev, `{"file":"victims/../precious"}`, "without empty parts"},
		"a link":              {p, FaultCorruptVdev, `{"file":"victims/link"}`, ""},
		"a directory":         {p, FaultCorruptVdev, `{"file":"victims"}`, "one file"},
		"nothing there":       {p, FaultCorruptVdev, `{"file":"victims/none"}`, "no file"},
		"another disk":        {p, FaultOfflineVdev, `{"vdev":"/dev/sda"}`, "breakableVdevs"},
		"too many canaries":   {p, FaultCorruptVdev, `{"canaries":65}`, "1 to 64"},
		"a foreign pool's":    {foreign, FaultOfflineVdev, `{}`, "no disk of the pool"},
		"a pool's only disk":  {alone, FaultOfflineVdev, `{}`, "nothing mirrors"},
		"blocks of such disk": {alone, FaultCorruptVdev, `{"file":"victims/file"}`, "nothing mirrors"},
	} {
		plan, err := try.pool.Plan(t.Context(), target.Operation{Drill: testDrill, Step: "x", Name: try.fault, Params: json.RawMessage(try.params)})
		if err == nil || !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: %v, planned %+v", name, err, plan)
		}
	}
}

// TestPoolThatIsNotWellIsLeftAlone: whatever is wrong with it, a drill does not add to
// it, also when it became so after the plan.
func TestPoolThatIsNotWellIsLeftAlone(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	op := target.Operation{Drill: testDrill, Step: "x", Name: FaultCorruptVdev, Params: raw(t, map[string]any{"file": r.victim}), Limit: time.Minute, Fence: 1}
	planned, err := p.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		if _, err := p.Plan(t.Context(), op); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), why) {
			t.Errorf("planned on a pool that is not well: %v, want %s", err, why)
		}
		if _, err := p.Do(t.Context(), op, planned); !errors.Is(err, ErrUnfit) {
			t.Errorf("done on a pool that is not well: %v, want %s", err, why)
		}
		for i := range 2 {
			if err := r.damaged(i)(t.Context()); err == nil {
				t.Errorf("disk %d was hit", i)
			}
		}
	}
	vdevs := r.Vdevs("tank")
	r.do(t, "zpool", "offline", "tank", vdevs[1])
	refused("OFFLINE")
	r.do(t, "zpool", "online", "tank", vdevs[1])
	eventually(t, "the disk to be back", func() error { return r.healthy(t.Context()) })
	// Somebody else's damage, which a scrub has repaired and nobody has looked at.
	if err := r.Damage("tank", 1, 0, 4<<20); err != nil {
		t.Fatal(err)
	}
	r.do(t, "zpool", "scrub", "tank")
	eventually(t, "the scrub to end", func() error {
		s, err := p.look(t.Context())
		if err == nil && s.running() != "" {
			err = errors.New(s.scan)
		}
		return err
	})
	refused("has read, write and checksum errors")
	r.do(t, "zpool", "clear", "tank")
	// Another fault, on the other side of the mirror.
	_, other, record := do(t, p, "other", FaultOfflineVdev, map[string]any{"vdev": vdevs[1]})
	refused("not undone")
	mend(t, p, other, record)
	if _, err := p.Do(t.Context(), op, planned); err != nil {
		t.Errorf("on a pool that is well: %v", err)
	}
	mend(t, p, op, planned.Undo)
}

// TestWhatWasWrittenSinceThePlanIsNotHit: the plan's places belong to something else.
func TestWhatWasWrittenSinceThePlanIsNotHit(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	op := target.Operation{Drill: testDrill, Step: "x", Name: FaultCorruptVdev, Params: raw(t, map[string]any{"file": r.victim}), Limit: time.Minute}
	plan, err := p.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := readRecord(plan.Undo)
	if err != nil {
		t.Fatal(err)
	}
	rec.Spots[1].Sum = strings.Repeat("0", 64)
	if _, err := p.Do(t.Context(), op, target.Plan{Undo: raw(t, rec)}); !errors.Is(err, errForeign) {
		t.Errorf("foreign blocks: %v", err)
	}
	for name, bad := range map[string]int64{"a label": 256 << 10, "the last label": 128<<20 - 128<<10} {
		rec.Spots[1].At = bad
		if _, err := p.Do(t.Context(), op, target.Plan{Undo: raw(t, rec)}); err == nil {
			t.Errorf("%s was damaged", name)
		}
	}
	if err := r.healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFaultWithoutCanariesIsPlannedAndNotDone: a drill is planned before its probes
// begin. At its turn, or in a drill that writes none, it is refused before it is said to
// be done.
func TestFaultWithoutCanariesIsPlannedAndNotDone(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	op := target.Operation{Drill: testDrill, Step: "x", Name: FaultCorruptVdev, Limit: time.Minute}
	if _, err := p.Plan(t.Context(), op); err == nil || !strings.Contains(err.Error(), "write probe") {
		t.Errorf("planned at its turn: %v", err)
	}
	early := op
	early.CanariesToCome = true
	plan, err := p.Plan(t.Context(), early)
	if err != nil || len(plan.Parts) == 0 {
		t.Fatalf("%+v, %v", plan, err)
	}
	if _, err := p.Do(t.Context(), op, plan); err == nil || !strings.Contains(err.Error(), "write probe") {
		t.Errorf("done: %v", err)
	}
	if got := mend(t, p, op, plan.Undo); !strings.Contains(got, "nothing was to be done") {
		t.Error(got)
	}
}

func TestAReplacedConductorIsRefused(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	old := target.Operation{Drill: testDrill, Step: "x", Name: FaultCorruptVdev, Params: raw(t, map[string]any{"file": r.victim}), Fence: 1, Limit: time.Minute}
	plan, err := p.Plan(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	newer := old
	newer.Fence = 2
	if _, err := p.Undo(t.Context(), newer, plan.Undo); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Do(t.Context(), old, plan); !errors.As(err, new(*control.FencedError)) {
		t.Errorf("the fault: %v", err)
	}
	if _, err := p.Undo(t.Context(), old, plan.Undo); !errors.As(err, new(*control.FencedError)) {
		t.Errorf("the undo: %v", err)
	}
	if err := r.healthy(t.Context()); err != nil {
		t.Errorf("it was hit: %v", err)
	}
}

func TestAnotherPoolIsRefused(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	op := target.Operation{Drill: testDrill, Step: "x", Name: FaultOfflineVdev, Fence: 1, Limit: time.Minute}
	plan, err := p.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := readRecord(plan.Undo)
	if err != nil {
		t.Fatal(err)
	}
	rec.GUID = "1234567890"
	plan.Undo = raw(t, rec)
	if _, err := p.Do(t.Context(), op, plan); !errors.Is(err, ErrFence) {
		t.Errorf("the fault: %v", err)
	}
	if _, err := p.Undo(t.Context(), op, plan.Undo); !errors.Is(err, ErrFence) {
		t.Errorf("the undo: %v", err)
	}
}

// TestCrashOfZFSUnderAFault: it is undone once ZFS is back, by another process, and
// until then the pool is known by its disks.
func TestCrashOfZFSUnderAFault(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	was, err := p.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, op, record := do(t, p, "damage", FaultCorruptVdev, map[string]any{"file": r.victim})
	for range 10 {
		r.sync(t) // an import reads, and so repairs, what was written last
	}
	if err := syscall.Kill(r.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The hanging one keeps its namespace, so that its disks can still be asked.
	if id, err := p.Identify(t.Context()); err != nil || id != was {
		t.Errorf("a ZFS that hangs is %q, %v; it was %q", id, err, was)
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.config = r.edit(t, func(c map[string]any) { c["control"] = map[string]any{"kind": "exec", "argv": r.Argv()} })
	r.pool = r.open(t)
	if got := mend(t, r.pool, op, record); !strings.Contains(got, "scrubbed") {
		t.Errorf("undo: %s", got)
	}
	if err := r.healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHangingFileSystemEndsNoAttemptLate: and none waits for another.
func TestHangingFileSystemEndsNoAttemptLate(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	r.write(t, p, 3)
	writes := openProbe(t, p, spec("writes", ProbeWrite, target.LaneFresh))
	if err := syscall.Kill(r.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for seq := range int64(canary.DefaultSlots + 5) {
		if o := writes.Attempt(ctx, 100+seq); o.Result == target.OK || o.Err == nil {
			t.Errorf("attempt %d: %+v", seq, o)
		}
	}
	began := time.Now()
	if err := writes.Close(); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("close: %v after %v", err, time.Since(began))
	}
	if err := syscall.Kill(r.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	again := openProbe(t, p, spec("writes", ProbeWrite, target.LaneFresh))
	eventually(t, "writes to work again", func() error { return attempt(t.Context(), again, 1).Err })
}

// TestUnmountedDatasetTakesNoCanaries: what is below its mountpoint belongs to another
// file system then.
func TestUnmountedDatasetTakesNoCanaries(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	lanes := map[string]target.Probe{}
	for _, lane := range []string{target.LanePooled, target.LaneFresh} {
		lanes[lane] = openProbe(t, p, spec("writes", ProbeWrite, lane))
	}
	r.do(t, "zfs", "umount", testDataset)
	for lane, l := range lanes {
		if o := attempt(t.Context(), l, 1); o.Result != target.Failed || !errors.Is(o.Err, errElsewhere) {
			t.Errorf("lane %s: %+v", lane, o)
		}
	}
	if _, err := p.ReadLedger(t.Context(), spec("writes", ProbeWrite, target.LanePooled), 10); !errors.Is(err, errElsewhere) {
		t.Errorf("the ledger of a dataset that is not mounted: %v", err)
	}
	mustNotPass(t, p, CheckCanaries, event.ResultInconclusive, nil)
	if left, err := os.ReadDir(r.root()); err != nil || len(left) > 0 {
		t.Errorf("%v lies where the dataset should be mounted, %v", left, err)
	}
	r.do(t, "zfs", "mount", testDataset)
	for lane, l := range lanes {
		if o := attempt(t.Context(), l, 2); o.Result != target.OK {
			t.Errorf("lane %s, mounted again: %+v", lane, o)
		}
	}
}

// TestDroppingDisturbsNoAttempt: an attempt that fails drops what its lane keeps while
// others are under way.
func TestDroppingDisturbsNoAttempt(t *testing.T) {
	r := startRig(t)
	l := openProbe(t, r.open(t), spec("writes", ProbeWrite, target.LanePooled)).(*probe)
	var wg sync.WaitGroup
	for seq := range int64(30) {
		wg.Go(func() {
			if o := attempt(t.Context(), l, seq+1); o.Result != target.OK {
				t.Errorf("attempt %d: %+v", seq+1, o)
			}
		})
		l.drop()
	}
	wg.Wait()
}
