package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// filesHere is what offlineScript prints, without pg_controldata, of a node whose files
// are this process's to read: a look at a server that answers needs no more, and a
// plan waits for it. It is not ok where anything cannot be read or is not as it should
// be; the script is asked then.
func filesHere(dataDir, savedDir string) (text string, ok bool) {
	var b strings.Builder
	for path, says := range map[string]string{
		filepath.Join(dataDir, "standby.signal"): "standby=1",
		filepath.Join(savedDir, "busy"):          "busy=1",
		savedDir:                                 "saved=1",
	} {
		switch _, err := os.Stat(path); {
		case err == nil:
			fmt.Fprintln(&b, says)
		case !errors.Is(err, fs.ErrNotExist):
			return "", false
		}
	}
	wal := filepath.Join(dataDir, "pg_wal")
	entries, err := os.ReadDir(wal) // sorted: the last is the newest
	if err != nil {
		return "", false
	}
	newest := ""
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".history") {
			newest = e.Name()
		}
	}
	if newest == "" {
		return b.String(), true
	}
	history, err := readRegular(filepath.Join(wal, newest), maxHistory)
	if err != nil {
		return "", false
	}
	fmt.Fprintf(&b, "history=%s\n", strings.TrimSuffix(newest, ".history"))
	for line := range bytes.Lines(history) {
		fmt.Fprintf(&b, "fork=%s\n", bytes.TrimSuffix(line, []byte("\n")))
	}
	return b.String(), true
}

// maxHistory is far more than a timeline's history has: a line of some 60 bytes for
// each promotion before it.
const maxHistory = 1 << 20

// readRegular reads a whole file of at most limit bytes. What is not a plain file, such
// as a pipe, must not keep the drill waiting.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a plain file", path)
	case fi.Size() > limit:
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that are read", path, fi.Size(), limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
