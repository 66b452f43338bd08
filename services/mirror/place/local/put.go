package local

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"golang.org/x/sys/unix"
)

// bufferSize is what is written with one call.
const bufferSize = 256 << 10

// preallocated is from which size on a file gets its space before its content, so
// that a full disk is found before hours of copying and not after. In memory it only is
// seen whether there is room now.
const preallocated = 1 << 20

// Put writes one entry. The hashes that it gives are those that the write came
// with: it makes none of its own.
func (p *Place) Put(ctx context.Context, w place.Write) (entry.Entry, error) {
	e, err := p.put(ctx, w)
	if err != nil {
		return entry.Entry{}, &Error{"write", w.Entry.Path, err}
	}
	return e, nil
}

// PutBatch is Put of each: a directory gains nothing from batches.
func (p *Place) PutBatch(ctx context.Context, ws []place.Write) []place.Outcome {
	out := make([]place.Outcome, len(ws))
	for i, w := range ws {
		out[i].Entry, out[i].Err = p.Put(ctx, w)
	}
	return out
}

func (p *Place) put(ctx context.Context, w place.Write) (e entry.Entry, err error) {
	if err := p.change(ctx); err != nil {
		return e, err
	}
	if w.Entry.Kind == entry.Dir {
		return e, fmt.Errorf("%w: a directory is made by MakeDir", errors.ErrUnsupported)
	}
	if err := p.holds(w.Entry); err != nil {
		return e, err
	}
	d, name, err := p.parent(w.Entry.Path, !plan.Present(w.Have))
	if gone(err) {
		err = changed("the directory of what was to be overwritten is gone")
	}
	if err != nil {
		return e, err
	}
	defer d.close()
	if w.Entry.Size >= preallocated { // Not to copy much in vain: the rename looks in any case.
		if _, err := d.expect(name, w.Have); err != nil {
			return e, err
		}
	}
	t, err := p.prepare(ctx, d, w)
	if err != nil {
		return e, err
	}
	defer func() { _ = unix.Close(t.fd) }()
	if err := p.settle(d, t, name, w.Have); err != nil {
		return e, errors.Join(err, t.remove(d))
	}
	if e, err = p.describe(ctx, t.fd, w.Entry.Path); err != nil {
		return e, err
	}
	e.Sum = w.Entry.Sum
	// These are an object's.
	e.Sum.Has &^= entry.HasETag | entry.HasPartSize
	e.Sum.ETag, e.Sum.PartSize = "", 0
	return e, nil
}

// expect looks whether a name has what may be overwritten.
func (d dir) expect(name string, have entry.Entry) (unix.Stat_t, error) {
	st, err := d.lstat(name)
	switch {
	case err != nil && !gone(err):
		return st, err
	case !plan.Present(have) && err == nil:
		return st, changed("something has the name that was not there")
	case !plan.Present(have):
		return st, nil
	case err != nil:
		return st, changed("what was to be overwritten is gone")
	case differs(have, &st):
		return st, changed("what was to be overwritten was touched or replaced")
	case have.Kind == entry.Dir:
		return st, changed("it is a directory, which has to be removed first")
	}
	return st, nil
}

// temp is a node under a temporary name.
type temp struct {
	name string
	fd   int
}

// remove removes the node, unless an exchange that could not be undone left
// something else under its name.
func (t temp) remove(d dir) error {
	var mine unix.Stat_t
	if err := fstat(t.fd, &mine); err != nil {
		return err
	}
	if st, err := d.lstat(t.name); err != nil || st.Ino != mine.Ino {
		return nil
	}
	if err := d.unlink(t.name); err != nil && !gone(err) {
		return fmt.Errorf("remove the temporary file %q: %w", t.name, err)
	}
	return nil
}

// prepare makes what is to be written, with content and attributes, beside its
// place. The caller closes its descriptor.
func (p *Place) prepare(ctx context.Context, d dir, w place.Write) (temp, error) {
	var content io.ReadCloser
	if w.Entry.Kind == entry.File {
		var err error
		if content, err = w.Open(ctx); err != nil {
			return temp{}, fmt.Errorf("open its source: %w", err)
		}
		defer func() { _ = content.Close() }()
	}
	t, err := p.create(d, w.Entry)
	if err != nil {
		return t, err
	}
	if content != nil {
		err = p.fill(ctx, t.fd, content, w.Entry.Size)
	}
	if err == nil {
		err = p.applyNew(t.fd, w.Entry)
	}
	if err == nil && content != nil {
		err = flush(t.fd)
	}
	if err != nil {
		err = errors.Join(err, t.remove(d))
		_ = unix.Close(t.fd)
		return t, err
	}
	return t, nil
}

// create makes an empty node that only the process's user may use.
func (p *Place) create(d dir, e entry.Entry) (temp, error) {
	t := temp{name: p.writer.newTemp(), fd: -1}
	const mode = 0o600
	err := p.in(d, func() (err error) {
		switch e.Kind {
		case entry.Symlink:
			return unix.Symlinkat(e.Target, d.fd, t.name)
		case entry.Fifo:
			return unix.Mknodat(d.fd, t.name, unix.S_IFIFO|mode, 0)
		case entry.Socket:
			return unix.Mknodat(d.fd, t.name, unix.S_IFSOCK|mode, 0)
		case entry.CharDevice:
			return unix.Mknodat(d.fd, t.name, unix.S_IFCHR|mode, int(e.Device))
		case entry.BlockDevice:
			return unix.Mknodat(d.fd, t.name, unix.S_IFBLK|mode, int(e.Device))
		}
		t.fd, err = openat(d.fd, t.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, mode)
		return err
	})
	if err != nil {
		return t, err
	}
	if e.Kind == entry.File {
		// Who sweeps leaves alone what is locked. Some file systems have no locks.
		_ = retry(func() error { return unix.Flock(t.fd, unix.LOCK_EX) })
		return t, nil
	}
	if t.fd, err = openat(d.fd, t.name, lookOnly, 0); err != nil {
		return t, errors.Join(err, d.unlink(t.name))
	}
	return t, nil
}

// reserve takes the room for a file, where the file system can. What is plainly too
// large is not even tried: it would fill the disk for everybody until it failed. In
// memory it would take as long as writing does, and nothing would be read meanwhile.
func reserve(fd int, size int64) error {
	var fs unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd, &fs) })
	if err == nil && fs.Bsize > 0 && fs.Blocks > 0 && uint64(size)/uint64(fs.Bsize) > fs.Bfree {
		return unix.ENOSPC
	}
	if err == nil && fs.Type == unix.TMPFS_MAGIC {
		return nil
	}
	err = retry(func() error { return unix.Fallocate(fd, 0, 0, size) })
	if err == unix.ENOTSUP || err == unix.ENOSYS {
		return nil
	}
	return err
}

// fill writes the content, which must be of the size.
func (p *Place) fill(ctx context.Context, fd int, r io.Reader, size int64) error {
	if size >= preallocated {
		if err := reserve(fd, size); err != nil {
			return fmt.Errorf("reserve %d bytes: %w", size, err)
		}
	}
	c := p.chunks(r, size)
	defer c.end()
	var done int64
	for idle := 0; idle < 100; idle++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b, err := c.next()
		if done+int64(len(b)) > size {
			return changed(fmt.Sprintf("its source gave more than the %d bytes that it has", size))
		}
		if werr := writeAll(fd, b); werr != nil {
			return werr
		}
		done += int64(len(b))
		switch {
		case err == io.EOF && done < size:
			return changed(fmt.Sprintf("its source gave %d bytes and not the %d that it has", done, size))
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read its source: %w", err)
		case len(b) > 0:
			idle = 0
		}
	}
	return fmt.Errorf("read its source: %w", io.ErrNoProgress)
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Write(fd, b)
			return err
		})
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// flush lets NFS and FUSE say what they could not write, which they do when a
// descriptor is closed: that must be known before the rename.
func flush(fd int) error {
	again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(again)
}
