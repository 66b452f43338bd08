package verify

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// A check at L3 reads a part of the contents, and relies on the checks before it for
// the rest: on what they read within the period, as far as the place shows that
// nothing has touched or replaced it since.

// Reading is what was found when a content was read.
type Reading struct {
	// Listed is the file as the place listed it before it was read: its size, and of
	// an object the ETag and the time that a listing of names shows, of a file in a
	// directory its times and its inode.
	Listed entry.Entry
	// Sum is the hashes of what was read; none where the reading does not count: it could
	// not be read, was not what it should be, or may have been written again since.
	Sum entry.Sum
	// At is when the check began that read it.
	At time.Time
}

// Key is the key of the file.
func (r Reading) Key() string { return r.Listed.Key() }

// counts reports whether it tells what the file holds.
func (r Reading) counts() bool { return r.Sum.Has != 0 }

// Readings remember the last reading of each content of a place. All may be iterated
// beside the other methods, which are called by one goroutine at a time.
type Readings interface {
	// All streams the readings, sorted by key, as they were before the check. An
	// error ends it.
	All() iter.Seq2[Reading, error]
	// Note remembers a reading in place of the one before of its key.
	Note(Reading) error
	// Forget remembers nothing of a key any more. A key of which nothing is
	// remembered is fine.
	Forget(key string) error
}

// Pace is what the check before leaves to the next one, so that what they read
// follows the clock. The zero value is that before the first check.
type Pace struct {
	// Called is when the check began.
	Called time.Time `json:"called,omitzero"`
	// Ahead is how many bytes were read beyond what was due: of a large content not a
	// part can be read.
	Ahead int64 `json:"ahead"`
}

// Rolling is how a check goes on with those before it.
type Rolling struct {
	Readings Readings
	// Now is the time at which the check begins.
	Now time.Time
	// Period is within how long everything is to be read once; more than 0.
	Period time.Duration
	// Read is how much is read, the oldest first.
	Read Amount
	// Pace is what the last check at L3 left.
	Pace Pace
}

const (
	// firstShare is the part of the bytes that the first check reads.
	firstShare = 1.0 / 30
	// spare is how much more is read than the time asks for, so that nothing grows too
	// old when a check is late.
	spare = 9.0 / 8
	// young is the coarsest step of file times: what was touched so shortly before it
	// was read may be touched again without a trace in them.
	young = 2 * time.Second
)

// Contents are due by their age: overdue ones before those that were never read, and
// these before what was read within the period, of which the oldest first. How old
// they are is told in steps, so that no list of them is kept.
const (
	overdue = iota
	never
	within
	steps = within + 1024
)

func (r *Rolling) step(at time.Time) int {
	switch age := r.Now.Sub(at); {
	case at.IsZero() || age < 0: // A clock that was set back tells nothing.
		return never
	case age > r.Period:
		return overdue
	default:
		return within + int(float64(r.Period-age)/float64(r.Period)*(steps-within-1))
	}
}

// cost is what reading a content takes from what is to be read.
func cost(e *entry.Entry) int64 { return e.Size + 1 } // An empty one is a request, too.

// schedule says which contents are read. It is used by one goroutine.
type schedule struct {
	// all are read of the steps before last, and of last as long as some is left.
	last         int
	left         int64
	budget, used int64
	// ahead is what the checks before this one have read too early.
	ahead int64
	// touched is how much was taken of what turned out to be touched since it was
	// read: not more than what is to be read anyway, as it may be everything.
	touched int64
}

// schedule looks at how old the readings are, and forgets those of what is in the
// manifest no more.
func (c Check) schedule(want iter.Seq2[entry.Entry, error]) (*schedule, error) {
	r := c.Rolling
	at, stop := newCursor(r.Readings.All())
	defer stop()
	var bytes [steps]int64
	var total int64
	for e, err := range want {
		if err != nil {
			return nil, err
		}
		if err := r.forget(at, e.Key()); err != nil {
			return nil, err
		}
		var then Reading
		if at.ok && at.key == e.Key() {
			if at.head.counts() {
				then = at.head
			}
			at.advance()
		}
		if e.Kind != entry.File || e.Sum.Has == 0 || lacks(c.Side, e.Lone) || c.Filter != nil && !c.Filter(e.Path, e.Kind) {
			continue
		}
		bytes[r.step(then.At)] += cost(&e)
		total += cost(&e)
	}
	if err := r.forget(at, ""); err != nil {
		return nil, err
	}
	if at.err != nil {
		return nil, fmt.Errorf("see what was read before: %w", at.err)
	}
	s := &schedule{}
	s.budget, s.ahead = r.budget(total, bytes[overdue])
	for s.left = s.budget; s.last < steps && s.left > bytes[s.last]; s.last++ {
		s.left -= bytes[s.last]
	}
	return s, nil
}

// forget forgets what comes before a key, or all that is left if it is "".
func (r *Rolling) forget(at *cursor[Reading], before string) error {
	for ; at.ok && (before == "" || at.key < before); at.advance() {
		if err := r.Readings.Forget(at.key); err != nil {
			return fmt.Errorf("forget what was read: %w", err)
		}
	}
	return nil
}

// budget is how many bytes are to be read, of all and of those that are overdue, and
// how many were read too early still.
func (r *Rolling) budget(total, overdue int64) (budget, ahead int64) {
	of := func(share float64) int64 { return int64(math.Ceil(min(share, 1) * float64(total))) }
	switch {
	case r.Read.Bytes > 0:
		return r.Read.Bytes, 0
	case r.Read.Percent > 0:
		return of(r.Read.Percent / 100), 0
	}
	share := firstShare
	if !r.Pace.Called.IsZero() {
		share = max(float64(r.Now.Sub(r.Pace.Called))/float64(r.Period), 0) * spare
	}
	due := of(share) - r.Pace.Ahead
	return overdue + max(due, 0), max(-due, 0)
}

// take reports whether a content is to be read now. touched says that it was read
// before, which counts no more.
func (s *schedule) take(step int, cost int64, touched bool) bool {
	switch {
	case touched && s.touched >= s.budget:
		return false
	case touched:
		s.touched += cost
	case step > s.last, step == s.last && s.left <= 0:
		return false
	case step == s.last:
		s.left -= cost
	}
	s.used += cost
	return true
}

// pace is what the next check goes on with.
func (s *schedule) pace(now time.Time) Pace {
	return Pace{Called: now, Ahead: s.ahead + max(s.used-s.budget, 0)}
}

// rolling moves through what was read before, beside a listing.
type rolling struct {
	Check
	*schedule
	before *cursor[Reading]
	// names lists the times of objects; they are not in a listing of metadata.
	names *cursor[entry.Entry]
	known *cursor[entry.Entry]
}

// roll begins with what a check that remembers readings looks at beside the listing.
// The caller calls stop.
func (c Check) roll(ctx context.Context, s *schedule) (r *rolling, stop func()) {
	r = &rolling{Check: c, schedule: s, before: &cursor[Reading]{}, names: &cursor[entry.Entry]{}, known: &cursor[entry.Entry]{}}
	var stops []func()
	ctx, cancel := context.WithCancel(ctx)
	if c.Place.Traits().ETags {
		r.names, stop = newCursor(c.Place.Entries(ctx, place.ListOptions{Filter: c.Filter, Names: true}))
		stops = append(stops, stop)
	} else if c.Level == proof.L3 {
		r.known, stop = newCursor(c.Known)
		stops = append(stops, stop)
	}
	if c.Level == proof.L3 {
		r.before, stop = newCursor(c.Rolling.Readings.All())
		stops = append(stops, stop)
	}
	return r, func() {
		cancel()
		for _, stop := range stops {
			stop()
		}
	}
}

// mark gives what tells, later, whether a file was touched or replaced; an entry
// without a path where nothing does. It must be taken before the file is read.
func (r *rolling) mark(e *entry.Entry) entry.Entry {
	m := entry.Entry{Path: e.Path, Kind: e.Kind, Size: e.Size}
	if !r.Place.Traits().ETags {
		if m.MTime, m.Change = e.MTime, e.Change; m.Change.FS == (entry.FSID{}) || m.Change.Inode == 0 {
			return entry.Entry{} // It means nothing beyond this check.
		}
		return m
	}
	n, ok := r.names.at(e.Key())
	if !ok || n.MTime == 0 || n.Size != e.Size || !n.Sum.Contains(entry.HasETag) || n.Sum.ETag != e.Sum.ETag {
		return entry.Entry{}
	}
	m.MTime, m.Sum = n.MTime, entry.Sum{Has: entry.HasETag, ETag: n.Sum.ETag}
	return m
}

// sameMark reports whether nothing happened to a file between two marks of it.
func sameMark(a, b *entry.Entry) bool {
	return a.Path != "" && a.Path == b.Path && a.Kind == b.Kind && a.Size == b.Size && a.MTime == b.MTime &&
		a.Change == b.Change && a.Sum.ETag == b.Sum.ETag
}

// recall settles a file without reading it; false if it is to be read.
func (r *rolling) recall(e, mark *entry.Entry) (seen, bool) {
	if r.schedule == nil {
		return seen{}, false
	}
	now, period := r.Rolling.Now, r.Rolling.Period
	then, had := r.before.at(e.Key())
	age := now.Sub(then.At)
	counted := had && then.counts()
	valid := counted && age >= 0 && sameMark(mark, &then.Listed)
	step := never
	s := seen{e: *e, low: r.doubt(mark, then, had)}
	if valid {
		step, s.low = r.Rolling.step(then.At), "read "+ago(age)
	}
	if r.take(step, cost(e), counted && !valid) {
		return seen{}, false
	}
	if valid && age <= period {
		s.e.Sum, s.low = then.Sum, ""
		return s, true
	}
	if r.Place.Traits().ETags {
		return s, true
	}
	// What is no evidence of L3 any more is still one of L1, as long as it is untouched.
	if last, ok := r.known.at(e.Key()); ok && untouched(e, &last) {
		s.e.Sum = last.Sum
		return s, true
	}
	if valid {
		s.e.Sum = then.Sum
	}
	return s, valid
}

// doubt says why a reading, if there is one, is no evidence of what a file holds now.
func (r *rolling) doubt(mark *entry.Entry, then Reading, had bool) string {
	age := r.Rolling.Now.Sub(then.At)
	switch {
	case !had:
		return "never read"
	case mark.Path == "":
		return "the place does not tell whether it was touched since it was read"
	case age < 0:
		return "read at a time that is yet to come: the clock was set back since"
	case then.counts(), mark.Change.CTime > then.At.UnixNano():
		return "touched or replaced since it was read " + ago(age)
	case tooYoung(mark, then.At):
		return "read " + ago(age) + ", which does not count: it was written so shortly before that it may have been written again since without a trace"
	}
	return "read " + ago(age) + ", which does not count: it was not what the manifest says, or could not be read"
}

// tooYoung reports whether a file was touched so shortly before it was read that its times
// would not show that it was touched again.
func tooYoung(mark *entry.Entry, read time.Time) bool {
	return mark.Change.CTime >= read.Add(-young).UnixNano()
}

// remember notes what was read, also that it does not count.
func (c Check) remember(s *seen) error {
	r := c.Rolling
	switch {
	case r == nil, !s.read && s.unreadable == nil:
		return nil
	case s.unreadable == nil && s.mark.Path != "" && !tooYoung(&s.mark, r.Now):
		level, detail := proof.Compare(s.want, s.e, proof.Evidence{Level: proof.L4, Vouched: true})
		if level == proof.L4 && detail == "" {
			return r.Readings.Note(Reading{Listed: s.mark, Sum: s.e.Sum, At: r.Now})
		}
	}
	return r.Readings.Note(Reading{Listed: entry.Entry{Path: s.e.Path, Kind: s.e.Kind, Size: s.e.Size}, At: r.Now})
}

// ago says how long ago something was.
func ago(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days ago", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours ago", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes ago", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds ago", d/time.Second)
}
