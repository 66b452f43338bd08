package placetest

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// bin is what the contract puts aside into.
var bin = place.Bin{Of: "m", Run: "17-abc", At: time.Date(2026, 11, 23, 14, 8, 27, 0, time.UTC)}

// keeper is the place as one that keeps what is removed.
func (s *suite) keeper() place.Keeper {
	s.Helper()
	k, ok := s.Place.(place.Keeper)
	if !ok {
		s.Fatalf("%T keeps nothing", s.Place)
	}
	return k
}

// kept is what is kept, by key.
func (s *suite) kept(o place.KeptOptions) map[string]place.Kept {
	s.Helper()
	all := map[string]place.Kept{}
	for k, err := range s.keeper().Kept(s.Context(), o) {
		if err != nil {
			s.Fatalf("Kept: %v", err)
		}
		all[k.Entry.Key()] = k
	}
	return all
}

func keys[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), " ")
}

func (s *suite) aside() {
	s.put(s.file("stays", "x"))
	s.put(s.file("d/stays", "x"))
	have := []entry.Entry{
		s.put(s.file("d/f", "content")),
		s.put(s.file("d/big", pattern(200_000))),
		s.put(s.file("d/large", pattern(1<<20+77))),
		s.put(s.file("d/none", "")),
		s.put(s.file("new\nline \xff", "x")),
		s.put(s.file("e/sub/f", "x")),
		s.makeDir(s.dir("e/sub")),
		s.makeDir(s.dir("e")),
		s.makeDir(s.dir("empty")),
	}
	for _, w := range s.special() {
		have = append(have, s.put(w))
	}
	s.finished()
	before := s.list(place.ListOptions{})
	for key, e := range before {
		e.Sum.Has &^= entry.HasETag // which is another one of what was copied in parts
		before[key] = e
	}
	for range 2 {
		for i, err := range s.keeper().PutAside(s.Context(), bin, have) {
			if err != nil {
				s.Fatalf("PutAside of %q: %v", have[i].Path, err)
			}
		}
	}
	s.files(map[string]string{"stays": "x", "d/stays": "x"})
	kept := s.kept(place.KeptOptions{})
	for _, e := range have {
		k, ok := kept[e.Key()]
		if !ok {
			s.Errorf("%q is not kept", e.Path)
		}
		if own := k.Bin == bin; own == s.traits.Versioned && e.Kind != entry.Dir {
			s.Errorf("%q is kept by %v", e.Path, k.Bin)
		}
	}
	if len(kept) != len(have) {
		s.Errorf("%d are kept, of %d: %s", len(kept), len(have), keys(kept))
	}
	if got := keys(s.kept(place.KeptOptions{Under: []string{"e/sub", "d/f", "d/larg"}})); got != "d/f e/sub/ e/sub/f" {
		s.Errorf("Kept of some gives %s", got)
	}
	if got := keys(s.kept(place.KeptOptions{Under: []string{"e/sub/f", "d/f"}, Above: true})); got != "d/f e/ e/sub/ e/sub/f" {
		s.Errorf("Kept of some with the directories above gives %s", got)
	}
	if got := keys(s.kept(place.KeptOptions{Under: []string{"e/sub/f"}, Above: true})); got != "e/ e/sub/ e/sub/f" {
		s.Errorf("Kept of one with the directories above gives %s", got)
	}
	if got := s.kept(place.KeptOptions{Run: "other"}); len(got) > 0 {
		s.Errorf("Kept of another run gives %s", keys(got))
	}
	s.restored(kept, before)
}

// restored brings back all that is kept: then the place holds what it did before.
func (s *suite) restored(kept map[string]place.Kept, before map[string]entry.Entry) {
	s.Helper()
	for _, key := range slices.Sorted(maps.Keys(kept)) { // directories before what is in them
		got, err := s.keeper().Restore(s.Context(), kept[key])
		if err != nil {
			s.Fatalf("Restore of %q: %v", key, err)
		}
		s.same("Restore gave", got, before[key])
	}
	s.finished()
	after := s.list(place.ListOptions{})
	for key, e := range before {
		if key == "d/" || key == "k/" {
			continue // in which something was written
		}
		s.same("after all was restored there is", after[key], e)
	}
	for path, want := range map[string]string{"d/large": pattern(1<<20 + 77), "d/f": "content", "d/none": ""} {
		if got := s.content(s.one(path, entry.File)); got != want {
			s.Errorf("%q holds %s", path, brief(got, true))
		}
	}
	if kept := s.kept(place.KeptOptions{}); len(kept) > 0 {
		s.Errorf("still kept: %s", keys(kept))
	}
}

func (s *suite) asideChanged() {
	stale, kept := s.put(s.file("stale", "seen")), s.put(s.file("kept", "seen"))
	full := s.makeDir(s.dir("full"))
	s.put(s.file("full/f", "x"))
	s.WriteBehind("stale", "SEEN")
	errs := s.keeper().PutAside(s.Context(), bin, []entry.Entry{stale, kept, full})
	s.wants("it was changed", errs[0], place.ErrChanged)
	s.wants("it is not empty", errs[2], place.ErrNotEmpty)
	if errs[1] != nil {
		s.Errorf("PutAside beside what changed: %v", errs[1])
	}
	s.files(map[string]string{"stale": "SEEN", "full/f": "x"})
	all := s.kept(place.KeptOptions{})
	if got := keys(all); got != "kept" {
		s.Errorf("there is kept: %s", got)
	}
	// What exists now is not written over, whatever it is.
	s.WriteBehind("kept", "new")
	_, err := s.keeper().Restore(s.Context(), all["kept"])
	s.wants("something has its name", err, place.ErrChanged)
	s.files(map[string]string{"stale": "SEEN", "full/f": "x", "kept": "new"})
	s.RemoveBehind("kept")
	if s.traits.Versioned { // that was a deletion as well
		all = s.kept(place.KeptOptions{})
	}
	if _, err = s.keeper().Restore(s.Context(), all["kept"]); err != nil {
		s.Errorf("Restore once nothing is in its way: %v", err)
	}
	_, err = s.keeper().Restore(s.Context(), all["kept"])
	s.wants("it was restored already", err, place.ErrChanged)
}

// free asks what could be brought back, which changes nothing.
func (s *suite) free() {
	s.put(s.file("f", "x"))
	s.makeDir(s.dir("d"))
	s.put(s.file("d/f", "x"))
	s.put(s.file("implied/f", "x"))
	file, dir := s.file("", "").Entry, s.dir("")
	for _, c := range []struct {
		path  string
		like  entry.Entry
		taken bool
	}{
		{"f", file, true}, {"f", dir, !s.traits.Both}, {"d", dir, false}, {"d", file, !s.traits.Both},
		{"implied", dir, false}, {"implied", file, !s.traits.Both}, {"d/f", file, true},
		{"none", file, false}, {"none", dir, false}, {"none/deep/f", file, false}, {"none/deep", dir, false}, {"d/none", file, false},
	} {
		e := c.like
		e.Path = c.path
		switch err := s.keeper().Free(s.Context(), place.Kept{Entry: e}); {
		case c.taken:
			s.wants("something stands where the "+e.Kind.String()+" "+c.path+" is to be", err, place.ErrChanged)
		case err != nil:
			s.Errorf("the %s %q could not be there: %v", e.Kind, c.path, err)
		}
	}
	s.files(map[string]string{"f": "x", "d/f": "x", "implied/f": "x"})
}

func (s *suite) prune() {
	old, young := place.Bin{Of: bin.Of, Run: "old", At: bin.At.Add(-time.Hour)}, place.Bin{Of: bin.Of, Run: "young", At: bin.At.Add(time.Hour)}
	theirs := place.Bin{Of: "other", Run: "theirs", At: old.At}
	for _, b := range []place.Bin{old, bin, young, theirs} {
		dir := s.makeDir(s.dir(b.Run))
		f := s.put(s.file(b.Run+"/f", "x"))
		for _, err := range s.keeper().PutAside(s.Context(), b, []entry.Entry{f, dir}) {
			if err != nil {
				s.Fatal(err)
			}
		}
	}
	for path, content := range map[string]string{
		place.Trash + "/mine/f": "m", place.Trash + "/20200101T000000Z-/f": "", place.Trash + "/20200101T000000Z-a.b.c/f": "",
		place.Trash + "/20201301T000000Z-a/f": "",
	} {
		s.WriteBehind(path, content)
	}
	if n, err := s.keeper().Prune(s.Context(), "", young.At.Add(time.Hour)); err != nil || n != 0 {
		s.Fatalf("Prune of no mirror's gave %d, %v", n, err)
	}
	n, err := s.keeper().Prune(s.Context(), bin.Of, bin.At)
	if err != nil || n != 1 && !s.traits.Versioned {
		s.Fatalf("Prune gave %d, %v", n, err)
	}
	if got, want := keys(s.kept(place.KeptOptions{})), "17-abc/ 17-abc/f theirs/ theirs/f young/ young/f"; got != want && !s.traits.Versioned {
		s.Errorf("kept after Prune: %s", got)
	}
	if got := keys(s.kept(place.KeptOptions{Since: young.At})); got != "young/ young/f" && !s.traits.Versioned {
		s.Errorf("kept since the last: %s", got)
	}
	if n, err := s.keeper().Prune(s.Context(), bin.Of, young.At.Add(time.Hour)); err != nil || n != 2 && !s.traits.Versioned {
		s.Errorf("Prune of the rest gave %d, %v", n, err)
	}
	if got := keys(s.kept(place.KeptOptions{})); got != "theirs/ theirs/f" && !s.traits.Versioned {
		s.Errorf("kept by another mirror: %s", got)
	}
	if n, err := s.keeper().Prune(s.Context(), theirs.Of, young.At); err != nil || n != 1 && !s.traits.Versioned {
		s.Errorf("Prune of the other mirror's gave %d, %v", n, err)
	}
	// What no mirror has put there is nobody's to remove, and is told.
	if got := s.leftOut(); got != place.Trash {
		s.Errorf("left out: %s", got)
	}
	if got := s.kept(place.KeptOptions{Run: "17-abc"}); len(got) > 0 {
		s.Errorf("still kept: %s", keys(got))
	}
	for _, path := range []string{"mine/f", "20200101T000000Z-/f", "20200101T000000Z-a.b.c/f", "20201301T000000Z-a/f"} {
		s.RemoveBehind(place.Trash + "/" + path)
	}
}

// leftOut lists the place, and gives what it is told of.
func (s *suite) leftOut() string {
	s.Helper()
	var mu sync.Mutex
	told := map[string]bool{}
	for _, e := range s.list(place.ListOptions{LeftOut: func(path string) {
		mu.Lock()
		defer mu.Unlock()
		told[path] = true
	}}) {
		if _, is := place.InTrash(e.Path); is {
			s.Errorf("%q is listed", e.Path)
		}
	}
	return keys(told)
}

func (s *suite) reserved() {
	for _, path := range []string{
		place.Trash + "/x", "a/" + place.Trash + "/x", "b/" + place.Trash, "c/" + place.Trash + "/" + bin.String() + "/f", "c" + place.Trash, place.Trash + "c",
	} {
		s.WriteBehind(path, "x")
	}
	s.files(map[string]string{"c" + place.Trash: "x", place.Trash + "c": "x"})
	if got, want := s.leftOut(), place.Trash+" a/"+place.Trash+" b/"+place.Trash; got != want {
		s.Errorf("left out: %s; want %s", got, want)
	}
	for _, path := range []string{place.Trash, "d/" + place.Trash, "d/" + place.Trash + "/f"} {
		if _, err := s.Place.Put(s.Context(), s.file(path, "x")); err == nil {
			s.Errorf("%q was written", path)
		}
		if s.traits.Holds(entry.Entry{Path: path}) == nil {
			s.Errorf("%q can be held", path)
		}
	}
}

func (s *suite) asideReadOnly() {
	f := s.put(s.file("f", "x"))
	gone := s.put(s.file("gone", "x"))
	if err := s.keeper().PutAside(s.Context(), bin, []entry.Entry{gone})[0]; err != nil {
		s.Fatal(err)
	}
	ro, ok := s.ReadOnly().(place.Keeper)
	if !ok {
		s.Fatal("opened for reading it keeps nothing")
	}
	s.wants("PutAside", ro.PutAside(s.Context(), bin, []entry.Entry{f})[0], place.ErrReadOnly)
	kept := s.kept(place.KeptOptions{})
	_, err := ro.Restore(s.Context(), kept["gone"])
	s.wants("Restore", err, place.ErrReadOnly)
	if !s.traits.Versioned {
		_, err = ro.Prune(s.Context(), bin.Of, bin.At.Add(time.Hour))
		s.wants("Prune", err, place.ErrReadOnly)
	}
	if got := keys(s.kept(place.KeptOptions{})); got != "gone" {
		s.Errorf("kept: %s", got)
	}
	s.files(map[string]string{"f": "x"})
}
