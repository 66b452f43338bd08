package local

import (
	"context"
	"errors"
	"iter"
	"os"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/scan"
	"golang.org/x/sys/unix"
)

// fileSystems are those that lie below the root. It may be used concurrently.
type fileSystems struct {
	rootDev uint64
	root    entry.FSID

	mu      sync.Mutex
	mounted map[uint64]mounted
}

// mounted is a file system other than the root's.
type mounted struct {
	id  entry.FSID
	dir *os.File // a directory in it, for syncfs(2)
}

// identify gives the identity of the file system of a directory, as walks give it
// to what lies there.
func identify(ctx context.Context, root *os.Root, known entry.FSID) (entry.FSID, error) {
	nothing := func(string, entry.Kind) bool { return false }
	for e, err := range scan.Walk(ctx, root, scan.Options{FS: known, Filter: nothing}) {
		return e.Change.FS, err
	}
	return entry.FSID{}, scan.ErrChanged
}

// fsOf gives the identity of the file system that a device number stands for, of
// which the directory holds something.
func (p *Place) fsOf(ctx context.Context, dev uint64, dir string) (entry.FSID, error) {
	if dev == p.fs.rootDev {
		return p.fs.root, nil
	}
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	if m, ok := p.fs.mounted[dev]; ok {
		return m.id, nil
	}
	m, err := p.mountedAt(ctx, dir)
	if err != nil {
		return entry.FSID{}, err
	}
	if p.fs.mounted == nil {
		p.fs.mounted = map[uint64]mounted{}
	}
	p.fs.mounted[dev] = m
	return m.id, nil
}

// mountedAt looks at the file system of a directory. Its device is what counts:
// on some file systems, such as overlays, files have others.
func (p *Place) mountedAt(ctx context.Context, path string) (m mounted, err error) {
	at := p.at
	if path != "" {
		if at, err = p.openNode(path); err != nil {
			return m, err
		}
		defer func() { _ = unix.Close(at) }()
	}
	if m.dir, err = os.Open(self(at)); err != nil {
		return m, err
	}
	var st unix.Stat_t
	if err := fstat(at, &st); err != nil {
		return m, errors.Join(err, m.dir.Close())
	}
	if uint64(st.Dev) == p.fs.rootDev {
		m.id = p.fs.root
		return m, nil
	}
	root, err := os.OpenRoot(self(at))
	if err == nil {
		m.id, err = identify(ctx, root, entry.FSID{})
		err = errors.Join(err, root.Close())
	}
	if err != nil {
		return m, errors.Join(err, m.dir.Close())
	}
	return m, nil
}

// all gives a directory of each file system, beginning with root.
func (f *fileSystems) all(root *os.File) iter.Seq[*os.File] {
	return func(yield func(*os.File) bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !yield(root) {
			return
		}
		for _, m := range f.mounted {
			if !yield(m.dir) {
				return
			}
		}
	}
}

func (f *fileSystems) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, m := range f.mounted {
		errs = append(errs, m.dir.Close())
	}
	f.mounted = nil
	return errors.Join(errs...)
}
