package control

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Timer is a script that a host runs by itself later, also when whoever set it
// is gone: a dead-man's switch.
type Timer struct {
	// Token is the path of a file whose presence keeps the timer alive; its
	// directory is made. One token belongs to one timer.
	Token string
	// After is the delay. A timer never fires early; it may fire up to three
	// seconds late, since a portable shell counts whole seconds.
	After time.Duration
	// Script and Args are run by sh when the time has come.
	Script string
	Args   []string
}

// Arm sets the timer. It is set when Arm returns; arming a token again replaces
// its timer.
func (h *Host) Arm(ctx context.Context, t Timer) error {
	secs := int64((t.After + time.Second - 1) / time.Second)
	// The watcher looks at its token each second, and ends when it is gone or
	// another timer's: cancelling needs no pid, which might be another process's
	// by then. Only removing the token, which one of two racers can do, fires.
	// The clock is read in whole seconds, so one more is waited than was asked.
	const watch = `t=$1 n=$2 e=$3 s=$4; shift 4
while [ "$(date +%s)" -lt "$e" ]; do [ "$(cat "$t" 2>/dev/null)" = "$n" ] || exit 0; sleep 1; done
[ "$(cat "$t" 2>/dev/null)" = "$n" ] && rm -- "$t" && exec sh -c "$s" sh "$@"`
	_, err := h.Run(ctx, Command{
		Script: `w=$1 t=$2 secs=$3; shift 3
d=$(dirname -- "$t") && { [ -d "$d" ] || mkdir -p -m 0755 -- "$d"; } || exit 1
n="$$-$(date +%s%N)"
printf '%s\n' "$n" >"$t" || exit 1
setsid sh -c "$w" firedrill-timer "$t" "$n" "$(($(date +%s) + secs + 1))" "$@" </dev/null >/dev/null 2>&1 &
exit 0`,
		Args: append([]string{watch, t.Token, strconv.FormatInt(secs, 10), t.Script}, t.Args...),
	})
	if err != nil {
		return fmt.Errorf("arm timer %s: %w", t.Token, err)
	}
	return nil
}

// Disarm cancels a timer; one that ran or never was is no error. The watching
// process ends within a second.
func (h *Host) Disarm(ctx context.Context, token string) error {
	if err := h.Remove(ctx, token); err != nil {
		return fmt.Errorf("disarm timer: %w", err)
	}
	return nil
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
