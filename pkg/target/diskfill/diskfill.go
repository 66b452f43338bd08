// Package diskfill puts a file of a bounded size into a directory that its operator
// has set aside for it, so that a small file system is full or has less left, and
// takes it away again.
package diskfill

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

const (
	// DefaultMax is the most that is written without being told otherwise, in bytes.
	DefaultMax = 4 << 30
	// MinLeave is what is left, at least, of a file system that others need, in bytes.
	MinLeave = 1 << 20
)

// Fill is a file to write. Its methods are safe for concurrent use on different
// files.
type Fill struct {
	Host *control.Host
	// Token names the file: one word that no other fill has.
	Token string
	// Path is the directory, Allowed what it must be or lie below.
	Path    string
	Allowed []string
	// Keep are directories such as the system's data and firedrill's own, which may be
	// missing yet. A file system that holds one of them is not filled to the end: Bytes
	// or Leave must be set. Of that of / it is Bytes, whatever is left.
	Keep []string
	// Bytes is the file's size; 0 means all that is free but Leave. Max bounds it; 0
	// means DefaultMax.
	Bytes, Leave, Max int64
}

// File is the file's path on the host.
func (f Fill) File() string { return path.Join(f.Path, "."+f.Token+".fill") }

// Timer removes the file later. Its Token and After are left to the caller.
func Timer(file string) control.Timer {
	return control.Timer{Script: `rm -f -- "$1"`, Args: []string{file}}
}

// Check refuses a Path that is not allowed, without looking at the host. Its error
// is a *target.FieldError.
func (f Fill) Check() error {
	if slices.ContainsFunc(f.Allowed, func(dir string) bool { return strict.Within(f.Path, dir) }) {
		return nil
	}
	return &target.FieldError{Field: "params.path", Value: f.Path,
		Fix: fmt.Sprintf("it lies in none of the target's scratchDirs (%s): choose one, or have the operator add it to the configuration", strings.Join(f.Allowed, ", "))}
}

// diskScript prints the devices of / and of what is to be kept, and then the path's
// device and free bytes.
const diskScript = `p=$1; shift; [ -d "$p" ] && stat -c %d / || exit
for o; do while [ ! -d "$o" ]; do o=$(dirname -- "$o"); done; stat -c %d -- "$o" || exit; done
stat -c %d -- "$p" && df -P -B1 -- "$p" | sed -n 's/  */ /g;2p' | cut -d' ' -f4`

// Size is how many bytes are to be written, as things stand now. It is refused where
// it could hurt more than was asked for. It only reads.
func (f Fill) Size(ctx context.Context) (int64, error) {
	out, err := f.Host.Output(ctx, control.Command{What: "measure " + f.Path, Script: diskScript, Args: append([]string{f.Path}, f.Keep...)})
	if err != nil {
		return 0, fmt.Errorf("%s: is it a directory? %w", f.Path, err)
	}
	said := strings.Fields(out)
	at := len(f.Keep) + 1
	if len(said) != at+2 {
		return 0, fmt.Errorf("df of %s said %q", f.Path, out)
	}
	free, err := strconv.ParseInt(said[at+1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("free bytes of %s: %w", f.Path, err)
	}
	size, limit := f.Bytes, f.Max
	if limit == 0 {
		limit = DefaultMax
	}
	if size == 0 {
		switch disk := said[at]; {
		case disk == said[0]:
			return 0, &target.FieldError{Field: "params.path", Value: f.Path, Fix: "it lies on the file system of /: set params.bytes to bound the file, or choose a small file system of its own"}
		case f.Leave < MinLeave && slices.Contains(said[1:at], disk):
			return 0, &target.FieldError{Field: "params.path", Value: f.Path, Fix: fmt.Sprintf("it lies on the file system of the data or of firedrill's own directory there: set params.leave, the bytes that stay free, to %d or more, or params.bytes to bound the file, or choose a small file system of its own", MinLeave)}
		}
		size = free - f.Leave
	}
	switch {
	case size <= 0:
		return 0, fmt.Errorf("%s has %d bytes free: nothing is to be filled", f.Path, free)
	case size > limit:
		return 0, &target.FieldError{Field: "params.path", Value: f.Path, Fix: fmt.Sprintf("%d bytes would be written, more than %d: choose a smaller file system or raise params.max", size, limit)}
	case size > free:
		return 0, fmt.Errorf("%s has %d bytes free, params.bytes asks for %d", f.Path, free, size)
	}
	return size, nil
}

// fillScript writes the file. With "rest", it goes on until nothing is free; where some is to
// be left, that is so of what is free by now, as others have written meanwhile.
const fillScript = `: >"$1" || exit
n=$2; if [ "$4" -gt 0 ]; then n=$(($(df -P -B1 "$1" | sed -n 's/  */ /g;2p' | cut -d' ' -f4) - $4)); fi
if [ "$n" -gt "$2" ]; then n=$2; fi
if [ "$n" -gt 0 ]; then head -c "$n" /dev/zero >"$1" 2>/dev/null; fi
if [ "$3" = rest ]; then dd if=/dev/zero bs=4k >>"$1" 2>/dev/null; fi
stat -c %s "$1"; df -P -B1 "$1" | sed -n 's/  */ /g;2p' | cut -d' ' -f4`

// Write writes the file, size bytes as Size has found, on behalf of a conductor. The
// proof says whether it is as large, or the file system as full, as was asked for.
func (f Fill) Write(ctx context.Context, conductor control.Fence, size int64) (event.Proof, error) {
	rest, leave := "exact", f.Leave
	if f.Bytes > 0 {
		leave = 0
	} else if leave == 0 {
		rest = "rest"
	}
	out, err := f.Host.Output(ctx, control.Command{What: "fill " + f.File(), Script: conductor.Guard(fillScript), Args: []string{f.File(), strconv.FormatInt(size, 10), rest, strconv.FormatInt(leave, 10)}})
	if err != nil {
		return event.Proof{}, err
	}
	var wrote, free int64
	if _, err := fmt.Sscan(out, &wrote, &free); err != nil {
		return event.Proof{}, fmt.Errorf("after filling %s: %q: %w", f.File(), out, err)
	}
	p := event.Proof{How: "the file's size and the file system's free bytes",
		Observations: []string{fmt.Sprintf("%s has %d bytes; %d bytes are free", f.File(), wrote, free)}}
	if f.Bytes > 0 {
		p.Proven = wrote == size
	} else {
		// Others go on writing and deleting there.
		p.Proven = wrote > 0 && free <= f.Leave+max(64<<10, f.Leave/4)
	}
	return p, nil
}

// Remove removes the file of a fill by its token, and reports whether it was there.
// Any other file is refused.
func Remove(ctx context.Context, h *control.Host, token, file string) (bool, error) {
	if path.Base(file) != "."+token+".fill" {
		return false, fmt.Errorf("%s is not a file of this fault: refused", file)
	}
	out, err := h.Output(ctx, control.Command{What: "remove " + file, Script: `[ -e "$1" ] && rm -f -- "$1" && echo removed; [ ! -e "$1" ]`, Args: []string{file}})
	return out == "removed", err
}
