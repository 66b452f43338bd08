package placetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/zeebo/blake3"
)

// suite is one part of the contract being tested on one place.
type suite struct {
	*testing.T
	Under
	traits place.Traits
	open   atomic.Int64 // readers that the place was given and has not closed
}

// mtime is long ago, and no multiple of anything that a place may cut times to.
const mtime = 1_000_000_000_123_456_789

func (s *suite) keeps(a plan.Attr) bool { return s.traits.Lists&a == a }

// attrs gives an entry attributes that no umask and no default gives.
func (s *suite) attrs(e entry.Entry) entry.Entry {
	e.Mode, e.MTime = 0o640, mtime
	e.UID, e.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	if s.keeps(plan.AttrOwner) {
		e.UID, e.GID = 12345, 54321
	}
	return e
}

func (s *suite) dir(path string) entry.Entry {
	e := s.attrs(entry.Entry{Path: path, Kind: entry.Dir})
	e.Mode = 0o750
	return e
}

// file is the write of a file that may not overwrite anything.
func (s *suite) file(path, content string) place.Write {
	return place.Write{
		Entry: s.attrs(entry.Entry{Path: path, Size: int64(len(content))}),
		Open:  s.reader(strings.NewReader(content)),
	}
}

// reader is an Open, which counts what is not closed.
func (s *suite) reader(r io.ReadSeeker) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		s.open.Add(1)
		return &counted{Reader: r, open: &s.open}, nil
	}
}

type counted struct {
	io.Reader
	open   *atomic.Int64
	closed bool
}

func (c *counted) Close() error {
	if !c.closed {
		c.open.Add(-1)
	}
	c.closed = true
	return nil
}

// put writes what must be possible to write, and checks what it is told.
func (s *suite) put(w place.Write) entry.Entry {
	s.Helper()
	got, err := s.Place.Put(s.Context(), w)
	if err != nil {
		s.Fatalf("Put of the %s %q: %v", w.Entry.Kind, w.Entry.Path, err)
	}
	s.same("Put gave", got, w.Entry)
	return got
}

func (s *suite) makeDir(want entry.Entry) entry.Entry {
	s.Helper()
	got, err := s.Place.MakeDir(s.Context(), want)
	if err != nil {
		s.Fatalf("MakeDir of %q: %v", want.Path, err)
	}
	s.same("MakeDir gave", got, want)
	return got
}

// finished ends a run.
func (s *suite) finished() {
	s.Helper()
	if err := s.Place.Finish(s.Context()); err != nil {
		s.Fatalf("Finish: %v", err)
	}
}

// same checks that an entry has what the place keeps of another.
func (s *suite) same(what string, got, want entry.Entry) {
	s.Helper()
	if why := s.differ(got, want); why != "" {
		s.Errorf("%s the %s %q: %s", what, want.Kind, want.Path, why)
	}
}

func (s *suite) differ(got, want entry.Entry) string {
	var why []string
	check := func(kept bool, name string, got, want any) {
		if kept && got != want {
			why = append(why, fmt.Sprintf("%s is %v and not %v", name, got, want))
		}
	}
	kind := s.keeps(plan.AttrKind)
	check(true, "the path", got.Path, want.Path)
	check(true, "being a directory", got.Kind == entry.Dir, want.Kind == entry.Dir)
	check(kind, "the kind", got.Kind, want.Kind)
	check(kind, "the target", got.Target, want.Target)
	check(kind, "the device", got.Device, want.Device)
	check(want.Kind != entry.Dir, "the size", got.Size, want.Size)
	check(s.keeps(plan.AttrMTime), "the time", got.MTime, want.MTime)
	check(s.keeps(plan.AttrMode) && want.Kind != entry.Symlink, "the mode", got.Mode, want.Mode)
	check(s.keeps(plan.AttrOwner), "the owner", [2]uint32{got.UID, got.GID}, [2]uint32{want.UID, want.GID})
	if s.keeps(plan.AttrXattrs) && !maps.EqualFunc(got.Xattrs, want.Xattrs, bytes.Equal) {
		why = append(why, fmt.Sprintf("the extended attributes are %q and not %q", got.Xattrs, want.Xattrs))
	}
	both := got.Sum.Has & want.Sum.Has
	check(both&entry.HasBLAKE3 != 0, "the BLAKE3", got.Sum.BLAKE3, want.Sum.BLAKE3)
	check(both&entry.HasCRC32C != 0, "the CRC32C", got.Sum.CRC32C, want.Sum.CRC32C)
	check(both&entry.HasETag != 0, "the ETag", got.Sum.ETag, want.Sum.ETag)
	return strings.Join(why, ", ")
}

// listed checks that what Put or SetAttrs gave is what the place lists, and what
// Look finds.
func (s *suite) listed(put ...entry.Entry) {
	s.Helper()
	all := s.list(place.ListOptions{})
	for _, e := range put {
		got, ok := all[e.Key()]
		if !ok {
			s.Errorf("Entries lacks %q", e.Path)
			continue
		}
		s.same("Entries lists", got, e)
		if e.Kind != entry.Dir && !sameChange(got.Change, e.Change) {
			s.Errorf("what tells changes of %q was %+v when it was written, and is listed as %+v", e.Path, e.Change, got.Change)
		}
		now, ok, err := s.Place.Look(s.Context(), e)
		if err != nil || !ok {
			s.Errorf("Look at %q: %t, %v", e.Path, ok, err)
			continue
		}
		s.same("Look sees", now, e)
	}
}

// sameChange reports whether two changes tell of the same. Of what lies in a bucket they
// may, for a moment, tell nothing.
func sameChange(a, b entry.Change) bool {
	return a == b || !a.OfInode() && !b.OfInode() && !a.Shows(b)
}

// list is all that the place holds, by key. It checks what Entries promises.
func (s *suite) list(o place.ListOptions) map[string]entry.Entry {
	s.Helper()
	all := map[string]entry.Entry{}
	last := ""
	for e, err := range s.Place.Entries(s.Context(), o) {
		if err != nil {
			s.Fatalf("Entries at %q: %v", e.Path, err)
		}
		key := e.Key()
		if key == "" {
			s.Fatalf("Entries lists the root")
		}
		if last != "" && entry.Compare(last, key) >= 0 {
			s.Fatalf("Entries lists %q after %q", key, last)
		}
		last = key
		all[key] = e
	}
	return all
}

// one is what the place lists of a path.
func (s *suite) one(path string, kind entry.Kind) entry.Entry {
	s.Helper()
	e, ok := s.list(place.ListOptions{})[entry.Entry{Path: path, Kind: kind}.Key()]
	if !ok {
		s.Fatalf("Entries lacks %q", path)
	}
	return e
}

// files checks that the place holds these files, of these contents, and nothing
// else but directories.
func (s *suite) files(want map[string]string) {
	s.Helper()
	got := map[string]string{}
	for _, e := range s.list(place.ListOptions{}) {
		if e.Kind != entry.Dir {
			got[e.Path] = s.content(e)
		}
	}
	for path := range want {
		if has, ok := got[path]; !ok || has != want[path] {
			s.Errorf("the place holds as %q %s and not %s", path, brief(has, ok), brief(want[path], true))
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			s.Errorf("the place holds %q, which it should not", path)
		}
	}
}

// brief describes a content.
func brief(content string, there bool) string {
	switch {
	case !there:
		return "nothing"
	case len(content) <= 40:
		return fmt.Sprintf("%q", content)
	}
	return fmt.Sprintf("%d bytes (SHA256 %.8x)", len(content), sha256.Sum256([]byte(content)))
}

func (s *suite) content(e entry.Entry) string {
	s.Helper()
	c, err := s.Place.Open(s.Context(), e, 0, -1)
	if err != nil {
		s.Fatalf("Open %q: %v", e.Path, err)
	}
	defer s.close(c)
	raw, err := io.ReadAll(c)
	if err == nil {
		err = c.Unchanged()
	}
	if err != nil {
		s.Fatalf("read %q: %v", e.Path, err)
	}
	return string(raw)
}

func (s *suite) close(c io.Closer) {
	s.Helper()
	if err := c.Close(); err != nil {
		s.Errorf("close: %v", err)
	}
}

// wants checks that an error is each of those.
func (s *suite) wants(what string, err error, want ...error) {
	s.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			s.Errorf("%s: got %v, want %v", what, err, w)
		}
	}
}

// refused checks that a Put fails with the error and changes nothing.
func (s *suite) refused(what string, w place.Write, want error) {
	s.Helper()
	before := s.list(place.ListOptions{})
	got, err := s.Place.Put(s.Context(), w)
	if err == nil {
		s.Errorf("%s: Put of %q was not refused, and gave %+v", what, w.Entry.Path, got)
	} else if want != nil {
		s.wants(what, err, want)
	}
	s.unchanged(what, before)
}

// unchanged checks that the place holds the entries of before, untouched.
func (s *suite) unchanged(what string, before map[string]entry.Entry) {
	s.Helper()
	after := s.list(place.ListOptions{})
	for key, e := range after {
		was, ok := before[key]
		switch {
		case e.Kind == entry.Dir: // Those above what was not written may stay.
		case !ok:
			s.Errorf("%s: %q appeared", what, key)
		case !sameChange(e.Change, was.Change):
			s.Errorf("%s: %q was touched", what, key)
		default:
			s.same(what+": it touched", e, was)
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			s.Errorf("%s: %q is gone", what, key)
		}
	}
}

// clean checks that nothing is left that no one will clean up.
func (s *suite) clean() {
	s.Helper()
	if n := s.open.Load(); n != 0 {
		s.Errorf("%d readers were not closed", n)
	}
	if s.Litter == nil {
		return
	}
	if left := s.Litter(); len(left) > 0 {
		slices.Sort(left)
		s.Errorf("the place left %q", left)
	}
}

// withSums fills in the hashes of a content.
func withSums(e entry.Entry, content string) entry.Entry {
	e.Sum = entry.Sum{
		Has:    entry.HasBLAKE3 | entry.HasCRC32C,
		BLAKE3: blake3.Sum256([]byte(content)),
		CRC32C: crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli)),
	}
	return e
}

// pattern is a content of n bytes in which every range is another one.
func pattern(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:n]
}
