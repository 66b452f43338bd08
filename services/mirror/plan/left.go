package plan

import (
	"errors"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// passOver counts the next key, and moves on, where nothing is to be decided or to be
// remembered of it: the source holds the very file that the last run left, and the
// destination is believed. Nearly all keys of nearly all runs are such, and this is the
// short way through next, leave and visit for them. Where it gives false, those have
// everything left to do.
func (m *merger) passOver() (bool, error) {
	source, past := m.sides[Source], m.past
	if m.rules.AsLeft == nil || m.in.Dest != nil || source.ended || past.ended || source.failed || past.failed ||
		source.headKey != past.headKey || !m.rules.asLeft(source.head, past.head) || !m.tree.passes(source.headKey) {
		return false, nil
	}
	for s := range m.tally.seen {
		m.tally.seen[s]++
		m.tally.content[s]++
		if !m.rules.Both[s] {
			m.tree.files[s] = append(m.tree.files[s], standing{key: source.headKey})
		}
	}
	m.report.Seen = m.tally.seen
	size := source.head.Size
	m.left.number++
	m.left.bytes += size
	m.rules.AsLeft(size)
	if err := errors.Join(source.advance(), past.advance()); err != nil {
		return true, err
	}
	return true, m.settleLate()
}

// left counts what was passed over.
type left struct{ number, bytes int64 }

// report adds what was passed over to what was yielded.
func (l left) report(r *Report) {
	if l.number > 0 {
		r.Ops[Equal] += l.number
		r.Bytes[Equal] += l.bytes
	}
}

// asLeft reports whether decide would find the file equal to what the last run left,
// believing the destination, and Next nothing else to remember of it. An ASCII name has
// no twin in another normal form.
func (r *Rules) asLeft(now *entry.Entry, past *Past) bool {
	then := &past.Source
	return now.Kind == entry.File && then.Kind == entry.File && past.Dest.Kind == entry.File &&
		then.Path == now.Path && past.Dest.Path != "" &&
		now.Size == then.Size && now.MTime == then.MTime && now.Change == then.Change && now.Change != (entry.Change{}) &&
		now.Mode == then.Mode && now.UID == then.UID && now.GID == then.GID &&
		past.Missing == [2]uint8{} && past.Dirty == [2]bool{} &&
		now.Sum.Has == 0 && len(now.Xattrs) == 0 && len(then.Xattrs) == 0 &&
		r.Mode != TwoWay && !r.Audit && r.Lists[Source]&(AttrKind|AttrMTime) == AttrKind|AttrMTime &&
		past.Dest.Size == now.Size && ascii(now.Path) && !r.dirty(now) &&
		!r.differ(now, &past.Dest, r.Lists[Source]&r.Lists[Dest])
}

// passes reports whether nothing is open that the key at hand, a file's on both sides,
// could have a part in. What ends before it and needs no more closing is closed, as leave
// would.
func (t *tree) passes(key string) bool {
	if len(t.frames) > 0 || len(t.held) > 0 {
		return false
	}
	for s, files := range t.files {
		n := len(files)
		for ; n > 0 && !strings.HasPrefix(key, files[n-1].key); n-- {
			if files[n-1].missing != nil {
				return false
			}
		}
		t.files[s] = files[:n]
	}
	return true
}
