package local

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// note is what a directory is to get at the end of a run.
type note struct {
	path     string
	inode    uint64
	mtime    int64
	mode     uint32
	hasMTime bool
	hasMode  bool
}

// notes are kept in a file without a name, so that their number costs no memory.
// Who made a directory does not know when the last of several workers has left
// it, so that nothing can be applied earlier than at the end. The zero value is
// empty. It may be used concurrently.
type notes struct {
	mu   sync.Mutex
	file *os.File
	buf  *bufio.Writer
}

const (
	noteMTime = 1 << iota
	noteMode
	noteHead = 1 + 8 + 8 + 4 + 4 // flags, inode, time, mode, length of the path
)

// add notes one. A later note of the same directory counts.
func (ns *notes) add(n note) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.file == nil {
		f, err := os.CreateTemp("", "firedrill-mirror-directories-")
		if err != nil {
			return fmt.Errorf("note the directory: %w", err)
		}
		ns.file, ns.buf = f, bufio.NewWriterSize(f, 1<<16)
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("note the directory: %w", err)
		}
	}
	b := make([]byte, 0, noteHead+len(n.path))
	b = append(b, 0)
	if n.hasMTime {
		b[0] |= noteMTime
	}
	if n.hasMode {
		b[0] |= noteMode
	}
	b = binary.LittleEndian.AppendUint64(b, n.inode)
	b = binary.LittleEndian.AppendUint64(b, uint64(n.mtime))
	b = binary.LittleEndian.AppendUint32(b, n.mode)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(n.path)))
	b = append(b, n.path...)
	if _, err := ns.buf.Write(b); err != nil {
		return fmt.Errorf("note the directory: %w", err)
	}
	return nil
}

// take gives all notes in the order in which they were made, and forgets them.
func (ns *notes) take(each func(note) error) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.file == nil {
		return nil
	}
	defer func() {
		_ = ns.file.Close()
		ns.file, ns.buf = nil, nil
	}()
	if err := ns.buf.Flush(); err != nil {
		return err
	}
	if _, err := ns.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReaderSize(ns.file, 1<<16)
	for {
		n, err := readNote(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(n); err != nil {
			return err
		}
	}
}

func readNote(r io.Reader) (n note, err error) {
	var head [noteHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return n, err
	}
	n.hasMTime, n.hasMode = head[0]&noteMTime != 0, head[0]&noteMode != 0
	n.inode = binary.LittleEndian.Uint64(head[1:])
	n.mtime = int64(binary.LittleEndian.Uint64(head[9:]))
	n.mode = binary.LittleEndian.Uint32(head[17:])
	path := make([]byte, binary.LittleEndian.Uint32(head[21:]))
	_, err = io.ReadFull(r, path)
	n.path = string(path)
	return n, err
}

func (ns *notes) close() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.file == nil {
		return nil
	}
	err := ns.file.Close()
	ns.file, ns.buf = nil, nil
	return err
}

// settleDirs applies what was noted. The few directories that not even their
// owner may enter wait until all others are done, and come deepest first.
func (p *Place) settleDirs(ctx context.Context) error {
	var failed failures
	closed := map[uint64]note{}
	err := p.notes.take(func(n note) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		delete(closed, n.inode)
		if n.hasMode && n.mode&0o100 == 0 {
			closed[n.inode] = n
			return nil
		}
		failed.add(n.path, p.settleDir(n))
		return nil
	})
	if err != nil {
		return &Error{"give directories their times in", p.name, err}
	}
	depth := func(n note) int { return strings.Count(n.path, "/") }
	for _, n := range slices.SortedFunc(maps.Values(closed), func(a, b note) int { return cmp.Compare(depth(b), depth(a)) }) {
		failed.add(n.path, p.settleDir(n))
	}
	return failed.join()
}

// settleDir applies one note, unless something else has the name by now.
func (p *Place) settleDir(n note) error {
	fd, err := p.openNode(n.path)
	if gone(err) || errors.Is(err, place.ErrChanged) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return err
	}
	// The number alone may be that of something new.
	if st.Ino != n.inode || kindOf(st.Mode) != entry.Dir {
		return nil
	}
	if n.hasMTime {
		if err := utimes(fd, n.mtime); err != nil {
			return err
		}
	}
	if n.hasMode && st.Mode&0o7777 != n.mode {
		return chmod(fd, n.mode)
	}
	return nil
}

// failures keeps the first of many errors, and how many there were.
type failures struct {
	errs []error
	more int
}

const mostFailures = 10

func (f *failures) add(path string, err error) {
	switch {
	case err == nil:
	case len(f.errs) < mostFailures:
		f.errs = append(f.errs, &Error{"finish the directory", path, err})
	default:
		f.more++
	}
}

func (f *failures) join() error {
	if f.more > 0 {
		f.errs = append(f.errs, fmt.Errorf("and so for %d more directories", f.more))
	}
	return errors.Join(f.errs...)
}
