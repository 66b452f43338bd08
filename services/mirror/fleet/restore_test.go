package fleet_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// A restore lists names only: what the entries are the workers learn, and the planner
// from them.
func TestARestoreIsWorkedOffByAllProcesses(t *testing.T) {
	s := newSpread(t, 0)
	must(t, os.RemoveAll(filepath.Join(s.dir, "src")))
	s.inv.Spec.Mirrors = append(s.inv.Spec.Mirrors, drill.Mirror{Name: "back", From: "s3:lab/" + s.bucket.Bucket, To: "dir:" + filepath.Join(s.dir, "dst"), Privileged: true})
	s.tree("src", 2000)
	in := func(path string) string { return filepath.Join(s.dir, "src", path) }
	must(t, errors.Join(
		os.Symlink("d01/f0001", in("link")), unix.Mkfifo(in("d02/fifo"), 0o600), os.MkdirAll(in("empty/er"), 0o710),
		os.Chown(in("d03/f0003"), 1234, 4321), unix.Chmod(in("d04/f0004"), 0o4711), unix.Chmod(in("d05"), 0o1700),
	))
	for range 3 {
		s.start()
	}
	s.ask("big", "")
	if e, _ := s.await("big", 0, fleet.KindFinished); !e.Result.Whole {
		t.Fatalf("into the bucket: %+v", e.Result)
	}
	s.ask("back", "")
	e, seq := s.await("back", 0, fleet.KindFinished)
	if !e.Result.Whole || e.Result.Done["put"] != 2002 || e.Result.Done["mkdir"] != 19 {
		t.Fatalf("out of the bucket: %+v", e.Result)
	}
	want := enginetest.Tree(t, filepath.Join(s.dir, "src"))
	if got := enginetest.Tree(t, filepath.Join(s.dir, "dst")); !maps.Equal(got, want) {
		for path := range want {
			if got[path] != want[path] {
				t.Errorf("%q is %q and not %q", path, got[path], want[path])
			}
		}
		t.Errorf("%d entries, not %d", len(got), len(want))
	}
	// What was remembered is what a listing of all attributes finds.
	s.ask("back", `{"check": "audit"}`)
	if e, _ = s.await("back", seq, fleet.KindFinished); !e.Result.Whole || e.Result.Done["equal"] != 2021 {
		t.Errorf("the audit: %+v", e.Result)
	}
}
