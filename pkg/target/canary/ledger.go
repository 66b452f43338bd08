package canary

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// ReadFrom names the ledger that a lane reads: the pooled lane's, whose canaries come
// most often, of the probe called of, or of the lane's own probe if that is "".
func ReadFrom(s target.ProbeSpec, of string) string {
	if of != "" {
		s.Name = of
	}
	s.Lane = target.LanePooled
	return s.Ledger()
}

// Held is what a target holds of a ledger, of how often each canary was found there
// whole.
func Held(found map[int64]int64) target.Held {
	held := target.Held{Duplicates: map[int64]int64{}}
	for _, seq := range slices.Sorted(maps.Keys(found)) {
		held.Present.Add(seq)
		if n := found[seq]; n > 1 {
			held.Duplicates[seq] = n
		}
	}
	return held
}

// Latest is the highest acknowledged canary of each ledger that this process has
// written: reads can ask for it, where to list a ledger costs more than to read. Its
// zero value is ready, and safe for concurrent use.
type Latest struct {
	mu  sync.Mutex
	seq map[string]int64
}

// Raise notes that a canary was acknowledged.
func (l *Latest) Raise(ledger string, seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seq == nil {
		l.seq = map[string]int64{}
	}
	l.seq[ledger] = max(seq, l.seq[ledger])
}

// Of is a ledger's latest canary; false if this process knows of none.
func (l *Latest) Of(ledger string) (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq, ok := l.seq[ledger]
	return seq, ok
}

// maxSamples is how many damaged canaries a tally names.
const maxSamples = 20

// Tally is a check of canaries: how many were read, and which of them are damaged. Its
// zero value is ready. It is not safe for concurrent use.
type Tally struct {
	read, damaged int
	bytes         int64
	samples       []string
}

// Add counts a canary of some bytes that was read in full; damaged says why it is not
// what was written, nil that it is.
func (t *Tally) Add(name string, bytes int64, damaged error) {
	t.read++
	t.bytes += bytes
	if damaged == nil {
		return
	}
	t.damaged++
	if len(t.samples) < maxSamples {
		t.samples = append(t.samples, name+": "+damaged.Error())
	}
}

// Property judges what was read. err says why not every canary could be: then nothing
// is judged.
func (t *Tally) Property(err error) event.Property {
	p := event.Property{Name: "canaries", Result: event.ResultPass, Wanted: "every canary as it was written"}
	switch {
	case err != nil:
		p.Result, p.Found = event.ResultInconclusive, err.Error()
		return p
	case t.read == 0:
		p.Result, p.Found, p.Wanted = event.ResultInfo, "the drill has no canaries", ""
		return p
	case t.damaged > 0:
		p.Result = event.ResultFail
	}
	p.Found = fmt.Sprintf("%d of %d canaries (%d bytes) are whole", t.read-t.damaged, t.read, t.bytes)
	p.Samples = t.samples
	return p
}
