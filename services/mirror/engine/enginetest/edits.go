package enginetest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Editor changes a directory at random, as users and their programs do: one seed
// always makes the same changes.
type Editor struct {
	testing.TB
	// Dir is the directory, Rand what chooses.
	Dir  string
	Rand *rand.Rand
}

// names are awkward, and few, so that they meet again.
var names = []string{
	"a", "b", "a.b", "A", "c c", "é", "e\u0301", "a&b=c", "x+y", "%41",
	"n\nl", "\xff\xfe", "back\\slash", " ", "~", "{1}", "%{x}", "q?*[",
}

// path is that of something that may be there, in up to three directories.
func (e *Editor) path() string {
	path := names[e.Rand.IntN(len(names))]
	for range e.Rand.IntN(3) {
		path = filepath.Join(names[e.Rand.IntN(3)], path)
	}
	return filepath.Join(e.Dir, path)
}

// some is a path that is there, or "".
func (e *Editor) some(fits func(fs.DirEntry) bool) string {
	e.Helper()
	var all []string
	Must(e, filepath.WalkDir(e.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != e.Dir && fits(d) {
			all = append(all, path)
		}
		return err
	}))
	if len(all) == 0 {
		return ""
	}
	return all[e.Rand.IntN(len(all))]
}

func regular(d fs.DirEntry) bool { return d.Type().IsRegular() }

func anything(d fs.DirEntry) bool { return true }

func unlinked(d fs.DirEntry) bool { return d.Type()&fs.ModeSymlink == 0 }

// Edit makes some changes, about n.
func (e *Editor) Edit(n int) {
	e.Helper()
	for range n {
		e.edit()
	}
}

func (e *Editor) edit() {
	e.Helper()
	switch e.Rand.IntN(10) {
	case 0, 1, 2:
		e.create()
	case 3: // a rename, maybe over something, maybe of a directory
		from, to := e.some(anything), e.path()
		if from != "" && os.MkdirAll(filepath.Dir(to), 0o755) == nil {
			_ = os.Rename(from, to) // into itself, or over a directory that is not empty, it is refused
		}
	case 4: // an edit that keeps size and time
		if path := e.some(regular); path != "" {
			e.touchBack(path)
		}
	case 5:
		if path := e.some(regular); path != "" {
			st, err := os.Stat(path)
			Must(e, err)
			Must(e, os.Truncate(path, e.Rand.Int64N(st.Size()+3)))
		}
	case 6:
		if path := e.some(unlinked); path != "" {
			mode := fs.FileMode([]uint32{0o644, 0o600, 0o755, 0o700}[e.Rand.IntN(4)])
			Must(e, os.Chmod(path, mode))
		}
	case 7:
		if path := e.some(anything); path != "" {
			Must(e, os.RemoveAll(path))
		}
	case 8: // a file becomes a directory, or the reverse
		e.swap()
	default:
		e.special()
	}
}

func (e *Editor) content() []byte {
	return fmt.Appendf(nil, "%.*s", e.Rand.IntN(30), fmt.Sprintf("%030d", e.Rand.Uint64()))
}

func (e *Editor) create() {
	e.Helper()
	path := e.path()
	// Where a file is in the way, nothing is made.
	if os.MkdirAll(filepath.Dir(path), 0o755) == nil {
		_ = os.WriteFile(path, e.content(), 0o644)
	}
}

func (e *Editor) touchBack(path string) {
	e.Helper()
	st, err := os.Stat(path)
	Must(e, err)
	content := make([]byte, st.Size())
	for i := range content {
		content[i] = byte('a' + e.Rand.IntN(26))
	}
	Must(e, errors.Join(os.WriteFile(path, content, 0o644), os.Chtimes(path, time.Time{}, st.ModTime())))
}

func (e *Editor) swap() {
	e.Helper()
	path := e.some(anything)
	if path == "" {
		return
	}
	st, err := os.Lstat(path)
	Must(e, err)
	Must(e, os.RemoveAll(path))
	if st.IsDir() {
		Must(e, os.WriteFile(path, e.content(), 0o644))
	} else {
		Must(e, errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "in"), e.content(), 0o644)))
	}
}

func (e *Editor) special() {
	e.Helper()
	path := e.path()
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return
	}
	if e.Rand.IntN(2) == 0 {
		_ = os.Mkdir(path, 0o755)
		return
	}
	_ = os.Symlink(fmt.Sprintf("to/%d", e.Rand.IntN(1000)), path)
}
