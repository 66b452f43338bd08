package tree

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// openPlain opens a file for reading; a pipe that took its name does not block it.
func openPlain(root *os.Root, p string) (*os.File, error) {
	return root.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// temp makes a file to write to, beside its place.
func (r *run) temp(p string) (*os.File, string, error) {
	name := path.Join(path.Dir(p), tempPrefix+rand.Text()+".tmp")
	f, err := r.dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return f, name, err
}

// claim takes the destination for a job. What an interrupted try of the same job
// left is gone on with; anything else there is somebody's, and would be replaced
// where the names are the same.
func (r *run) claim(job, to string) error {
	mark := to + JobSuffix
	holder, err := os.ReadFile(mark)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read whose copy lies there: %w", err)
	}
	if err == nil && string(holder) == job+"\n" {
		return nil
	}
	switch empty, err := isEmpty(r.dst); {
	case err != nil:
		return fmt.Errorf("look into the destination: %w", err)
	case !empty && len(holder) > 0:
		return fmt.Errorf("%w: %s holds the copy of %q: copy to a new or an empty directory", ErrNotEmpty, to, strings.TrimSpace(string(holder)))
	case !empty:
		return fmt.Errorf("%w: %s: copy to a new or an empty directory", ErrNotEmpty, to)
	}
	err = replaceFile(mark, func(w io.Writer) error {
		_, err := io.WriteString(w, job+"\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("note whose copy this is: %w", err)
	}
	return nil
}

// sweep removes the unfinished files of an interrupted run.
func (r *run) sweep() error {
	nodes, _, err := walk(r.dst)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.kind == TypeFile && strings.HasPrefix(path.Base(n.path), tempPrefix) && strings.HasSuffix(n.path, ".tmp") {
			if err := r.dst.Remove(n.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// dress gives a copied file its owner, mode and time.
func (r *run) dress(p string, n node) error {
	if err := r.own(p, n); err != nil {
		return err
	}
	if err := r.dst.Chmod(p, n.id.mode); err != nil {
		return err
	}
	return r.dst.Chtimes(p, mtimeOf(n.id), mtimeOf(n.id))
}

// own keeps the owner where the process may. A setuid file whose owner cannot be
// kept would lend somebody else's rights, so it is refused.
func (r *run) own(p string, n node) error {
	euid := os.Geteuid()
	if euid == 0 {
		return r.dst.Lchown(p, int(n.id.uid), int(n.id.gid))
	}
	if n.id.mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && n.kind == TypeFile && int(n.id.uid) != euid {
		return fmt.Errorf("it is setuid or setgid and its owner %d cannot be kept; copy as root: %w", n.id.uid, fs.ErrPermission)
	}
	return nil
}

// link copies a symbolic link as it is, under a temporary name first.
func (r *run) link(n node) error {
	target, err := r.src.Readlink(n.path)
	if err != nil {
		// Vanished, or no link any more.
		return errors.Join(errMoved, err)
	}
	temp := path.Join(path.Dir(n.path), tempPrefix+rand.Text()+".tmp")
	if err := r.dst.Symlink(target, temp); err != nil {
		return err
	}
	err = r.own(temp, n)
	if err == nil {
		err = r.linkTime(temp, n)
	}
	if err == nil {
		err = r.dst.Rename(temp, n.path)
	}
	if err != nil {
		return errors.Join(err, r.dst.Remove(temp))
	}
	fi, err := r.src.Lstat(n.path)
	if err != nil {
		return errors.Join(errMoved, err)
	}
	if id, err := identityOf(fi); err != nil || id != n.id {
		return errors.Join(errMoved, err)
	}
	e := Entry{Type: TypeSymlink}
	e.setTarget(target)
	r.note(n, e)
	return nil
}

func (r *run) linkTime(p string, n node) error {
	d, err := r.dst.Open(path.Dir(p))
	if err != nil {
		return err
	}
	ts := unix.NsecToTimespec(n.id.mtime)
	err = unix.UtimesNanoAt(int(d.Fd()), path.Base(p), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		err = fmt.Errorf("set the time of link %s: %w", p, err)
	}
	return errors.Join(err, d.Close())
}

// finishDirs gives directories their owner, mode and time, children first since
// each child moves its parent's time, and makes their entries durable.
func (r *run) finishDirs() error {
	var dirs []node
	for _, k := range r.known {
		if k.node.kind == TypeDir {
			dirs = append(dirs, k.node)
		}
	}
	slices.SortFunc(dirs, func(a, b node) int { return strings.Compare(b.path, a.path) })
	slices.SortStableFunc(dirs, func(a, b node) int { return depth(b.path) - depth(a.path) })
	for _, n := range dirs {
		d, err := r.dst.Open(n.path)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), r.dress(n.path, n), d.Close()); err != nil {
			return fmt.Errorf("finish directory %s: %w", n.path, err)
		}
	}
	return nil
}

func depth(p string) int {
	if p == "." {
		return -1
	}
	return strings.Count(p, "/")
}

// verify reads the copy back, from the disk where the system lets go of its
// cache, and compares it with the manifest. Anything besides is a difference too.
func (r *run) verify(ctx context.Context, entries []Entry) error {
	back := &run{e: r.e, src: r.dst, known: map[string]known{}}
	nodes, special, err := walk(r.dst)
	if err != nil {
		return fmt.Errorf("read the copy back: %w", err)
	}
	if err := back.hashAll(ctx, nodes); err != nil {
		return fmt.Errorf("read the copy back: %w", err)
	}
	differ := special
	for _, e := range entries {
		if e.Type == TypeSocket {
			continue
		}
		k, ok := back.known[e.name()]
		if !ok || !k.entry.equal(e) {
			differ = append(differ, e.Path)
		}
		delete(back.known, e.name())
	}
	for p := range back.known {
		differ = append(differ, p)
	}
	if len(differ) > 0 {
		slices.Sort(differ)
		return &PathsError{Reason: ErrDiffers, Paths: differ, Do: "if these are older files, copy to an empty place; else check the disk"}
	}
	return nil
}
