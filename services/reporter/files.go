package reporter

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
)

// write puts the report's files into the drill's folder. When it returns without
// an error, all of them survive a crash of the machine. When it does not return,
// or fails, each file is whole, old or new, or not there: never a part of one;
// and it can simply be called again.
func (s *service) write(drill string, files map[string][]byte) error {
	if s.OutDir == "" {
		return nil
	}
	if !event.IsDrillID(drill) {
		return fmt.Errorf("write report of drill %q: that is no drill id", drill)
	}
	dir := filepath.Join(s.OutDir, drill)
	err := os.MkdirAll(dir, 0o755)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err == nil {
			err = replaceFile(filepath.Join(dir, name), files[name])
		}
	}
	// The names of the files, and that of their folder, are kept by the folders.
	for _, d := range []string{dir, s.OutDir} {
		if err == nil {
			err = syncDir(d)
		}
	}
	if err != nil {
		return fmt.Errorf("write report of drill %s: %w; check the output directory", drill, err)
	}
	return nil
}

// TryOut makes the folder for reports, writes into it as a report is written, and removes
// what it has made. An error says why no report could be written there.
func TryOut(dir string) error {
	var made []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			break
		}
		made = append(made, d)
	}
	defer func() {
		for _, d := range made {
			_ = os.Remove(d) // what is in use by now stays
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	try, err := os.MkdirTemp(dir, ".try-*")
	if err != nil {
		return err
	}
	return errors.Join(replaceFile(filepath.Join(try, FileEvents), []byte("{}\n")), os.RemoveAll(try))
}

// replaceFile makes path hold data: it writes a file beside it, has the disk
// confirm the bytes, and renames it into place, so that a reader or a crash meets
// the old content or the new and nothing between. The new name is durable only
// once the folder is synced too. A file that could not be put in place is removed.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644) // CreateTemp lets only its owner read
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
