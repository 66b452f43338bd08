package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestAppendAtChainsAndConflicts(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	first, err := b.AppendAt(t.Context(), "d1", bus.Tail{}, accepted(), phase(1), phase(2))
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != 3 || first[2].Event.ChainIndex != 3 || first[2].Seq != first[0].Seq+2 {
		t.Fatalf("a batch of three gave %d events, the last at index %d", len(first), first[len(first)-1].Event.ChainIndex)
	}
	if p, ok := first[1].Payload.(*event.PhaseStarted); !ok || p.Phase != "p1" {
		t.Fatalf("payload is %#v", first[1].Payload)
	}
	_, err = b.AppendAt(t.Context(), "d1", bus.Tail{}, accepted())
	var conflict *bus.ConflictError
	if !errors.Is(err, bus.ErrConflict) || !errors.As(err, &conflict) {
		t.Fatalf("append at a passed place: %v, want ErrConflict", err)
	}
	if conflict.Last != first[2].Seq {
		t.Errorf("the conflict names sequence %d, want %d", conflict.Last, first[2].Seq)
	}
	_, err = b.AppendAt(t.Context(), "d1", first[0].Tail(), phase(7), phase(8))
	if !errors.Is(err, bus.ErrConflict) {
		t.Fatalf("batch at a passed place: %v, want ErrConflict", err)
	}
	if _, err := b.AppendAt(t.Context(), "d1", first[2].Tail(), phase(3)); err != nil {
		t.Fatal(err)
	}
	history := mustVerify(t, b, w.ring, "d1", 4)
	for i, s := range history[:3] {
		if s.Tail() != first[i].Tail() || string(s.Raw) != string(first[i].Raw) {
			t.Errorf("event %d reads back differently from what the append returned", i)
		}
	}
}

func TestAppendRefusesWhatCannotBeAnEvent(t *testing.T) {
	w := newWorld(t)
	injector, cli := w.connect(event.Injector), w.connect("cli")
	for name, tc := range map[string]struct {
		b     *bus.Bus
		drill string
		draft event.Draft
		want  string
	}{
		"no signer":       {cli, "d", accepted(), "signing key"},
		"wildcard drill":  {injector, "d.>", accepted(), "drill"},
		"empty drill":     {injector, "", accepted(), "drill"},
		"other's type":    {injector, "d", outage(1), "only the observer writes"},
		"unknown type":    {injector, "d", event.Draft{Type: "no.such", Data: 1}, "table of types"},
		"wrong payload":   {injector, "d", event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseFinished{}}, "want event.PhaseStarted"},
		"nil payload":     {injector, "d", event.Draft{Type: event.TypePhaseStarted}, "payload"},
		"beyond the size": {injector, "d", event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: strings.Repeat("x", 2<<20)}}, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tc.b.Append(t.Context(), tc.drill, tc.draft)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
	if _, err := injector.Append(t.Context(), "d"); err == nil {
		t.Error("an append of nothing succeeded")
	}
	if _, err := injector.History(t.Context(), "d"); !errors.Is(err, bus.ErrNoDrill) {
		t.Errorf("something was stored: %v", err)
	}
}

func TestEightWritersOneChain(t *testing.T) {
	w := newWorld(t)
	const writers, each = 8, 40
	var wg sync.WaitGroup
	for i := range writers {
		service, draft := event.Injector, phase
		if i%2 == 1 {
			service, draft = event.Observer, outage
		}
		b := w.connect(service)
		wg.Go(func() {
			for n := 0; n < each; n += 2 {
				var err error
				if n%4 == 0 {
					_, err = b.Append(t.Context(), "d", draft(n), draft(n+1))
				} else if _, err = b.Append(t.Context(), "d", draft(n)); err == nil {
					_, err = b.Append(t.Context(), "d", draft(n+1))
				}
				if err != nil {
					t.Errorf("writer %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustVerify(t, w.connect("cli"), w.ring, "d", writers*each)
}

// TestTakeoverHasOneWinner is what fences a drill's conductor: of any number of
// writers at one place, exactly one is stored.
func TestTakeoverHasOneWinner(t *testing.T) {
	w := newWorld(t)
	a, b := w.connect(event.Injector), w.connect(event.Injector)
	at := bus.Tail{}
	for round := range 30 {
		var wins atomic.Int32
		won := make([]bus.Stored, 1)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for _, writer := range []*bus.Bus{a, b} {
			wg.Go(func() {
				<-start
				out, err := writer.AppendAt(t.Context(), "d", at, event.Draft{Type: event.TypeLeaseTaken, Data: event.LeaseTaken{Epoch: int64(round)}}, phase(round))
				switch {
				case err == nil:
					wins.Add(1)
					won[0] = out[1]
				case !errors.Is(err, bus.ErrConflict):
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		close(start)
		wg.Wait()
		if wins.Load() != 1 {
			t.Fatalf("round %d: %d writers won", round, wins.Load())
		}
		at = won[0].Tail()
	}
	mustVerify(t, a, w.ring, "d", 60)
}

func TestRowOfAppendsReadsTheTailOnce(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	if _, err := b.Append(t.Context(), "d", accepted()); err != nil {
		t.Fatal(err)
	}
	before := w.server.InMsgs()
	const n = 50
	for i := range n {
		if _, err := b.Append(t.Context(), "d", phase(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.server.InMsgs() - before; got != n {
		t.Errorf("%d appends in a row sent %d messages", n, got)
	}
	mustVerify(t, b, w.ring, "d", n+1)
}

// TestRestartLosesNothing restarts the server under writers again and again.
func TestRestartLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.server.Shutdown()
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir, Listen: "127.0.0.1:0"})
	address := strings.TrimPrefix(w.server.URL(), "nats://")
	follower := connect(t, bus.Options{URL: w.server.URL(), Identity: w.identity("cli", "f"), Keyring: w.ring})
	seen := make(chan bus.Stored, 10000)
	spawn(t, func(ctx context.Context) error {
		return follower.Follow(ctx, "d", func(s bus.Stored) error {
			seen <- s
			return nil
		})
	})
	b := connect(t, bus.Options{URL: w.server.URL(), Identity: w.identity(event.Injector, "i"), Keyring: w.ring})
	ackedIDs := make(chan string, 10000)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			out, err := b.Append(context.WithoutCancel(ctx), "d", phase(i), phase(i))
			if err != nil {
				t.Errorf("append %d: %v", i, err)
				return
			}
			for _, s := range out {
				ackedIDs <- s.Event.ID
			}
		}
	})
	for range 3 {
		await(t, ackedIDs, 20*time.Second, "acknowledged append")
		w.server.Shutdown()
		w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir, Listen: address})
	}
	await(t, ackedIDs, 20*time.Second, "acknowledged append")
	cancel()
	wg.Wait()
	close(ackedIDs)
	history := mustVerify(t, b, w.ring, "d", -1)
	stored := map[string]bool{}
	for i, s := range history {
		stored[s.Event.ID] = true
		if got := await(t, seen, 20*time.Second, fmt.Sprintf("followed event %d", i)); got.Event.ID != s.Event.ID {
			t.Fatalf("the follower saw %s in place of %s", got.Event.ID, s.Event.ID)
		}
	}
	for id := range ackedIDs {
		if !stored[id] {
			t.Errorf("acknowledged event %s is lost", id)
		}
	}
}

// TestAppendAfterAReplayedEvent: a copy of an earlier event at the end of the
// history verifies, but the chain does not go on from there.
func TestAppendAfterAReplayedEvent(t *testing.T) {
	w := newWorld(t)
	first, err := w.connect(event.Injector).AppendAt(t.Context(), "d1", bus.Tail{}, accepted(), phase(1), phase(2))
	if err != nil {
		t.Fatal(err)
	}
	w.raw(t, bus.EventSubject("d1", event.Injector, event.TypePhaseStarted), first[1].Raw)
	fresh := w.connect(event.Injector) // it has not followed the drill
	got, err := fresh.Append(t.Context(), "d1", phase(3))
	if err != nil {
		t.Fatal(err)
	}
	history, err := fresh.History(t.Context(), "d1")
	if err != nil {
		t.Fatal(err)
	}
	if len(history) != 5 || history[3].Trust == nil || history[4].Trust != nil || got[0].Event.ChainIndex != 4 {
		t.Fatalf("the copy: %v; the new event: index %d, %v", history[3].Trust, got[0].Event.ChainIndex, history[4].Trust)
	}
}
