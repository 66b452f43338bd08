package tree

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/pkg/filelock"
)

// Engine copies trees. Its zero value is ready; it may be used concurrently for
// different destinations.
type Engine struct {
	// Workers is how many files are copied at once; 0 means twice the cores, at
	// least 4 and at most 16.
	Workers int
	// Passes is how often a changing source is gone over before it is given up;
	// 0 means 5.
	Passes int
	// afterRead is called when a file's content was read and before it is looked
	// at again, so that tests can change it right then.
	afterRead func(path string)
}

// Level4 is the strongest proof of a copy: it was read back in full.
const Level4 = "L4"

// Result is a copy that is whole and verified.
type Result struct {
	// Files and Bytes count regular files and their content.
	Files int64
	Bytes int64
	// Root is the hex BLAKE3 hash of the manifest's bytes.
	Root string
	// Manifest is the path of the manifest, beside the copy.
	Manifest string
	// Verified is the level of proof reached.
	Verified string
}

// ManifestSuffix is appended to the destination's path to name the manifest.
const ManifestSuffix = ".firedrill-manifest.jsonl"

// JobSuffix is appended to the destination's path to name the file that says whose
// copy lies there.
const JobSuffix = ".firedrill-job"

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".firedrill-copy-"

// Copy makes to a copy of the directory from, both absolute paths, and writes a
// manifest beside it. The destination must be new or empty, unless the same job,
// any text that no other copy has, has been copying there: it may be repeated at any time, and an
// interrupted run leaves no half-written file under a real name. Symbolic links are copied as links. The
// owner is kept where the process may set it (as root).
//
// Errors wrap one of the package's Err values, or the file system's error. The
// destination then holds what was copied so far.
func (e Engine) Copy(ctx context.Context, job, from, to string) (Result, error) {
	src, dst, to, err := openBoth(from, to)
	if err != nil {
		return Result{}, fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	defer func() { _ = src.Close() }() // opened for reading
	r := &run{e: e, src: src, dst: dst, known: map[string]known{}}
	res, err := r.alone(ctx, job, to)
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Result{}, fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return res, nil
}

// openBoth refuses what must not be copied and opens both roots.
func openBoth(from, to string) (src, dst *os.Root, realTo string, err error) {
	realFrom, err := filepath.EvalSymlinks(from)
	if err != nil {
		return nil, nil, to, fmt.Errorf("%w: %w", ErrNoSource, err)
	}
	if fi, err := os.Stat(realFrom); err != nil || !fi.IsDir() {
		return nil, nil, to, fmt.Errorf("%w: %s is not a directory", ErrNoSource, realFrom)
	}
	realTo, err = resolve(to)
	if err != nil {
		return nil, nil, to, err
	}
	if inside(realFrom, realTo) || inside(realTo, realFrom) {
		return nil, nil, to, fmt.Errorf("%w: %s and %s; copy to a place of its own", ErrOverlap, realFrom, realTo)
	}
	src, err = os.OpenRoot(realFrom)
	if err != nil {
		return nil, nil, to, err
	}
	switch empty, err := isEmpty(src); {
	case err != nil:
		return nil, nil, to, errors.Join(err, src.Close())
	case empty:
		err = fmt.Errorf("%w: %s: is its file system mounted?", ErrEmptySource, realFrom)
		return nil, nil, to, errors.Join(err, src.Close())
	}
	if err := os.MkdirAll(realTo, 0o700); err != nil {
		return nil, nil, to, errors.Join(err, src.Close())
	}
	dst, err = os.OpenRoot(realTo)
	if err != nil {
		return nil, nil, to, errors.Join(err, src.Close())
	}
	return src, dst, realTo, nil
}

func isEmpty(dir *os.Root) (bool, error) {
	d, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	defer func() { _ = d.Close() }() // opened for reading
	_, err = d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// resolve follows the symbolic links of the part of a path that exists.
func resolve(p string) (string, error) {
	rest := ""
	for cur := filepath.Clean(p); ; cur = filepath.Dir(cur) {
		real, err := filepath.EvalSymlinks(cur)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || cur == filepath.Dir(cur) {
			return "", err
		}
		rest = filepath.Join(filepath.Base(cur), rest)
	}
}

func inside(dir, p string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// run is one call of Copy.
type run struct {
	e        Engine
	src, dst *os.Root

	mu    sync.Mutex
	known map[string]known
}

// known is an entry that was copied, and what it looked like then.
type known struct {
	node  node
	entry Entry
}

// alone holds the destination's lock while it copies: two runs into one place
// would take each other's unfinished files for an interrupted run's. The lock
// goes with the process.
func (r *run) alone(ctx context.Context, job, to string) (Result, error) {
	d, err := r.dst.Open(".")
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = filelock.LetGo(d) }() // nothing was written to it
	switch err := filelock.Wait(ctx, d, lockPoll); {
	case err != nil && ctx.Err() != nil:
		return Result{}, fmt.Errorf("wait for another copy to the same place: %w", ctx.Err())
	case err != nil:
		return Result{}, fmt.Errorf("lock the destination: %w", err)
	}
	return r.all(ctx, job, to)
}

// lockPoll is how often a destination that is in use is looked at again.
const lockPoll = 50 * time.Millisecond

func (r *run) all(ctx context.Context, job, to string) (Result, error) {
	if err := r.claim(job, to); err != nil {
		return Result{}, err
	}
	if err := r.sweep(); err != nil {
		return Result{}, fmt.Errorf("remove what an interrupted run left: %w", err)
	}
	if err := r.passes(ctx); err != nil {
		return Result{}, err
	}
	if err := r.finishDirs(); err != nil {
		return Result{}, err
	}
	entries := make([]Entry, 0, len(r.known))
	for _, k := range r.known {
		entries = append(entries, k.entry)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.name(), b.name()) })
	if err := r.verify(ctx, entries); err != nil {
		return Result{}, err
	}
	res := Result{Manifest: to + ManifestSuffix, Verified: Level4}
	for _, e := range entries {
		if e.Type == TypeFile {
			res.Files++
			res.Bytes += e.Size
		}
	}
	var err error
	res.Root, err = writeManifest(res.Manifest, entries)
	return res, err
}

// passes goes over the source until a walk finds nothing new.
func (r *run) passes(ctx context.Context) error {
	passes := r.e.Passes
	if passes == 0 {
		passes = 5
	}
	var changed []string
	for range passes {
		nodes, special, err := walk(r.src)
		if err != nil {
			return fmt.Errorf("walk the source: %w", err)
		}
		if len(special) > 0 {
			return &PathsError{Reason: ErrSpecial, Paths: special, Do: "remove them or copy the directories beside them"}
		}
		todo, gone := r.compare(nodes)
		if len(todo) == 0 && len(gone) == 0 {
			return nil
		}
		if err := r.remove(gone); err != nil {
			return err
		}
		if err := r.dirs(todo); err != nil {
			return err
		}
		if err := r.files(ctx, todo); err != nil {
			return err
		}
		changed = changed[:0]
		for _, n := range todo {
			changed = append(changed, n.path)
		}
		changed = append(changed, gone...)
	}
	return &PathsError{Reason: ErrChanging, Paths: changed, Do: fmt.Sprintf("%d passes met changes; stop the writers, or copy a snapshot", passes)}
}

// compare says what of the source is not copied as it is now, and what was
// copied by this run and is there no more.
func (r *run) compare(nodes []node) (todo []node, gone []string) {
	seen := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		seen[n.path] = true
		if k, ok := r.known[n.path]; !ok || !k.node.same(n) {
			todo = append(todo, n)
		}
	}
	for p := range r.known {
		if !seen[p] {
			gone = append(gone, p)
		}
	}
	slices.Sort(gone)
	return todo, gone
}

// remove takes back what this run copied and the source no longer has, children first.
func (r *run) remove(gone []string) error {
	for _, p := range slices.Backward(gone) {
		if r.known[p].node.kind != TypeSocket {
			if err := r.dst.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("take back %s, which has vanished from the source: %w", p, err)
			}
		}
		delete(r.known, p)
	}
	return nil
}

// dirs makes the directories, writable for now; finishDirs gives them their mode.
func (r *run) dirs(todo []node) error {
	for _, n := range todo {
		if n.kind != TypeDir {
			continue
		}
		if k, ok := r.known[n.path]; ok && k.node.kind != TypeDir {
			if err := r.remove([]string{n.path}); err != nil {
				return err
			}
		}
		if n.path != "." {
			if err := r.dst.Mkdir(n.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make directory: %w", err)
			}
			fi, err := r.dst.Lstat(n.path)
			if err != nil {
				return err
			}
			if !fi.IsDir() {
				return &PathsError{Reason: ErrDiffers, Paths: []string{n.path}, Do: "the destination has something else under a directory's name; copy to an empty place"}
			}
		}
		if err := r.dst.Chmod(n.path, 0o700); err != nil {
			return fmt.Errorf("make directory writable: %w", err)
		}
		r.note(n, Entry{Type: TypeDir})
	}
	return nil
}

// files copies everything but directories, some at once. The first error ends it.
func (r *run) files(ctx context.Context, todo []node) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan node)
	var wg sync.WaitGroup
	for range r.workers() {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for n := range work {
				if err := r.one(ctx, n, buf); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, n := range todo {
		if n.kind == TypeDir {
			continue
		}
		select {
		case work <- n:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

func (r *run) workers() int {
	if r.e.Workers > 0 {
		return r.e.Workers
	}
	return min(16, max(4, 2*runtime.GOMAXPROCS(0)))
}

// one copies a node that is no directory. What changes or vanishes under it is
// left for the next pass.
func (r *run) one(ctx context.Context, n node, buf []byte) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if k, ok := r.lookup(n.path); ok && k.node.kind == TypeDir {
		// It was a directory in an earlier pass; its children are gone already.
		if err := r.dst.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace directory %s: %w", n.path, err)
		}
	}
	var err error
	switch n.kind {
	case TypeSocket:
		r.note(n, Entry{Type: TypeSocket})
		return nil
	case TypeSymlink:
		err = r.link(n)
	default:
		err = r.file(ctx, n, buf)
	}
	if errors.Is(err, errMoved) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", n.path, err)
	}
	return nil
}

// errMoved says that a node is not what it was when the source was walked.
var errMoved = errors.New("changed while it was read")

func (r *run) note(n node, e Entry) {
	e.setName(n.path)
	e.Mode, e.MTime = unixMode(n.id.mode), n.id.mtime
	if n.kind == TypeSymlink {
		e.Mode = 0 // a link's own mode means nothing
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[n.path] = known{node: n, entry: e}
}

func (r *run) lookup(p string) (known, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.known[p]
	return k, ok
}

// tickWait is more than the coarsest step of a file system's ctime: a file that
// was not touched for so long cannot be changed unseen while it is read.
const tickWait = 20 * time.Millisecond

// look opens a file and checks that it is the one that the walk found.
func (r *run) look(ctx context.Context, n node) (*os.File, node, error) {
	f, err := openPlain(r.src, n.path)
	if err != nil {
		fi, lerr := r.src.Lstat(n.path)
		if lerr != nil {
			return nil, n, errors.Join(errMoved, err)
		}
		if id, lerr := identityOf(fi); lerr != nil || id != n.id {
			return nil, n, errors.Join(errMoved, err)
		}
		return nil, n, err
	}
	for {
		fi, err := f.Stat()
		if err != nil {
			return nil, n, errors.Join(err, f.Close())
		}
		id, err := identityOf(fi)
		if err != nil {
			return nil, n, errors.Join(err, f.Close())
		}
		if !fi.Mode().IsRegular() || id.ino != n.id.ino || id.dev != n.id.dev {
			return nil, n, errors.Join(errMoved, f.Close())
		}
		n.id = id
		age := time.Since(time.Unix(0, id.ctime))
		if age >= tickWait || age < 0 { // a time in the future would keep us here
			return f, n, nil
		}
		select {
		case <-time.After(tickWait - age):
		case <-ctx.Done():
			return nil, n, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// file copies one file in one pass of reading: hash, write, look again.
func (r *run) file(ctx context.Context, n node, buf []byte) error {
	in, n, err := r.look(ctx, n)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // opened for reading
	out, temp, err := r.temp(n.path)
	if err != nil {
		return err
	}
	h := blake3.New()
	size, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, h)}, struct{ io.Reader }{&ctxReader{ctx, in}}, buf)
	if err == nil && r.e.afterRead != nil {
		r.e.afterRead(n.path)
	}
	if err == nil {
		err = r.unchanged(in, n, size)
	}
	if err == nil {
		err = out.Sync()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = r.dress(temp, n)
	}
	if err == nil {
		err = r.dst.Rename(temp, n.path)
	}
	if err != nil {
		return errors.Join(err, r.dst.Remove(temp))
	}
	r.note(n, Entry{Type: TypeFile, Size: size, Blake3: hex.EncodeToString(h.Sum(nil))})
	return nil
}

// unchanged looks at a file again after it was read.
func (r *run) unchanged(in *os.File, n node, size int64) error {
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	id, err := identityOf(fi)
	if err != nil {
		return err
	}
	if id != n.id || size != id.size {
		return errMoved
	}
	return nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
