package placetest

import (
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

func (s *suite) remove() {
	s.put(s.file("stays", "x"))
	have := []entry.Entry{
		s.put(s.file("d/f", "x")),
		s.put(s.file("d/big", pattern(200_000))),
		s.put(s.file("gone", "x")),
		s.makeDir(s.dir("d/empty")),
		s.makeDir(s.dir("full")),
		{Path: "never/was", Size: 1},
		{Path: "never/was/dir", Kind: entry.Dir},
	}
	s.put(s.file("full/f", "x"))
	for _, w := range s.special() {
		have = append(have, s.put(w))
	}
	s.RemoveBehind("gone")
	errs := s.Place.Remove(s.Context(), have)
	if len(errs) != len(have) {
		s.Fatalf("Remove of %d gave %d errors", len(have), len(errs))
	}
	for i, err := range errs {
		switch {
		case have[i].Path == "full":
			s.wants("a directory that holds something", err, place.ErrNotEmpty)
		case err != nil:
			s.Errorf("Remove of %q: %v", have[i].Path, err)
		}
	}
	s.files(map[string]string{"stays": "x", "full/f": "x"})
	if _, ok := s.list(place.ListOptions{})["d/empty/"]; ok {
		s.Error("the empty directory is still there")
	}
	for i, err := range s.Place.Remove(s.Context(), have) {
		if err != nil && have[i].Path != "full" {
			s.Errorf("Remove of %q once more: %v", have[i].Path, err)
		}
	}
	// From the inside out, in one call.
	for i, err := range s.Place.Remove(s.Context(), []entry.Entry{s.one("full/f", entry.File), have[4]}) {
		if err != nil {
			s.Errorf("Remove of %d: %v", i, err)
		}
	}
	s.files(map[string]string{"stays": "x"})
	if got := s.Place.Remove(s.Context(), nil); len(got) != 0 {
		s.Errorf("Remove of nothing gave %v", got)
	}
}

func (s *suite) removeChanged() {
	stale := s.put(s.file("stale", "seen"))
	kept := s.put(s.file("kept", "seen"))
	written := s.put(s.file("written", "seen"))
	w := s.file("written", "again")
	w.Have = written
	s.put(w)
	s.WriteBehind("stale", "SEEN")
	errs := s.Place.Remove(s.Context(), []entry.Entry{stale, kept, written})
	if len(errs) != 3 {
		s.Fatalf("Remove gave %v", errs)
	}
	s.wants("it was changed", errs[0], place.ErrChanged)
	s.wants("it was written again", errs[2], place.ErrChanged)
	if errs[1] != nil {
		s.Errorf("Remove beside what changed: %v", errs[1])
	}
	s.files(map[string]string{"stale": "SEEN", "written": "again"})
}
