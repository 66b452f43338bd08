package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// A run that gives up on a full disk vouches for what it copied and deletes nothing, and
// the next one goes on.
func TestARunThatGivesUpRemembersWhatItDid(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	must(t, unix.Mount("tmpfs", w.to, "tmpfs", 0, "size=64m,nr_inodes=200"))
	t.Cleanup(func() { must(t, unix.Unmount(w.to, unix.MNT_DETACH)) })
	w.write("old", "content")
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "old")))
	const n = 3000
	for i := range n {
		w.write(fmt.Sprintf("b/f%04d", i), "content")
	}
	j, err := w.env.OpenRun(t.Context(), w.mirror, false)
	must(t, err)
	res, err := j.Sync(t.Context(), SyncOptions{})
	must(t, j.Close(t.Context()))
	gave, ok := errors.AsType[*engine.GaveUpError](err)
	copied := res.Done[plan.Put]
	if !ok || !errors.Is(err, unix.ENOSPC) || copied == 0 || res.NotTried < n/2 || copied+res.Failed+res.NotTried != n || res.HeldBack != 1 || res.Whole() {
		t.Fatalf("got %+v, %v: %d copied, %d failed, %d not tried, %d held back", gave, err, copied, res.Failed, res.NotTried, res.HeldBack)
	}
	if entries := res.Root.Root.Entries; entries != copied+2 {
		t.Errorf("the manifest has %d entries, and %d were copied", entries, copied)
	}
	if _, err := os.Stat(filepath.Join(w.to, "old")); err != nil {
		t.Errorf("what was to be deleted: %v", err)
	}
	must(t, unix.Mount("", w.to, "", unix.MS_REMOUNT, "size=64m,nr_inodes=10000"))
	if res := w.whole(); res.Done[plan.Put] != n-copied || res.Done[plan.Delete] != 1 {
		t.Errorf("the next run: %+v", res.Report)
	}
	if v := w.verified(plan.Dest, proof.L4); v.differs() {
		t.Errorf("got %+v", v.Verdict)
	}
}

// asNobody does something with the rights of a user whom nothing belongs to.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, unix.Setfsuid(65534))
	defer func() { must(t, unix.Setfsuid(0)) }()
	do()
}

// A dry run knows of a directory that it could not be written to, and says of a bucket that
// nobody knows.
func TestADryRunSaysWhatCouldNotBeWritten(t *testing.T) {
	open, closed := t.TempDir(), filepath.Join(t.TempDir(), "closed")
	must(t, errors.Join(os.Mkdir(closed, 0o755), os.Chmod(open, 0o777), os.Chmod(filepath.Dir(closed), 0o755), os.Chmod(filepath.Dir(filepath.Dir(closed)), 0o755)))
	must(t, os.Chown(closed, 12, 34)) // as root owns what this process does
	for path, want := range map[string]error{
		open: nil, filepath.Join(open, "made/later"): nil,
		closed: unix.EACCES, filepath.Join(closed, "made/later"): unix.EACCES,
	} {
		var got error
		asNobody(t, func() { got = mayChange(path) })
		if got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	w := between(t, drill.MirrorMirror, false)
	w.mirror.To = "dir:" + closed
	w.with(func(j *Job) {
		asNobody(t, func() {
			if _, err := j.couldWrite([2]bool{plan.Dest: true}); !errors.Is(err, unix.EACCES) || !errors.Is(err, ErrUnwritable) || !strings.Contains(err.Error(), "give the mirror the right to write there") {
				t.Errorf("got %v", err)
			}
			if _, err := j.couldWrite([2]bool{}); err != nil {
				t.Errorf("with nothing to do: %v", err)
			}
			j.spec.at[plan.Dest].Path = filepath.Join(closed, "made/later") // which a run could not begin to make
			if _, err := j.couldWrite([2]bool{plan.Dest: true}); !errors.Is(err, unix.EACCES) || errors.Is(err, ErrUnwritable) {
				t.Errorf("of what is not there yet: %v", err)
			}
		})
	})
	must(t, os.Chown(closed, 0, 0))
	asNobody(t, func() {
		if err := mayChange(closed); err != nil {
			t.Errorf("of a directory of its own: %v", err)
		}
	})
	for _, bucket := range []bool{false, true} {
		w := between(t, drill.MirrorMirror, bucket)
		w.write("a", "x")
		dry := w.sync(SyncOptions{DryRun: true})
		if len(dry.Untried) > 0 != bucket || bucket && dry.Untried[0] != w.mirror.To {
			t.Errorf("bucket %t: untried %q", bucket, dry.Untried)
		}
		if res := w.whole(); res.Untried != nil {
			t.Errorf("a real run: untried %q", res.Untried)
		}
		if dry = w.sync(SyncOptions{DryRun: true}); dry.Untried != nil {
			t.Errorf("with nothing to do: untried %q", dry.Untried)
		}
	}
}
