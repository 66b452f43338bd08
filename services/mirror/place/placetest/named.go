package placetest

import (
	"io"
	"reflect"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// named checks that whoever opens what was listed by its name is told what a listing
// with attributes would have told, to the last bit.
func (s *suite) named() {
	p, ok := s.Place.(place.Named)
	if !ok {
		return
	}
	contents := map[string]string{"d/f": pattern(300_000), "none": "", "d/a b\n": "x", "foreign": "by others"}
	for path, content := range contents {
		if path != "foreign" {
			s.put(s.file(path, content))
		}
	}
	attrs := s.file("attrs", "x")
	attrs.Entry.Xattrs = map[string][]byte{"user.x": []byte("\xff\x00y")}
	contents["attrs"] = "x"
	s.put(attrs)
	s.WriteBehind("foreign", contents["foreign"])
	kinds := map[string]entry.Kind{"d/": entry.Dir, "empty/": entry.Dir, "link": entry.Symlink, "far": entry.Symlink, "fifo": entry.Fifo, "null": entry.CharDevice}
	s.makeDir(s.dir("d"))
	s.makeDir(s.dir("empty"))
	for _, e := range []entry.Entry{
		{Path: "link", Kind: entry.Symlink, Target: "d/f", Size: 3}, {Path: "fifo", Kind: entry.Fifo}, {Path: "null", Kind: entry.CharDevice, Device: 259},
		{Path: "far", Kind: entry.Symlink, Target: strings.Repeat("é/", 1000), Size: 3000},
	} {
		s.put(place.Write{Entry: s.attrs(e)})
	}
	all, n := s.list(place.ListOptions{}), 0
	for key, listed := range s.list(place.ListOptions{Names: true}) {
		c, e, err := p.OpenNamed(s.Context(), listed)
		if err != nil {
			s.Errorf("OpenNamed of %q: %v", key, err)
			continue
		}
		n++
		if then := all[key]; sameChange(e.Change, then.Change) {
			e.Change = then.Change
		}
		if !reflect.DeepEqual(e, all[key]) {
			s.Errorf("OpenNamed of %q tells\n%+v, and the listing\n%+v", key, e, all[key])
		}
		if e.Key() != key || e.Kind != kinds[key] {
			s.Errorf("OpenNamed of %q tells of the %s %q", key, e.Kind, e.Key())
		}
		if e.Kind == entry.File {
			s.gives(c, contents[e.Path])
		} else if c != nil {
			s.Errorf("the %s %q has a content", e.Kind, key)
		}
	}
	if want := len(contents) + len(kinds); n != want {
		s.Errorf("%d entries were opened, not %d", n, want)
	}
}

// gives reads a content to its end, and closes it.
func (s *suite) gives(c place.Content, want string) {
	s.Helper()
	if c == nil {
		s.Errorf("a file has no content, and not %s", brief(want, true))
		return
	}
	defer s.close(c)
	raw, err := io.ReadAll(c)
	if err == nil {
		err = c.Unchanged()
	}
	if err != nil || string(raw) != want {
		s.Errorf("got %s, %v; want %s", brief(string(raw), true), err, brief(want, true))
	}
}

func (s *suite) namedChanged() {
	p, ok := s.Place.(place.Named)
	if !ok {
		return
	}
	for name, world := range map[string]func(path string){
		"replaced": func(path string) { s.WriteBehind(path, "xyz") },
		"removed":  s.RemoveBehind,
	} {
		s.put(s.file(name, "old"))
		listed := s.list(place.ListOptions{Names: true})[name]
		world(name)
		c, _, err := p.OpenNamed(s.Context(), listed)
		s.wants("OpenNamed of what was "+name, err, place.ErrChanged)
		if c != nil {
			s.Errorf("what was %s has a content", name)
		}
	}
}
