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

// unlike keeps a job off a board where there is one of that note.
func unlike(note string) func([]byte) error {
	return func(other []byte) error {
		if string(other) == note {
			return fmt.Errorf("%w: %s", errAgainst, other)
		}
		return nil
	}
}

func TestJobsOnABoardKnowOfEachOther(t *testing.T) {
	l := machine.Locks(filepath.Join(t.TempDir(), "[a]*")) // no pattern
	must(t, os.Mkdir(string(l), 0o777))
	post := func(board, note, against string) (*machine.Posted, error) {
		return l.Post(t.Context(), board, []byte(note), unlike(against))
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
				switch p, err := l.Post(t.Context(), "jobs", []byte("a"), unlike("a")); {
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
		if _, err := machine.Locks(dir).Post(t.Context(), "jobs", []byte("a"), unlike("a")); err != nil {
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
	p, err := l.Post(t.Context(), "jobs", []byte("a"), unlike("a"))
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
	p, err := l.Post(t.Context(), "jobs", []byte("a"), func([]byte) error { return errAgainst })
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
	p, err := none.Post(t.Context(), "jobs", nil, func([]byte) error { return errAgainst })
	must(t, err)
	must(t, p.Remove())
	nothing := func([]byte) error { return nil }
	if _, err := machine.Locks(filepath.Join(t.TempDir(), "none")).Post(t.Context(), "jobs", nil, nothing); err == nil {
		t.Error("posted to a directory that is not there")
	}
	l := machine.Locks(t.TempDir())
	if _, err := l.Post(t.Context(), "jobs", make([]byte, 1<<20), nothing); err == nil || !strings.Contains(err.Error(), "1048576 bytes") {
		t.Errorf("a note that is too long: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	// Somebody looks at the board for a long time.
	if _, err := l.Post(t.Context(), "jobs", nil, func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	_, err = l.Post(t.Context(), "jobs", nil, func([]byte) error {
		_, err := l.Post(over, "jobs", nil, nothing)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a board that another one looks at: %v", err)
	}
}
