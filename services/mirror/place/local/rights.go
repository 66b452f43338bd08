package local

import (
	"context"
	"fmt"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

var _ place.Righter = (*Place)(nil)

// SetRights gives what the place holds the mode and the owner of want. A link has no mode.
func (p *Place) SetRights(ctx context.Context, want, have entry.Entry) (entry.Entry, error) {
	e, err := p.setRights(ctx, want, have)
	if err != nil {
		return entry.Entry{}, &Error{"set the permissions of", have.Path, err}
	}
	return e, nil
}

func (p *Place) setRights(ctx context.Context, want, have entry.Entry) (e entry.Entry, err error) {
	if p.o.ReadOnly && !p.o.Rights {
		return e, place.ErrReadOnly
	}
	if err := p.touch(ctx); err != nil {
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
	mode := want.Mode
	if have.Kind == entry.Dir {
		// What lies in it is yet to be looked at, and maybe to be set.
		mode |= ownerAll
	}
	if err := give(fd, want, mode, &st); err != nil {
		return e, err
	}
	if mode != want.Mode && have.Kind == entry.Dir {
		// Whatever comes between, it does not stay as open as that.
		if err := p.notes.add(note{path: have.Path, inode: st.Ino, mode: want.Mode, hasMode: true}); err != nil {
			return e, err
		}
	}
	if e, err = p.describe(ctx, fd, have.Path); err != nil {
		return e, err
	}
	if have.Kind != entry.Symlink && e.Mode != mode {
		return e, notSetgid(e.Mode, mode, e.GID)
	}
	e.Sum = have.Sum
	if have.Kind == entry.Dir {
		e.Mode = want.Mode
	}
	return e, nil
}

// notSetgid says why the kernel took a bit from a mode.
func notSetgid(is, want, gid uint32) error {
	return fmt.Errorf("%w: it has the mode %04o, not %04o: this user is not in the group %d", ErrPrivilege, is, want, gid)
}

// MaySetRights tells why the kernel would not let this process set the mode and the owner of
// want; nil if it would, but for what only trying tells, such as an immutable flag.
func (p *Place) MaySetRights(want, have entry.Entry) error {
	r, owns := p.rights, have.UID == p.rights.uid
	var err error
	switch {
	case r.chown:
	case want.UID != have.UID, want.GID != have.GID && !(owns && r.hasGroup(want.GID)):
		err = unix.EPERM
	}
	switch {
	case err != nil || have.Kind == entry.Symlink || want.Mode == have.Mode && want.UID == have.UID && want.GID == have.GID:
	case !owns && !r.fowner && want.Mode != have.Mode:
		err = unix.EPERM
	case want.Mode&unix.S_ISGID != 0 && !r.fsetid && !r.hasGroup(want.GID):
		err = notSetgid(want.Mode&^unix.S_ISGID, want.Mode, want.GID)
	}
	if err != nil {
		return &Error{"set the permissions of", have.Path, err}
	}
	return nil
}

// give gives an open node what it has not of an owner and a mode.
func give(fd int, want entry.Entry, mode uint32, st *unix.Stat_t) error {
	uid, gid := -1, -1
	if want.UID != st.Uid {
		uid = int(want.UID)
	}
	if want.GID != st.Gid {
		gid = int(want.GID)
	}
	moved := uid >= 0 || gid >= 0
	if moved {
		if err := chown(fd, uid, gid); err != nil {
			return err
		}
	}
	// Behind the owner, whose change takes setuid and setgid away.
	if kindOf(st.Mode) == entry.Symlink || !moved && st.Mode&0o7777 == mode {
		return nil
	}
	return chmod(fd, mode)
}
