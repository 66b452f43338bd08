package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/scan"
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

// Kept implements [place.Keeper].
func (p *Place) Kept(ctx context.Context, o place.KeptOptions) iter.Seq2[place.Kept, error] {
	return func(yield func(place.Kept, error) bool) {
		bins, err := p.bins(o)
		if err != nil {
			yield(place.Kept{}, &Error{"read", place.Trash, err})
			return
		}
		for _, bin := range bins {
			for k, err := range p.inBin(ctx, bin, o) {
				if !yield(k, err) {
					return
				}
			}
		}
	}
}

// bins are those in the trash that are asked for, the oldest first. What else is in it is
// nobody's.
func (p *Place) bins(o place.KeptOptions) ([]place.Bin, error) {
	d, err := p.openDir(place.Trash, false)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.close()
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []place.Bin
	for _, name := range names {
		if bin, ok := o.Bin(name); ok {
			out = append(out, bin)
		}
	}
	return out, nil
}

// names lists what is in the directory.
func (d dir) names() ([]string, error) {
	fd, err := openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer func() { _ = f.Close() }()
	return f.Readdirnames(-1)
}

// inBin streams what is in one bin.
func (p *Place) inBin(ctx context.Context, bin place.Bin, o place.KeptOptions) iter.Seq2[place.Kept, error] {
	return func(yield func(place.Kept, error) bool) {
		d, err := p.openDir(place.Trash+"/"+bin.String(), false)
		if err != nil {
			if !gone(err) { // else it was pruned just now
				yield(place.Kept{}, &Error{"read", d.path, err})
			}
			return
		}
		defer d.close()
		root, err := os.OpenRoot(self(d.fd))
		if err != nil {
			yield(place.Kept{}, &Error{"read", d.path, err})
			return
		}
		defer func() { _ = root.Close() }()
		so := p.scanOptions()
		so.FS = p.fs.root
		so.Filter = func(path string, kind entry.Kind) bool {
			return kind == entry.Dir && o.Reaches(path) || o.Takes(path)
		}
		for e, err := range scan.Walk(ctx, root, so) {
			if err == nil && (e.Path == "" || !o.Wants(e) || e.Kind == entry.Dir && p.hasDir(ctx, e.Path)) {
				continue
			}
			if !yield(place.Kept{Entry: e, Bin: bin}, err) {
				return
			}
		}
	}
}

// hasDir reports whether the place has a directory: one in the trash is then only what
// lies in it lies in.
func (p *Place) hasDir(ctx context.Context, path string) bool {
	now, err := p.lookAt(ctx, path)
	return err == nil && now.Kind == entry.Dir
}

// Free implements [place.Keeper].
func (p *Place) Free(ctx context.Context, k place.Kept) error {
	if err := p.free(ctx, k); err != nil {
		return &Error{"look at", k.Entry.Path, err}
	}
	return nil
}

func (p *Place) free(ctx context.Context, k place.Kept) error {
	if err := p.holdsName(k.Entry.Path); err != nil {
		return err
	}
	now, err := p.lookAt(ctx, k.Entry.Path)
	switch {
	case err == nil && (now.Kind != entry.Dir || k.Entry.Kind != entry.Dir):
		return changed(fmt.Sprintf("a %s has its name", now.Kind))
	case err != nil && !gone(err):
		return err
	case k.Bin.Run == "" || k.Entry.Kind == entry.Dir: // which is not moved
		return nil
	}
	return p.besideTrash(k.Entry.Path)
}

// besideTrash reports whether something can be moved out of the trash to a path.
func (p *Place) besideTrash(path string) error {
	trash, err := p.mountOf(place.Trash)
	if err != nil {
		return err
	}
	for {
		path, _ = split(path)
		switch at, err := p.mountOf(path); {
		case gone(err) && path != "": // it will be made
		case err != nil:
			return err
		case at != trash:
			return fmt.Errorf("%w; %s", errAcross, backAcross)
		default:
			return nil
		}
	}
}

// mountOf tells the mount of a directory from others; on old kernels that is 0.
func (p *Place) mountOf(path string) (uint64, error) {
	d, err := p.openDir(path, false)
	if err != nil {
		return 0, err
	}
	defer d.close()
	var st unix.Statx_t
	err = retry(func() error { return unix.Statx(d.fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) })
	if err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, nil // Then it is found out when it is moved.
	}
	return st.Mnt_id, nil
}

// Restore implements [place.Keeper].
func (p *Place) Restore(ctx context.Context, k place.Kept) (entry.Entry, error) {
	e, err := p.restore(ctx, k)
	if err != nil {
		return entry.Entry{}, &Error{"restore", k.Entry.Path, err}
	}
	return e, nil
}

func (p *Place) restore(ctx context.Context, k place.Kept) (e entry.Entry, err error) {
	if err := p.change(ctx); err != nil {
		return e, err
	}
	path := k.Entry.Path
	if err := p.holdsName(path); err != nil {
		return e, err
	}
	bin := place.Trash + "/" + k.Bin.String() + "/"
	t, name, err := p.parent(bin+path, false)
	if gone(err) {
		err = changed("it is no longer in the trash")
	}
	if err != nil {
		return e, err
	}
	defer t.close()
	d, _, err := p.parent(path, true)
	if err != nil {
		return e, err
	}
	defer d.close()
	if k.Entry.Kind == entry.Dir {
		if _, err := d.expect(name, entry.Entry{}); err != nil {
			return e, err
		}
		if e, err = p.makeDir(ctx, k.Entry); err == nil {
			_ = unix.Unlinkat(t.fd, name, unix.AT_REMOVEDIR) // if nothing else is left in it
		}
		return e, err
	}
	switch err := p.move(t, d, name); {
	case gone(err):
		return e, changed("it is no longer in the trash")
	case err == unix.EXDEV:
		return e, fmt.Errorf("%w; %s", errAcross, backAcross)
	case err == unix.EEXIST:
		return e, changed("something has its name")
	case err != nil:
		return e, err
	}
	return p.lookAt(ctx, path)
}

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
