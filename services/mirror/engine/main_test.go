package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
)

var server enginetest.Server

func TestMain(m *testing.M) { server.Main(m) }

func must(t interface {
	Helper()
	Fatal(...any)
}, err error) {
	t.Helper()
	enginetest.Must(t, err)
}

func openLocal(t testing.TB, dir string) *spy {
	t.Helper()
	p, err := local.Open(t.Context(), dir, local.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return &spy{Place: p}
}

func openBucket(t testing.TB, versions bool, o store.Options) *spy {
	t.Helper()
	p, err := store.Open(t.Context(), server.Bucket(t, versions), o)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return &spy{Place: p}
}

// spy notes what is done to a place, and can get in the way.
type spy struct {
	place.Place
	// opened is called with the key of what is about to be read; its error stands
	// for that of reading. after is called when some of it was read.
	opened func(key string) error
	after  func(key string)
	// refuses is called before an entry is put; its error stands for that of putting.
	refuses func(w place.Write) error
	// putPart is called before each part is put; its error stands for that of putting.
	putPart func(number int) error

	mu   sync.Mutex
	done []string
}

func (s *spy) note(op string, keys ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.done = append(s.done, op+" "+k)
	}
}

// took gives what was done since it was last asked, sorted.
func (s *spy) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := s.done
	s.done = nil
	slices.Sort(done)
	return done
}

func (s *spy) Put(ctx context.Context, w place.Write) (entry.Entry, error) {
	s.note("put", w.Entry.Key())
	if s.refuses != nil {
		if err := s.refuses(w); err != nil {
			return entry.Entry{}, err
		}
	}
	return s.Place.Put(ctx, w)
}

func (s *spy) PutBatch(ctx context.Context, ws []place.Write) []place.Outcome {
	for _, w := range ws {
		s.note("put", w.Entry.Key())
	}
	return s.Place.PutBatch(ctx, ws)
}

func (s *spy) MakeDir(ctx context.Context, want entry.Entry) (entry.Entry, error) {
	s.note("mkdir", want.Key())
	return s.Place.MakeDir(ctx, want)
}

func (s *spy) SetAttrs(ctx context.Context, want, have entry.Entry) (entry.Entry, error) {
	s.note("meta", have.Key())
	return s.Place.SetAttrs(ctx, want, have)
}

func (s *spy) Remove(ctx context.Context, have []entry.Entry) []error {
	for _, e := range have {
		s.note("delete", e.Key())
	}
	return s.Place.Remove(ctx, have)
}

func (s *spy) Open(ctx context.Context, e entry.Entry, off, n int64) (place.Content, error) {
	if s.opened != nil {
		if err := s.opened(e.Key()); err != nil {
			return nil, err
		}
	}
	c, err := s.Place.Open(ctx, e, off, n)
	if err != nil || s.after == nil {
		return c, err
	}
	return &spied{c, func() { s.after(e.Key()) }}, nil
}

// spied tells when it was read.
type spied struct {
	place.Content
	after func()
}

func (s *spied) Read(p []byte) (int, error) {
	n, err := s.Content.Read(p)
	s.after()
	return n, err
}

func (s *spy) parts() place.Parts { return s.Place.(place.Parts) }

func (s *spy) StartParts(ctx context.Context, w place.Write, size int64) ([]byte, error) {
	s.note("start", w.Entry.Key())
	return s.parts().StartParts(ctx, w, size)
}

func (s *spy) PutPart(ctx context.Context, token []byte, number int, r io.Reader, size int64) ([]byte, error) {
	if s.putPart != nil {
		if err := s.putPart(number); err != nil {
			return nil, err
		}
	}
	return s.parts().PutPart(ctx, token, number, r, size)
}

func (s *spy) FinishParts(ctx context.Context, w place.Write, token []byte, parts [][]byte) (entry.Entry, error) {
	s.note("finish", w.Entry.Key())
	return s.parts().FinishParts(ctx, w, token, parts)
}

func (s *spy) AbortParts(ctx context.Context, token []byte) error {
	s.note("abort", "")
	return s.parts().AbortParts(ctx, token)
}

// world is a job between two places, with the directories that they are, or "".
type world struct {
	testing.TB
	job   *Job
	store *state.Store
	state string
	// from and to are the places.
	from, to *spy
	dir      string
	// pool, if not nil, is what carries items out.
	pool func(Pool) Pool
}

// later is a clock by which nothing that a test just wrote is young.
func later() time.Time { return time.Now().Add(time.Hour) }

// between makes a world with a directory as its source.
func between(t testing.TB, mode plan.Mode, to *spy) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{TB: t, dir: dir, from: openLocal(t, dir), to: to, state: t.TempDir()}
	w.job = &Job{Places: [2]place.Place{w.from, w.to}, Mode: mode, Now: later}
	w.job.Guards = plan.Guards{Number: -1, Percent: 100, Scans: 1}
	if mode == plan.TwoWay {
		w.job.Trust = plan.TrustHashes
	}
	w.reopen()
	t.Cleanup(func() { must(t, w.store.Close()) })
	return w
}

// reopen is what a new process finds.
func (w *world) reopen() {
	w.Helper()
	if w.store != nil {
		must(w, w.store.Close())
	}
	var err error
	w.store, err = state.Open(w.state)
	must(w, err)
	w.job.Store = w.store
}

func (w *world) try(ctx context.Context) (Report, error) {
	w.Helper()
	spill, err := w.store.Spill()
	must(w, err)
	defer func() { must(w, spill.Close()) }()
	j := *w.job
	j.Spill = spill
	j.Pool = Local{Worker: &Worker{Places: j.Places, PartSize: 5 << 20}, Items: 2}
	if w.pool != nil {
		j.Pool = w.pool(j.Pool)
	}
	return j.Run(ctx)
}

// run makes a run that must come to its end.
func (w *world) run() Report {
	w.Helper()
	r, err := w.try(w.Context())
	must(w, err)
	return r
}

// whole makes a run that must leave nothing undone.
func (w *world) whole() Report {
	w.Helper()
	r := w.run()
	if !r.Whole() {
		w.Fatalf("not whole: %+v", r)
	}
	return r
}

func (w *world) write(path, content string) {
	w.Helper()
	enginetest.Write(w, w.dir, path, content)
}

func (w *world) remove(path string) {
	w.Helper()
	must(w, os.RemoveAll(filepath.Join(w.dir, path)))
}

// idle checks that a run finds nothing to do and does nothing.
func (w *world) idle(check Check) {
	w.Helper()
	w.to.took()
	w.from.took()
	w.job.Check = check
	r := w.whole()
	done := maps.Clone(r.Done)
	delete(done, plan.Equal)
	if took := append(w.to.took(), w.from.took()...); len(took) > 0 || len(done) > 0 {
		w.Fatalf("check %d found %v to do and did %q", check, done, took)
	}
}

// holds lists a place: by key what there is, contents read.
func holds(t testing.TB, p place.Place) map[string]string {
	t.Helper()
	all := map[string]string{}
	for e, err := range p.Entries(t.Context(), place.ListOptions{}) {
		must(t, err)
		what := fmt.Sprintf("%v %04o %d:%d", e.Kind, e.Mode, e.UID, e.GID)
		switch e.Kind {
		case entry.File:
			sum, err := Hash(t.Context(), p, e, entry.Sum{}, nil, nil)
			must(t, err)
			what += fmt.Sprintf(" %d %x", e.MTime, sum.BLAKE3)
		case entry.Symlink:
			what = "symlink " + e.Target
		}
		all[e.Key()] = what
	}
	return all
}

// same checks that both places hold the same.
func (w *world) same() {
	w.Helper()
	from, to := holds(w, w.from), holds(w, w.to)
	if !maps.Equal(from, to) {
		w.Fatalf("source\n%v\ndestination\n%v", strings.Join(lines(from), "\n"), strings.Join(lines(to), "\n"))
	}
}

func lines(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%q %s", k, m[k]))
	}
	return out
}

// grow makes a small tree with all that is awkward.
func (w *world) grow() {
	w.Helper()
	for i := range 20 {
		w.write(fmt.Sprintf("many/%02d", i), fmt.Sprint("content ", i))
	}
	w.write("empty", "")
	w.write("large", strings.Repeat("0123456789abcdef", 1<<16))
	w.write("a line\nbreak", "x")
	w.write("not utf8 \xff", "x")
	w.write("d/e/f/deep", "x")
	w.write("mode", "secret")
	must(w, errors.Join(
		os.Chmod(filepath.Join(w.dir, "mode"), 0o600), os.Chmod(filepath.Join(w.dir, "d"), 0o750),
		os.Mkdir(filepath.Join(w.dir, "nothing"), 0o755), os.Symlink("d/e", filepath.Join(w.dir, "link")),
		unix.Mkfifo(filepath.Join(w.dir, "fifo"), 0o644),
	))
}

// targets are the destinations that the same is tried with.
func targets(t *testing.T, test func(t *testing.T, to *spy)) {
	t.Run("directory", func(t *testing.T) { test(t, openLocal(t, t.TempDir())) })
	t.Run("bucket", func(t *testing.T) { test(t, openBucket(t, false, store.Options{})) })
}

// poolFunc is a Pool in front of another.
type poolFunc struct {
	Pool
	do func(ctx context.Context, it Item, next func(context.Context, Item) ([]Done, error)) ([]Done, error)
}

func (p poolFunc) Do(ctx context.Context, it Item) ([]Done, error) { return p.do(ctx, it, p.Pool.Do) }

// made is a place of so many entries that are made up as they are asked for.
type made struct {
	place.Place
	n int
}

func (m made) Entries(ctx context.Context, _ place.ListOptions) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for i := range m.n {
			e := entry.Entry{Path: fmt.Sprintf("d%04d", i/100), Kind: entry.Dir, Mode: 0o755}
			if i%100 > 0 {
				e = entry.Entry{Path: fmt.Sprintf("d%04d/f%02d", i/100, i%100), Size: 100, Mode: 0o644, MTime: int64(i), Change: entry.Change{Inode: uint64(i), CTime: 1}}
			}
			if !yield(e, ctx.Err()) {
				return
			}
		}
	}
}

func (m made) Traits() place.Traits {
	return place.Traits{Lists: plan.AllAttrs, Identity: "made"}
}

func (m made) String() string { return "made" }

func (m made) Finish(context.Context) error { return nil }
