package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A worker sets attributes, and the planner is gone before it hears of that. Names and
// ETags are then as they were left.
func TestWhatARunSetBeforeItWasCutOffIsSeen(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{}))
	w.write("file", "content")
	w.whole()
	path := filepath.Join(w.dir, "file")
	was, err := os.Stat(path)
	must(t, err)
	must(t, os.Chmod(path, 0o777))
	killed := errors.New("killed")
	w.pool = func(p Pool) Pool {
		return poolFunc{p, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
			dones, err := do(ctx, it)
			if it.Actions[0].Op == plan.Rehash {
				return dones, err
			}
			return nil, killed
		}}
	}
	if _, err = w.try(t.Context()); !errors.Is(err, killed) {
		t.Fatalf("got %v", err)
	}
	w.pool = nil
	w.reopen()
	must(t, os.Chmod(path, was.Mode().Perm()))
	w.whole()
	w.same()
}

// What a run copied and did not come to note is read by the next one: of what is only
// taken for equal nothing could be proved.
func TestWhatARunCopiedBeforeItWasCutOffIsRead(t *testing.T) {
	for name, to := range map[string]*spy{"bucket": openBucket(t, false, store.Options{}), "directory": openLocal(t, t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			w := between(t, plan.Mirror, to)
			for i := range 20 {
				w.write(fmt.Sprintf("file%02d", i), "content")
			}
			killed := errors.New("killed")
			w.pool = func(p Pool) Pool {
				return poolFunc{p, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
					_, _ = do(ctx, it)
					return nil, killed
				}}
			}
			if _, err := w.try(t.Context()); !errors.Is(err, killed) {
				t.Fatalf("got %v", err)
			}
			w.pool = nil
			w.reopen()
			if r := w.whole(); r.Done[plan.Put] > 0 {
				t.Errorf("copied again: %+v", r.Done)
			}
			for p, err := range w.store.Past() {
				must(t, err)
				if p.Source.Sum.Shared(p.Dest.Sum).Has == 0 {
					t.Errorf("nothing is known of %q", p.Key)
				}
			}
		})
	}
}

// What a run left that was killed stays unknown when the next one, which looks, is
// interrupted: the destination is listed again, and after a power cut read again.
func TestARunThatIsInterruptedDoesNotVouchForOneThatWasKilled(t *testing.T) {
	for want, boot := range map[Check]string{CheckListing: "one", CheckAudit: "another"} {
		w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
		w.job.Boot = "one"
		w.write("old", "content")
		w.whole()
		w.write("new", "content")
		must(t, os.Remove(filepath.Join(w.dir, "old")))
		killed := errors.New("killed")
		cutOff := func(when func(plan.Op) bool) {
			t.Helper()
			w.pool = func(p Pool) Pool {
				return poolFunc{p, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
					dones, err := do(ctx, it)
					if when(it.Actions[0].Op) {
						return nil, killed
					}
					return dones, err
				}}
			}
			if _, err := w.try(t.Context()); !errors.Is(err, killed) {
				t.Fatalf("got %v", err)
			}
			w.pool = nil
			w.reopen()
		}
		cutOff(func(plan.Op) bool { return true })
		w.job.Boot = boot
		cutOff(func(op plan.Op) bool { return op == plan.Delete })
		if r := w.whole(); r.Check != want {
			t.Errorf("booted as %s: the next run went by %d, want %d", boot, r.Check, want)
		}
		if r := w.whole(); r.Check != CheckState {
			t.Errorf("after one that came to its end: %d", r.Check)
		}
	}
}
