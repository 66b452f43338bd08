package placetest

import (
	"os"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// node is the write of something that is neither file nor directory.
func (s *suite) node(path string, kind entry.Kind, target string) place.Write {
	e := s.attrs(entry.Entry{Path: path, Kind: kind, Target: target, Size: int64(len(target))})
	if kind == entry.CharDevice || kind == entry.BlockDevice {
		e.Device = 7<<8 | 200
	}
	return place.Write{Entry: e}
}

// special is one write of each kind that the place keeps.
func (s *suite) special() []place.Write {
	var kept []place.Write
	for _, w := range []place.Write{
		s.node("k/link", entry.Symlink, "../where/nothing/is"),
		s.node("k/absolute", entry.Symlink, "/etc/passwd"),
		s.node("k/up", entry.Symlink, ".."),
		s.node("k/bytes", entry.Symlink, "a\xff\xfe\nb\\ %2F\u00e9e\u0301"),
		s.node("k/long", entry.Symlink, strings.Repeat("0123456789/", 300)),
		s.node("k/longest", entry.Symlink, strings.Repeat("é", 2047)),
		s.node("k/fifo", entry.Fifo, ""),
		s.node("k/socket", entry.Socket, ""),
		s.node("k/char", entry.CharDevice, ""),
		s.node("k/block", entry.BlockDevice, ""),
	} {
		if s.keeps(plan.AttrKind) && (s.traits.Holds == nil || s.traits.Holds(w.Entry) == nil) {
			kept = append(kept, w)
		}
	}
	return kept
}

func (s *suite) kinds() {
	var put []entry.Entry
	for _, w := range s.special() {
		put = append(put, s.put(w))
	}
	s.listed(put...)
	for i, w := range s.special() {
		s.refused("it is there already", w, place.ErrChanged)
		w.Have = put[i]
		w.Entry.MTime++
		put[i] = s.put(w)
	}
	s.listed(put...)
	if !s.keeps(plan.AttrKind) {
		return
	}
	// A link becomes a file and the file a link, and what it points to is left alone.
	s.put(s.file("target", "precious"))
	link := s.node("l", entry.Symlink, "target")
	file := s.file("l", "file")
	file.Have = s.put(link)
	link.Have = s.put(file)
	s.alsoFiles(put, map[string]string{"target": "precious", "l": "file"})
	s.listed(s.put(link))
	if got := s.content(s.one("target", entry.File)); got != "precious" {
		s.Errorf("writing a link changed what it points to into %q", got)
	}
}

// alsoFiles checks the contents of some files beside what was put.
func (s *suite) alsoFiles(put []entry.Entry, want map[string]string) {
	s.Helper()
	s.listed(put...)
	for path, content := range want {
		if got := s.content(s.one(path, entry.File)); got != content {
			s.Errorf("%q is %s", path, brief(got, true))
		}
	}
}

func (s *suite) xattrs() {
	if !s.keeps(plan.AttrXattrs) {
		return
	}
	w := s.file("x", "content")
	w.Entry.Xattrs = map[string][]byte{"user.a": []byte("1"), "user.empty": {}, "user.bytes": {0, 255, '\n'}}
	d := s.dir("d")
	d.Xattrs = map[string][]byte{"user.d": []byte("dir")}
	have := s.put(w)
	dir := s.makeDir(d)
	s.finished()
	s.listed(have, dir)
	want := w.Entry
	want.Xattrs = map[string][]byte{"user.b": []byte("2"), "user.a": []byte("3")}
	have, err := s.Place.SetAttrs(s.Context(), want, have)
	if err != nil {
		s.Fatalf("SetAttrs: %v", err)
	}
	s.same("SetAttrs gave", have, want)
	s.listed(have)
	w.Have, w.Entry.Xattrs = have, nil
	s.listed(s.put(w))
}

func (s *suite) directories() {
	empty := s.makeDir(s.dir("empty"))
	deep := s.makeDir(s.dir("made/on/the/way"))
	s.put(s.file("implied/by/file", "x"))
	implied := s.makeDir(s.dir("implied/by"))
	s.finished()
	s.listed(empty, deep, implied)
	other := s.dir("empty")
	other.Mode, other.MTime = 0o711, mtime+5
	again := s.makeDir(other)
	s.finished()
	s.listed(again)
	set := s.dir("implied/by")
	set.Mode = 0o700
	have, err := s.Place.SetAttrs(s.Context(), set, s.one("implied/by", entry.Dir))
	if err != nil {
		s.Fatalf("SetAttrs of a directory: %v", err)
	}
	s.same("SetAttrs gave", have, set)
	s.finished()
	s.listed(have)
	s.files(map[string]string{"implied/by/file": "x"})
}

func (s *suite) finish() {
	var dirs []entry.Entry
	for _, path := range []string{"a", "a/b", "a/b/c", "z"} {
		d := s.dir(path)
		d.Mode = 0o555
		dirs = append(dirs, s.makeDir(d))
	}
	have := s.put(s.file("a/b/c/replaced", "x"))
	s.put(s.file("a/b/new", "x"))
	gone := s.put(s.file("z/gone", "x"))
	late := s.makeDir(s.dir("a/b/late"))
	removed := s.makeDir(s.dir("z/removed"))
	w := s.file("a/b/c/replaced", "y")
	w.Have = have
	s.put(w)
	for _, err := range s.Place.Remove(s.Context(), []entry.Entry{gone, removed}) {
		if err != nil {
			s.Errorf("Remove: %v", err)
		}
	}
	s.finished()
	s.listed(append(dirs, late)...)
	// The next run writes into them as they are now.
	s.put(s.file("a/b/c/next", "x"))
	for _, err := range s.Place.Remove(s.Context(), []entry.Entry{s.one("a/b/new", entry.File), s.one("a/b/late", entry.Dir)}) {
		if err != nil {
			s.Errorf("Remove from a read-only directory: %v", err)
		}
	}
	s.finished()
	if d := s.one("a/b/c", entry.Dir); s.keeps(plan.AttrMode) && d.Mode != 0o555 {
		s.Errorf("the directory that was written into is left with the mode %o", d.Mode)
	}
	s.files(map[string]string{"a/b/c/replaced": "y", "a/b/c/next": "x"})
	// Whoever cleans up after the test may not be root.
	for _, path := range []string{"a", "a/b", "a/b/c", "z"} {
		s.makeDir(s.dir(path))
	}
}

func (s *suite) setAttrs() {
	ws := append(s.special(), s.file("f", "content"), s.file("big", pattern(300_000)))
	var put []entry.Entry
	for _, w := range ws {
		have := s.put(w)
		want := w.Entry
		want.Mode, want.MTime = 0o604, mtime-3
		if s.keeps(plan.AttrOwner) {
			want.UID, want.GID = 777, 778
		}
		got, err := s.Place.SetAttrs(s.Context(), want, have)
		if err != nil {
			s.Fatalf("SetAttrs of %q: %v", want.Path, err)
		}
		s.same("SetAttrs gave", got, want)
		put = append(put, got)
	}
	s.alsoFiles(put, map[string]string{"f": "content", "big": pattern(300_000)})
	if !s.keeps(plan.AttrMode) {
		return
	}
	for _, mode := range []uint32{0o4755, 0o6711, 0o1777, 0} {
		w := s.file("mode", "x")
		w.Entry.Mode = mode
		if s.traits.Holds != nil && s.traits.Holds(w.Entry) != nil {
			continue
		}
		have := s.put(w)
		s.listed(have)
		w.Entry.UID, w.Entry.GID = s.otherOwner(w.Entry)
		have, err := s.Place.SetAttrs(s.Context(), w.Entry, have)
		if err != nil {
			s.Fatalf("SetAttrs to the mode %o: %v", mode, err)
		}
		s.same("SetAttrs gave", have, w.Entry)
		s.listed(have)
		s.RemoveBehind("mode")
	}
}

// otherOwner is one that the place can keep.
func (s *suite) otherOwner(e entry.Entry) (uid, gid uint32) {
	if s.keeps(plan.AttrOwner) {
		return e.UID + 1, e.GID + 1
	}
	return uint32(os.Geteuid()), uint32(os.Getegid())
}

func (s *suite) setAttrsChanged() {
	stale := s.put(s.file("stale", "seen"))
	gone := s.put(s.file("gone", "seen"))
	s.WriteBehind("stale", "SEEN")
	s.RemoveBehind("gone")
	before := s.list(place.ListOptions{})
	for _, have := range []entry.Entry{stale, gone} {
		want := have
		want.Mode, want.MTime = 0o600, mtime+1
		_, err := s.Place.SetAttrs(s.Context(), want, have)
		s.wants("SetAttrs of what changed", err, place.ErrChanged)
	}
	s.unchanged("SetAttrs of what changed", before)
	s.files(map[string]string{"stale": "SEEN"})
}
