package scan

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"golang.org/x/sys/unix"
)

// identities are the file systems that a walk came across. It may be used by any
// number of goroutines.
type identities struct {
	mu    sync.Mutex
	byDev map[uint64]entry.FSID
}

// set says what a device's identity is, where that is known.
func (ids *identities) set(dev uint64, id entry.FSID) {
	if id == (entry.FSID{}) {
		return
	}
	ids.mu.Lock()
	defer ids.mu.Unlock()
	ids.byDev[dev] = id
}

// of gives the identity of the file system that an open directory lies in.
func (ids *identities) of(fd int, dev uint64) entry.FSID {
	ids.mu.Lock()
	defer ids.mu.Unlock()
	id, ok := ids.byDev[dev]
	if !ok {
		id = identify(fd, dev)
		ids.byDev[dev] = id
	}
	return id
}

// identify finds what stays the same about a file system when it is mounted
// again, and is zero where nothing does. The file system's own id comes first,
// since it tells subvolumes apart, which have inode numbers of their own and one
// UUID.
func identify(fd int, dev uint64) entry.FSID {
	if id, ok := ownID(fd, dev); ok {
		return id
	}
	if id, ok := superUUID(fd); ok {
		return id
	}
	if source, ok := mountSource(dev); ok {
		return hashed(source)
	}
	return entry.FSID{}
}

// ownID is statfs(2)'s, unless the file system made it, as XFS does, from the
// device number, or has none.
func ownID(fd int, dev uint64) (id entry.FSID, ok bool) {
	var st unix.Statfs_t
	if err := uninterrupted(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return id, false
	}
	low, high := uint32(st.Fsid.Val[0]), uint32(st.Fsid.Val[1])
	if low == 0 && high == 0 || high == 0 && uint64(low) == dev {
		return id, false
	}
	binary.BigEndian.PutUint64(id[:8], uint64(st.Type))
	binary.BigEndian.PutUint32(id[8:], low)
	binary.BigEndian.PutUint32(id[12:], high)
	return id, true
}

// fsGetUUID is FS_IOC_GETFSUUID, which Linux has since 6.9 and x/sys not yet.
const fsGetUUID = 0x80111500

// superUUID asks the kernel for the UUID in the superblock.
func superUUID(fd int) (id entry.FSID, ok bool) {
	var answer struct {
		size uint8
		uuid [16]byte
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsGetUUID, uintptr(unsafe.Pointer(&answer)))
	if errno != 0 || answer.size == 0 || answer.uuid == [16]byte{} {
		return id, false
	}
	return answer.uuid, true
}

// mountSource names what is mounted: the UUID of a block device, or the server or
// dataset of a file system that has none. Names of others, such as "tmpfs", say
// nothing.
func mountSource(dev uint64) (string, bool) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", false
	}
	defer func() { _ = f.Close() }()
	number := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if kind, source, ok := parseMount(lines.Text(), number); ok {
			return describeMount(kind, source, dev)
		}
	}
	return "", false
}

// parseMount reads a line of mountinfo, see proc_pid_mountinfo(5), if it is that
// of the device number.
func parseMount(line, number string) (kind, source string, ok bool) {
	mount, super, ok := strings.Cut(line, " - ")
	head, tail := strings.Fields(mount), strings.Fields(super)
	if !ok || len(head) < 3 || len(tail) < 2 || head[2] != number {
		return "", "", false
	}
	return tail[0], tail[1], true
}

func describeMount(kind, source string, dev uint64) (string, bool) {
	base, _, _ := strings.Cut(kind, ".")
	switch base {
	case "fuse", "fuseblk", "zfs", "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "lustre":
		return kind + "\x00" + source, true
	}
	links, err := filepath.Glob("/dev/disk/by-uuid/*")
	if err != nil {
		return "", false
	}
	for _, link := range links {
		var st unix.Stat_t
		if unix.Stat(link, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && uint64(st.Rdev) == dev {
			return "uuid\x00" + filepath.Base(link), true
		}
	}
	return "", false
}

func hashed(s string) (id entry.FSID) {
	sum := sha256.Sum256([]byte(s))
	copy(id[:], sum[:])
	return id
}
