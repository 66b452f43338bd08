package plan

import (
	"slices"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// within reports whether the key is the directory's or below it. A directory's
// key ends in '/'.
func within(key, dir string) bool { return strings.HasPrefix(key, dir) }

// tree is what the merge remembers of the keys that are prefixes of the one at
// hand, and of nothing else: no more than the depth of the tree and, as "a" and
// "a/" are not neighbours in the order, the files whose names begin each other.
type tree struct {
	// frames are the directories about which something is still open.
	frames []frame
	// files are, by side, the entries that are no directories and in whose place
	// one might be wanted.
	files [2][]standing
	// held are new files in whose place a directory might still turn up.
	held []Action
}

// frame is a directory about which something is open until all below it was seen.
type frame struct {
	dir string
	// lone is what is to become of a directory that one side holds alone and the
	// other shall not get, unless something new in it needs it there.
	lone *Action
	// waiting is a new file that needs the directory's place.
	waiting *Action
	// alive says, by side, that something in it stays or comes.
	alive [2]bool
}

// standing is an entry that is no directory, on one side.
type standing struct {
	key string
	// goes says that it is to be deleted.
	goes bool
	// missing is the wish to delete it in a later scan. If a directory of its name
	// turns up on the other side, it is missing for sure.
	missing *Action
}

// leave closes what ends before the key at hand; nil is behind all keys.
func (m *merger) leave(f *found) error {
	t := &m.tree
	for len(t.frames) > 0 {
		top := t.frames[len(t.frames)-1]
		if f != nil && within(f.key, top.dir) {
			break
		}
		t.frames = t.frames[:len(t.frames)-1]
		if err := m.close(&top); err != nil {
			return err
		}
	}
	for s := range t.files {
		for n := len(t.files[s]); n > 0; n-- {
			top := t.files[s][n-1]
			if f != nil && strings.HasPrefix(f.key, top.key) {
				break
			}
			t.files[s] = t.files[s][:n-1]
			if top.missing == nil {
				continue
			}
			if err := m.push(*top.missing); err != nil {
				return err
			}
		}
	}
	return m.release(f)
}

// release yields the held files that no directory can get in the way of any
// more, and sets aside those that one does.
func (m *merger) release(f *found) error {
	held := m.tree.held
	m.tree.held = held[:0]
	for _, a := range held {
		rest, prefix := "", false
		if f != nil {
			rest, prefix = strings.CutPrefix(f.key, a.Key)
		}
		switch {
		case prefix && rest < "/":
			m.tree.held = append(m.tree.held, a)
		case prefix && rest[0] == '/' && m.ahead(f, a.To, a.Key+"/"):
			m.tree.frames = append(m.tree.frames, frame{dir: a.Key + "/", waiting: &a})
		default:
			if err := m.emit(a); err != nil {
				return err
			}
		}
	}
	clear(held[len(m.tree.held):])
	return nil
}

// close decides about a directory when all below it was seen.
func (m *merger) close(fr *frame) error {
	if a := fr.lone; a != nil {
		if a.Op == Delete && fr.alive[a.To] {
			a.Op, a.Reason = Keep, KeepOccupied
		}
		if err := m.place(*a); err != nil {
			return err
		}
	}
	if a := fr.waiting; a != nil {
		if fr.alive[a.To] {
			if err := m.conflict(*a); err != nil {
				return err
			}
		} else if err := m.push(*a); err != nil {
			return err
		}
	}
	if n := len(m.tree.frames); n > 0 {
		m.tree.frames[n-1].live(fr.alive)
	}
	return nil
}

func (fr *frame) live(on [2]bool) {
	for s := range on {
		fr.alive[s] = fr.alive[s] || on[s]
	}
}

func (m *merger) conflict(a Action) error {
	a.Op, a.Reason = Conflict, ConflictKind
	return m.emit(a)
}

// visit decides about a key and puts the decision into its place.
func (m *merger) visit(f *found) error {
	if err := m.lookAlike(f); err != nil {
		return err
	}
	m.seek(f)
	a, ok := m.rules.decide(f, false)
	if !ok {
		if f.past.Key == "" || f.unsure[Source] || f.unsure[Dest] {
			return nil
		}
		return m.emit(f.action(Gone, Dest))
	}
	if a.Op == Keep && a.Reason == KeepMissing && m.replaced(a.To) {
		a.Op, a.Reason = Delete, ""
	}
	if a.Op == Keep && a.Reason == KeepAway {
		m.keepAway(&a)
	}
	m.stand(f, &a)
	there, across := f.at(a.To), f.at(a.To.Other())
	switch {
	case a.Op == Keep && a.Reason == KeepMissing && m.waits(a):
		return nil
	case (a.Op == Put || a.Op == MakeDir) && !Present(there):
		return m.arrive(f, a)
	case (a.Op == Delete || a.Op == Keep || a.Op == Conflict) && there.Kind == entry.Dir && !Present(across):
		m.openLone(a)
		return nil
	}
	return m.place(a)
}

// place hands an action on, or keeps it where the guards have to be asked first.
func (m *merger) place(a Action) error {
	if a.Op == Delete || a.Op == Keep && a.Reason == KeepMissing {
		return m.push(a)
	}
	return m.emit(a)
}

// replaced reports whether the key at hand lies in a directory in whose place the
// other side holds a file. So it cannot hold the key, and one scan is enough to say so.
func (m *merger) replaced(on Side) bool {
	return !m.rules.Both[on.Other()] && slices.ContainsFunc(m.tree.frames, func(fr frame) bool {
		return fr.waiting != nil && fr.waiting.To == on
	})
}

// waits keeps what is missing, and is no directory, until it is known whether a
// directory of its name comes.
func (m *merger) waits(a Action) bool {
	files := m.tree.files[a.To]
	if n := len(files); n > 0 && files[n-1].key == a.Key && !m.rules.Both[a.To.Other()] {
		files[n-1].missing = &a
		return true
	}
	return false
}

// stand notes which side holds something at the key, and whether it stays.
func (m *merger) stand(f *found, a *Action) {
	var alive [2]bool
	for _, s := range []Side{Source, Dest} {
		goes := a.Op == Delete && a.To == s
		alive[s] = Present(f.at(s)) && !goes
		if Present(f.at(s)) && f.at(s).Kind != entry.Dir && !m.rules.Both[s] {
			m.tree.files[s] = append(m.tree.files[s], standing{key: f.key, goes: goes})
		}
	}
	if n := len(m.tree.frames); n > 0 {
		m.tree.frames[n-1].live(alive)
	}
}

func (m *merger) openLone(a Action) {
	t := &m.tree
	if n := len(t.frames); n > 0 && t.frames[n-1].dir == a.Key {
		t.frames[n-1].lone = &a
		return
	}
	t.frames = append(t.frames, frame{dir: a.Key, lone: &a})
}

// arrive finds a place for what the side To does not hold yet.
func (m *merger) arrive(f *found, a Action) error {
	below := func(s standing) bool { return len(f.key) > len(s.key) && f.key[len(s.key)] == '/' }
	if i := slices.IndexFunc(m.tree.files[a.To], below); i >= 0 {
		there := &m.tree.files[a.To][i]
		if gone := there.missing; gone != nil {
			there.goes, there.missing = true, nil
			gone.Op, gone.Reason = Delete, ""
			if err := m.push(*gone); err != nil {
				return err
			}
		}
		if !there.goes {
			return m.conflict(a)
		}
		m.comes(a.To)
		return m.push(a)
	}
	if err := m.revive(a.To); err != nil {
		return err
	}
	m.comes(a.To)
	if a.Op == Put && !m.rules.Both[a.To] {
		m.tree.files[a.To] = append(m.tree.files[a.To], standing{key: f.key})
		m.tree.held = append(m.tree.held, a)
		return nil
	}
	return m.emit(a)
}

// comes notes that the side will hold something at the key at hand.
func (m *merger) comes(on Side) {
	if n := len(m.tree.frames); n > 0 {
		m.tree.frames[n-1].alive[on] = true
	}
}

// revive makes the directories above the key at hand, which were deleted on the
// side but got something new on the other.
func (m *merger) revive(on Side) error {
	for i := range m.tree.frames {
		fr := &m.tree.frames[i]
		if fr.lone == nil || fr.lone.To == on {
			continue
		}
		a := *fr.lone
		a.Op, a.To, a.Reason = MakeDir, on, ""
		fr.lone = nil
		if err := m.emit(a); err != nil {
			return err
		}
	}
	return nil
}
