package local

import (
	"strings"

	"golang.org/x/sys/unix"
)

// dir is a directory below the root, opened for looking up names in it.
type dir struct {
	fd    int
	path  string
	owned bool // the descriptor is closed with it
}

func (d dir) close() {
	if d.owned {
		_ = unix.Close(d.fd)
	}
}

const lookOnly = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC

// split gives the directory of a path and the name in it.
func split(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// parent opens the directory that a path's last name lies in, and makes it where
// it is missing and that is asked for.
func (p *Place) parent(path string, make bool) (d dir, name string, err error) {
	above, name := split(path)
	d, err = p.openDir(above, make)
	return d, name, err
}

// openDir opens a directory below the root. The error is [place.ErrChanged] where
// something else has one of its names: a link is never followed.
func (p *Place) openDir(path string, make bool) (dir, error) {
	if path == "" {
		return dir{fd: p.at}, nil
	}
	fd, err := p.resolve(path, lookOnly|unix.O_DIRECTORY)
	if err != nil && (make && gone(err) || needsSteps(err)) {
		fd, err = p.steps(path, make)
	}
	if err != nil {
		return dir{}, inTheWay(err)
	}
	return dir{fd: fd, path: path, owned: true}, nil
}

// inTheWay translates the errors of calls that follow no link.
func inTheWay(err error) error {
	if err == unix.ELOOP || err == unix.ENOTDIR {
		return changed("a link or a file stands where a directory of its path should be")
	}
	return err
}

// openNode opens what has a path, of any kind, for looking only.
func (p *Place) openNode(path string) (int, error) {
	fd, err := p.resolve(path, lookOnly)
	// A directory that something is mounted on may be looked at all the same.
	if !needsSteps(err) && err != unix.EXDEV {
		return fd, inTheWay(err)
	}
	d, name, err := p.parent(path, false)
	if err != nil {
		return -1, err
	}
	defer d.close()
	return openat(d.fd, name, lookOnly, 0)
}

func (p *Place) resolve(path string, flags uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if p.o.OneFileSystem {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	err = retry(func() (err error) {
		fd, err = unix.Openat2(p.at, path, &how)
		return err
	})
	return fd, err
}

// needsSteps reports that openat2(2) gave up: old kernels and some sandboxes do
// not have it, a rename somewhere may confuse it, and paths of over 4,096 bytes it
// does not take.
func needsSteps(err error) bool {
	switch err {
	case unix.ENOSYS, unix.EPERM, unix.EAGAIN, unix.ENAMETOOLONG:
		return true
	}
	return false
}

// steps opens a directory one name after the other, and makes what is missing
// where that is asked for.
func (p *Place) steps(path string, make bool) (int, error) {
	d := dir{fd: p.at}
	for end := 0; end <= len(path); end++ {
		if end < len(path) && path[end] != '/' {
			continue
		}
		_, name := split(path[:end])
		fd, err := p.step(d, name, make)
		d.close()
		if err != nil {
			return -1, err
		}
		d = dir{fd: fd, path: path[:end], owned: true}
	}
	return d.fd, nil
}

// step opens one directory in another.
func (p *Place) step(d dir, name string, make bool) (fd int, err error) {
	const most = 8 // Someone may remove it as soon as it was made.
	for range most {
		fd, err = openat(d.fd, name, lookOnly|unix.O_DIRECTORY, 0)
		if err == nil && p.o.OneFileSystem {
			return p.sameFileSystem(fd)
		}
		if !make || !gone(err) {
			return fd, err
		}
		// What it should look like, MakeDir knows.
		err = p.in(d, func() error { return unix.Mkdirat(d.fd, name, 0o777) })
		if err != nil && err != unix.EEXIST {
			return -1, err
		}
	}
	return fd, err
}

func (p *Place) sameFileSystem(fd int) (int, error) {
	var st unix.Stat_t
	err := fstat(fd, &st)
	if err == nil && uint64(st.Dev) != p.fs.rootDev {
		err = unix.EXDEV
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// in makes a call that changes a directory. Where the directory is read-only and
// the process may change that, it is writable until Finish.
func (p *Place) in(d dir, call func() error) error {
	err := retry(call)
	if err != unix.EACCES {
		return err
	}
	if loosened, lerr := p.loosen(d); lerr != nil || !loosened {
		return err
	}
	return retry(call)
}

func (p *Place) loosen(d dir) (bool, error) {
	var st unix.Stat_t
	if err := fstat(d.fd, &st); err != nil || st.Uid != p.rights.uid {
		return false, err
	}
	if st.Mode&ownerAll == ownerAll {
		return true, nil // Another goroutine was faster.
	}
	if d.path != "" {
		if err := p.notes.add(note{path: d.path, inode: st.Ino, mode: st.Mode & 0o7777, hasMode: true}); err != nil {
			return false, err
		}
	}
	return true, chmod(d.fd, st.Mode&0o7777|ownerAll)
}

// ownerAll is what an owner needs to write into a directory.
const ownerAll = 0o700

// lstat looks at a name in the directory.
func (d dir) lstat(name string) (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

func (d dir) unlink(name string) error {
	return retry(func() error { return unix.Unlinkat(d.fd, name, 0) })
}

func (d dir) rename(from, to string, flags uint) error {
	return retry(func() error { return unix.Renameat2(d.fd, from, d.fd, to, flags) })
}
