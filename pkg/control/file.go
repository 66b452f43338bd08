package control

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strconv"
)

// notThere is the exit status with which scripts say that a file is missing.
const notThere = 44

// ReadFile returns a file's content; a missing file is ErrNotExist.
func (h *Host) ReadFile(ctx context.Context, path string) ([]byte, error) {
	if h.Local() {
		return os.ReadFile(path)
	}
	b, err := h.Run(ctx, Command{Script: `[ -e "$1" ] || exit 44; cat -- "$1"`, Args: []string{path}})
	return b, missing(path, err)
}

// WriteFile replaces a file at once: readers see the old content or the new.
// An existing file keeps its owner and mode; a new one gets mode, and owner
// unless that is empty.
func (h *Host) WriteFile(ctx context.Context, path string, data []byte, mode fs.FileMode, owner string) error {
	_, err := h.Run(ctx, Command{
		Script: `f=$(readlink -f -- "$1") || f=$1
t="$f.firedrill-new"
rm -f -- "$t"
if [ -e "$f" ]; then cp -p -- "$f" "$t"; else (umask 077; : >"$t") && chmod "$2" "$t" && { [ -z "$3" ] || [ "$(id -un)" = "$3" ] || chown "$3" "$t"; }; fi || exit 1
cat >"$t" && sync "$t" && mv -f -- "$t" "$f"`,
		Args:  []string{path, strconv.FormatUint(uint64(mode.Perm()), 8), owner},
		Stdin: append([]byte{}, data...),
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Tail returns the last n bytes of a file, and whether there was more before.
func (h *Host) Tail(ctx context.Context, path string, n int) ([]byte, bool, error) {
	b, err := h.Run(ctx, Command{
		Script: `[ -e "$1" ] || exit 44; tail -c "$2" -- "$1"`,
		Args:   []string{path, strconv.Itoa(n + 1)},
	})
	if err != nil {
		return nil, false, missing(path, err)
	}
	if len(b) > n {
		return b[len(b)-n:], true, nil
	}
	return b, false, nil
}

// Remove removes a file; a missing one is no error.
func (h *Host) Remove(ctx context.Context, path string) error {
	_, err := h.Run(ctx, Command{Script: `rm -f -- "$1"`, Args: []string{path}})
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

func missing(path string, err error) error {
	if err == nil {
		return nil
	}
	if exitCode(err) == notThere {
		return fmt.Errorf("%s: %w", path, ErrNotExist)
	}
	return fmt.Errorf("read %s: %w", path, err)
}
