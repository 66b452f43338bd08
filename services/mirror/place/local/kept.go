package local

import (
	"context"
	"fmt"
	"iter"
	"os"
	"slices"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/scan"
	"golang.org/x/sys/unix"
)

// What was put aside is listed, and moved back.

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
