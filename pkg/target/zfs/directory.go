package zfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// errElsewhere says that what is written to the directory would not go to the pool.
var errElsewhere = errors.New("the directory is not where the dataset is mounted")

// openDirectory opens the dataset's root. Where the dataset is not mounted the
// directory may be there all the same, on another file system.
func (p *pool) openDirectory() (*os.Root, error) {
	root, err := os.OpenRoot(p.cfg.Directory)
	if err != nil {
		return nil, err
	}
	if err := p.mounted(root); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

func (p *pool) mounted(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", p.cfg.Directory, err)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	kind, source := mountOf(string(table), unix.Major(st.Dev), unix.Minor(st.Dev))
	switch {
	case (kind == "zfs" || kind == "fuse.zfs") && source == p.cfg.Dataset:
		return nil
	case kind == "nfs" || kind == "nfs4":
		return nil // what is exported cannot be told from here
	}
	return fmt.Errorf("%s is on a file system of kind %s from %s: %w; mount %s there", p.cfg.Directory, kind, source, errElsewhere, p.cfg.Dataset)
}

// mountOf finds a file system by its device's number in a table of mounts.
func mountOf(table string, major, minor uint32) (kind, source string) {
	device := fmt.Sprintf("%d:%d", major, minor)
	for line := range strings.Lines(table) {
		where, what, ok := strings.Cut(line, " - ")
		words, of := strings.Fields(where), strings.Fields(what)
		if ok && len(words) > 2 && words[2] == device && len(of) > 1 {
			return of[0], of[1]
		}
	}
	return "unknown", "nowhere"
}

// unnamed is what the names of files end with that are not written whole yet.
const unnamed = ".new"

// writeFile writes a file and returns when it is on the disks. named is false when it
// certainly did not get its name: nobody sees half of it.
func writeFile(root *os.Root, name string, body []byte) (named bool, err error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	f, err := root.OpenFile(name+unnamed, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		// The first of its directory, as a rule: asking each time would cost more.
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return false, err
		}
		f, err = root.OpenFile(name+unnamed, flags, 0o600)
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(body); err != nil {
		return false, err
	}
	if err := f.Sync(); err != nil {
		return false, err
	}
	if err := root.Rename(name+unnamed, name); err != nil {
		return true, err
	}
	// ZFS puts a file's name on the disks when it is asked for the file.
	return true, f.Sync()
}

// maxRead is more than any canary has.
const maxRead = maxSize + 1<<10

// readFile reads a file. What this machine's kernel remembers of it is let go of
// first: of what ZFS remembers only the dataset's primarycache decides.
func readFile(root *os.Root, name string) (body []byte, err error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, fmt.Errorf("%s: forget what is in memory: %w", name, err)
	}
	return io.ReadAll(io.LimitReader(f, maxRead))
}
