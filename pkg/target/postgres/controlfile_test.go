package postgres

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// controlFile is a whole one: an identifier, some data, the checksum, zeros.
func controlFile() []byte {
	b := make([]byte, controlFileSize)
	binary.NativeEndian.PutUint64(b, 7642011472967116994)
	binary.NativeEndian.PutUint32(b[8:], 1300)
	copy(b[100:], "what the server keeps there")
	binary.NativeEndian.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestControlFileID(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(b []byte) []byte
		want bool
	}{
		"whole":               {func(b []byte) []byte { return b }, true},
		"cut short":           {func(b []byte) []byte { return b[:512] }, false},
		"torn":                {func(b []byte) []byte { copy(b[100:], "half of it"); return b }, false},
		"another identifier":  {func(b []byte) []byte { b[0]++; return b }, false},
		"no checksum":         {func(b []byte) []byte { clear(b[288:]); return b }, false},
		"more after it":       {func(b []byte) []byte { b[400] = 1; return b }, false},
		"nothing but zeros":   {func(b []byte) []byte { clear(b); return b }, false},
		"of another length":   {func(b []byte) []byte { return append(b, 0) }, false},
		"an empty file there": {func([]byte) []byte { return nil }, false},
	} {
		path := filepath.Join(t.TempDir(), "pg_control")
		if err := os.WriteFile(path, c.edit(controlFile()), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, ok := controlFileID(path); ok != c.want || ok && id != "7642011472967116994" {
			t.Errorf("%s: %q, %v", name, id, ok)
		}
	}
}

// TestControlFileIDDoesNotWait: a pipe has no writer, and a directory nothing to read.
func TestControlFileIDDoesNotWait(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pg_control")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, filepath.Join(dir, "none")} {
		if id, ok := controlFileID(path); ok {
			t.Errorf("%s: %q", path, id)
		}
	}
}
