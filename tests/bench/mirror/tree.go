package mirror

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/zeebo/blake3"
)

// seed makes all content; the same on every machine.
const seed = 0x66697265

// Sum is what a file must hold. MD5 because servers name small objects by it, BLAKE3
// because contestants do.
type Sum struct {
	Size   int64
	MD5    [md5.Size]byte
	BLAKE3 [32]byte
}

// Tree is a generated directory. It may be used by one goroutine.
type Tree struct {
	Dir string
	Set Set
	// Sums are all files by their path below Dir.
	Sums map[string]Sum
	// generation is how often it was changed.
	generation uint64
	written    time.Time
}

// pathOf is the name of file i of a set.
func (s Set) pathOf(i int) string {
	return fmt.Sprintf("d%04d/f%07d.bin", i%s.Dirs, i)
}

// Generate writes the files of a set into dir, which must not exist: the same set
// gives the same files.
func Generate(ctx context.Context, dir string, s Set) (*Tree, error) {
	t := &Tree{Dir: dir, Set: s, Sums: make(map[string]Sum, s.Files)}
	for d := range s.Dirs {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("d%04d", d)), 0o755); err != nil {
			return nil, fmt.Errorf("generate %s: %w", s.Name, err)
		}
	}
	for i := range s.Files {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := t.write(i); err != nil {
			return nil, fmt.Errorf("generate %s: %w", s.Name, err)
		}
		// Old files, as most are.
		old := time.Unix(1_700_000_000+int64(i), int64(i)*1000)
		if err := os.Chtimes(filepath.Join(dir, s.pathOf(i)), old, old); err != nil {
			return nil, fmt.Errorf("generate %s: %w", s.Name, err)
		}
	}
	return t, nil
}

// Change rewrites one file in a hundred, but at least one, with other content of the
// same size, and returns how many.
func (t *Tree) Change() (int, error) {
	t.generation++
	n := max(t.Set.Files/100, 1)
	for _, i := range rand.New(rand.NewPCG(seed, t.generation)).Perm(t.Set.Files)[:n] {
		if err := t.write(i); err != nil {
			return 0, fmt.Errorf("change %s: %w", t.Set.Name, err)
		}
	}
	return n, nil
}

// write writes file i as it is in this generation.
func (t *Tree) write(i int) error {
	name := t.Set.pathOf(i)
	f, err := os.Create(filepath.Join(t.Dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	buffered := bufio.NewWriterSize(f, int(min(t.Set.Size, 1<<20)))
	sum, blake := md5.New(), blake3.New()
	// Random, so that nobody gains by compressing.
	if _, err := io.CopyN(io.MultiWriter(buffered, sum, blake), contentOf(i, t.generation), t.Set.Size); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	t.Sums[name] = Sum{Size: t.Set.Size, MD5: [md5.Size]byte(sum.Sum(nil)), BLAKE3: [32]byte(blake.Sum(nil))}
	t.written = time.Now()
	return f.Close()
}

// contentOf is the endless content of file i in a generation.
func contentOf(i int, generation uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[0:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(i))
	binary.LittleEndian.PutUint64(key[16:], generation)
	return rand.NewChaCha8(key)
}

// settle waits until nothing was written for d.
func (t *Tree) settle(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Until(t.written.Add(d))):
		return nil
	}
}

// ErrWrong says that a contestant did not do the work: its run does not count.
var ErrWrong = errors.New("the result is wrong")

// CompareDir reads all files below dir; the error is an [ErrWrong] unless they are
// exactly those of the tree. Directories and attributes are not looked at: not every
// contestant keeps them.
func (t *Tree) CompareDir(ctx context.Context, dir string) error {
	found := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		want, ok := t.Sums[filepath.ToSlash(name)]
		if !ok {
			return fmt.Errorf("%w: %s was not asked for", ErrWrong, name)
		}
		found++
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return want.compare(name, f)
	})
	if err == nil && found != len(t.Sums) {
		err = fmt.Errorf("%w: %d of %d files are there", ErrWrong, found, len(t.Sums))
	}
	return err
}

// compare reads r to its end.
func (s Sum) compare(name string, r io.Reader) error {
	sum := md5.New()
	n, err := io.Copy(sum, r)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if n != s.Size || [md5.Size]byte(sum.Sum(nil)) != s.MD5 {
		return fmt.Errorf("%w: %s has other content", ErrWrong, name)
	}
	return nil
}
