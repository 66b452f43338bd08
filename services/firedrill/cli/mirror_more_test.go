package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/firedrill/cli"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// stateOf is where what the world's own mirror remembers lies.
func (w *mirrorWorld) stateOf() string {
	return filepath.Join(w.dir, "mirrors", job.AdHoc(drill.Mirror{From: w.from, To: w.to}))
}

// hold has the mirror open until the test lets go of it.
func (w *mirrorWorld) hold() (release func()) {
	w.t.Helper()
	s, err := state.Open(w.stateOf())
	if err != nil {
		w.t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(release)
	return release
}

// screen is what a command prints while it runs.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// begin begins a command that is ended by cancel or by itself.
func (w *mirrorWorld) begin(args ...string) (out *screen, cancel func(), ended <-chan int) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	out, code := &screen{}, make(chan int, 1)
	go func() {
		code <- cli.Run(ctx, args, cli.Streams{In: strings.NewReader(""), Out: out, Err: out}, target.NewRegistry())
	}()
	w.t.Cleanup(cancel)
	return out, cancel, code
}

// until waits until something is so.
func (w *mirrorWorld) until(what string, so func() bool) {
	w.t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline.C:
			w.t.Fatalf("it never came to this: %s", what)
		}
	}
}

func TestTheFilterOfARunIsRemembered(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("src/x.tmp", "left out")
	w.has(w.run(0, "sync", "--filter", "- *.tmp", w.from, w.to), "2 copied")
	w.has(w.run(0, "verify", w.from, w.to), "src: verified (L1): 3 checked", "dst: verified (L1): 3 checked")
	w.run(0, "drift", w.from, w.to+"/") // another way to write it
	w.run(0, "audit", w.from, w.to)
	w.has(w.run(0, "status", w.from, w.to), `filter        ["- *.tmp"]`)
	w.has(w.run(1, "verify", "--filter", "- *.bak", w.from, w.to), `--filter differs from that of the last run (--filter "- *.tmp")`, `extra      "x.tmp"`)
	w.has(w.run(0, "sync", w.from, w.to), `had --filter "- *.tmp", this one has no --filter`, "1 copied")
	w.has(w.run(0, "verify", w.from, w.to), "4 checked")
}

func TestWhatIsNotDeletedIsExplained(t *testing.T) {
	w := newMirrorWorld(t)
	for i := range 10 {
		w.write(fmt.Sprintf("src/f%d", i), "x")
	}
	w.run(0, "sync", w.from, w.to)
	if err := os.Remove(filepath.Join(w.dir, "src", "a")); err != nil {
		t.Fatal(err)
	}
	w.has(w.run(0, "sync", w.from, w.to), "kept       1: only there: this mode removes nothing")
	w.has(w.run(0, "sync", "--mode", "mirror", w.from, w.to), "kept       1: gone from the source: removed once 2 runs in a row have found it gone")
	w.has(w.run(0, "sync", "--mode", "mirror", w.from, w.to), "1 deleted")
	w.has(w.run(254, "sync", "--mode", "two-way", w.from, w.to), "mode two-way: what the runs so far remember is that of mode mirror", "--state")
}

func TestAMistypedFlagOfAMirrorIsMet(t *testing.T) {
	w := newMirrorWorld(t)
	w.has(w.run(254, "sync", "--dryrun", w.from, w.to), "unknown flag: --dryrun", "did you mean --dry-run?")
	w.has(w.run(254, "verify", "--json", "--levl", "L4", w.from, w.to), `"error"`, "did you mean --level?")
}

// TestAnotherDirectorysStateIsAskedFor: what is remembered, and the key that signed it, may
// lie elsewhere; what only reads makes no key of its own.
func TestAnotherDirectorysStateIsAskedFor(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	remembered := w.stateDirs[2:]
	other := filepath.Join(w.dir, "other")
	w.stateDirs = []string{"--state-dir", other}
	for _, command := range []string{"verify", "drift", "audit"} {
		w.has(w.run(1, command, w.from, w.to), "run it first; if it ran from another directory", "--state-dir")
	}
	w.stateDirs = append(w.stateDirs, remembered...)
	for _, command := range []string{"verify", "drift", "audit"} {
		w.has(w.run(255, command, w.from, w.to), filepath.Join(other, "keys", "mirror.nk"), "is not there", "--state-dir")
	}
	if _, err := os.Stat(filepath.Join(other, "keys")); err == nil {
		t.Error("keys were made by what only reads")
	}
	// Other keys, as another mirror of that directory has made them.
	w.stateDirs = []string{"--state-dir", other}
	w.run(0, "sync", w.from, "dir:"+filepath.Join(w.dir, "elsewhere"))
	w.stateDirs = append(w.stateDirs, remembered...)
	w.has(w.run(255, "verify", w.from, w.to), "is not trusted", "whose key signed it", "--state-dir")
}

// TestWhatCannotBeSignedIsNotBegun: nothing is copied, and one line says why.
func TestWhatCannotBeSignedIsNotBegun(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("taken", "no directory")
	w.stateDirs[1] = filepath.Join(w.dir, "taken")
	text := w.run(255, "sync", w.from, w.to)
	if w.has(text, "the key that signs manifests", "--state-dir"); strings.Count(text, "\n") != 1 {
		t.Errorf("more than one line:\n%s", text)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "dst")); err == nil {
		t.Error("the destination was made")
	}
	w.has(w.run(0, "sync", "--dry-run", w.from, w.to), "would have: 2 copied")
}

// TestARunOfNothingSaysSo: a wrong name, a disk that is not mounted, a filter that leaves
// everything out.
func TestARunOfNothingSaysSo(t *testing.T) {
	w := newMirrorWorld(t)
	const said = "neither place holds anything that takes part"
	w.has(w.run(0, "sync", "--filter", "- **", w.from, w.to), "nothing to do", said)
	w.run(0, "sync", w.from, w.to)
	if text := w.run(0, "sync", w.from, w.to); strings.Contains(text, said) {
		t.Errorf("of a run that found all as it was:\n%s", text)
	}
	empty := filepath.Join(w.dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	w.has(w.run(0, "sync", "dir:"+empty, "dir:"+filepath.Join(w.dir, "made")), said)
	w.has(w.run(0, "sync", "dir:"+empty, w.to), "the source holds nothing that takes part: is it mounted")
}

// TestStatusWorksDuringARun: and what compares says who has the mirror.
func TestStatusWorksDuringARun(t *testing.T) {
	w := newMirrorWorld(t)
	w.has(w.run(1, "status", w.from, w.to), "last run      none is remembered in")
	w.run(0, "sync", w.from, w.to)
	release := w.hold()
	pid := fmt.Sprintf("process %d", os.Getpid())
	w.has(w.run(0, "status", w.from, w.to), "running       since 2", pid, "last run      2", "2 copied")
	w.has(w.run(0, "status"), w.from+" -> "+w.to, "running")
	for _, c := range []string{"sync", "verify", "drift", "audit"} {
		w.has(w.run(255, c, w.from, w.to), w.from+" -> "+w.to+": "+pid+" has it since 2", "--wait", "firedrill --state-dir")
	}
	out, _, ended := w.begin(append([]string{"mirror", "verify", "--wait", w.from, w.to}, w.stateDirs...)...)
	w.until("it waits", func() bool { return strings.Contains(out.String(), "firedrill: waiting: "+pid) })
	release()
	if code := <-ended; code != 0 || !strings.Contains(out.String(), "dst: verified") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// TestAFailedRunIsRemembered: where nothing could be opened, too.
func TestAFailedRunIsRemembered(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	if err := os.Rename(filepath.Join(w.dir, "src"), filepath.Join(w.dir, "gone")); err != nil {
		t.Fatal(err)
	}
	text := w.run(255, "sync", w.from, w.to)
	w.has(text, "firedrill: open the source:")
	if strings.Contains(text, "adhoc-") {
		t.Errorf("a name that nobody gave is shown:\n%s", text)
	}
	w.has(w.run(1, "status", w.from, w.to), "failed: open the source:", "last success  2", "2 copied, 0 deleted")
	w.has(w.run(1, "status"), "failed", "open the source:")
	w.run(0, "sync", "--dry-run", "dir:"+filepath.Join(w.dir, "gone"), w.to) // which leaves nothing to list
	var list []struct {
		State   string `json:"state"`
		Failure struct {
			Problem string `json:"problem"`
		} `json:"failure"`
	}
	if err := json.Unmarshal([]byte(w.run(1, "status", "--json")), &list); err != nil || len(list) != 1 || list[0].State != "failed" || list[0].Failure.Problem == "" {
		t.Errorf("got %+v, %v", list, err)
	}
}

// TestEveryKeyIsLowerCamel: in all that is printed as JSON, errors included.
func TestEveryKeyIsLowerCamel(t *testing.T) {
	w := newMirrorWorld(t)
	var check func(what string, v any)
	key := regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	check = func(what string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, below := range v {
				if levels := strings.HasSuffix(what, ".checkedBy") || strings.HasSuffix(what, ".levels"); !key.MatchString(k) && !levels {
					t.Errorf("%s: the key %q", what, k)
				}
				check(what+"."+k, below)
			}
		case []any:
			for _, below := range v {
				check(what, below)
			}
		}
	}
	printed := func(code int, args ...string) any {
		var v any
		d := json.NewDecoder(strings.NewReader(w.run(code, append(args, "--json")...)))
		if err := d.Decode(&v); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if _, err := d.Token(); err != io.EOF {
			t.Errorf("%v: there is more than one document: %v", args, err)
		}
		check(args[0], v)
		return v
	}
	printed(0, "sync", "--dry-run", w.from, w.to)
	printed(0, "sync", w.from, w.to)
	w.write("dst/a", "rot!")
	printed(1, "verify", w.from, w.to)
	printed(1, "audit", w.from, w.to)
	printed(1, "status", w.from, w.to) // an audit has found what differs
	for _, c := range []struct {
		code int
		args []string
	}{
		{254, []string{"sync", "out"}}, {254, []string{"sync"}}, {254, []string{"verify", "--level", "L9", w.from, w.to}},
		{255, []string{"sync", "dir:/no/such/place", w.to}}, {254, []string{"cancel", "out"}}, {254, []string{"sync", "--fleet", "out"}},
		{254, []string{"sync", "--mode", "two-way", w.from, w.to}},
	} {
		got, _ := printed(c.code, c.args...).(map[string]any)
		if text, _ := got["error"].(string); text == "" {
			t.Errorf("%v: no error in %v", c.args, got)
		}
	}
}

func TestAnInterruptedRunSaysWhatIsLeft(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("src/large", strings.Repeat("x", 4<<20))
	args := append([]string{"mirror", "sync", "--bwlimit", "100K", w.from, w.to}, w.stateDirs...)
	out, cancel, ended := w.begin(args...)
	w.until("it runs", func() bool {
		h, err := state.Holder(w.stateOf())
		return err == nil && h != nil && strings.Contains(w.run(1, "status", w.from, w.to), "running")
	})
	cancel()
	if code := <-ended; code != 130 {
		t.Errorf("exit code %d", code)
	}
	w.has(out.String(), "interrupted: ending what is under way", "dst: interrupted after ", "interrupted: what was copied stays, and the next run goes on from there")
	w.has(w.run(0, "sync", w.from, w.to), "copied")
}

// TestAFailingScheduleIsSeen: in the log of firedrill up, and in the list.
func TestAFailingScheduleIsSeen(t *testing.T) {
	w := newMirrorWorld(t)
	text := fmt.Sprintf("apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  mirrors:\n    - {name: out, from: %s, to: %s, every: 1s}\n    - {name: night, from: %s, to: %s, daily: \"02:30\", mode: mirror}\n",
		w.from+".none", w.to, w.from, w.to+"2")
	w.write("inventory.yaml", text)
	common := []string{"--state-dir", filepath.Join(w.dir, "firedrill"), "--inventory", filepath.Join(w.dir, "inventory.yaml")}
	up, cancel, ended := w.begin(append([]string{"up", "--listen", "127.0.0.1:0", "--http", ""}, common...)...)
	w.until("the failure is logged", func() bool { return strings.Contains(up.String(), `msg="a mirror's run failed"`) })
	w.has(up.String(), "level=ERROR", "mirror=out", "by=schedule", "src.none")
	list := func() string {
		var out bytes.Buffer
		if code := cli.Run(t.Context(), append([]string{"mirror", "status"}, common...), cli.Streams{Out: &out, Err: &out}, target.NewRegistry()); code != 1 {
			t.Errorf("exit code %d: %s", code, &out)
		}
		return out.String()
	}
	var shown string
	w.until("the failure is listed", func() bool { shown = list(); return strings.Contains(shown, "src.none") })
	if !regexp.MustCompile(`(?m)^out +copy +failed +2\S+ +- +- +(due since )?2\S+Z +open the source:`).MatchString(shown) ||
		!regexp.MustCompile(`(?m)^night +mirror +never +- +- +- +2\S+T02:30:00Z +-$`).MatchString(shown) {
		t.Errorf("listed:\n%s", shown)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, up)
	}
	w.has(list(), "when firedrill up runs")
}

func TestUpAndValidateRefuseBadMirrors(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("inventory.yaml", "apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  mirrors:\n    - {name: m, from: \"dir:rel\", to: \"s3:lab/bucket\", filter: [\"- [\"], deletes: {most: -1}}\n")
	inventory := filepath.Join(w.dir, "inventory.yaml")
	for _, args := range [][]string{{"validate", inventory}, {"up", "--inventory", inventory}, {"mirror", "status", "--inventory", inventory}} {
		var out bytes.Buffer
		args = append(args, "--state-dir", filepath.Join(w.dir, "firedrill"))
		if code := cli.Run(t.Context(), args, cli.Streams{Out: &out, Err: &out}, target.NewRegistry()); code != 254 {
			t.Errorf("%v: exit code %d", args, code)
		}
		w.has(out.String(), `spec.mirrors[0].from: "dir:rel"`, `spec.mirrors[0].to: "s3:lab/bucket"`, `spec.mirrors[0].filter[0]: "- ["`, `spec.mirrors[0].deletes.most: "-1"`)
	}
}

// Who stops watching a run of the fleet does not stop the run, and is told how to.
func TestARunOfTheFleetGoesOnWhenNobodyWatches(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("src/large", strings.Repeat("x", 8<<20))
	w.write("inventory.yaml", fmt.Sprintf("apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  mirrors:\n    - {name: out, from: %s, to: %s, bytesPerSecond: 50000}\n", w.from, w.to))
	stateDir := filepath.Join(w.dir, "firedrill")
	common := []string{"--state-dir", stateDir, "--inventory", filepath.Join(w.dir, "inventory.yaml")}
	up, stop, ended := w.begin(append([]string{"up", "--listen", "127.0.0.1:0", "--http", ""}, common...)...)
	mirror := func(args ...string) (code int, printed string) {
		var out bytes.Buffer
		code = cli.Run(t.Context(), append(append([]string{"mirror"}, args...), common...), cli.Streams{Out: &out, Err: &out}, target.NewRegistry())
		return code, out.String()
	}
	w.until("firedrill is up", func() bool { return strings.Contains(up.String(), "firedrill is up") })
	told := []string{"the run goes on", "mirror status --inventory " + common[3] + " out` shows it", "mirror cancel out` calls it off"}
	code, printed := mirror("sync", "--fleet", "--timeout", "2s", "out")
	if code != 255 {
		t.Errorf("exit code %d", code)
	}
	w.has(printed, append(told, "the time of --timeout is over (2s)")...)
	watched, interrupt, left := w.begin(append([]string{"mirror", "sync", "--fleet", "out"}, common...)...)
	running := func() bool {
		_, printed := mirror("status", "out")
		return strings.Contains(printed, "running")
	}
	w.until("it runs", running)
	interrupt()
	if code := <-left; code != 130 {
		t.Errorf("interrupted: exit code %d", code)
	}
	w.has(watched.String(), told...)
	if !running() {
		t.Error("the run did not go on")
	}
	if code, printed := mirror("cancel", "out"); code != 0 {
		t.Errorf("cancel: exit code %d: %s", code, printed)
	}
	w.until("nothing runs that was asked for", func() bool { // twice, above
		code, printed := mirror("cancel", "out")
		if code != 0 && (code != 1 || !strings.Contains(printed, "no run of it is under way")) {
			t.Fatalf("cancel: exit code %d: %s", code, printed)
		}
		return code == 1
	})
	code, printed = mirror("cancel", "uot")
	if w.has(printed, `mirror "uot": the inventory `, "has none of that name; it has out"); code != 254 {
		t.Errorf("cancel of what is not known: exit code %d", code)
	}
	w.has(w.run(1, "cancel", "uot"), `mirror "uot": no run of a mirror of that name was ever heard of there`, "mirror status --inventory FILE` lists those that there are")
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("up: exit code %d: %s", code, up)
	}
	w.has(w.run(254, "sync", "--timeout", "2s", w.from, w.to), "give --fleet, too")
	w.has(w.run(254, "sync", "--fleet", "--timeout", "-2s", "out"), "--timeout: -2s is no time")
}
