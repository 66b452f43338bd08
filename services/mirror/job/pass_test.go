package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// Whatever a job does, it asks before it begins more, and ends where that is not to be.
func TestNothingIsBegunWithoutLeave(t *testing.T) {
	const files = 1500
	w := between(t, drill.MirrorCopy, false)
	w.mirror.Permissions = []drill.Permission{{Match: "f*", Files: "0640"}}
	for i := range files {
		w.write(fmt.Sprintf("f%04d", i), "content")
	}
	// cut does something for which leave is given so often.
	cut := func(name string, leave int64, do func(ctx context.Context, j *Job, pass func(context.Context) error) error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var asked atomic.Int64
		pass := func(ctx context.Context) error {
			if asked.Add(1) > leave {
				cancel()
			}
			return ctx.Err()
		}
		w.with(func(j *Job) {
			if err := do(ctx, j, pass); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: it ended with %v, and asked %d times", name, err, asked.Load())
			}
		})
	}
	run := func(ctx context.Context, j *Job, pass func(context.Context) error) error {
		_, err := j.Sync(ctx, SyncOptions{Pass: pass})
		return err
	}
	looking := func(ctx context.Context, j *Job, pass func(context.Context) error) error {
		_, err := j.Sync(ctx, SyncOptions{DryRun: true, Pass: pass}) // which sets no permissions
		return err
	}
	count := func(is func(os.FileInfo) bool) (n int) {
		t.Helper()
		all, err := os.ReadDir(w.to)
		must(t, err)
		for _, e := range all {
			info, err := e.Info()
			must(t, err)
			if is(info) {
				n++
			}
		}
		return n
	}
	cut("nothing at all", 0, run)
	if n := count(func(os.FileInfo) bool { return true }); n != 0 {
		t.Errorf("%d were copied without leave", n)
	}
	cut("copying", 700, run)
	if n := count(func(i os.FileInfo) bool { return i.Mode().IsRegular() }); n == 0 || n == files {
		t.Errorf("%d were copied", n)
	}
	w.whole()
	// Of what is as it was left it asks at the beginning, and then now and then.
	few := between(t, drill.MirrorCopy, false)
	few.write("f", "content")
	few.whole()
	all := w
	w = few
	cut("looking at one that is equal", 0, looking)
	w = all
	for i := range files {
		must(t, os.Chmod(filepath.Join(w.to, fmt.Sprintf("f%04d", i)), 0o600))
	}
	cut("looking at what is equal", 3, looking)
	cut("setting permissions", 300, run)
	if n := count(func(i os.FileInfo) bool { return i.Mode().Perm() == 0o640 }); n == 0 || n == files {
		t.Errorf("of %d the permissions were set", n)
	}
	for _, c := range []struct {
		Comparison
		leave int64
	}{
		{Comparison{What: drill.MirrorDrift, Level: proof.L1}, 100},
		{Comparison{What: drill.MirrorAudit, Level: proof.L4}, 100},
		{Comparison{What: drill.MirrorAudit, Level: proof.L4}, 2*files + 100}, // between both sides
	} {
		c.Sides = []plan.Side{plan.Source, plan.Dest}
		cut(c.What, c.leave, func(ctx context.Context, j *Job, pass func(context.Context) error) error {
			c.Pass = pass
			_, err := j.Compare(ctx, c.Comparison)
			return err
		})
	}
}

// The parts of a large file are given out one after the other, each with leave.
func TestPartsAreSentWithLeave(t *testing.T) {
	w := between(t, drill.MirrorCopy, true)
	path := filepath.Join(w.from, "large")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 70<<20))
	var asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.with(func(j *Job) {
		_, err := j.Sync(ctx, SyncOptions{
			Pool: engine.Local{Worker: j.Worker(), Items: 1, SplitAbove: 20 << 20},
			Pass: func(ctx context.Context) error {
				if asked.Add(1) > 3 { // the run, the file and a part
					cancel()
				}
				return ctx.Err()
			},
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v, and asked %d times", err, asked.Load())
		}
	})
}
