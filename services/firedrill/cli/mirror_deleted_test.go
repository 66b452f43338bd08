package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// keptWorld is a mirror that has deleted "d", with all that is in it, and "new\nline".
func keptWorld(t *testing.T) (w *mirrorWorld, inventory string) {
	t.Helper()
	w = newMirrorWorld(t)
	for _, name := range []string{"src/new\nline", "src/1", "src/2", "src/3", "src/4", "src/5", "src/6", "src/7", "src/8", "src/9"} {
		w.write(name, "x")
	}
	inventory = filepath.Join(w.dir, "inventory.yaml")
	w.write("inventory.yaml", "apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  mirrors:\n    - {name: m, from: \""+w.from+"\", to: \""+w.to+"\", mode: mirror, keepDeleted: 168h}\n")
	w.run(0, "sync", "--inventory", inventory, "m")
	w.has(w.run(0, "deleted", "--inventory", inventory, "m"), "nothing that was deleted can be brought back")
	if err := errors.Join(os.RemoveAll(filepath.Join(w.dir, "src/d")), os.Remove(filepath.Join(w.dir, "src/new\nline"))); err != nil {
		t.Fatal(err)
	}
	w.run(0, "sync", "--inventory", inventory, "m")
	w.has(w.run(0, "sync", "--dry-run", "--inventory", inventory, "m"), "3: would be kept for 168h")
	w.has(w.run(0, "sync", "--inventory", inventory, "m"), "3 deleted", "3: kept for 168h, mirror deleted lists and mirror restore brings back")
	return w, inventory
}

// What was deleted is listed, comes back, and the next run leaves it alone.
func TestMirrorRestoresWhatItDeleted(t *testing.T) {
	w, inventory := keptWorld(t)
	w.has(w.run(0, "deleted", "--inventory", inventory, "m"), `destination  "d/"`, `3 B  destination  "d/b"`, `"new\nline"`, "3 entries, 4 B: mirror restore brings them back")
	var list struct {
		Deleted []struct {
			Path, Kind, Run, Side string
			Size                  int64
		}
	}
	if err := json.Unmarshal([]byte(w.run(0, "deleted", "--json", "--path", "/d/", "--inventory", inventory, "m")), &list); err != nil || len(list.Deleted) != 2 ||
		list.Deleted[1].Path != "d/b" || list.Deleted[1].Kind != "file" || list.Deleted[1].Size != 3 || list.Deleted[1].Run == "" {
		t.Fatalf("%+v, %v", list, err)
	}
	run := list.Deleted[0].Run
	w.has(w.run(1, "deleted", "--run", run, "--path", "d/b", "--path", "nowhere", "--inventory", inventory, "m"), `"d/b"`, fmt.Sprintf(`"nowhere": there is nothing that can be brought back that was deleted there by the run %q`, run))
	w.has(w.run(0, "restore", "--dry-run", "--inventory", inventory, "m", "d/b"), `would      "d/"`, `would      "d/b"`, "2 entries (3 B) would be restored")
	if _, err := os.Lstat(filepath.Join(w.dir, "src/d")); err == nil {
		t.Fatal("a dry run brought it back")
	}
	w.has(w.run(0, "restore", "--run", run, "--inventory", inventory, "m", "d/b"), `restored   "d/b"`, "2 entries (3 B) restored on both sides, 0 on one only, 0 not")
	for _, side := range []string{"src", "dst"} {
		if got, err := os.ReadFile(filepath.Join(w.dir, side, "d/b")); err != nil || string(got) != "two" {
			t.Errorf("%s: %q, %v", side, got, err)
		}
	}
	if text := w.run(0, "sync", "--check", "listing", "--inventory", inventory, "m"); strings.Contains(text, "copied") || strings.Contains(text, "deleted") || strings.Contains(text, "changed") {
		t.Errorf("the next run:\n%s", text)
	}
	w.write("src/new\nline", "in the way")
	w.has(w.run(1, "restore", "--all", "--inventory", inventory, "m"), `cannot     "new\nline": at the source: something has its name by now`, "1 not")
	var res struct {
		Restored []struct{ Path, Error string }
		Failed   int
	}
	if err := json.Unmarshal([]byte(w.run(1, "restore", "--json", "--all", "--inventory", inventory, "m")), &res); err != nil || res.Failed != 1 || len(res.Restored) != 1 || res.Restored[0].Error == "" {
		t.Errorf("%+v, %v", res, err)
	}
}

// What is printed is what brings it back, whatever its name is.
func TestMirrorRestoreTakesPathsAsTheyArePrinted(t *testing.T) {
	w := newMirrorWorld(t)
	odd := []string{"new\nline", `"quoted"`, "quoted", "caf\xe9", `back\slash`, `"`, `"half`, "d\n/in it", `""`, "`tick`", "'tick'", "\u202eright"}
	for i := range 50 {
		w.write(fmt.Sprintf("src/stays%02d", i), "x")
	}
	for _, name := range odd {
		w.write("src/"+name, name)
	}
	how := []string{"--mode", "mirror", "--keep-deleted", "1h"}
	sync := append([]string{"sync", w.from, w.to}, how...)
	w.run(0, sync...)
	for _, name := range odd {
		if err := os.Remove(filepath.Join(w.dir, "src", name)); err != nil {
			t.Fatal(err)
		}
	}
	w.run(0, sync...)
	dry := w.run(0, append(sync, "--dry-run")...)
	w.run(0, sync...)
	printed := map[string]string{}
	for line := range strings.Lines(w.run(0, "deleted", w.from, w.to)) {
		if i := strings.IndexByte(line, '"'); i >= 0 {
			text := strings.TrimSuffix(line[i:], "\n")
			if name, err := strconv.Unquote(text); err == nil {
				printed[name] = text
			}
		}
	}
	var list struct {
		Deleted []struct{ Path, Quoted string }
	}
	if err := json.Unmarshal([]byte(w.run(0, "deleted", "--json", w.from, w.to)), &list); err != nil || len(list.Deleted) != len(odd) {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, one := range list.Deleted {
		if (one.Quoted != "") != strings.ContainsRune(one.Path, '\ufffd') || one.Quoted != "" && one.Quoted != printed["caf\xe9"] {
			t.Errorf("%q is %q in JSON", one.Path, one.Quoted)
		}
	}
	for _, name := range odd {
		w.has(dry, "delete     "+printed[name]+" on the destination")
		w.has(w.run(0, "deleted", "--path", printed[name], w.from, w.to), "1 entry")
		w.has(w.run(0, "restore", w.from, w.to, printed[name]), "restored   "+printed[name], "1 entry (")
		for _, side := range []string{"src", "dst"} {
			if got, err := os.ReadFile(filepath.Join(w.dir, side, name)); err != nil || string(got) != name {
				t.Errorf("%s: %q holds %q, %v", side, name, got, err)
			}
		}
	}
	// As it is it may be given, too, unless it reads as quoted.
	again := []string{"new\nline", "quoted", `back\slash`, `"`, `"half`, "`tick`"}
	for _, name := range again {
		if err := os.Remove(filepath.Join(w.dir, "src", name)); err != nil {
			t.Fatal(err)
		}
	}
	w.run(0, sync...)
	w.run(0, sync...)
	for _, name := range again {
		w.has(w.run(0, "restore", w.from, w.to, name), "1 entry (")
	}
}

// Of two locations it is remembered how the last run was described.
func TestMirrorRestoresBetweenTwoLocations(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("src/c", "three")
	w.write("src/e", "three")
	how := []string{"--mode", "mirror", "--keep-deleted", "1h"}
	w.run(0, append([]string{"sync", w.from, w.to}, how...)...)
	if err := os.Remove(filepath.Join(w.dir, "src/c")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.run(0, append([]string{"sync", w.from, w.to}, how...)...)
	}
	w.has(w.run(0, "deleted", w.from, w.to), `"c"`)
	w.has(w.run(0, "restore", w.from, w.to, "c"), `restored   "c"`)
}

func TestMirrorRestoreRefusesWhatItCannotDo(t *testing.T) {
	w, inventory := keptWorld(t)
	in := func(args ...string) []string { return append(args, "--inventory", inventory) }
	for _, c := range []struct {
		code int
		args []string
		says string
	}{
		{1, in("restore", "m", "nope"), `"nope": there is nothing that can be brought back that was deleted there`},
		{1, in("restore", "m", "d", "nope"), `"nope"`},
		{1, in("restore", "m", "--run", "none", "--all"), `by the run "none"`},
		{254, in("restore", "other", "d"), "has none of that name; it has m"},
		{254, in("restore", "m"), "it is not said what to bring back"},
		{254, in("restore", "m", "d", "--all"), "--all: it brings back everything"},
		{254, in("restore"), "give the name of a mirror of the inventory, or two locations"},
		{254, in("restore", w.from), "give the name of a mirror of the inventory, or two locations"},
		{254, in("restore", "m", "../d"), `"../d" is no path in a mirror`},
		{254, in("restore", "m", "/"), `"/" is no path in a mirror`},
		{254, in("deleted", "m", "--path", "a//b"), `--path: "a//b" is no path in a mirror`},
		{254, in("deleted", "other"), "has none of that name"},
		{1, in("deleted", "m", "--run", "NOPE"), `there is nothing that can be brought back that was deleted by the run "NOPE"`},
		{1, in("deleted", "m", "--path", "nope"), `"nope": there is nothing that can be brought back that was deleted there`},
		{1, in("deleted", "m", "--json", "--path", "nope"), `"nope\": there is nothing`},
		{254, in("deleted", "m", "--path", `"new\qline"`), `--path: "\"new\\qline\"" is in double quotes, and not as`},
		{254, in("restore", "m", `"new\qline"`), "copy it from there with its quotes, or leave them out"},
		{254, []string{"prune", "--help"}, "firedrill mirror prune: there is no such command: use audit, cancel"},
		{254, []string{"prune"}, "there is no such command"},
		{0, []string{"--help"}, "Available Commands"},
		{0, []string{"deleted", "nope", "--help"}, "List what runs have deleted"},
		{254, in("sync", "m", "--keep-deleted", "1h"), `mirror "m" is described in`},
		{254, []string{"sync", w.from, w.to, "--keep-deleted", "1h"}, "a copy deletes nothing"},
		{254, []string{"sync", w.from, w.to, "--mode", "mirror", "--keep-deleted", "-1h"}, "--keep-deleted"},
		{254, []string{"sync", w.from, w.to, "--mode", "mirror", "--keep-deleted", "7d"}, "--keep-deleted"},
		{1, []string{"deleted", w.from, w.to}, "nothing is remembered"},
	} {
		if got := w.run(c.code, c.args...); !strings.Contains(got, c.says) {
			t.Errorf("%q says\n%s", c.args, got)
		}
	}
	if _, err := os.Lstat(filepath.Join(w.dir, "dst/d")); err == nil {
		t.Error("something came back all the same")
	}
	if got := w.run(0, "deleted", "--inventory", inventory, "m"); !strings.Contains(got, "3 entries") {
		t.Errorf("there is left\n%s", got)
	}
}

// L0 reads the manifest alone, and says that this verifies nothing.
func TestMirrorVerifyToL0(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	before := w.run(0, "status", w.from, w.to)
	for _, side := range []string{"src", "dst"} {
		if err := os.Rename(filepath.Join(w.dir, side), filepath.Join(w.dir, side+"-away")); err != nil {
			t.Fatal(err)
		}
	}
	w.has(w.run(0, "verify", "--level", "L0", w.from, w.to), "manifest (L0): it is whole, and the one that was signed", "neither location was looked at, and nothing of them is verified")
	var shown struct {
		Level    string
		Verified bool
		Root     struct{ Entries int64 }
	}
	if err := json.Unmarshal([]byte(w.run(0, "verify", "--level", "L0", "--json", w.from, w.to)), &shown); err != nil || shown.Level != "L0" || shown.Verified || shown.Root.Entries == 0 {
		t.Errorf("%+v, %v", shown, err)
	}
	if after := w.run(0, "status", w.from, w.to); after != before {
		t.Errorf("status says\n%s and not\n%s", after, before)
	}
	w.has(w.run(254, "verify", "--level", "L0", "--side", "source", w.from, w.to), "--side: --level L0 reads the manifest")
	w.has(w.run(254, "verify", "--level", "L0", "--fleet", "m"), "--fleet: --level L0 reads the manifest")
	all, err := filepath.Glob(filepath.Join(w.dir, "mirrors/*/manifest"))
	if err != nil || len(all) != 1 {
		t.Fatalf("%q, %v", all, err)
	}
	whole, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{30, len(whole) / 2, len(whole) - 3} {
		bad := slices.Clone(whole)
		bad[at] ^= 0x10
		if err := os.WriteFile(all[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if text := w.run(255, "verify", "--level", "L0", w.from, w.to); strings.Contains(text, "whole") {
			t.Errorf("with byte %d changed it says\n%s", at, text)
		}
	}
}

// A dry run ends as the restore would.
func TestMirrorRestoreDryRunAsksWhetherItMayWrite(t *testing.T) {
	w, inventory := keptWorld(t)
	dst := filepath.Join(w.dir, "dst")
	err := errors.Join(syscall.Mount(dst, dst, "", syscall.MS_BIND, ""), syscall.Mount("", dst, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	if err != nil {
		t.Fatalf("mount %s: %v: may this user mount? run the tests as root", dst, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dst, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.has(w.run(255, "restore", "--dry-run", "--all", "--inventory", inventory, "m"), "read-only")
	w.has(w.run(255, "restore", "--all", "--inventory", inventory, "m"), "read-only")
}

// Nobody runs the mirror meanwhile.
func TestMirrorRestoreWaitsForNobodyUnasked(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", "--mode", "mirror", "--keep-deleted", "1h", w.from, w.to)
	defer w.hold()()
	w.has(w.run(255, "restore", w.from, w.to, "a"), "has it since", "--wait")
}
