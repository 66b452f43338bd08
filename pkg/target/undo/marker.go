package undo

import (
	"context"
	"fmt"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
)

// Marker is a file that tells which fault is outstanding on a system: its token, and
// below that what it did, line by line, in words of the driver's own. It is for systems
// of which two faults at a time could break more than is meant to break: there is one
// fault at a time, from before its effect until it is undone, by whomever.
type Marker struct {
	Machine Machine
	// File lies in a directory that is made when missing.
	File string
}

// locked takes the marker's lock until the shell ends; $marker is the file.
const locked = `mkdir -p -- "${marker%/*}" && exec 9>>"$marker.lock" && flock 9 || exit 1
`

const leaveScript = `marker=$1; ` + locked + `if [ -e "$marker" ]; then
  read -r other <"$marker"; [ "$other" = "$2" ] || { echo "another fault, $other, is not undone yet" >&2; exit 1; }
fi
shift; printf '%s\n' "$@" >"$marker.new" && sync -- "$marker.new" && mv -- "$marker.new" "$marker"`

// Leave leaves the marker of an operation, unless another fault's is there. It waits
// while a Mend is under way. A step that leaves its marker again replaces it.
func (m Marker) Leave(ctx context.Context, op target.Operation, token string, lines ...string) error {
	_, err := m.Machine.Host.Run(ctx, control.Command{
		What: "leave a marker", Script: m.Machine.Fence(op).Guard(leaveScript), Args: append([]string{m.File, token}, lines...),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", m.Machine.Name, err)
	}
	return nil
}

// Mend makes of a script that undoes a fault, and exits with an error unless it did, one
// that takes the fault's marker away in the end. Those of one marker take turns, such as
// an undo and a timer. $marker and $token are set in the script; its own arguments
// follow what Args puts before them. What it starts and leaves running must not get file
// descriptor 9, which is the lock.
func (m Marker) Mend(script string) string {
	return `marker=$1 token=$2; shift 2; ` + locked + script + `
[ $? = 0 ] || exit 1
[ ! -e "$marker" ] || { read -r is <"$marker" && [ "$is" != "$token" ] || rm -f -- "$marker"; }`
}

// Args are the arguments of a script that Mend made, for the fault with a token.
func (m Marker) Args(token string, args ...string) []string {
	return append([]string{m.File, token}, args...)
}
