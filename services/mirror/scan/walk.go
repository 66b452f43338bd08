// Package scan is the sorted walk of a directory: what lies below a root as a
// stream of entries in the order of their keys, which is the order in which a
// bucket lists. It follows no link, never leaves the root, and holds no more than
// the names of the directories on the path it is on.
package scan

import (
	"context"
	"fmt"
	"iter"
	"os"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"golang.org/x/sys/unix"
)

// Options say what a walk looks at. The zero value walks everything without
// extended attributes.
type Options struct {
	// Xattrs asks for extended attributes, which cost two more calls for each
	// entry and need /proc.
	Xattrs bool
	// OneFileSystem leaves out what other file systems hold that are mounted below
	// the root. The directories they are mounted on are entries without content, and
	// [entry.Entry.Closed].
	OneFileSystem bool
	// Filter reports whether to keep an entry, by its raw path and its kind; nil
	// keeps all. What it rejects is not looked at, and of a directory nothing
	// inside either. The root is always kept. It is called from several goroutines
	// and in no particular order.
	Filter func(path string, kind entry.Kind) bool
	// FS, where it is not zero, is the identity of the root's file system. It is
	// needed where the same data is mounted as something else each time, such as
	// clones of ZFS snapshots: their dataset's guid says that they are one.
	FS entry.FSID
}

// Walk yields the root, as path "", and everything below it in the order of keys,
// each directory before what it holds. Nothing below the root is skipped silently
// but what Options leave out and what vanishes while the walk looks.
//
// An error comes with its entry, of which path and kind are set and the rest as
// far as it is known, in its place in the order. The walk then goes on; a
// directory with an error yields nothing of what it holds. Errors are [*Error],
// except the last: that of a context that ended, with no entry. A caller that saw
// any error has not seen the whole tree and must not delete because of it.
//
// Directories are read ahead by a few goroutines, which have ended when the
// iteration does. Memory is that of the names in the directories on the current
// path. Each directory on the path with entries yet to come costs a file
// descriptor, and so does each one read ahead.
func Walk(ctx context.Context, root *os.Root, o Options) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		w := &walker{ctx: ctx, o: o, yield: yield, known: identities{byDev: map[uint64]entry.FSID{}}}
		defer w.close()
		if w.start(root) {
			w.run()
		}
	}
}

// walker is one walk.
type walker struct {
	ctx   context.Context
	o     Options
	yield func(entry.Entry, error) bool
	known identities
	dev   uint64 // the root's
	stack []*dir // from the root, without those of which everything was taken
	reader
}

// window is how many items of a directory are looked at together: enough to keep
// goroutines busy, and few enough to bound what a wide directory holds.
const window = 1024

// start yields the root and begins with it; false ends the walk.
func (w *walker) start(root *os.Root) bool {
	if err := w.ctx.Err(); err != nil {
		w.yield(entry.Entry{}, context.Cause(w.ctx))
		return false
	}
	fd, closeFD, err := rootFD(root)
	if err != nil {
		return w.yield(entry.Entry{Kind: entry.Dir}, &Error{"open the root", "", err})
	}
	defer closeFD()
	d, e, err := w.open(nil, fd, ".", "")
	if err == nil {
		err = w.list(d, window)
	}
	return w.enter(d, e, err)
}

// run takes items until none is left or the caller has enough.
func (w *walker) run() {
	for len(w.stack) > 0 {
		d := w.stack[len(w.stack)-1]
		if d.next == len(d.items) {
			w.pop()
			continue
		}
		if w.ctx.Err() != nil {
			w.yield(entry.Entry{}, context.Cause(w.ctx))
			return
		}
		if d.next == d.base+len(d.seen) {
			w.lookAll(d)
		}
		s := &d.seen[d.next-d.base]
		d.next++
		if !w.take(d, s) {
			return
		}
	}
}

// take yields one item and goes into it where it is a directory; false ends the
// walk.
func (w *walker) take(d *dir, s *seen) bool {
	switch {
	case vanished(s.err):
		return true
	case s.err != nil || s.entry.Kind != entry.Dir:
		return w.yield(s.entry, s.err)
	}
	child, e, err := w.child(d, s)
	w.readAhead(d)
	if d.next == len(d.items) {
		// Its descriptor is needed no more: deep trees would run out of them.
		w.pop()
	}
	return w.enter(child, e, err)
}

// enter yields a directory and puts it on the path; false ends the walk.
func (w *walker) enter(d *dir, e entry.Entry, err error) bool {
	if err == nil && !d.sorted {
		err = w.list(d, -1)
	}
	if err != nil {
		d.close()
		return vanished(err) && e.Path != "" || w.yield(e, err)
	}
	w.stack = append(w.stack, d)
	if !w.yield(e, nil) {
		return false
	}
	w.readAhead(d)
	return true
}

// open opens a directory that parent, whose descriptor is at, has under a name,
// and looks at it. Where that fails, the entry has its path and kind.
func (w *walker) open(parent *dir, at int, name, path string) (*dir, entry.Entry, error) {
	e := entry.Entry{Path: path, Kind: entry.Dir}
	fd, err := openDir(at, name)
	if err != nil {
		return nil, e, &Error{"open the directory", path, changed(err)}
	}
	d := &dir{fd: fd, path: path}
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return d, e, &Error{"look at", path, err}
	}
	d.dev = uint64(st.Dev)
	switch {
	case parent == nil:
		w.dev, d.fs = d.dev, w.o.FS
		w.known.set(d.dev, d.fs)
		fallthrough
	case parent.dev != d.dev:
		d.fs = w.known.of(fd, d.dev)
		// Nothing of another file system is read: it is as if it were empty.
		d.sorted = w.o.OneFileSystem && d.dev != w.dev
		e.Closed = d.sorted
	default:
		d.fs = parent.fs
	}
	fill(&e, &st, d.fs)
	if w.o.Xattrs {
		if e.Xattrs, err = xattrs(fmt.Sprintf("/proc/self/fd/%d/.", fd)); err != nil {
			return d, e, &Error{"read the extended attributes of", path, err}
		}
	}
	return d, e, nil
}

// pop closes the innermost directory, of which everything was taken.
func (w *walker) pop() {
	last := len(w.stack) - 1
	d := w.stack[last]
	d.close()
	if cap(d.seen) > 0 {
		w.looks.Put(&d.seen)
	}
	w.stack[last] = nil
	w.stack = w.stack[:last]
}

// close ends what the walk has under way.
func (w *walker) close() {
	w.running.Wait()
	for _, d := range w.stack {
		for _, s := range d.seen {
			if s.ahead != nil {
				s.ahead.dir.close()
			}
		}
		d.close()
	}
}

// close closes its descriptor; of no directory it is nothing.
func (d *dir) close() {
	if d != nil {
		_ = unix.Close(d.fd)
	}
}
