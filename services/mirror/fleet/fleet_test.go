package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
)

func TestMain(m *testing.M) {
	minioServer.Main(m,
		// nats-server starts these once a process and never ends them.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// world is one installation: a server, an inventory, and mirror processes that the
// test starts and ends.
type world struct {
	t      *testing.T
	server *bus.Embedded
	set    *keys.Set
	dir    string
	inv    drill.Inventory
	me     *bus.Bus
}

func newWorld(t *testing.T, mirrors ...drill.Mirror) *world {
	t.Helper()
	dir := t.TempDir()
	set, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	must(t, err)
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(dir, "nats"), Listen: "127.0.0.1:0", Log: quiet()})
	must(t, err)
	t.Cleanup(server.Shutdown)
	w := &world{t: t, server: server, set: set, dir: dir}
	for _, m := range mirrors {
		m.From, m.To = strings.ReplaceAll(m.From, "DIR", dir), strings.ReplaceAll(m.To, "DIR", dir)
		w.inv.Spec.Mirrors = append(w.inv.Spec.Mirrors, m)
	}
	w.me = w.connect("cli")
	must(t, w.me.Bootstrap(t.Context(), bus.BootstrapOptions{}))
	return w
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) connect(service string) *bus.Bus {
	w.t.Helper()
	id := bus.Identity{Service: service, Instance: service, Clock: clock.System()}
	if service != "cli" {
		signer, err := w.set.Signer(service)
		must(w.t, err)
		id.Signer = signer
	}
	b, err := bus.Connect(w.t.Context(), bus.Options{Embedded: w.server, Identity: id, Keyring: w.set.Keyring, Log: quiet()})
	must(w.t, err)
	w.t.Cleanup(b.Close)
	return b
}

// start starts a mirror process; stop ends it as a signal would.
func (w *world) start(change ...func(*fleet.Config)) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	c := fleet.Config{
		Bus: w.connect(event.Mirror), Log: quiet(), Inventory: w.inv,
		Env: job.Env{StateDir: filepath.Join(w.dir, "state"), Now: time.Now},
	}
	for _, f := range change {
		f(&c)
	}
	done := make(chan error, 1)
	go func() { done <- fleet.Run(ctx, c) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("fleet.Run: %v", err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) ask(mirror, body string) {
	w.t.Helper()
	subject, err := bus.MirrorRequest{Who: "test", Mirror: mirror}.Subject()
	must(w.t, err)
	_, err = w.me.Publish(w.t.Context(), subject, []byte(body), "")
	must(w.t, err)
}

// await gives the first event of one of the kinds behind a sequence.
func (w *world) await(mirror string, after uint64, kinds ...string) (fleet.Event, uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	var e fleet.Event
	var seq uint64
	err := w.me.FollowMirror(ctx, mirror, after, func(r bus.Record) error {
		for _, k := range kinds {
			if r.Kind == k {
				seq = r.Seq
				return errors.Join(json.Unmarshal(r.Data, &e), bus.Stop)
			}
		}
		if r.Kind == fleet.KindFailed || r.Kind == fleet.KindRejected {
			return fmt.Errorf("%s: %s", r.Kind, r.Data)
		}
		return nil
	})
	if err != nil && !errors.Is(err, bus.Stop) {
		w.t.Fatalf("await %v of %s: %v", kinds, mirror, err)
	}
	return e, seq
}

func (w *world) tree(name string, files int) {
	w.t.Helper()
	for i := range files {
		p := filepath.Join(w.dir, name, fmt.Sprintf("d%02d", i%17), fmt.Sprintf("f%04d", i))
		must(w.t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(w.t, os.WriteFile(p, []byte(strings.Repeat(fmt.Sprint(i), i%97)), 0o640))
	}
}

// heavy is a source that takes for ever at a byte a second.
func (w *world) heavy() {
	w.t.Helper()
	w.zeroes("src/heavy", 4<<20)
}

// same compares two directories with the word of diff(1).
func (w *world) same(a, b string) {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), "diff", "-r", "--no-dereference", filepath.Join(w.dir, a), filepath.Join(w.dir, b)).CombinedOutput()
	if err != nil {
		w.t.Errorf("%s and %s differ: %v\n%.2000s", a, b, err, out)
	}
}

func TestARequestIsWorkedOffByAllProcesses(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.tree("src", 3000)
	for range 3 {
		w.start()
	}
	w.ask("out", "")
	e, seq := w.await("out", 0, fleet.KindFinished)
	if e.Result == nil || !e.Result.Whole || e.Result.Done["put"] != 3000 || e.Result.Entries != 3017 || e.By != "test" {
		t.Fatalf("finished with %+v by %s", e.Result, e.By)
	}
	w.same("src", "dst")
	w.ask("out", `{"check": "listing"}`)
	e, _ = w.await("out", seq, fleet.KindFinished)
	if e.Result.Done["put"] != 0 || e.Result.Done["equal"] != 3017 {
		t.Errorf("the second run did %v", e.Result.Done)
	}
}

func TestARunGoesOnWhenItsPlannerEnds(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 20_000})
	w.tree("src", 3000)
	stop := w.start()
	w.ask("out", "{}")
	_, seq := w.await("out", 0, fleet.KindProgress)
	stop() // in mid-copy
	w.start(func(c *fleet.Config) { c.Inventory.Spec.Mirrors[0].BytesPerSecond = 0 })
	e, _ := w.await("out", seq, fleet.KindFinished)
	if !e.Result.Whole || e.Result.Entries != 3017 {
		t.Fatalf("finished with %+v", e.Result)
	}
	if e.Result.Done["put"] == 3000 {
		t.Error("the second planner copied all anew")
	}
	w.same("src", "dst")
}

func TestRunsThatShareALocationTakeTurns(t *testing.T) {
	w := newWorld(t,
		drill.Mirror{Name: "one", From: "dir:DIR/src", To: "dir:DIR/mid"},
		drill.Mirror{Name: "two", From: "dir:DIR/mid", To: "dir:DIR/dst"})
	w.tree("src", 500)
	must(t, os.MkdirAll(filepath.Join(w.dir, "mid"), 0o755))
	w.start(func(c *fleet.Config) { c.Runs = 2 })
	w.ask("one", "")
	w.await("one", 0, fleet.KindStarted)
	w.ask("two", "")
	two, _ := w.await("two", 0, fleet.KindStarted)
	one, _ := w.await("one", 0, fleet.KindFinished)
	if two.At.Before(one.At) {
		t.Errorf("the second began at %s, before the first ended at %s", two.At, one.At)
	}
	w.await("two", 0, fleet.KindFinished)
	w.same("src", "dst")
}

func TestARunIsCalledOff(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1})
	w.heavy()
	w.start()
	w.ask("slow", "")
	_, seq := w.await("slow", 0, fleet.KindStarted)
	must(t, w.me.PublishMirrorCommand(t.Context(), "slow", "cancel", nil))
	w.await("slow", seq, fleet.KindCancelled)
}

// A command ends the run that it means, and not the one that waits behind it.
func TestOneCommandCallsOneRunOff(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1})
	w.heavy()
	w.start()
	for range 3 {
		w.ask("slow", "")
	}
	var e fleet.Event
	var seq uint64
	for _, named := range []bool{true, false} {
		e, seq = w.await("slow", seq, fleet.KindStarted)
		must(t, w.me.PublishMirrorCommand(t.Context(), "slow", "cancel", fleet.Cancel{Run: "999-another"}))
		if now, _ := w.await("slow", seq, fleet.KindProgress, fleet.KindCancelled); now.Progress == nil || now.Run != e.Run {
			t.Fatalf("a command for another run ended run %s: %+v", e.Run, now)
		}
		var c fleet.Cancel
		if named {
			c.Run = e.Run
		}
		must(t, w.me.PublishMirrorCommand(t.Context(), "slow", "cancel", c))
		ended, at := w.await("slow", seq, fleet.KindCancelled)
		if ended.Run != e.Run {
			t.Fatalf("run %s was called off, and not %s", ended.Run, e.Run)
		}
		seq = at
	}
	e, seq = w.await("slow", seq, fleet.KindStarted)
	if now, _ := w.await("slow", seq, fleet.KindProgress, fleet.KindCancelled); now.Progress == nil || now.Run != e.Run {
		t.Errorf("the last run, which nobody called off, was: %+v", now)
	}
}

// However long a run takes, and however many processes hear the clock, one scheduled
// request waits.
func TestTicksDoNotPileUp(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "often", From: "dir:DIR/src", To: "dir:DIR/dst", Every: event.Duration(time.Second)})
	w.tree("src", 2)
	lease := w.lease("often", "long")
	for _, name := range []string{"a", "b"} {
		w.machine(name)
	}
	for until := time.Now().Add(4 * time.Second); time.Now().Before(until); {
		var err error
		lease, err = w.me.TakeMirrorLease(t.Context(), lease, lease.Run)
		must(t, err)
	}
	// Its requests and what is told of it lie in one stream, from 1 on: the first came first.
	if last, waits, err := w.me.MirrorRequested(t.Context(), fleet.Scheduler, "often"); err != nil || !waits || last.Seq != 1 {
		t.Errorf("the last scheduled request is %+v, %v, %v", last, waits, err)
	}
	_, err := w.me.TakeMirrorLease(t.Context(), lease, "")
	must(t, err)
	_, seq := w.await("often", 0, fleet.KindFinished)
	w.await("often", seq, fleet.KindFinished) // and then it goes on
}

func TestAStalledRunRaisesTheAlarm(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1, Stalled: event.Duration(time.Second)})
	w.heavy()
	w.start()
	w.ask("slow", "")
	e, _ := w.await("slow", 0, fleet.KindStalled)
	if !strings.Contains(e.Reason, "no progress") || e.Progress == nil {
		t.Errorf("the alarm says %+v", e)
	}
}

func TestAScheduleRunsByItself(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "often", From: "dir:DIR/src", To: "dir:DIR/dst", Every: event.Duration(time.Second)})
	w.tree("src", 20)
	w.start()
	e, seq := w.await("often", 0, fleet.KindFinished)
	if e.By != "schedule" {
		t.Errorf("asked by %q", e.By)
	}
	w.await("often", seq, fleet.KindFinished)
	w.same("src", "dst")
}

func TestRequestsThatCannotBeMetAreRejectedWithTheReason(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.start()
	last := func() uint64 {
		r, _, err := w.me.LastMirror(t.Context(), "out")
		must(t, err)
		return r.Seq
	}
	for body, want := range map[string]string{
		`{"check": "maybe"}`:  `check: "maybe" is unknown: use auto`,
		`{"Chek": "listing"}`: `unknown field "Chek"`,
		`[]`:                  `the request is not as it should be`,
		`{} {}`:               `goes on behind its end`,
		`{"dryRun": "yes"}`:   `dryRun`,
	} {
		after := last()
		w.ask("out", body)
		if e, _ := w.await("out", after, fleet.KindRejected); !strings.Contains(e.Reason, want) {
			t.Errorf("%s: rejected because %q, want %q", body, e.Reason, want)
		}
	}
	w.ask("none", "")
	if e, _ := w.await("none", 0, fleet.KindRejected); !strings.Contains(e.Reason, "spec.mirrors") {
		t.Errorf("an unknown mirror: %q", e.Reason)
	}
	// The source is not there.
	after := last()
	w.ask("out", "")
	if e, _ := w.await("out", after, fleet.KindFailed); !strings.Contains(e.Reason, "src") {
		t.Errorf("a missing source: %q", e.Reason)
	}
}
