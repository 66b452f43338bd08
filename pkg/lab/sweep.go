package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchdogScript cleans up after a starter that was killed.
//
//go:embed watchdog.sh
var watchdogScript string

// watchdog is a process in a session of its own that waits for the end of its
// input, which comes with the end of this process however it ends, and then
// kills what still runs under the lab's directory. A parent-death signal alone
// would not do: drills restart servers that are then no children of ours, and a
// frozen server does not react.
type watchdog struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

func startWatchdog(dir string, remove bool, mounts []string) (*watchdog, error) {
	keep := "keep"
	if remove {
		keep = "remove"
	}
	cmd := exec.Command("sh", append([]string{"-c", watchdogScript, "firedrill-lab-watchdog", dir, keep}, mounts...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("lab watchdog: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, input: input}, nil
}

// stop ends the watchdog without letting it act.
func (w *watchdog) stop() {
	_ = w.cmd.Process.Kill()
	_ = w.input.Close()
	// It was killed on purpose: its status says nothing.
	_ = w.cmd.Wait()
}

// sweep kills every PostgreSQL and PgBouncer process that works under dir, in
// whatever state it is, until none is left.
func sweep(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return poll(ctx, "end the servers under "+dir, 20*time.Millisecond, func() error {
		pids := serversUnder(dir)
		for _, pid := range pids {
			// SIGKILL also ends a stopped process. One that is gone already is fine.
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return &giveUp{fmt.Errorf("kill process %d: %w", pid, err)}
			}
		}
		if len(pids) > 0 {
			return fmt.Errorf("%d processes are still there", len(pids))
		}
		return nil
	})
}

// serversUnder lists live server processes whose working directory or arguments
// lie under dir. PostgreSQL's processes all have the data directory as theirs.
func serversUnder(dir string) []int {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var out []int
	for _, p := range all {
		exe, err := os.Readlink(p + "/exe")
		if err != nil { // gone, a zombie, or somebody else's
			continue
		}
		name := strings.TrimSuffix(filepath.Base(exe), " (deleted)")
		if name != "postgres" && name != "pgbouncer" && !strings.HasPrefix(name, "pg_") {
			continue
		}
		cwd, _ := os.Readlink(p + "/cwd")
		args, _ := os.ReadFile(p + "/cmdline")
		if strings.HasPrefix(cwd+"/", dir+"/") || bytes.Contains(args, []byte(dir+"/")) {
			if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// sharedMemory finds the System V segments of the data directories under dir.
// A postmaster that is killed leaves its segment behind.
func sharedMemory(dir string) []int {
	var out []int
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "postmaster.pid"))
	if err != nil {
		return nil
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		// Line 7 is "key id".
		lines := strings.Split(string(raw), "\n")
		if len(lines) < 7 {
			continue
		}
		if f := strings.Fields(lines[6]); len(f) == 2 {
			if id, err := strconv.Atoi(f[1]); err == nil {
				out = append(out, id)
			}
		}
	}
	return out
}

// dropSharedMemory removes segments that nobody is attached to.
func dropSharedMemory(ids []int) {
	for _, id := range ids {
		var d unix.SysvShmDesc
		if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d); err == nil && d.Nattch == 0 {
			_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		}
	}
}

// abandonedSegments finds the segments of postmasters that were killed and
// whose data directories a drill has since replaced, with the files that would
// have named them. They are known by all of: made since the lab began, by the
// servers' user, of the few bytes that PostgreSQL takes, attached to by nobody,
// and their maker gone.
func abandonedSegments(since time.Time, uid int) []int {
	raw, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return nil
	}
	var out []int
	for line := range strings.Lines(string(raw)) {
		var key, id, perms, size, maker, last, attached, owner, group, by, byGroup, at, dt, made int64
		if _, err := fmt.Sscan(line, &key, &id, &perms, &size, &maker, &last, &attached, &owner, &group, &by, &byGroup, &at, &dt, &made); err != nil {
			continue // the heading
		}
		gone := errors.Is(syscall.Kill(int(maker), 0), syscall.ESRCH)
		if made >= since.Unix() && owner == int64(uid) && size < 1024 && attached == 0 && gone {
			out = append(out, int(id))
		}
	}
	return out
}
