package zfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestChangesAreAllThere compares with what was done.
func TestChangesAreAllThere(t *testing.T) {
	t.Parallel()
	m := on(t, "source")
	h := &history{machine: m, dataset: m.fresh(t)}
	m.do(t, "set", "atime=off", h.dataset) // copying it would change all
	root := m.path(h.dataset)
	file := func(i int) string { return filepath.Join(root, fmt.Sprintf("d%d", i%10), fmt.Sprintf("f%d", i)) }
	for i := range 2000 {
		must(t, os.MkdirAll(filepath.Dir(file(i)), 0o755))
		must(t, os.WriteFile(file(i), fmt.Appendf(nil, "content %d", i), 0o644))
	}
	from := h.step(t)

	written := []uint64{}
	for _, i := range []int{3, 777, 1500} {
		must(t, os.WriteFile(file(i), fmt.Appendf(nil, "other %d", i), 0o644))
		written = append(written, inode(t, file(i), ""))
	}
	gone := inode(t, file(42), "")
	must(t, os.Remove(file(42)))
	must(t, os.Chmod(file(1000), 0o600))
	must(t, os.Truncate(file(1200), 0))
	touched := []uint64{inode(t, file(1000), ""), inode(t, file(1200), "")}
	must(t, os.WriteFile(filepath.Join(root, "d5", "new"), []byte("new"), 0o644))
	written = append(written, inode(t, filepath.Join(root, "d5", "new"), ""))
	dirs := []uint64{inode(t, filepath.Join(root, "d5"), ""), inode(t, filepath.Join(root, "d2"), "")}
	to, err := m.Snapshot(t.Context(), h.dataset, "to", "job")
	must(t, err)

	c, err := m.Changes(t.Context(), from, to, math.MaxInt64)
	must(t, err)
	slices.Sort(written)
	if !slices.Equal(c.Files, written) {
		t.Errorf("files %v, want %v", c.Files, written)
	}
	for _, d := range dirs {
		if !slices.Contains(c.Dirs, d) {
			t.Errorf("dirs %v lack %d", c.Dirs, d)
		}
	}
	for _, o := range touched {
		if !slices.Contains(c.Touched, o) {
			t.Errorf("touched lacks %d", o)
		}
	}
	if !slices.ContainsFunc(c.Gone, func(r Range) bool { return r.First <= gone && gone <= r.Last }) {
		t.Errorf("gone %v lacks %d", c.Gone, gone)
	}
	t.Logf("%d files, %d dirs, %d touched of 2000", len(c.Files), len(c.Dirs), len(c.Touched))
	if len(c.Touched) > 300 {
		t.Errorf("%d candidates are no help", len(c.Touched))
	}

	none, err := m.Snapshot(t.Context(), h.dataset, "none", "job")
	must(t, err)
	c, err = m.Changes(t.Context(), to, none, math.MaxInt64)
	must(t, err)
	if len(c.Files)+len(c.Dirs) > 0 {
		t.Errorf("nothing was done: %+v", c)
	}
	_, err = m.Changes(t.Context(), none, to, math.MaxInt64)
	if err == nil {
		t.Error("backwards")
	}
}

// stream is a small stream of a real zfs send.
func stream(t testing.TB) []byte {
	m := on(t, "source")
	dataset := m.fresh(t)
	must(t, os.WriteFile(filepath.Join(m.path(dataset), "file"), []byte("content"), 0o600))
	m.do(t, "snapshot", dataset+"@a")
	argv := append(m.lab.Argv(), "zfs", "send", dataset+"@a")
	raw, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).Output()
	must(t, err)
	return raw
}

func TestParseChangesOfBrokenStreams(t *testing.T) {
	t.Parallel()
	raw := stream(t)
	whole, err := ParseChanges(bytes.NewReader(raw))
	must(t, err)
	if len(whole.Files) != 1 || whole.From != 0 || whole.To == 0 {
		t.Fatalf("%+v", whole)
	}
	for n := 0; n < len(raw); n += 97 {
		if _, err := ParseChanges(bytes.NewReader(raw[:n])); !errors.Is(err, ErrCorrupt) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d of %d: %v", n, len(raw), err)
		}
	}
	for what, at := range map[string]int{"magic": 8, "guid": 40} {
		bad := slices.Clone(raw)
		bad[at] ^= 1
		if _, err := ParseChanges(bytes.NewReader(bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The same in the other byte order is read from its first record on.
	swapped := slices.Clone(raw[:recordSize])
	slices.Reverse(swapped[8:16])
	slices.Reverse(swapped[16:24])
	if _, err := ParseChanges(bytes.NewReader(swapped)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("big-endian: %v", err)
	}
}

func FuzzParseChanges(f *testing.F) {
	begin := make([]byte, 3*recordSize)
	copy(begin[8:], []byte{0xac, 0xcb, 0xba, 0xf5, 0x02})
	begin[16] = subStream
	begin[recordSize] = recordFreeObjects
	begin[2*recordSize] = recordEnd
	f.Add(begin)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseChanges(bytes.NewReader(raw))
		if err == nil && (!slices.IsSorted(c.Files) || !slices.IsSorted(c.Dirs) || !slices.IsSorted(c.Touched)) {
			t.Fatalf("not sorted: %+v", c)
		}
	})
}
