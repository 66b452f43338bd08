package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
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
	// own carries out what only the planner's own process can, and its places are
	// those that the items are meant for.
	own    *engine.Worker
	places [2]string
	// split is as in Config.
	split  int64
	number atomic.Int64

	mu      sync.Mutex
	waiting map[int64]chan []byte
	// read adds up what workers say to have read.
	read *tally
	// look is how often an item without an answer is looked for.
	look time.Duration
	// lost is closed when results cannot be read any more, and why says the reason.
	lost chan struct{}
	why  error
}

// errNoAnswer says that the workers gave an item up.
var errNoAnswer = errors.New("no worker answers for it")

// itemLook is how often the planner looks whether an item is still in its queue.
const itemLook = 30 * time.Second

func newPool(b *bus.Bus, mirror, run string, own *engine.Worker, read *tally) *pool {
	return &pool{
		bus: b, mirror: mirror, run: run, own: own, places: identities(own), read: read, look: itemLook,
		waiting: map[int64]chan []byte{}, lost: make(chan struct{}),
	}
}

// Width implements engine.Pool.
func (p *pool) Width() int { return inFlight }

// Split implements engine.Pool.
func (p *pool) Split() int64 { return p.split }

// follow hands results to who waits for them, until ctx ends.
func (p *pool) follow(ctx context.Context) {
	p.why = p.bus.FollowMirrorDone(ctx, p.mirror, p.run, func(r bus.Record) error {
		if strings.HasPrefix(r.Kind, readKind) {
			p.read.take(r)
			return nil
		}
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
	close(p.lost)
}

// Do implements engine.Pool.
func (p *pool) Do(ctx context.Context, it engine.Item) ([]engine.Done, error) {
	own, others := it, it
	own.Actions, others.Actions = nil, nil
	for _, a := range it.Actions {
		if p.kept(&a) {
			own.Actions = append(own.Actions, a)
		} else {
			others.Actions = append(others.Actions, a)
		}
	}
	switch {
	case len(own.Actions) == 0:
		return p.send(ctx, it)
	case len(others.Actions) == 0 || it.Ordered:
		return p.own.Do(ctx, it)
	}
	here, err := p.own.Do(ctx, own)
	if err != nil {
		return here, err
	}
	there, err := p.send(ctx, others)
	if err != nil {
		return append(here, there...), err
	}
	dones := make([]engine.Done, len(it.Actions))
	for i := range it.Actions {
		from := &there
		if p.kept(&it.Actions[i]) {
			from = &here
		}
		dones[i], *from = (*from)[0], (*from)[1:]
	}
	return dones, nil
}

// kept reports whether an action is carried out where the run is planned. What a
// directory is to get once everything is in it, such as its time, is remembered by
// the process that made it, and only the planner's knows when that is.
func (p *pool) kept(a *plan.Action) bool {
	_, local := p.own.Places[a.To].(syncer)
	return local && strings.HasSuffix(a.Key, "/") && (a.Op == plan.MakeDir || a.Op == plan.Meta)
}

// send has an item carried out by another process.
func (p *pool) send(ctx context.Context, it engine.Item) ([]engine.Done, error) {
	data := encodeItem(it, p.places)
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
	data, err := p.await(ctx, n, ch)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("item %d of run %s: %w: see firedrill dead list", n, p.run, errNoAnswer)
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

// await waits for what became of an item: for as long as it takes, but no longer than
// somebody may still work on it. Its answer is stored before it leaves the queue, so
// an item that is gone for two looks without one became a dead letter.
func (p *pool) await(ctx context.Context, n int64, answer <-chan []byte) ([]byte, error) {
	tick := time.NewTicker(p.look)
	defer tick.Stop()
	for gone := false; ; {
		select {
		case data := <-answer:
			return data, nil
		case <-p.lost:
			return nil, fmt.Errorf("the results of run %s cannot be read: %w", p.run, p.why)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		waits, err := p.bus.MirrorWorkWaits(ctx, p.mirror, p.run, n)
		switch {
		case err != nil || waits:
			gone = false
		case gone:
			return nil, nil // as who gives an item up answers
		default:
			gone = true
		}
	}
}

// halves has an item carried out that is too large for one message.
func (p *pool) halves(ctx context.Context, it engine.Item) ([]engine.Done, error) {
	first, second := it, it
	first.Actions, second.Actions = it.Actions[:len(it.Actions)/2], it.Actions[len(it.Actions)/2:]
	dones, err := p.send(ctx, first)
	if err != nil {
		return dones, err
	}
	if it.Ordered && slices.ContainsFunc(dones, broken) {
		for _, a := range second.Actions {
			dones = append(dones, engine.Done{Action: a, Err: engine.ErrHeldBack})
		}
		return dones, nil
	}
	more, err := p.send(ctx, second)
	return append(dones, more...), err
}

// broken reports whether what failed keeps what follows in order from being done.
func broken(d engine.Done) bool { return d.Err != nil && d.Action.Op != plan.Delete }

// worker carries items out that others planned.
type worker struct {
	Config

	readers *readers

	mu   sync.Mutex
	open map[string]*opened
}

// opened is a mirror's places, open for one run: the next run opens them again, as
// something else may be mounted there by then.
type opened struct {
	run    string
	ready  chan struct{}
	worker *engine.Worker
	reader *reader
	close  func(context.Context) error
	err    error
	// life ends when the run has ended, or its places are closed here; after that comes
	// unwatched.
	life      context.Context
	end       context.CancelCauseFunc
	unwatched chan struct{}

	users int // with what follows under the worker's mu
	stale bool
}

// maxTries is after how many tries an item is given up by all: it kills its workers,
// or none of them has its places. A request is, too. One delivery is left to say so.
const maxTries = bus.MirrorTries - 1

// onWork carries out one item and publishes what became of it: that nobody can is an
// answer, too, since the planner waits for one.
func (w *worker) onWork(ctx context.Context, m bus.Message) error {
	at, err := bus.ReadMirrorWork(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	it, places, err := decodeItem(m.Data)
	if err != nil {
		err = fmt.Errorf("item %d of run %s of mirror %s: %w", at.Number, at.Run, at.Mirror, err)
		return errors.Join(bus.Poison(err), w.Bus.PublishMirrorDone(ctx, at.Mirror, at.Run, at.Number, nil))
	}
	err = w.answer(ctx, m, at, it, places)
	if err != nil && ctx.Err() == nil && m.Delivered >= bus.MirrorTries {
		// It becomes a dead letter, and the planner waits.
		err = errors.Join(err, w.Bus.PublishMirrorDone(ctx, at.Mirror, at.Run, at.Number, nil))
	}
	return err
}

// answer carries out an item that is to be carried out and publishes the results.
func (w *worker) answer(ctx context.Context, m bus.Message, at bus.MirrorItem, it engine.Item, places [2]string) error {
	if over, err := w.fenced(ctx, at); err != nil || over {
		return err
	}
	var err error
	dones := refuse(it, errNoAnswer)
	if m.Delivered <= maxTries {
		if dones, err = w.carryOut(ctx, at, it, places); errors.Is(err, errRunOver) {
			return nil // nobody waits for it
		} else if err != nil && m.Delivered < maxTries && ctx.Err() == nil {
			return err // Another process may have the places, or this one, later.
		} else if err != nil {
			dones = refuse(it, err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // the process stops; another one takes the item
	}
	data := encodeDones(dones)
	if len(data) > resultMost {
		data = encodeDones(refuse(it, errors.New("what became of it does not fit into a message")))
	}
	return w.Bus.PublishMirrorDone(ctx, at.Mirror, at.Run, at.Number, data)
}

// resultMost is how large a result's message may be: below NATS's usual megabyte.
const resultMost = 1<<20 - 8<<10

// refuse is the answer that nothing of an item was done.
func refuse(it engine.Item, err error) []engine.Done {
	out := make([]engine.Done, len(it.Actions))
	for i, a := range it.Actions {
		out[i] = engine.Done{Action: a, Err: err}
	}
	return out
}

// carryOut fails as a whole, before anything is done, only if this process does not
// have the item's places.
func (w *worker) carryOut(ctx context.Context, at bus.MirrorItem, it engine.Item, places [2]string) (dones []engine.Done, err error) {
	defer func() {
		if r := recover(); r != nil {
			dones, err = refuse(it, fmt.Errorf("the worker panicked: %v", r)), nil
		}
	}()
	o, err := w.use(ctx, at)
	if err != nil {
		return nil, err
	}
	defer w.leave(ctx, o)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(o.life, func() { cancel(context.Cause(o.life)) })()
	if err := o.right(w.Bus.Identity().Instance, places); err != nil {
		return nil, fmt.Errorf("mirror %s: %w", at.Mirror, err)
	}
	dones, err = o.worker.Do(ctx, it)
	if err == nil && it.Parts == nil {
		o.again(ctx, it, dones)
	}
	if err == nil && !it.DryRun {
		err = o.settle(ctx)
	}
	switch {
	case errors.Is(context.Cause(ctx), errRunOver):
		return nil, errRunOver
	case err != nil:
		return refuse(it, err), nil
	}
	return dones, nil
}

// syncer is a place that can make durable what was written, beside other writing.
type syncer interface {
	Sync(ctx context.Context) error
}

// settle makes durable what an item wrote into a directory: the planner can do that
// for its own machine only, and remembers what it is told is done.
func (o *opened) settle(ctx context.Context) error {
	var errs []error
	for _, p := range o.worker.Places {
		if s, ok := p.(syncer); ok {
			errs = append(errs, s.Sync(ctx))
		}
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
		select {
		case <-o.ready:
			return w.checked(ctx, o)
		case <-ctx.Done():
			w.leave(ctx, o)
			return nil, ctx.Err()
		}
	}
	past := o
	unused := past != nil && past.users == 0
	if past != nil {
		past.stale = true
	}
	o = &opened{run: at.Run, ready: make(chan struct{}), users: 1, unwatched: make(chan struct{})}
	o.life, o.end = context.WithCancelCause(context.WithoutCancel(ctx))
	w.open[at.Mirror] = o
	w.mu.Unlock()
	if unused {
		w.shut(ctx, past)
	}
	w.begin(ctx, at.Mirror, o)
	return w.checked(ctx, o)
}

// begin opens the places; who waits for them is let go on whatever happens.
func (w *worker) begin(ctx context.Context, mirror string, o *opened) {
	o.err = errors.New("opening the places panicked")
	defer close(o.ready)
	defer func() {
		if o.err == nil {
			return
		}
		o.end(nil)
		// The next item tries again.
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.open[mirror] == o {
			delete(w.open, mirror)
		}
	}()
	if o.worker, o.close, o.err = w.openPlaces(ctx, mirror); o.err == nil {
		o.reader = &reader{mirror: mirror, run: o.run}
		o.worker.Read = o.reader.count
		w.readers.add(o.reader)
		go w.watch(mirror, o)
	}
}

// errRunOver is why items of a run are not gone on with once it has ended, however it did.
var errRunOver = errors.New("the run has ended")

// watch ends a run's life here when the run has ended. Who plans it drops what nobody has
// begun; what is under way, and may be held back for hours, learns of it by this.
func (w *worker) watch(mirror string, o *opened) {
	defer close(o.unwatched)
	// Its items came after it had begun; that a later run has begun meanwhile means that
	// the mirror is not this run's any more, which each item finds out for itself.
	begun, _, err := w.Bus.LastMirrorEvent(o.life, mirror, KindStarted)
	if err == nil {
		err = w.Bus.FollowMirror(o.life, mirror, begun.Seq, func(r bus.Record) error {
			var e Event
			if !slices.Contains(Endings(), r.Kind) || json.Unmarshal(r.Data, &e) != nil || e.Run != o.run {
				return nil
			}
			o.end(errRunOver)
			return bus.Stop
		})
	}
	if err != nil && o.life.Err() == nil {
		w.Log.Warn("it is not seen whether a run is called off", "mirror", mirror, "run", o.run, "error", err)
	}
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
	w.readers.remove(o.reader)
	o.end(nil)
	<-o.unwatched
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
