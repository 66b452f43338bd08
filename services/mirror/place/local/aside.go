package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// What is removed may be put aside: one rename moves it into the trash below the root,
// so that it keeps all that it has. It is never copied there.

var _ place.Keeper = (*Place)(nil)

// errAcross says why something can be neither put aside nor brought back.
var errAcross = errors.New("it and the trash are on different file systems, or mounted apart, and it is moved but never copied between them: it was left alone")

const (
	asideAcross = "mirror what is mounted there on its own, leave it out with a filter, or delete for good by a run that keeps nothing"
	backAcross  = "unmount what is mounted there, or copy it by hand out of the trash"
)

// PutAside implements [place.Keeper].
func (p *Place) PutAside(ctx context.Context, bin place.Bin, have []entry.Entry) []error {
	errs := make([]error, len(have))
	for i, e := range have {
		if err := p.putAside(ctx, bin, e); err != nil {
			errs[i] = &Error{"remove", e.Path, err}
		}
	}
	return errs
}

func (p *Place) putAside(ctx context.Context, bin place.Bin, have entry.Entry) error {
	return p.removing(ctx, have, func(d dir, name string, seen *unix.Stat_t) error {
		if have.Kind == entry.Dir {
			return p.dirAside(ctx, bin, d, name, have)
		}
		return p.nodeAside(ctx, bin, d, name, have.Path, seen)
	})
}

// nodeAside moves what was seen into the trash, and back what took its name since.
func (p *Place) nodeAside(ctx context.Context, bin place.Bin, d dir, name, path string, seen *unix.Stat_t) error {
	above, _ := split(path)
	t, err := p.openBin(ctx, bin, above)
	if err != nil {
		return fmt.Errorf("put it aside: %w", err)
	}
	defer t.close()
	switch err := p.move(d, t, name); {
	case gone(err):
		return nil
	case err == unix.EXDEV:
		return fmt.Errorf("%w; %s", errAcross, asideAcross)
	case err == unix.EEXIST:
		return changed("this run has put something aside under its name already")
	case err != nil:
		return err
	}
	out, err := t.lstat(name)
	if err == nil && sameNode(&out, seen) {
		return nil
	}
	// Where the name was taken once more, what was moved stays in the trash.
	if back := p.move(t, d, name); back != nil && back != unix.EEXIST {
		err = errors.Join(err, fmt.Errorf("put back what had the name, which is in the trash now: %w", back))
	}
	return errors.Join(changed("it was replaced at the last moment"), err)
}

// move renames something into another directory, if nothing has its name there.
func (p *Place) move(from, to dir, name string) error {
	rename := func(flags uint) error {
		return p.in(from, func() error {
			return p.in(to, func() error {
				return retry(func() error { return unix.Renameat2(from.fd, name, to.fd, name, flags) })
			})
		})
	}
	err := error(unix.EINVAL)
	if !p.plain {
		err = rename(unix.RENAME_NOREPLACE)
	}
	if !unsupported(err) {
		return err
	}
	// A second name is never made in place of another one.
	if _, err := to.lstat(name); !gone(err) {
		return cmp.Or(err, error(unix.EEXIST))
	}
	return rename(0)
}

// dirAside makes an empty directory in the trash that is like the one that is removed.
func (p *Place) dirAside(ctx context.Context, bin place.Bin, d dir, name string, have entry.Entry) error {
	t, err := p.openBin(ctx, bin, have.Path)
	if err != nil {
		return fmt.Errorf("put it aside: %w", err)
	}
	defer t.close()
	if err := p.removeDir(d, name); err != nil {
		return err
	}
	// All that was in it is in there already, so that its time is the last.
	return utimes(t.fd, have.MTime)
}

// openBin opens a directory in the trash in which lies what was put aside from a directory
// of the place. It is made where it is missing, with those above it, and is then like that.
func (p *Place) openBin(ctx context.Context, bin place.Bin, path string) (dir, error) {
	top := place.Trash + "/" + bin.String()
	full := top
	if path != "" {
		full += "/" + path
	}
	d, err := p.openDir(full, false)
	if !gone(err) {
		return d, err
	}
	d = dir{fd: p.at}
	for end := 0; end <= len(full); end++ {
		if end < len(full) && full[end] != '/' {
			continue
		}
		like := ""
		if end > len(top) {
			like = full[len(top)+1 : end]
		}
		next, err := p.binStep(ctx, d, full[:end], like)
		d.close()
		if err != nil {
			return dir{}, err
		}
		d = next
	}
	return d, nil
}

// binStep opens a directory of the trash, or makes it, like one of the place's.
func (p *Place) binStep(ctx context.Context, d dir, path, like string) (dir, error) {
	_, name := split(path)
	const private = ownerAll
	err := p.in(d, func() error { return unix.Mkdirat(d.fd, name, private) })
	made := err == nil
	if err != nil && err != unix.EEXIST {
		return dir{}, err
	}
	fd, err := p.step(d, name, false)
	if err != nil {
		return dir{}, inTheWay(err)
	}
	next := dir{fd: fd, path: path, owned: true}
	if made && like != "" {
		if err := p.makeLike(ctx, next, like); err != nil {
			next.close()
			return dir{}, fmt.Errorf("make it like %q: %w", like, err)
		}
	}
	return next, nil
}

// makeLike gives a directory the owner, the attributes and the mode of another one.
func (p *Place) makeLike(ctx context.Context, d dir, like string) error {
	from, err := p.openDir(like, false)
	if gone(err) {
		return nil // Somebody has removed it: what lay in it is gone, too.
	}
	if err != nil {
		return err
	}
	defer from.close()
	e, err := p.describe(ctx, from.fd, like)
	if err != nil {
		return err
	}
	return p.apply(d.fd, e, e.Mode)
}

// leftOut is told of what has the name of a trash. What holds nothing but bins, or nothing
// at all, is a mirror's.
func (p *Place) leftOut(path string, kind entry.Kind, tell func(string)) {
	if tell == nil {
		return
	}
	if kind == entry.Dir {
		d, err := p.openDir(path, false)
		if err == nil {
			defer d.close()
			var names []string
			names, err = d.names()
			own := !slices.ContainsFunc(names, func(name string) bool { _, ok := place.ParseBin(name); return !ok })
			if err == nil && own {
				return
			}
		}
		if gone(err) {
			return
		}
	}
	tell(path)
}
