package mirror_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/mirror"
	"github.com/firedrill/firedrill/services/mirror/tree"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// nats-server starts these once a process and never ends them.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

func TestParseLocation(t *testing.T) {
	for in, want := range map[string]mirror.Location{
		"dir:/var/lib/x":     {Scheme: "dir", Path: "/var/lib/x"},
		"dir:/var//lib/./x/": {Scheme: "dir", Path: "/var/lib/x"},
		"dir:/a:b":           {Scheme: "dir", Path: "/a:b"},
	} {
		got, err := mirror.ParseLocation(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
		if again, err := mirror.ParseLocation(got.String()); err != nil || again != got {
			t.Errorf("%q does not read back: %+v, %v", got, again, err)
		}
	}
	for _, in := range []string{"", "/var/lib", "dir:", "dir:relative", "dir:../x", "dir:/", "dir:/x/..", "s3:bucket", "dir:/a\x00b", "DIR:/x"} {
		if got, err := mirror.ParseLocation(in); !errors.Is(err, mirror.ErrLocation) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

// play is one drill whose injector is the test.
type play struct {
	t      *testing.T
	server *bus.Embedded
	keys   *keys.Set
	inject *bus.Bus
}

const (
	id   = "d-1"
	step = "p/keep/wal"
)

func newPlay(t *testing.T) *play {
	t.Helper()
	dir := t.TempDir()
	set, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(dir, "nats"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	p := &play{t: t, server: server, keys: set}
	p.inject = p.connect(event.Injector, "i1")
	if err := p.inject.Bootstrap(t.Context(), bus.BootstrapOptions{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	p.say(event.TypeDrillAccepted, event.DrillAccepted{Requester: "me", Spec: json.RawMessage(`{}`)})
	return p
}

func (p *play) connect(service, instance string) *bus.Bus {
	p.t.Helper()
	signer, err := p.keys.Signer(service)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := bus.Connect(p.t.Context(), bus.Options{
		Embedded: p.server, Keyring: p.keys.Keyring, Log: slog.New(slog.DiscardHandler),
		Identity: bus.Identity{Service: service, Instance: instance, Signer: signer, Clock: clock.System()},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(b.Close)
	return b
}

func (p *play) mirror(instance string) { p.mirrorUntil(p.t.Context(), instance, clock.System()) }

// mirrorUntil runs a worker until ctx or the test ends; ended is closed then.
func (p *play) mirrorUntil(ctx context.Context, instance string, k target.Clock) (ended <-chan struct{}) {
	p.t.Helper()
	return p.mirrorWithUntil(ctx, mirror.Config{Bus: p.connect(event.Mirror, instance), Clock: k})
}

func (p *play) mirrorWith(c mirror.Config) { p.mirrorWithUntil(p.t.Context(), c) }

func (p *play) mirrorWithUntil(ctx context.Context, c mirror.Config) (ended <-chan struct{}) {
	p.t.Helper()
	c.Log = slog.New(slog.NewTextHandler(p.t.Output(), nil))
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := mirror.Run(ctx, c); err != nil {
			p.t.Errorf("mirror: %v", err)
		}
	}()
	p.t.Cleanup(func() { cancel(); <-done })
	return done
}

func (p *play) say(t event.Type, data any) {
	p.t.Helper()
	if _, err := p.inject.Append(p.t.Context(), id, event.Draft{Type: t, Data: data}); err != nil {
		p.t.Fatalf("append %s: %v", t, err)
	}
}

// await waits for an event with a payload of type P that fits.
func await[P any](p *play, fits func(*P) bool) *P {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	var out *P
	err := p.inject.Follow(ctx, id, func(s bus.Stored) error {
		if x, ok := s.Payload.(*P); ok && (fits == nil || fits(x)) {
			out = x
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		p.t.Fatalf("no %T: %v", out, err)
	}
	return out
}

func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "000000010000000000000001"), []byte("wal"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "archive_status"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCopy(t *testing.T) {
	p := newPlay(t)
	p.mirror("m1")
	p.mirror("m2")
	from, to := source(t), filepath.Join(t.TempDir(), "kept")
	req := event.MirrorRequested{Step: step, From: "dir:" + from, To: "dir:" + to}
	for range 4 { // requests and deliveries may repeat
		p.say(event.TypeMirrorRequested, req)
	}
	got := await[event.MirrorCompleted](p, nil)
	if got.Step != step || got.Files != 1 || got.Bytes != 3 || got.Verified != tree.Level4 || got.Ended.Mono < got.Began.Mono {
		t.Fatalf("%+v", got)
	}
	if _, root, err := tree.ReadManifest(got.Manifest); err != nil || root != got.Root {
		t.Fatalf("manifest root %s, event %s, %v", root, got.Root, err)
	}
	if b, err := os.ReadFile(filepath.Join(to, "000000010000000000000001")); err != nil || string(b) != "wal" {
		t.Fatalf("%q, %v", b, err)
	}
	// Work on another step shows that the repeated requests were seen.
	p.say(event.TypeMirrorRequested, event.MirrorRequested{Step: "p/keep/other", From: "dir:" + from, To: "dir:" + to + "2"})
	await(p, func(c *event.MirrorCompleted) bool { return c.Step == "p/keep/other" })
	h, err := p.inject.History(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range h {
		if s.Event.Service() == event.Mirror {
			n++
		}
	}
	if n != 2 {
		t.Fatalf("%d answers to two steps", n)
	}
}

// A mirror of the inventory is run as a step of a drill, by the fleet and by a process
// alone.
func TestAMirrorIsAStep(t *testing.T) {
	t.Run("fleet", func(t *testing.T) { mirrorAsStep(t, false) })
	t.Run("single", func(t *testing.T) { mirrorAsStep(t, true) })
}

func mirrorAsStep(t *testing.T, single bool) {
	p := newPlay(t)
	from, to := source(t), filepath.Join(t.TempDir(), "copy")
	later := drill.MirrorDeletes{Scans: 1, MostPercent: 100}
	var inv drill.Inventory
	inv.Spec.Mirrors = []drill.Mirror{
		{Name: "wal", From: "dir:" + from, To: "dir:" + to, Deletes: later},
		{Name: "broken", From: "dir:" + from + "/nothing", To: "dir:" + to + "2", Deletes: later},
	}
	p.mirrorWith(mirror.Config{Bus: p.connect(event.Mirror, "m1"), Clock: clock.System(), Inventory: inv, StateDir: t.TempDir(), Single: single})
	ask := func(step, name string) {
		p.say(event.TypeMirrorRequested, event.MirrorRequested{Step: step, Mirror: name})
	}
	ask(step, "wal")
	got := await[event.MirrorCompleted](p, nil)
	if got.Step != step || got.Files != 1 || got.Bytes != 3 || got.Root == "" || got.Verified != "" || got.Ended.Mono < got.Began.Mono {
		t.Fatalf("%+v", got)
	}
	if b, err := os.ReadFile(filepath.Join(to, "000000010000000000000001")); err != nil || string(b) != "wal" {
		t.Fatalf("%q, %v", b, err)
	}
	// Somebody wipes the copy: a drill that keeps it looks, and does not believe.
	if err := os.Remove(filepath.Join(to, "000000010000000000000001")); err != nil {
		t.Fatal(err)
	}
	ask("p/keep/again", "wal")
	again := await(p, func(c *event.MirrorCompleted) bool { return c.Step == "p/keep/again" })
	if _, err := os.Stat(filepath.Join(to, "000000010000000000000001")); err != nil || again.Files != 1 {
		t.Errorf("a wiped copy was kept as %+v: %v", again, err)
	}
	for name, want := range map[string]string{"broken": "nothing", "unknown": "no mirror of that name"} {
		ask("p/keep/"+name, name)
		failed := await(p, func(f *event.MirrorFailed) bool { return f.Step == "p/keep/"+name })
		if !strings.Contains(failed.Reason, want) || !strings.Contains(failed.Reason, "mirror "+name) {
			t.Errorf("%s: %s", name, failed.Reason)
		}
	}
}

// A drill that is over gives up the runs that it waited for, and other drills have
// their turn.
func TestARunIsNotWaitedForWhenTheDrillIsOver(t *testing.T) {
	p := newPlay(t)
	p.mirrorWith(mirror.Config{Bus: p.connect(event.Mirror, "m1"), Clock: clock.System(), Jobs: 1}) // nobody runs mirrors
	asked := event.MirrorRequested{Step: step, Mirror: "wal"}
	p.say(event.TypeMirrorRequested, asked)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// It waits by now: the request for the mirror is the first message of its stream.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for seq := uint64(0); seq == 0; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the mirror was not asked for")
		}
		last, _, err := p.inject.MirrorRequested(ctx, "drill", "wal")
		if seq = last.Seq; err != nil {
			t.Fatal(err)
		}
	}
	p.say(event.TypeDrillFinished, event.DrillFinished{})
	const other = "d-2"
	from := source(t)
	for _, d := range []event.Draft{
		{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Requester: "me", Spec: json.RawMessage(`{}`)}},
		{Type: event.TypeMirrorRequested, Data: event.MirrorRequested{Step: step, From: "dir:" + from, To: "dir:" + filepath.Join(t.TempDir(), "kept")}},
	} {
		if _, err := p.inject.Append(t.Context(), other, d); err != nil {
			t.Fatal(err)
		}
	}
	err := p.inject.Follow(ctx, other, func(s bus.Stored) error {
		if _, ok := s.Payload.(*event.MirrorCompleted); ok {
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		t.Fatalf("the other drill's copy: %v", err)
	}
}

func TestFailuresAreAnswers(t *testing.T) {
	from := source(t)
	cases := map[string]struct {
		from, to, want string
	}{
		"missing source": {"dir:" + from + "/none", "dir:" + t.TempDir() + "/x", "no source directory"},
		"empty source":   {"dir:" + t.TempDir(), "dir:" + t.TempDir() + "/x", "empty"},
		"overlap":        {"dir:" + from, "dir:" + from + "/x", "overlap"},
		"scheme":         {"s3:bucket", "dir:" + t.TempDir() + "/x", "s3"},
		"relative":       {"dir:" + from, "dir:x", "absolute"},
		"a file":         {"dir:" + from, "dir:" + from + "/000000010000000000000001", "overlap"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t)
			p.say(event.TypeMirrorRequested, event.MirrorRequested{Step: step, From: c.from, To: c.to})
			p.mirror("m1")
			if got := await[event.MirrorFailed](p, nil); got.Step != step || !strings.Contains(got.Reason, c.want) {
				t.Fatalf("%+v", got)
			}
		})
	}
}

// lastReading is a clock that ends its worker when it is read for the second time:
// the copy is made, and not answered for yet.
type lastReading struct {
	target.Clock
	read atomic.Int32
	end  func()
}

func (c *lastReading) Now() event.Reading {
	if c.read.Add(1) == 2 {
		c.end()
	}
	return c.Clock.Now()
}

// TestARequestThatIsHandedOutAgain: the next worker finds what the one before it
// copied, and goes on with it.
func TestARequestThatIsHandedOutAgain(t *testing.T) {
	p := newPlay(t)
	to := filepath.Join(t.TempDir(), "kept")
	ctx, cancel := context.WithCancel(t.Context())
	ended := p.mirrorUntil(ctx, "m1", &lastReading{Clock: clock.System(), end: cancel})
	p.say(event.TypeMirrorRequested, event.MirrorRequested{Step: step, From: "dir:" + source(t), To: "dir:" + to})
	<-ended
	if b, err := os.ReadFile(to + tree.JobSuffix); err != nil || !strings.HasPrefix(string(b), id+"/"+step+" ") {
		t.Fatalf("whose copy it is: %q, %v", b, err)
	}
	p.mirror("m2")
	if got := await[event.MirrorCompleted](p, nil); got.Step != step || got.Files != 1 {
		t.Fatalf("%+v", got)
	}
}

// TestADrillIDThatIsGivenAgain: after the store was lost, another drill has the
// number of one whose copy was interrupted. It leaves that one's evidence alone.
func TestADrillIDThatIsGivenAgain(t *testing.T) {
	to := filepath.Join(t.TempDir(), "kept")
	lost := newPlay(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := lost.mirrorUntil(ctx, "m1", &lastReading{Clock: clock.System(), end: cancel})
	lost.say(event.TypeMirrorRequested, event.MirrorRequested{Step: step, From: "dir:" + source(t), To: "dir:" + to})
	<-ended
	from := source(t)
	if err := os.WriteFile(filepath.Join(from, "000000010000000000000001"), []byte("the new drill's"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPlay(t)
	p.mirror("m1")
	p.say(event.TypeMirrorRequested, event.MirrorRequested{Step: step, From: "dir:" + from, To: "dir:" + to})
	got := answerTo(p)
	if failed, ok := got.(*event.MirrorFailed); !ok || !strings.Contains(failed.Reason, "not empty") {
		t.Errorf("answered %+v", got)
	}
	if b, err := os.ReadFile(filepath.Join(to, "000000010000000000000001")); err != nil || string(b) != "wal" {
		t.Errorf("the old drill's evidence is %q now, %v", b, err)
	}
}

// answerTo waits for whatever answer a request gets.
func answerTo(p *play) (answer any) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	err := p.inject.Follow(ctx, id, func(s bus.Stored) error {
		switch s.Payload.(type) {
		case *event.MirrorCompleted, *event.MirrorFailed:
			answer = s.Payload
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		p.t.Fatalf("no answer: %v", err)
	}
	return answer
}

// TestWhatLiesInTheWayIsKept: the answer names the place and the way out.
func TestWhatLiesInTheWayIsKept(t *testing.T) {
	p := newPlay(t)
	to := source(t)
	precious := filepath.Join(to, "000000010000000000000001")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.mirror("m1")
	p.say(event.TypeMirrorRequested, event.MirrorRequested{Step: step, From: "dir:" + source(t), To: "dir:" + to})
	if got := await[event.MirrorFailed](p, nil); !strings.Contains(got.Reason, "the destination is not empty: "+to) || !strings.Contains(got.Reason, "{drill}") {
		t.Errorf("%+v", got)
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
		t.Errorf("it is %q now, %v", b, err)
	}
}

// TestFinishedDrill: nobody waits for a copy of a drill that is over.
func TestFinishedDrill(t *testing.T) {
	p := newPlay(t)
	to := filepath.Join(t.TempDir(), "kept")
	p.say(event.TypeMirrorRequested, event.MirrorRequested{Step: step, From: "dir:" + source(t), To: "dir:" + to})
	p.say(event.TypeDrillFinished, event.DrillFinished{})
	_, err := p.inject.Append(t.Context(), "d-2", event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Requester: "me", Spec: json.RawMessage(`{}`)}},
		event.Draft{Type: event.TypeMirrorRequested, Data: event.MirrorRequested{Step: step, From: "dir:/none", To: "dir:/tmp/none"}})
	if err != nil {
		t.Fatal(err)
	}
	p.mirror("m1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = p.inject.Follow(ctx, "d-2", func(s bus.Stored) error {
		if s.Event.Type == event.TypeMirrorFailed {
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("a finished drill's copy was made")
	}
}
