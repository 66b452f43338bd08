package engine

import (
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Item is a piece of work for one worker: actions that do not depend on each
// other, unless it is Ordered.
type Item struct {
	// Seq numbers the items of a run from 1.
	Seq     int64
	Actions []plan.Action
	// Ordered says that the actions are carried out one after the other. Once one
	// failed that was to write, the rest is ErrHeldBack: what it was to bring may be
	// all that is left of what comes next to be deleted. A delete that failed keeps
	// nobody else from being deleted.
	Ordered bool
	// Single says that each write is made on its own, under its own condition, and
	// not in batches, which may overwrite what was written a moment ago: for runs
	// between two sides that both are written to by others.
	Single bool
	// Names says that of what is to be copied no more than names, sizes and ETags were
	// listed: whoever opens it is told what it is. What turns out not to be what it
	// looked like comes back as a Rehash, for whoever made the plan to settle.
	Names bool
	// Bin is where what is deleted is put aside; the zero Bin is nowhere: it is deleted for
	// good.
	Bin place.Bin
	// DryRun asks only what the actions would come to.
	DryRun bool
	// Parts, if not nil, says that of the one action, which is a Put, only these parts
	// are to be uploaded. They are joined by whoever made the item.
	Parts *PartRange
}

// Done is what became of an action.
type Done struct {
	// Action is the action, settled if it was a Rehash. If Err is nil its Source and
	// Dest are what the places hold now.
	Action plan.Action
	Err    error
	// Parts are what the place said of the parts, in their order, if Err is nil and the
	// item was one of parts. The action is then as it was.
	Parts [][]byte
}

// What one item holds at most where the destination has no batches of its own.
const (
	itemActions = 256
	itemBytes   = 8 << 20
)

// worthwhile is how many actions are sent off while somebody waits for work: a batch of
// fewer costs more for each.
const worthwhile = 64

// weight is how many bytes an action is about to move.
func weight(a *plan.Action) int64 {
	switch a.Op {
	case plan.Put, plan.Rehash:
		return max(a.Source.Size, a.Dest.Size)
	}
	return 0
}

// batcher gathers actions into items. Small files are gathered by destination, so
// that each item is one batch; a file that is not small is an item of its own.
type batcher struct {
	traits [2]place.Traits
	// names says that of the source no more than names are known.
	names bool
	dry   bool
	// single is [Item.Single].
	single bool
	emit   func(Item) error
	// idle reports whether a worker waits for an item.
	idle func() bool
	// first, if not nil, carries out an item before it returns. It is for
	// directories: one that a file inside made on its way, and to which nobody came
	// to give its attributes, is one that both sides have and a conflict.
	first func(Item) error

	dirs  pending
	small [2]pending
	// other is what moves little: directories, links, attributes.
	other pending
}

type pending struct {
	actions []plan.Action
	bytes   int64
}

func (b *batcher) add(a plan.Action) error {
	if a.Op == plan.MakeDir && b.first != nil {
		b.dirs.actions = append(b.dirs.actions, a)
		if len(b.dirs.actions) < itemActions {
			return nil
		}
		return b.flushDirs()
	}
	if !isFile(&a) || a.Op == plan.Meta {
		return b.to(&b.other, a, itemActions, itemBytes)
	}
	t := b.traits[a.To]
	n, limit, small := t.Batch, t.BatchBytes, t.Small
	if n == 0 {
		n, limit, small = itemActions, itemBytes, itemBytes/8
	}
	if a.Op != plan.Put || weight(&a) > small {
		if weight(&a) > small {
			return b.send(Item{Actions: []plan.Action{a}})
		}
		return b.to(&b.other, a, itemActions, itemBytes)
	}
	return b.to(&b.small[a.To], a, n, limit)
}

func isFile(a *plan.Action) bool {
	e := a.At(a.To.Other())
	return plan.Present(e) && e.Kind == entry.File
}

func (b *batcher) to(p *pending, a plan.Action, n int, bytes int64) error {
	if len(p.actions) > 0 && p.bytes+weight(&a) > bytes {
		if err := b.flushOne(p); err != nil {
			return err
		}
	}
	p.actions = append(p.actions, a)
	p.bytes += weight(&a)
	if len(p.actions) >= n || len(p.actions) >= worthwhile && b.idle() {
		return b.flushOne(p)
	}
	return nil
}

func (b *batcher) flushOne(p *pending) error {
	if len(p.actions) == 0 {
		return nil
	}
	it := Item{Actions: p.actions}
	*p = pending{}
	return b.send(it)
}

// flush sends what is gathered so far.
func (b *batcher) flush() error {
	if err := b.flushDirs(); err != nil {
		return err
	}
	for _, p := range []*pending{&b.small[plan.Source], &b.small[plan.Dest], &b.other} {
		if err := b.flushOne(p); err != nil {
			return err
		}
	}
	return nil
}

func (b *batcher) send(it Item) error {
	if err := b.flushDirs(); err != nil {
		return err
	}
	return b.emit(b.mark(it))
}

// flushDirs makes the directories that wait.
func (b *batcher) flushDirs() error {
	if len(b.dirs.actions) == 0 {
		return nil
	}
	it := Item{Actions: b.dirs.actions}
	b.dirs = pending{}
	return b.first(b.mark(it))
}

func (b *batcher) mark(it Item) Item {
	it.DryRun, it.Single, it.Names = b.dry, b.single, b.names
	return it
}
