package job

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// bin is where a run puts aside what it deletes, from when it begins to.
func (j *Job) bin(run string) place.Bin {
	if run == "" {
		run = strings.ToLower(rand.Text()[:10])
	}
	return place.Bin{Of: j.of(), Run: run, At: j.env.Now().UTC().Truncate(time.Second)}
}

// of tells this mirror from others that put aside at the same place.
func (j *Job) of() string {
	sum := sha256.Sum256([]byte(j.spec.Name))
	return hex.EncodeToString(sum[:4])
}

// keepers are the sides that runs delete from, as places that keep it.
func (j *Job) keepers() map[plan.Side]place.Keeper {
	out := map[plan.Side]place.Keeper{}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if side == plan.Source && j.spec.mode != plan.TwoWay {
			continue
		}
		if k, ok := j.places[side].(place.Keeper); ok {
			out[side] = k
		}
	}
	return out
}

// prune removes for good what was put aside longer ago than it is kept, and gives how many
// runs' that was. What cannot be removed keeps no run from being done.
func (j *Job) prune(ctx context.Context, report *engine.Report) (n int) {
	if j.spec.KeepDeleted <= 0 {
		return 0
	}
	for _, k := range j.keepers() {
		pruned, err := k.Prune(ctx, j.of(), j.env.Now().Add(-j.spec.KeepDeleted.D()))
		if n += pruned; err != nil {
			report.Fail(place.Trash, plan.Delete, err)
		}
	}
	return n
}

// Deleted is an entry that runs have deleted, and that can be brought back.
type Deleted struct {
	place.Kept
	// Side is where it was deleted.
	Side plan.Side
}

// ErrNoRuns says that runs cannot be told apart.
var ErrNoRuns = errors.New("the bucket keeps what is deleted as versions, which do not tell which run deleted them")

// DeletedOptions say what of all that was deleted is meant.
type DeletedOptions struct {
	// Run is the run that deleted it; "" is any. A bucket with versions knows no runs.
	Run string
	// Under are paths, which count with all that lies in them; none is everything.
	Under []string
}

// Deleted streams what can be brought back, side by side, sorted by run and key. In a bucket
// with versions it is what anybody deleted within the time that the mirror keeps it; where
// none is set, ever. An error does not end the stream unless nothing follows it; one that is
// a [place.KeptError] is of nothing else. The last one is ErrNothingDeleted where a run or a path
// was named and nothing of it was deleted.
func (j *Job) Deleted(ctx context.Context, o DeletedOptions) iter.Seq2[Deleted, error] {
	return func(yield func(Deleted, error) bool) {
		seeks, failed := newSought(j.spec.Name, o), false
		for d, err := range j.deleted(ctx, o, place.KeptOptions{Run: o.Run, Under: o.Under}) {
			switch bad, is := errors.AsType[*place.KeptError](err); {
			case is:
				seeks.sees(func(o place.KeptOptions) bool { return o.TakesKey(bad.Key) })
			case err == nil:
				seeks.sees(func(o place.KeptOptions) bool { return o.Takes(d.Entry.Path) })
			default:
				failed = true // What is not known to be missing is not said to be.
			}
			if !yield(d, err) {
				return
			}
		}
		if failed || o.Run == "" && len(o.Under) == 0 {
			return
		}
		if err := seeks.missing(); err != nil {
			yield(Deleted{}, err)
		}
	}
}

// deleted streams what is kept for this mirror, as far as the options ask for it.
func (j *Job) deleted(ctx context.Context, o DeletedOptions, ko place.KeptOptions) iter.Seq2[Deleted, error] {
	return func(yield func(Deleted, error) bool) {
		keepers := j.keepers()
		for _, side := range []plan.Side{plan.Source, plan.Dest} {
			k, ok := keepers[side]
			if !ok {
				continue
			}
			ko.Of, ko.Since = j.of(), time.Time{}
			if k.Traits().Versioned && o.Run != "" {
				yield(Deleted{}, fmt.Errorf("mirror %s: %w: name paths instead", j.spec.Name, ErrNoRuns))
				return
			}
			if k.Traits().Versioned && j.spec.KeepDeleted > 0 {
				ko.Since = j.env.Now().Add(-j.spec.KeepDeleted.D())
			}
			for one, err := range k.Kept(ctx, ko) {
				if err != nil {
					err = fmt.Errorf("mirror %s: list what was deleted at the %s: %w", j.spec.Name, side, err)
				}
				if !yield(Deleted{one, side}, err) {
					return
				}
			}
		}
	}
}
