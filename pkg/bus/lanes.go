package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Lane is one of the queues of a durable that has one for each key.
type Lane struct {
	// Name is the key: a single subject token.
	Name string
	// Most bounds how many of its messages this process works on at once; 0 means as many
	// as all lanes together may have.
	Most int
}

// WorkLanes is Work for a durable whose lanes take turns, so that what waits in one of
// them never waits for all that is in another. Each lane always has one worker of its own.
// The others, of opt.Concurrency in all, go where there is more to do: to the lane that
// has the fewest of them. So a process works on opt.Concurrency messages of one lane, and
// on one more for each further lane that is busy.
func (b *Bus) WorkLanes(ctx context.Context, name string, lanes []Lane, opt WorkOptions, fn func(ctx context.Context, m Message) error) error {
	d, err := durable(name)
	if err != nil {
		return fmt.Errorf("work: %w", err)
	}
	if !d.Lanes {
		return fmt.Errorf("work: durable %q has no lanes", name)
	}
	ls := &laneSet{changed: make(chan struct{})}
	loops := []loop{b.retrier(d, fn).run}
	for _, at := range lanes {
		if !token(at.Name) {
			return fmt.Errorf("work on durable %s: lane %q: the name must be a single subject token", name, at.Name)
		}
		l := &lane{Lane: at}
		l.worker = &worker{bus: b, durable: d, stream: d.Stream, consumer: d.laneName(at.Name), lane: l, fn: func(ctx context.Context, m Message) error {
			ls.begin(l)
			defer ls.end(l)
			return fn(ctx, m)
		}}
		ls.all = append(ls.all, l)
		loops = append(loops, l.worker.run)
	}
	for range max(opt.Concurrency, 1) - 1 {
		loops = append(loops, ls.help)
	}
	return together(ctx, loops)
}

// laneSet knows what is under way in the lanes of this process.
type laneSet struct {
	mu  sync.Mutex
	all []*lane
	// changed is closed and made anew whenever a helper may have something to do.
	changed chan struct{}
	// looks counts how often a helper looked into a lane.
	looks int
}

// lane is one of them, with the worker that is its own.
type lane struct {
	Lane
	worker *worker
	found  atomic.Pointer[jetstream.Consumer]

	// With what follows under the set's mu: how many messages are worked on, how many
	// helpers wait for one, when the last one waited in vain since the last message, and the
	// how manieth look into any lane was the last into this one.
	active, waiting int
	vain            time.Time
	looked          int
}

// vainFor is how long a lane is passed over in which a helper waited in vain: by then
// something may have come, though its own worker is busy for hours.
const vainFor = 3 * time.Second

func (ls *laneSet) begin(l *lane) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.active++
	l.vain = time.Time{}
	ls.wake()
}

func (ls *laneSet) end(l *lane) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.active--
	ls.wake()
}

// wake has helpers look again. The caller has the lock.
func (ls *laneSet) wake() {
	close(ls.changed)
	ls.changed = make(chan struct{})
}

// help works in one lane after the other, until ctx ends.
func (ls *laneSet) help(ctx context.Context) error {
	for failed := 0; ; {
		l, changed := ls.choose()
		if l == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := ls.serve(ctx, l)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			failed = 0
		// The lane's own worker says so if it lasts.
		case pause(ctx, backoff(failed)) != nil:
			return ctx.Err()
		default:
			failed++
		}
	}
}

// choose gives the lane that a helper is to look into, nil if no lane has more to do than
// its own worker does; changed is closed when that may be otherwise.
func (ls *laneSet) choose() (l *lane, changed <-chan struct{}) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := time.Now()
	for _, one := range ls.all {
		if one.active == 0 || one.Most > 0 && one.active+one.waiting >= one.Most {
			continue
		}
		if l == nil || one.before(l, now) {
			l = one
		}
	}
	if l != nil {
		ls.looks++
		l.waiting, l.looked = l.waiting+1, ls.looks
	}
	return l, ls.changed
}

// before says which of two lanes a helper looks into: where nobody has just waited in vain,
// then where the fewest are at work, then where nobody looked for the longest time.
func (l *lane) before(other *lane, now time.Time) bool {
	if mine, its := now.Sub(l.vain) < vainFor, now.Sub(other.vain) < vainFor; mine != its {
		return its
	}
	if a, b := l.active+l.waiting, other.active+other.waiting; a != b {
		return a < b
	}
	return l.looked < other.looked
}

// consumer is what the lane's own worker found; nil if it looks for it.
func (l *lane) consumer() jetstream.Consumer {
	if c := l.found.Load(); c != nil {
		return *c
	}
	return nil
}

// helperWait is how long a helper waits in a lane that has nothing for it: other lanes may
// have something by then.
const helperWait = 500 * time.Millisecond

// serve waits for one message of a lane and works on it.
func (ls *laneSet) serve(ctx context.Context, l *lane) error {
	m, wait, err := l.worker.next(ctx, helperWait)
	ls.mu.Lock()
	l.waiting--
	if l.vain = (time.Time{}); m == nil {
		l.vain = time.Now()
	}
	ls.wake()
	ls.mu.Unlock()
	if m == nil || err != nil {
		return err
	}
	l.worker.handle(ctx, m, wait)
	return nil
}

// next waits that long for one message of the consumer; nil if there is none.
func (w *worker) next(ctx context.Context, most time.Duration) (m jetstream.Msg, wait time.Duration, err error) {
	cons := w.lane.consumer()
	if cons == nil {
		return nil, 0, pause(ctx, most) // its own worker has lost it, and looks for it
	}
	batch, err := cons.Fetch(1, jetstream.FetchMaxWait(most))
	if err != nil {
		return nil, 0, err
	}
	for m = range batch.Messages() {
		return m, cons.CachedInfo().Config.AckWait, nil
	}
	if err = batch.Error(); errors.Is(err, jetstream.ErrNoMessages) {
		err = nil
	}
	return nil, 0, err
}
