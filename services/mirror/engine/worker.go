package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/zeebo/blake3"
	"golang.org/x/time/rate"
)

// Worker carries items out between two places that it has open. It decides
// nothing. It may be used concurrently.
type Worker struct {
	// Places are the source and the destination, by [plan.Side].
	Places [2]place.Place
	// Limit bounds the bytes of content read per second; nil is no limit.
	Limit *rate.Limiter
	// Parallel is how many actions of one item, other than a batch, are under way
	// at once; 0 means DefaultParallel.
	Parallel int
	// PartSize is the size of the parts of large files in bytes; 0 means
	// DefaultPartSize. A file that would need over 10,000 gets larger ones.
	PartSize int64
	// PartsAtOnce is how many parts of one file are under way; 0 means 5.
	PartsAtOnce int
	// Tries is how often a file is tried that changes while it is read, each time as it is
	// by then, or whose content arrives damaged; 0 means DefaultTries.
	Tries int
	// Pace, if not nil, bounds how much is under way at once in all of this worker's
	// items together.
	Pace Pace
	// Read, if not nil, is told of the bytes of content as they are read, for
	// whoever shows how far a large file is. It is called concurrently and must be
	// quick.
	Read func(n int)

	// rooms holds memory of batches that are done, as *[]byte.
	rooms sync.Pool
	// parts, if not nil, writes what is to be written in parts.
	parts func(context.Context, *plan.Action, place.Write) error
}

// Pace bounds how much is under way at once. It is used concurrently.
type Pace interface {
	// Acquire waits until one more may be; Release ends it.
	Acquire(ctx context.Context) error
	Release()
}

const (
	// DefaultParallel is how many actions of an item are under way at once.
	DefaultParallel = 16
	// DefaultPartSize is the size of parts in bytes.
	DefaultPartSize = 16 << 20
	// DefaultTries is how often a file is tried that changes while it is read, or is
	// damaged on its way.
	DefaultTries = 3

	defaultPartsAtOnce = 5
	maxParts           = 10_000
)

// Do carries out one item. A Rehash comes back as one, with the hashes filled in:
// whoever made the plan settles it. A Put comes back as an Equal if somebody else has
// written just that meanwhile. If ctx ends, the error is its; what has no error of its own
// then is done all the same.
func (w *Worker) Do(ctx context.Context, it Item) ([]Done, error) {
	dones := make([]Done, len(it.Actions))
	for i, a := range it.Actions {
		dones[i].Action = a
	}
	switch {
	case it.Parts != nil:
		if len(dones) != 1 {
			return nil, fmt.Errorf("parts of %d files: %w", len(dones), ErrRange)
		}
		dones[0].Parts, dones[0].Err = w.putRange(ctx, &dones[0].Action, *it.Parts)
	case it.DryRun:
		w.spread(ctx, slices.DeleteFunc(each(dones), func(d *Done) bool { return d.Action.Op != plan.Rehash }), it.Names)
	case it.Ordered:
		w.inOrder(ctx, dones, &it)
	case it.Single, it.Names:
		w.spread(ctx, each(dones), it.Names)
	default:
		var alone []*Done // as they are now: an action may come to be another one
		for i := range dones {
			if !w.batched(&dones[i].Action) {
				alone = append(alone, &dones[i])
			}
		}
		w.batches(ctx, dones)
		w.spread(ctx, alone, false)
	}
	return dones, ctx.Err()
}

// spread carries out single actions, several at once.
func (w *Worker) spread(ctx context.Context, dones []*Done, names bool) {
	w.several(len(dones), func(i int) { dones[i].Err = w.one(ctx, &dones[i].Action, names) })
}

// each gives the place of each, in their order.
func each(dones []Done) []*Done {
	all := make([]*Done, len(dones))
	for i := range dones {
		all[i] = &dones[i]
	}
	return all
}

// several does something for all indices below n, several at once. A few goroutines take one
// after the other: each new one would first have to grow its stack again.
func (w *Worker) several(n int, do func(int)) {
	parallel := DefaultParallel
	if w.Parallel > 0 {
		parallel = w.Parallel
	}
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(parallel, n) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	all.Wait()
}

// inOrder carries out one action after the other; deletes that follow each other
// are one request.
func (w *Worker) inOrder(ctx context.Context, dones []Done, it *Item) {
	failed := false
	for i := 0; i < len(dones); {
		a := &dones[i].Action
		if failed {
			dones[i].Err = ErrHeldBack
			i++
			continue
		}
		if a.Op != plan.Delete {
			dones[i].Err = w.one(ctx, a, it.Names)
			failed = dones[i].Err != nil
			i++
			continue
		}
		n := i
		var have []entry.Entry
		for ; n < len(dones) && dones[n].Action.Op == plan.Delete && dones[n].Action.To == a.To; n++ {
			have = append(have, dones[n].Action.At(a.To))
		}
		for k, err := range w.remove(ctx, a.To, it.Bin, have) {
			dones[i+k].Err = err
		}
		i = n
	}
}

// remove deletes entries of a side with one request, or puts them into a bin, and returns
// what came of each.
func (w *Worker) remove(ctx context.Context, side plan.Side, bin place.Bin, have []entry.Entry) []error {
	if err := w.acquire(ctx); err != nil {
		return slices.Repeat([]error{err}, len(have))
	}
	defer w.release()
	if bin == (place.Bin{}) {
		return w.Places[side].Remove(ctx, have)
	}
	keeper, ok := w.Places[side].(place.Keeper)
	if !ok {
		return slices.Repeat([]error{errKeepsNothing}, len(have))
	}
	return keeper.PutAside(ctx, bin, have)
}

// errKeepsNothing says that what was to be put aside stays, as it could only be deleted for
// good.
var errKeepsNothing = errors.New("the place keeps nothing that is removed: it was left alone")

// one carries out one action, and leaves in it what the places hold then. Names says
// that no more than the name is known of what is to be copied; see [Item].
func (w *Worker) one(ctx context.Context, a *plan.Action, names bool) error {
	return unpanicked(a, func() error { return w.carryOut(ctx, a, names) })
}

// unpanicked makes a panic the failure of the one action.
func unpanicked(a *plan.Action, do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("carry out %q: panic: %v", a.Key, r)
		}
	}()
	return do()
}

func (w *Worker) carryOut(ctx context.Context, a *plan.Action, names bool) (err error) {
	if a.Op != plan.Put { // each of whose tries waits for itself
		if err := w.acquire(ctx); err != nil {
			return err
		}
		defer w.release()
	}
	to, from := w.Places[a.To], a.At(a.To.Other())
	var now entry.Entry
	switch a.Op {
	case plan.Put:
		return w.put(ctx, a, names)
	case plan.Rehash:
		return w.rehash(ctx, a)
	case plan.MakeDir:
		if names {
			now, err = w.makeNamedDir(ctx, a)
		} else {
			now, err = to.MakeDir(ctx, from)
		}
	case plan.Meta:
		now, err = to.SetAttrs(ctx, from, a.At(a.To))
		now.Sum = now.Sum.Merge(a.At(a.To).Sum)
	default: // deletes have an order
		return fmt.Errorf("carry out %q: %s is nothing to be done", a.Key, a.Op)
	}
	if err == nil {
		set(a, a.To, now)
	}
	return err
}

// acquire waits until one more may be under way.
func (w *Worker) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil || w.Pace == nil {
		return err
	}
	return w.Pace.Acquire(ctx)
}

func (w *Worker) release() {
	if w.Pace != nil {
		w.Pace.Release()
	}
}

// inParts reports whether an action writes a large file in parts.
func (w *Worker) inParts(a *plan.Action) bool {
	e, t := a.At(a.To.Other()), w.Places[a.To].Traits()
	return a.Op == plan.Put && e.Kind == entry.File && t.Parts && e.Size > t.PartsAbove
}

func set(a *plan.Action, s plan.Side, e entry.Entry) {
	if s == plan.Source {
		a.Source = e
	} else {
		a.Dest = e
	}
}

// put copies one entry, again if the source changes meanwhile, or if its content was damaged
// on its way. What was known by its name only is known by then.
func (w *Worker) put(ctx context.Context, a *plan.Action, names bool) error {
	passes := damaged
	if w.inParts(a) { // each of which was sent again
		passes = func(error) bool { return false }
	}
	unknown := names
	for try := 1; ; try++ {
		err := w.again(ctx, passes, func() error {
			defer func() { unknown = false }()
			return w.putOnce(ctx, a, unknown)
		})
		if !errors.Is(err, place.ErrChanged) || ctx.Err() != nil {
			return err
		}
		source := a.To.Other()
		then := a.At(source)
		now, there, lerr := w.Places[source].Look(ctx, then)
		switch {
		case lerr != nil:
			return errors.Join(err, lerr)
		case names && there && now.Kind != then.Kind:
			set(a, source, now)
			a.Op = plan.Rehash // of nothing, to have it decided
			return nil
		case !there || now.Kind != then.Kind:
			return fmt.Errorf("the %s is not what it was any more: %w", source, err)
		case untouched(&now, &then):
			return w.collided(ctx, a, false, err) // What is there was not planned for.
		case try >= w.tries():
			return err
		}
		set(a, source, now)
	}
}

// untouched reports whether nothing tells that an entry is not what it was.
func untouched(now, then *entry.Entry) bool {
	if now.Sum.Contains(entry.HasETag) && then.Sum.Contains(entry.HasETag) && now.Sum.ETag != then.Sum.ETag {
		return false
	}
	return now.Kind == then.Kind && now.Size == then.Size && now.MTime == then.MTime &&
		!now.Change.Shows(then.Change) && now.Target == then.Target
}

func (w *Worker) putOnce(ctx context.Context, a *plan.Action, names bool) error {
	if !names && w.inParts(a) { // whose parts wait each for itself
		write := place.Write{Entry: unread(a.At(a.To.Other())), Have: a.At(a.To)}
		if w.parts != nil {
			return w.parts(ctx, a, write)
		}
		return w.putParts(ctx, a, write)
	}
	if err := w.acquire(ctx); err != nil {
		return err
	}
	defer w.release()
	if !names {
		return w.putWhole(ctx, a, nil)
	}
	opened, err := w.openNamed(ctx, a)
	if opened == nil {
		return err
	}
	return w.putWhole(ctx, a, opened)
}

// putWhole writes an entry of any kind at once. opened is the content, if it is open
// already.
func (w *Worker) putWhole(ctx context.Context, a *plan.Action, opened *stream) error {
	defer func() {
		if opened != nil {
			_ = opened.Close() // nobody wanted to read it
		}
	}()
	e := a.At(a.To.Other())
	write := place.Write{Entry: e, Have: a.At(a.To)}
	// A place may read more than once, and store what it read first.
	var reads []*stream
	if e.Kind == entry.File {
		write.Open = func(ctx context.Context) (io.ReadCloser, error) {
			r := opened
			if opened = nil; r == nil {
				var err error
				if r, err = w.open(ctx, a.To.Other(), e, 0, e.Size); err != nil {
					return nil, err
				}
			}
			r.hash = newHasher(r.content, false, 0)
			reads = append(reads, r)
			return r, nil
		}
	}
	now, err := w.Places[a.To].Put(ctx, write)
	if err != nil {
		return err
	}
	for _, r := range reads {
		if r.whole() {
			sum := r.hash.sum()
			e.Sum = sum.Merge(e.Sum)
			now.Sum = now.Sum.Merge(sum)
		}
	}
	set(a, a.To.Other(), e)
	set(a, a.To, now)
	return nil
}

// rehash fills in the hashes of the sides that are in doubt, and of their kind
// those that the other side has.
func (w *Worker) rehash(ctx context.Context, a *plan.Action) error {
	for _, s := range []plan.Side{plan.Source, plan.Dest} {
		if !a.Doubt[s] {
			continue
		}
		e, other := a.At(s), a.At(s.Other()).Sum
		if e.Kind != entry.File {
			continue
		}
		sum, err := Hash(ctx, w.Places[s], e, other, w.Limit, w.Read)
		if err != nil {
			return err
		}
		e.Sum = sum.Merge(e.Sum)
		set(a, s, e)
	}
	return nil
}

// batched reports whether an action takes part in a batch.
func (w *Worker) batched(a *plan.Action) bool {
	e := a.At(a.To.Other())
	t := w.Places[a.To].Traits()
	return a.Op == plan.Put && e.Kind == entry.File && t.Batch > 0 && e.Size <= t.Small
}

// batches writes the small files, by destination.
func (w *Worker) batches(ctx context.Context, dones []Done) {
	total := int64(0)
	for i := range dones {
		if a := &dones[i].Action; w.batched(a) {
			total += a.At(a.To.Other()).Size
		}
	}
	room := w.room(total)
	defer w.rooms.Put(room)
	free := *room
	for _, to := range []plan.Side{plan.Source, plan.Dest} {
		var which []*Done
		var writes []place.Write
		for i := range dones {
			d := &dones[i]
			if d.Action.To != to || !w.batched(&d.Action) {
				continue
			}
			size := d.Action.At(to.Other()).Size
			write, err := w.load(ctx, &d.Action, free[:size:size])
			free = free[size:]
			switch {
			case err == nil:
				which, writes = append(which, d), append(writes, write)
			case errors.Is(err, place.ErrChanged):
				err = w.put(ctx, &d.Action, false)
			}
			d.Err = err
		}
		if len(writes) == 0 {
			continue
		}
		w.sendBatch(ctx, to, which, writes)
	}
}

// sendBatch writes what was loaded. What arrives damaged is sent again, and what somebody
// else wrote meanwhile is looked at.
func (w *Worker) sendBatch(ctx context.Context, to plan.Side, which []*Done, writes []place.Write) {
	left := make([]int, len(writes))
	for i := range left {
		left[i] = i
	}
	_ = w.again(ctx, damaged, func() (hurt error) {
		all := make([]place.Write, len(left))
		for n, i := range left {
			all[n] = writes[i]
		}
		outcomes := w.putBatch(ctx, to, all)
		var rest []int
		for n, o := range outcomes {
			i := left[n]
			if which[i].Err = o.Err; damaged(o.Err) {
				hurt, rest = o.Err, append(rest, i)
			}
			if e := writes[i].Entry; o.Err == nil {
				o.Entry.Sum = o.Entry.Sum.Merge(e.Sum)
				set(&which[i].Action, to.Other(), e)
				set(&which[i].Action, to, o.Entry)
			}
		}
		left = rest
		return hurt
	})
	w.several(len(which), func(i int) {
		if d := which[i]; errors.Is(d.Err, place.ErrChanged) && ctx.Err() == nil {
			set(&d.Action, to.Other(), writes[i].Entry)
			d.Err = unpanicked(&d.Action, func() error { return w.collided(ctx, &d.Action, true, d.Err) })
		}
	})
}

// putBatch is one request, or its error for each of the writes.
func (w *Worker) putBatch(ctx context.Context, to plan.Side, writes []place.Write) []place.Outcome {
	if err := w.acquire(ctx); err != nil {
		return slices.Repeat([]place.Outcome{{Err: err}}, len(writes))
	}
	defer w.release()
	return w.Places[to].PutBatch(ctx, writes)
}

// room is memory for n bytes, which the caller gives back to rooms: to make it anew for
// each batch would keep the collector busy with hardly anything else.
func (w *Worker) room(n int64) *[]byte {
	room, _ := w.rooms.Get().(*[]byte)
	if room == nil || int64(cap(*room)) < n {
		room = new(make([]byte, n))
	}
	*room = (*room)[:n]
	return room
}

// load reads a small file into content, which has its size, with its hashes.
func (w *Worker) load(ctx context.Context, a *plan.Action, content []byte) (place.Write, error) {
	e := a.At(a.To.Other())
	r, err := w.open(ctx, a.To.Other(), e, 0, e.Size)
	if err != nil {
		return place.Write{}, err
	}
	_, err = io.ReadFull(r, content)
	if err == nil && e.Size == 0 {
		// Nothing was read that could have looked.
		if _, err = r.Read(nil); err == io.EOF {
			err = nil
		}
	}
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return place.Write{}, err
	}
	sum := entry.Sum{Has: entry.HasBLAKE3 | entry.HasCRC32C, BLAKE3: blake3.Sum256(content), CRC32C: crc32.Checksum(content, castagnoli)}
	e.Sum = sum.Merge(e.Sum)
	return place.Write{Entry: e, Have: a.At(a.To), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}, nil
}
