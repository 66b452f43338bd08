package fleet

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/services/mirror/engine"
)

// inFlight is how many items of one run are on the way at once: enough for some ten
// workers, and few enough that another run's items do not wait long behind them.
const inFlight = 32

// itemMost is how large an item's message may be, below NATS's usual megabyte.
const itemMost = 900 << 10

// pool has items carried out by whatever process takes them from the queue.
type pool struct {
	bus    *bus.Bus
	mirror string
	run    string
	number atomic.Int64

	mu      sync.Mutex
	waiting map[int64]chan []byte
}

func newPool(b *bus.Bus, mirror, run string) *pool {
	return &pool{bus: b, mirror: mirror, run: run, waiting: map[int64]chan []byte{}}
}

// Width implements engine.Pool.
func (p *pool) Width() int { return inFlight }

// follow hands results to who waits for them, until ctx ends.
func (p *pool) follow(ctx context.Context) error {
	return p.bus.FollowMirrorDone(ctx, p.mirror, p.run, func(r bus.Record) error {
		n, err := strconv.ParseInt(r.Kind, 10, 64)
		if err != nil {
			return nil // nobody waits for that
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if ch := p.waiting[n]; ch != nil {
			ch <- r.Data
			delete(p.waiting, n) // a second result says the same
		}
		return nil
	})
}

// Do implements engine.Pool.
func (p *pool) Do(ctx context.Context, it engine.Item) ([]engine.Done, error) {
	data := encodeItem(it)
	if len(data) > itemMost && len(it.Actions) > 1 {
		return p.halves(ctx, it)
	}
	n := p.number.Add(1)
	ch := make(chan []byte, 1)
	p.mu.Lock()
	p.waiting[n] = ch
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, n)
	}()
	if err := p.bus.PublishMirrorWork(ctx, p.mirror, p.run, n, data); err != nil {
		return nil, err
	}
	select {
	case data = <-ch:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dones, err := decodeDones(data)
	if err == nil && len(dones) != len(it.Actions) {
		err = fmt.Errorf("%w: %d results for %d actions", errItem, len(dones), len(it.Actions))
	}
	if err != nil {
		return nil, fmt.Errorf("result of item %d of run %s: %w", n, p.run, err)
	}
	for i := range dones {
		dones[i].Action.Past = it.Actions[i].Past
	}
	return dones, nil
}

// halves has an item carried out that is too large for one message.
func (p *pool) halves(ctx context.Context, it engine.Item) ([]engine.Done, error) {
	first, second := it, it
	first.Actions, second.Actions = it.Actions[:len(it.Actions)/2], it.Actions[len(it.Actions)/2:]
	dones, err := p.Do(ctx, first)
	if err != nil {
		return dones, err
	}
	more, err := p.Do(ctx, second)
	return append(dones, more...), err
}

// worker carries items out that others planned.
type worker struct {
	Config

	mu   sync.Mutex
	open map[string]*opened
}

// opened is a mirror's places, open for one run: the next run opens them again, as
// something else may be mounted there by then.
type opened struct {
	run    string
	ready  chan struct{}
	worker *engine.Worker
	close  func(context.Context) error
	err    error
	// busy is held for reading while items are carried out, and for writing while
	// what they wrote is made durable.
	busy sync.RWMutex

	users int // with what follows under the worker's mu
	stale bool
}

// onWork carries out one item and publishes what became of it.
func (w *worker) onWork(ctx context.Context, m bus.Message) error {
	at, err := bus.ReadMirrorWork(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	it, err := decodeItem(m.Data)
	if err != nil {
		return bus.Poison(fmt.Errorf("item %d of run %s of mirror %s: %w", at.Number, at.Run, at.Mirror, err))
	}
	dones := w.carryOut(ctx, at, it)
	if ctx.Err() != nil {
		return ctx.Err() // the process stops; another one takes the item
	}
	return w.Bus.PublishMirrorDone(ctx, at.Mirror, at.Run, at.Number, encodeDones(dones))
}

// carryOut never fails as a whole: that the places cannot be opened is an answer for
// each action.
func (w *worker) carryOut(ctx context.Context, at bus.MirrorItem, it engine.Item) (dones []engine.Done) {
	failed := func(err error) []engine.Done {
		out := make([]engine.Done, len(it.Actions))
		for i, a := range it.Actions {
			out[i] = engine.Done{Action: a, Err: err}
		}
		return out
	}
	defer func() {
		if r := recover(); r != nil {
			dones = failed(fmt.Errorf("the worker panicked: %v", r))
		}
	}()
	o, err := w.use(ctx, at)
	if err != nil {
		return failed(err)
	}
	defer w.leave(ctx, o)
	o.busy.RLock()
	dones, err = o.worker.Do(ctx, it)
	o.busy.RUnlock()
	if err == nil && !it.DryRun {
		err = o.settle(ctx)
	}
	if err != nil {
		return failed(err)
	}
	return dones
}

// settle makes durable what an item wrote into a directory: the planner can do that
// for its own machine only, and remembers what it is told is done.
func (o *opened) settle(ctx context.Context) error {
	var errs []error
	for _, p := range o.worker.Places {
		if p.Traits().ETags {
			continue // a bucket answers when it has stored
		}
		o.busy.Lock()
		errs = append(errs, p.Finish(ctx))
		o.busy.Unlock()
	}
	return errors.Join(errs...)
}

// use gives a mirror's places, opened for the item's run.
func (w *worker) use(ctx context.Context, at bus.MirrorItem) (*opened, error) {
	w.mu.Lock()
	o := w.open[at.Mirror]
	if o != nil && o.run == at.Run {
		o.users++
		w.mu.Unlock()
		<-o.ready
		return w.checked(ctx, o)
	}
	past := o
	unused := past != nil && past.users == 0
	if past != nil {
		past.stale = true
	}
	o = &opened{run: at.Run, ready: make(chan struct{}), users: 1}
	w.open[at.Mirror] = o
	w.mu.Unlock()
	if unused {
		w.shut(ctx, past)
	}
	if o.worker, o.close, o.err = w.openPlaces(ctx, at.Mirror); o.err != nil {
		// The next item tries again.
		w.mu.Lock()
		if w.open[at.Mirror] == o {
			delete(w.open, at.Mirror)
		}
		w.mu.Unlock()
	}
	close(o.ready)
	return w.checked(ctx, o)
}

func (w *worker) checked(ctx context.Context, o *opened) (*opened, error) {
	if o.err != nil {
		w.leave(ctx, o)
		return nil, o.err
	}
	return o, nil
}

func (w *worker) openPlaces(ctx context.Context, mirror string) (*engine.Worker, func(context.Context) error, error) {
	m, ok := w.Inventory.FindMirror(mirror)
	if !ok {
		return nil, nil, fmt.Errorf("mirror %s: %w", mirror, ErrUnknown)
	}
	return w.Env.OpenWorker(ctx, m)
}

// leave ends a use; who leaves last a run's places that are past closes them.
func (w *worker) leave(ctx context.Context, o *opened) {
	w.mu.Lock()
	o.users--
	last := o.stale && o.users == 0
	w.mu.Unlock()
	if last {
		w.shut(ctx, o)
	}
}

func (w *worker) shut(ctx context.Context, o *opened) {
	if o.close == nil {
		return
	}
	if err := o.close(ctx); err != nil {
		w.Log.Warn("close a mirror's places", "error", err)
	}
}

// closeAll closes what is open when the process ends.
func (w *worker) closeAll(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.open {
		w.shut(ctx, o)
	}
	clear(w.open)
}
