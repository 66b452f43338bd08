package scan_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/scan"
	"golang.org/x/sys/unix"
)

func FuzzParseNames(f *testing.F) {
	dir := f.TempDir()
	for _, name := range []string{"a", "longer-name", "\xff\n"} {
		must(f, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(f, err)
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 4096)
	n, err := unix.Getdents(fd, buf)
	must(f, err)
	if names, err := scan.ParseNames(buf[:n]); len(names) != 3 || err != nil {
		f.Fatalf("%q, %v", names, err)
	}
	f.Add(buf[:n])
	f.Add(buf[:n-1])
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		names, err := scan.ParseNames(b)
		for _, name := range names {
			if name == "." || name == ".." || strings.ContainsRune(name, 0) {
				t.Fatalf("%q is no name", name)
			}
		}
		if err == nil && len(b) > 0 && len(b) < 20 {
			t.Fatal("half an entry was taken for one")
		}
	})
}

func TestMountsAreRead(t *testing.T) {
	for line, want := range map[string][2]string{
		`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: {"ext3", "/dev/root"},
		`36 35 98:0 / /a\040b rw - fuse.zfs tank/data rw`:                                {"fuse.zfs", "tank/data"},
		`36 35 98:1 / / rw - ext4 /dev/x rw`:                                             {},
		`36 35 98:0 / / rw`:                                                              {},
		``:                                                                               {},
		` - `:                                                                            {},
	} {
		kind, source, ok := scan.ParseMount(line, "98:0")
		if kind != want[0] || source != want[1] || ok != (want[0] != "") {
			t.Errorf("%q: %q, %q, %t", line, kind, source, ok)
		}
	}
}

func TestOnlyNamesThatStayIdentifyAMount(t *testing.T) {
	for kind, known := range map[string]bool{"zfs": true, "fuse.zfs": true, "nfs4": true, "tmpfs": false, "overlay": false, "fusectl": false} {
		if what, ok := scan.Describe(kind, "source", 0); ok != known {
			t.Errorf("%s: %q, %t", kind, what, ok)
		}
	}
}

// Where the kernel tells the UUID, it is the same through any directory, and no
// device number.
func TestAFileSystemHasOneIdentity(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	ida := find(t, walkAll(t, openRoot(t, a), scan.Options{}), "").Change.FS
	idb := find(t, walkAll(t, openRoot(t, b), scan.Options{}), "").Change.FS
	if ida != idb || ida == (entry.FSID{}) {
		t.Errorf("%x and %x", ida, idb)
	}
	if shm, err := os.MkdirTemp("/dev/shm", "scan"); err == nil {
		defer func() { _ = os.RemoveAll(shm) }()
		if other := find(t, walkAll(t, openRoot(t, shm), scan.Options{}), "").Change.FS; other == ida {
			t.Errorf("two file systems are %x", other)
		}
	}
	fd, err := unix.Open(a, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	if _, ok := scan.OwnID(fd, uint64(st.Dev)); ok {
		if uuid, ok := scan.SuperUUID(fd); ok && uuid == ida {
			t.Error("the UUID was taken although the file system has an id that tells subvolumes apart")
		}
	}
	t.Logf("%x", ida)
}
