package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// slowMirror writes an inventory whose mirror "out" copies one file, and gives its path and
// what makes the mirror quick from the next start on.
func slowMirror(t *testing.T) (inventory string, quicken func()) {
	t.Helper()
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "src"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "src", "large"), make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  mirrors:\n    - {name: out, from: %q, to: %q", "dir:"+data+"/src", "dir:"+data+"/dst")
	inventory = write(t, "inventory.yaml", text+", bytesPerSecond: 50000}\n")
	return inventory, func() {
		if err := os.WriteFile(inventory, []byte(text+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// upWith starts a firedrill at an address of its own.
func upWith(t *testing.T, dir, inventory string) *process {
	t.Helper()
	p := start(t, dir, "up", "--listen", "127.0.0.1:0", "--http", "", "--inventory", inventory, "--out", filepath.Join(dir, "out"))
	p.says("firedrill is up")
	return p
}

// inMidRun waits until a run of the mirror tells how far it is.
func inMidRun(t *testing.T, dir string) {
	t.Helper()
	followMirror(t, dir, "out", func(r bus.Record) error {
		if r.Kind == fleet.KindProgress {
			return bus.Stop
		}
		return nil
	})
}

// watching is a watcher of the mirror "out" with little patience, and what it says.
func watching(dir, inventory string, patience time.Duration) (*fleetWatch, *bytes.Buffer) {
	var said bytes.Buffer
	a := &app{Streams: Streams{Out: &said, Err: &said}, stateDir: dir, inventory: inventory, logLevel: "error"}
	return &fleetWatch{app: a, name: "out", patience: patience, p: a.mirrorPrinter(&mirrorOptions{})}, &said
}

// kill ends a process without a word.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
}

func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no word on %q in:\n%s", w, text)
		}
	}
}

// TestAWatchEndsWithItsFiredrill: whoever watches a run, or calls it off, is told that the
// firedrill is gone and what is known, instead of being left to wait.
func TestAWatchEndsWithItsFiredrill(t *testing.T) {
	t.Parallel() // it waits for most of its time
	dir := t.TempDir()
	inventory, _ := slowMirror(t)
	up := upWith(t, dir, inventory)
	at, _ := allinone.ReadRecord(dir)
	w, said := watching(dir, inventory, 3*time.Second)
	ended := make(chan error, 1)
	go func() { ended <- w.ask(t.Context(), fleet.Request{}, 0) }()
	inMidRun(t, dir)
	up.kill()
	var err error
	select {
	case err = <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it is still watched")
	}
	if code := codeOf(err); code != run.Crash {
		t.Errorf("exit code %d: %v", code, err)
	}
	contains(t, err.Error(), "mirror out: lost the connection to "+at.NATSURL, "there was no firedrill for 3s", "last heard of at 2", "under way since 2", "of 8.0 MiB",
		"it has not ended", "it may go on by itself when `firedrill --state-dir "+dir+" up --inventory "+inventory+"` runs here again", "mirror status --inventory "+inventory+" out` tells")
	if strings.Contains(err.Error(), "the run goes on") {
		t.Errorf("it says what is not so: %v", err)
	}
	if want := "firedrill: lost the connection to " + at.NATSURL + "; waiting up to 3s for a firedrill there\n"; said.String() != want {
		t.Errorf("it said %q, want %q", said, want)
	}
	contains(t, w.left(), "whether the run goes on is not known here", "mirror status")
}

// TestAWatchGoesOnWithTheNextFiredrill, wherever that listens, up to the run's end.
func TestAWatchGoesOnWithTheNextFiredrill(t *testing.T) {
	t.Parallel() // it waits for most of its time
	dir := t.TempDir()
	inventory, quicken := slowMirror(t)
	up := upWith(t, dir, inventory)
	watch := start(t, dir, "mirror", "sync", "--fleet", "--inventory", inventory, "out")
	inMidRun(t, dir)
	up.kill()
	watch.says("lost the connection to nats://127.0.0.1:")
	quicken()
	upWith(t, dir, inventory)
	watch.says("connected again, to nats://127.0.0.1:")
	limit := time.After(2 * time.Minute) // the request is handed out again half a minute after its process was killed
	select {
	case <-watch.done:
	case <-limit:
		t.Fatalf("it does not end:\n%s", watch.words())
	}
	if code := watch.cmd.ProcessState.ExitCode(); code != run.OK {
		t.Errorf("exit code %d", code)
	}
	// What the killed process had in hand another worker may have done before the run began anew.
	contains(t, watch.words(), "waiting up to 30s", "manifest   1 entries")
	if came := regexp.MustCompile(`(?m)^out: 1 (copied \(8\.0 MiB\)|equal already) in \d+\.\d s$`); !came.MatchString(watch.words()) {
		t.Errorf("nothing that matches %s in:\n%s", came, watch.words())
	}
}

// TestTheEndOfARunIsReadFromTheStore: it may have ended, and its firedrill after it, before
// the watcher heard of it.
func TestTheEndOfARunIsReadFromTheStore(t *testing.T) {
	dir := t.TempDir()
	server, b := openStoreAs(t, event.Mirror, dir, "127.0.0.1:0")
	record(t, dir, allinone.Record{PID: os.Getpid(), NATSURL: server.URL()})
	w, _ := watching(dir, "", time.Second)
	ended := make(chan error, 1)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	go func() { ended <- w.ask(ctx, fleet.Request{}, 0) }()
	var seq uint64
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for seq == 0 {
		<-tick.C
		last, _, err := b.MirrorRequested(ctx, requester(), "out")
		if seq = last.Seq; err != nil {
			t.Fatal(err)
		}
	}
	b.Close()
	server.Shutdown()
	server, b = openStoreAs(t, event.Mirror, dir, "")
	e := fleet.Event{Mirror: "out", Run: fmt.Sprintf("%d-x", seq), Reason: "no space"}
	err := errors.Join(b.PublishMirrorEvent(ctx, "out", fleet.KindStarted, "", e), b.PublishMirrorEvent(ctx, "out", fleet.KindFailed, "", e))
	b.Close()
	server.Shutdown()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || err.Error() != "no space" {
		t.Errorf("it ended with %v", err)
	}
}

// TestNobodyIsNotWaitedFor: where servers answer, and no process runs mirrors.
func TestNobodyIsNotWaitedFor(t *testing.T) {
	t.Parallel() // it waits for most of its time
	dir := serve(t)
	w, said := watching(dir, "", 2*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := w.ask(ctx, fleet.Request{}, 0)
	if codeOf(err) != run.Crash || said.Len() > 0 {
		t.Errorf("exit code %d, %s", codeOf(err), said)
	}
	contains(t, err.Error(), "mirror out: nobody works on the run: for 2s", "at nats://127.0.0.1:", "that the run began was not heard of", "its request is kept", "mirror status --inventory FILE out` tells")
	// The same of a run that seems to be under way, when it is called off.
	s, err := w.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	began := time.Now()
	w.s, w.began, w.run = s, began, fleet.WatchRun("out", "1-x", 0)
	if err := s.bus.PublishMirrorEvent(ctx, "out", fleet.KindStarted, "", fleet.Event{Mirror: "out", Run: "1-x", At: began}); err != nil {
		t.Fatal(err)
	}
	err = w.end(ctx, "the run is called off")
	contains(t, err.Error(), "nobody works on the run", "last heard of at "+clockTime(began)+", under way since "+clockTime(began), "the run is called off when a firedrill that has this mirror is up there again")
	// And of one that nobody heard begin.
	w.run = fleet.WatchRun("out", "2-x", 0)
	if err := s.bus.PublishMirrorEvent(ctx, "out", fleet.KindWaiting, "", fleet.Event{Mirror: "out", Run: "2-x", At: began, Reason: "others come first"}); err != nil {
		t.Fatal(err)
	}
	err = w.end(ctx, "the run is called off")
	if contains(t, err.Error(), "last heard of at "+clockTime(began)+", when it waited: others come first"); strings.Contains(err.Error(), "under way") {
		t.Errorf("it says that it began: %v", err)
	}
}

// TestARunOfTheFleetHasTheNotesOfALoneOne, in the same words.
func TestARunOfTheFleetHasTheNotesOfALoneOne(t *testing.T) {
	for _, dry := range []bool{false, true} {
		m := drill.Mirror{From: "dir:/a", To: "dir:/b", Mode: drill.MirrorTwoWay}
		own := job.Result{New: true, Disowned: 2, Unread: 3, Untried: []string{"s3:lab/b"}, Unasked: "it was busy"}
		own.Replaced, own.Check, own.Compared = 4, engine.CheckAudit, [2]int64{5, 6}
		lone, lines := watching(t.TempDir(), "", 0)
		fmt.Fprintln(lines, "firedrill: note: a bucket is used without keys")
		lone.p.reportNotes(m, dry, own)
		if n := strings.Count(lines.String(), "\n"); n != 8 {
			t.Fatalf("%d notes:\n%s", n, lines)
		}
		asked, printed := watching(t.TempDir(), "", 0)
		asked.p.fleetResult("out", &fleet.Result{DryRun: dry, From: m.From, To: m.To, Mode: m.Mode,
			NewDestination: true, OwnersNotSet: 2, Unchecked: 3, Replaced: 4, Untried: own.Untried, Unasked: own.Unasked,
			Compared: map[string]int64{"source": 5, "destination": 6}, Keyless: []string{"a bucket is used without keys"}})
		if _, notes, _ := strings.Cut(printed.String(), "\n"); notes != lines.String() {
			t.Errorf("dry %v: a run of the fleet says\n%sa lone one\n%s", dry, notes, lines)
		}
	}
}

// TestARunOfTheFleetHasTheCountsOfALoneOne: directories and attributes, too, and why what was
// kept.
func TestARunOfTheFleetHasTheCountsOfALoneOne(t *testing.T) {
	began := time.Now()
	own := job.Result{}
	own.Began, own.Ended, own.Listed, own.Believed = began, began.Add(time.Second), began.Add(-time.Minute), 4
	own.Seen = [2]int64{9, 9}
	own.Done = map[plan.Op]int64{plan.Put: 1, plan.MakeDir: 2, plan.Meta: 3, plan.Equal: 5, plan.Keep: 6, plan.Delete: 7, plan.Conflict: 8}
	own.Bytes = map[plan.Op]int64{plan.Put: 2048}
	asked := fleet.Result{Began: began, Seconds: 1, Listed: own.Listed, Believed: 4, Bytes: 2048, Done: map[string]int64{}, Scans: 3,
		Kept: []fleet.Kept{{Why: string(plan.KeepMissing), Entries: 2}, {Why: string(plan.KeepGuarded), Entries: 4}}}
	for op, n := range own.Done {
		asked.Done[op.String()] = n
	}
	for _, asked.DryRun = range []bool{false, true} {
		lone, want := watching(t.TempDir(), "", 0)
		lone.p.kept[plan.KeepMissing] = 2
		lone.p.report(drill.Mirror{Name: "out", Mode: drill.MirrorMirror, Deletes: drill.MirrorDeletes{Scans: 3}}, asked.DryRun, own, "")
		asked.Mode = drill.MirrorMirror
		w, got := watching(t.TempDir(), "", 0)
		w.p.fleetResult("out", &asked)
		counts, kept, _ := strings.Cut(want.String(), "\n")
		_, counts, _ = strings.Cut(counts, ": ")
		counts, _, _ = strings.Cut(counts, " in 1s")
		contains(t, counts, "1 copied (2.0 KiB), 2 directories made, 3 attributes set, 7 deleted, 8 in conflict, 1 equal already, 4 believed equal (the destination was listed 1m0s ago)")
		contains(t, got.String(), "out: "+strings.TrimPrefix(counts, "out: ")+" in 1.0 s", kept)
	}
}

// TestTheModeOfARunOfTheFleetIsSaid where a lone run says it.
func TestTheModeOfARunOfTheFleetIsSaid(t *testing.T) {
	const said = "  mode       copy: what the source holds no more is not deleted at the destination (with mode: mirror in the inventory it is, guarded)\n"
	for _, c := range []struct {
		result fleet.Result
		want   bool
	}{
		{fleet.Result{}, false},
		{fleet.Result{FirstRun: true}, true},
		{fleet.Result{KeptByMode: 1, Mode: drill.MirrorCopy}, true},
		{fleet.Result{FirstRun: true, KeptByMode: 1, Mode: drill.MirrorMirror}, false},
	} {
		w, printed := watching(t.TempDir(), "", 0)
		w.p.fleetResult("out", &c.result)
		if got := strings.HasSuffix(printed.String(), said); got != c.want {
			t.Errorf("%+v: printed\n%s", c.result, printed)
		}
	}
}
