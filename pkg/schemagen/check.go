package schemagen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReleasedFile lists, below the schemas directory, what must never change again. Freeze
// writes it.
const ReleasedFile = "released.json"

// Released is what ReleasedFile holds: for each release, the files of its
// contract and the hex SHA-256 of each.
type Released struct {
	Releases []Release `json:"releases"`
}

// Release is one frozen set of schemas.
type Release struct {
	Version string            `json:"version"`
	Files   map[string]string `json:"files"`
}

// Targets says where files lie: schemas below Schemas, the catalogue at Page.
type Targets struct{ Schemas, Page string }

func (t Targets) path(name string) string {
	if name == CataloguePage {
		return t.Page
	}
	return filepath.Join(t.Schemas, filepath.FromSlash(name))
}

// Write brings the directory up to date: it writes what differs and removes
// generated files that are generated no longer. A frozen file is never touched.
func Write(files map[string][]byte, t Targets) error {
	if err := frozen(files, t); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p := t.path(name)
		if old, err := os.ReadFile(p); err == nil && bytes.Equal(old, files[name]) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return fmt.Errorf("write %s: %w", p, err)
		}
		if err := os.WriteFile(p, files[name], 0o644); err != nil {
			return fmt.Errorf("write %s: %w", p, err)
		}
	}
	stale, err := left(files, t)
	if err != nil {
		return err
	}
	for _, name := range stale {
		if err := os.Remove(t.path(name)); err != nil {
			return fmt.Errorf("remove %s, which is generated no longer: %w", t.path(name), err)
		}
	}
	return nil
}

// Check compares the files with those on disk and names each that differs, is
// missing, or should not be there; and each frozen one that has changed.
func Check(files map[string][]byte, t Targets) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		have, err := os.ReadFile(t.path(name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("%s is missing: generate it", t.path(name)))
		case err != nil:
			errs = append(errs, fmt.Errorf("read %s: %w", t.path(name), err))
		case !bytes.Equal(have, files[name]):
			errs = append(errs, fmt.Errorf("%s differs from the Go types, from line %d on: generate it again", t.path(name), firstDifference(have, files[name])))
		}
	}
	stale, err := left(files, t)
	if err != nil {
		errs = append(errs, err)
	}
	for _, name := range stale {
		errs = append(errs, fmt.Errorf("%s is generated no longer: remove it", t.path(name)))
	}
	return errors.Join(append(errs, frozen(files, t))...)
}

// left lists the files of events that are generated no longer. A schema whose
// name has no dot may be another program's, such as the report's.
func left(files map[string][]byte, t Targets) ([]string, error) {
	var out []string
	for _, dir := range []string{Version, ExamplesDir} {
		entries, err := os.ReadDir(t.path(dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", t.path(dir), err)
		}
		for _, e := range entries {
			name := dir + "/" + e.Name()
			kind, isJSON := strings.CutSuffix(e.Name(), ".json")
			if _, ok := files[name]; !ok && isJSON && strings.Contains(kind, ".") {
				out = append(out, name)
			}
		}
	}
	return out, nil
}

// readReleased reads the list of what was released.
func readReleased(t Targets) (Released, error) {
	raw, err := os.ReadFile(t.path(ReleasedFile))
	if err != nil {
		return Released{}, fmt.Errorf("read the list of released schemas: %w", err)
	}
	var r Released
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Released{}, fmt.Errorf("read the list of released schemas %s: %w", t.path(ReleasedFile), err)
	}
	return r, nil
}

// frozen fails for every released file that would change or be missing.
func frozen(files map[string][]byte, t Targets) error {
	released, err := readReleased(t)
	if err != nil {
		return err
	}
	var errs []error
	for _, release := range released.Releases {
		for _, name := range slices.Sorted(maps.Keys(release.Files)) {
			now, ok := files[name]
			if !ok {
				if now, err = os.ReadFile(t.path(name)); err != nil {
					errs = append(errs, fmt.Errorf("%s was released with %s and is gone: restore it", name, release.Version))
					continue
				}
			}
			if hash(now) != release.Files[name] {
				errs = append(errs, fmt.Errorf("%s was released with %s and would change: give the type a new version instead", name, release.Version))
			}
		}
	}
	return errors.Join(errs...)
}

// firstDifference is the first line in which two texts differ, from 1.
func firstDifference(a, b []byte) int {
	x, y := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := range min(len(x), len(y)) {
		if !bytes.Equal(x[i], y[i]) {
			return i + 1
		}
	}
	return min(len(x), len(y)) + 1
}
