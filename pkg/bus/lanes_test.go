package bus_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// crew works in lanes, and each of its messages waits until it is let go.
type crew struct {
	*world
	t   *testing.T
	bus *bus.Bus
	// begun has the lane of each message that is begun.
	begun chan string
	goOn  chan struct{}

	mu           sync.Mutex
	active, most map[string]int
}

func newCrew(t *testing.T, concurrency int, lanes ...bus.Lane) *crew {
	t.Helper()
	c := idleCrew(t)
	c.start(concurrency, lanes...)
	return c
}

// idleCrew does nothing before it is started.
func idleCrew(t *testing.T) *crew {
	t.Helper()
	w := newWorld(t)
	return &crew{world: w, t: t, bus: w.connect(event.Mirror), begun: make(chan string, 100), goOn: make(chan struct{}), active: map[string]int{}, most: map[string]int{}}
}

func (c *crew) start(concurrency int, lanes ...bus.Lane) {
	c.t.Helper()
	spawn(c.t, func(ctx context.Context) error {
		return c.bus.WorkLanes(ctx, bus.MirrorWork, lanes, bus.WorkOptions{Concurrency: concurrency}, c.work)
	})
}

func (c *crew) work(ctx context.Context, m bus.Message) error {
	at, err := bus.ReadMirrorWork(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	c.mu.Lock()
	c.active[at.Mirror]++
	c.most[at.Mirror] = max(c.most[at.Mirror], c.active[at.Mirror])
	c.mu.Unlock()
	c.begun <- at.Mirror
	select {
	case <-c.goOn:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active[at.Mirror]--
	return ctx.Err()
}

// put stores that many messages in a lane.
func (c *crew) put(lane string, from, n int) {
	c.t.Helper()
	for i := range n {
		must(c.t, "publish", c.bus.PublishMirrorWork(c.t.Context(), lane, "run", int64(from+i), []byte("item")))
	}
}

// await counts by their lanes the next n messages that are begun.
func (c *crew) await(n int) map[string]int {
	c.t.Helper()
	got := map[string]int{}
	for range n {
		got[await(c.t, c.begun, 20*time.Second, "message")]++
	}
	return got
}

// A lane's message does not wait for what is in another one, however long that takes.
func TestALaneIsNotKeptWaitingByAnother(t *testing.T) {
	c := newCrew(t, 2, bus.Lane{Name: "large"}, bus.Lane{Name: "small"})
	c.put("large", 0, 20)
	if got := c.await(2); got["large"] != 2 {
		t.Fatalf("at work: %v", got)
	}
	c.put("small", 0, 1)
	if got := c.await(1); got["small"] != 1 {
		t.Errorf("%v began before the small one", got)
	}
}

// All hands help in the one lane that has something to do, and share themselves where
// several have.
func TestHelpersGoWhereThereIsWork(t *testing.T) {
	c := newCrew(t, 4, bus.Lane{Name: "a"}, bus.Lane{Name: "b"}, bus.Lane{Name: "idle"})
	c.put("a", 0, 4)
	if got := c.await(4); got["a"] != 4 {
		t.Fatalf("at work: %v", got)
	}
	close(c.goOn)
	c.put("b", 0, 30)
	c.put("a", 100, 30)
	if got := c.await(60); got["a"] != 30 || got["b"] != 30 {
		t.Errorf("done: %v", got)
	}
}

// Where all lanes are busy, whoever is done goes where the fewest are at work.
func TestHelpersAreShared(t *testing.T) {
	c := idleCrew(t)
	c.put("a", 0, 20)
	c.put("b", 0, 20)
	c.start(4, bus.Lane{Name: "a"}, bus.Lane{Name: "b"})
	c.await(5) // each has its own worker, and three help
	for range 12 {
		c.goOn <- struct{}{}
		c.await(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most["a"] < 2 || c.most["b"] < 2 {
		t.Errorf("at work at once: %v", c.most)
	}
}

// A lane that was found empty gets help again, though its own worker is not done yet with
// what it had then.
func TestALaneThatWasEmptyIsLookedIntoAgain(t *testing.T) {
	c := idleCrew(t)
	goOn := make(chan struct{})
	spawn(t, func(ctx context.Context) error {
		return c.bus.WorkLanes(ctx, bus.MirrorWork, []bus.Lane{{Name: "a"}, {Name: "b"}}, bus.WorkOptions{Concurrency: 3}, func(ctx context.Context, m bus.Message) error {
			at, err := bus.ReadMirrorWork(m.Subject)
			if err != nil {
				return bus.Poison(err)
			}
			c.begun <- at.Mirror
			let := goOn
			if at.Mirror == "b" {
				let = nil // for ever
			}
			select {
			case <-let:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	c.put("b", 0, 1)
	if got := c.await(1); got["b"] != 1 {
		t.Fatalf("at work: %v", got)
	}
	c.put("a", 0, 10)
	if got := c.await(3); got["a"] != 3 { // for which the helpers left the other lane
		t.Fatalf("at work: %v", got)
	}
	c.put("b", 1, 1)
	over := time.After(20 * time.Second)
	for i := 10; ; i++ {
		select {
		case goOn <- struct{}{}:
		case <-over:
			t.Fatal("nobody helps in the lane that was empty")
		}
		c.put("a", i, 1)
		if got := c.await(1); got["b"] == 1 {
			return
		}
	}
}

func TestALaneHasNoMoreThanItsMost(t *testing.T) {
	c := newCrew(t, 4, bus.Lane{Name: "held", Most: 1}, bus.Lane{Name: "free"})
	c.put("held", 0, 10)
	c.await(1)
	c.put("free", 0, 4)
	if got := c.await(4); got["free"] != 4 {
		t.Fatalf("at work: %v", got)
	}
	for range 14 - 4 {
		c.goOn <- struct{}{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most["held"] != 1 {
		t.Errorf("%d of the lane were worked on at once", c.most["held"])
	}
}

// What nobody can do becomes a dead letter, and when it is tried again it is done.
func TestALanesDeadLettersAreReplayed(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Mirror)
	var mended atomic.Bool
	done := make(chan string, 1)
	spawn(t, func(ctx context.Context) error {
		return b.WorkLanes(ctx, bus.MirrorWork, []bus.Lane{{Name: "out"}}, bus.WorkOptions{}, func(_ context.Context, m bus.Message) error {
			if !mended.Load() {
				return bus.Poison(errors.New("cannot do this"))
			}
			done <- m.Subject
			return nil
		})
	})
	must(t, "publish", b.PublishMirrorWork(t.Context(), "out", "run", 1, nil))
	letter := w.awaitDead(t, b, 1)[0]
	mended.Store(true)
	must(t, "replay", b.ReplayDead(t.Context(), letter.Seq))
	if got := await(t, done, 10*time.Second, "replayed message"); got != "mirror.work.out.run.1" {
		t.Errorf("replayed %q", got)
	}
}

// A server that has forgotten a lane is told of it again, and what waits there is done.
func TestALaneIsMadeAgain(t *testing.T) {
	c := newCrew(t, 1, bus.Lane{Name: "out"})
	close(c.goOn)
	c.put("out", 0, 1)
	c.await(1)
	must(t, "delete the lane", c.js(t).DeleteConsumer(t.Context(), bus.StreamMirrorWork, bus.MirrorWork+"-out"))
	c.put("out", 1, 1)
	c.await(1)
}

// One queue for all, as an older release made it, makes room for lanes.
func TestLanesTakeThePlaceOfAQueue(t *testing.T) {
	w := newWorld(t)
	cfg := bus.Durable{Name: bus.MirrorWork, Filters: []string{"mirror.work.*.*.*"}}.Lane("*")
	cfg.Durable = bus.MirrorWork
	if _, err := w.js(t).CreateConsumer(t.Context(), bus.StreamMirrorWork, cfg); err != nil {
		t.Fatal(err)
	}
	must(t, "bootstrap", w.connect("cli").Bootstrap(t.Context(), bus.BootstrapOptions{}))
	b, done := w.connect(event.Mirror), make(chan struct{}, 1)
	spawn(t, func(ctx context.Context) error {
		return b.WorkLanes(ctx, bus.MirrorWork, []bus.Lane{{Name: "out"}}, bus.WorkOptions{}, func(context.Context, bus.Message) error {
			done <- struct{}{}
			return nil
		})
	})
	must(t, "publish", b.PublishMirrorWork(t.Context(), "out", "run", 1, nil))
	await(t, done, 20*time.Second, "message")
}

func TestLanesAndQueuesAreNotMixedUp(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Mirror)
	nothing := func(context.Context, bus.Message) error { return nil }
	for want, err := range map[string]error{
		"is worked off by its lanes":          b.Work(t.Context(), bus.MirrorWork, bus.WorkOptions{}, nothing),
		"has no lanes":                        b.WorkLanes(t.Context(), bus.MirrorTicks, nil, bus.WorkOptions{}, nothing),
		`lane "a.b": the name must be a sing`: b.WorkLanes(t.Context(), bus.MirrorWork, []bus.Lane{{Name: "a.b"}}, bus.WorkOptions{}, nothing),
		"is not in the table":                 b.WorkLanes(t.Context(), "none", nil, bus.WorkOptions{}, nothing),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
