package engine

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A bucket whose age these credentials are not told has no other identity than its name.
// What is remembered then of a few of its objects is when the server says that they were
// written: nobody can write the same time into another bucket of that name, so that one of
// them, as it was, vouches for the rest. It costs a request for each run, and another one after
// most of them were overwritten.

const (
	// mostWitnesses is how many objects are remembered of a listing: that all of them were
	// written again while others were not is as good as impossible.
	mostWitnesses = 64
	// fewWitnesses is below how many others are looked for, among the first askedAtOnce.
	fewWitnesses = 8
	askedAtOnce  = 1000
	// WitnessesName is the name of the document in the Store that holds them.
	WitnessesName = "witnesses"
)

// Witnesses are what a run has seen of a place that has no other mark.
type Witnesses struct {
	// Place is [place.Traits.Address].
	Place string `json:"place"`
	// Dated are the times at which the place says that objects were written, in nanoseconds
	// since the epoch, by their keys.
	Dated map[string]int64 `json:"dated,omitempty"`
}

// witness gathers the witnesses of one side.
type witness struct {
	// asked says that the side has no other mark.
	asked bool
	// known is what was remembered; vouched says that one of it is there as it was.
	known   map[string]int64
	vouched bool

	mu     sync.Mutex // guards what follows
	listed sample
	// lost are those that the run may have overwritten; changed says that it may have changed
	// anything.
	lost    map[string]bool
	changed bool
}

// sample keeps a few of the keys that it is told of, chosen at random.
type sample struct {
	seed maphash.Seed
	of   []sampled // by rank
}

type sampled struct {
	rank uint64
	key  string
	at   int64
}

func (s *sample) add(key string, at int64) {
	if s.of == nil {
		s.seed = maphash.MakeSeed()
	}
	rank := maphash.String(s.seed, key)
	if len(s.of) == mostWitnesses {
		if rank >= s.of[mostWitnesses-1].rank {
			return
		}
		s.of = s.of[:mostWitnesses-1]
	}
	i, _ := slices.BinarySearchFunc(s.of, rank, func(one sampled, rank uint64) int { return cmp.Compare(one.rank, rank) })
	s.of = slices.Insert(s.of, i, sampled{rank, key, at})
}

// see is [place.ListOptions.Dated].
func (w *witness) see(key string, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listed.add(key, at)
}

// wrote notes that the run may have written to a key, or deleted it.
func (w *witness) wrote(a *plan.Action) {
	if !w.asked || a.Op == plan.Rehash {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = true
	if w.lost == nil {
		w.lost = map[string]bool{}
	}
	if w.known[a.Key] != 0 || slices.ContainsFunc(w.listed.of, func(s sampled) bool { return s.key == a.Key }) {
		w.lost[a.Key] = true
	}
}

// recognise looks whether a side that has no other mark is the place that was written to or
// listed before.
func (r *run) recognise(s plan.Side) error {
	w, t := &r.witnesses[s], r.Places[s].Traits()
	if w.asked = t.Address != "" && r.facts.Identities[s] == t.Address; !w.asked {
		return nil
	}
	var all [2]Witnesses
	if _, err := r.Store.Load(WitnessesName, &all); err != nil {
		return fmt.Errorf("read what the job remembers of its places: %w", err)
	}
	if all[s].Place == t.Address && !r.AcceptPlaces {
		w.known = all[s].Dated
	}
	oldest := func(a, b string) int { return cmp.Compare(w.known[a], w.known[b]) } // which is the least likely to change
	var vain []string
	for _, key := range slices.SortedFunc(maps.Keys(w.known), oldest) {
		dated, err := t.Dated(r.ctx, key, 1)
		if err != nil {
			return fmt.Errorf("ask %s when %q was written: %w", r.Places[s], key, err)
		}
		if w.vouched = dated[key] == w.known[key]; w.vouched {
			break
		}
		vain = append(vain, key)
	}
	if !w.vouched {
		return nil
	}
	for _, key := range vain {
		delete(w.known, key)
	}
	if t.Identity != t.Address { // It is told by now.
		r.facts.Identities[s], w.asked = t.Identity, false
	}
	return nil
}

// replaced reports whether a side has nothing of what was remembered of it. A run that was cut
// off may have overwritten all that.
func (r *run) replaced(s plan.Side) bool {
	w := &r.witnesses[s]
	return w.asked && !w.vouched && len(w.known) > 0 && !r.knew.Unfinished
}

// doubted reports whether nothing tells whether a side is the place that it was.
func (r *run) doubted(s plan.Side) bool {
	w := &r.witnesses[s]
	return w.asked && !w.vouched && !r.Store.Empty()
}

// remembered gives what the next run asks for on a side.
func (r *run) remembered(s plan.Side) Witnesses {
	w := &r.witnesses[s]
	t := r.Places[s].Traits()
	out := Witnesses{Place: t.Address, Dated: map[string]int64{}}
	if r.report.Faults > 0 || len(w.listed.of) == 0 {
		maps.Copy(out.Dated, w.known)
	}
	for _, one := range w.listed.of {
		out.Dated[one.key] = one.at
	}
	maps.DeleteFunc(out.Dated, func(key string, _ int64) bool { return w.lost[key] })
	if len(out.Dated) >= fewWitnesses || !w.changed {
		return out
	}
	// What cannot be learnt now is not known, and no more.
	dated, _ := t.Dated(r.ctx, "", askedAtOnce)
	var some sample
	for key, at := range dated {
		some.add(key, at)
	}
	for _, one := range some.of {
		out.Dated[one.key] = one.at
	}
	return out
}

// keepWitnesses remembers what vouches for the places at the next run.
func (r *run) keepWitnesses() error {
	if !r.witnesses[plan.Source].asked && !r.witnesses[plan.Dest].asked {
		return nil
	}
	var was, all [2]Witnesses
	if _, err := r.Store.Load(WitnessesName, &was); err != nil {
		return fmt.Errorf("read what the job remembers of its places: %w", err)
	}
	same := true
	for s := range all {
		if all[s] = was[s]; r.witnesses[s].asked && !r.replaced(plan.Side(s)) {
			all[s] = r.remembered(plan.Side(s))
		}
		same = same && all[s].Place == was[s].Place && maps.Equal(all[s].Dated, was[s].Dated)
	}
	if same {
		return nil
	}
	if err := r.Store.Save(WitnessesName, all); err != nil {
		return fmt.Errorf("save what the job remembers of its places: %w", err)
	}
	return nil
}

// unvouched is what is done about a place of which nothing tells whether it is another one.
const unvouched = "run again, as this run has remembered what it saw there; or let the credentials be told when the bucket was made (s3:ListAllMyBuckets)"

// noneLeft is [Elsewhere] of a side that is replaced.
func (r *run) noneLeft(s plan.Side) error {
	return &JobError{"Places", fmt.Sprintf("the %s %s is not the place that the mirror was set up with: of the %d objects that were remembered none is there as it was written",
		s, r.Places[s], len(r.witnesses[s].known)), elsewhereFix + "; credentials that are told when the bucket was made (s3:ListAllMyBuckets) need no such evidence"}
}

// IsPlace reports whether a place is the one of an identity, as far as it tells: what it
// tells more than was told then does not make it another.
func IsPlace(want string, t place.Traits) bool {
	return want == t.Identity || want != "" && want == t.Address
}
