package job

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// DefaultPeriod is within how long everything is read once, where nothing else is said.
const DefaultPeriod = 30 * 24 * time.Hour

// readings are when a side's contents were read last, in a state of their own within
// the mirror's, whose lock guards them: a run that ends in the middle has what it
// noted, and memory does not grow with them. What they are of is a [plan.Past] whose
// source is the file as it was listed, and whose destination is what was read, with
// the time of reading for that of the modification.
type readings struct {
	*state.Store
	facts readFacts
}

// readFacts are what the readings say of themselves.
type readFacts struct {
	// Place is the identity of the place that was read.
	Place string      `json:"place"`
	Pace  verify.Pace `json:"pace"`
}

const readFactsName = "facts"

// openReadings opens those of a side. They are only what saves reading: damaged ones,
// and those of another place under the same name, are as good as none.
func (j *Job) openReadings(side plan.Side) (*readings, error) {
	dir := j.store.Path("read-" + side.String())
	place := j.places[side].Traits().Identity
	r, err := loadReadings(dir)
	if err == nil && r.facts.Place == place {
		return r, nil
	}
	if err == nil {
		err = r.Close()
	}
	if err == nil || errors.Is(err, state.ErrCorrupt) {
		if err = os.RemoveAll(dir); err == nil {
			r, err = loadReadings(dir)
		}
	}
	if err == nil {
		// Before anything is noted: readings of one place must not be taken for another's.
		r.facts.Place = place
		if err = r.Save(readFactsName, r.facts); err == nil {
			return r, nil
		}
		err = errors.Join(err, r.Close())
	}
	return nil, fmt.Errorf("mirror %s: remember what is read of the %s: %w", j.spec.Name, side, err)
}

func loadReadings(dir string) (*readings, error) {
	store, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	r := &readings{Store: store}
	_, err = store.Load(readFactsName, &r.facts)
	for _, bad := range store.Past() {
		err = errors.Join(err, bad)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return r, nil
}

// All implements [verify.Readings].
func (r *readings) All() iter.Seq2[verify.Reading, error] {
	return func(yield func(verify.Reading, error) bool) {
		for p, err := range r.Past() {
			if !yield(verify.Reading{Listed: p.Source, Sum: p.Dest.Sum, At: time.Unix(0, p.Dest.MTime)}, err) {
				return
			}
		}
	}
}

// Note implements [verify.Readings].
func (r *readings) Note(one verify.Reading) error {
	read := entry.Entry{Path: one.Listed.Path, Kind: one.Listed.Kind, Size: one.Listed.Size, MTime: one.At.UnixNano(), Sum: one.Sum}
	return r.Store.Note(plan.Past{Key: one.Key(), Source: one.Listed, Dest: read})
}

// end keeps what was noted, and what the next check goes on with if this one came to
// its end.
func (r *readings) end(pace verify.Pace, ended bool) error {
	err := r.Commit()
	if err == nil && ended {
		r.facts.Pace = pace
		err = r.Save(readFactsName, r.facts)
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("remember what was read: %w", err)
	}
	return nil
}

// against compares a side with the manifest, and remembers what was read of it where
// that can count later.
func (j *Job) against(side plan.Side, o VerifyOptions, check func(*verify.Rolling) (verify.Result, error)) (verify.Result, error) {
	if o.Level < proof.L3 {
		return check(nil)
	}
	r, err := j.openReadings(side)
	if err != nil {
		return verify.Result{}, err
	}
	res, err := check(&verify.Rolling{Readings: r, Now: j.env.Now(), Period: o.period(), Read: o.Read, Pace: r.facts.Pace})
	if kept := r.end(res.Pace, err == nil && o.Level == proof.L3); kept != nil {
		err = errors.Join(err, fmt.Errorf("mirror %s: %w", j.spec.Name, kept))
	}
	return res, err
}
