package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/heavy"
	"github.com/firedrill/firedrill/services/mirror/job"
)

// TestMirrorsOfOnePlaceTakeTurns, whatever state directories they have: who has to wait
// says for whom, and needs no --wait for it.
func TestMirrorsOfOnePlaceTakeTurns(t *testing.T) {
	w := newMirrorWorld(t)
	dst := filepath.Join(w.dir, "dst")
	env := job.Env{Now: time.Now, Locks: machine.Shared()}
	end, err := env.Begin(t.Context(), env.Turn(drill.Mirror{Name: "onward", From: "dir:" + dst, To: "dir:/nowhere"}, job.Runs))
	if err != nil {
		t.Fatal(err)
	}
	w.run(0, "sync", "--dry-run", w.from, w.to) // which only looks
	out, _, ended := w.begin(append([]string{"mirror", "sync", w.from, w.to}, w.stateDirs...)...)
	want := "firedrill: waiting: mirror onward has been using " + w.to + " since 2"
	w.until("it waits", func() bool {
		return strings.Contains(out.String(), want) && strings.Contains(out.String(), fmt.Sprintf("(process %d)", os.Getpid()))
	})
	if _, err := os.Stat(dst); err == nil {
		t.Error("it has written where another one reads")
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	w.run(0, "verify", w.from, w.to)
}

// TestHeavyMirrorsQueue, whatever their places; who has to wait says for whom, and begins
// nothing. What is not heavy goes on beside.
func TestHeavyMirrorsQueue(t *testing.T) {
	w := newMirrorWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // the machine may have heavy work of its own
	defer cancel()
	occupy := func() *heavy.Work {
		t.Helper()
		other := heavy.Begin(ctx, heavy.Options{Locks: machine.Shared(), By: "mirror onward", Long: -1})
		t.Cleanup(other.End)
		if err := other.Pass(ctx); err != nil {
			t.Fatalf("other heavy work has the machine: %v", err)
		}
		return other
	}
	ends := func(ended <-chan int, out fmt.Stringer) {
		t.Helper()
		select {
		case code := <-ended:
			if code != 0 || !strings.Contains(out.String(), "firedrill: it goes on") {
				t.Errorf("exit code %d\n%s", code, out)
			}
		case <-ctx.Done():
			t.Fatalf("it does not end:\n%s", out)
		}
	}
	want := "firedrill: waiting: mirror onward has been at heavy work on this machine since 2"
	waits := func(command ...string) (out fmt.Stringer, ended <-chan int) {
		t.Helper()
		said, _, done := w.begin(append(append([]string{"mirror"}, command...), w.stateDirs...)...)
		w.until("it waits", func() bool {
			return strings.Contains(said.String(), want) && strings.Contains(said.String(), fmt.Sprintf("(process %d)", os.Getpid()))
		})
		return said, done
	}
	other := occupy()
	fresh := filepath.Join(w.dir, "fresh")
	first, ended := waits("sync", "--heavy", w.from, "dir:"+fresh)
	if _, err := os.Stat(fresh); err == nil {
		t.Error("it has made its destination beside other heavy work")
	}
	other.End()
	ends(ended, first)
	if all, err := os.ReadDir(fresh); err != nil || len(all) == 0 {
		t.Errorf("it has copied %v, %v", all, err)
	}
	other = occupy()
	w.run(0, "sync", w.from, w.to)
	w.run(0, "verify", "--heavy", "--heavy=false", w.from, w.to)
	late := filepath.Join(w.dir, "dst", "late")
	if err := os.WriteFile(filepath.Join(w.dir, "src", "late"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	sync, ended := waits("sync", "--heavy", w.from, w.to)
	if _, err := os.Stat(late); err == nil {
		t.Error("it has written beside other heavy work")
	}
	other.End()
	ends(ended, sync)
	if _, err := os.Stat(late); err != nil {
		t.Error(err)
	}
	other = occupy()
	verify, ended := waits("verify", "--heavy", w.from, w.to)
	if said := verify.String(); strings.Contains(said, "verified (") {
		t.Errorf("it has compared beside other heavy work:\n%s", said)
	}
	other.End()
	ends(ended, verify)
	if said := verify.String(); strings.Count(said, ": verified (L1): 4 checked") != 2 { // both sides, with what came late
		t.Errorf("it said:\n%s", said)
	}
}
