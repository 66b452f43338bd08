package wire

import (
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// AppendEntry appends a single entry to b. What was written is independent of what
// b held.
func AppendEntry(b []byte, e entry.Entry) []byte { return new(Encoder).AppendEntry(b, e) }

// AppendPast appends, alone, what the last run left at one key.
func AppendPast(b []byte, p plan.Past) []byte { return new(Encoder).AppendPast(b, p) }

// AppendAction appends a single action. Of its Err only the text travels.
func AppendAction(b []byte, a plan.Action) []byte { return new(Encoder).AppendAction(b, a) }

// Encoder writes a sequence of items, each as a difference to those before; a
// [Decoder] reads them in the same order. Items of several kinds may be mixed.
// The zero value begins a sequence, and assigning it begins another. It keeps the
// strings and the maps of the last items. It is used by one goroutine.
type Encoder struct{ m memory }

// AppendEntry appends an entry to b.
func (w *Encoder) AppendEntry(b []byte, e entry.Entry) []byte {
	b = w.begin(b, itemEntry)
	var base entry.Entry
	w.m.before(&base, plan.Source, w.m.sides[plan.Source].Path)
	b = appendEntry(b, &e, &base)
	w.m.keep(plan.Source, &e)
	return b
}

// AppendPast appends what the last run left at one key to b.
func (w *Encoder) AppendPast(b []byte, p plan.Past) []byte {
	b = w.begin(b, itemPast)
	b = w.key(b, p.Key)
	b = appendCounts(b, &p, 0)
	return w.sides(b, p.Key, &p.Source, &p.Dest)
}

// AppendAction appends an action to b. Of its Err only the text travels.
func (w *Encoder) AppendAction(b []byte, a plan.Action) []byte {
	b = w.begin(b, itemAction)
	b = w.key(b, a.Key)
	var flags byte
	set := func(bit byte, on bool) {
		if on {
			flags |= bit
		}
	}
	set(doubtSource, a.Doubt[plan.Source])
	set(doubtDest, a.Doubt[plan.Dest])
	set(withReason, a.Reason != "")
	set(withTwin, a.Twin != "")
	set(withErr, a.Err != nil)
	b = append(b, byte(a.Op), byte(a.To), flags)
	b = w.sides(b, a.Key, &a.Source, &a.Dest)
	b = appendThen(b, &a)
	if a.Reason != "" {
		b = appendText(b, string(a.Reason), w.m.reason)
		w.m.reason = string(a.Reason)
	}
	if a.Twin != "" {
		b = appendText(b, a.Twin, a.Key)
	}
	if a.Err != nil {
		b = appendBytes(b, a.Err.Error())
	}
	return b
}

// What an action has, besides what it always has.
const (
	doubtSource = 1 << iota
	doubtDest
	withReason
	withTwin
	withErr
	actionFlags = withErr<<1 - 1
)

// What a Past has, besides what it always has.
const (
	dirtySource = 1 << iota
	dirtyDest
	missingSource
	missingDest
	// sameKey: an action's Past has the action's key.
	sameKey
)

func (w *Encoder) begin(b []byte, i item) []byte {
	b = append(b, lead(i, w.m.began))
	w.m.began = true
	return b
}

func (w *Encoder) key(b []byte, key string) []byte {
	b = appendText(b, key, w.m.key)
	w.m.key = key
	return b
}

// sides writes what both sides hold at the key.
func (w *Encoder) sides(b []byte, key string, source, dest *entry.Entry) []byte {
	path := pathOf(key)
	var base entry.Entry
	w.m.before(&base, plan.Source, path)
	b = appendEntry(b, source, &base)
	w.m.beside(&base, source, path)
	b = appendEntry(b, dest, &base)
	w.m.keep(plan.Source, source)
	w.m.keep(plan.Dest, dest)
	return b
}

// appendCounts writes what a Past knows besides its entries.
func appendCounts(b []byte, p *plan.Past, flags byte) []byte {
	for s := range p.Dirty {
		if p.Dirty[s] {
			flags |= dirtySource << s
		}
		if p.Missing[s] != 0 {
			flags |= missingSource << s
		}
	}
	b = append(b, flags)
	for _, n := range p.Missing {
		if n != 0 {
			b = append(b, n)
		}
	}
	return b
}

// appendThen writes what an action knows of the last run.
func appendThen(b []byte, a *plan.Action) []byte {
	p := &a.Past
	if p.Key == a.Key {
		b = appendCounts(b, p, sameKey)
	} else {
		b = appendCounts(b, p, 0)
		b = appendText(b, p.Key, a.Key)
	}
	path := pathOf(a.Key)
	base := then(&a.Source, &a.Dest, path)
	b = appendEntry(b, &p.Source, &base)
	base = then(&a.Dest, &a.Source, path)
	return appendEntry(b, &p.Dest, &base)
}
