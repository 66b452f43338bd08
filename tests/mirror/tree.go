package mirror

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// shape is how many files of which sizes a tree has at first, and in how many
// directories, each with three more.
type shape struct{ small, medium, large, dirs int }

const (
	// smallMost is below what a batch takes, mediumLeast above it.
	smallMost   = 20 << 10
	mediumLeast = 130 << 10
	mediumMost  = 400 << 10
	// largeSize is above what a bucket's places take at once.
	largeSize = 65 << 20
)

// tree is a directory that is written and changed at random, from one source of
// randomness. It is used by one goroutine.
type tree struct {
	dir  string
	rand *rand.Rand
	// size has every file by its path.
	size map[string]int64
	// writes counts, by path, how often each file was written or removed: a copy in a
	// bucket that keeps versions has as many if nothing was copied twice.
	writes map[string]int
	made   int
	dirs   int
	chacha *rand.ChaCha8
}

func newTree(dir string, seed uint64, s shape) (*tree, error) {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	t := &tree{dir: dir, dirs: s.dirs, rand: rand.New(rand.NewPCG(seed, 1)), chacha: rand.NewChaCha8(key), size: map[string]int64{}, writes: map[string]int{}}
	for range s.small {
		if err := t.add(t.rand.Int64N(smallMost)); err != nil {
			return nil, err
		}
	}
	for range s.medium {
		if err := t.add(mediumLeast + t.rand.Int64N(mediumMost-mediumLeast)); err != nil {
			return nil, err
		}
	}
	for range s.large {
		if err := t.add(largeSize); err != nil {
			return nil, err
		}
	}
	return t, os.MkdirAll(filepath.Join(dir, "empty", "inside"), 0o750)
}

// add writes a new file.
func (t *tree) add(size int64) error {
	t.made++
	name := fmt.Sprintf("d%02d/e%d/f%05d", t.made%t.dirs, t.made%3, t.made)
	return t.write(name, size)
}

func (t *tree) write(name string, size int64) error {
	path := filepath.Join(t.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	content := make([]byte, size)
	_, _ = t.chacha.Read(content) // never fails
	if err := os.WriteFile(path, content, 0o640); err != nil {
		return err
	}
	t.size[name] = size
	t.writes[name]++
	// Old, as most files are.
	old := time.Unix(1_700_000_000+int64(t.rand.IntN(1e7)), int64(t.rand.IntN(1e9)))
	return os.Chtimes(path, old, old)
}

// change rewrites some files, removes some and adds some.
func (t *tree) change() error {
	names := make([]string, 0, len(t.size))
	for name := range t.size {
		names = append(names, name)
	}
	slices.Sort(names)
	t.rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	tenth := len(names) / 10
	for _, name := range names[:tenth] {
		if t.size[name] >= largeSize {
			continue
		}
		if err := t.write(name, t.size[name]+1); err != nil {
			return err
		}
	}
	for _, name := range names[tenth : tenth+tenth/2] {
		if err := os.Remove(filepath.Join(t.dir, name)); err != nil {
			return err
		}
		delete(t.size, name)
		t.writes[name]++
	}
	for range tenth / 2 {
		if err := t.add(mediumLeast + t.rand.Int64N(smallMost)); err != nil {
			return err
		}
	}
	return nil
}
