package local

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// Prune implements [place.Keeper].
func (p *Place) Prune(ctx context.Context, of string, before time.Time) (n int, err error) {
	if of == "" {
		return 0, nil
	}
	bins, err := p.bins(place.KeptOptions{Of: of, Before: before})
	if err != nil {
		return 0, &Error{"prune", place.Trash, err}
	}
	for _, bin := range bins {
		if err := p.change(ctx); err != nil {
			return n, &Error{"prune", place.Trash, err}
		}
		d, err := p.openDir(place.Trash, false)
		if err == nil {
			err = p.removeAll(ctx, d, bin.String())
			d.close()
		}
		if err != nil {
			return n, &Error{"prune", place.Trash + "/" + bin.String(), err}
		}
		n++
	}
	return n, nil
}

// removeAll removes a directory with all that is in it. It follows no link, and goes
// nowhere that something is mounted.
func (p *Place) removeAll(ctx context.Context, d dir, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	fd, err := p.openOwn(d, name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return inTheWay(err)
	}
	inside := dir{fd: fd, path: strings.TrimPrefix(d.path+"/"+name, "/"), owned: true}
	defer inside.close()
	var names []string
	if err := p.opened(inside, func() (err error) { names, err = inside.names(); return err }); err != nil {
		return err
	}
	for _, one := range names {
		err := p.opened(inside, func() error { return inside.unlink(one) })
		if err == unix.EISDIR || err == unix.EPERM && inside.isDir(one) {
			err = p.removeAll(ctx, inside, one)
		}
		if err != nil && !gone(err) {
			return err
		}
	}
	return p.opened(d, func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) })
}

// openOwn opens a directory that nothing is mounted on: of the same file system, too, that
// would be somebody else's.
func (p *Place) openOwn(d dir, name string) (fd int, err error) {
	how := unix.OpenHow{Flags: lookOnly | unix.O_DIRECTORY, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	err = retry(func() (err error) {
		fd, err = unix.Openat2(d.fd, name, &how)
		return err
	})
	if needsSteps(err) {
		fd, err = openat(d.fd, name, lookOnly|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return -1, err
	}
	return p.sameFileSystem(fd)
}

// isDir reports whether a name is a directory's.
func (d dir) isDir(name string) bool {
	st, err := d.lstat(name)
	return err == nil && kindOf(st.Mode) == entry.Dir
}

// opened makes a call in a directory that goes for good: where the directory lets nobody
// in it is opened to its owner.
func (p *Place) opened(d dir, call func() error) error {
	err := retry(call)
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	if cerr := chmod(d.fd, ownerAll); cerr != nil {
		return err
	}
	return retry(call)
}
