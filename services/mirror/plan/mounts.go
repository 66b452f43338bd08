package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// mounts tells whether what is absent is gone, or only the file system that it lay in: each
// entry of the last run says where it lay. It costs nothing but where a directory lies in
// another file system than the one above, or an entry is absent.
type mounts struct {
	// now and past are, by side, the directories at hand at which another file system begins,
	// or began at the last run, from the root inwards.
	now, past [2][]mount
	// away are, by side, the file systems that are not where they were.
	away [2]away
}

// mount is a directory at which another file system begins than is above it.
type mount struct {
	dir string
	fs  entry.FSID
	// closed says that the side does not show what is in it.
	closed bool
}

// away counts what a side is not believed to have lost.
type away struct {
	entries int64
	// below is, by file system, the directory below which all of it was.
	below map[entry.FSID]string
	// more says that there were too many to be remembered.
	more bool
}

// mostAway is how many file systems are told apart, namedAway how many are named.
const (
	mostAway  = 100
	namedAway = 3
)

// top is the innermost one that the key lies in; those that end before the key are dropped.
func top(all *[]mount, key string, root entry.FSID) mount {
	n := len(*all)
	for n > 0 && !within(key, (*all)[n-1].dir) {
		n--
	}
	if *all = (*all)[:n]; n == 0 {
		return mount{fs: root}
	}
	return (*all)[n-1]
}

// enter notes in which file systems the directory at hand lies.
func (m *merger) enter(f *found) {
	for s, root := range m.rules.Roots {
		s := Side(s)
		if e := f.at(s); Present(e) && e.Kind == entry.Dir && !(f.assumed && s == Dest) {
			if e.Closed || top(&m.mounts.now[s], f.key, root).fs != e.Change.FS {
				m.mounts.now[s] = append(m.mounts.now[s], mount{f.key, e.Change.FS, e.Closed})
			}
		}
		if e := f.past.At(s); e.Kind == entry.Dir && e.Change.OfInode() && top(&m.mounts.past[s], f.key, root).fs != e.Change.FS {
			m.mounts.past[s] = append(m.mounts.past[s], mount{dir: f.key, fs: e.Change.FS})
		}
	}
}

// shut reports whether a side that has to show the key does not, as it lies in a file system
// that is left out: nothing follows from that, as if a filter left the key out.
func (m *merger) shut(f *found) bool {
	for s, all := range m.mounts.now {
		s := Side(s)
		if len(all) > 0 && (s == Source || m.rules.Mode == TwoWay) && !Present(f.at(s)) && top(&m.mounts.now[s], f.key, entry.FSID{}).closed {
			return true
		}
	}
	return false
}

// seek finds out, of an entry that a side lacks, whether the file system is there in which
// it lay when it was seen last. Where the places are accepted as they are, it need not
// be: from now on nobody knows where it lay, and it begins to be missing.
func (m *merger) seek(f *found) {
	for _, s := range []Side{Source, Dest} {
		past := f.past.At(s)
		if Present(f.at(s)) || f.unsure[s] || s == Dest && m.rules.Mode != TwoWay || !Present(past) || !past.Change.OfInode() ||
			top(&m.mounts.now[s], f.key, m.rules.Roots[s]).fs == past.Change.FS {
			continue
		}
		if m.rules.Accept {
			past.Change = entry.Change{}
			f.past.set(s, past)
			f.past.Missing[s] = 0
			continue
		}
		f.away[s] = true
	}
}

// keepAway counts an entry that is kept as the file system that it lay in is not there.
func (m *merger) keepAway(a *Action) {
	s := a.To.Other()
	past := a.Past.At(s)
	fs := past.Change.FS
	dir := a.Key[:strings.LastIndexByte(a.Key, '/')+1]
	if began := top(&m.mounts.past[s], a.Key, m.rules.Roots[s]); began.fs == fs && began.dir != "" {
		dir = began.dir
	}
	all := &m.mounts.away[s]
	all.entries++
	before, known := all.below[fs]
	switch {
	case known:
		all.below[fs] = above(before, dir)
	case len(all.below) == mostAway:
		all.more = true
	case all.below == nil:
		all.below = map[entry.FSID]string{fs: dir}
	default:
		all.below[fs] = dir
	}
}

// above is the innermost directory that holds both, or is them; "" is the root.
func above(a, b string) string {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return a[:strings.LastIndexByte(a[:n], '/')+1]
}

// refusal says what of a side is not where it was; false if all is.
func (w *away) refusal(s Side) (Refusal, bool) {
	if w.entries == 0 {
		return Refusal{}, false
	}
	var dirs []string
	for _, dir := range w.below {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	var names []string
	for _, dir := range dirs[:min(len(dirs), namedAway)] {
		if dir = strings.TrimSuffix(dir, "/"); dir == "" {
			dir = "."
		}
		names = append(names, fmt.Sprintf("%q", dir))
	}
	value := fmt.Sprintf("another file system, or none, at %s in the %s", strings.Join(names, ", "), s)
	switch n := len(dirs) - len(names); {
	case w.more:
		value += fmt.Sprintf(" and at more than %d other places", n)
	case n > 0:
		value += fmt.Sprintf(" and at %d other places", n)
	}
	return Refusal{
		Guard: GuardMount, Value: value, Limit: "the one that was there before", Deletes: w.entries,
		Fix: "mount it; if it was unmounted, replaced or removed on purpose, run once with --accept-places",
	}, true
}
