package job

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// disk is a file system of its own, which is not always mounted where it should be.
type disk struct {
	testing.TB
	own, at string
	there   bool
}

func newDisk(t testing.TB, at string) *disk {
	t.Helper()
	d := &disk{TB: t, own: t.TempDir(), at: at}
	must(t, unix.Mount("tmpfs", d.own, "tmpfs", 0, "size=16m,mode=755"))
	t.Cleanup(func() {
		d.unmount()
		must(t, unix.Unmount(d.own, 0))
	})
	d.mount()
	return d
}

func (d *disk) mount() {
	d.Helper()
	must(d, os.MkdirAll(d.at, 0o755))
	must(d, unix.Mount(d.own, d.at, "", unix.MS_BIND, ""))
	d.there = true
}

func (d *disk) unmount() {
	d.Helper()
	if d.there {
		must(d, unix.Unmount(d.at, 0))
	}
	d.there = false
}

// diskWorld is a mirror with a disk below one of its roots.
type diskWorld struct {
	*world
	side plan.Side
	disk *disk
}

// withDisk makes a mirror of 40 files beside a disk, which is mounted on a side, and 8 on it,
// and runs it.
func withDisk(t testing.TB, mode string, side plan.Side, intoBucket bool) *diskWorld {
	t.Helper()
	w := &diskWorld{world: between(t, mode, intoBucket), side: side}
	if mode == drill.MirrorTwoWay && !intoBucket {
		w.mirror.KeepDeleted = event.Duration(time.Hour)
	}
	w.disk = newDisk(t, filepath.Join([]string{w.from, w.to}[side], "disk"))
	for i := range 40 {
		w.write(fmt.Sprintf("f%02d", i), "beside")
	}
	for i := range 8 {
		w.write(fmt.Sprintf("disk/d%d/%d", i%2, i), "on the disk")
	}
	w.whole()
	return w
}

// all counts what the side across from the disk's holds.
func (w *diskWorld) all() int64 {
	w.Helper()
	var n int64
	w.with(func(j *Job) {
		for e, err := range j.places[w.side.Other()].Entries(w.Context(), j.listOptions()) {
			must(w, err)
			if e.Kind == entry.File {
				n++
			}
		}
	})
	return n
}

// kept makes runs that must keep what lay on the disk, and say which one it is.
func (w *diskWorld) kept(runs int) {
	w.Helper()
	for i := range runs {
		for _, dry := range []bool{true, false} {
			res := w.sync(SyncOptions{DryRun: dry, Check: []engine.Check{engine.CheckAuto, engine.CheckState, engine.CheckListing}[i%3]})
			if n := w.all(); n != 48 || res.Whole() {
				w.Fatalf("run %d: %d files are left, of 48: %+v", i, n, res.Report)
			}
			if r := res.Refusals; len(r) != 1 || r[0].Guard != plan.GuardMount || !strings.Contains(r[0].Value, fmt.Sprintf(`at "disk" in the %s`, w.side)) {
				w.Fatalf("run %d: it was not told: %v", i, r)
			}
		}
	}
}

// What lay on a disk that is not mounted, or where another one is, is deleted nowhere, until
// somebody says that it is meant.
func TestADiskThatIsNotMountedDeletesNothing(t *testing.T) {
	for name, happens := range map[string]func(w *diskWorld){
		"not mounted":    func(*diskWorld) {},
		"no mount point": func(w *diskWorld) { must(w, os.RemoveAll(w.disk.at)) },
		"another disk":   func(w *diskWorld) { newDisk(w, w.disk.at) },
	} {
		for _, c := range []struct {
			mode       string
			side       plan.Side
			intoBucket bool
		}{
			{drill.MirrorMirror, plan.Source, false}, {drill.MirrorMirror, plan.Source, true},
			{drill.MirrorTwoWay, plan.Source, true}, {drill.MirrorTwoWay, plan.Dest, false},
		} {
			t.Run(fmt.Sprintf("%s, %s, into bucket %v", name, c.mode, c.intoBucket), func(t *testing.T) {
				w := withDisk(t, c.mode, c.side, c.intoBucket)
				w.mirror.Deletes.Scans = 2
				w.disk.unmount()
				happens(w)
				w.kept(3)
				if res := w.sync(SyncOptions{AcceptPlaces: true}); !res.Whole() || w.all() != 48 {
					t.Errorf("accepted: %d files, %+v", w.all(), res.Report)
				}
				if w.whole(); w.all() != 40 {
					t.Errorf("after it was accepted: %d files", w.all())
				}
			})
		}
	}
}

// Once the disk is back nothing has happened; what is gone from it is deleted, after as many
// runs as ever.
func TestADiskIsMountedAgain(t *testing.T) {
	w := withDisk(t, drill.MirrorMirror, plan.Source, false)
	w.mirror.Deletes.Scans = 2
	w.disk.unmount()
	w.kept(2)
	w.disk.mount()
	if res := w.whole(); res.Done[plan.Put] > 0 || res.Done[plan.Keep] > 0 {
		t.Errorf("%+v", res.Report)
	}
	must(t, os.RemoveAll(filepath.Join(w.disk.at, "d0")))
	if w.whole(); w.all() != 48 {
		t.Errorf("%d files are left after one run", w.all())
	}
	if w.whole(); w.all() != 44 {
		t.Errorf("%d files are left after two", w.all())
	}
}

// What was accepted is refused for its place no more, even if it was missing before and
// another guard held it back when it was accepted.
func TestWhatIsAcceptedWhereItIsNotMounted(t *testing.T) {
	w := withDisk(t, drill.MirrorMirror, plan.Source, false)
	w.mirror.Deletes = drill.MirrorDeletes{Scans: 2, MostPercent: 1}
	must(t, os.RemoveAll(filepath.Join(w.disk.at, "d0")))
	w.whole()
	w.disk.unmount()
	w.sync(SyncOptions{AcceptPlaces: true})
	for range 3 {
		for _, r := range w.sync(SyncOptions{}).Refusals {
			if r.Guard != plan.GuardPercent {
				t.Errorf("it was accepted: %v", r)
			}
		}
	}
}

// A mirror that is to leave other file systems out, and was not before, deletes of them no
// more than of what a filter leaves out.
func TestWhatIsLeftOutFromNowOnIsNotDeleted(t *testing.T) {
	for _, mode := range []string{drill.MirrorMirror, drill.MirrorTwoWay} {
		for name, leave := range map[string]func(*drill.Mirror, bool){
			"one file system": func(m *drill.Mirror, out bool) { m.OneFileSystem = out },
			"a filter": func(m *drill.Mirror, out bool) {
				if m.Filter = nil; out {
					m.Filter = []string{"- /disk/"}
				}
			},
		} {
			w := withDisk(t, mode, plan.Source, mode == drill.MirrorTwoWay)
			leave(&w.mirror, true)
			for range 3 {
				w.whole()
			}
			leave(&w.mirror, false)
			if n := w.all(); n != 48 {
				t.Errorf("%s, %s: %d files are left", mode, name, n)
			}
			if res := w.whole(); res.Done[plan.Put] > 0 {
				t.Errorf("%s, %s: %+v", mode, name, res.Report)
			}
		}
	}
}
