package local

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// Remove removes what the place holds, one after the other.
func (p *Place) Remove(ctx context.Context, have []entry.Entry) []error {
	errs := make([]error, len(have))
	for i, e := range have {
		if err := p.remove(ctx, e); err != nil {
			errs[i] = &Error{"remove", e.Path, err}
		}
	}
	return errs
}

func (p *Place) remove(ctx context.Context, have entry.Entry) error {
	return p.removing(ctx, have, func(d dir, name string, seen *unix.Stat_t) error {
		if have.Kind == entry.Dir {
			return p.removeDir(d, name)
		}
		return p.removeNode(d, name, seen)
	})
}

// removing calls do for what is there, if that is what was seen.
func (p *Place) removing(ctx context.Context, have entry.Entry, do func(d dir, name string, seen *unix.Stat_t) error) error {
	if err := p.change(ctx); err != nil {
		return err
	}
	if err := p.holdsName(have.Path); err != nil {
		return err
	}
	d, name, err := p.parent(have.Path, false)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.close()
	st, err := d.lstat(name)
	switch {
	case gone(err):
		return nil
	case err != nil:
		return err
	case differs(have, &st):
		return changed("it was touched or replaced")
	}
	return do(d, name, &st)
}

// removeNode removes what was seen, and nothing that took its name since: it is
// moved aside and looked at first.
func (p *Place) removeNode(d dir, name string, seen *unix.Stat_t) error {
	aside := p.writer.newTemp()
	err := p.in(d, func() error { return p.flagged(d, name, aside, unix.RENAME_NOREPLACE) })
	switch {
	case gone(err):
		return nil
	case unsupported(err):
		if err = p.in(d, func() error { return d.unlink(name) }); gone(err) {
			return nil
		}
		return err
	case err != nil:
		return err
	}
	out, err := d.lstat(aside)
	if err == nil && sameNode(&out, seen) {
		return d.unlink(aside)
	}
	return errors.Join(changed("it was replaced at the last moment"), err, d.moveBack(aside, name))
}

func (p *Place) removeDir(d dir, name string) error {
	rmdir := func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) }
	err := p.in(d, rmdir)
	if full(err) {
		if err := p.sweepDir(d, name); err != nil {
			return err
		}
		err = p.in(d, rmdir)
	}
	switch {
	case full(err):
		return place.ErrNotEmpty
	case gone(err):
		return nil
	case err == unix.ENOTDIR:
		return changed("it was replaced at the last moment")
	}
	return err
}

func full(err error) bool { return err == unix.ENOTEMPTY || err == unix.EEXIST }

// sweepDir removes what crashed runs left in a directory, if nothing else is in it.
func (p *Place) sweepDir(d dir, name string) error {
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	inside := dir{fd: fd}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list what is in it: %w", err)
	}
	for _, left := range names {
		if !p.writer.made(left) || !p.isStale(inside, left) {
			return place.ErrNotEmpty
		}
	}
	for _, left := range names {
		if err := inside.unlink(left); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}
