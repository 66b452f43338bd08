package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/filelock"
	"github.com/firedrill/firedrill/pkg/lazy"
)

// Timer is a script that a host runs by itself later, also when whoever set it
// is gone: a dead-man's switch.
type Timer struct {
	// Token is the absolute path of a file whose presence keeps the timer alive; its
	// directory is made. One token belongs to one timer. The lock beside it is only
	// firedrill's user's there to open: whoever holds it keeps timers from being set.
	Token string
	// After is the delay. A timer never fires early; it may fire up to three
	// seconds late, since a portable shell counts whole seconds, unless the
	// host's clock is set meanwhile.
	After time.Duration
	// Script and Args are run by sh when the time has come.
	Script string
	Args   []string
}

// watcher is the script that waits. It looks at its token each second, and ends when that is gone
// or another timer's: cancelling needs no pid, which might be another process's by
// then. Only removing the token, which one of two racers can do, fires, and that
// happens under a lock that Disarm takes too: see there.
const watcher = `t=$1 n=$2 e=$3 s=$4; shift 4
while [ "$(date +%s)" -lt "$e" ]; do [ "$(cat "$t" 2>/dev/null)" = "$n" ] || exit 0; sleep 1; done
exec 8<"${t%/*}/timers.lock" && flock 8 || exit 1
[ "$(cat "$t" 2>/dev/null)" = "$n" ] && rm -- "$t" && exec sh -c "$s" sh "$@"`

// seconds is how many whole ones a timer's watcher has to wait, from the second that
// the clock shows: that one has begun, so one more is counted.
func (t Timer) seconds() int64 { return int64((t.After+time.Second-1)/time.Second) + 1 }

// Arm sets the timer. It is set when Arm returns; arming a token again replaces
// its timer.
func (h *Host) Arm(ctx context.Context, t Timer) error {
	err := h.arm(ctx, t)
	if err != nil {
		return fmt.Errorf("arm timer %s: %w", t.Token, err)
	}
	return nil
}

func (h *Host) arm(ctx context.Context, t Timer) error {
	if h.Local() {
		return t.armHere(ctx)
	}
	_, err := h.Run(ctx, Command{
		What: "arm a timer",
		Script: `w=$1 t=$2 secs=$3 d=${2%/*}; shift 3; umask 077
{ [ -d "$d" ] || mkdir -p -m 0755 -- "$d"; } && : >>"$d/timers.lock" || exit 1
exec 8<"$d/timers.lock" && flock -w 30 8 || { echo "a timer's script did not end within 30 s" >&2; exit 1; }
now=$(date +%s.%N) && n="$$-$now"
printf '%s\n' "$n" >"$t" || exit 1
setsid sh -c "$w" firedrill-timer "$t" "$n" "$((${now%.*} + secs))" "$@" </dev/null >/dev/null 2>&1 8<&- &
exit 0`,
		Args: append([]string{watcher, t.Token, strconv.FormatInt(t.seconds(), 10), t.Script}, t.Args...),
	})
	return err
}

// armHere does on this machine what the script does elsewhere, and starts one process
// instead of six: it stands right before the fault.
func (t Timer) armHere(ctx context.Context) error {
	dir := filepath.Dir(t.Token)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := openPlain(filepath.Join(dir, "timers.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = filelock.LetGo(lock) }() // nothing was written to it
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("a timer's script did not end within 30 s"))
	defer cancel()
	if err := filelock.Wait(ctx, lock, time.Millisecond); err != nil {
		return err
	}
	now := time.Now()
	id := fmt.Sprintf("%d-%d", os.Getpid(), now.UnixNano())
	if err := t.note(id); err != nil {
		return err
	}
	if err := t.start(ctx, id, now.Unix()+t.seconds()); err != nil {
		return errors.Join(err, os.Remove(t.Token)) // without a watcher nothing is armed
	}
	return nil
}

// note writes which timer the token belongs to.
func (t Timer) note(id string) error {
	f, err := openPlain(t.Token, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(id + "\n")
	return errors.Join(err, f.Close())
}

// start starts the watcher in a session of its own. A shell does so and ends: the
// watcher outlives firedrill, and is nobody's child to wait for.
func (t Timer) start(ctx context.Context, id string, end int64) error {
	cmd := (&Host{}).prepare(ctx, Command{
		Script: `sh -c "$@" &`,
		Args:   append([]string{watcher, "firedrill-timer", t.Token, id, strconv.FormatInt(end, 10), t.Script}, t.Args...),
	})
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start its watcher: %w", err)
	}
	return nil
}

// Disarm cancels a timer; one that ran or never was is no error. When it
// returns, the timer's script has run to its end or will never begin: what is
// done next cannot be crossed by it.
func (h *Host) Disarm(ctx context.Context, token string) error {
	_, err := h.DisarmAll(ctx, filepath.Dir(token), filepath.Base(token))
	return err
}

// tokenPattern is what may name tokens in DisarmAll: a shell expands it unquoted.
var tokenPattern = lazy.Regexp(`^[-_.A-Za-z0-9?*]+$`)

// DisarmAll is Disarm for every timer whose token lies in dir under a name that
// the shell pattern fits, with ? and *. It returns the names of those that were
// armed, sorted.
func (h *Host) DisarmAll(ctx context.Context, dir, pattern string) ([]string, error) {
	if !tokenPattern().MatchString(pattern) {
		return nil, fmt.Errorf("disarm timers %q in %s: use letters, digits, - _ . ? and * in the name", pattern, dir)
	}
	out, err := h.Run(ctx, Command{
		What: "disarm timers " + pattern + " in " + dir,
		Script: `[ -e "$1" ] || exit 0
cd -- "$1" || exit 1
if [ -e timers.lock ]; then exec 8<timers.lock && flock -w 30 8 || { echo "a timer's script did not end within 30 s" >&2; exit 1; }; fi
for t in $2; do [ ! -e "$t" ] || { rm -- "$t" && printf '%s\n' "$t"; } || exit 1; done`,
		Args: []string{dir, pattern},
	})
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(out)), nil
}

// Armed reports whether a timer still waits.
func (h *Host) Armed(ctx context.Context, token string) (bool, error) {
	_, err := h.Run(ctx, Command{Script: `[ -e "$1" ] || exit 44`, Args: []string{token}})
	if err != nil {
		if exitCode(err) == notThere {
			return false, nil
		}
		return false, err
	}
	return true, nil
}
