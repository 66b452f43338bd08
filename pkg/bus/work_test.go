package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestWorkRedeliversAndAcks(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	got := make(chan bus.Message, 10)
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, "injector-requests", bus.WorkOptions{}, func(_ context.Context, m bus.Message) error {
			got <- m
			if m.Delivered < 2 {
				return errors.New("not yet")
			}
			return nil
		})
	})
	ack, err := b.Publish(t.Context(), "drill.req.me.x", []byte("one"), "id-1")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Publish(t.Context(), "drill.req.me.x", []byte("one"), "id-1"); err != nil || !again.Duplicate || again.Seq != ack.Seq {
		t.Fatalf("the same id again: %+v, %v; want a duplicate of %d", again, err, ack.Seq)
	}
	if _, err := b.Publish(t.Context(), "drill.req.me.y", []byte("two"), ""); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		data      string
		delivered int
	}{{"one", 1}, {"one", 2}, {"two", 1}, {"two", 2}} {
		m := await(t, got, 10*time.Second, "message")
		if string(m.Data) != want.data || m.Delivered != want.delivered {
			t.Fatalf("delivery %d is %q for the %d. time, want %q for the %d.", i, m.Data, m.Delivered, want.data, want.delivered)
		}
	}
	w.awaitPending(t, bus.StreamRequests, "injector-requests", 0) // what was told of is acknowledged after it
}

func TestSlowWorkIsNotHandedOutTwice(t *testing.T) {
	w := newWorld(t)
	w.setAckWait(t, bus.StreamRequests, "injector-requests", 300*time.Millisecond)
	b := w.connect(event.Injector)
	var calls atomic.Int32
	done := make(chan struct{})
	work := func(ctx context.Context, m bus.Message) error {
		calls.Add(1)
		timer := time.NewTimer(1500 * time.Millisecond)
		defer timer.Stop()
		<-timer.C
		close(done)
		return nil
	}
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, "injector-requests", bus.WorkOptions{Concurrency: 2}, work)
	})
	if _, err := b.Publish(t.Context(), "drill.req.me.x", []byte("slow"), ""); err != nil {
		t.Fatal(err)
	}
	await(t, done, 10*time.Second, "end of the slow work")
	w.awaitPending(t, bus.StreamRequests, "injector-requests", 0)
	if n := calls.Load(); n != 1 {
		t.Errorf("the message was handed out %d times in one piece of work of 5 x the ack wait", n)
	}
}

func TestPoisonBecomesDeadLetterAndIsReplayed(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Validator)
	injector := w.connect(event.Injector)
	var mended atomic.Bool
	done := make(chan bus.Stored, 1)
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, "validator-baselines", bus.WorkOptions{}, func(_ context.Context, m bus.Message) error {
			if !mended.Load() {
				return bus.Poison(errors.New("cannot read\nthis"))
			}
			s, err := m.Event()
			if err != nil {
				return err
			}
			done <- s
			return nil
		})
	})
	request := event.Draft{Type: event.TypeBaselineRequested, Data: event.BaselineRequested{Step: "p/baseline"}}
	sent, err := injector.Append(t.Context(), "d", accepted(), request)
	if err != nil {
		t.Fatal(err)
	}
	letter := w.awaitDead(t, b, 1)[0]
	if letter.Durable != "validator-baselines" || letter.Original != sent[1].Seq || letter.Delivered != 1 ||
		letter.Reason != "cannot read this" || letter.Subject != "drill.evt.d.injector.baseline-requested" {
		t.Fatalf("dead letter is %+v", letter)
	}
	mended.Store(true)
	if err := b.ReplayDead(t.Context(), letter.Seq); err != nil {
		t.Fatal(err)
	}
	s := await(t, done, 10*time.Second, "replayed message")
	if s.Seq != sent[1].Seq || s.Event.ID != sent[1].Event.ID || s.Stored.IsZero() {
		t.Errorf("the replayed message is %d %s, want the original", s.Seq, s.Event.ID)
	}
	w.awaitDead(t, b, 0)
	if err := b.ReplayDead(t.Context(), letter.Seq); !errors.Is(err, bus.ErrNoDeadLetter) {
		t.Errorf("a second replay: %v, want ErrNoDeadLetter", err)
	}
	w.awaitPending(t, bus.StreamRetry, "validator-baselines-retry", 0)
}

func TestReplayThatFailsAgainIsANewDeadLetter(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, "injector-requests", bus.WorkOptions{}, func(context.Context, bus.Message) error {
			return bus.Poison(errors.New("never"))
		})
	})
	if _, err := b.Publish(t.Context(), "drill.req.me.x", []byte("bad"), "mine"); err != nil {
		t.Fatal(err)
	}
	first := w.awaitDead(t, b, 1)[0]
	if err := b.ReplayDead(t.Context(), first.Seq); err != nil {
		t.Fatal(err)
	}
	var second bus.DeadLetter
	eventually(t, 10*time.Second, "a new dead letter", func() bool {
		letters, err := b.DeadLetters(t.Context())
		if err != nil || len(letters) != 1 {
			return false
		}
		second = letters[0]
		return second.Seq != first.Seq
	})
	if second.Subject != "drill.req.me.x" || string(second.Data) != "bad" || second.Original != first.Original ||
		second.Header.Get(nats.MsgIdHdr) != "mine" {
		t.Errorf("the second dead letter is %+v", second)
	}
}

// Dead letters that are tried again do not wait for each other, as the messages did not.
func TestReplayedLettersDoNotWaitForEachOther(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Mirror)
	var mended atomic.Bool
	begun := make(chan string, 2)
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, bus.MirrorRequests, bus.WorkOptions{Concurrency: 2}, func(ctx context.Context, m bus.Message) error {
			if !mended.Load() {
				return bus.Poison(errors.New("never"))
			}
			begun <- m.Subject
			<-ctx.Done()
			return ctx.Err()
		})
	})
	for _, name := range []string{"one", "two"} {
		if _, err := b.Publish(t.Context(), "mirror.req.me."+name, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	letters := w.awaitDead(t, b, 2)
	mended.Store(true)
	for _, l := range letters {
		if err := b.ReplayDead(t.Context(), l.Seq); err != nil {
			t.Fatal(err)
		}
	}
	first := await(t, begun, 10*time.Second, "the first")
	if second := await(t, begun, 10*time.Second, "the second"); second == first {
		t.Errorf("%s was handed out twice", first)
	}
}

// TestFailingWorkGivesUp tries five times, then buries the message.
func TestFailingWorkGivesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.connect(event.Reporter)
	injector := w.connect(event.Injector)
	var calls atomic.Int32
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, "reporter-finished", bus.WorkOptions{}, func(context.Context, bus.Message) error {
			calls.Add(1)
			return errors.New("the disk is full")
		})
	})
	if _, err := injector.Append(t.Context(), "d", accepted(), finished()); err != nil {
		t.Fatal(err)
	}
	var letters []bus.DeadLetter
	eventually(t, time.Minute, "dead letter", func() bool {
		var err error
		letters, err = b.DeadLetters(t.Context())
		return err == nil && len(letters) == 1
	})
	if calls.Load() != 5 || letters[0].Delivered != 5 || letters[0].Reason != "the disk is full" {
		t.Errorf("%d calls, dead letter %+v", calls.Load(), letters[0])
	}
}

// TestCrashLoopIsBuried plays workers that take the message and die.
func TestCrashLoopIsBuried(t *testing.T) {
	w := newWorld(t)
	w.setAckWait(t, bus.StreamRequests, "injector-requests", 100*time.Millisecond)
	b := w.connect(event.Injector)
	if _, err := b.Publish(t.Context(), "drill.req.me.x", []byte("kills"), ""); err != nil {
		t.Fatal(err)
	}
	w.takeAndDie(t, bus.StreamRequests, "injector-requests", 5)
	called := make(chan bus.Message, 1)
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, "injector-requests", bus.WorkOptions{}, func(_ context.Context, m bus.Message) error {
			called <- m
			return nil
		})
	})
	letter := w.awaitDead(t, b, 1)[0]
	if !strings.Contains(letter.Reason, "5 times") || string(letter.Data) != "kills" {
		t.Errorf("dead letter is %+v", letter)
	}
	select {
	case m := <-called:
		t.Errorf("the worker was given the message that kills workers: %+v", m)
	default:
	}
	w.awaitPending(t, bus.StreamRequests, "injector-requests", 0)
}

// TestWorkIsShared gives each message to one of several workers.
func TestWorkIsShared(t *testing.T) {
	w := newWorld(t)
	injector := w.connect(event.Injector)
	const n = 40
	var mu sync.Mutex
	seen := map[uint64]int{}
	all := make(chan struct{})
	for range 3 {
		b := w.connect(event.Mirror)
		spawn(t, func(ctx context.Context) error {
			return b.Work(ctx, "mirror-jobs", bus.WorkOptions{Concurrency: 2}, func(_ context.Context, m bus.Message) error {
				mu.Lock()
				defer mu.Unlock()
				seen[m.Seq]++
				if len(seen) == n {
					close(all)
				}
				return nil
			})
		})
	}
	for i := range n {
		d := event.Draft{Type: event.TypeMirrorRequested, Data: event.MirrorRequested{Step: fmt.Sprint(i)}}
		if _, err := injector.Append(t.Context(), "d", d); err != nil {
			t.Fatal(err)
		}
	}
	await(t, all, 20*time.Second, "end of the work")
	w.awaitPending(t, bus.StreamDrills, "mirror-jobs", 0)
	mu.Lock()
	defer mu.Unlock()
	for seq, times := range seen {
		if times != 1 {
			t.Errorf("message %d was handed out %d times", seq, times)
		}
	}
}

// TestForgedEventIsSeenByWorkers puts an unsigned message where an event lies.
func TestForgedEventIsSeenByWorkers(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Reporter)
	got := make(chan error, 1)
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, "reporter-finished", bus.WorkOptions{}, func(_ context.Context, m bus.Message) error {
			_, err := m.Event()
			got <- err
			return bus.Poison(err)
		})
	})
	w.raw(t, "drill.evt.d.injector.drill-finished", []byte(`{"specversion":"1.0"}`))
	if err := await(t, got, 10*time.Second, "message"); !errors.Is(err, bus.ErrUntrusted) {
		t.Fatalf("a forged event opens with %v, want ErrUntrusted", err)
	}
	w.awaitDead(t, b, 1)
}

func TestUnknownDurable(t *testing.T) {
	w := newWorld(t)
	err := w.connect("cli").Work(t.Context(), "no-such", bus.WorkOptions{}, func(context.Context, bus.Message) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "no-such") {
		t.Fatalf("got %v", err)
	}
}

func TestServeAndCall(t *testing.T) {
	w := newWorld(t)
	b, caller := w.connect(event.Injector), w.connect("cli")
	stop := spawn(t, func(ctx context.Context) error {
		return b.Serve(ctx, "injector", map[string]bus.Endpoint{
			"echo":      func(_ context.Context, data []byte) ([]byte, error) { return data, nil },
			"clock.i-1": func(context.Context, []byte) ([]byte, error) { return []byte("tick"), nil },
			"refuse":    func(context.Context, []byte) ([]byte, error) { return nil, errors.New("line 3: no\nsuch field") },
		})
	})
	eventually(t, 10*time.Second, "endpoint", func() bool {
		_, err := caller.Call(t.Context(), "refuse", nil)
		return !errors.Is(err, bus.ErrUnavailable)
	})
	for endpoint, want := range map[string]string{"echo": "hello", "clock.i-1": "tick"} {
		got, err := caller.Call(t.Context(), endpoint, []byte("hello"))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", endpoint, got, err, want)
		}
	}
	var refused *bus.CallError
	if _, err := caller.Call(t.Context(), "refuse", nil); !errors.As(err, &refused) || refused.Code != "400" || refused.Text != "line 3: no\nsuch field" {
		t.Errorf("refusal: %v", err)
	}
	if got := w.request(t, "$SRV.INFO.firedrill-injector"); !strings.Contains(got, "firedrill.api.clock.i-1") {
		t.Errorf("discovery says %s", got)
	}
	stop()
	eventually(t, 10*time.Second, "end of the service", func() bool {
		_, err := caller.Call(t.Context(), "echo", nil)
		return errors.Is(err, bus.ErrUnavailable)
	})
}

func TestCommandsHistoryThenLive(t *testing.T) {
	w := newWorld(t)
	b := w.connect("cli")
	for _, verb := range []string{"approve", "abort"} {
		if err := b.Command(t.Context(), "d1", verb, []byte(verb)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Command(t.Context(), "d2", "abort", nil); err != nil {
		t.Fatal(err)
	}
	one, all := make(chan string, 10), make(chan string, 10)
	for drill, ch := range map[string]chan string{"d1": one, "*": all} {
		spawn(t, func(ctx context.Context) error {
			return b.FollowCommands(ctx, drill, func(verb string, data []byte) error {
				ch <- verb + ":" + string(data)
				return nil
			})
		})
	}
	want := []string{"approve:approve", "abort:abort"}
	for _, x := range want {
		if got := await(t, one, 10*time.Second, "command"); got != x {
			t.Errorf("got %s, want %s", got, x)
		}
	}
	for range 3 {
		await(t, all, 10*time.Second, "command of all")
	}
	if err := b.Command(t.Context(), "d1", "hold", nil); err != nil {
		t.Fatal(err)
	}
	if got := await(t, one, 10*time.Second, "live command"); got != "hold:" {
		t.Errorf("live command is %s", got)
	}
	if err := b.Command(t.Context(), "d1.>", "abort", nil); err == nil {
		t.Error("a wildcard drill was accepted")
	}
}

func TestHalt(t *testing.T) {
	w := newWorld(t)
	b := w.connect("cli")
	states := make(chan bus.Halt, 10)
	watch := func(ctx context.Context) error { return b.WatchHalt(ctx, func(h bus.Halt) { states <- h }) }
	stop := spawn(t, watch)
	if h := await(t, states, 10*time.Second, "first state"); h.Halted {
		t.Fatalf("a new system is halted: %+v", h)
	}
	for _, halted := range []bool{true, false, true} {
		if err := b.SetHalt(t.Context(), bus.Halt{Halted: halted, By: "me", Reason: "why"}); err != nil {
			t.Fatal(err)
		}
		h := await(t, states, 10*time.Second, "change")
		if h.Halted != halted || h.By != "me" || h.At.IsZero() {
			t.Errorf("state is %+v", h)
		}
	}
	stop()
	spawn(t, watch)
	if h := await(t, states, 10*time.Second, "state after a new start"); !h.Halted || h.Reason != "why" {
		t.Errorf("state after a new start is %+v", h)
	}
	w.raw(t, "drill.halt", []byte("stop!!"))
	if h := await(t, states, 10*time.Second, "unreadable state"); !h.Halted {
		t.Error("an unreadable state does not halt")
	}
	if h, err := b.HaltState(t.Context()); err != nil || !h.Halted {
		t.Errorf("state %+v, %v", h, err)
	}
}

func TestResults(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	if err := b.PublishResult(t.Context(), "me", "x", map[string]int{"n": 1}); err != nil {
		t.Fatal(err)
	}
	var got []int
	err := w.connect("cli").FollowResults(t.Context(), "me", "x", func(data []byte) error {
		var r struct{ N int }
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		got = append(got, r.N)
		if len(got) == 1 {
			return b.PublishResult(t.Context(), "me", "x", map[string]int{"n": 2})
		}
		return bus.Stop
	})
	if err != nil || !slices.Equal(got, []int{1, 2}) {
		t.Errorf("results %v, %v", got, err)
	}
	if err := b.PublishResult(t.Context(), "me.>", "x", 1); err == nil {
		t.Error("a wildcard requester was accepted")
	}
}

// TestWhatWaitsForHoursKeepsNothingElseWaiting: requests for mirrors, of which many may wait at
// once, on a server that let only a few of them be under way; who is ready for many asks once.
func TestWhatWaitsForHoursKeepsNothingElseWaiting(t *testing.T) {
	w := newWorld(t)
	js := w.js(t)
	c, err := js.Consumer(t.Context(), bus.StreamMirror, bus.MirrorRequests)
	if err != nil {
		t.Fatal(err)
	}
	before := c.CachedInfo().Config
	before.MaxAckPending = 16
	if _, err := js.UpdateConsumer(t.Context(), bus.StreamMirror, before); err != nil {
		t.Fatal(err)
	}
	if err := w.connect("bootstrap").Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	const waiting = 100
	over := make(chan struct{})
	got := make(chan string, waiting+1)
	b := w.connect(event.Mirror)
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, bus.MirrorRequests, bus.WorkOptions{Concurrency: bus.MirrorRequestsAtOnce}, func(ctx context.Context, m bus.Message) error {
			got <- string(m.Data)
			select {
			case <-over:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	})
	for i := range waiting {
		if _, err := b.Publish(t.Context(), fmt.Sprintf("mirror.req.me.m%d", i), []byte(fmt.Sprint(i)), ""); err != nil {
			t.Fatal(err)
		}
		if m := await(t, got, 10*time.Second, "message"); m != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, m)
		}
	}
	eventually(t, 10*time.Second, "one that asks", func() bool {
		c, err := js.Consumer(t.Context(), bus.StreamMirror, bus.MirrorRequests)
		return err == nil && c.CachedInfo().NumWaiting == 1
	})
	close(over)
	w.awaitPending(t, bus.StreamMirror, bus.MirrorRequests, 0)
}
