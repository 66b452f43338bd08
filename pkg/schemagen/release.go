package schemagen

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// Freeze notes a release, such as "v1.0", in ReleasedFile: every schema there is, with
// its hash. Those of other programs are frozen with the generated ones. From then on
// Write and Check refuse to change them; new ones may still come. The files on disk must
// be up to date.
//
// The AsyncAPI document, the examples and the catalogue stay free: they list all types,
// and grow with each new one.
func Freeze(version string, files map[string][]byte, t Targets) error {
	var major, minor uint
	if _, err := fmt.Sscanf(version, "v%d.%d", &major, &minor); err != nil || fmt.Sprintf("v%d.%d", major, minor) != version {
		return fmt.Errorf("release %q: give a version of the form v1.0", version)
	}
	if err := Check(files, t); err != nil {
		return fmt.Errorf("release %s: %w", version, err)
	}
	released, err := readReleased(t)
	if err != nil {
		return err
	}
	for _, r := range released.Releases {
		if r.Version == version {
			return fmt.Errorf("release %s was made before: give another version", version)
		}
	}
	hashes, err := hashSchemas(t)
	if err != nil {
		return fmt.Errorf("release %s: %w", version, err)
	}
	released.Releases = append(released.Releases, Release{Version: version, Files: hashes})
	raw, err := json.MarshalIndent(released, "", "  ")
	if err != nil {
		return fmt.Errorf("release %s: %w", version, err)
	}
	return os.WriteFile(t.path(ReleasedFile), append(raw, '\n'), 0o644)
}

// hashSchemas gives the hash of every schema on disk, by its path below the schemas
// directory.
func hashSchemas(t Targets) (map[string]string, error) {
	found, err := filepath.Glob(filepath.Join(t.path(Version), "*.json"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, file := range found {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		out[path.Join(Version, filepath.Base(file))] = hash(raw)
	}
	return out, nil
}

// hash is a file's hex SHA-256.
func hash(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
