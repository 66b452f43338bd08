package verify_test

import (
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// readings are kept in memory.
type readings struct {
	all []verify.Reading // sorted by key
	// err is what all that is done with them comes to, if it is not nil.
	err error
}

func (r *readings) All() iter.Seq2[verify.Reading, error] {
	all := slices.Clone(r.all)
	return func(yield func(verify.Reading, error) bool) {
		for _, one := range all {
			if !yield(one, nil) {
				return
			}
		}
		if r.err != nil {
			yield(verify.Reading{}, r.err)
		}
	}
}

func (r *readings) find(key string) (int, bool) {
	return slices.BinarySearchFunc(r.all, key, func(a verify.Reading, key string) int { return entry.Compare(a.Key(), key) })
}

func (r *readings) Note(one verify.Reading) error {
	if i, ok := r.find(one.Key()); ok {
		r.all[i] = one
	} else {
		r.all = slices.Insert(r.all, i, one)
	}
	return r.err
}

func (r *readings) Forget(key string) error {
	if i, ok := r.find(key); ok {
		r.all = slices.Delete(r.all, i, i+1)
	}
	return r.err
}

// Readings that cannot be had, or kept, are no silent loss.
func TestReadingsThatFailAreTold(t *testing.T) {
	broken := errors.New("the disk is full")
	for _, into := range []string{"directory", "bucket"} {
		w := mirrored(t, into)
		for _, l := range []proof.Level{proof.L3, proof.L4} {
			c := verify.Check{Place: w.to, Level: l, Known: w.known(), Rolling: &verify.Rolling{
				Readings: &readings{err: broken}, Now: time.Now().Add(time.Hour), Period: time.Hour,
			}}
			if r, err := c.Against(t.Context(), w.manifest.Entries()); !errors.Is(err, broken) || r.Verified() {
				t.Errorf("%s at %v: %v, %v", into, l, r.Verdict, err)
			}
		}
	}
}

// Whenever a check is made, and however much it reads: what it counts for L3 was read
// within the period, and what it says of the rest is true.
func TestARollingCheckIsHonest(t *testing.T) {
	worlds := map[string]*world{"directory": mirrored(t, "directory"), "bucket": mirrored(t, "bucket")}
	rapid.Check(t, func(t *rapid.T) {
		w := worlds[rapid.SampledFrom([]string{"directory", "bucket"}).Draw(t, "into")]
		const contents, period = 3, 10 * time.Hour
		memory := &readings{}
		now := time.Now().Add(time.Hour)
		var pace verify.Pace
		for range rapid.IntRange(1, 8).Draw(t, "calls") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(period)*3/2).Draw(t, "later")))
			c := verify.Check{Place: w.to, Level: proof.L3, Parallel: 2, Rolling: &verify.Rolling{
				Readings: memory, Now: now, Period: period, Pace: pace,
				Read: rapid.SampledFrom([]verify.Amount{{}, {}, {Bytes: 1}, {Percent: 10}, {Percent: 100}}).Draw(t, "read"),
			}}
			if w.dest != "" {
				c.Known = w.known()
			}
			r, err := c.Against(w.Context(), w.manifest.Entries())
			if err != nil {
				t.Fatal(err)
			}
			pace = r.Pace
			fresh := int64(0)
			for _, one := range memory.all {
				if now.Sub(one.At) <= period {
					fresh++
				}
			}
			if found(r) != "" || r.Verdict.Low.Count != contents-fresh || r.Verified() != (fresh == contents) || r.Verdict.At[proof.L3] != files-r.Verdict.Low.Count {
				t.Fatalf("%v: %s; %d were read within the period", r, found(r), fresh)
			}
			if c.Rolling.Read == (verify.Amount{}) {
				for _, f := range r.Verdict.Low.First {
					if f.Detail != "never read" {
						t.Fatalf("%q is overdue: %s", f.Key, f.Detail)
					}
				}
			}
		}
	})
}
