package lab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func segmentExists(id int) bool {
	var d unix.SysvShmDesc
	_, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d)
	return err == nil
}

func TestFindPostgresSaysHowToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := findPostgres(filepath.Join(t.TempDir(), "*"))
	if !errors.Is(err, ErrNotInstalled) {
		t.Fatalf("got %v", err)
	}
}

func TestFindPostgresTakesTheNewest(t *testing.T) {
	root := t.TempDir()
	for _, v := range []string{"9", "15", "14"} {
		dir := filepath.Join(root, v, "bin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, p := range postgresPrograms() {
			if err := os.WriteFile(filepath.Join(dir, p), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Remove(filepath.Join(root, "15", "bin", "pg_rewind")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "")
	got, err := findPostgres(filepath.Join(root, "*", "bin"))
	if want := filepath.Join(root, "14", "bin"); err != nil || got != want {
		t.Fatalf("got %s, %v; 15 lacks a program, so %s is the newest whole one", got, err, want)
	}
}
