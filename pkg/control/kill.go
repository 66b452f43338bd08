package control

import (
	"context"
	"errors"
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
// and killed when none runs: as in a loss of power.
//
// It is one script on the processes' machine, which goes on to the SIGKILL if
// firedrill ends meanwhile, or ctx does: nothing stays stopped.
//
// together is true when all were stopped before the first one was killed: none ran
// code of its own after KillFenced has returned. Otherwise that holds only once
// they are gone. A pid that is gone already is no error.
func (h *Host) KillFenced(ctx context.Context, f Fence, pids ...int) (together bool, err error) {
	if err := errors.Join(ctx.Err(), refusePids(syscall.SIGKILL, pids)); err != nil {
		return false, err
	}
	// Whoever gives up waiting must not leave them stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTime)
	defer cancel()
	c := Command{What: "kill at one moment", Script: killScript}
	for _, pid := range pids {
		c.Args = append(c.Args, strconv.Itoa(pid))
	}
	var out string
	run := func() error {
		out, err = h.Output(ctx, c)
		return err
	}
	if f.Epoch == 0 {
		err = run()
	} else if err = f.check(); err != nil {
		return false, err
	} else if h.Local() {
		err = f.locked(ctx, func(fenceMemory) error { return run() })
	} else {
		c.Script = "d=$1 n=$2 e=$3; shift 3\n" + fenceLock + fenceCheck + killScript
		c.Args = append([]string{f.Dir, f.Name, strconv.FormatInt(f.Epoch, 10)}, c.Args...)
		err = run()
	}
	return strings.Contains(out, "left=0"), err
}
