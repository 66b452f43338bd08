package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// ErrUnwritable marks the error of a dry run whose run would be refused all that it was to
// write.
var ErrUnwritable = errors.New("the run would be refused what it is to write")

// unwritable is an error that is ErrUnwritable and does not say so once more.
type unwritable struct{ error }

func (e unwritable) Unwrap() []error { return []error{e.error, ErrUnwritable} }

// couldWrite tells whether the sides that a dry run would write to may be written to, as
// far as that can be known without writing: of directories it can. Of buckets it gives the
// names, as only a write tells.
func (j *Job) couldWrite(sides [2]bool) (untried []string, err error) {
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		at := j.spec.at[side]
		switch {
		case !sides[side]:
		case at.IsBucket():
			untried = append(untried, j.places[side].String())
		case at.Scheme == location.Dir:
			denied := mayChange(at.Path)
			if denied == nil {
				continue
			}
			refused := fmt.Errorf("mirror %s: the %s could not be written to: %w", j.spec.Name, side, &local.Error{Op: "write into", Path: at.Path, Err: denied})
			if _, there := os.Lstat(at.Path); there == nil {
				refused = unwritable{refused} // else a run could not even make it
			}
			err = errors.Join(err, refused)
		}
	}
	return untried, err
}

// mayChange tells why nothing can be made in a directory, or, where that is missing, the
// directory itself.
func mayChange(path string) error {
	missing := false
	for {
		err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if up := filepath.Dir(path); err == unix.ENOENT && up != path {
			path, missing = up, true
			continue
		}
		var st unix.Stat_t
		if err == unix.EACCES && !missing && unix.Stat(path, &st) == nil && int(st.Uid) == os.Geteuid() {
			return nil // A run gives itself the right, and takes it away again.
		}
		return err
	}
}
