package cli_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestAPlaceThatIsAnotherExitsAsGuardsDo: neither are the arguments wrong, nor has firedrill
// failed; and what was refused is told later in the same words.
func TestAPlaceThatIsAnotherExitsAsGuardsDo(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	dst := filepath.Join(w.dir, "dst")
	if err := errors.Join(os.Rename(dst, dst+".away"), os.Mkdir(dst, 0o755)); err != nil {
		t.Fatal(err)
	}
	const says = "dst is not the place that the mirror was set up with: see whether"
	w.has(w.run(1, "sync", "--dry-run", w.from, w.to), says)
	var got struct {
		Whole bool
		Error string
	}
	if err := json.Unmarshal([]byte(w.run(1, "sync", "--json", w.from, w.to)), &got); err != nil || got.Whole || !strings.Contains(got.Error, says) {
		t.Errorf("got %+v, %v", got, err)
	}
	w.has(w.run(1, "sync", w.from, w.to), says)
	if text := w.run(1, "status", w.from, w.to); strings.Contains(text, "mirror job") || !strings.Contains(text, "failed: the destination dir:"+dst+" is not the place") {
		t.Errorf("told later:\n%s", text)
	}
	w.run(0, "sync", "--accept-places", w.from, w.to)
}

// TestAnotherSourceExitsAsGuardsDo: an old disk in its place is copied by no run.
func TestAnotherSourceExitsAsGuardsDo(t *testing.T) {
	for _, mode := range []string{"copy", "mirror"} {
		w := newMirrorWorld(t)
		w.run(0, "sync", "--mode", mode, w.from, w.to)
		src := filepath.Join(w.dir, "src")
		if err := errors.Join(os.Rename(src, src+".away"), os.CopyFS(src, os.DirFS(src+".away"))); err != nil {
			t.Fatal(err)
		}
		w.write("src/a", "an old copy")
		says := "the source dir:" + src + " is not the place that the mirror was set up with: see whether"
		for _, args := range [][]string{{"--dry-run"}, {}, {"--json"}} {
			w.has(w.run(1, append(append([]string{"sync", "--mode", mode}, args...), w.from, w.to)...), says)
		}
		w.has(w.run(1, "status", w.from, w.to), "failed: "+says)
		if got, err := os.ReadFile(filepath.Join(w.dir, "dst/a")); err != nil || string(got) == "an old copy" {
			t.Errorf("the copy is %q, %v", got, err)
		}
		w.run(0, "sync", "--accept-places", "--mode", mode, w.from, w.to)
	}
}

// TestADiskThatIsNotMountedIsNamed in a run, in a dry one and in what is told later, until it
// is accepted.
func TestADiskThatIsNotMountedIsNamed(t *testing.T) {
	w := newMirrorWorld(t)
	disk := filepath.Join(w.dir, "src/disk")
	if err := errors.Join(os.Mkdir(disk, 0o755), syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, 0) }) // if it still is
	w.write("src/disk/m", "on the disk")
	w.run(0, "sync", "--mode", "mirror", w.from, w.to)
	if err := syscall.Unmount(disk, 0); err != nil {
		t.Fatal(err)
	}
	const says = `another file system, or none, at "disk" in the source`
	for range 2 {
		for _, args := range [][]string{{"--dry-run"}, {}} {
			w.has(w.run(1, append(append([]string{"sync", "--mode", "mirror"}, args...), w.from, w.to)...), "kept       1: "+says+": see whether the right one is mounted", "run once with --accept-places")
		}
	}
	w.has(w.run(1, "status", w.from, w.to), says)
	w.run(0, "sync", "--mode", "mirror", "--accept-places", w.from, w.to)
	w.has(w.run(0, "sync", "--mode", "mirror", w.from, w.to), "1 deleted")
}

// TestAnAuditingRunSaysWhatItRead and, of a store, what it believed.
func TestAnAuditingRunSaysWhatItRead(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	text := w.run(0, "sync", "--check", "audit", w.from, w.to)
	if w.has(text, "read       2 contents of the source and 2 of the destination, to compare them\n"); strings.Contains(text, "believed") {
		t.Errorf("of directories:\n%s", text)
	}
	var got struct{ Compared map[string]int }
	if err := json.Unmarshal([]byte(w.run(0, "sync", "--check", "audit", "--json", w.from, w.to)), &got); err != nil || got.Compared["source"] != 2 || got.Compared["destination"] != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if text := w.run(0, "sync", w.from, w.to); strings.Contains(text, "to compare them") {
		t.Errorf("of a run that does not audit:\n%s", text)
	}
}

// TestATwoWayAuditPromisesNoMoreThanARunDoes: what both sides edited is in conflict.
func TestATwoWayAuditPromisesNoMoreThanARunDoes(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", "--mode", "two-way", w.from, w.to)
	w.write("src/a", "mine")
	w.write("dst/a", "theirs")
	if err := os.Remove(filepath.Join(w.dir, "dst/d/b")); err != nil {
		t.Fatal(err)
	}
	w.has(w.run(1, "audit", w.from, w.to), "which is a conflict that it names and you resolve", "to do      the next `mirror sync` takes what is missing for deleted here")
	w.has(w.run(1, "sync", "--mode", "two-way", w.from, w.to), `conflict   "a"`)
	one := newMirrorWorld(t)
	one.run(0, "sync", one.from, one.to)
	one.write("dst/a", "theirs")
	text := one.run(1, "audit", one.from, one.to)
	if one.has(text, "makes the destination like the source again"); strings.Contains(text, "conflict") {
		t.Errorf("a one-way mirror:\n%s", text)
	}
}
