package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

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
	out := make([]found, len(keys))
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(keys[a].key, keys[b].key) })
	rest := p.surveyListed(ctx, keys, order, out)
	each(rest, func(i int) { out[i] = p.surveyOne(ctx, keys[i]) })
	return out
}

// surveyListed fills in what a listing tells and returns the rest of the order.
func (p *Place) surveyListed(ctx context.Context, keys []wanted, order []int, out []found) []int {
	if len(order) < 2 {
		return order
	}
	fresh := map[string]int{}
	for _, i := range order {
		if keys[i].fresh && !p.traits.Both {
			fresh[keys[i].key] = i
		}
	}
	lowest, last := keys[order[0]].key, keys[order[len(order)-1]].key
	_, size := utf8.DecodeLastRuneInString(lowest)
	o := bucket.ListOptions{After: lowest[:len(lowest)-size], PageSize: min(2*len(order)+sparse, 1000)}
	rest, listed := order, 0
	for object, err := range p.b.List(ctx, o) {
		if err != nil {
			for _, i := range rest {
				out[i].err = err
			}
			return nil
		}
		for len(rest) > 0 && keys[rest[0]].key < object.Key {
			rest = rest[1:]
		}
		for len(rest) > 0 && keys[rest[0]].key == object.Key {
			out[rest[0]] = found{object: object, there: true}
			rest = rest[1:]
		}
		for dir := parent(object.Key); dir != "" && len(fresh) > 0; dir = parent(dir) {
			if i, ok := fresh[dir[:len(dir)-1]]; ok {
				out[i].below = object.Key
			}
		}
		passed := len(order) - len(rest)
		if listed++; object.Key > last || listed >= 1000 && passed*sparse < listed {
			return append(slices.Clone(rest), undecided(fresh, object.Key, out)...)
		}
	}
	return nil
}

// undecided are those of whose insides nothing was seen when a listing was broken
// off: "a.b" comes between "a" and "a/b".
func undecided(fresh map[string]int, at string, out []found) (rest []int) {
	for n := range at {
		i, ok := fresh[at[:n]]
		if ok && at < at[:n]+"/" && !out[i].there {
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

// each does something for all indices, several at once.
func each(indices []int, do func(int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(parallel, len(indices)) {
		workers.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for _, i := range indices {
		next <- i
	}
	close(next)
	workers.Wait()
}
