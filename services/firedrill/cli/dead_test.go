package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// requests is the work queue that the test plays a worker of.
const requests = "injector-requests"

// TestADeadLetterIsListedShownReplayedAndProcessed: one that was handed out as often as
// is tried and never finished, then one that cannot be read.
func TestADeadLetterIsListedShownReplayedAndProcessed(t *testing.T) {
	dir := serve(t)
	if did := command(t, dir, "dead", "list"); did.code != run.OK || !strings.HasPrefix(did.out, "no dead letters") {
		t.Errorf("none: %+v", did)
	}
	if did := command(t, dir, "dead", "list", "--json"); did.code != run.OK || did.out != "[]\n" {
		t.Errorf("none, as JSON: %+v", did)
	}
	b := worker(t, dir)
	if _, err := b.Publish(t.Context(), "drill.req.me.x", []byte("kind: Drill\n"), "mine"); err != nil {
		t.Fatal(err)
	}
	stopsWith(t, b, 5)
	var mended atomic.Bool
	done := make(chan bus.Message, 1)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Work(ctx, requests, bus.WorkOptions{}, func(_ context.Context, m bus.Message) error {
			if !mended.Load() {
				return bus.Poison(errors.New("cannot be read yet"))
			}
			done <- m
			return nil
		})
	}()
	defer func() {
		stop()
		<-ended
	}()
	first := aLetter(t, dir, 0)
	if first.Tries != 6 || first.Subject != "drill.req.me.x" || first.Work != requests || !strings.Contains(first.Reason, "handed out 5 times, and no worker finished it") {
		t.Errorf("%+v", first)
	}
	id := func(l letter) string { return string(must(t)(json.Marshal(l.ID))) }
	if did := command(t, dir, "dead", "show", id(first)); did.code != run.OK || !strings.Contains(did.out, "\nkind: Drill\n") || !strings.Contains(did.out, "handed out 5 times") {
		t.Errorf("show: %+v", did)
	}
	if did := command(t, dir, "dead", "replay", id(first)); did.code != run.OK || !strings.Contains(did.out, "is handed out again") {
		t.Fatalf("replay: %+v", did)
	}
	second := aLetter(t, dir, first.ID)
	if second.Reason != "cannot be read yet" || second.Sequence != first.Sequence {
		t.Errorf("it failed again: %+v", second)
	}
	mended.Store(true)
	if did := command(t, dir, "dead", "replay", id(second)); did.code != run.OK {
		t.Fatalf("replay: %+v", did)
	}
	select {
	case m := <-done:
		if m.Subject != "drill.req.me.x" || string(m.Data) != "kind: Drill\n" || m.Header.Get("Nats-Msg-Id") != "mine" {
			t.Errorf("it was processed as %+v", m)
		}
	case <-time.After(time.Minute):
		t.Fatal("it was not processed")
	}
	if did := command(t, dir, "dead", "list"); did.code != run.OK || !strings.HasPrefix(did.out, "no dead letters") {
		t.Errorf("afterwards: %+v", did)
	}
	for _, verb := range []string{"show", "replay", "drop"} {
		did := command(t, dir, "dead", verb, id(second))
		if did.code != run.BadArguments || !strings.Contains(did.errs, id(second)+": there is no such dead letter, or not any more") || strings.Contains(did.errs, "JetStream") {
			t.Errorf("%s of one that is gone: %+v", verb, did)
		}
		if did := command(t, dir, "dead", verb, "x"); did.code != run.BadArguments || !strings.Contains(did.errs, `"x": this is no id of a dead letter`) {
			t.Errorf("%s x: %+v", verb, did)
		}
	}
}

// TestADroppedLetterIsGone, and its message stays.
func TestADroppedLetterIsGone(t *testing.T) {
	dir := serve(t)
	b := worker(t, dir)
	ack, err := b.Publish(t.Context(), "drill.req.me.x", []byte("\xff\x00"), "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Work(ctx, requests, bus.WorkOptions{}, func(context.Context, bus.Message) error {
			return bus.Poison(errors.New("never"))
		})
	}()
	defer func() {
		stop()
		<-ended
	}()
	l := aLetter(t, dir, 0)
	id := string(must(t)(json.Marshal(l.ID)))
	if did := command(t, dir, "dead", "show", id); did.code != run.OK || !strings.Contains(did.out, "(2 bytes that are no text: --json prints them in base64)") {
		t.Errorf("show: %+v", did)
	}
	var shown letter
	if did := command(t, dir, "dead", "show", "--json", id); json.Unmarshal([]byte(did.out), &shown) != nil || string(shown.Bytes) != "\xff\x00" || shown.Text != "" {
		t.Errorf("show as JSON: %+v", did)
	}
	if did := command(t, dir, "dead", "drop", id); did.code != run.OK || did.out != "dead letter "+id+" is gone\n" {
		t.Errorf("drop: %+v", did)
	}
	if did := command(t, dir, "dead", "list"); !strings.HasPrefix(did.out, "no dead letters") {
		t.Errorf("afterwards: %+v", did)
	}
	if r, err := b.RequestAt(t.Context(), ack.Seq); err != nil || string(r.Data) != "\xff\x00" {
		t.Errorf("its message: %+v, %v", r, err)
	}
}

// TestADeadLetterDoesNotSteerTheTerminal: whoever may ask for a drill may write any
// bytes. JSON has them all.
func TestADeadLetterDoesNotSteerTheTerminal(t *testing.T) {
	const raw = "a:\tb\r\n\x1b[2Jc\u009bd\u202ee\n"
	d := bus.DeadLetter{Seq: 1, Durable: requests, Subject: "drill.req.\x1b[2J.x", Reason: "no\rsuch\nfield\t\x1b", Header: map[string][]string{"K\x1b": {"v\x1b\u202e"}}, Data: []byte(raw)}
	var list, show bytes.Buffer
	if err := printDead(&list, []bus.DeadLetter{d}); err != nil {
		t.Fatal(err)
	}
	printLetter(&show, d)
	for _, said := range []string{list.String(), show.String()} {
		if strings.ContainsAny(said, "\x1b\r\u009b\u202e") || !strings.Contains(said, "drill.req.\ufffd[2J.x") || !strings.Contains(said, "no\ufffdsuch\ufffdfield\ufffd\ufffd") {
			t.Errorf("it says %q", said)
		}
	}
	if !strings.Contains(show.String(), "\na:\tb\ufffd\n\ufffd[2Jc\ufffdd\ufffde\n") {
		t.Errorf("the message: %q", show.String())
	}
	if l := withData(d); l.Text != raw || l.Reason != d.Reason {
		t.Errorf("as JSON: %+v", l)
	}
}

// must fails the test on an error.
func must(t *testing.T) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// aLetter waits for the one dead letter that is not the given one.
func aLetter(t *testing.T, dir string, not uint64) letter {
	t.Helper()
	limit, tick := time.After(time.Minute), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		did := command(t, dir, "dead", "list", "--json")
		var all []letter
		if err := json.Unmarshal([]byte(did.out), &all); err != nil || did.code != run.OK || len(all) > 1 && not == 0 {
			t.Fatalf("%+v: %v", did, err)
		}
		if len(all) == 1 && all[0].ID != not {
			return all[0]
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("no dead letter")
		}
	}
}

// worker connects as the injector to a server of serve.
func worker(t *testing.T, dir string) *bus.Bus {
	t.Helper()
	rec, ok := allinone.ReadRecord(dir)
	ring, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	b, err := bus.Connect(t.Context(), bus.Options{URL: rec.NATSURL, Keyring: ring.Keyring, Log: slog.New(slog.DiscardHandler),
		Identity: bus.Identity{Service: event.Injector, Instance: "worker", Clock: clock.System()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// stopsWith hands a message to workers that are stopped in the midst of it.
func stopsWith(t *testing.T, b *bus.Bus, workers int) {
	t.Helper()
	for range workers {
		ctx, stop := context.WithCancel(t.Context())
		err := b.Work(ctx, requests, bus.WorkOptions{}, func(ctx context.Context, _ bus.Message) error {
			stop()
			return ctx.Err()
		})
		stop()
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}
