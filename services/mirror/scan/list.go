package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"golang.org/x/sys/unix"
)

// item is one name in a directory. Names of a directory share one string.
type item struct {
	name string
	key  string // escaped, without the '/' of a directory
	kind entry.Kind
}

// dir is a directory that is being walked. One goroutine at a time has it.
type dir struct {
	fd   int
	path string
	dev  uint64
	fs   entry.FSID

	// Until all names are read: the names one after the other, where each ends, and
	// what it is.
	names  []byte
	ends   []int
	kinds  []entry.Kind
	sorted bool

	items []item // in order, once sorted
	next  int    // in items: the first that was not yet taken
	seen  []seen // of the items from base on
	base  int
}

// seen is what a look at an item told.
type seen struct {
	entry entry.Entry
	err   error
	ahead *ahead // the directory itself, where it is being read ahead
}

var errDirent = errors.New("the kernel gave a directory entry that does not parse")

// The layout of struct linux_dirent64 of getdents64(2).
const (
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// read reads names until the directory ends or most of them were read; buf is
// where the kernel puts them.
func (d *dir) read(buf []byte, most int) (done bool, err error) {
	for len(d.ends) < most {
		n := 0
		err := uninterrupted(func() (err error) {
			n, err = unix.Getdents(d.fd, buf)
			return err
		})
		if err != nil {
			return false, err
		}
		if n == 0 {
			return true, nil
		}
		if err := d.parse(buf[:n]); err != nil {
			return false, err
		}
	}
	return false, nil
}

// parse takes up the names of one answer.
func (d *dir) parse(b []byte) error {
	for len(b) > 0 {
		if len(b) <= direntName {
			return errDirent
		}
		size := int(binary.NativeEndian.Uint16(b[direntReclen:]))
		if size <= direntName || size > len(b) {
			return errDirent
		}
		name := b[direntName:size]
		end := bytes.IndexByte(name, 0)
		if end < 0 {
			return errDirent
		}
		name = name[:end]
		if string(name) != "." && string(name) != ".." {
			kind, known := kindOfType(b[direntType])
			if !known {
				kind = d.kindByLooking(string(name))
			}
			d.names = append(d.names, name...)
			d.ends = append(d.ends, len(d.names))
			d.kinds = append(d.kinds, kind)
		}
		b = b[size:]
	}
	return nil
}

// kindByLooking asks where the file system does not tell kinds in listings. What
// cannot be looked at counts as a file: the walk looks again and says why.
func (d *dir) kindByLooking(name string) entry.Kind {
	var st unix.Stat_t
	if lstatat(d.fd, name, &st) != nil {
		return entry.File
	}
	return kindOf(st.Mode)
}

func kindOfType(t byte) (k entry.Kind, known bool) {
	switch t {
	case unix.DT_REG:
		return entry.File, true
	case unix.DT_DIR:
		return entry.Dir, true
	case unix.DT_LNK:
		return entry.Symlink, true
	case unix.DT_FIFO:
		return entry.Fifo, true
	case unix.DT_SOCK:
		return entry.Socket, true
	case unix.DT_CHR:
		return entry.CharDevice, true
	case unix.DT_BLK:
		return entry.BlockDevice, true
	}
	return entry.File, false
}

// sort puts the names that were read into order, without those that keep rejects.
func (d *dir) sort(keep func(path string, kind entry.Kind) bool) {
	names := string(d.names)
	d.items = make([]item, 0, len(d.ends))
	start := 0
	for i, end := range d.ends {
		it := item{name: names[start:end], kind: d.kinds[i]}
		start = end
		if keep != nil && !keep(join(d.path, it.name), it.kind) {
			continue
		}
		it.key = entry.EscapeName(it.name, it.kind == entry.Dir)
		d.items = append(d.items, it)
	}
	d.names, d.ends, d.kinds, d.sorted = nil, nil, nil, true
	slices.SortFunc(d.items, compare)
}

// compare orders items as their keys do, whose '/' is not stored: it would have
// cost a string for each directory.
func compare(a, b item) int {
	if a.kind != entry.Dir && b.kind != entry.Dir {
		return strings.Compare(a.key, b.key)
	}
	n := min(len(a.key), len(b.key))
	if c := strings.Compare(a.key[:n], b.key[:n]); c != 0 {
		return c
	}
	return a.after(n) - b.after(n)
}

// after is the byte of the key at i, where its '/' counts and its end is -1.
func (it item) after(i int) int {
	switch {
	case i < len(it.key):
		return int(it.key[i])
	case it.kind == entry.Dir:
		return '/'
	}
	return -1
}
