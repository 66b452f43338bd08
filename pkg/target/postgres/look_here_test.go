package postgres

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/control"
)

// TestFilesHere compares what this process reads with what the script prints elsewhere,
// over directories of every kind that a server leaves.
func TestFilesHere(t *testing.T) {
	history := "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified"
	for name, make := range map[string]func(write func(path, text string)){
		"a primary":     func(write func(path, text string)) { write("data/pg_wal/000000010000000000000001", "") },
		"a standby":     func(write func(path, text string)) { write("data/standby.signal", "") },
		"a rebuild":     func(write func(path, text string)) { write("saved/busy", "") },
		"kept settings": func(write func(path, text string)) { write("saved/settings.tar", "") },
		"after promotions": func(write func(path, text string)) {
			write("data/pg_wal/00000002.history", "1\t0/1\tx\n")
			write("data/pg_wal/00000003.history", history)
		},
		"all at once": func(write func(path, text string)) {
			write("data/standby.signal", "")
			write("saved/busy", "")
			write("data/pg_wal/0000000A.history", history+"\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(path, text string) {
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("data/pg_wal/archive_status/x", "")
			write("bin/pg_controldata", "#!/bin/sh\n")
			if err := os.Chmod(filepath.Join(dir, "bin/pg_controldata"), 0o755); err != nil {
				t.Fatal(err)
			}
			make(write)
			h, err := control.New(control.Config{})
			if err != nil {
				t.Fatal(err)
			}
			s, n := &servers{}, &node{host: h}
			script, err := s.run(t.Context(), n, offlineScript, filepath.Join(dir, "data"), filepath.Join(dir, "bin"), filepath.Join(dir, "saved"))
			if err != nil {
				t.Fatal(err)
			}
			here, ok := filesHere(filepath.Join(dir, "data"), filepath.Join(dir, "saved"))
			if got, want := sortedLines(here), sortedLines(script); !ok || !slices.Equal(got, want) {
				t.Errorf("read here: %q, %v; by the script: %q", got, ok, want)
			}
		})
	}
}

// TestFilesHereGivesUp: what cannot be read as it should be is left to the script.
func TestFilesHereGivesUp(t *testing.T) {
	for name, spoil := range map[string]func(wal string) error{
		"no log directory": os.RemoveAll,
		"a pipe":           func(wal string) error { return syscall.Mkfifo(filepath.Join(wal, "00000002.history"), 0o644) },
		"a directory":      func(wal string) error { return os.Mkdir(filepath.Join(wal, "00000002.history"), 0o755) },
		"too much": func(wal string) error {
			return os.WriteFile(filepath.Join(wal, "00000002.history"), make([]byte, maxHistory+1), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			wal := filepath.Join(data, "pg_wal")
			if err := os.Mkdir(wal, 0o755); err != nil {
				t.Fatal(err)
			}
			if text, ok := filesHere(data, filepath.Join(data, "none")); !ok || text != "" {
				t.Fatalf("unspoilt: %q, %v", text, ok)
			}
			if err := spoil(wal); err != nil {
				t.Fatal(err)
			}
			if text, ok := filesHere(data, filepath.Join(data, "none")); ok {
				t.Errorf("it was read as %q", text)
			}
		})
	}
}

func sortedLines(text string) []string {
	out := slices.Collect(strings.Lines(text))
	for i := range out {
		out[i] = strings.TrimRight(out[i], "\n")
	}
	slices.Sort(out)
	return out
}
