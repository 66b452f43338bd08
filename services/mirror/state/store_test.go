package state_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// model is what a state is to hold, and what was noted since the last commit.
type model struct {
	dir             string
	store           *state.Store
	committed, next map[string]plan.Past
	version         int64
	began, noted    bool
}

func (m *model) open(t *rapid.T) {
	var err error
	m.store, err = state.OpenSmall(m.dir)
	if err != nil {
		t.Fatal(err)
	}
}

func (m *model) commit() {
	m.committed = maps.Clone(m.next)
	m.began, m.noted = m.began || m.noted, false
}

// keys generates keys that resemble each other, of any bytes.
func keys() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.Map(rapid.IntRange(0, 300), func(i int) string { return fmt.Sprintf("d%02d/f%03d", i/30, i) }),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 3), func(b []byte) string { return string(b) }),
	)
}

func TestAStateHoldsWhatWasNoted(t *testing.T) {
	dirs := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(dirs, "")
		must(t, err)
		m := &model{dir: dir, committed: map[string]plan.Past{}, next: map[string]plan.Past{}}
		m.open(t)
		defer func() { must(t, m.store.Close()) }()
		note := func(t *rapid.T) {
			for _, key := range rapid.SliceOfN(keys(), 1, 60).Draw(t, "keys") {
				m.version++
				m.noted = true
				m.next[key] = left(key, m.version)
				must(t, m.store.Note(m.next[key]))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"note": note,
			"append": func(t *rapid.T) {
				m.version++
				m.noted = true
				key := fmt.Sprintf("z%09d", m.version)
				m.next[key] = left(key, m.version)
				must(t, m.store.Note(m.next[key]))
			},
			"forget": func(t *rapid.T) {
				for _, key := range rapid.SliceOfN(keys(), 1, 30).Draw(t, "keys") {
					m.noted = true
					delete(m.next, key)
					must(t, m.store.Forget(key))
				}
			},
			"sync":   func(t *rapid.T) { must(t, m.store.Sync()) },
			"commit": func(t *rapid.T) { must(t, m.store.Commit()); m.commit() },
			"reopen": func(t *rapid.T) {
				must(t, m.store.Close())
				m.open(t)
				m.commit()
			},
			"": func(t *rapid.T) {
				holds(t, m.store, m.committed)
				if m.store.Empty() == m.began {
					t.Fatalf("Empty is %t", !m.began)
				}
				small := 0
				if m.began {
					sizes, err := m.store.BlockSizes()
					must(t, err)
					for _, n := range sizes[:max(len(sizes)-1, 0)] {
						if n < 2 {
							small++
						}
					}
				}
				if small > 0 {
					t.Fatalf("%d blocks are smaller than a quarter", small)
				}
			},
		})
	})
}

func TestPastShowsTheStateAtTheLastCommit(t *testing.T) {
	s, err := state.OpenSmall(t.TempDir())
	must(t, err)
	defer func() { must(t, s.Close()) }()
	want := map[string]plan.Past{}
	for i := range 100 {
		p := left(fmt.Sprintf("%03d", i), int64(i))
		want[p.Key] = p
		must(t, s.Note(p))
	}
	must(t, s.Commit())
	got := map[string]plan.Past{}
	for p, err := range s.Past() {
		must(t, err)
		got[p.Key] = p
		must(t, s.Note(left(p.Key, 1000)))
		must(t, s.Forget("099"))
		if p.Key == "050" {
			must(t, s.Commit())
		}
	}
	if len(got) != 100 || got["099"].Source.Size != 99 {
		t.Errorf("%d records, the last %+v", len(got), got["099"])
	}
	must(t, s.Commit())
	now, err := collect(s.Past())
	if err != nil || len(now) != 99 || now["000"].Source.Size != 1000 {
		t.Errorf("%d records, the first %+v, %v", len(now), now["000"], err)
	}
	for range s.Past() { // breaking off leaves nothing open
		break
	}
}

func TestNothingNotedIsNothingWritten(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir)
	must(t, s.Commit())
	must(t, s.Sync())
	if !s.Empty() {
		t.Error("not empty")
	}
	must(t, s.Note(left("a", 1)))
	must(t, s.Commit())
	before, err := os.Stat(s.Path("past"))
	must(t, err)
	must(t, s.Commit())
	after, err := os.Stat(s.Path("past"))
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("the state was written again")
	}
	must(t, s.Forget("a"))
	must(t, s.Commit())
	holds(t, s, map[string]plan.Past{})
	if s.Empty() {
		t.Error("a past without an entry is none")
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s, err := state.Open(dir)
	must(t, err)
	_, err = state.Open(dir)
	locked, ok := errors.AsType[*state.LockedError](err)
	if !ok || !errors.Is(err, state.ErrLocked) || locked.PID != os.Getpid() || locked.Dir != dir {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("the error does not name the holder: %v", err)
	}
	must(t, s.Note(left("a", 1)))
	must(t, s.Close())
	must(t, s.Close())
	s = opened(t, dir)
	holds(t, s, map[string]plan.Past{"a": left("a", 1)})
}

func TestAClosedStateIsNotUsed(t *testing.T) {
	s, err := state.Open(t.TempDir())
	must(t, err)
	must(t, s.Note(left("a", 1)))
	must(t, s.Close())
	_, errPast := collect(s.Past())
	_, errSpill := s.Spill()
	_, errCreate := s.Create("x")
	_, errLoad := s.Load("x", nil)
	for name, err := range map[string]error{
		"Note": s.Note(left("b", 1)), "Forget": s.Forget("a"), "Sync": s.Sync(), "Commit": s.Commit(),
		"Past": errPast, "Spill": errSpill, "Create": errCreate, "Load": errLoad, "Save": s.Save("x", 1),
	} {
		if !errors.Is(err, state.ErrClosed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestWhatCannotBeNoted(t *testing.T) {
	s := opened(t, t.TempDir())
	huge := left("huge", 1)
	huge.Source.Xattrs = map[string][]byte{"user.x": make([]byte, 17<<20)}
	for name, err := range map[string]error{"no key": s.Note(plan.Past{}), "forget no key": s.Forget(""), "huge": s.Note(huge)} {
		if !errors.Is(err, state.ErrNote) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	large := left("large", 2)
	large.Source.Xattrs = map[string][]byte{"user.x": make([]byte, 15<<20)}
	must(t, s.Note(large))
	must(t, s.Note(left("z", 3)))
	must(t, s.Commit())
	holds(t, s, map[string]plan.Past{"large": large, "z": left("z", 3)})
}

func TestManyGoroutines(t *testing.T) {
	dir := t.TempDir()
	s, err := state.OpenSmall(dir)
	must(t, err)
	const writers, each = 8, 300
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	check := func(err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		}
	}
	want := map[string]plan.Past{}
	for w := range writers {
		for i := range each {
			p := left(fmt.Sprintf("%d/%03d", w, i), int64(i))
			if i%7 != 0 {
				want[p.Key] = p
			}
		}
		wg.Go(func() {
			for i := range each {
				p := left(fmt.Sprintf("%d/%03d", w, i), int64(i))
				check(s.Note(p))
				if i%7 == 0 {
					check(s.Forget(p.Key))
				}
				switch i % 50 {
				case 10:
					check(s.Sync())
				case 20:
					check(s.Commit())
				case 30:
					_, err := collect(s.Past())
					check(err)
				}
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	must(t, s.Close())
	holds(t, opened(t, dir), want)
}

func TestAFullDiskStopsTheNotes(t *testing.T) {
	dir := t.TempDir()
	s, err := state.Open(dir)
	must(t, err)
	must(t, s.Note(left("a", 1)))
	must(t, s.Sync())
	must(t, s.BreakJournal())
	must(t, s.Note(left("b", 2))) // it waits in memory
	if err := s.Sync(); err == nil {
		t.Fatal("synced to a file that cannot be written")
	}
	for name, err := range map[string]error{"Note": s.Note(left("c", 3)), "Sync": s.Sync(), "Commit": s.Commit(), "Close": s.Close()} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	holds(t, opened(t, dir), map[string]plan.Past{"a": left("a", 1)})
}

func TestDocuments(t *testing.T) {
	type doc struct {
		Epoch  int
		Marker string
	}
	dir := t.TempDir()
	s := opened(t, dir)
	var got doc
	if ok, err := s.Load("job.json", &got); ok || err != nil {
		t.Fatalf("nothing was saved: %t, %v", ok, err)
	}
	for i := range 3 {
		want := doc{i, "a"}
		must(t, s.Save("job.json", want))
		if ok, err := s.Load("job.json", &got); !ok || err != nil || got != want {
			t.Fatalf("got %+v, %t, %v", got, ok, err)
		}
	}
	if err := s.Save("bad", func() {}); err == nil {
		t.Error("a function was saved")
	}
	must(t, os.WriteFile(s.Path("job.json"), []byte(`{"Epoch":`), 0o600))
	ok, err := s.Load("job.json", &got)
	if e, is := errors.AsType[*state.CorruptError](err); ok || !is || !errors.Is(err, state.ErrCorrupt) || e.File != s.Path("job.json") {
		t.Errorf("got %t, %v", ok, err)
	}
	for _, name := range []string{"", ".", "..", ".hidden", "a/b", "past", "journal", "lock", "a\x00b"} {
		_, errCreate := s.Create(name)
		_, errLoad := s.Load(name, &got)
		for _, err := range []error{errCreate, errLoad, s.Save(name, 1)} {
			if !errors.Is(err, state.ErrName) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	onlyFiles(t, dir, "job.json", "lock")
}

func TestAFileHasItsNameWhenItIsWhole(t *testing.T) {
	dir := t.TempDir()
	s, err := state.Open(dir)
	must(t, err)
	for _, content := range []string{"one", "two"} {
		f, err := s.Create("manifest")
		must(t, err)
		before, errBefore := os.ReadFile(s.Path("manifest"))
		_, err = f.Write([]byte(content))
		must(t, err)
		now, errNow := os.ReadFile(s.Path("manifest"))
		if string(now) != string(before) || errors.Is(errBefore, fs.ErrNotExist) != errors.Is(errNow, fs.ErrNotExist) {
			t.Errorf("it has its name before it is whole: %q", now)
		}
		must(t, f.Commit())
		if now, err := os.ReadFile(s.Path("manifest")); err != nil || string(now) != content {
			t.Errorf("got %q, %v", now, err)
		}
		must(t, f.Close())
		if err := f.Commit(); !errors.Is(err, state.ErrClosed) {
			t.Errorf("committed twice: %v", err)
		}
	}
	given, err := s.Create("manifest")
	must(t, err)
	must(t, given.Close())
	onlyFiles(t, dir, "lock", "manifest")
	forgotten, err := s.Create("manifest")
	must(t, err)
	must(t, s.Close())
	s = opened(t, dir)
	onlyFiles(t, dir, "lock", "manifest")
	if err := forgotten.Close(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was not removed: %v", err)
	}
	if now, err := os.ReadFile(s.Path("manifest")); err != nil || string(now) != "two" {
		t.Errorf("got %q, %v", now, err)
	}
}

// onlyFiles checks what a directory holds.
func onlyFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the directory holds %q, want %q", got, want)
	}
}
