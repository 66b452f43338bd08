package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// Look gives what has the path and kind of e now; false if nothing has.
func (p *Place) Look(ctx context.Context, e entry.Entry) (entry.Entry, bool, error) {
	if ctx.Err() != nil {
		return entry.Entry{}, false, context.Cause(ctx)
	}
	if p.holdsName(e.Path) != nil {
		return entry.Entry{}, false, nil
	}
	now, err := p.lookAt(ctx, e.Path)
	switch {
	case gone(err), errors.Is(err, place.ErrChanged):
		return entry.Entry{}, false, nil
	case err != nil:
		return entry.Entry{}, false, &Error{"look at", e.Path, err}
	}
	return now, (now.Kind == entry.Dir) == (e.Kind == entry.Dir), nil
}

func (p *Place) lookAt(ctx context.Context, path string) (entry.Entry, error) {
	fd, err := p.openNode(path)
	if err != nil {
		return entry.Entry{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	return p.describe(ctx, fd, path)
}

// describe gives the entry that an open node is, as a walk does.
func (p *Place) describe(ctx context.Context, fd int, path string) (e entry.Entry, err error) {
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return e, err
	}
	e = entry.Entry{
		Path: path, Kind: kindOf(st.Mode), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: st.Mtim.Nano(),
		Change: entry.Change{Inode: st.Ino, CTime: st.Ctim.Nano()},
	}
	above := path
	switch e.Kind {
	case entry.File:
		e.Size = st.Size
	case entry.CharDevice, entry.BlockDevice:
		e.Device = uint64(st.Rdev)
	case entry.Symlink:
		if e.Target, err = readlink(fd); err != nil {
			return e, err
		}
		e.Size = int64(len(e.Target))
	}
	if e.Kind != entry.Dir {
		above, _ = split(path)
	}
	if e.Change.FS, err = p.fsOf(ctx, uint64(st.Dev), above); err != nil {
		return e, err
	}
	if p.xattrs {
		e.Xattrs, err = xattrs(fd)
	}
	return e, err
}

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

// differs reports whether a node is no longer what was seen, or was touched. Of a
// directory only its identity counts: its times move with what it holds.
func differs(have entry.Entry, st *unix.Stat_t) bool {
	kind := kindOf(st.Mode)
	switch {
	case kind != have.Kind || st.Ino != have.Change.Inode:
		return true
	case kind == entry.Dir:
		return false
	}
	return st.Ctim.Nano() != have.Change.CTime || st.Mtim.Nano() != have.MTime || kind == entry.File && st.Size != have.Size
}

// sameNode reports whether two looks saw the same, but for the time of the last
// change of the inode, which a rename moves.
func sameNode(a, b *unix.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Size == b.Size && a.Mtim == b.Mtim &&
		a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid
}

// readlink reads the target of a link that is open for looking.
func readlink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n := 0
	err := retry(func() (err error) {
		n, err = unix.Readlinkat(fd, "", buf)
		return err
	})
	return string(buf[:n]), err
}

// xattrs reads all extended attributes; nil where there are none.
func xattrs(fd int) (map[string][]byte, error) {
	names, err := xattrNames(fd)
	if err != nil {
		return nil, err
	}
	var all map[string][]byte
	for _, name := range names {
		value, err := sized(func(buf []byte) (int, error) { return unix.Getxattr(self(fd), name, buf) })
		if errors.Is(err, unix.ENODATA) {
			continue // It was removed since it was listed.
		}
		if err != nil {
			return nil, fmt.Errorf("the extended attribute %q: %w", name, err)
		}
		if all == nil {
			all = map[string][]byte{}
		}
		all[name] = value
	}
	return all, nil
}

func xattrNames(fd int) ([]string, error) {
	raw, err := sized(func(buf []byte) (int, error) { return unix.Listxattr(self(fd), buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	var names []string
	for name := range bytes.SplitSeq(raw, []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names, err
}

// setXattrs gives an open node exactly the extended attributes that are wanted.
func setXattrs(fd int, want map[string][]byte) error {
	names, err := xattrNames(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := want[name]; ok {
			continue
		}
		if err := unix.Removexattr(self(fd), name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove the extended attribute %q: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if err := unix.Setxattr(self(fd), name, want[name], 0); err != nil {
			return fmt.Errorf("set the extended attribute %q: %w", name, err)
		}
	}
	return nil
}

// sized makes a call whose result has a size that is learnt by calling, until the
// result fits.
func sized(call func([]byte) (int, error)) ([]byte, error) {
	for buf := []byte(nil); ; {
		n := 0
		err := retry(func() (err error) {
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
