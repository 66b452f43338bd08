package local

import (
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"pgregory.net/rapid"
)

// model is what a place should hold, and what was ever seen there.
type model struct {
	*rapid.T
	t        *testing.T
	p        *Place
	now      map[string]entry.Entry
	contents map[string]string
	seen     []entry.Entry
}

// blocked reports that a file stands where the path needs a directory.
func (m *model) blocked(path string) bool {
	for above, _ := split(path); above != ""; above, _ = split(above) {
		if e, ok := m.now[above]; ok && e.Kind != entry.Dir {
			return true
		}
	}
	return false
}

// learn takes up what the place says that it holds now.
func (m *model) learn(e entry.Entry, content string) {
	for above, _ := split(e.Path); above != ""; above, _ = split(above) {
		if _, ok := m.now[above]; !ok {
			m.now[above] = all(m.t, m.p)[above]
		}
	}
	m.now[e.Path], m.contents[e.Path] = e, content
	m.seen = append(m.seen, e)
}

// have draws what a plan may believe to be at the path: the truth, nothing, or
// what was there some time.
func (m *model) have(path string) (have entry.Entry, stillTrue bool) {
	old := []entry.Entry{{}, m.now[path]}
	for _, e := range m.seen {
		if e.Path == path {
			old = append(old, e)
		}
	}
	have = rapid.SampledFrom(old).Draw(m.T, "have")
	now := m.now[path]
	return have, have.Kind == now.Kind && have.Change.Inode == now.Change.Inode && (have.Kind == entry.Dir || have.Change == now.Change)
}

func (m *model) outcome(what string, err, want error) {
	if !errors.Is(err, want) {
		m.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

var (
	modelPaths    = rapid.SampledFrom([]string{"a", "b", "a/b", "a/c", "a/b/c", "a!", "d/e/f", "d/e", "d"})
	modelContents = rapid.SampledFrom([]string{"", "x", "yy", strings.Repeat("z", 5000)})
)

func (m *model) put(t *rapid.T) {
	m.T = t
	path, content := modelPaths.Draw(t, "path"), modelContents.Draw(t, "content")
	w := file(path, content)
	have, stillTrue := m.have(path)
	w.Have = have
	var want error
	if m.blocked(path) || !stillTrue || m.now[path].Kind == entry.Dir {
		want = place.ErrChanged
	}
	e, err := m.p.Put(m.t.Context(), w)
	m.outcome("Put of "+path, err, want)
	if err == nil {
		m.learn(e, content)
	}
}

func (m *model) makeDir(t *rapid.T) {
	m.T = t
	path := modelPaths.Draw(t, "path")
	now, ok := m.now[path]
	var want error
	if m.blocked(path) || ok && now.Kind != entry.Dir {
		want = place.ErrChanged
	}
	mode := 0o700 | rapid.Uint32Max(0o77).Draw(t, "mode")
	e, err := m.p.MakeDir(m.t.Context(), entry.Entry{Path: path, Kind: entry.Dir, Mode: mode, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	m.outcome("MakeDir of "+path, err, want)
	if err == nil {
		m.learn(e, "")
	}
}

func (m *model) setAttrs(t *rapid.T) {
	m.T = t
	path := modelPaths.Draw(t, "path")
	have, stillTrue := m.have(path)
	if !plan.Present(have) {
		return
	}
	var want error
	if m.blocked(path) || !stillTrue {
		want = place.ErrChanged
	}
	attrs := have
	attrs.Mode, attrs.MTime = 0o600|rapid.Uint32Max(0o77).Draw(t, "mode")|have.Mode&0o100, rapid.Int64Range(0, 1<<60).Draw(t, "time")
	e, err := m.p.SetAttrs(m.t.Context(), attrs, have)
	m.outcome("SetAttrs of "+path, err, want)
	if err == nil {
		m.learn(e, m.contents[path])
	}
}

func (m *model) remove(t *rapid.T) {
	m.T = t
	path := modelPaths.Draw(t, "path")
	have, stillTrue := m.have(path)
	if !plan.Present(have) {
		have.Path = path
	}
	_, there := m.now[path]
	within := slices.ContainsFunc(slices.Collect(maps.Keys(m.now)), func(p string) bool { return strings.HasPrefix(p, path+"/") })
	var want error
	switch {
	case m.blocked(path), there && !stillTrue:
		want = place.ErrChanged
	case within:
		want = place.ErrNotEmpty
	}
	err := m.p.Remove(m.t.Context(), []entry.Entry{have})[0]
	m.outcome("Remove of "+path, err, want)
	if err == nil {
		delete(m.now, path)
	}
}

// check holds the place to the model.
func (m *model) check(t *rapid.T) {
	got := all(m.t, m.p)
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(m.now)); !slices.Equal(g, w) {
		t.Fatalf("it holds %q and not %q", g, w)
	}
	for path, e := range got {
		want := m.now[path]
		if e.Kind != want.Kind || e.Mode != want.Mode || e.Kind != entry.Dir && (e.Change != want.Change || e.MTime != want.MTime || m.content(e) != m.contents[path]) {
			t.Fatalf("it holds %+v and said %+v", e, want)
		}
	}
}

func (m *model) content(e entry.Entry) string {
	c, err := m.p.Open(m.t.Context(), e, 0, -1)
	must(m.t, err)
	raw, err := io.ReadAll(c)
	must(m.t, errors.Join(err, c.Unchanged(), c.Close()))
	return string(raw)
}

// Whatever is done, in whatever order, the place holds what its answers said, and
// refuses what was not seen.
func TestThePlaceHoldsWhatItSaid(t *testing.T) {
	for name, plain := range map[string]bool{"with exchanges": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				p, err := Open(t.Context(), t.TempDir(), Options{})
				must(t, err)
				defer func() { must(t, p.Close()) }()
				p.plain = plain
				m := &model{T: rt, t: t, p: p, now: map[string]entry.Entry{}, contents: map[string]string{}}
				rt.Repeat(map[string]func(*rapid.T){"": m.check, "put": m.put, "make a directory": m.makeDir, "set attributes": m.setAttrs, "remove": m.remove})
			})
		})
	}
}
