package machine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/machine"
)

var errAgainst = errors.New("it is against another one")

// unless posts a note on a board unless there is another one that it is against.
func unless(against, note string) func([][]byte) ([]byte, error) {
	return func(others [][]byte) ([]byte, error) {
		for _, other := range others {
			if string(other) == against {
				return nil, fmt.Errorf("%w: %s", errAgainst, other)
			}
		}
		return []byte(note), nil
	}
}

// anyway posts a note whoever is there.
func anyway(note string) func([][]byte) ([]byte, error) {
	return func([][]byte) ([]byte, error) { return []byte(note), nil }
}

func TestJobsOnABoardKnowOfEachOther(t *testing.T) {
	l := machine.Locks(filepath.Join(t.TempDir(), "[a]*")) // no pattern
	must(t, os.Mkdir(string(l), 0o777))
	post := func(board, note, against string) (*machine.Posted, error) {
		return l.Post(t.Context(), board, unless(against, note))
	}
	a, err := post("jobs", "a", "a")
	must(t, err)
	b, err := post("jobs", "b", "b")
	must(t, err)
	if p, err := post("jobs", "c", "a"); !errors.Is(err, errAgainst) || p != nil {
		t.Errorf("beside what it is against: %v", err)
	}
	other, err := post("others", "a", "a")
	must(t, err)
	must(t, a.Remove())
	a, err = post("jobs", "a", "a")
	must(t, err)
	for _, p := range []*machine.Posted{a, b, other} {
		must(t, p.Remove())
	}
	if left, err := filepath.Glob(filepath.Join(t.TempDir(), "firedrill-jobs-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestOneOfManyIsPosted of those that are against each other.
func TestOneOfManyIsPosted(t *testing.T) {
	for range 30 {
		l := machine.Locks(t.TempDir())
		got := make(chan *machine.Posted, 4)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				switch p, err := l.Post(t.Context(), "jobs", unless("a", "a")); {
				case err == nil:
					got <- p
				case !errors.Is(err, errAgainst):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if len(got) != 1 {
			t.Fatalf("%d are posted", len(got))
		}
		must(t, (<-got).Remove())
	}
}

// TestAJobThatDiedIsOffTheBoard, and what it left is cleared away.
func TestAJobThatDiedIsOffTheBoard(t *testing.T) {
	if dir := os.Getenv("MACHINE_TEST_DIR"); dir != "" {
		if _, err := machine.Locks(dir).Post(t.Context(), "jobs", unless("a", "a")); err != nil {
			fmt.Println(err)
		}
		fmt.Println("posted")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	l := machine.Locks(t.TempDir())
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", t.Name())
	cmd.Env = append(os.Environ(), "MACHINE_TEST_DIR="+string(l))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.HasPrefix(string(out), "posted") {
		t.Fatalf("%s, %v", out, err)
	}
	left := func() int {
		found, err := filepath.Glob(filepath.Join(string(l), "firedrill-jobs-*"))
		must(t, err)
		return len(found)
	}
	if left() != 1 {
		t.Fatal("it was not posted")
	}
	p, err := l.Post(t.Context(), "jobs", unless("a", "a"))
	must(t, err)
	if n := left(); n != 1 {
		t.Errorf("%d notes beside that of the living", n-1)
	}
	must(t, p.Remove())
}

// TestWhatIsNoJobsIsLeftAlone, and keeps nobody off.
func TestWhatIsNoJobsIsLeftAlone(t *testing.T) {
	l := machine.Locks(t.TempDir())
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("a"), 0o600))
	at := func(name string) string { return filepath.Join(string(l), "firedrill-jobs-"+name) }
	must(t, errors.Join(os.Symlink(secret, at("link")), syscall.Mkfifo(at("pipe"), 0o666), os.Mkdir(at("dir"), 0o777), os.Link(secret, at("hard"))))
	p, err := l.Post(t.Context(), "jobs", func(others [][]byte) ([]byte, error) {
		if len(others) > 0 {
			return nil, errAgainst
		}
		return []byte("a"), nil
	})
	must(t, err)
	must(t, p.Remove())
	for _, name := range []string{"link", "pipe", "dir", "hard"} {
		if _, err := os.Lstat(at(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestABoardThatCannotBeUsed(t *testing.T) {
	var none machine.Locks
	p, err := none.Post(t.Context(), "jobs", func([][]byte) ([]byte, error) { return nil, errAgainst })
	must(t, err)
	must(t, p.Remove())
	if _, err := machine.Locks(filepath.Join(t.TempDir(), "none")).Post(t.Context(), "jobs", anyway("")); err == nil {
		t.Error("posted to a directory that is not there")
	}
	l := machine.Locks(t.TempDir())
	if _, err := l.Post(t.Context(), "jobs", anyway(strings.Repeat("a", 1<<20))); err == nil || !strings.Contains(err.Error(), "1048576 bytes") {
		t.Errorf("a note that is too long: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	// Somebody looks at the board for a long time.
	if _, err := l.Post(t.Context(), "jobs", anyway("")); err != nil {
		t.Fatal(err)
	}
	_, err = l.Post(t.Context(), "jobs", func([][]byte) ([]byte, error) {
		_, err := l.Post(over, "jobs", anyway(""))
		return nil, err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a board that another one looks at: %v", err)
	}
}
