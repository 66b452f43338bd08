package control

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
	"time"

	"github.com/firedrill/firedrill/pkg/internal/await"
)

// wantFenced checks a refusal by a newer epoch.
func wantFenced(t *testing.T, err error, epoch, newer int64) {
	t.Helper()
	e, ok := errors.AsType[*FencedError](err)
	if !ok || e.Epoch != epoch || e.Newer != newer {
		t.Fatalf("got %v, want epoch %d to be refused by %d", err, epoch, newer)
	}
	if want := fmt.Sprintf("not done: a newer conductor, epoch %d, has acted on this host; this one is epoch %d", newer, epoch); !strings.Contains(err.Error(), want) {
		t.Fatalf("the error does not say so: %v", err)
	}
}

func TestFenceRefusesAnOlderConductor(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		f := Fence{Dir: filepath.Join(t.TempDir(), "it's new"), Owner: "nobody", Name: "a.drill-1"}
		act := func(epoch int64, note string) error {
			g := f
			g.Epoch, g.Note = epoch, note
			return h.Fence(ctx, g)
		}
		for _, epoch := range []int64{6, 6, 7, 7} {
			if err := act(epoch, ""); err != nil {
				t.Fatalf("epoch %d: %v", epoch, err)
			}
		}
		wantFenced(t, act(6, ""), 6, 7)
		wantFenced(t, act(6, ""), 6, 7)
		if err := act(0, "a,b"); err != nil {
			t.Fatalf("no epoch: %v", err)
		}
		wantFenced(t, act(6, "lost"), 6, 7)
		for _, epoch := range []int64{7, 8} {
			if err := act(epoch, ""); err != nil {
				t.Fatal(err)
			}
		}
		if note, err := h.FenceNote(ctx, f); err != nil || note != "a,b" {
			t.Fatalf("the note: %q, %v", note, err)
		}
		other := Fence{Dir: f.Dir, Name: "a.drill", Epoch: 1}
		if err := h.Fence(ctx, other); err != nil {
			t.Fatalf("another drill: %v", err)
		}
		if note, err := h.FenceNote(ctx, other); err != nil || note != "" {
			t.Fatalf("another drill's note: %q, %v", note, err)
		}
		wantFenced(t, act(7, ""), 7, 8)
		st, err := os.Stat(f.Dir)
		if err != nil || st.Mode().Perm() != 0o700 || st.Sys().(*syscall.Stat_t).Uid != 65534 {
			t.Fatalf("the directory: %+v, %v", st, err)
		}
	})
}

func TestFenceNoteOfAnUnknownHost(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		f := Fence{Dir: filepath.Join(t.TempDir(), "none"), Name: "d"}
		if note, err := h.FenceNote(ctx, f); err != nil || note != "" {
			t.Fatalf("%q, %v", note, err)
		}
		if _, err := os.Stat(f.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("reading made the directory: %v", err)
		}
	})
}

func TestFenceForgetsOldDrills(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		dir := t.TempDir()
		now := time.Now().Unix()
		const day = 24 * 3600
		text := fmt.Sprintf("old 3 %d a,b\nyoung 4 %d a\nmine 5 %d a,c\n", now-8*day, now-6*day, now-8*day)
		if err := os.WriteFile(filepath.Join(dir, "fence"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		wantFenced(t, h.Fence(ctx, Fence{Dir: dir, Name: "mine", Epoch: 4}), 4, 5)
		if err := h.Fence(ctx, Fence{Dir: dir, Name: "mine", Epoch: 6}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "fence"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "young 4 ") || !strings.HasPrefix(lines[1], "mine 6 ") || !strings.HasSuffix(lines[1], " a,c") {
			t.Fatalf("kept:\n%s", b)
		}
	})
}

func TestFenceMistakes(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		dir := t.TempDir()
		for _, f := range []Fence{
			{Name: "d", Epoch: 1}, {Dir: dir, Epoch: 1}, {Dir: dir, Name: "a b", Epoch: 1}, {Dir: dir, Name: "a\nb", Epoch: 1},
			{Dir: dir, Name: "d", Epoch: -1}, {Dir: dir, Name: "d", Epoch: 1, Note: "a b"},
		} {
			if err := h.Fence(ctx, f); err == nil {
				t.Errorf("%+v is taken", f)
			}
		}
		f := Fence{Dir: dir, Name: "d", Epoch: 1}
		for _, damaged := range []string{"d\n", "d x 1\n", "other 1\n", "other 1 x\n"} {
			if err := os.WriteFile(filepath.Join(dir, "fence"), []byte(damaged), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := h.Fence(ctx, f); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%q: %v", damaged, err)
			}
		}
	})
}

// TestFenceWithManyAtOnce lets conductors race: of those that were let in, none
// may come after a newer one.
func TestFenceWithManyAtOnce(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		dir := t.TempDir()
		log := filepath.Join(dir, "log")
		pid := sleeper(t)
		var wg sync.WaitGroup
		for epoch := int64(1); epoch <= 8; epoch++ {
			wg.Go(func() {
				f := Fence{Dir: dir, Name: "d", Epoch: epoch}
				_, fenced := errors.AsType[*FencedError](h.Fence(ctx, f))
				err := h.SignalFenced(ctx, f, syscall.SIGCONT, pid)
				if _, late := errors.AsType[*FencedError](err); err != nil && !late || fenced && !late {
					t.Errorf("epoch %d: fenced %v, then %v", epoch, fenced, err)
				}
				_, _ = h.Run(ctx, Command{Script: f.Guard(`printf '%s\n' "$1" >>"$2"`), Args: []string{fmt.Sprint(epoch), log}})
			})
		}
		wg.Wait()
		wantFenced(t, h.Fence(ctx, Fence{Dir: dir, Name: "d", Epoch: 7}), 7, 8)
		if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "8\n") {
			t.Errorf("the newest was not let in: %q, %v", b, err)
		}
	})
}

func TestSignalFenced(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		pid := sleeper(t)
		f := Fence{Dir: t.TempDir(), Name: "d", Epoch: 2}
		if err := h.Fence(ctx, f); err != nil {
			t.Fatal(err)
		}
		state := func() byte {
			ps, err := h.Look(ctx, pid)
			if err != nil || len(ps) != 1 {
				t.Fatalf("%+v, %v", ps, err)
			}
			return ps[0].State
		}
		older := f
		older.Epoch = 1
		wantFenced(t, h.SignalFenced(ctx, older, syscall.SIGSTOP, pid), 1, 2)
		if s := state(); s == 'T' {
			t.Fatal("the older conductor's signal was sent")
		}
		if err := h.SignalFenced(ctx, f, syscall.SIGSTOP, pid); err != nil {
			t.Fatal(err)
		}
		await.Until(t, patience, "stopped", func() bool { return state() == 'T' })
		if err := h.SignalFenced(ctx, Fence{}, syscall.SIGCONT, pid); err != nil {
			t.Fatalf("without an epoch: %v", err)
		}
		await.Until(t, patience, "running", func() bool { return state() != 'T' })
		if err := h.SignalFenced(ctx, f, syscall.SIGCONT, 1); err == nil {
			t.Error("pid 1 was not refused")
		}
	})
}

// TestSignalFencedWaitsForItsTurn holds the lock: the signal is not sent beside
// whoever records a newer epoch.
func TestSignalFencedWaitsForItsTurn(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		pid := sleeper(t)
		f := Fence{Dir: t.TempDir(), Name: "d", Epoch: 1}
		if err := h.Fence(ctx, f); err != nil {
			t.Fatal(err)
		}
		lock, err := os.Open(filepath.Join(f.Dir, "fence.lock"))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- h.SignalFenced(ctx, f, syscall.SIGKILL, pid) }()
		newer := fmt.Sprintf("d 2 %d \n", time.Now().Unix())
		if err := os.WriteFile(filepath.Join(f.Dir, "fence"), []byte(newer), 0o644); err != nil {
			t.Fatal(err)
		}
		_ = lock.Close()
		wantFenced(t, <-done, 1, 2)
		if ps, err := h.Look(ctx, pid); err != nil || len(ps) != 1 || ps[0].Gone() {
			t.Fatalf("the signal was sent: %+v, %v", ps, err)
		}
	})
}

func TestGuardedScript(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		f := Fence{Dir: filepath.Join(t.TempDir(), "it's"), Name: "d", Epoch: 2}
		if err := h.Fence(ctx, f); err != nil {
			t.Fatal(err)
		}
		run := func(f Fence) (string, error) {
			b, err := h.Run(ctx, Command{What: "say", Script: f.Guard(`printf '%s|%s' "$1" "${max:-}"; exit "$2"`), Args: []string{"said", "7"}})
			return string(b), err
		}
		older := f
		older.Epoch = 1
		out, err := run(older)
		wantFenced(t, err, 1, 2)
		if out != "" {
			t.Fatalf("the script ran: %q", out)
		}
		for _, let := range []Fence{f, {}} {
			out, err := run(let)
			if e, ok := errors.AsType[*CommandError](err); !ok || e.Code != 7 || out != "said|" {
				t.Fatalf("%+v: %q, %v", let, out, err)
			}
		}
	})
}

// sleeper starts a process that does nothing, and ends it with the test.
func sleeper(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}
