package scan

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"golang.org/x/sys/unix"
)

// kindOf is the kind that the mode of stat(2) has.
func kindOf(mode uint32) entry.Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return entry.Dir
	case unix.S_IFLNK:
		return entry.Symlink
	case unix.S_IFIFO:
		return entry.Fifo
	case unix.S_IFSOCK:
		return entry.Socket
	case unix.S_IFCHR:
		return entry.CharDevice
	case unix.S_IFBLK:
		return entry.BlockDevice
	}
	return entry.File
}

// fill sets what stat(2) tells of an entry. Sizes of directories and the like are
// those of the file system's own data and say nothing about the content.
func fill(e *entry.Entry, st *unix.Stat_t, fs entry.FSID) {
	e.Kind = kindOf(st.Mode)
	e.Mode = st.Mode & 0o7777
	e.UID, e.GID = st.Uid, st.Gid
	e.MTime = st.Mtim.Nano()
	e.Change = entry.Change{FS: fs, Inode: st.Ino, CTime: st.Ctim.Nano()}
	e.Size, e.Device = 0, 0
	switch e.Kind {
	case entry.File:
		e.Size = st.Size
	case entry.CharDevice, entry.BlockDevice:
		e.Device = uint64(st.Rdev)
	}
}

// look learns everything of one name in a directory except a directory's
// entries. The entry has its path and kind before. What could not be learnt is in the
// error, and the entry has the rest.
func (d *dir) look(e *entry.Entry, it *item, withXattrs bool) (err error) {
	var st unix.Stat_t
	if err := lstatat(d.fd, it.name, &st); err != nil {
		return &Error{"look at", e.Path, err}
	}
	fill(e, &st, d.fs)
	if (e.Kind == entry.Dir) != (it.kind == entry.Dir) {
		// Its place in the order is another one now.
		return &Error{"look at", e.Path, ErrChanged}
	}
	if e.Kind == entry.Symlink {
		e.Target, err = readlinkat(d.fd, it.name, st.Size)
		if err == unix.EINVAL {
			err = ErrChanged // It is a link no more.
		}
		if err != nil {
			return &Error{"read the link", e.Path, err}
		}
		e.Size = int64(len(e.Target))
	}
	if withXattrs && e.Kind != entry.Dir {
		// Through the descriptor's own link nothing but the last name is looked up,
		// and that is not followed. There is no listxattrat(2) before Linux 6.13.
		if e.Xattrs, err = xattrs(fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, it.name)); err != nil {
			return &Error{"read the extended attributes of", e.Path, err}
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// xattrs reads all extended attributes; nil where there are none or the file
// system has no such thing.
func xattrs(path string) (map[string][]byte, error) {
	names, err := sized(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all map[string][]byte
	for name := range bytes.SplitSeq(names, []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value, err := sized(func(buf []byte) (int, error) { return unix.Lgetxattr(path, string(name), buf) })
		if errors.Is(err, unix.ENODATA) {
			continue // It was removed since it was listed.
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		if all == nil {
			all = map[string][]byte{}
		}
		all[string(name)] = value
	}
	return all, nil
}

// sized makes a call whose result has a size that is learnt by calling, until the
// result fits.
func sized(call func([]byte) (int, error)) ([]byte, error) {
	for buf := []byte(nil); ; {
		n := 0
		err := uninterrupted(func() (err error) {
			n, err = call(buf)
			return err
		})
		switch {
		case err == unix.ERANGE:
			buf = nil
		case err != nil:
			return nil, err
		case n == 0:
			return []byte{}, nil
		case buf != nil:
			return buf[:n], nil
		default:
			buf = make([]byte, n)
		}
	}
}
