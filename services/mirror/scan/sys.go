package scan

import (
	"os"

	"golang.org/x/sys/unix"
)

// uninterrupted repeats a call that a signal broke off: FUSE and NFS let signals
// through, and the runtime sends itself many.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// openDir opens a directory below another one and follows no link.
func openDir(parent int, name string) (fd int, err error) {
	// Merely reading a directory would touch its access time, which breaks the next
	// incremental receive on ZFS. Only an owner may avoid it.
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if fd, err = openat(parent, name, flags|unix.O_NOATIME); err == unix.EPERM {
		fd, err = openat(parent, name, flags)
	}
	return fd, err
}

func openat(parent int, name string, flags int) (fd int, err error) {
	err = uninterrupted(func() (err error) {
		fd, err = unix.Openat(parent, name, flags, 0)
		return err
	})
	return fd, err
}

func fstat(fd int, st *unix.Stat_t) error {
	return uninterrupted(func() error { return unix.Fstat(fd, st) })
}

func lstatat(dir int, name string, st *unix.Stat_t) error {
	return uninterrupted(func() error { return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW) })
}

// readlinkat reads all of a link's target. Its size is only a hint: some file
// systems have none.
func readlinkat(dir int, name string, size int64) (string, error) {
	for room := min(max(size, 127), 1<<16) + 1; ; room *= 2 {
		buf := make([]byte, room)
		n := 0
		err := uninterrupted(func() (err error) {
			n, err = unix.Readlinkat(dir, name, buf)
			return err
		})
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
	}
}

// rootFD gives a descriptor of the root's directory and what closes it.
func rootFD(root *os.Root) (fd int, closeFD func(), err error) {
	f, err := root.Open(".")
	if err != nil {
		return -1, nil, err
	}
	return int(f.Fd()), func() { _ = f.Close() }, nil
}
