package placetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

func (s *suite) empty() {
	if all := s.list(place.ListOptions{}); len(all) != 0 {
		s.Errorf("it holds %v", all)
	}
	if e, ok, err := s.Place.Look(s.Context(), entry.Entry{Path: "a/b"}); ok || err != nil {
		s.Errorf("Look found %+v, %v", e, err)
	}
	if s.Place.String() == "" {
		s.Error("it has no name")
	}
	if _, ok := s.Place.(place.Parts); s.traits.Parts && (!ok || s.traits.PartsAbove <= 0) {
		s.Errorf("it says that it writes parts above %d bytes, and implements it: %t", s.traits.PartsAbove, ok)
	}
	if s.traits.Batch > 0 && (s.traits.BatchBytes <= 0 || s.traits.Small <= 0) {
		s.Errorf("it takes batches of %d files, and %d bytes, each up to %d", s.traits.Batch, s.traits.BatchBytes, s.traits.Small)
	}
	if err := s.Place.Finish(s.Context()); err != nil {
		s.Errorf("Finish of nothing: %v", err)
	}
}

func (s *suite) putIsListed() {
	want := map[string]string{}
	var put []entry.Entry
	for _, size := range []int{0, 1, 4096, 128<<10 - 1, 128<<10 + 1, 1<<20 + 7} {
		path := fmt.Sprintf("in/a/new/directory/%d", size)
		want[path] = pattern(size)
		w := s.file(path, want[path])
		if size%2 == 0 {
			w.Entry = withSums(w.Entry, want[path])
		}
		got := s.put(w)
		s.same("Put knows another hash of", got, withSums(w.Entry, want[path]))
		put = append(put, got)
	}
	for mode, when := range map[uint32]int64{0o600: -1_500_000_001, 0o444: 1, 0o777: 1_900_000_000_000_000_001} {
		w := s.file(fmt.Sprintf("mode%o", mode), "x")
		w.Entry.Mode, w.Entry.MTime = mode, when
		want[w.Entry.Path] = "x"
		put = append(put, s.put(w))
	}
	s.listed(put...)
	s.files(want)
	s.finished()
	s.listed(put...)
}

func (s *suite) overwrite() {
	w := s.file("d/f", "one")
	first := s.put(w)
	s.files(map[string]string{"d/f": "one"})
	for i, have := range []func() entry.Entry{
		func() entry.Entry { return first },
		func() entry.Entry { return s.one("d/f", entry.File) },
	} {
		content := pattern(10 + i*100_000)
		w := s.file("d/f", content)
		w.Entry.Mode, w.Entry.MTime = 0o600, w.Entry.MTime+1
		w.Have = have()
		s.listed(s.put(w))
		s.files(map[string]string{"d/f": content})
	}
	s.WriteBehind("d/f", "theirs")
	w.Have = s.one("d/f", entry.File)
	s.listed(s.put(w))
	s.files(map[string]string{"d/f": "one"})
}

func (s *suite) unseen() {
	stale := s.put(s.file("stale", "seen"))
	gone := s.put(s.file("gone", "seen"))
	twice := s.put(s.file("twice", "seen"))
	s.WriteBehind("stale", "SEEN")
	s.WriteBehind("there", "theirs")
	s.RemoveBehind("gone")
	w := s.file("twice", "2nd")
	w.Have = twice
	s.put(w)

	s.refused("nothing was seen", s.file("there", "mine"), place.ErrChanged)
	for _, have := range []entry.Entry{stale, gone, twice} {
		w := s.file(have.Path, "mine")
		w.Have = have
		s.refused("it was another one", w, place.ErrChanged)
	}
	s.files(map[string]string{"stale": "SEEN", "there": "theirs", "twice": "2nd"})
}

func (s *suite) changesMeanwhile() {
	seen := s.put(s.file("seen", "seen"))
	gone := s.put(s.file("gone", "seen"))
	s.put(s.file("else/where", "x")) // so that there is something to be left alone
	for _, c := range []struct {
		path  string
		have  entry.Entry
		world func()
	}{
		{"new", entry.Entry{}, func() { s.WriteBehind("new", "theirs") }},
		{"seen", seen, func() { s.WriteBehind("seen", "theirs") }},
		{"gone", gone, func() { s.RemoveBehind("gone") }},
	} {
		content := pattern(200_000)
		w := s.file(c.path, content)
		w.Have = c.have
		w.Open = s.reader(&meddler{Reader: strings.NewReader(content), at: 150_000, world: c.world})
		got, err := s.Place.Put(s.Context(), w)
		if err == nil {
			s.Errorf("Put of %q, which changed meanwhile, gave %+v", c.path, got)
			continue
		}
		s.wants("it changed meanwhile", err, place.ErrChanged)
	}
	s.files(map[string]string{"new": "theirs", "seen": "theirs", "else/where": "x"})
}

// meddler is a reader in the middle of which something happens, once.
type meddler struct {
	*strings.Reader
	at    int64
	world func()
	once  sync.Once
}

func (m *meddler) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p[:min(len(p), 10_000)])
	if m.Size()-int64(m.Len()) >= m.at {
		m.once.Do(m.world)
	}
	return n, err
}

var errSource = errors.New("the source changed")

// failing gives n bytes and then an error. It fails before the last byte is
// given, as a source does that looks at itself again first.
type failing struct {
	io.ReadSeeker
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.ReadSeeker.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

func (s *suite) readers() {
	for _, size := range []int{1, 10, 128<<10 + 5, 300_000} {
		content := pattern(size)
		have := s.put(s.file("old", "old"))
		for name, open := range map[string]func(context.Context) (io.ReadCloser, error){
			"cannot be opened":         func(context.Context) (io.ReadCloser, error) { return nil, errSource },
			"fails at once":            s.reader(&failing{strings.NewReader(""), errSource}),
			"fails in the middle":      s.reader(&failing{strings.NewReader(content[:size/2]), errSource}),
			"fails at its last byte":   s.reader(&failing{strings.NewReader(content[:size-1]), errSource}),
			"ends one byte too early":  s.reader(strings.NewReader(content[:size-1])),
			"ends at once":             s.reader(strings.NewReader("")),
			"gives one byte too many":  s.reader(strings.NewReader(content + "x")),
			"gives very much too much": s.reader(strings.NewReader(content + content + pattern(100_000))),
		} {
			what := fmt.Sprintf("a reader of %d bytes that %s", size, name)
			var want error
			if strings.Contains(name, "fails") || strings.Contains(name, "cannot") {
				want = errSource
			}
			w := s.file("new/file", content)
			w.Open = open
			s.refused(what, w, want)
			w.Entry.Path, w.Have = "old", have
			s.refused(what, w, want)
			s.clean()
		}
		s.files(map[string]string{"old": "old"})
		s.RemoveBehind("old")
	}
}

func (s *suite) repeated() {
	for _, size := range []int{3, 200_000} {
		content := pattern(size)
		w := s.file(fmt.Sprintf("d/%d", size), content)
		first := s.put(w)
		s.refused("it is there already", w, place.ErrChanged)
		w.Have = first
		second := s.put(w)
		s.listed(second)
	}
	s.files(map[string]string{"d/3": pattern(3), "d/200000": pattern(200_000)})
}

// expected is a batch and what has to become of it.
type expected struct {
	writes []place.Write
	fails  []error
	files  map[string]string
}

func (x *expected) add(w place.Write, content string, err error) {
	x.writes, x.fails = append(x.writes, w), append(x.fails, err)
	if err == nil {
		x.files[w.Entry.Path] = content
	}
}

// mixed is a batch of which some writes fail.
func (s *suite) mixed() expected {
	have := s.put(s.file("b/replaced", "old"))
	stale := s.put(s.file("b/stale", "old"))
	s.WriteBehind("b/stale", "theirs")
	s.WriteBehind("b/there", "theirs")

	x := expected{files: map[string]string{"b/stale": "theirs", "b/there": "theirs"}}
	for i := range 40 {
		content := pattern(i * 100)
		x.add(s.file(fmt.Sprintf("b/%d/%d", i%4, i), content), content, nil)
		switch i {
		case 3:
			w := s.file("b/replaced", "new")
			w.Have = have
			x.add(w, "new", nil)
		case 7:
			w := s.file("b/stale", "mine")
			w.Have = stale
			x.add(w, "", place.ErrChanged)
		case 11:
			x.add(s.file("b/there", "mine"), "", place.ErrChanged)
		case 13:
			w := s.file("b/fails", "torn")
			w.Open = s.reader(&failing{strings.NewReader("tor"), errSource})
			x.add(w, "", errSource)
		case 17:
			w := s.file("b/closed", "x")
			w.Open = func(context.Context) (io.ReadCloser, error) { return nil, errSource }
			x.add(w, "", errSource)
		}
	}
	return x
}

func (s *suite) batch() {
	x := s.mixed()
	outcomes := s.Place.PutBatch(s.Context(), x.writes)
	if len(outcomes) != len(x.writes) {
		s.Fatalf("PutBatch of %d gave %d outcomes", len(x.writes), len(outcomes))
	}
	var put []entry.Entry
	for i, o := range outcomes {
		path := x.writes[i].Entry.Path
		switch {
		case x.fails[i] == nil && o.Err != nil:
			s.Errorf("%q was not written: %v", path, o.Err)
		case x.fails[i] != nil:
			s.wants(path, o.Err, x.fails[i])
		default:
			s.same("PutBatch gave", o.Entry, x.writes[i].Entry)
			put = append(put, o.Entry)
		}
	}
	s.listed(put...)
	s.files(x.files)
	if got := s.Place.PutBatch(s.Context(), nil); len(got) != 0 {
		s.Errorf("PutBatch of nothing gave %v", got)
	}
}

func (s *suite) concurrent() {
	const files = 64
	var all sync.WaitGroup
	var mu sync.Mutex
	var put []entry.Entry
	want := map[string]string{}
	won := 0
	for i := range files {
		content := pattern(i * 50)
		w := s.file(fmt.Sprintf("new/deep/directory/%d", i), content)
		race := s.file("new/deep/race", fmt.Sprint(i))
		mu.Lock()
		want[w.Entry.Path] = content
		mu.Unlock()
		all.Go(func() {
			e, err := s.Place.Put(s.Context(), w)
			_, lost := s.Place.Put(s.Context(), race)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.Errorf("Put of %q: %v", w.Entry.Path, err)
			}
			put = append(put, e)
			if lost == nil {
				won++
				want[race.Entry.Path] = fmt.Sprint(i)
			} else {
				s.wants("another one was first", lost, place.ErrChanged)
			}
		})
	}
	all.Wait()
	if won != 1 {
		s.Errorf("%d of %d wrote the same new file", won, files)
	}
	s.listed(put...)
	s.files(want)
}

func (s *suite) cancelled() {
	have := s.put(s.file("old", "old"))
	ended, end := context.WithCancel(s.Context())
	end()
	if _, err := s.Place.Put(ended, s.file("new", "new")); !errors.Is(err, context.Canceled) {
		s.Errorf("Put: %v", err)
	}
	for _, o := range s.Place.PutBatch(ended, []place.Write{s.file("new", "new"), s.file("new2", "new")}) {
		s.wants("PutBatch", o.Err, context.Canceled)
	}
	for _, err := range s.Place.Remove(ended, []entry.Entry{have}) {
		s.wants("Remove", err, context.Canceled)
	}
	var last error
	for _, err := range s.Place.Entries(ended, place.ListOptions{}) {
		last = err
	}
	s.wants("Entries ended as if it were complete", last, context.Canceled)

	// In the middle of the content the place may notice, or be done.
	want := map[string]string{"old": "old"}
	for _, size := range []int{1000, 300_000} {
		ctx, cancel := context.WithCancel(s.Context())
		content := pattern(size)
		w := s.file(fmt.Sprintf("half%d", size), content)
		w.Open = s.reader(&meddler{Reader: strings.NewReader(content), at: int64(size / 2), world: cancel})
		if _, err := s.Place.Put(ctx, w); err == nil {
			want[w.Entry.Path] = content
		} else {
			s.wants("Put", err, context.Canceled)
		}
		cancel()
	}
	s.files(want)
}

func (s *suite) readOnly() {
	e := s.put(s.file("d/f", "content"))
	d := s.makeDir(s.dir("e"))
	ro := s.ReadOnly()
	before := s.list(place.ListOptions{})
	_, err := ro.Put(s.Context(), s.file("new", "x"))
	s.wants("Put", err, place.ErrReadOnly)
	w := s.file("d/f", "x")
	w.Have = e
	for _, o := range ro.PutBatch(s.Context(), []place.Write{w}) {
		s.wants("PutBatch", o.Err, place.ErrReadOnly)
	}
	_, err = ro.MakeDir(s.Context(), s.dir("dir"))
	s.wants("MakeDir", err, place.ErrReadOnly)
	_, err = ro.SetAttrs(s.Context(), w.Entry, e)
	s.wants("SetAttrs", err, place.ErrReadOnly)
	for _, err := range ro.Remove(s.Context(), []entry.Entry{e, d}) {
		s.wants("Remove", err, place.ErrReadOnly)
	}
	if p, ok := ro.(place.Parts); ok {
		_, err := p.StartParts(s.Context(), s.file("new", "x"), 5<<20)
		s.wants("StartParts", err, place.ErrReadOnly)
	}
	if err := ro.Finish(s.Context()); err != nil {
		s.Errorf("Finish: %v", err)
	}
	s.unchanged("the place was opened for reading", before)
	under := &suite{T: s.T, Under: Under{Place: ro}, traits: ro.Traits()}
	under.files(map[string]string{"d/f": "content"})
}
