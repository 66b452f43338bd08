package local

import (
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

var errTarget = errors.New("a link points to between 1 and 4,095 bytes without NUL")

// reportHolds is Traits.Holds.
func (p *Place) reportHolds(e entry.Entry) error {
	if err := p.holds(e); err != nil {
		return &Error{"hold", e.Path, err}
	}
	return nil
}

// holds tells why an entry cannot be written here, as far as that can be known
// without trying.
func (p *Place) holds(e entry.Entry) error {
	if err := p.holdsName(e.Path); err != nil {
		return err
	}
	if p.o.Unprivileged {
		if err := p.lends(e); err != nil {
			return err
		}
	}
	switch e.Kind {
	case entry.File:
		return p.holdsOwner(e)
	case entry.Symlink:
		if n := len(e.Target); n == 0 || n >= unix.PathMax || strings.IndexByte(e.Target, 0) >= 0 {
			return errTarget
		}
	case entry.CharDevice, entry.BlockDevice:
		if !p.rights.mknod {
			return fmt.Errorf("%w: it is a device", ErrPrivilege)
		}
	case entry.Dir, entry.Fifo, entry.Socket:
	default:
		return fmt.Errorf("%w: its kind is %s", unix.ENOTSUP, e.Kind)
	}
	return nil
}

func (p *Place) holdsName(path string) error {
	for name := range strings.SplitSeq(path, "/") {
		switch {
		case name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0:
			return &entry.NameError{Name: path, Reason: fmt.Sprintf("%q is no name of a file", name)}
		case len(name) > p.nameMax:
			return &entry.NameError{Name: path, Reason: fmt.Sprintf("the component %q has %d bytes and the file system holds %d: rename it at the source", name, len(name), p.nameMax)}
		case name == place.Trash:
			return &entry.NameError{Name: path, Reason: place.ErrReserved.Error()}
		case isTemp(name):
			return &entry.NameError{Name: path, Reason: place.ErrTemporary.Error()}
		}
	}
	return nil
}

// holdsOwner refuses a file that would run with the rights of someone else than
// it does at the source.
func (p *Place) holdsOwner(e entry.Entry) error {
	switch {
	case p.rights.chown:
	case e.Mode&unix.S_ISUID != 0 && e.UID != p.rights.uid:
		return fmt.Errorf("%w: it is setuid and of the user %d, whom it cannot be given to", ErrPrivilege, e.UID)
	case e.Mode&unix.S_ISGID != 0 && !p.rights.hasGroup(e.GID):
		return fmt.Errorf("%w: it is setgid and of the group %d, which it cannot be given to", ErrPrivilege, e.GID)
	}
	return nil
}

// lends refuses what gives rights to whoever says that it is so. A directory that is setgid
// gives none.
func (p *Place) lends(e entry.Entry) error {
	switch {
	case e.Kind == entry.CharDevice || e.Kind == entry.BlockDevice:
		return fmt.Errorf("%w: it is a %s", ErrLends, e.Kind)
	case e.Kind == entry.File && e.Mode&(unix.S_ISUID|unix.S_ISGID) != 0:
		return fmt.Errorf("%w: it has the mode %04o", ErrLends, e.Mode)
	case !p.xattrs:
		return nil
	}
	for name := range e.Xattrs {
		if strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "trusted.") {
			return fmt.Errorf("%w: it has the attribute %q", ErrLends, name)
		}
	}
	return nil
}
