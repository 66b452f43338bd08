package job

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A directory may be mounted at several places, whole or in part, so that the paths of two
// directories do not say whether one holds the other.

// apart refuses places that lie within each other, by whatever names, or hold the mirror's own
// state. It makes nothing, so that nothing is left where it refuses.
func (j *Job) apart() error {
	s := &j.spec
	from, to := j.env.Settled(s.at[plan.Source]), j.env.Settled(s.at[plan.Dest])
	for _, at := range []location.Location{from, to} {
		if at.Scheme != location.Dir {
			continue
		}
		if err := j.stateApart(at.Path); err != nil {
			return err
		}
	}
	switch {
	case location.Overlap(from, to):
		return &SpecError{s.Name, "to", fmt.Sprintf("%s and %s lie within each other: %s and %s", s.From, s.To, from, to), "name places that are apart"}
	case from.Scheme == location.Dir && to.Scheme == location.Dir && j.mountedWithin(from.Path, to.Path):
		return &SpecError{s.Name, "to", fmt.Sprintf("%s and %s lie within each other, as the same is mounted at both", s.From, s.To), "name directories that are apart"}
	}
	return nil
}

// twoPlaces refuses places that say they are one.
func (j *Job) twoPlaces() error {
	one, other := j.places[plan.Source].Traits().Identity, j.places[plan.Dest].Traits().Identity
	if one == "" || one != other {
		return nil
	}
	return &SpecError{j.spec.Name, "to", fmt.Sprintf("%s and %s are two names of one place", j.spec.From, j.spec.To), "name places that are apart"}
}

// stateApart refuses a directory that takes what the mirror itself writes for a part
// of what it mirrors: it would never come to an end of it, and might delete it.
func (j *Job) stateApart(root string) error {
	state, err := filepath.EvalSymlinks(j.Dir())
	if err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	inside, err := filepath.Rel(root, state)
	if err != nil || inside == ".." || strings.HasPrefix(inside, "../") || j.leavesOut(inside) {
		return nil // apart
	}
	return &SpecError{j.spec.Name, "filter", fmt.Sprintf("the mirror's own state, %s, lies in %s", state, root),
		fmt.Sprintf("keep the state elsewhere, or leave it out with \"- /%s/\"", filepath.ToSlash(inside))}
}

// leavesOut reports whether the filter leaves out a directory, or one that it lies in.
func (j *Job) leavesOut(dir string) bool {
	for ; dir != "."; dir = filepath.Dir(dir) {
		if !j.spec.filter.Match(dir, entry.Dir) {
			return true
		}
	}
	return false
}

// mountedWithin reports whether one of two directories, named without links, lies in the other
// by what is mounted. Where a part of one is mounted elsewhere the way up does not lead to it,
// and the table of mounts tells, which a process in a chroot does not see in full.
func (j *Job) mountedWithin(a, b string) bool {
	if below(a, b) || below(b, a) {
		return true
	}
	table := mounts()
	at, there := j.seats(table, a)
	bt, thereToo := j.seats(table, b)
	return there && thereToo && (seated(bt[0], at) || seated(at[0], bt))
}

// below reports whether a directory, or what there is of the way to it, is another one or lies
// in it.
func below(path, other string) bool {
	var st, up unix.Stat_t
	if unix.Stat(other, &st) != nil {
		return false
	}
	for ; ; path = filepath.Dir(path) {
		if unix.Stat(path, &up) == nil && up.Dev == st.Dev && up.Ino == st.Ino {
			return true
		}
		if path == "/" {
			return false
		}
	}
}

// seat is where something lies in its file system, wherever that is mounted.
type seat struct{ device, path string }

// seated reports whether something lies in one of the seats.
func seated(s seat, seats []seat) bool {
	for _, one := range seats {
		if one.device == s.device && (one.path == "/" || strings.HasPrefix(s.path+"/", one.path+"/")) {
			return true
		}
	}
	return false
}

// mounted is a line of mountinfo, see proc_pid_mountinfo(5).
type mounted struct {
	id uint64
	// root is what of the file system is mounted at a path.
	root seat
	at   string
}

// mounts gives what is mounted; nothing where that is not told.
func mounts() (all []mounted) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	escaped := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if id, err := strconv.ParseUint(f[0], 10, 64); err == nil {
			all = append(all, mounted{id: id, root: seat{f[2], escaped.Replace(f[3])}, at: escaped.Replace(f[4])})
		}
	}
	return all
}

// seats are where a directory lies, and, behind that, what is mounted in it and takes part;
// false where that is not known.
func (j *Job) seats(table []mounted, dir string) (all []seat, known bool) {
	id, ok := mountOf(dir)
	for _, m := range table {
		if ok && m.id == id {
			all = append([]seat{{m.root.device, filepath.Join(m.root.path, strings.TrimPrefix(dir, m.at))}}, all...)
			known = true
			continue
		}
		if inside, in := strings.CutPrefix(m.at, dir+"/"); in && !j.spec.OneFileSystem && !j.leavesOut(inside) {
			all = append(all, m.root)
		}
	}
	return all, known
}

// mountOf is the mount that a directory lies in, or would.
func mountOf(dir string) (id uint64, ok bool) {
	for ; ; dir = filepath.Dir(dir) {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_MNT_ID, &st)
		if err == nil {
			return st.Mnt_id, st.Mask&unix.STATX_MNT_ID != 0
		}
		if dir == "/" {
			return 0, false
		}
	}
}
