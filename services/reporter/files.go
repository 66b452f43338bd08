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

// write puts the report's files into the drill's folder, each whole or not at
// all, and the folder's entries on disk before it returns.
func (s *service) write(drill string, files map[string][]byte) error {
	if s.OutDir == "" {
		return nil
	}
	if !event.IsDrillID(drill) {
		return fmt.Errorf("write report of drill %q: that is no drill id", drill)
	}
	dir := filepath.Join(s.OutDir, drill)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write report of drill %s: %w; check the output directory", drill, err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(filepath.Join(dir, name), files[name]); err != nil {
			return fmt.Errorf("write report of drill %s: %w; check the output directory", drill, err)
		}
	}
	return syncDir(dir)
}

// writeFile replaces path by data: beside it first, then in its place.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if rm := os.Remove(f.Name()); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
				err = errors.Join(err, rm)
			}
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Chmod(0o644); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
