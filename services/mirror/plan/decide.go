package plan

import "github.com/firedrill/firedrill/services/mirror/entry"

// found is what is known of one key.
type found struct {
	key          string
	source, dest entry.Entry
	past         Past
	// assumed says that dest is what the last run left, not what was seen.
	assumed bool
	// unsure says, by side, that the side's stream failed before it came to this
	// key: what is absent may be there.
	unsure [2]bool
	// unsurePast says the same of the last run's stream.
	unsurePast bool
	// away says, by side that lacks the entry, that the file system in which it lay there is
	// not where it was.
	away [2]bool
	// read says, by side, that the content was read, so that its hashes are its own.
	read [2]bool
}

func (f *found) at(s Side) entry.Entry {
	if s == Source {
		return f.source
	}
	return f.dest
}

func (f *found) action(op Op, to Side) Action {
	return Action{Op: op, Key: f.key, To: to, Source: f.source, Dest: f.dest, Past: f.past, Believed: f.assumed}
}

func (f *found) because(op Op, to Side, why Reason) Action {
	a := f.action(op, to)
	a.Reason = why
	return a
}

func (f *found) doubt(to Side, source, dest bool) Action {
	a := f.action(Rehash, to)
	a.Doubt = [2]bool{Source: source, Dest: dest}
	return a
}

// Settle decides again on a Rehash, now that the hashes of what was in Doubt are
// filled into its Source and Dest, and never asks for another: what still cannot
// be shown to be equal is taken for changed. Other actions are given back.
func (r *Rules) Settle(a Action) Action {
	if a.Op != Rehash {
		return a
	}
	f := found{key: a.Key, source: a.Source, dest: a.Dest, past: a.Past, assumed: a.Believed, read: a.Doubt}
	settled, ok := r.decide(&f, true)
	if !ok {
		return a
	}
	return settled
}

// decide says what to do at one key; false where there is nothing to say. A
// Delete it gives is a wish, for the guards to judge.
func (r *Rules) decide(f *found, settled bool) (Action, bool) {
	if !Present(f.source) && !Present(f.dest) {
		return Action{}, false
	}
	if !f.read[Source] {
		f.source.Sum = r.proven(f.source.Sum, f.past.Source.Sum, f.past.Dest.Sum)
	}
	if !f.read[Dest] {
		f.dest.Sum = r.proven(f.dest.Sum, f.past.Dest.Sum, f.past.Source.Sum)
	}
	var a Action
	if r.Mode == TwoWay {
		var ok bool
		if a, ok = r.twoWay(f, settled); !ok {
			return Action{}, false
		}
	} else {
		a = r.oneWay(f, settled)
	}
	switch a.Op {
	case Equal, Meta:
		r.remember(&a)
	}
	if (a.Op == Put || a.Op == Meta) && r.claimed(f, a.To) {
		a.Op, a.Reason = Conflict, ConflictClaimed
	}
	switch a.Op {
	case Put, MakeDir, Meta: // A Rehash may show that all of it is there.
		if err := r.refused(&a); err != nil {
			a.Op, a.Err = Unholdable, err
		}
	}
	return a, true
}

// claimed reports whether what a side holds is somebody else's: no run has left it there.
func (r *Rules) claimed(f *found, on Side) bool {
	return !f.past.synced() && r.Claims[on] != nil && Present(f.at(on)) && r.Claims[on](f.key)
}

// refused is why the side To cannot hold what the action would give it.
func (r *Rules) refused(a *Action) error {
	if holds := r.Holds[a.To]; holds != nil {
		return holds(a.At(a.To.Other()))
	}
	return nil
}

// remember carries over, to content that has not changed since, what the last run
// knew and this one did not look at: hashes, and attributes that the side's stream
// does not carry.
func (r *Rules) remember(a *Action) {
	p := &a.Past
	if Present(p.Source) && r.since(a.Source, p.Source, Source, p.Dirty[Source]) == same {
		a.Source.Sum = a.Source.Sum.Merge(p.Source.Sum)
	}
	if Present(p.Dest) && r.since(a.Dest, p.Dest, Dest, p.Dirty[Dest]) == same {
		a.Dest.Sum = a.Dest.Sum.Merge(p.Dest.Sum)
	}
	if Present(p.Source) && Present(a.Source) {
		a.Source = unlisted(a.Source, p.Source, r.Lists[Source])
	}
	if Present(p.Dest) && Present(a.Dest) {
		a.Dest = unlisted(a.Dest, p.Dest, r.Lists[Dest])
	}
}

// unlisted gives now the attributes of past that a stream does not carry.
func unlisted(now, past entry.Entry, lists Attr) entry.Entry {
	if lists&AttrKind == 0 && (now.Kind == entry.Dir) == (past.Kind == entry.Dir) {
		now.Kind, now.Target, now.Device = past.Kind, past.Target, past.Device
	}
	if lists&AttrMTime == 0 {
		now.MTime = past.MTime
	}
	if lists&AttrMode == 0 {
		now.Mode = past.Mode
	}
	if lists&AttrOwner == 0 {
		now.UID, now.GID = past.UID, past.GID
	}
	if lists&AttrXattrs == 0 {
		now.Xattrs = past.Xattrs
	}
	return now
}

func create(f *found, to Side) Action {
	if f.at(to.Other()).Kind == entry.Dir {
		return f.action(MakeDir, to)
	}
	return f.action(Put, to)
}

// remove is the wish to delete what only the side holds.
func (r *Rules) remove(f *found, on Side) Action {
	other := on.Other()
	switch {
	case f.away[other]:
		return f.because(Keep, on, KeepAway)
	case r.Mode == Copy && !f.unsure[other]:
		return f.because(Keep, on, KeepMode)
	case r.claimed(f, on):
		return f.because(Keep, on, KeepClaimed)
	case f.unsure[other] || f.unsurePast:
		return f.because(Keep, on, KeepUnlisted)
	case f.past.scans(other)+1 < r.Guards.scans():
		return f.because(Keep, on, KeepMissing)
	}
	return f.action(Delete, on)
}

func (r *Rules) oneWay(f *found, settled bool) Action {
	switch {
	case !Present(f.source):
		return r.remove(f, Dest)
	case !Present(f.dest):
		return create(f, Dest)
	}
	v, source, dest := r.content(f)
	if v == doubtful && settled {
		v = changed
	}
	switch {
	case v == changed && rotten(f, Source):
		return f.because(Conflict, Dest, ConflictRotten)
	case v == changed:
		return r.overwrite(f, create(f, Dest), settled)
	case v == doubtful:
		// Whatever comes of it, it is read once.
		return f.doubt(Dest, source, dest || r.Unedited && f.past.synced() && r.shift(f, Dest) == unclear)
	case r.differ(&f.source, &f.dest, r.Lists[Source]&r.Lists[Dest]):
		return r.overwrite(f, f.action(Meta, Dest), settled)
	case Present(f.past.Source) && r.differ(&f.source, &f.past.Source, r.Lists[Source]&^r.Lists[Dest]):
		// The destination does not list these, but keeps them.
		return r.overwrite(f, f.action(Meta, Dest), settled)
	}
	return f.action(Equal, Dest)
}

// overwrite is an action that changes what the destination holds, unless that has to stay.
func (r *Rules) overwrite(f *found, a Action, settled bool) Action {
	if !r.Unedited {
		return a
	}
	if f.past.synced() {
		switch r.shift(f, Dest) {
		case stayed:
			return a
		case unclear:
			if !settled {
				return f.doubt(Dest, false, true)
			}
		}
	}
	return f.because(Conflict, Dest, ConflictEdited)
}

// content compares the two sides, with the help of the last run where it left
// both equal, and says which side has to be hashed when in doubt.
func (r *Rules) content(f *found) (v verdict, source, dest bool) {
	if r.Audit || !f.past.synced() {
		v = r.between(f.source, f.dest)
		return v, true, hashless(f.dest.Sum)
	}
	p := &f.past
	atSource, atDest := r.since(f.source, p.Source, Source, p.Dirty[Source]), same
	if !f.assumed {
		atDest = r.since(f.dest, p.Dest, Dest, p.Dirty[Dest])
	}
	switch {
	case atSource == changed && atDest == changed:
		v = r.between(f.source, f.dest) // as an interrupted run leaves it
		return v, true, hashless(f.dest.Sum)
	case atSource == changed || atDest == changed:
		// One of them is what both were: only a hash can still make them equal, and only
		// where both are files. A link may have the content of a file as its target.
		now, lists := f.dest, r.Lists[Dest]
		if atDest != changed {
			now, lists = unlisted(now, p.Dest, lists), AllAttrs
		}
		if v, ok := shape(f.source, now, r.Lists[Source]&lists); ok {
			return v, false, false
		}
		known, equal := f.source.Sum.SameAs(f.dest.Sum)
		return choose(known && equal, same, changed), false, false
	case atSource == doubtful || atDest == doubtful:
		// No hash of what both were may be known, and yet the one that was read now is that
		// of the other side.
		if known, equal := f.source.Sum.SameAs(f.dest.Sum); known && equal && (f.read[Source] || f.read[Dest]) {
			return same, false, false
		}
		// The hash of one alone tells nothing where none is known of what both were.
		source, dest = atSource == doubtful, atDest == doubtful
		return doubtful, source || hashless(p.Dest.Sum) && hashless(f.source.Sum), dest || hashless(p.Source.Sum) && hashless(f.dest.Sum)
	}
	return same, false, false
}

// shift is what happened to one side of a key since the last run.
type shift uint8

const (
	stayed shift = iota
	attrsChanged
	unclear
	contentChanged
	vanished
)

func (r *Rules) shift(f *found, s Side) shift {
	now, past := f.at(s), f.past.At(s)
	if !Present(now) {
		return vanished
	}
	switch r.since(now, past, s, f.past.Dirty[s]) {
	case changed:
		return contentChanged
	case doubtful:
		return unclear
	}
	if r.differ(&now, &past, r.Lists[s]) {
		return attrsChanged
	}
	return stayed
}

// twoWay is a three-way merge with the last run as the common ancestor. False
// means that both sides deleted the entry.
func (r *Rules) twoWay(f *found, settled bool) (Action, bool) {
	if !f.past.synced() {
		return r.twoWayNew(f, settled), true
	}
	source, dest := r.shift(f, Source), r.shift(f, Dest)
	switch {
	case source == vanished && dest == vanished:
		return Action{}, false
	case source == vanished:
		return r.vanished(f, Dest, dest), true
	case dest == vanished:
		return r.vanished(f, Source, source), true
	}
	if settled {
		source, dest = certain(source), certain(dest)
	}
	switch {
	case source == unclear || dest == unclear:
		return f.doubt(Dest, source == unclear, dest == unclear), true
	case source == stayed && dest == stayed:
		return f.action(Equal, Dest), true
	case rotten(f, Source) || rotten(f, Dest):
		return f.because(Conflict, Dest, ConflictRotten), true
	case dest == stayed:
		return carry(f, Dest, source), true
	case source == stayed:
		return carry(f, Source, dest), true
	}
	if source == attrsChanged && dest == attrsChanged {
		if r.differ(&f.source, &f.dest, r.Lists[Source]&r.Lists[Dest]) {
			return f.because(Conflict, Dest, ConflictChanged), true
		}
		return f.action(Equal, Dest), true
	}
	return r.bothChanged(f, settled), true
}

func certain(s shift) shift {
	if s == unclear {
		return contentChanged
	}
	return s
}

func carry(f *found, to Side, what shift) Action {
	if what == attrsChanged {
		return f.action(Meta, to)
	}
	return create(f, to)
}

// vanished decides on what only the side on still holds.
func (r *Rules) vanished(f *found, on Side, there shift) Action {
	if f.unsure[on.Other()] {
		return f.because(Keep, on, KeepUnlisted)
	}
	read := there == unclear
	if read {
		there = r.hashed(f, on)
	}
	if there != stayed {
		return f.because(Conflict, on, ConflictDeleted)
	}
	a, e := r.remove(f, on), f.at(on)
	if a.Op == Delete && read && r.dirty(&e) {
		// What is written into it from now on might be deleted unseen.
		a.Op, a.Reason = Keep, KeepYoung
	}
	return a
}

// hashed finds out what happened to the side whose times do not tell, by its content.
func (r *Rules) hashed(f *found, s Side) shift {
	e := f.at(s)
	if r.Hash == nil || e.Kind != entry.File {
		return unclear
	}
	sum, err := r.Hash(s, e, f.past.At(s).Sum)
	if err != nil {
		return unclear
	}
	f.read[s] = true
	if e.Sum = sum.Merge(e.Sum); s == Source {
		f.source = e
	} else {
		f.dest = e
	}
	return r.shift(f, s)
}

// twoWayNew decides on what the last run did not know.
func (r *Rules) twoWayNew(f *found, settled bool) Action {
	for _, s := range []Side{Source, Dest} {
		if !Present(f.at(s)) {
			if f.unsure[s] || f.unsurePast {
				return f.because(Keep, s.Other(), KeepUnlisted)
			}
			return create(f, s)
		}
	}
	switch v := r.between(f.source, f.dest); {
	case v == doubtful && !settled:
		return f.doubt(Dest, true, hashless(f.dest.Sum))
	case v != same:
		return f.because(Conflict, Dest, ConflictCreated)
	}
	return r.sameContent(f, ConflictCreated)
}

// bothChanged finds out whether both sides were changed to the same. Times prove
// nothing here: whoever edits both sides can set them.
func (r *Rules) bothChanged(f *found, settled bool) Action {
	if f.source.Kind == entry.File && f.dest.Kind == entry.File && f.source.Size == f.dest.Size {
		known, equal := f.source.Sum.SameAs(f.dest.Sum)
		switch {
		case !known && !settled:
			return f.doubt(Dest, true, hashless(f.dest.Sum))
		case !known || !equal:
			return f.because(Conflict, Dest, ConflictChanged)
		}
	} else if r.between(f.source, f.dest) != same {
		return f.because(Conflict, Dest, ConflictChanged)
	}
	return r.sameContent(f, ConflictChanged)
}

// sameContent decides on attributes where both sides were given the same content. An
// object may come from a program that knows no attributes, so that those of a file
// are the ones that somebody meant; of two times neither is worth a human's decision,
// and the source's is taken.
func (r *Rules) sameContent(f *found, why Reason) Action {
	attrs := r.Lists[Source] & r.Lists[Dest]
	source, dest := f.source.Change.OfInode(), f.dest.Change.OfInode()
	switch {
	case !r.differ(&f.source, &f.dest, attrs):
		return f.action(Equal, Dest)
	case dest && !source:
		return f.action(Meta, Source)
	case source == dest && r.differ(&f.source, &f.dest, attrs&^AttrMTime):
		return f.because(Conflict, Dest, why)
	}
	return f.action(Meta, Dest)
}
