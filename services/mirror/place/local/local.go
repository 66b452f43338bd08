// Package local is a directory as a place of the mirror.
//
// Reading is package scan's. Writing goes through the descriptor of the root and
// follows no link on the way, so that a link which someone planted in the tree
// leads nothing outside. What is written lies under a temporary name beside its
// place, with all its attributes, until one rename puts it there; what the rename
// takes away is looked at, and put back where it is not what may be overwritten.
package local

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/scan"
	"golang.org/x/sys/unix"
)

// Options say how a directory is used. The zero value reads and writes everything
// but extended attributes.
type Options struct {
	// ReadOnly refuses every change. Nothing is touched then, not even what a
	// crashed run left.
	ReadOnly bool
	// Rights has SetRights work although all else is refused, as ReadOnly asks.
	Rights bool
	// Xattrs keeps extended attributes too, where the file system has them.
	Xattrs bool
	// Unprivileged refuses what gives rights to whoever says that it is so: devices, setuid
	// and setgid files, and the extended attributes that only root may set.
	Unprivileged bool
	// NoOwner leaves owners alone although the process may set them: for shares
	// that answer root with someone else's rights.
	NoOwner bool
	// OneFileSystem leaves alone what is mounted below the directory: it is neither
	// listed nor written into.
	OneFileSystem bool
	// FS is the identity of the file system, where the caller knows a better one
	// than can be found out; see [scan.Options].
	FS entry.FSID
	// Owner, if not "", stands for whoever opens the place for writing, in one process at a
	// time, and never in another one before all of that has ended: the temporary files of
	// such a process that was killed are swept as soon as they are seen. Those of all
	// others have to be old.
	Owner string
	// Name is how the user wrote the location; "" means the path.
	Name string
}

// Place is an open directory. Its methods may be used concurrently, but Finish
// and Close only when nothing else is under way.
type Place struct {
	o       Options
	name    string
	root    *os.Root
	dir     *os.File // the root's, for reading, which is what syncfs(2) wants
	at      int      // its descriptor
	nameMax int
	rights  rights
	xattrs  bool
	traits  place.Traits
	fs      fileSystems
	notes   notes
	written atomic.Bool // since the last Finish
	buffers sync.Pool   // of *[]byte, for contents
	writer  writer
	stale   time.Duration
	left    leftovers
	plain   bool // does without the flags of renameat2(2)
}

var _ place.Place = (*Place)(nil)

// Open opens a directory, which must exist. The caller closes the place.
func Open(ctx context.Context, path string, o Options) (*Place, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, &Error{"open", path, err}
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(&Error{"open", path, err}, root.Close())
	}
	p := &Place{o: o, name: o.Name, root: root, dir: dir, at: int(dir.Fd()), rights: ownRights(), writer: newWriter(o.Owner), stale: staleAfter}
	if p.name == "" {
		p.name = path
	}
	if err := p.learn(ctx); err != nil {
		return nil, errors.Join(&Error{"open", path, err}, p.Close())
	}
	return p, nil
}

// learn finds out what the directory and its file system can do.
func (p *Place) learn(ctx context.Context) error {
	var fs unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(p.at, &fs) }); err != nil {
		return err
	}
	if (!p.o.ReadOnly || p.o.Rights) && fs.Flags&unix.ST_RDONLY != 0 {
		return unix.EROFS
	}
	p.nameMax = int(fs.Namelen)
	if p.nameMax <= 0 || p.nameMax > unix.NAME_MAX {
		p.nameMax = unix.NAME_MAX
	}
	if p.o.NoOwner {
		p.rights.chown = false
	}
	if p.o.Xattrs {
		_, err := unix.Flistxattr(p.at, nil)
		p.xattrs = !errors.Is(err, unix.ENOTSUP)
	}
	var st unix.Stat_t
	if err := fstat(p.at, &st); err != nil {
		return err
	}
	id, err := identify(ctx, p.root, p.o.FS)
	if err != nil {
		return err
	}
	p.fs = fileSystems{rootDev: uint64(st.Dev), root: id}
	p.traits = p.traitsOf(st.Ino)
	return nil
}

// String is the location as its user wrote it.
func (p *Place) String() string { return p.name }

// Traits say that a directory keeps everything, as far as the process may.
func (p *Place) Traits() place.Traits { return p.traits }

// traitsOf makes the traits of the directory with an inode: they are asked for with every
// entry.
func (p *Place) traitsOf(inode uint64) place.Traits {
	lists := plan.AllAttrs
	if !p.rights.chown {
		lists &^= plan.AttrOwner
	}
	if !p.xattrs {
		lists &^= plan.AttrXattrs
	}
	return place.Traits{
		Lists:    lists,
		Holds:    p.reportHolds,
		FS:       p.fs.root,
		Identity: fmt.Sprintf("%s-%x", hex.EncodeToString(p.fs.root[:]), inode),
	}
}

// Finish gives the directories that were made their times and modes, removes what
// crashed runs left and was too young for that before, and waits until everything is on
// the disk.
func (p *Place) Finish(ctx context.Context) error {
	for _, path := range p.left.take() {
		p.sweep(path)
	}
	if !p.written.Swap(false) {
		return nil
	}
	return errors.Join(p.settleDirs(ctx), p.sync())
}

// sync is one call for each file system: syncing file by file would cost more than
// writing them did.
func (p *Place) sync() error {
	var errs []error
	for dir := range p.fs.all(p.dir) {
		if err := retry(func() error { return unix.Syncfs(int(dir.Fd())) }); err != nil {
			errs = append(errs, &Error{"make durable what was written to", p.name, err})
		}
	}
	return errors.Join(errs...)
}

// Sync makes durable what was written so far, but for what waits for Finish. Unlike
// that it may be called while something is written.
func (p *Place) Sync(context.Context) error {
	if !p.written.Load() {
		return nil
	}
	return p.sync()
}

// Close closes the directory.
func (p *Place) Close() error {
	return errors.Join(p.notes.close(), p.fs.close(), p.dir.Close(), p.root.Close())
}

// change is asked before each change of the tree.
func (p *Place) change(ctx context.Context) error {
	if p.o.ReadOnly {
		return place.ErrReadOnly
	}
	return p.touch(ctx)
}

// touch is asked before each change that was not refused.
func (p *Place) touch(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.written.Store(true)
	return nil
}

// scanOptions are those with which the walk sees what the place keeps.
func (p *Place) scanOptions() scan.Options {
	return scan.Options{Xattrs: p.xattrs, OneFileSystem: p.o.OneFileSystem, FS: p.o.FS}
}
