package placetest

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

func (s *suite) ranges() {
	const size = 300_000
	content := pattern(size)
	s.put(s.file("f", content))
	s.put(s.file("empty", ""))
	e, empty := s.one("f", entry.File), s.one("empty", entry.File)
	for _, c := range []struct {
		e      entry.Entry
		off, n int64
		want   string
	}{
		{e, 0, -1, content}, {e, 0, size, content}, {e, 0, 1, content[:1]}, {e, 0, 0, ""},
		{e, 7, 100_000, content[7:100_007]}, {e, 131_072, -1, content[131_072:]},
		{e, size - 1, 1, content[size-1:]}, {e, size - 1, -1, content[size-1:]}, {e, size, -1, ""},
		{empty, 0, -1, ""}, {empty, 0, 0, ""},
	} {
		r, err := s.Place.Open(s.Context(), c.e, c.off, c.n)
		if err != nil {
			s.Errorf("Open of %q from %d on, %d bytes: %v", c.e.Path, c.off, c.n, err)
			continue
		}
		var summed func() uint32
		if r, is := r.(place.Summed); is {
			summed = r.CRC32C()
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != c.want {
			s.Errorf("%q from %d on, %d bytes: got %s, %v; want %s", c.e.Path, c.off, c.n, brief(string(got), true), err, brief(c.want, true))
		}
		if want := crc32.Checksum(got, crc32.MakeTable(crc32.Castagnoli)); summed != nil && summed() != want {
			s.Errorf("%q from %d on, %d bytes: it sums itself up to %08x, and is %08x", c.e.Path, c.off, c.n, summed(), want)
		}
		if err := r.Unchanged(); err != nil {
			s.Errorf("Unchanged of %q: %v", c.e.Path, err)
		}
		s.close(r)
	}
	// Not all is read, and it is closed all the same.
	r, err := s.Place.Open(s.Context(), e, 0, -1)
	if err != nil {
		s.Fatalf("Open: %v", err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		s.Errorf("read: %v", err)
	}
	s.close(r)
}

func (s *suite) readChanged() {
	old := pattern(100_000)
	for _, c := range []struct {
		name  string
		world func(path string)
	}{
		{"replaced", func(path string) { s.WriteBehind(path, strings.Repeat("X", len(old))) }},
		{"removed", s.RemoveBehind},
	} {
		s.put(s.file(c.name, old))
		e := s.one(c.name, entry.File)
		r, err := s.Place.Open(s.Context(), e, 0, -1)
		if err != nil {
			s.Fatalf("Open: %v", err)
		}
		c.world(c.name)
		got, err := io.ReadAll(r)
		if err == nil {
			err = r.Unchanged()
		}
		// An object that was opened may be read to its end.
		if err == nil && string(got) != old || err != nil && !errors.Is(err, place.ErrChanged) {
			s.Errorf("what was %s while it was read gave %s, %v", c.name, brief(string(got), true), err)
		}
		s.close(r)
		s.notOpened("what was "+c.name, e)
	}
	s.notOpened("what never was", s.attrs(entry.Entry{Path: "never/was", Size: 3}))
}

// notOpened checks that what is no longer e is not read as e. A place may find
// out only when it reads.
func (s *suite) notOpened(what string, e entry.Entry) {
	s.Helper()
	r, err := s.Place.Open(s.Context(), e, 0, -1)
	if err == nil {
		_, err = io.ReadAll(r)
		s.close(r)
	}
	s.wants("Open of "+what, err, place.ErrChanged)
}

func (s *suite) look() {
	file := s.put(s.file("d/f", "content"))
	dir := s.makeDir(s.dir("d/e"))
	s.finished()
	s.listed(file, dir)
	for _, e := range []entry.Entry{
		{Path: "d/g"}, {Path: "nowhere/f"}, {Path: "d/f/below"}, {Path: "d/g", Kind: entry.Dir},
	} {
		if got, ok, err := s.Place.Look(s.Context(), e); ok || err != nil {
			s.Errorf("Look at %q, which is not there: %+v, %v", e.Key(), got, err)
		}
	}
	s.WriteBehind("d/f", "more content")
	got, ok, err := s.Place.Look(s.Context(), file)
	if err != nil || !ok || got.Size != int64(len("more content")) {
		s.Errorf("Look after a change: %+v, %t, %v", got, ok, err)
	}
	s.RemoveBehind("d/f")
	if got, ok, err := s.Place.Look(s.Context(), file); ok || err != nil {
		s.Errorf("Look after the end: %+v, %v", got, err)
	}
	if s.traits.Both {
		return
	}
	// The key of a directory and that of a file are not the same.
	for _, e := range []entry.Entry{{Path: "d/e"}, {Path: "d", Kind: entry.File}} {
		if got, ok, err := s.Place.Look(s.Context(), e); ok || err != nil {
			s.Errorf("Look at the file %q, which is a directory: %+v, %v", e.Path, got, err)
		}
	}
}

func (s *suite) filter() {
	for _, path := range []string{"a", "b/c", "b/d/e", "b.f", "g/h"} {
		s.put(s.file(path, path))
	}
	s.makeDir(s.dir("b/d"))
	var mu sync.Mutex
	var inside []string
	all := s.list(place.ListOptions{Filter: func(path string, kind entry.Kind) bool {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(path, "b/d/") {
			inside = append(inside, path)
		}
		return path != "b/d" && path != "b.f" && path != "g/h"
	}})
	var got []string
	for _, e := range all {
		if e.Kind == entry.File {
			got = append(got, e.Path)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b/c"}) {
		s.Errorf("the filter left %q", got)
	}
	if len(inside) > 0 {
		s.Errorf("what lies in a rejected directory was looked at: %q", inside)
	}
	names := s.list(place.ListOptions{Names: true})
	for key, e := range s.list(place.ListOptions{}) {
		if n, ok := names[key]; !ok || n.Size != e.Size {
			s.Errorf("with names only %q is %+v, %t", key, n, ok)
		}
	}
	for range s.Place.Entries(s.Context(), place.ListOptions{}) {
		break // Who has seen enough goes away, and nothing stays behind.
	}
}

func (s *suite) names() {
	var put []entry.Entry
	want := map[string]string{}
	deep := strings.TrimSuffix(strings.Repeat("d/", 120), "/")
	for i, name := range []string{
		"plain", "a b", " lead", "trail ", "new\nline", "tab\t", "cr\r", "\x01\x1b[2J\x7f", "back\\slash", "%", "%0A", "%250A", "a%2Fb",
		"quote\"'", "<&>;", "?x=y#z", "+", "~", "*", ":", "...", "..a", "-rf", ".hidden",
		"\xff", "caf\xe9", "\xed\xa0\x80", "caf\u00e9", "cafe\u0301", "日本語", "\U0001F525", "\u0085", "\ufffe", "\u202e",
		"x__XLDIR__", "xl.meta", "%{}", "%{x}", strings.Repeat("n", 255), strings.Repeat("é", 127), strings.Repeat("\xfe", 85),
		deep, strings.Repeat("deep/", 60) + "f", strings.Repeat(strings.Repeat("n", 200)+"/", 4) + "f",
	} {
		content := fmt.Sprint(i)
		for _, path := range []string{name, "in/" + name, name + ".d/f"} {
			if slices.ContainsFunc(strings.Split(path, "/"), func(c string) bool { return len(c) > 255 }) {
				continue
			}
			w := s.file(path, content)
			if s.traits.Holds != nil && s.traits.Holds(w.Entry) != nil {
				s.refused("it is said not to be held", w, nil)
				continue
			}
			put = append(put, s.put(w))
			want[path] = content
		}
	}
	s.listed(put...)
	s.files(want)
	for i, err := range s.Place.Remove(s.Context(), put) {
		if err != nil {
			s.Errorf("Remove of %q: %v", put[i].Path, err)
		}
	}
	s.files(nil)
}

func (s *suite) order() {
	want := map[string]string{}
	for _, path := range []string{"a.b", "a/b", "a!", "a!/b", "a0", "a-/c", "a/", "ab", "b/c/d", "b/c.d", "b/c!d", "é", "e\u0301", "z"} {
		if strings.HasSuffix(path, "/") || path == "a!" {
			continue // A file and a directory of one name is not for every place.
		}
		s.put(s.file(path, path))
		want[path] = path
	}
	for _, path := range []string{"a", "a-", "b/c", "e!"} {
		s.makeDir(s.dir(path))
	}
	s.files(want) // which checks the order
	if s.traits.Both {
		s.put(s.file("a", "file"))
		want["a"] = "file"
		s.files(want)
	}
}
