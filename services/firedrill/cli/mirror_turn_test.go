package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
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
