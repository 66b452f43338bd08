package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// sparse is how many keys a listing may hold for one that is wanted: beyond it,
// asking for each costs less.
const sparse = 8

// wanted is a key that something is about to be done to.
type wanted struct {
	key string
	// fresh says that nothing should be there, also not below it.
	fresh bool
}

// found is what there is at a key.
type found struct {
	object bucket.Object
	there  bool
	// below is a key that the wanted one would hide; "" if none was seen.
	below string
	err   error
}

// survey looks at many keys: by listing as long as they lie close to each other,
// then one by one. The result is in their order.
func (p *Place) survey(ctx context.Context, keys []wanted) []found {
	s := &survey{Place: p, keys: keys, out: make([]found, len(keys)), fresh: map[string]int{}}
	order := make([]int, len(keys))
	for i, w := range keys {
		order[i] = i
		if w.fresh && !p.traits.Both {
			s.fresh[w.key] = i
		}
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(keys[a].key, keys[b].key) })
	alone, unsure := order, []int(nil)
	switch {
	case len(order) < 2:
	case len(s.fresh) == len(keys): // and nothing is expected
		alone, unsure = nil, order
	default:
		if alone, unsure = s.listed(ctx, "", order); p.traits.Both {
			unsure = nil
		}
	}
	alone = append(alone, s.below(ctx, unsure)...)
	each(len(alone), func(n int) { s.out[alone[n]] = p.surveyOne(ctx, keys[alone[n]]) })
	return s.out
}

// survey is one look at many keys.
type survey struct {
	*Place
	keys  []wanted
	fresh map[string]int
	// mu guards out: what lies below a key may be seen by several listings.
	mu  sync.Mutex
	out []found
}

// listed fills in what a listing below a prefix tells, as long as the keys are close
// to each other. It returns those that are left to be asked for alone, and those that
// come after all that was listed.
func (s *survey) listed(ctx context.Context, prefix string, order []int) (alone, after []int) {
	lowest, last := s.keys[order[0]].key, s.keys[order[len(order)-1]].key
	_, size := utf8.DecodeLastRuneInString(lowest)
	o := bucket.ListOptions{Prefix: prefix, After: lowest[:len(lowest)-size], PageSize: min(2*len(order)+sparse, 1000)}
	rest, listed, at := order, 0, lowest
	for object, err := range s.b.List(ctx, o) {
		if err != nil {
			s.fail(rest, err)
			return nil, nil
		}
		at = object.Key
		rest = s.saw(object, rest)
		passed := len(order) - len(rest)
		if listed++; object.Key > last || listed >= 1000 && passed*sparse < listed {
			return append(slices.Clone(rest), s.undecided(at)...), nil
		}
	}
	return s.undecided(at), rest
}

// saw notes an object of a listing, and returns those of the rest that come after it.
func (s *survey) saw(object bucket.Object, rest []int) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(rest) > 0 && s.keys[rest[0]].key < object.Key {
		rest = rest[1:]
	}
	for len(rest) > 0 && s.keys[rest[0]].key == object.Key {
		i := rest[0]
		s.out[i].object, s.out[i].there = object, true
		rest = rest[1:]
	}
	for dir := bucket.Parent(object.Key); dir != "" && len(s.fresh) > 0; dir = bucket.Parent(dir) {
		if i, ok := s.fresh[dir[:len(dir)-1]]; ok {
			s.out[i].below = object.Key
		}
	}
	return rest
}

// fail notes that keys could not be looked for.
func (s *survey) fail(order []int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range order {
		s.out[i].err = err
	}
}

// below looks at sorted keys of which no listing told, because it ended too early (see
// [bucket.ListOptions.After]) or nothing is expected there: directory by directory,
// from the top, because nothing is asked any more below one in which there is nothing.
// It returns those that are left to be asked for alone.
func (s *survey) below(ctx context.Context, order []int) (alone []int) {
	var level [][]int
	if len(order) > 0 {
		level = [][]int{order}
	}
	for len(level) > 0 {
		var mu sync.Mutex
		var next [][]int
		each(len(level), func(n int) {
			single, subs := s.children(ctx, level[n])
			mu.Lock()
			defer mu.Unlock()
			alone = append(alone, single...)
			for _, keys := range subs {
				if len(keys) == 1 {
					alone = append(alone, keys...)
					continue
				}
				next = append(next, keys)
			}
		})
		level = next
	}
	return alone
}

// children fills in what the deepest directory of sorted keys shows of those that lie
// in it itself. It returns the keys of each directory in it in which there may be
// something, and those that are left to be asked for alone.
func (s *survey) children(ctx context.Context, order []int) (alone []int, subs [][]int) {
	dir := s.common(order)
	direct, subs := s.split(dir, order)
	c, err := s.b.Children(ctx, s.start(dir, order))
	switch {
	case err != nil:
		s.fail(order, err)
		return nil, nil
	case !c.All && len(direct) > 1:
		// Here the end is the end: no directory comes between.
		alone, _ = s.listed(ctx, dir, direct)
		return alone, subs
	case !c.All:
		return direct, subs
	}
	rest := direct
	for _, object := range c.Objects {
		rest = s.saw(object, rest)
	}
	holds := func(dir string) bool {
		_, is := slices.BinarySearch(c.Dirs, dir)
		return is
	}
	for _, i := range direct {
		if w := s.keys[i]; w.fresh && !s.out[i].there && holds(w.key+"/") {
			alone = append(alone, i)
		}
	}
	return alone, slices.DeleteFunc(subs, func(keys []int) bool {
		name, _, _ := strings.Cut(s.keys[keys[0]].key[len(dir):], "/")
		return !holds(dir + name + "/")
	})
}

// common is the deepest directory that all of sorted keys lie in.
func (s *survey) common(order []int) string {
	first, last := s.keys[order[0]].key, s.keys[order[len(order)-1]].key
	n := 0
	for n < min(len(first), len(last)) && first[n] == last[n] {
		n++
	}
	return first[:strings.LastIndexByte(first[:n], '/')+1]
}

// start is what the names of sorted keys in a directory begin with, as far as a server
// takes it for the beginning of a key.
func (s *survey) start(dir string, order []int) string {
	first, last := s.keys[order[0]].key, s.keys[order[len(order)-1]].key
	n := len(dir)
	for n < min(len(first), len(last)) && first[n] == last[n] && first[n] != '/' {
		n++
	}
	for n > len(dir) && n < len(first) && !utf8.RuneStart(first[n]) {
		n--
	}
	if name := first[len(dir):n]; name == "." || name == ".." {
		return dir
	}
	return first[:n]
}

// split parts keys into those that lie in a directory itself and those of each
// directory in it.
func (s *survey) split(dir string, order []int) (direct []int, subs [][]int) {
	at := ""
	for _, i := range order {
		name, _, deeper := strings.Cut(s.keys[i].key[len(dir):], "/")
		switch {
		case !deeper:
			direct = append(direct, i)
		case len(subs) > 0 && name == at:
			subs[len(subs)-1] = append(subs[len(subs)-1], i)
		default:
			at, subs = name, append(subs, []int{i})
		}
	}
	return direct, subs
}

// undecided are those of whose insides nothing was seen when a listing was broken
// off: "a.b" comes between "a" and "a/b".
func (s *survey) undecided(at string) (rest []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range at {
		i, ok := s.fresh[at[:n]]
		if ok && at < at[:n]+"/" && !s.out[i].there {
			rest = append(rest, i)
		}
	}
	return rest
}

func (p *Place) surveyOne(ctx context.Context, w wanted) found {
	o, err := p.b.Stat(ctx, w.key)
	if errors.Is(err, bucket.ErrNotFound) {
		err = nil
		if w.fresh && !p.traits.Both {
			var below bucket.Object
			below, err = p.first(ctx, w.key+"/")
			return found{below: below.Key, err: err}
		}
		return found{err: err}
	}
	return found{object: o, there: err == nil, err: err}
}

// each does something for all indices below n, several at once.
func each(n int, do func(int)) {
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = g.Wait() // do keeps its errors itself
}
