package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Process is one process of a host.
type Process struct {
	PID    int
	Parent int
	Name   string
	// State is the letter of /proc: R, S, D, T (stopped), Z (dead, not yet
	// collected), ...
	State byte
	// Dir is its working directory; empty when it may not be read.
	Dir string
}

// Gone reports whether the process runs no more code.
func (p Process) Gone() bool { return p.State == 'Z' || p.State == 'X' }

// Stopped reports whether the process is stopped by a signal.
func (p Process) Stopped() bool { return p.State == 'T' }

// Processes lists the host's processes, in no order.
func (h *Host) Processes(ctx context.Context) ([]Process, error) {
	if h.Local() {
		return localProcesses()
	}
	out, err := h.Run(ctx, Command{Script: `ls -ld /proc/[0-9]*/cwd 2>/dev/null | sed -n 's|^.* /proc/\([0-9]*\)/cwd -> \(.*\)$|\1 \2|p'
echo --
cat /proc/[0-9]*/stat 2>/dev/null || :`})
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	dirs := map[int]string{}
	dirText, stats, _ := strings.Cut(string(out), "--\n")
	for line := range strings.Lines(dirText) {
		pid, dir, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n, err := strconv.Atoi(pid); err == nil {
			dirs[n] = dir
		}
	}
	var ps []Process
	for line := range strings.Lines(stats) {
		if p, ok := parseStat(line); ok {
			p.Dir = dirs[p.PID]
			ps = append(ps, p)
		}
	}
	return ps, nil
}

func localProcesses() ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var ps []Process
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it ended meanwhile
		}
		p, ok := parseStat(string(stat))
		if !ok {
			continue
		}
		p.Dir, _ = os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		ps = append(ps, p)
	}
	return ps, nil
}

// parseStat reads "pid (name) state ppid ...". The name may hold spaces and
// parentheses, so the last one counts.
func parseStat(line string) (Process, bool) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return Process{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[:open]))
	rest := strings.Fields(line[end+1:])
	if err != nil || len(rest) < 2 || len(rest[0]) != 1 {
		return Process{}, false
	}
	parent, err := strconv.Atoi(rest[1])
	if err != nil {
		return Process{}, false
	}
	return Process{PID: pid, Parent: parent, Name: line[open+1 : end], State: rest[0][0]}, true
}

// Tree returns root and its descendants among ps, root first.
func Tree(ps []Process, root int) []Process {
	children := map[int][]Process{}
	var out []Process
	for _, p := range ps {
		children[p.Parent] = append(children[p.Parent], p)
		if p.PID == root {
			out = append(out, p)
		}
	}
	for i := 0; i < len(out); i++ {
		for _, c := range children[out[i].PID] {
			if c.PID != root {
				out = append(out, c)
			}
		}
	}
	return out
}

// Signal sends sig to every pid, in order, as close together as it can. A pid
// that is gone is no error. On this machine it is one system call for each.
func (h *Host) Signal(ctx context.Context, sig syscall.Signal, pids ...int) error {
	if err := refusePids(sig, pids); err != nil {
		return err
	}
	if !h.Local() {
		return h.remoteSignal(ctx, sig, pids)
	}
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("signal %v to pid %d: %w", sig, pid, err))
		}
	}
	return errors.Join(errs...)
}

// refusePids keeps signals from what is never a process of a target.
func refusePids(sig syscall.Signal, pids []int) error {
	for _, pid := range pids {
		if pid <= 1 {
			return fmt.Errorf("signal %v to pid %d: refused: not a process of a target", sig, pid)
		}
	}
	return nil
}

const signalScript = `s=$1; shift; r=0
for p; do kill -"$s" "$p" 2>/dev/null || { [ -e "/proc/$p" ] && { echo "pid $p" >&2; r=1; }; }; done; exit $r`

func signalArgs(sig syscall.Signal, pids []int) []string {
	args := []string{strconv.Itoa(int(sig))}
	for _, pid := range pids {
		args = append(args, strconv.Itoa(pid))
	}
	return args
}

func (h *Host) remoteSignal(ctx context.Context, sig syscall.Signal, pids []int) error {
	_, err := h.Run(ctx, Command{What: fmt.Sprintf("signal %v", sig), Script: signalScript, Args: signalArgs(sig, pids)})
	return err
}

// Look returns those of the processes that still are, in no order. It is much
// quicker than a listing: for waiting until a signal has taken effect.
func (h *Host) Look(ctx context.Context, pids ...int) ([]Process, error) {
	var ps []Process
	if h.Local() {
		for _, pid := range pids {
			stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
			if err != nil {
				continue // it is gone
			}
			if p, ok := parseStat(string(stat)); ok {
				ps = append(ps, p)
			}
		}
		return ps, ctx.Err()
	}
	args := make([]string, len(pids))
	for i, pid := range pids {
		args[i] = strconv.Itoa(pid)
	}
	out, err := h.Run(ctx, Command{Script: `for p; do cat "/proc/$p/stat" 2>/dev/null; done; :`, Args: args})
	if err != nil {
		return nil, fmt.Errorf("look at processes: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if p, ok := parseStat(line); ok {
			ps = append(ps, p)
		}
	}
	return ps, nil
}
