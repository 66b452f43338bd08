package zfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
)

func (h *history) to(t testing.TB, target machine) Replication {
	t.Helper()
	return Replication{Source: h.Host, Target: target.Host, From: h.dataset, To: target.freshName(t), Job: "job"}
}

func TestReplicateChain(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 1), on(t, "target")
	r := h.to(t, target)
	for n := range 5 {
		done, err := r.Run(t.Context())
		must(t, err)
		last := h.snapshots[n]
		if len(done.Steps) != 1 || done.Steps[0].To.GUID != last.GUID || done.Common.GUID != last.GUID || done.RolledBack {
			t.Fatalf("run %d: %+v", n, done)
		}
		if s := done.Steps[0].Stream; s.Bytes < 1000 || s.BLAKE3 == (Hash{}) {
			t.Errorf("stream %+v", s)
		}
		if held := heldBy(t, h.machine, h.dataset); held != last.Name {
			t.Errorf("held: %s", held)
		}
		h.step(t)
	}
	// Several at once, and then none.
	h.step(t)
	done, err := r.Run(t.Context())
	must(t, err)
	if len(done.Steps) != 2 || done.Steps[1].From.GUID != done.Steps[0].To.GUID {
		t.Fatalf("%+v", done)
	}
	done, err = r.Run(t.Context())
	must(t, err)
	if len(done.Steps) != 0 || done.Common.GUID != h.snapshots[6].GUID {
		t.Fatalf("%+v", done)
	}
	for i, s := range h.snapshots {
		same(t, target, r.To, s.Name, h.copies[i])
	}
	if out := target.do(t, "get", "-H", "-o", "value", "readonly,atime,mounted", r.To); out != "on\noff\nno\n" {
		t.Errorf("target: %q", out)
	}
}

// TestReplicateThroughAShell: ssh joins its arguments and the far shell splits them.
func TestReplicateThroughAShell(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 2), on(t, "target")
	argv := []string{"sh", "-c", "exec " + strings.Join(target.lab.Argv(), " ") + ` sh -c "$*"`, "ssh"}
	r := h.to(t, target)
	r.Target = reach(t, argv)
	done, err := r.Run(t.Context())
	must(t, err)
	if len(done.Steps) != 2 {
		t.Fatalf("%+v", done)
	}
	same(t, target, r.To, "s1", h.copies[1])
}

func TestReplicateOnOneMachine(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 2)
	r := h.to(t, h.machine)
	_, err := r.Run(t.Context())
	must(t, err)
	same(t, h.machine, r.To, "s1", h.copies[1])
}

// TestReplicateAfterPruning: what is common was pruned on the source, against the
// hold, or the first of those to be sent was.
func TestReplicateAfterPruning(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 3), on(t, "target")
	r := h.to(t, target)
	_, err := r.Run(t.Context())
	must(t, err)
	if out, err := h.try(t, "destroy", h.snapshots[2].String()); err == nil {
		t.Fatalf("the last common snapshot is not held: %s", out)
	}
	h.do(t, "release", holdTag("job"), h.snapshots[2].String())
	h.do(t, "destroy", h.snapshots[2].String())
	h.step(t)
	h.step(t)

	chain, err := r.Plan(t.Context())
	wants(t, err, ErrDiverged)
	if chain.Common.GUID != h.snapshots[1].GUID || namesOf(chain.Ahead) != "s2" || namesOf(chain.Send) != "s3 s4" {
		t.Fatalf("%+v", chain)
	}
	_, err = r.Run(t.Context())
	wants(t, err, ErrDiverged)
	if text := err.Error(); !strings.Contains(text, r.To+"@s2") || !strings.Contains(text, "that both have is s1") {
		t.Errorf("it does not say enough: %v", err)
	}
	same(t, target, r.To, "s2", h.copies[2])

	r.Rollback = true
	done, err := r.Run(t.Context())
	must(t, err)
	if !done.RolledBack || namesOf(done.Lost) != "s2" || len(done.Steps) != 2 {
		t.Fatalf("%+v", done)
	}
	for _, i := range []int{0, 1, 3, 4} {
		same(t, target, r.To, h.snapshots[i].Name, h.copies[i])
	}

	// One that was not sent yet is not missed.
	h.step(t)
	h.do(t, "destroy", h.snapshots[5].String())
	h.step(t)
	done, err = r.Run(t.Context())
	must(t, err)
	if len(done.Steps) != 1 || heldBy(t, h.machine, h.dataset) != "s6" {
		t.Fatalf("%+v", done)
	}
	same(t, target, r.To, "s6", h.copies[6])
}

func TestReplicateToTouchedTarget(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 1), on(t, "target")
	r := h.to(t, target)
	_, err := r.Run(t.Context())
	must(t, err)
	target.do(t, "mount", r.To)
	file := filepath.Join(target.path(r.To), "written")
	if err := os.WriteFile(file, nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing to the target: %v", err)
	}
	target.do(t, "set", "readonly=off", r.To)
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	h.step(t)

	done, err := r.Run(t.Context())
	wants(t, err, ErrTouched)
	if !strings.Contains(err.Error(), "rollback") || done.Common.GUID != h.snapshots[0].GUID {
		t.Errorf("%v, %+v", err, done)
	}
	r.Rollback = true
	done, err = r.Run(t.Context())
	must(t, err)
	if !done.RolledBack || len(done.Lost) != 0 || len(done.Steps) != 1 {
		t.Errorf("%+v", done)
	}
	same(t, target, r.To, "s1", h.copies[1])
}

func TestReplicateToStrangers(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 1), on(t, "target")
	r := h.to(t, target)
	for what, prepare := range map[string]func(dataset string){
		"another's snapshots": func(d string) { target.do(t, "snapshot", d+"@s0") },
		"none":                func(string) {},
	} {
		r.To = target.fresh(t)
		prepare(r.To)
		r.Target = &Host{runner: target.runner, patience: 100 * time.Millisecond}
		r.Rollback = true
		if _, err := r.Run(t.Context()); !errors.Is(err, ErrNoCommon) {
			t.Errorf("%s: %v", what, err)
		}
		if out := target.do(t, "list", "-H", "-o", "name", r.To); out != r.To+"\n" {
			t.Errorf("%s: the target is gone", what)
		}
	}
	r = h.to(t, target)
	r.From = h.fresh(t)
	_, err := r.Run(t.Context())
	wants(t, err, ErrNoSnapshots)
	r.From = "tank/none"
	_, err = r.Run(t.Context())
	wants(t, err, ErrNotExist)
	r.From = "-r"
	_, err = r.Run(t.Context())
	wants(t, err, ErrName)
}

// breaking is a runner whose receive is killed, as by the machine's kernel, or whose
// stream is cut off, when some bytes have come.
type breaking struct {
	Runner
	after int64
	kill  func()
}

func (b *breaking) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error {
	if slices.Contains(argv, "receive") && b.kill != nil {
		rest := stdin
		stdin = io.MultiReader(io.LimitReader(rest, b.after), readerFunc(func(p []byte) (int, error) {
			b.kill()
			return rest.Read(p)
		}))
	}
	return b.Runner.Run(ctx, stdin, stdout, argv...)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestReplicateGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	source, target := on(t, "source"), on(t, "target")
	for _, whole := range []bool{true, false} {
		for what, kill := range map[string]func(cancel context.CancelFunc, to, from string){
			"the run":     func(cancel context.CancelFunc, _, _ string) { cancel() },
			"the receive": func(_ context.CancelFunc, to, _ string) { killCommand(t, "receive", to) },
			"the send":    func(_ context.CancelFunc, _, from string) { killCommand(t, "send", from) },
		} {
			t.Run(fmt.Sprintf("%s, whole %v", what, whole), func(t *testing.T) {
				h := &history{machine: source, dataset: source.fresh(t), bulk: 4 << 20}
				h.step(t)
				r := h.to(t, target)
				if !whole {
					_, err := r.Run(t.Context())
					must(t, err)
					h.step(t)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				good := r.Target
				r.Target = &Host{runner: &breaking{Runner: good.runner, after: midway, kill: func() { kill(cancel, r.To, r.From) }}}
				r.BytesPerSecond = 64 << 20
				if _, err := r.Run(ctx); err == nil {
					t.Fatal("it was not ended")
				}
				r.Target = good
				done, err := r.Run(t.Context())
				must(t, err)
				last := h.snapshots[len(h.snapshots)-1]
				// zfs-fuse may have received all from a command that was killed.
				if len(done.Steps) > 1 || done.Common.GUID != last.GUID || heldBy(t, source, h.dataset) != last.Name {
					t.Fatalf("%+v", done)
				}
				same(t, target, r.To, last.Name, h.copies[len(h.copies)-1])
			})
		}
	}
}

// killCommand kills the zfs commands of a kind and dataset.
func killCommand(t *testing.T, kind, dataset string) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, file := range all {
		raw, _ := os.ReadFile(file)
		args := strings.Split(string(raw), "\x00")
		if len(args) < 3 || args[0] != "zfs" || args[1] != kind || !strings.Contains(string(raw), dataset) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// TestReplicateAfterACrashOfTheTarget kills ZFS itself in the middle.
func TestReplicateAfterACrashOfTheTarget(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 2), on(t, "crashing")
	r := h.to(t, target)
	chain, err := r.Plan(t.Context())
	must(t, err)
	if len(chain.Send) != 2 {
		t.Fatalf("%+v", chain)
	}
	n := 0
	good := r.Target
	r.Target = &Host{runner: &breaking{Runner: good.runner, after: midway, kill: func() {
		if n++; n == 1 {
			if err := syscall.Kill(target.lab.PID(), syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}}}
	if _, err := r.Run(t.Context()); err == nil {
		t.Fatal("it did not notice")
	}
	must(t, target.lab.Restart(t.Context()))
	r.Target = reach(t, target.lab.Argv())
	target.Host = r.Target
	_, err = r.Run(t.Context())
	must(t, err)
	same(t, target, r.To, "s0", h.copies[0])
	same(t, target, r.To, "s1", h.copies[1])
}

func TestReplicateBounded(t *testing.T) {
	t.Parallel()
	source, target := on(t, "source"), on(t, "target")
	h := &history{machine: source, dataset: source.fresh(t), bulk: 3 << 20}
	h.step(t)
	r := h.to(t, target)
	r.BytesPerSecond = 4 << 20
	began := time.Now()
	done, err := r.Run(t.Context())
	must(t, err)
	bytes := done.Steps[0].Stream.Bytes
	if want := time.Duration(0.9 * float64(bytes) / float64(r.BytesPerSecond) * float64(time.Second)); time.Since(began) < want {
		t.Errorf("%d bytes took %v, less than %v", bytes, time.Since(began), want)
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 1)
	s := h.snapshots[0]
	for range 2 {
		must(t, h.Hold(t.Context(), s, "job"))
	}
	must(t, h.Hold(t.Context(), s, "other"))
	began := time.Now()
	wants(t, h.Destroy(t.Context(), s), ErrBusy)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("that it is held took %v to find", took)
	}
	for range 2 {
		must(t, h.Release(t.Context(), s, "job"))
	}
	wants(t, h.Destroy(t.Context(), s), ErrBusy)
	must(t, h.Release(t.Context(), s, "other"))
	for range 2 {
		must(t, h.Destroy(t.Context(), s))
	}
	must(t, h.Release(t.Context(), s, "other"))
}

// TestDestroyKnowsAnother: a snapshot of the same name is not the one that was seen.
func TestDestroyKnowsAnother(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 1)
	h.do(t, "destroy", h.snapshots[0].String())
	h.do(t, "snapshot", h.snapshots[0].String())
	must(t, h.Destroy(t.Context(), h.snapshots[0]))
	h.do(t, "list", h.snapshots[0].String())
}

func TestOpenWithoutZFS(t *testing.T) {
	t.Parallel()
	r, err := NewMachine(control.Config{Kind: control.KindExec, Argv: []string{"false"}})
	must(t, err)
	_, err = Open(t.Context(), r)
	failed, ok := errors.AsType[*control.CommandError](err)
	if !ok || failed.Code != 1 {
		t.Fatalf("got %v", err)
	}
}
