package local

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// retry repeats a call that a signal broke off: FUSE and NFS let signals through,
// and the runtime sends itself many.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func openat(at int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(at, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
		return err
	})
	return fd, err
}

func fstat(fd int, st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstat(fd, st) })
}

// self is a name for what a descriptor stands for, also of one that was opened
// only for looking, and of a link.
func self(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// unsupported reports that the kernel or the file system does not know the flags
// of renameat2(2).
func unsupported(err error) bool {
	return err == unix.EINVAL || err == unix.ENOSYS || err == unix.ENOTSUP
}

// rights are what the process may do beyond what every owner may.
type rights struct {
	chown, mknod bool
	// fowner and fsetid are for the modes of others' files.
	fowner, fsetid bool
	uid            uint32
	groups         []int
}

// ownRights asks for capabilities and not for root: containers take them from it.
func ownRights() rights {
	r := rights{uid: uint32(unix.Geteuid())}
	if groups, err := unix.Getgroups(); err == nil {
		r.groups = groups
	}
	r.groups = append(r.groups, unix.Getegid())
	var sets [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &sets[0]); err == nil {
		has := func(bit uint) bool { return sets[bit/32].Effective&(1<<(bit%32)) != 0 }
		r.chown, r.mknod = has(unix.CAP_CHOWN), has(unix.CAP_MKNOD)
		r.fowner, r.fsetid = has(unix.CAP_FOWNER), has(unix.CAP_FSETID)
	}
	return r
}

// hasGroup reports whether the process may give its files to the group.
func (r rights) hasGroup(gid uint32) bool { return slices.Contains(r.groups, int(gid)) }

// gone reports that nothing has a name.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) }
