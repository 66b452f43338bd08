// Package verify compares what a place holds with the manifest of what it should
// hold, as thoroughly as it is asked to, and writes that manifest.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"golang.org/x/time/rate"
)

// Manifest writes the manifest of what a mirror's past says both places hold: the
// source's attributes, with the hashes of the content that both sides were shown to
// have. Where they were only believed to be equal, no hash is that of both. keeps says
// that the mirror removes nothing: then what the source holds no more is in the manifest
// as kept at the destination only, and else, until it is deleted there, as gone.
func Manifest(w io.Writer, past iter.Seq2[plan.Past, error], keeps bool) (proof.Root, error) {
	m, err := proof.NewWriter(w)
	if err != nil {
		return proof.Root{}, fmt.Errorf("write the manifest: %w", err)
	}
	defer m.Abandon()
	for p, err := range past {
		if err != nil {
			return proof.Root{}, fmt.Errorf("write the manifest: read the last run: %w", err)
		}
		if !plan.Present(p.Source) || !plan.Present(p.Dest) {
			continue
		}
		e := p.Source
		e.Lone = Lone(&p, keeps)
		e.Sum = Sum(&p, plan.Source, e.Lone)
		if err := m.Add(e); err != nil {
			return proof.Root{}, fmt.Errorf("write the manifest: %w", err)
		}
	}
	root, err := m.Close()
	if err != nil {
		return root, fmt.Errorf("write the manifest: %w", err)
	}
	return root, nil
}

// Lone tells why one side alone holds what a past tells of, if it does. keeps is as in
// [Manifest].
func Lone(p *plan.Past, keeps bool) entry.Lone {
	switch {
	case keeps && p.Missing[plan.Source] == plan.MissingKept:
		return entry.Kept
	case keeps: // What a mode that deletes has counted before is nothing to this one.
	case p.Waits(plan.Source):
		return entry.GoneSource
	case p.Waits(plan.Dest):
		return entry.GoneDest
	}
	return entry.NotLone
}

// lacks reports whether a side does not hold what is on one side only.
func lacks(side plan.Side, l entry.Lone) bool {
	return l != entry.NotLone && (side == plan.Dest) == (l == entry.GoneDest)
}

// Sum is what is known of the content that a side holds by a mirror's past, and that both
// sides were shown to have. What is on one side only has nothing any more that it has to be
// equal to: what is known of it there is enough.
func Sum(p *plan.Past, side plan.Side, l entry.Lone) entry.Sum {
	one, other := p.At(side).Sum, p.At(side.Other()).Sum
	s := one.Shared(other)
	switch {
	case l == entry.NotLone || s.Has != 0:
		return s
	case lacks(plan.Dest, l):
		return p.Source.Sum
	}
	return p.Dest.Sum
}

// ErrLevel says that a place cannot be checked to the level that was asked for.
var ErrLevel = errors.New("this level of proof cannot be had there")

// Check is one look at a place.
type Check struct {
	Place place.Place
	// Level is L1 (the listing), L2 (the place's own checksums; what has none, such
	// as a file in a directory, is read), L3 (a part of the contents is read; see
	// Rolling) or L4 (every content is read).
	Level  proof.Level
	Filter func(path string, kind entry.Kind) bool
	// Side is that of the place: nobody looks there for what the other one holds alone.
	Side plan.Side
	// Claimed says that what is there and is somebody else's ([place.Traits.Claims]) is left
	// out, as it is where a mirror deletes.
	Claimed bool
	// Rolling says how a check at L3 goes on with those before it. At L4 it may be nil;
	// else what is read counts for later checks at L3.
	Rolling *Rolling
	// Known streams, sorted, what the place was last seen to hold, with the hashes
	// that its contents had then. With it a place whose listing has no hashes can be
	// checked to L1: what was not touched since has them still, as its inode's times
	// tell, and the rest is read. It is iterated once.
	Known iter.Seq2[entry.Entry, error]
	// Parallel is how many contents are looked at or read at once; 0 means 8.
	Parallel int
	// Limit bounds the bytes read per second; nil is no limit.
	Limit *rate.Limiter
	// Pass, if not nil, is asked before more is looked at, and returns once that may be, or
	// with an error, which ends the check. It is called by one goroutine.
	Pass func(ctx context.Context) error
	// Seen, if not nil, is told of each entry after it was looked at. It is called
	// by one goroutine.
	Seen func(entry.Entry)
	// Read, if not nil, is told how many bytes of contents were read, again and again and
	// by several goroutines at once.
	Read func(int)

	// stamps, if not nil, say how entries are told by their times.
	stamps *stamps
}

// Result is what a check has shown.
type Result struct {
	Verdict proof.Verdict
	// Unreadable are the entries whose content could not be read, and why: bit rot
	// that the place itself has noticed looks like this. They are unchecked in the
	// verdict.
	Unreadable proof.Findings
	// Read counts the contents that were read: below L3 because the place has nothing
	// of its own that could be compared at the level.
	Read int64
	// Pace is what the next check at L3 goes on with, after one that came to its end.
	Pace Pace
	// Elsewhere counts the entries of the manifest that are kept at the destination only,
	// and were not looked for in the source; Gone those that wait for deletion on the other
	// side, and were not looked for here.
	Elsewhere, Gone int64
	// LeftOut is what the filter left out.
	LeftOut LeftOut

	// low and unreadable are those of the entry that is compared now.
	low, unreadable string
}

// LeftOut is what took no part in a check.
type LeftOut struct {
	// Entries counts those of the manifest, Names what was come across in the place: a
	// directory for one, as nobody looked into it.
	Entries, Names int64
}

// Inconclusive reports whether nothing was checked, so that nothing was shown.
func (r Result) Inconclusive() bool { return r.Verdict.Nothing() }

// String is the result in one line.
func (r Result) String() string {
	text := r.said()
	if r.Unreadable.Count > 0 {
		text += fmt.Sprintf("; %d could not be read", r.Unreadable.Count)
	}
	if r.Elsewhere > 0 {
		text += fmt.Sprintf("; %d kept at the destination only, and not looked for here", r.Elsewhere)
	}
	if r.Gone > 0 {
		text += fmt.Sprintf("; %d gone from here, and waiting for deletion on the other side", r.Gone)
	}
	return text
}

func (r Result) said() string {
	switch {
	case r.Inconclusive():
		return r.Verdict.String()
	case r.Verdict.Asked == proof.L3:
		return fmt.Sprintf("%v; %d shown at L3; %d contents were read now", r.Verdict, r.Verdict.At[proof.L3], r.Read)
	case r.Read == 0 || r.Verdict.Asked >= proof.L4:
		return r.Verdict.String()
	}
	return fmt.Sprintf("%v; contents read because nothing else tells of them at %v: %d", r.Verdict, r.Verdict.Asked, r.Read)
}

// Verified reports whether the place was shown to hold what the manifest says and
// nothing else.
func (r Result) Verified() bool { return r.Verdict.Verified() && r.Unreadable.Count == 0 }

// Against compares the place with what it should hold; want is iterated several times, also at once. The
// error says that the comparison could not be made: a listing that is not complete
// proves nothing.
func (c Check) Against(ctx context.Context, want iter.Seq2[entry.Entry, error]) (Result, error) {
	t := c.Place.Traits()
	if err := c.possible(t); err != nil {
		return Result{}, err
	}
	var res Result
	var s *schedule
	if c.Level == proof.L3 {
		var err error
		if s, err = c.schedule(want); err != nil {
			return res, fmt.Errorf("check %s: %w", c.Place, err)
		}
	}
	manifest := c.filtered(want, &res)
	want = c.filtered(want, nil)
	byTimes := c.Level == proof.L1 && !t.ETags
	var names atomic.Int64
	got := c.Place.Entries(ctx, place.ListOptions{Filter: c.counted(&names)})
	if c.Level == proof.L1 && t.ETags && t.Stamp != nil {
		c.stamps = &stamps{at: t.Stamp}
		got = c.stamped(ctx, want, &names)
	}
	if c.Level > proof.L1 || byTimes || c.stamps != nil {
		got = c.examined(ctx, got, want, s, &res)
	}
	if c.Seen != nil || c.Pass != nil {
		got = c.told(ctx, got)
	}
	how := proof.Evidence{Level: c.Level, Metadata: t.Lists&plan.AttrMode != 0, Vouched: byTimes || c.Level > proof.L1}
	how.Unread = func(string) string { return res.unreadable }
	if c.Claimed {
		how.Claimed = t.Claims
	}
	if s != nil {
		how.Less = func(string) (proof.Level, bool, string) { return proof.L1, !t.ETags, res.low }
	}
	v, err := proof.Check(manifest, got, how)
	res.Verdict, res.LeftOut.Names = v, names.Load()
	if err != nil {
		return res, fmt.Errorf("check %s: %w", c.Place, err)
	}
	if s != nil {
		res.Pace = s.pace(c.Rolling.Now)
	}
	return res, nil
}

// possible tells why a place cannot be checked to the level.
func (c Check) possible(t place.Traits) error {
	switch c.Level {
	case proof.L1, proof.L3:
		if c.Level == proof.L3 && c.Rolling == nil {
			return fmt.Errorf("check %s: %w: nothing is remembered of what was read before; use L1, L2 or L4", c.Place, ErrLevel)
		}
		if !t.ETags && c.Known == nil {
			return fmt.Errorf("check %s: %w: its listing has no hashes; use L2 or L4", c.Place, ErrLevel)
		}
	case proof.L2, proof.L4:
	default:
		return fmt.Errorf("check %s: %w: %v; use L1 to L4", c.Place, ErrLevel, c.Level)
	}
	return nil
}

// filtered leaves out of the manifest what takes no part here, and counts it in res, which
// may be nil.
func (c Check) filtered(want iter.Seq2[entry.Entry, error], res *Result) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for e, err := range want {
			switch {
			case err != nil:
			case c.Filter != nil && !c.Filter(e.Path, e.Kind):
				if res != nil {
					res.LeftOut.Entries++
				}
				continue
			case lacks(c.Side, e.Lone):
				if res != nil {
					res.lone(e.Lone)
				}
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// lone counts what was not looked for as only the other side holds it.
func (r *Result) lone(l entry.Lone) {
	if l == entry.Kept {
		r.Elsewhere++
		return
	}
	r.Gone++
}

// counted is the filter, and counts what it leaves out; nil if there is none.
func (c Check) counted(names *atomic.Int64) func(string, entry.Kind) bool {
	if c.Filter == nil {
		return nil
	}
	return func(path string, kind entry.Kind) bool {
		keep := c.Filter(path, kind)
		if !keep {
			names.Add(1)
		}
		return keep
	}
}

// told tells Seen of each entry, and asks Pass before the next one.
func (c Check) told(ctx context.Context, got iter.Seq2[entry.Entry, error]) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for e, err := range got {
			if err == nil && c.Seen != nil {
				c.Seen(e)
			}
			if err == nil && c.Pass != nil {
				err = c.Pass(ctx)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// examined looks at each content, several at once, and keeps the order.
func (c Check) examined(ctx context.Context, got, want iter.Seq2[entry.Entry, error], due *schedule, res *Result) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		n := c.Parallel
		if n <= 0 {
			n = 8
		}
		queue := make(chan chan seen, n)
		running.Go(func() { c.examine(ctx, got, want, due, queue) })
		for one := range queue {
			s := <-one
			if s.read {
				res.Read++
			}
			if res.unreadable = ""; s.unreadable != nil {
				res.unreadable = s.unreadable.Error()
				res.Unreadable.Add(s.e.Key(), res.unreadable)
			}
			if err := c.remember(&s); err != nil && s.err == nil {
				s.err = fmt.Errorf("remember what was read: %w", err)
			}
			res.low = s.low
			if !yield(s.e, s.err) {
				return
			}
		}
		// Whoever looks stops when the context ends, which is not the end of what
		// there is.
		if err := ctx.Err(); err != nil {
			yield(entry.Entry{}, err)
		}
	}
}

// seen is what one look has shown.
type seen struct {
	e entry.Entry
	// read says that the content was read.
	read bool
	// unreadable says why the content could not be learnt; err ends the stream.
	unreadable, err error
	// low says why the evidence is worth L1 only where L3 was asked for.
	low string
	// mark and want are those of what was read: see [rolling.mark].
	mark, want entry.Entry
}

// examine starts the looks in the order of the entries; the queue's length bounds
// how many there are.
func (c Check) examine(ctx context.Context, got, want iter.Seq2[entry.Entry, error], due *schedule, queue chan<- chan seen) {
	var running sync.WaitGroup
	defer running.Wait()
	defer close(queue)
	like, stop := newCursor(want)
	defer stop()
	known := &cursor[entry.Entry]{}
	if c.Level == proof.L1 && c.stamps == nil {
		known, stop = newCursor(c.Known)
		defer stop()
	}
	var roll *rolling
	if c.Rolling != nil && c.Level >= proof.L3 {
		roll, stop = c.roll(ctx, due)
		defer stop()
	}
	for e, err := range got {
		one := make(chan seen, 1)
		select {
		case queue <- one:
		case <-ctx.Done():
			return
		}
		if err == nil && c.stamps.tell() {
			if then, wanted := like.at(e.Key()); !wanted || c.stamps.told(&e, &then) {
				one <- seen{e: e}
			} else {
				running.Go(func() { one <- c.lookAgain(ctx, e) })
			}
			continue
		}
		if err != nil || e.Kind != entry.File || c.stamps != nil {
			one <- seen{e: e, err: err}
			continue
		}
		s, settled := c.settled(e, known, like, roll)
		if settled {
			one <- s
			continue
		}
		running.Go(func() {
			looked := c.look(ctx, s.e, s.want.Sum)
			looked.mark, looked.want = s.mark, s.want
			one <- looked
		})
	}
}

// settled gives what is known of a file that needs no look; else false, and what to
// look for.
func (c Check) settled(e entry.Entry, known, like *cursor[entry.Entry], roll *rolling) (seen, bool) {
	if then, ok := known.at(e.Key()); ok && untouched(&e, &then) {
		e.Sum = then.Sum
		return seen{e: e}, true
	}
	hint, wanted := like.at(e.Key())
	if !wanted || c.Level < proof.L4 && hint.Kind == entry.File && hint.Sum.Has == 0 {
		e.Sum = entry.Sum{} // There is nothing to compare it with.
		return seen{e: e}, true
	}
	s := seen{e: e, want: hint}
	if roll == nil {
		return s, false
	}
	s.mark = roll.mark(&e)
	if known, ok := roll.recall(&e, &s.mark); ok {
		return known, true
	}
	return s, false
}

// untouched reports whether nothing has touched a file since it was seen.
func untouched(now, then *entry.Entry) bool {
	return now.Kind == then.Kind && now.Size == then.Size && now.MTime == then.MTime &&
		now.Change == then.Change && now.Change != entry.Change{}
}

// keyed is what has a key, by which streams are sorted.
type keyed interface{ Key() string }

// cursor moves through a stream beside another one. The zero value is at the end.
type cursor[T keyed] struct {
	next func() (T, error, bool)
	head T
	key  string
	ok   bool
	// err is why it ended before its end.
	err error
}

func newCursor[T keyed](seq iter.Seq2[T, error]) (*cursor[T], func()) {
	c := &cursor[T]{}
	next, stop := iter.Pull2(seq)
	c.next = next
	c.advance()
	return c, stop
}

// advance moves on. That the stream cannot be read is found by who compares with it.
func (c *cursor[T]) advance() {
	if c.head, c.err, c.ok = c.next(); c.err != nil {
		c.ok = false
	}
	c.key = c.head.Key()
}

// at gives what has a key, if there is one; it is asked for keys in their order.
func (c *cursor[T]) at(key string) (none T, there bool) {
	for c.ok && c.key < key {
		c.advance()
	}
	if !c.ok || c.key != key {
		return none, false
	}
	return c.head, true
}

func (c Check) look(ctx context.Context, e entry.Entry, like entry.Sum) seen {
	now, told, err := c.asked(ctx, e, like)
	if err == nil && told {
		return seen{e: now}
	}
	if err == nil {
		now.Sum, err = engine.Hash(ctx, c.Place, now, like, c.Limit, c.Read)
	}
	switch {
	case err == nil:
		return seen{e: now, read: true}
	case ctx.Err() != nil:
		return seen{e: e, err: ctx.Err()}
	}
	e.Sum = entry.Sum{}
	return seen{e: e, unreadable: err}
}

// asked gives what the place itself says of a content; false where that is not enough
// for the level, so that the content has to be read.
func (c Check) asked(ctx context.Context, e entry.Entry, like entry.Sum) (now entry.Entry, told bool, err error) {
	// Where there are ETags there may be checksums, too: each object tells.
	if c.Level != proof.L2 || !c.Place.Traits().ETags {
		return e, false, nil
	}
	now, there, err := c.Place.Look(ctx, e)
	switch {
	case err != nil:
		return e, false, err
	case !there:
		return e, false, place.ErrChanged
	}
	// A BLAKE3 is what its writer said, not what the server found.
	now.Sum.Has &= entry.HasCRC32C | entry.HasETag | entry.HasPartSize
	return now, now.Sum.Contains(entry.HasCRC32C) && like.Contains(entry.HasCRC32C), nil
}
