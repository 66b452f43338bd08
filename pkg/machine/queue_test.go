package machine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/machine"
)

func queued(t *testing.T, l machine.Locks, by string) *machine.Queued {
	t.Helper()
	q, err := l.Queue(t.Context(), "jobs", by)
	must(t, err)
	return q
}

// ahead is who is said to be the first one; "" if that is this one.
func ahead(t *testing.T, q *machine.Queued) string {
	t.Helper()
	first, err := q.Head(t.Context())
	must(t, err)
	if first == nil {
		return ""
	}
	if first.PID != os.Getpid() || first.Since.IsZero() {
		t.Errorf("%+v", first)
	}
	return first.By
}

// TestAQueueKeepsItsOrder, whoever leaves it and whoever asks first.
func TestAQueueKeepsItsOrder(t *testing.T) {
	l := machine.Locks(t.TempDir())
	a, b, c := queued(t, l, "a\x1b[2J"), queued(t, l, "b"), queued(t, l, "c")
	for q, want := range map[*machine.Queued]string{c: "a[2J", b: "a[2J", a: ""} {
		if got := ahead(t, q); got != want {
			t.Errorf("the first one is %q, want %q", got, want)
		}
	}
	must(t, b.Leave())
	must(t, a.Leave())
	d := queued(t, l, "d")
	if got := ahead(t, d); got != "c" {
		t.Errorf("before the last one is %q", got)
	}
	if got := ahead(t, c); got != "" {
		t.Errorf("before who is left is %q", got)
	}
	must(t, c.Leave())
	if got := ahead(t, d); got != "" {
		t.Errorf("before the only one is %q", got)
	}
	must(t, d.Leave())
}

// TestWhoDiedIsInNoQueue, though nobody saw it leave.
func TestWhoDiedIsInNoQueue(t *testing.T) {
	if dir := os.Getenv("MACHINE_TEST_DIR"); dir != "" {
		_, err := machine.Locks(dir).Queue(t.Context(), "jobs", "killed")
		fmt.Println("queued", err)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	l := machine.Locks(t.TempDir())
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", t.Name())
	cmd.Env = append(os.Environ(), "MACHINE_TEST_DIR="+string(l))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.HasPrefix(string(out), "queued <nil>") {
		t.Fatalf("%s, %v", out, err)
	}
	q := queued(t, l, "next")
	if got := ahead(t, q); got != "" {
		t.Errorf("before it is %q", got)
	}
	must(t, q.Leave())
}

func TestAQueueThatCannotBeUsed(t *testing.T) {
	var none machine.Locks
	q, err := none.Queue(t.Context(), "jobs", "a")
	must(t, err)
	if got := ahead(t, q); got != "" {
		t.Errorf("before it is %q", got)
	}
	must(t, q.Leave())
	// What nobody wrote who means well is before nobody.
	l := machine.Locks(t.TempDir())
	for _, note := range []string{"", "{", `{"number":-1}`, `{"number":9223372036854775807}`} {
		p, err := l.Post(t.Context(), "jobs", anyway(note))
		must(t, err)
		defer func() { must(t, p.Remove()) }()
	}
	q = queued(t, l, "a")
	if got := ahead(t, q); got != "" {
		t.Errorf("before it is %q", got)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	b := queued(t, l, "b")
	if got := ahead(t, b); got != "a" {
		t.Errorf("before the second is %q", got)
	}
	// Somebody looks at the queue for a long time.
	_, err = l.Post(t.Context(), "jobs", func([][]byte) ([]byte, error) {
		_, err := b.Head(over)
		return nil, err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a queue that another one looks at: %v", err)
	}
	must(t, errors.Join(q.Leave(), b.Leave()))
}
