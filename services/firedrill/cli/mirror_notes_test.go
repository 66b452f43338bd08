package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// noChown runs do as a user who is not root would, as far as owners go.
func noChown(t *testing.T, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&head, &had[0]); err != nil {
		t.Fatal(err)
	}
	less := had
	less[0].Effective &^= 1 << unix.CAP_CHOWN
	if err := unix.Capset(&head, &less[0]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Capset(&head, &had[0]); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

// Who may not change owners is told so, once for all entries and only by the run that
// wrote them; what is said of the next run is so.
func TestOwnersThatAreNotSetAreTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can make files of others: run the tests as root")
	}
	const said = "owners     of 2 entries were not set"
	owner := func(w *mirrorWorld, name string) uint32 {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(w.dir, name), &st); err != nil {
			t.Fatal(err)
		}
		return st.Uid
	}
	for mode, then := range map[string]struct {
		advice string
		uid    uint32
	}{"copy": {"a run as root sets them", 12345}, "two-way": {"set them by hand as root", 0}} {
		w := newMirrorWorld(t)
		for _, name := range []string{"src/a", "src/d/b"} {
			if err := os.Chown(filepath.Join(w.dir, name), 12345, 54321); err != nil {
				t.Fatal(err)
			}
		}
		sync := func(args ...string) string {
			return w.run(0, append(append([]string{"sync", "--mode", mode}, args...), w.from, w.to)...)
		}
		noChown(t, func() {
			w.has(sync("--dry-run"), "owners     of 2 entries would not be set", then.advice)
			w.has(sync(), said, then.advice)
			if text := sync("--check", "listing"); strings.Contains(text, "owners") {
				t.Errorf("%s: said again:\n%s", mode, text)
			}
		})
		if text := sync(); strings.Contains(text, "owners") || owner(w, "dst/a") != then.uid {
			t.Errorf("%s as root: it belongs to %d\n%s", mode, owner(w, "dst/a"), text)
		}
	}
	for _, owner := range [][2]int{{12345, os.Getegid()}, {0, 54321}} {
		w := newMirrorWorld(t)
		if err := os.Chown(filepath.Join(w.dir, "src/a"), owner[0], owner[1]); err != nil {
			t.Fatal(err)
		}
		noChown(t, func() {
			for _, dry := range []string{"--dry-run=true", "--dry-run=false"} {
				var got struct{ OwnersNotSet int }
				if err := json.Unmarshal([]byte(w.run(0, "sync", dry, "--json", w.from, w.to)), &got); err != nil || got.OwnersNotSet != 1 {
					t.Errorf("%v, %s, as JSON: %+v, %v", owner, dry, got, err)
				}
			}
		})
	}
}

// What was taken for equal by its size and time is counted until a run has read it.
func TestWhatNoRunHasReadIsCounted(t *testing.T) {
	w := newMirrorWorld(t)
	forget := func() {
		if err := os.RemoveAll(filepath.Join(w.dir, "mirrors")); err != nil {
			t.Fatal(err)
		}
	}
	w.run(0, "sync", w.from, w.to)
	forget()
	w.write("src/new", "copied, and so read")
	w.has(w.run(0, "sync", w.from, w.to), "unchecked  2 files equal by size and time, and never read: `sync --check audit` reads")
	if text := w.run(0, "sync", "--check", "audit", w.from, w.to); strings.Contains(text, "unchecked") {
		t.Errorf("after all was read:\n%s", text)
	}
	forget()
	var got struct{ Unchecked int }
	if err := json.Unmarshal([]byte(w.run(0, "sync", "--json", w.from, w.to)), &got); err != nil || got.Unchecked != 3 {
		t.Errorf("as JSON: %+v, %v", got, err)
	}
}

// A slip in the name of the destination shows, also before anything is done.
func TestANewDestinationIsTold(t *testing.T) {
	w := newMirrorWorld(t)
	w.has(w.run(0, "sync", "--dry-run", w.from, w.to), "new        "+w.to+" does not exist: the run would make it")
	w.has(w.run(0, "sync", w.from, w.to), "new        "+w.to+" did not exist: it was made")
	if text := w.run(0, "sync", w.from, w.to); strings.Contains(text, "did not exist") {
		t.Errorf("said again:\n%s", text)
	}
	there := "dir:" + filepath.Join(w.dir, "there")
	if err := os.Mkdir(filepath.Join(w.dir, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	if text := w.run(0, "sync", w.from, there); strings.Contains(text, "exist") {
		t.Errorf("of a directory that was there:\n%s", text)
	}
	var got struct{ NewDestination bool }
	if err := json.Unmarshal([]byte(w.run(0, "sync", "--json", w.from, "dir:"+filepath.Join(w.dir, "json"))), &got); err != nil || !got.NewDestination {
		t.Errorf("as JSON: %+v, %v", got, err)
	}
}

// What lies at the destination and is overwritten by a first run is told, before and after;
// what a run put there itself is not.
func TestWhatARunReplacesIsTold(t *testing.T) {
	w := newMirrorWorld(t)
	occupied := filepath.Join(w.dir, "occupied")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(occupied, 0o755); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(occupied, "a"), "precious")
	to := "dir:" + occupied
	w.has(w.run(0, "sync", "--dry-run", w.from, to), `put        "a" on the destination, over what no run is known to have put there`, "replaced   1 entry that no run is known to have put there", "would be overwritten")
	w.has(w.run(0, "sync", w.from, to), "replaced   1 entry", "was overwritten")
	write(filepath.Join(w.dir, "src/a"), "another content")
	if text := w.run(0, "sync", w.from, to); strings.Contains(text, "replaced") {
		t.Errorf("of what a run had put there:\n%s", text)
	}
}

// Of a mirror that nobody knows no mode is told, and one that was mistyped once is not
// listed for ever; what is remembered of it is its last description.
func TestStatusTellsOnlyWhatIsKnown(t *testing.T) {
	w := newMirrorWorld(t)
	text := w.run(1, "status", w.from, w.to)
	if w.has(text, "none is remembered in "+filepath.Join(w.dir, "mirrors"), "--state-dir"); strings.Contains(text, "mode") {
		t.Errorf("it tells of a mode:\n%s", text)
	}
	if text := w.run(1, "status", "--json", w.from, w.to); strings.Contains(text, `"mode"`) {
		t.Errorf("it tells of a mode:\n%s", text)
	}
	slip := "dir:" + filepath.Join(w.dir, "scr")
	for _, mode := range []string{"two-way", "mirror"} {
		w.run(255, "sync", "--mode", mode, slip, w.to)
	}
	w.has(w.run(1, "status", slip, w.to), "mode mirror\n", "failed")
	w.has(w.run(0, "status"), "no mirror has run here", "left out: 1 mirror, of which no run ever got to work")
	w.run(0, "sync", w.from, w.to)
	text = w.run(0, "status")
	if w.has(text, w.from+" -> "+w.to, "left out: 1 mirror"); strings.Contains(text, slip) {
		t.Errorf("what was mistyped is listed:\n%s", text)
	}
	var list []struct{ From string }
	if err := json.Unmarshal([]byte(w.run(0, "status", "--json")), &list); err != nil || len(list) != 1 || list[0].From != w.from {
		t.Errorf("as JSON: %+v, %v", list, err)
	}
}

// What an inventory says and cannot be used is named with its file and its field.
func TestTheInventoryIsNamedWhereItIsAtFault(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("inv.yaml", fmt.Sprintf(`apiVersion: firedrill/v1
kind: Inventory
spec:
  stores:
    - {name: vault, endpoint: "http://127.0.0.1:9", accessKey: {env: NOT_SET_HERE}, secretKey: {env: NEITHER_IS_THIS}}
  mirrors:
    - {name: out, from: %q, to: "s3:vault/bucket"}
    - {name: ruled, from: %q, to: %q, permissions: [{match: "*.key", files: "0600"}, {match: "**", owner: nobody-has-this}]}
`, w.from, w.from, w.to))
	file := filepath.Join(w.dir, "inv.yaml")
	w.has(w.run(255, "sync", "--inventory", file, "out"), "inventory "+file+": ", `store vault: accessKey.env: "NOT_SET_HERE"`, `secretKey.env: "NEITHER_IS_THIS"`)
	// It was no run, and who asks later hears of none.
	for _, args := range [][]string{{"status", "--inventory", file, "out"}, {"status", "--inventory", file}} {
		if text := w.run(1, args...); strings.Contains(text, "failed") || strings.Contains(text, "vault: accessKey") {
			t.Errorf("%v:\n%s", args, text)
		}
	}
	w.has(w.run(255, "sync", "--inventory", file, w.from, "s3:vault/bucket"), "inventory "+file+": ", "store vault: accessKey")
	w.has(w.run(254, "sync", "--inventory", file, "ruled"), "inventory "+file+": mirror ruled: permissions[1].owner: ", "nobody-has-this")
	w.has(w.run(254, "sync", w.from, "s3:vault/bucket"), "no inventory was given (--inventory)", "s3+https://host:port/bucket/prefix")
	w.has(w.run(254, "sync", w.from, "s3:bucket/b"), "s3:store/bucket/prefix", "s3+https://host:port/bucket/prefix")
}

// The rules for permissions of README are for copies of what their owner keeps as it is.
func TestPermissionsOfAMirror(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("src/tls.key", "secret")
	w.write("inv.yaml", fmt.Sprintf(`apiVersion: firedrill/v1
kind: Inventory
spec:
  mirrors:
    - name: web
      from: %q
      to: %q
      permissions:
        - {match: "**", files: "0644", dirs: "0755"}
        - {match: "*.key", files: "0600"}
`, w.from, w.to))
	if err := os.Chmod(filepath.Join(w.dir, "src/a"), 0o666); err != nil {
		t.Fatal(err)
	}
	w.run(0, "sync", "--inventory", filepath.Join(w.dir, "inv.yaml"), "web")
	for name, want := range map[string]os.FileMode{"dst/a": 0o644, "dst/tls.key": 0o600, "dst/d": 0o755 | os.ModeDir, "src/a": 0o666} {
		if st, err := os.Stat(filepath.Join(w.dir, name)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, st.Mode(), err, want)
		}
	}
}

// Rules for the source of README: a dry run names what a run then sets, in one go with the
// copy.
func TestPermissionsOfASource(t *testing.T) {
	w := newMirrorWorld(t)
	shared := filepath.Join(w.dir, "src/d")
	if err := errors.Join(os.Chmod(filepath.Join(w.dir, "src/a"), 0o604), os.Chown(shared, -1, 12345), os.Chmod(shared, os.ModeSetgid|0o700)); err != nil {
		t.Fatal(err)
	}
	w.write("inv.yaml", fmt.Sprintf(`apiVersion: firedrill/v1
kind: Inventory
spec:
  mirrors:
    - name: up
      from: %q
      to: %q
      permissions:
        - {side: source, match: "**", files: "0660", group: inherit}
`, w.from, w.to))
	sync := []string{"sync", "--inventory", filepath.Join(w.dir, "inv.yaml"), "up"}
	w.has(w.run(0, append(sync, "--dry-run")...), `meta       "a" on the source, by permissions: mode 0604 to 0660`, `meta       "d/b" on the source, by permissions: mode 0644 to 0660, group 0 to 12345`,
		"rules      the permissions of 2 entries of the source would be set by the rules, after the copy")
	w.has(w.run(0, sync...), "rules      the permissions of 2 entries of the source were set by the rules, after the copy")
	for _, name := range []string{"src/a", "dst/a", "src/d/b", "dst/d/b"} {
		if st, err := os.Stat(filepath.Join(w.dir, name)); err != nil || st.Mode() != 0o660 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	for _, what := range []string{"drift", "verify", "audit"} {
		w.run(0, what, "--inventory", filepath.Join(w.dir, "inv.yaml"), "up")
	}
	if again := w.run(0, sync...); strings.Contains(again, "rules") || !strings.Contains(again, "equal") {
		t.Errorf("the next run:\n%s", again)
	}
}

// What is known of a mirror is that of the places which it had, and status says so.
func TestStatusOfAMirrorThatWasMoved(t *testing.T) {
	w := newMirrorWorld(t)
	describe := func(to string) {
		w.write("inv.yaml", fmt.Sprintf("{apiVersion: firedrill/v1, kind: Inventory, spec: {mirrors: [{name: out, from: %q, to: %q}]}}", w.from, to))
	}
	file := filepath.Join(w.dir, "inv.yaml")
	describe(w.to)
	w.run(0, "sync", "--inventory", file, "out")
	const said = " when it last came to its end: what is told of that run and of checks is of these places\n"
	for _, args := range [][]string{{"status", "--inventory", file}, {"status", "--inventory", file, "out"}} {
		if out := w.run(0, args...); strings.Contains(out, said) {
			t.Errorf("it was not moved:\n%s", out)
		}
		describe(w.to + "-new")
		w.has(w.run(0, args...), w.from+" -> "+w.to+said)
		describe(w.to)
	}
	describe(w.to + "-new")
	var got struct{ Of struct{ From, To string } }
	if err := json.Unmarshal([]byte(w.run(0, "status", "--json", "--inventory", file, "out")), &got); err != nil || got.Of.To != w.to {
		t.Errorf("as JSON: %+v, %v", got, err)
	}
}

// What verify or audit found last is told by status, until another one found something
// else.
func TestStatusTellsWhatACheckFound(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	w.run(0, "verify", "--level", "L4", w.from, w.to)
	w.has(w.run(0, "status", w.from, w.to), "last check", "verify at L4: all is as it should be", "dst: verified (L4): 3 checked")
	if err := os.Remove(filepath.Join(w.dir, "dst/a")); err != nil {
		t.Fatal(err)
	}
	w.run(1, "drift", w.from, w.to)
	w.has(w.run(1, "status", w.from, w.to), "drift at L1: not all is as it should be", "1 missing")
	if list := w.run(1, "status"); !regexp.MustCompile(`LAST SUCCESS +LAST CHECK +NEXT RUN(?s:.*) drift +2\S+Z +2\S+Z +2\S+Z drift L1: DRIFT +- +the last check has found drift\n`).MatchString(list) {
		t.Errorf("listed:\n%s", list)
	}
	w.run(0, "sync", w.from, w.to)
	w.run(0, "audit", w.from, w.to)
	w.has(w.run(0, "status"), "Z audit L4: ok ")
	var got struct {
		Check struct {
			What, Level string
			Good        bool
			Sides       []string
		}
	}
	if err := json.Unmarshal([]byte(w.run(0, "status", "--json", w.from, w.to)), &got); err != nil || got.Check.What != "audit" || !got.Check.Good || len(got.Check.Sides) != 2 {
		t.Errorf("as JSON: %+v, %v", got, err)
	}
}
