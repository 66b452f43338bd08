package control

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/internal/await"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hosts are all the ways of reaching this machine. The joining one does what
// ssh does: it joins its arguments with spaces and lets a shell split them.
func hosts(t *testing.T) map[string]*Host {
	t.Helper()
	out := map[string]*Host{}
	for name, c := range map[string]Config{
		"local":   {},
		"env":     {Kind: KindExec, Argv: []string{"env"}},
		"argv":    {Kind: KindExec, Argv: []string{"sh", "-c", `exec "$@"`, "--"}},
		"joining": {Kind: KindExec, Argv: []string{"sh", "-c", `exec sh -c "$*"`, "--"}},
	} {
		h, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = h
	}
	return out
}

func each(t *testing.T, f func(t *testing.T, ctx context.Context, h *Host)) {
	for name, h := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			f(t, ctx, h)
		})
	}
}

func TestConfigMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		field  string
	}{
		"unknown kind":    {Config{Kind: "telnet"}, "kind"},
		"argv with local": {Config{Kind: KindLocal, Argv: []string{"ssh"}}, "argv"},
		"exec alone":      {Config{Kind: KindExec}, "argv"},
		"empty command":   {Config{Kind: KindExec, Argv: []string{""}}, "argv"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c.config)
			if e, ok := errors.AsType[*ConfigError](err); !ok || e.Field != c.field || e.Fix == "" {
				t.Fatalf("got %v, want a mistake in %s with a fix", err, c.field)
			}
		})
	}
}

const nasty = "a 'b' \"c\" $HOME `id` \\ ; exit 3 # \n second line *"

func TestRunPassesArgumentsInputAndEnvironmentUnchanged(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		got, err := h.Run(ctx, Command{
			Script: `printf '%s|%s|%s|' "$#" "$1" "$SECRET"; cat`,
			Args:   []string{nasty, ""}, Stdin: []byte(nasty), Env: map[string]string{"SECRET": nasty},
		})
		if want := "2|" + nasty + "|" + nasty + "|" + nasty; err != nil || string(got) != want {
			t.Fatalf("got %q, %v\nwant %q", got, err, want)
		}
		got, err = h.Run(ctx, Command{Script: `cat; echo done`})
		if err != nil || string(got) != "done\n" {
			t.Fatalf("without input: got %q, %v", got, err)
		}
	})
}

func TestRunReportsFailure(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		for _, stdin := range [][]byte{nil, []byte("x")} {
			out, err := h.Run(ctx, Command{Script: "echo partial\necho broken >&2\nexit 7", Stdin: stdin})
			e, ok := errors.AsType[*CommandError](err)
			if !ok || e.Code != 7 || e.Stderr != "broken" || string(out) != "partial\n" {
				t.Fatalf("got %q, %v", out, err)
			}
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := h.Run(ctx, Command{Script: "sleep 30; sleep 30"})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestRunAsAnotherUser(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		got, err := h.Run(ctx, Command{Script: `id -un; printf '%s' "$1"; cat`, User: "nobody", Args: []string{nasty}, Stdin: []byte("in")})
		if err != nil || string(got) != "nobody\n"+nasty+"in" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		path := filepath.Join(t.TempDir(), "it's a file")
		if _, err := h.ReadFile(ctx, path); !errors.Is(err, ErrNotExist) {
			t.Fatalf("missing: %v", err)
		}
		if _, _, err := h.Tail(ctx, path, 10); !errors.Is(err, ErrNotExist) {
			t.Fatalf("missing: %v", err)
		}
		if err := h.WriteFile(ctx, path, []byte(nasty), 0o640, "nobody"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o604); err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile(ctx, path, []byte("0123456789"), 0o600, "root"); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != 0o604 || st.Sys().(*syscall.Stat_t).Uid != 65534 {
			t.Fatalf("mode and owner were not kept: %v, %+v", err, st)
		}
		if b, err := h.ReadFile(ctx, path); err != nil || string(b) != "0123456789" {
			t.Fatalf("got %q, %v", b, err)
		}
		if b, more, err := h.Tail(ctx, path, 4); err != nil || !more || string(b) != "6789" {
			t.Fatalf("got %q, %v, %v", b, more, err)
		}
		if b, more, err := h.Tail(ctx, path, 10); err != nil || more || len(b) != 10 {
			t.Fatalf("got %q, %v, %v", b, more, err)
		}
		for range 2 {
			if err := h.Remove(ctx, path); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestProcessesAndSignals(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		dir := t.TempDir()
		cmd := exec.Command("sh", "-c", "sleep 60 & wait")
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		tree := func() []Process {
			ps, err := h.Processes(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return Tree(ps, cmd.Process.Pid)
		}
		await.Until(t, patience, "parent and child", func() bool { ps := tree(); return len(ps) == 2 && ps[1].Name == "sleep" && ps[1].Dir == dir })
		pids := []int{tree()[0].PID, tree()[1].PID}
		if err := h.Signal(ctx, syscall.SIGSTOP, pids...); err != nil {
			t.Fatal(err)
		}
		await.Until(t, patience, "stopped", func() bool { ps := tree(); return ps[0].Stopped() && ps[1].Stopped() })
		if ps, err := h.Look(ctx, append(pids, 1<<22)...); err != nil || len(ps) != 2 || !ps[0].Stopped() || ps[1].PID != pids[1] {
			t.Fatalf("a look at both: %+v, %v", ps, err)
		}
		if err := h.Signal(ctx, syscall.SIGKILL, pids...); err != nil {
			t.Fatal(err)
		}
		await.Until(t, patience, "gone", func() bool { ps := tree(); return len(ps) > 0 && ps[0].Gone() })
		_ = cmd.Wait()
		if err := h.Signal(ctx, syscall.SIGKILL, pids...); err != nil {
			t.Fatalf("pids that are gone: %v", err)
		}
		for _, pid := range []int{1, 0, -1} {
			if err := h.Signal(ctx, syscall.SIGCONT, pid); err == nil {
				t.Fatalf("pid %d was not refused", pid)
			}
		}
	})
}

func TestParseStat(t *testing.T) {
	p, ok := parseStat("42 (a (b) c) T 7 1 2")
	if want := (Process{PID: 42, Parent: 7, Name: "a (b) c", State: 'T'}); !ok || p != want {
		t.Fatalf("got %+v", p)
	}
	for _, bad := range []string{"", "x", "1 (a", "x (a) R 1", "1 (a) R", "1 (a) R x"} {
		if p, ok := parseStat(bad); ok {
			t.Errorf("%q read as %+v", bad, p)
		}
	}
}

func TestTimer(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		dir := t.TempDir()
		arm := func(name string, after time.Duration) Timer {
			tm := Timer{
				Token: filepath.Join(dir, "tokens", name), After: after,
				Script: `printf '%s' "$2" >"$1"`, Args: []string{filepath.Join(dir, name), nasty},
			}
			if err := h.Arm(ctx, tm); err != nil {
				t.Fatal(err)
			}
			if armed, err := h.Armed(ctx, tm.Token); err != nil || !armed {
				t.Fatalf("not armed: %v", err)
			}
			return tm
		}
		cancelled := arm("cancelled", 4*time.Second)
		arm("replaced", 4*time.Second)
		replaced := arm("replaced", time.Hour)
		for range 2 {
			if err := h.Disarm(ctx, cancelled.Token); err != nil {
				t.Fatal(err)
			}
		}
		own := newPipe(t, filepath.Join(dir, "fires"))
		armed := time.Now()
		fires := arm("fires", 5*time.Second)
		if got := own.read(t, len(nasty), "the timer's own effect"); got != nasty {
			t.Errorf("the timer wrote %q", got)
		}
		if early := 5*time.Second - time.Since(armed); early > 0 {
			t.Errorf("the timer fired %s early", early)
		}
		if armed, err := h.Armed(ctx, fires.Token); err != nil || armed {
			t.Fatalf("still armed after firing: %v", err)
		}
		for _, name := range []string{"cancelled", "replaced"} {
			if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("timer %s fired", name)
			}
		}
		if err := h.Disarm(ctx, replaced.Token); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDisarmWaitsForAScriptUnderWay disarms a timer that has just fired: what
// comes after Disarm must not be crossed by the script.
func TestDisarmWaitsForAScriptUnderWay(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		dir := t.TempDir()
		at := func(name string) string { return filepath.Join(dir, name) }
		exists := func(name string) bool { _, err := os.Stat(at(name)); return err == nil }
		if err := syscall.Mkfifo(at("go on"), 0o600); err != nil {
			t.Fatal(err)
		}
		began := newPipe(t, at("began"))
		tm := Timer{Token: at("token"), Script: `echo >"$1/began"; read -r x <"$1/go on"; : >"$1/ended"`, Args: []string{dir}}
		if err := h.Arm(ctx, tm); err != nil {
			t.Fatal(err)
		}
		began.read(t, 1, "the timer to fire")
		done := make(chan error, 1)
		go func() { done <- h.Disarm(ctx, tm.Token) }()
		early := false
		await.Until(t, patience, "Disarm to wait", func() bool {
			select {
			case err := <-done:
				early = true
				t.Errorf("Disarm returned while the script ran: %v", err)
			default:
			}
			locks, err := os.ReadFile("/proc/locks")
			if err != nil {
				t.Fatal(err)
			}
			return early || waitedFor(t, string(locks), at("timers.lock"))
		})
		w, err := os.OpenFile(at("go on"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if !early {
			if err := <-done; err != nil || !exists("ended") {
				t.Errorf("Disarm: %v; script ended: %v", err, exists("ended"))
			}
		}
		await.Until(t, patience, "the script's end", func() bool { return exists("ended") })
	})
}

// waitedFor reports whether a process waits for the lock of a file.
func waitedFor(t *testing.T, locks, path string) bool {
	t.Helper()
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	inode := ":" + strconv.FormatUint(st.Sys().(*syscall.Stat_t).Ino, 10) + " "
	for line := range strings.Lines(locks) {
		if strings.Contains(line, "-> FLOCK") && strings.Contains(line, inode) {
			return true
		}
	}
	return false
}

func TestDisarmAll(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		dir := filepath.Join(t.TempDir(), "it's")
		if got, err := h.DisarmAll(ctx, dir, "*"); err != nil || len(got) > 0 {
			t.Fatalf("without a directory: %v, %v", got, err)
		}
		for _, name := range []string{"x1.a", "x2.a", "x1.b"} {
			if err := h.Arm(ctx, Timer{Token: filepath.Join(dir, name), After: time.Hour, Script: ":"}); err != nil {
				t.Fatal(err)
			}
		}
		got, err := h.DisarmAll(ctx, dir, "x?.a")
		if err != nil || !slices.Equal(got, []string{"x1.a", "x2.a"}) {
			t.Fatalf("disarmed %v, %v", got, err)
		}
		for name, want := range map[string]bool{"x1.a": false, "x2.a": false, "x1.b": true} {
			if armed, err := h.Armed(ctx, filepath.Join(dir, name)); err != nil || armed != want {
				t.Errorf("%s: armed %v, %v", name, armed, err)
			}
		}
		if _, err := h.DisarmAll(ctx, dir, "$(id) *"); err == nil {
			t.Error("a pattern that the shell would run is taken")
		}
		if err := h.Disarm(ctx, filepath.Join(dir, "x1.b")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestErrorsStayShort(t *testing.T) {
	_, err := hosts(t)["local"].Run(t.Context(), Command{Script: strings.Repeat("x", 5000) + "\nexit 1"})
	if err == nil || len(err.Error()) > 8000 {
		t.Fatalf("error of %d bytes", len(err.Error()))
	}
}

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// pipe is a file by which a script tells the test that it has come so far.
type pipe struct{ *os.File }

func newPipe(t *testing.T, path string) pipe {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// Open for both, so that neither side waits for the other one to open it.
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return pipe{f}
}

func (p pipe) read(t *testing.T, n int, what string) string {
	t.Helper()
	if err := p.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(p, buf); err != nil {
		t.Fatalf("waited for %s: %v", what, err)
	}
	return string(buf)
}
