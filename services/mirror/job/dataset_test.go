package job

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// zfsWorld is a mirror out of a dataset.
type zfsWorld struct {
	*world
	lab *lab.ZFS
}

// TestDatasets uses one ZFS for all, one after the other.
func TestDatasets(t *testing.T) {
	z, err := lab.StartZFS(t.Context(), lab.ZFSOptions{Dir: filepath.Join(enginetest.Memory(t), "zfs"), Pools: []lab.ZFSPool{{Name: "tank"}}})
	must(t, err)
	t.Cleanup(func() { must(t, z.Stop()) })
	for _, c := range []struct {
		name string
		do   func(*zfsWorld)
	}{
		{"kept", keepsOne},
		{"edited", edited},
		{"slow", editedMeanwhile},
		{"failed", failsAndLater},
		{"lost", lostSnapshot},
		{"replica", leavesReplicas},
		{"children", leavesChildren},
		{"parent", aboveAnother},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &zfsWorld{world: &world{TB: t, env: newEnv(t), to: t.TempDir()}, lab: z}
			// Only what is mounted in its directory is seen here.
			w.env.StateDir = w.state(c.name)
			w.env.zfs = control.Config{Kind: control.KindExec, Argv: z.Argv()}
			dataset := "tank/" + c.name
			w.zfs("create", dataset)
			w.from = filepath.Join(z.Mountpoint("tank"), c.name)
			w.mirror = drill.Mirror{Name: "m", Mode: drill.MirrorMirror, From: "zfs:" + dataset, To: "dir:" + w.to,
				Deletes: drill.MirrorDeletes{Scans: 1, MostPercent: 100}}
			c.do(w)
		})
	}
}

// state is a directory for states in which readings can be mounted.
func (w *zfsWorld) state(name string) string {
	return filepath.Join(w.lab.Dir, "state", name)
}

// zfs does what an administrator would.
func (w *zfsWorld) zfs(args ...string) string {
	w.Helper()
	argv := append(append(w.lab.Argv(), "zfs"), args...)
	out, err := exec.CommandContext(w.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		w.Fatalf("zfs %v: %v: %s", args, err, out)
	}
	return string(out)
}

// snapshots are those of the dataset and of all below it.
func (w *zfsWorld) snapshots() []string {
	w.Helper()
	return strings.Fields(w.zfs("list", "-H", "-r", "-t", "snapshot", "-o", "name", strings.TrimPrefix(w.mirror.From, "zfs:")))
}

// one fails unless there is the snapshot of the last run, and nothing else of ours.
func (w *zfsWorld) one() string {
	w.Helper()
	all := w.snapshots()
	if len(all) != 1 || !strings.HasPrefix(all[0], strings.TrimPrefix(w.mirror.From, "zfs:")+"@firedrill-read-m-") {
		w.Fatalf("snapshots: %q", all)
	}
	if below := w.zfs("list", "-H", "-r", "-t", "filesystem", "-o", "name", strings.TrimPrefix(w.mirror.From, "zfs:")); strings.Count(below, "\n") != 1 {
		w.Fatalf("datasets: %s", below)
	}
	return all[0]
}

func (w *zfsWorld) same() {
	w.Helper()
	if out, err := exec.CommandContext(w.Context(), "diff", "-r", "--no-dereference", w.from, w.to).CombinedOutput(); err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if v := w.verified(side, proof.L4); !v.Verified() {
			w.Fatalf("%s: %v", side, v)
		}
	}
}

// leavesReplicas alone: what is received next has to follow on what was received last.
func leavesReplicas(w *zfsWorld) {
	dataset := strings.TrimPrefix(w.mirror.From, "zfs:")
	w.write("a", "one")
	w.whole()
	w.one()
	// zfs-fuse mounts it for writing all the same, and says so.
	w.zfs("unmount", dataset)
	w.zfs("set", "readonly=on", dataset)
	for range 2 { // also with what an earlier run has left
		if res := w.whole(); res.Unasked != "" {
			w.Errorf("%+v", res)
		}
		if left := w.snapshots(); len(left) > 0 {
			w.Errorf("it has left %q", left)
		}
	}
	if v := w.verified(plan.Source, proof.L4); !v.Verified() {
		w.Error(v)
	}
}

// aboveAnother dataset, which is not mounted or has another one mounted in its place, the
// mirror of a directory deletes nothing of what is on that.
func aboveAnother(w *zfsWorld) {
	w.mirror.From = "dir:" + w.from
	dataset := "tank/parent/child"
	w.zfs("create", dataset)
	w.zfs("create", "-o", "mountpoint=none", "tank/parent/other")
	w.write("a", "beside")
	w.write("child/b", "below")
	w.whole()
	kept := func(what string) {
		w.Helper()
		for range 2 {
			if res := w.sync(SyncOptions{}); len(res.Refusals) != 1 || res.Refusals[0].Guard != plan.GuardMount || !strings.Contains(res.Refusals[0].Value, `"child"`) || files(w, w.to) != 2 {
				w.Errorf("%s: %d files are left: %+v", what, files(w, w.to), res.Report)
			}
		}
	}
	w.zfs("unmount", dataset)
	kept("not mounted")
	w.zfs("set", "mountpoint="+filepath.Join(w.from, "child"), "tank/parent/other")
	kept("another one")
	w.zfs("set", "mountpoint=none", "tank/parent/other")
	w.zfs("mount", dataset)
	if res := w.whole(); res.Done[plan.Put]+res.Done[plan.Keep] > 0 {
		w.Errorf("mounted again: %+v", res.Report)
	}
}

func keepsOne(w *zfsWorld) {
	w.write("a", "one")
	w.write("d/b", "two")
	w.write("d/c", "three")
	if w.sync(SyncOptions{DryRun: true}); len(w.snapshots()) > 0 {
		w.Fatalf("a dry run left %q", w.snapshots())
	}
	w.whole()
	first := w.one()
	w.same()
	if w.one() != first {
		w.Error("verifying took another snapshot")
	}
	w.write("a", "changed")
	must(w, errors.Join(os.Remove(filepath.Join(w.from, "d/b")), os.Rename(filepath.Join(w.from, "d/c"), filepath.Join(w.from, "e"))))
	if res := w.sync(SyncOptions{DryRun: true}); res.Done[plan.Put] != 2 || w.one() != first {
		w.Errorf("a dry run: %v, %q", res.Done, w.snapshots())
	}
	if res := w.whole(); res.Done[plan.Put] != 2 || res.Done[plan.Delete] != 2 || res.Unasked != "" {
		w.Errorf("%+v", res)
	}
	second := w.one()
	if second == first {
		w.Error("the snapshot did not move on")
	}
	w.same()
	if res := w.whole(); res.Changed || res.Compared[plan.Source] != 0 || w.one() == second {
		w.Errorf("nothing was done: %+v, %q", res, w.snapshots())
	}
	// What a killed run leaves goes.
	third := w.one()
	stray := strings.TrimPrefix(w.mirror.From, "zfs:") + "@firedrill-read-m-stray"
	w.zfs("snapshot", "-o", "firedrill:job=m", stray)
	w.verified(plan.Source, proof.L1)
	if w.one() != third {
		w.Errorf("%q", w.snapshots())
	}
	// So does what another state knew of.
	w.env.StateDir = w.state("another")
	w.whole()
	if w.one() == third {
		w.Error("another state's snapshot was taken for its own")
	}
}

// unseen gives a file another content of the same size such that no time tells. It makes
// a run before each try.
func (w *zfsWorld) unseen(path string, run func()) {
	w.Helper()
	at := func() (st unix.Stat_t) {
		must(w, unix.Stat(filepath.Join(w.from, path), &st))
		return st
	}
	for range 50 {
		w.write(path, "before")
		before := at()
		run()
		w.write(path, "after!")
		// zfs-fuse tells whole seconds.
		if now := at(); now.Ctim == before.Ctim && now.Mtim == before.Mtim && now.Ino == before.Ino {
			return
		}
	}
	w.Fatal("the second always passed")
}

func (w *zfsWorld) copied(path, want string) {
	w.Helper()
	got, err := os.ReadFile(filepath.Join(w.to, path))
	must(w, err)
	if string(got) != want {
		w.Fatalf("%s: %q was copied, not %q", path, got, want)
	}
}

// edited: by the clock of these tests nothing is young, so that nothing but ZFS can tell.
func edited(w *zfsWorld) {
	w.write("b", "untouched")
	w.unseen("a", func() { w.whole() })
	if res := w.whole(); res.Done[plan.Put] != 1 {
		w.Errorf("%+v", res)
	}
	w.copied("a", "after!")
	w.same()
	// Content that is gone without anything being written.
	w.unseen("a", func() { w.whole() })
	w.whole()
	must(w, errors.Join(os.Truncate(filepath.Join(w.from, "a"), 0), os.Truncate(filepath.Join(w.from, "a"), 6)))
	w.whole()
	w.copied("a", "\x00\x00\x00\x00\x00\x00")
	w.same()
}

// editedMeanwhile: what is written after the snapshot is not young any more when a run
// begins that took long to open its places.
func editedMeanwhile(w *zfsWorld) {
	var ahead time.Duration
	w.env.Now = func() time.Time { return time.Now().Add(ahead) }
	w.unseen("a", func() {
		j, err := w.env.OpenRun(w.Context(), w.mirror, false)
		must(w, err)
		ahead += 10 * time.Second
		_, err = j.Sync(w.Context(), SyncOptions{})
		must(w, errors.Join(err, j.Close(w.Context())))
		ahead = 0
	})
	w.zfs("destroy", w.one()) // as its owner may
	w.whole()
	w.copied("a", "after!")
	w.same()
}

// failsAndLater: what was touched and could not be copied is not forgotten.
func failsAndLater(w *zfsWorld) {
	w.unseen("a", func() { w.whole() })
	w.write("other", "x")
	w.mirror.Filter = []string{"- /a"}
	w.whole()
	w.copied("a", "before")
	last := w.one()
	ctx, cancel := context.WithCancel(w.Context())
	j, err := w.env.OpenRun(ctx, w.mirror, false)
	must(w, err)
	cancel()
	if _, err := j.Sync(ctx, SyncOptions{}); !errors.Is(err, context.Canceled) {
		w.Errorf("cancelled: %v", err)
	}
	if must(w, j.Close(ctx)); w.one() != last {
		w.Errorf("a run that failed left %q", w.snapshots())
	}
	w.mirror.Filter = nil
	w.whole()
	w.copied("a", "after!")
	w.same()
}

// lostSnapshot: without it a run has times, and the next one knows more again.
func lostSnapshot(w *zfsWorld) {
	w.write("a", "1")
	w.whole()
	w.zfs("destroy", w.one())
	w.write("a", "22")
	w.whole()
	w.one()
	w.same()
	// Somebody holds it.
	held := w.one()
	w.zfs("hold", "mine", held)
	w.write("a", "333")
	w.whole()
	if all := w.snapshots(); len(all) != 2 || all[0] != held {
		w.Errorf("%q", all)
	}
	w.same()
	w.zfs("release", "mine", held)
	w.whole()
	w.one()
}

// leavesChildren: what lies in a dataset of its own is nothing that the source lacks, and
// nobody believes that it was copied, or looked at.
func leavesChildren(w *zfsWorld) {
	dataset := strings.TrimPrefix(w.mirror.From, "zfs:")
	w.write("a", "one")
	w.write("d/b", "two")
	w.zfs("create", dataset+"/child")
	w.zfs("create", "-o", "mountpoint="+filepath.Join(w.from, "d/other [1]"), dataset+"/moved")
	w.write("child/c", "three")
	w.write("child/e/f", "four")
	w.write("d/other [1]/g", "five")
	// As a mirror out of the directory has left it.
	direct := *w.world
	direct.mirror.From = "dir:" + w.from
	direct.whole()
	want := enginetest.Tree(w, w.to)

	says := func(res Result) {
		w.Helper()
		var keys []string
		for _, a := range res.Unholdable {
			keys = append(keys, a.Key)
			if text := a.Err.Error(); !strings.Contains(text, dataset+"/") || !strings.Contains(text, "--one-file-system") || !strings.Contains(text, "- /"+a.Key[:1]) {
				w.Errorf("%q: %s", a.Key, text)
			}
		}
		if res.Whole() || !slices.Equal(keys, []string{"child", "d/other [1]"}) || res.Done[plan.Unholdable] != 2 {
			w.Errorf("left out: %q; %+v", keys, res.Report)
		}
	}
	w.mirror.Name = "n"
	for _, check := range []engine.Check{engine.CheckAudit, engine.CheckListing, engine.CheckAuto} { // so that hashes are known
		says(w.sync(SyncOptions{Check: check, DryRun: true}))
		says(w.sync(SyncOptions{Check: check}))
		if got := enginetest.Tree(w, w.to); !maps.Equal(got, want) {
			w.Fatalf("there is\n%q\nand was\n%q", got, want)
		}
	}
	compared := func(well bool) {
		w.Helper()
		w.with(func(j *Job) {
			for _, what := range []string{drill.MirrorVerify, drill.MirrorDrift, drill.MirrorAudit} {
				c := Comparison{What: what, Level: proof.L1, Sides: []plan.Side{plan.Source, plan.Dest}}
				got, err := j.Compare(w.Context(), c)
				must(w, err)
				if got.Good() != well || got.Differs() || len(got.Shown) != 2 {
					w.Errorf("%s: %+v", what, got)
				}
				for _, v := range got.Shown {
					all := v.Verdict.Unchecked
					if well != (all.Count == 0) || v.Verdict.Missing.Count+v.Verdict.Extra.Count > 0 {
						w.Errorf("%s: %v", what, v)
					}
					if !well && (all.Count != 2 || all.First[0].Key != "child/" || !strings.Contains(all.First[0].Detail, dataset+"/child")) {
						w.Errorf("%s: %+v", what, all)
					}
				}
			}
		})
	}
	compared(false)
	// Who leaves them out means it, and then as well nothing goes.
	meant := []func(){
		func() { w.mirror.Filter = []string{"- /child/**", filter.Below("d/other [1]")} },
		func() { w.mirror.Filter, w.mirror.OneFileSystem = nil, true },
	}
	for _, mean := range meant {
		mean()
		w.whole()
		w.whole()
		compared(true)
		if got := enginetest.Tree(w, w.to); !maps.Equal(got, want) {
			w.Fatalf("there is\n%q\nand was\n%q", got, want)
		}
	}
	// One alone is not meant by what leaves out the other.
	w.mirror.OneFileSystem, w.mirror.Filter = false, []string{"- /child/", "- /d/other*/g"}
	if res := w.sync(SyncOptions{}); res.Done[plan.Unholdable] != 1 || res.Unholdable[0].Key != "d/other [1]" {
		w.Errorf("%+v", res.Report)
	}
}
