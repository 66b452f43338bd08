package local

import (
	"context"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"golang.org/x/sys/unix"
)

// apply gives an open node its attributes; of a directory its times and what
// would lock the mirror out of it are noted for Finish. The order matters: a
// change of owner takes setuid and file capabilities away.
func (p *Place) apply(fd int, want entry.Entry, mode uint32) error {
	if err := p.own(fd, want, mode); err != nil {
		return err
	}
	return p.dress(fd, want, mode)
}

// applyNew is apply for what was just made here and is no directory. It often has its
// owner from the beginning, and nothing yet that a change of owner would have to take.
// Only the node itself can tell: setgid directories, mounts and shares give others.
func (p *Place) applyNew(fd int, want entry.Entry) error {
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != want.UID || st.Gid != want.GID {
		if err := p.own(fd, want, want.Mode); err != nil {
			return err
		}
	}
	return p.dress(fd, want, want.Mode)
}

// own gives an open node its owner, as far as the process may.
func (p *Place) own(fd int, want entry.Entry, mode uint32) error {
	switch {
	case p.rights.chown:
		return chown(fd, int(want.UID), int(want.GID))
	case want.Kind == entry.File && mode&unix.S_ISGID != 0:
		return chown(fd, -1, int(want.GID))
	}
	return nil
}

// dress gives an open node its attributes other than the owner.
func (p *Place) dress(fd int, want entry.Entry, mode uint32) error {
	if p.xattrs {
		if err := setXattrs(fd, want.Xattrs); err != nil {
			return err
		}
	}
	if want.Kind != entry.Symlink {
		if err := chmod(fd, mode); err != nil {
			return err
		}
	}
	if want.Kind == entry.Dir {
		return nil
	}
	return utimes(fd, want.MTime)
}

func chown(fd, uid, gid int) error {
	return retry(func() error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

func chmod(fd int, mode uint32) error {
	err := retry(func() error { return unix.Fchmod(fd, mode) })
	if err != unix.EBADF {
		return err
	}
	// It is open for looking only.
	return retry(func() error { return unix.Chmod(self(fd), mode) })
}

// utimes sets the time of the modification, and leaves that of the access.
func utimes(fd int, mtime int64) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime)}
	err := retry(func() error { return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH) })
	if err != unix.EINVAL {
		return err
	}
	// Linux before 5.8 takes no empty path.
	return retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, self(fd), times, 0) })
}

// SetAttrs gives what the place holds the attributes of want.
func (p *Place) SetAttrs(ctx context.Context, want, have entry.Entry) (entry.Entry, error) {
	e, err := p.setAttrs(ctx, want, have)
	if err != nil {
		return entry.Entry{}, &Error{"set the attributes of", have.Path, err}
	}
	return e, nil
}

func (p *Place) setAttrs(ctx context.Context, want, have entry.Entry) (e entry.Entry, err error) {
	if err := p.change(ctx); err != nil {
		return e, err
	}
	want.Path, want.Kind = have.Path, have.Kind
	if err := p.holds(want); err != nil {
		return e, err
	}
	fd, err := p.openNode(have.Path)
	if gone(err) {
		return e, changed("it is gone")
	}
	if err != nil {
		return e, err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return e, err
	}
	if differs(have, &st) {
		return e, changed("it was touched or replaced")
	}
	if have.Kind == entry.Dir {
		return p.applyDir(ctx, fd, want)
	}
	if err := p.apply(fd, want, want.Mode); err != nil {
		return e, err
	}
	e, err = p.describe(ctx, fd, have.Path)
	e.Sum = have.Sum
	return e, err
}

// MakeDir makes a directory, or gives the one that is there its attributes. What
// it gives is what is there after Finish.
func (p *Place) MakeDir(ctx context.Context, want entry.Entry) (entry.Entry, error) {
	e, err := p.makeDir(ctx, want)
	if err != nil {
		return entry.Entry{}, &Error{"make the directory", want.Path, err}
	}
	return e, nil
}

func (p *Place) makeDir(ctx context.Context, want entry.Entry) (e entry.Entry, err error) {
	if err := p.change(ctx); err != nil {
		return e, err
	}
	want.Kind = entry.Dir
	if err := p.holds(want); err != nil {
		return e, err
	}
	d, name, err := p.parent(want.Path, true)
	if err != nil {
		return e, err
	}
	defer d.close()
	// Until it has its owner nobody else looks into it.
	err = p.in(d, func() error { return unix.Mkdirat(d.fd, name, ownerAll) })
	if err != nil && err != unix.EEXIST {
		return e, err
	}
	fd, err := openat(d.fd, name, lookOnly|unix.O_DIRECTORY, 0)
	switch {
	case err == unix.ENOTDIR || err == unix.ELOOP:
		return e, changed("something else has the name")
	case gone(err):
		return e, changed("it was removed as soon as it was made")
	case err != nil:
		return e, err
	}
	defer func() { _ = unix.Close(fd) }()
	return p.applyDir(ctx, fd, want)
}

// applyDir gives an open directory its attributes, as far as what is yet to be
// written into it allows, and notes the rest.
func (p *Place) applyDir(ctx context.Context, fd int, want entry.Entry) (e entry.Entry, err error) {
	if err := p.apply(fd, want, want.Mode|ownerAll); err != nil {
		return e, err
	}
	if e, err = p.describe(ctx, fd, want.Path); err != nil {
		return e, err
	}
	n := note{path: want.Path, inode: e.Change.Inode, mtime: want.MTime, hasMTime: true, mode: want.Mode, hasMode: want.Mode&ownerAll != ownerAll}
	if err := p.notes.add(n); err != nil {
		return e, err
	}
	e.MTime = want.MTime
	if n.hasMode {
		e.Mode = want.Mode
	}
	return e, nil
}
