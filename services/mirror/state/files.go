package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/firedrill/firedrill/pkg/inherit"
)

// The names of the files that a state keeps itself. Whatever begins with tempMark
// was not finished, and goes when the state is opened again.
const (
	pastName    = "past"
	journalName = "journal"
	lockName    = "lock"
	tempMark    = ".tmp-"
)

// File is written beside its name, and takes it when it is whole. It is used by
// one goroutine.
type File struct {
	f    *os.File
	path string
	done bool
}

// create begins a file of any name.
func create(dir, name string) (*File, error) {
	f, err := os.CreateTemp(dir, tempMark+name+"-*")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", filepath.Join(dir, name), inherit.Explain(dir, err))
	}
	inherit.File(f, dir)
	return &File{f: f, path: filepath.Join(dir, name)}, nil
}

// scratch makes a file without a name, which goes with its last descriptor.
func scratch(dir, what string) (*os.File, error) {
	f, err := os.CreateTemp(dir, tempMark+what+"-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make a temporary file: %w", err), f.Close())
	}
	return f, nil
}

// Write writes more of the file.
func (f *File) Write(b []byte) (int, error) { return f.f.Write(b) }

// Commit makes what was written durable and gives it its name, atomically: in place
// of a file that has it. The file is closed, whether it could be done or not.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("write %s: %w", f.path, ErrClosed)
	}
	f.done = true
	temp := f.f.Name()
	err := f.f.Sync()
	err = errors.Join(err, f.f.Close())
	if err == nil {
		err = os.Rename(temp, f.path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, errors.Join(err, os.Remove(temp)))
	}
	if err := syncDir(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}

// Close gives up what was written, unless it was committed.
func (f *File) Close() error {
	if f.done {
		return nil
	}
	f.done = true
	if err := errors.Join(f.f.Close(), os.Remove(f.f.Name())); err != nil {
		return fmt.Errorf("give up %s: %w", f.path, err)
	}
	return nil
}

// Path is where the file of that name, written by Create or Save, lies. It may not
// be there.
func (s *Store) Path(name string) string { return filepath.Join(s.dir, name) }

// Create begins a file that takes its name when it is committed. It is ErrName if
// the state keeps the name for itself. The caller commits or closes it.
func (s *Store) Create(name string) (*File, error) {
	if err := s.named("write", name); err != nil {
		return nil, err
	}
	return create(s.dir, name)
}

// Save writes v as JSON under a name, atomically and durably. It is ErrName if the
// state keeps the name for itself.
func (s *Store) Save(name string, v any) error {
	if err := s.named("write", name); err != nil {
		return err
	}
	return save(s.dir, name, v)
}

// SaveIn is Save in the state of a directory, which must be there, whether this
// process has it open or not. Of two that save under one name the last has the word.
func SaveIn(dir, name string, v any) error {
	if err := allowed("write", dir, name); err != nil {
		return err
	}
	return save(dir, name, v)
}

func save(dir, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(dir, name), err)
	}
	f, err := create(dir, name)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(raw, '\n')); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", filepath.Join(dir, name), err), f.Close())
	}
	return f.Commit()
}

// Load reads into v what Save wrote under the name; false if nothing was. The error
// is a [*CorruptError] if it is no JSON that v can hold.
func (s *Store) Load(name string, v any) (bool, error) {
	if err := s.named("read", name); err != nil {
		return false, err
	}
	return load(s.dir, name, v)
}

// Remove removes what Save or Create wrote under a name, durably; that there is nothing
// is fine. It is ErrName if the state keeps the name for itself.
func (s *Store) Remove(name string) error {
	if err := s.named("remove", name); err != nil {
		return err
	}
	err := os.Remove(s.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", s.Path(name), err)
	}
	return nil
}

// LoadFrom is Load from the state of a directory, also while a process has it open.
func LoadFrom(dir, name string, v any) (bool, error) {
	if err := allowed("read", dir, name); err != nil {
		return false, err
	}
	return load(dir, name, v)
}

func load(dir, name string, v any) (bool, error) {
	path := filepath.Join(dir, name)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the state: %w", inherit.Explain(dir, err))
	}
	if err := json.Unmarshal(raw, v); err != nil {
		at := int64(0)
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = e.Offset
		}
		return false, &CorruptError{File: path, Offset: at, Problem: "it is not what was saved", Err: err,
			Fix: "put back a copy of it, or remove it and set the mirror up again"}
	}
	return true, nil
}

// named sees whether a file may have the name.
func (s *Store) named(what, name string) error {
	if s.closed.Load() {
		return fmt.Errorf("%s %s: %w", what, s.Path(name), ErrClosed)
	}
	return allowed(what, s.dir, name)
}

func allowed(what, dir, name string) error {
	if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") ||
		name == pastName || name == journalName || name == lockName {
		return fmt.Errorf("%s %q in %s: %w", what, name, dir, ErrName)
	}
	return nil
}

// sweep removes what an interrupted run did not finish.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempMark) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// MakeDir makes a directory for a state, and those above it, durably. Each belongs to whom
// the one above it does.
func MakeDir(dir string) error {
	return inherit.Explain(dir, inherit.MkdirAll(dir, 0o700, syncDir))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
