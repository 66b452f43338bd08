package sched

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes the test's program show, in a process of its own, what became of its
// threads: what is asked for stays with a process.
func TestMain(m *testing.M) {
	switch os.Getenv("SCHED_TEST") {
	case "batch":
		Batch()
		show()
	case "short":
		ShortSlices(300 * time.Microsecond)
		show()
	case "chosen":
		runtime.LockOSThread()
		attr, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			panic(err)
		}
		attr.Policy = unix.SCHED_IDLE
		if err := unix.SchedSetAttr(0, attr, 0); err != nil {
			panic(err)
		}
		Batch()
		now, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(name(now))
	default:
		os.Exit(m.Run())
	}
}

// show prints how all threads are scheduled, some of which are started now.
func show() {
	began, end := make(chan bool), make(chan bool)
	for range 5 {
		go func() {
			runtime.LockOSThread()
			began <- true
			<-end
		}()
		<-began
	}
	for _, tid := range threads() {
		if attr, err := unix.SchedGetAttr(tid, 0); err == nil { // else it has ended
			os.Stdout.WriteString(name(attr) + "\n")
		}
	}
	close(end)
}

func name(a *unix.SchedAttr) string {
	policy := map[uint32]string{unix.SCHED_NORMAL: "normal", unix.SCHED_BATCH: "batch", unix.SCHED_IDLE: "idle"}[a.Policy]
	if a.Runtime == 300_000 {
		policy += " short"
	}
	return policy
}

func shown(t *testing.T, role string) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SCHED_TEST="+role, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestAllThreadsAreScheduledSo(t *testing.T) {
	want := map[string]string{"batch": "batch", "short": "normal short"}
	if !heeded(t) {
		want["short"] = "normal"
	}
	for role, want := range want {
		got := shown(t, role)
		if len(got) < 6 {
			t.Errorf("%s: %d threads, want those that were started as well", role, len(got))
		}
		for _, one := range got {
			if one != want {
				t.Errorf("%s: a thread is scheduled as %q, want %q", role, one, want)
			}
		}
	}
}

func TestWhatSomebodyChoseStays(t *testing.T) {
	if got := shown(t, "chosen"); len(got) != 1 || got[0] != "idle" {
		t.Errorf("a thread that should run when nothing else does is scheduled as %q", got)
	}
}

// heeded reports whether this kernel keeps the length of slices.
func heeded(t *testing.T) bool {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	asked := *before
	asked.Runtime = 300_000
	if err := unix.SchedSetAttr(0, &asked, 0); err != nil {
		t.Fatal(err)
	}
	now, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedSetAttr(0, before, 0); err != nil {
		t.Fatal(err)
	}
	return now.Runtime == 300_000
}
