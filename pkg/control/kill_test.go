package control

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/internal/await"
)

// family starts a process with a child; the parent writes the file noticed when the
// child is gone. The child comes first in pids.
func family(t *testing.T, ctx context.Context, h *Host) (pids []int, noticed string) {
	t.Helper()
	noticed = filepath.Join(t.TempDir(), "noticed")
	cmd := exec.Command("sh", "-c", `sleep 60 & wait; : >"$1"`, "sh", noticed)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	go func() { defer close(waited); _ = cmd.Wait() }() // it is killed
	t.Cleanup(func() {
		for _, pid := range pids {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill() // gone already, if all went well
			}
		}
		<-waited
	})
	await.Until(t, patience, "parent and child", func() bool {
		ps, err := h.Processes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tree := Tree(ps, cmd.Process.Pid)
		if len(tree) != 2 || tree[1].Name != "sleep" {
			return false
		}
		pids = []int{tree[1].PID, tree[0].PID}
		return true
	})
	return pids, noticed
}

func unwanted(t *testing.T) func() {
	return func() { t.Error("it was begun") }
}

func gone(t *testing.T, ctx context.Context, h *Host, pids []int) bool {
	t.Helper()
	ps, err := h.Look(ctx, pids...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if !p.Gone() {
			return false
		}
	}
	return true
}

func TestKillFenced(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		pids, noticed := family(t, ctx, h)
		f := Fence{Dir: t.TempDir(), Name: "d", Epoch: 2}
		if err := h.Fence(ctx, f); err != nil {
			t.Fatal(err)
		}
		older := f
		older.Epoch = 1
		begin := unwanted(t)
		if !h.Local() {
			begin = func() {} // its script finds out
		}
		_, err := h.KillFenced(ctx, older, begin, pids...)
		wantFenced(t, err, 1, 2)
		if ps, err := h.Look(ctx, pids...); err != nil || len(ps) != 2 || ps[0].Stopped() || ps[0].Gone() {
			t.Fatalf("the older conductor's signals were sent: %+v, %v", ps, err)
		}
		begun := 0
		together, err := h.KillFenced(ctx, f, func() { begun++ }, append(pids, 1<<22)...)
		if err != nil || !together || begun != 1 {
			t.Fatalf("together %v, %v", together, err)
		}
		await.Until(t, patience, "both gone", func() bool { return gone(t, ctx, h, pids) })
		if _, err := os.Stat(noticed); err == nil {
			t.Error("the parent ran on after its child was killed")
		}
		for _, bad := range []int{1, 0, -1} {
			if _, err := h.KillFenced(ctx, f, unwanted(t), bad); err == nil {
				t.Errorf("pid %d was not refused", bad)
			}
		}
	})
}

// TestKillFencedIsNotCutShort: whoever gives up at any moment leaves the processes
// running or killed, and never stopped.
func TestKillFencedIsNotCutShort(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		for i := range 6 {
			pids, _ := family(t, ctx, h)
			short, cancel := context.WithTimeout(ctx, time.Duration(i)*700*time.Microsecond)
			_, err := h.KillFenced(short, Fence{}, func() {}, pids...)
			cancel()
			if err == nil {
				await.Until(t, patience, "both gone", func() bool { return gone(t, ctx, h, pids) })
				continue
			}
			ps, lerr := h.Look(ctx, pids...)
			if lerr != nil || len(ps) != 2 || ps[0].Stopped() || ps[1].Stopped() || short.Err() == nil {
				t.Fatalf("given up with %v: %+v, %v", err, ps, lerr)
			}
		}
	})
}

// TestAKillerThatEndsIsFinished: firedrill is killed when the processes are stopped.
func TestAKillerThatEndsIsFinished(t *testing.T) {
	if os.Getenv("FIREDRILL_TEST_KILLER") != "" {
		h, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(os.Getenv("FIREDRILL_TEST_KILLER"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.killHere(t.Context(), func() {
			_ = h.Signal(t.Context(), syscall.SIGSTOP, pid) // killHere's own would come next
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it is heard
		}, []int{pid})
		t.Fatalf("it lived on: %v", err)
	}
	h := hosts(t)["local"]
	pids, _ := family(t, t.Context(), h)
	killer := exec.Command(os.Args[0], "-test.run=^TestAKillerThatEndsIsFinished$")
	killer.Env = append(os.Environ(), "FIREDRILL_TEST_KILLER="+strconv.Itoa(pids[1]))
	if out, err := killer.CombinedOutput(); killer.ProcessState.Exited() {
		t.Fatalf("the killer was not killed: %v: %s", err, out)
	}
	await.Until(t, patience, "the heir's work", func() bool { return gone(t, t.Context(), h, pids[1:]) })
}
