package zfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/scan"
)

func TestReadIsOneMoment(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 1)
	o := ReadOptions{Job: "job", Dir: h.readings()}
	r, err := h.Read(t.Context(), h.dataset, o)
	must(t, err)
	evolve(t, h.path(h.dataset), 1)
	sh(t, "diff", "-r", "--no-dereference", h.copies[0], r.Path)
	if err := os.WriteFile(filepath.Join(r.Path, "new"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing: %v", err)
	}
	again, err := h.Read(t.Context(), h.dataset, o)
	must(t, err)
	if again.FS != r.FS || r.FS == (entry.FSID{}) || again.Snapshot.GUID == r.Snapshot.GUID {
		t.Errorf("first %+v, second %+v", r, again)
	}
	if a, b := inode(t, filepath.Join(r.Path, "was-large"), "large"), inode(t, filepath.Join(again.Path, "was-large"), ""); a != b {
		t.Errorf("inode %d then %d", a, b)
	}
	// It is no part of what is replicated, or pruned.
	all, err := h.Snapshots(t.Context(), h.dataset)
	must(t, err)
	if c := Compare(all, nil); namesOf(c.Send) != "s0" {
		t.Errorf("would send %s", namesOf(c.Send))
	}
	for range 2 {
		must(t, r.Close(t.Context()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, again.Close(ctx))
	nothingLeft(t, h)
}

// inode is that of a file, under its name now or before.
func inode(t *testing.T, path, before string) uint64 {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil && before != "" {
		st, err = os.Lstat(filepath.Join(filepath.Dir(path), before))
	}
	must(t, err)
	return st.Sys().(*syscall.Stat_t).Ino
}

func nothingLeft(t *testing.T, h *history) {
	t.Helper()
	if out := h.do(t, "list", "-H", "-r", "-t", "all", "-o", "name", h.dataset); strings.Contains(out, readingPrefix) {
		t.Errorf("left:\n%s", out)
	}
	if left, err := filepath.Glob(filepath.Join(h.readings(), "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestReadFeedsTheWalk: the mirror walks a reading with the dataset's identity, and
// finds what it knows of the dataset.
func TestReadFeedsTheWalk(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 1)
	walk := func() map[string]entry.Change {
		r, err := h.Read(t.Context(), h.dataset, ReadOptions{Job: "job", Dir: h.readings()})
		must(t, err)
		root, err := os.OpenRoot(r.Path)
		must(t, err)
		seen := map[string]entry.Change{}
		for e, err := range scan.Walk(t.Context(), root, scan.Options{FS: r.FS}) {
			must(t, err)
			seen[e.Path] = e.Change
		}
		must(t, errors.Join(root.Close(), r.Close(t.Context())))
		return seen
	}
	first, second := walk(), walk()
	for path, c := range first {
		if c != second[path] || c.FS == (entry.FSID{}) {
			t.Errorf("%s: %+v then %+v", path, c, second[path])
		}
	}
	if len(first) < 8 || len(first) != len(second) {
		t.Errorf("%d entries, then %d", len(first), len(second))
	}
}

func TestSweepFindsWhatACrashLeft(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 1)
	var open []*Reading
	for _, job := range []string{"job", "job", "other"} {
		r, err := h.Read(t.Context(), h.dataset, ReadOptions{Job: job, Dir: h.readings()})
		must(t, err)
		open = append(open, r)
	}
	// A crash may come between any two steps.
	must(t, h.destroy(t.Context(), open[1].clone))
	must(t, os.Remove(open[1].Path))
	// None of these is a reading's, though each looks like it in some way.
	strangers := []string{h.dataset + "/" + readingPrefix + "mine", h.dataset + "/mine", h.dataset + "/copy"}
	h.do(t, "create", "-o", jobProperty+"=job", strangers[0])
	h.do(t, "create", "-o", jobProperty+"=job", strangers[1])
	h.do(t, "clone", "-o", jobProperty+"=job", h.snapshots[0].String(), strangers[2])
	h.do(t, "snapshot", h.dataset+"@"+readingPrefix+"mine")

	swept, err := h.Sweep(t.Context(), h.dataset, "job", 0)
	must(t, err)
	removed := swept.Removed
	want := []string{open[0].clone, open[0].Snapshot.String(), open[1].Snapshot.String()}
	slices.Sort(removed)
	slices.Sort(want)
	if !slices.Equal(removed, want) {
		t.Errorf("removed %v, want %v", removed, want)
	}
	for _, name := range append(strangers, open[2].clone, open[2].Snapshot.String(), h.snapshots[0].String(), h.dataset+"@"+readingPrefix+"mine") {
		h.do(t, "list", name)
	}
	if again, err := h.Sweep(t.Context(), h.dataset, "job", 0); err != nil || len(again.Removed) != 0 {
		t.Errorf("%v, %v", again, err)
	}
	must(t, open[2].Close(t.Context()))
}

func TestReadFailsWithoutLitter(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 1)
	// Where a file is, nothing can be mounted.
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := h.Read(t.Context(), h.dataset, ReadOptions{Job: "job", Dir: file}); err == nil {
		t.Error("it was mounted below a file")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Read(ctx, h.dataset, ReadOptions{Job: "job", Dir: h.readings()})
	wants(t, err, context.Canceled)
	for _, o := range []ReadOptions{{Job: "a/b", Dir: "/x"}, {Job: "", Dir: "/x"}, {Job: "job", Dir: "x"}} {
		if _, err := h.Read(t.Context(), h.dataset, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	_, err = h.Read(t.Context(), "tank/none", ReadOptions{Job: "job", Dir: h.readings()})
	wants(t, err, ErrNotExist)
	nothingLeft(t, h)
}
