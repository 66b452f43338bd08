package supervisor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSupervisor starts once for each command, and tells at its end which starts failed; one
// that is under way is ended, and is no failure, and one that waits for it is not begun.
func TestSupervisor(t *testing.T) {
	broken := errors.New("it does not start")
	starts := make(chan int, 4)
	n := 0
	s, err := Begin(t.Context(), t.TempDir(), func(ctx context.Context) error {
		n++
		starts <- n
		if n == 2 {
			return broken
		}
		if n == 3 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() {
		argv := s.Command()
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for i := range 3 {
		ask()
		if got := <-starts; got != i+1 {
			t.Errorf("start %d is the %dth", i+1, got)
		}
	}
	ask()
	if err := s.End(); !errors.Is(err, broken) || errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	if n != 3 {
		t.Errorf("it started %d times", n)
	}
	if _, err := os.Lstat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its pipe is left: %v", err)
	}
}

func TestSupervisorWithoutAPlace(t *testing.T) {
	if _, err := Begin(t.Context(), t.TempDir()+"/missing", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
