package control

import (
	"context"
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
)

// killScript stops every process, the first one first, waits until all are
// stopped, and then kills them. It looks some hundred times, milliseconds in all,
// and kills in any case: a process that waits for a disk does not stop. Only what
// the shell itself can do is used, so that nothing is started in between.
const killScript = `for p; do kill -STOP "$p" 2>/dev/null; done
i=0 left=1
while [ "$left" = 1 ] && [ "$i" -lt 100 ]; do
  i=$((i + 1)) left=0
  for p; do
    { read -r stat <"/proc/$p/stat"; } 2>/dev/null || continue
    stat=${stat##*) }
    case $stat in [TtZX]*) ;; *) left=1; break;; esac
  done
done
for p; do kill -KILL "$p" 2>/dev/null; done
r=0
for p; do kill -0 "$p" 2>/dev/null || [ ! -e "/proc/$p" ] || { echo "pid $p: not permitted" >&2; r=1; }; done
echo "left=$left"; exit $r`

// killTime bounds KillFenced: the script takes milliseconds, the way to it may hang.
const killTime = 30 * time.Second

// KillFenced ends processes at one moment, by a conductor (see SignalFenced).
// Signals reach processes one after the other, and a process takes milliseconds to
// end, during which the others would go on and answer clients, or notice that one
// of them is gone. One that is told to stop does so at once. So all are stopped,
// and killed when none runs: as in a loss of power. They are killed too if
// firedrill ends meanwhile, or ctx does: nothing stays stopped.
//
// begin is called right before the first signal, or before the script that sends it
// starts on its way. together is true when all were
// stopped before the first one was killed: none ran code of its own after KillFenced
// has returned. Otherwise that holds only once they are gone. A pid that is gone
// already is no error.
func (h *Host) KillFenced(ctx context.Context, f Fence, begin func(), pids ...int) (together bool, err error) {
	if err := errors.Join(ctx.Err(), refusePids(syscall.SIGKILL, pids)); err != nil {
		return false, err
	}
	if f.Epoch > 0 {
		if err := f.check(); err != nil {
			return false, err
		}
	}
	// Whoever gives up waiting must not leave them stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTime)
	defer cancel()
	switch {
	case !h.Local():
		begin()
		return h.killByScript(ctx, f, pids)
	case f.Epoch == 0:
		return h.killHere(ctx, begin, pids)
	}
	err = f.locked(ctx, func(fenceMemory) error {
		together, err = h.killHere(ctx, begin, pids)
		return err
	})
	return together, err
}

// killByScript runs one script on the processes' machine, which goes on to the
// SIGKILL by itself.
func (h *Host) killByScript(ctx context.Context, f Fence, pids []int) (together bool, err error) {
	c := Command{What: "kill at one moment", Script: killScript}
	if f.Epoch > 0 {
		c.Script = "d=$1 n=$2 e=$3; shift 3\n" + fenceLock + fenceCheck + killScript
		c.Args = []string{f.Dir, f.Name, strconv.FormatInt(f.Epoch, 10)}
	}
	c.Args = append(c.Args, words(pids)...)
	out, err := h.Output(ctx, c)
	return strings.Contains(out, "left=0"), err
}

// killHere does on this machine what the script does elsewhere, without a shell's
// time between the signals. A process that was started before waits for the end of
// this one, to kill them then.
func (h *Host) killHere(ctx context.Context, begin func(), pids []int) (together bool, err error) {
	heir := exec.CommandContext(ctx, "sh", append([]string{"-c", `read -r said; [ "$said" = done ] || kill -KILL "$@"`, "sh"}, words(pids)...)...)
	heir.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's signals are not for it
	tell, err := heir.StdinPipe()
	if err != nil {
		return false, err
	}
	if err := heir.Start(); err != nil {
		return false, fmt.Errorf("kill at one moment: %w", err)
	}
	begin()
	err = h.Signal(ctx, syscall.SIGSTOP, pids...)
	for began := time.Now(); err == nil && !together && time.Since(began) < stopTime; {
		if together = allStopped(pids); !together {
			time.Sleep(100 * time.Microsecond)
		}
	}
	err = errors.Join(err, h.Signal(ctx, syscall.SIGKILL, pids...))
	_, werr := io.WriteString(tell, "done\n")
	return together, errors.Join(err, werr, tell.Close(), heir.Wait())
}

// stopTime is how long processes get to stop: one that waits for a disk does not.
const stopTime = 100 * time.Millisecond

// allStopped reports whether none of this machine's processes runs.
func allStopped(pids []int) bool {
	for _, pid := range pids {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			continue // it is gone
		}
		if p, ok := parseStat(string(stat)); ok && !p.Stopped() && !p.Gone() {
			return false
		}
	}
	return true
}

func words(pids []int) []string {
	out := make([]string, len(pids))
	for i, pid := range pids {
		out[i] = strconv.Itoa(pid)
	}
	return out
}
