package job

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// What was taken for equal and never read stays counted, also by runs that find nothing to
// do, until one has read it.
func TestWhatNoRunHasReadStaysCounted(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	for _, name := range []string{"a", "d/b"} {
		w.write(name, "the same")
		st, err := os.Stat(filepath.Join(w.from, name))
		must(t, err)
		enginetest.Write(t, w.to, name, "the same")
		must(t, os.Chtimes(filepath.Join(w.to, name), st.ModTime(), st.ModTime()))
	}
	w.write("new", "copied, and so read")
	if res := w.whole(); res.Unread != 2 || res.Done[plan.Put] != 1 || res.New {
		t.Errorf("at first: %d unread, %+v", res.Unread, res)
	}
	for _, check := range []engine.Check{engine.CheckAuto, engine.CheckListing} {
		if res := w.sync(SyncOptions{Check: check}); res.Unread != 2 {
			t.Errorf("check %d: %d unread", check, res.Unread)
		}
	}
	for _, check := range []engine.Check{engine.CheckAudit, engine.CheckAuto} {
		if res := w.sync(SyncOptions{Check: check}); res.Unread != 0 || res.Done[plan.Put] != 0 {
			t.Errorf("check %d: %d unread, %+v", check, res.Unread, res)
		}
	}
}

// A bucket's prefix that nothing lies below is as new as a directory that is not there.
func TestADestinationIsNewOnce(t *testing.T) {
	for _, bucket := range []bool{false, true} {
		w := between(t, drill.MirrorCopy, bucket)
		w.write("a", "a")
		if w.to != "" {
			must(t, os.Remove(w.to))
		}
		for _, o := range []SyncOptions{{DryRun: true}, {}} {
			if res := w.sync(o); !res.New {
				t.Errorf("bucket %v, %+v: not new", bucket, o)
			}
		}
		must(t, os.Remove(filepath.Join(w.from, "a")))
		if res := w.sync(SyncOptions{Check: engine.CheckListing}); res.New {
			t.Errorf("bucket %v: new again", bucket)
		}
	}
}

// What was equal by size and time at first, and too young for its times to tell whether it was
// written since, is read at both places by the next run, and not sent again.
func TestWhatIsYoungAndWasNeverReadIsComparedAndNotSent(t *testing.T) {
	for name, bucket := range map[string]bool{"a directory": false, "a bucket": true} {
		t.Run(name, func(t *testing.T) {
			w := between(t, drill.MirrorCopy, bucket)
			w.env.Now = time.Now // so that all is young
			w.write("d/same", "the same")
			w.write("differs", "one")
			w.whole()
			if w.to != "" { // as another tool leaves it
				st, err := os.Stat(filepath.Join(w.from, "differs"))
				must(t, errors.Join(err, os.WriteFile(filepath.Join(w.to, "differs"), []byte("two"), 0o644)))
				must(t, os.Chtimes(filepath.Join(w.to, "differs"), st.ModTime(), st.ModTime()))
			}
			w.env.StateDir = t.TempDir() // as if no run had ever been
			if res := w.whole(); res.Unread != 2 || res.Done[plan.Put] != 0 {
				t.Fatalf("at first: %d unread, %v", res.Unread, res.Done)
			}
			res := w.whole()
			want, read := int64(1), [2]int64{2, 2}
			if bucket {
				want, read = 0, [2]int64{2, 0} // which an ETag tells of
			}
			if res.Done[plan.Put] != want || res.Unread != 0 || res.Compared != read {
				t.Errorf("then: %v, %d unread, %v compared", res.Done, res.Unread, res.Compared)
			}
			if res := w.whole(); res.Done[plan.Put] != 0 || res.Unread != 0 {
				t.Errorf("at last: %v, %d unread", res.Done, res.Unread)
			}
			if w.to != "" {
				if got, err := os.ReadFile(filepath.Join(w.to, "differs")); err != nil || string(got) != "one" {
					t.Errorf("it holds %q, %v", got, err)
				}
			}
		})
	}
}
