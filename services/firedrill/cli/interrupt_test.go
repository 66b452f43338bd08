package cli

import (
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// TestASecondInterruptSaysWhatIsLeft: which drill, what of it is in effect, and how
// to settle it. Then it ends, as run.Main would have.
func TestASecondInterruptSaysWhatIsLeft(t *testing.T) {
	dir := serve(t)
	errs, err := os.Create(filepath.Join(t.TempDir(), "errs")) // as os.Stderr, it may be written at any time
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	exited := make(chan int, 1)
	a := &app{Streams: Streams{Out: &bytes.Buffer{}, Err: errs}, stateDir: dir, logLevel: "error", exit: func(code int) { exited <- code }}
	s, err := a.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.bus.Close()
	s.own = &allinone.Stack{} // as if it conducted the drill itself
	var state atomic.Pointer[drill.State]
	state.Store(&drill.State{ID: somebodysDrill, Debts: []drill.Debt{{Step: "p/fault/kill", Operation: "kill", Target: "orders"}}})
	t.Cleanup(func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
	a.interrupted(t.Context(), s, &state)
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-exited:
		if code != run.Interrupted {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	said, err := os.ReadFile(errs.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"interrupted: aborting the drill",
		"this of " + somebodysDrill + " is not put back:\n  p/fault/kill: kill on orders\n",
		"`firedrill --state-dir " + dir + " up`", "`firedrill --state-dir " + dir + " undo " + somebodysDrill + "`",
	} {
		if !strings.Contains(string(said), want) {
			t.Errorf("%q is missing in:\n%s", want, said)
		}
	}
}

func TestWhatIsLeftOfADrill(t *testing.T) {
	a := &app{stateDir: defaultStateDir}
	for want, st := range map[string]drill.State{
		"d-1 is not over; nothing that is known of it has to be put back":                                          {ID: "d-1"},
		"everything that d-1 did is put back, but it has no report yet":                                            {ID: "d-1", Finished: &event.DrillFinished{}},
		"this of d-1 is not put back:\n  a/fault/f: kill on s\n  a/recovery/r: promote on s\n`firedrill up` takes": {ID: "d-1", Debts: []drill.Debt{{Step: "a/fault/f", Operation: "kill", Target: "s"}, {Step: "a/recovery/r", Operation: "promote", Target: "s"}}},
		"try again with `firedrill undo d-1`":                                                                      {ID: "d-1", Finished: &event.DrillFinished{}, Debts: []drill.Debt{{Step: "a/fault/f"}}},
	} {
		if got := a.leftUndone(st); !strings.Contains(got, want) || !strings.HasSuffix(got, "\n") {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
}
