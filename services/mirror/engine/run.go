package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// run is one run of a job.
type run struct {
	*Job
	ctx   context.Context
	fail  context.CancelCauseFunc
	rules *plan.Rules
	// facts is what the job remembers of itself, knew what it remembered before.
	facts, knew Facts
	report      Report
	batch       *batcher
	seq         atomic.Int64
	// names says, by side, that no more than names are listed: full are the rules for
	// what was looked at singly.
	names [2]bool
	full  *plan.Rules
	// left and leftBytes are what asLeft was told of and nobody has counted yet.
	left, leftBytes int64
	// mark makes sure, once, that what is remembered is known to be about to change.
	mark func() error

	slots  chan struct{}
	flight sync.WaitGroup
	watch  *watcher
	// uploads are those of split files.
	uploads uploads

	mu sync.Mutex // guards report and the calls of Each, and what follows
	// writesFailed says that something failed that was no delete.
	writesFailed bool
	// blocked says that something stands in the way of what should be there.
	blocked bool

	// witnesses are, by side, what vouches for a place that has no mark of its own.
	witnesses [2]witness
	// refusals are what the places refused to take.
	refusals refusals
}

// Run makes the destination what the mode asks for, as far as that can be done
// now, and reports what it did. It may be repeated at any time: what an
// interrupted run did is not done again. The error says why a run could not go on;
// the report then holds what it did so far. What went wrong with single entries is
// in the report only.
func (j *Job) Run(ctx context.Context) (Report, error) {
	if err := j.check(); err != nil {
		return Report{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	own := *j
	r := &run{Job: &own, ctx: ctx, fail: cancel, slots: make(chan struct{}, max(1, j.Pool.Width()))}
	r.report = Report{Began: j.Now(), Done: map[plan.Op]int64{}, Bytes: map[plan.Op]int64{}}
	r.mark = sync.OnceValue(r.begin)
	err := r.whole()
	r.report.Ended = j.Now()
	if err != nil {
		return r.report, fmt.Errorf("mirror %s to %s: %w", j.Places[plan.Source], j.Places[plan.Dest], err)
	}
	return r.report, nil
}

func (r *run) whole() error {
	p, err := r.plan()
	if err != nil {
		return err
	}
	r.watch = r.startWatch()
	err = r.carryOut(p)
	r.countLeft()
	r.flight.Wait()
	r.watch.stop()
	if cause := context.Cause(r.ctx); cause != nil && (err == nil || errors.Is(err, r.ctx.Err())) {
		err = cause
	}
	got := p.Report()
	r.report.Seen, r.report.Refusals = got.Seen, got.Refusals
	r.report.Faults, r.report.Errors = got.Faults, got.Errors
	if r.report.Listed = r.knew.Listed; r.report.Check != CheckState && got.Faults == 0 && err == nil {
		r.report.Listed = r.report.Began
	}
	switch {
	case r.DryRun:
		return err
	case err != nil:
		return errors.Join(err, r.leave())
	}
	err = r.finish()
	if r.report.NotTried == 0 { // else what was not tried may be what an upload is of
		err = errors.Join(err, r.freeUploads())
	}
	if err != nil { // What is remembered is then not what was done.
		return err
	}
	return r.refusals.err(r.Places, r.report.Done[plan.Delete])
}

// plan looks at what is known and makes the plan.
func (r *run) plan() (*plan.Plan, error) {
	known, err := r.Store.Load(FactsName, &r.facts)
	if err != nil {
		return nil, fmt.Errorf("read what the job remembers of itself: %w", err)
	}
	r.knew = r.facts
	if known && r.facts.Mode != r.Mode && (r.facts.Mode == plan.TwoWay) != (r.Mode == plan.TwoWay) {
		return nil, &JobError{"Mode", "the last run was of another kind, whose past does not fit", "give the job another name or state directory"}
	}
	r.facts.Mode = r.Mode
	if err := r.identify(); err != nil {
		return nil, err
	}
	if err := r.right(); err != nil {
		return nil, err
	}
	if r.uploads.store = r.Store; !r.DryRun {
		if err := r.uploads.load(); err != nil {
			return nil, err
		}
	}
	r.report.Check = r.howToCheck()
	from, to := r.Places[plan.Source].Traits(), r.Places[plan.Dest].Traits()
	rules := plan.Rules{
		Mode: r.Mode, Unedited: r.Unedited, Filter: r.Filter, Trust: r.Trust, Guards: r.Guards,
		Holds: [2]func(entry.Entry) error{from.Holds, to.Holds},
		Lists: [2]plan.Attr{from.Lists, to.Lists},
		Both:  [2]bool{from.Both, to.Both}, Claims: [2]func(string) bool{from.Claims, to.Claims},
		Roots: [2]entry.FSID{from.FS, to.FS}, Accept: r.AcceptPlaces,
		Audit: r.report.Check == CheckAudit, ScanStart: r.report.Began, Hash: r.hash, AsLeft: r.asLeft,
	}
	if !r.AsOf.IsZero() {
		rules.ScanStart = r.AsOf
	}
	if r.knew.Unfinished {
		// What it copied and did not come to note would be taken for equal by its time, so
		// that nothing could ever be proved of it.
		rules.Trust = plan.TrustHashes
	}
	full := rules
	r.rules, r.full = &rules, &full
	r.names = r.namesOnly()
	for side, names := range r.names {
		if names {
			rules.Lists[side] = 0
		}
	}
	in := plan.Input{Source: r.list(plan.Source)}
	if !r.Store.Empty() {
		in.Past = r.past()
	}
	switch {
	case r.names[plan.Source]:
		in.Dest = nothing // as was seen
	case r.report.Check != CheckState:
		in.Dest = r.list(plan.Dest)
	}
	r.batch = &batcher{traits: [2]place.Traits{from, to}, names: r.names[plan.Source], dry: r.DryRun, emit: r.dispatch, idle: r.idle}
	// What somebody edits meanwhile is kept by the condition of a write of its own.
	r.batch.single = rules.Careful()
	if r.Mode == plan.TwoWay {
		r.batch.first = r.now
	}
	return plan.New(in, rules, r.Spill)
}

// hash reads what only one side holds, for the plan.
func (r *run) hash(s plan.Side, e entry.Entry, like entry.Sum) (entry.Sum, error) {
	return Hash(r.ctx, r.Places[s], e, like, r.Limit, nil)
}

// identify compares the places with those that the mirror was set up between.
func (r *run) identify() error {
	for _, s := range []plan.Side{plan.Source, plan.Dest} {
		t := r.Places[s].Traits()
		if r.facts.Identities[s] == "" || r.AcceptPlaces {
			r.facts.Identities[s] = t.Identity
		}
		if err := r.recognise(s); err != nil {
			return err
		}
		m := plan.Marker{Want: r.facts.Identities[s], Got: t.Identity}
		switch {
		case r.replaced(s):
			m.Got = t.Address + ", where nothing is as it was written"
		case r.doubted(s) && r.Mode == plan.TwoWay:
			m.Got, m.Fix = "", unvouched
		case r.witnesses[s].asked:
			m.Got = t.Address
		}
		r.Guards.Markers[s] = m
	}
	r.Guards.Versioned = r.Places[plan.Dest].Traits().Versioned || r.Bin != (place.Bin{})
	return nil
}

// right refuses a place that is not the one the mirror was set up with. What stands at such a
// destination is nobody's copy, and what is remembered is not there. What such a source
// holds, as an old disk, would be written over the copy of the right one.
func (r *run) right() error {
	for _, s := range []plan.Side{plan.Source, plan.Dest} {
		m := r.Guards.Markers[s]
		switch {
		case r.replaced(s):
			return r.noneLeft(s)
		case m.Got != m.Want && !r.doubted(s):
			return Elsewhere(s, r.Places[s])
		}
	}
	return nil
}

func (r *run) howToCheck() Check {
	every := r.ListEvery
	if every == 0 {
		every = DefaultListEvery
	}
	switch {
	case r.Check == CheckAudit, r.knew.Unfinished && r.knew.Boot != r.Boot && !r.Places[plan.Dest].Traits().ETags:
		// After a power cut a file may have its size and time, and not its content.
		return CheckAudit
	case r.Store.Empty() || r.careful() || r.knew.Listed.IsZero() || r.knew.Unfinished || r.doubted(plan.Dest):
		return CheckListing
	case r.AcceptPlaces:
		return CheckListing // What was left may not be there.
	case r.Check == CheckAuto && (r.report.Began.Sub(r.knew.Listed) >= every || r.knew.Listed.After(r.report.Began)): // by a clock that was ahead
		return CheckListing
	case r.Check == CheckAuto:
		return CheckState
	}
	return r.Check
}

// carryOut hands the actions of the plan to the workers. The deletes, and what
// needs the place of what is deleted, wait for all before.
func (r *run) carryOut(p *plan.Plan) error {
	last := false
	tail := &tail{run: r}
	if err := errors.Join(r.pass(), r.tellLeftOut()); err != nil {
		return err
	}
	for a, err := range p.Actions() {
		if err != nil {
			return err
		}
		if err := r.pass(); err != nil {
			return err
		}
		if r.names[plan.Dest] && a.Op == plan.Equal && !listedAsLeft(&a) {
			a.Op = plan.Rehash // of nothing, to have it looked at
		}
		r.watch.planned(&a)
		if a.Op == plan.Delete && !last {
			last = true
			if err := r.barrier(); err != nil {
				return err
			}
		}
		switch {
		case !a.Op.Changes():
			err = r.settle(Done{Action: a})
		case last:
			err = tail.add(a)
		default:
			err = r.batch.add(a)
		}
		if err != nil {
			return err
		}
	}
	r.countLeft()
	r.watch.allPlanned()
	if err := r.barrier(); err != nil {
		return err
	}
	return tail.flush()
}

// pass waits until more may be begun.
func (r *run) pass() error {
	if r.Pass != nil {
		if err := r.Pass(r.ctx); err != nil {
			return err
		}
	}
	return r.ctx.Err()
}

// barrier waits until all that was begun has ended.
func (r *run) barrier() error {
	if err := r.batch.flush(); err != nil {
		return err
	}
	r.flight.Wait()
	return r.ctx.Err()
}

// dispatch gives an item to the pool as soon as a slot is free.
func (r *run) dispatch(it Item) error {
	select {
	case r.slots <- struct{}{}:
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	r.flight.Go(func() {
		defer func() { <-r.slots }()
		if err := r.now(it); err != nil {
			r.fail(err)
		}
	})
	return nil
}

// idle reports whether an item could be begun at once.
func (r *run) idle() bool { return len(r.slots) < cap(r.slots) }

// now has an item carried out and remembers the results. Its error ends the run.
func (r *run) now(it Item) error {
	passed := r.passOver(&it)
	if err := r.try(it); err != nil {
		return err
	}
	var again []plan.Action
	for _, a := range passed {
		if !r.refusals.gaveUp(&a) { // any more: something was taken
			again = append(again, a)
			continue
		}
		if err := r.settle(Done{Action: a, Err: ErrNotTried}); err != nil {
			return err
		}
		r.watch.done(&a, nil)
	}
	if len(again) == 0 {
		return nil
	}
	return r.now(Item{Actions: again, Single: it.Single, Names: it.Names})
}

// noteReplaced counts what was put over something that no run had left there. before is the
// action as it was planned.
func (r *run) noteReplaced(before *plan.Action, d *Done) {
	if r.DryRun {
		before = &d.Action // which may have been settled just now
	}
	if d.Err != nil || d.Action.Op != plan.Put || before.Past.Key != "" || !plan.Present(before.At(before.To)) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Replaced++
}

// passOver takes out of an item what is not to be tried now. What is done in order stays
// whole: what fails of it holds the rest back.
func (r *run) passOver(it *Item) (passed []plan.Action) {
	if it.Ordered || r.DryRun || !r.refusals.doubts() {
		return nil
	}
	var rest []plan.Action
	for _, a := range it.Actions {
		if r.refusals.pass(&a) {
			passed = append(passed, a)
		} else {
			rest = append(rest, a)
		}
	}
	it.Actions = rest
	return passed
}

// try has an item carried out, as long as there is something in it.
func (r *run) try(it Item) error {
	if len(it.Actions) == 0 {
		return nil
	}
	writes := slices.ContainsFunc(it.Actions, func(a plan.Action) bool { return a.Op != plan.Rehash })
	if writes && !r.DryRun {
		if err := r.mark(); err != nil {
			return err
		}
	}
	for i := range it.Actions {
		r.witnesses[it.Actions[i].To].wrote(&it.Actions[i])
	}
	it.Seq = r.seq.Add(1)
	dones, err := r.carry(it)
	if err == nil {
		err = answers(&it, dones)
	}
	if errors.Is(err, ErrPool) {
		dones = nil
	}
	more, failed := r.take(&it, dones, err)
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return fmt.Errorf("item %d of %d actions: %w", it.Seq, len(it.Actions), err)
	case len(more) > 0:
		return r.now(Item{Actions: more, Single: it.Single})
	}
	return nil
}

// take remembers the results of an item; err is why the run ends with it. It returns what
// was decided to be done since.
func (r *run) take(it *Item, dones []Done, err error) (more []plan.Action, failed error) {
	for i, d := range dones {
		before := &it.Actions[i]
		d.Action.Believed = before.Believed && (before.Op != plan.Put || d.Action.Op != plan.Equal) // which was looked at
		if err != nil && d.Err != nil {
			continue // the run ends; the next one sees to it
		}
		r.refusals.note(before, d.Err)
		r.noteReplaced(before, &d)
		if d.Err == nil && d.Action.Op == plan.Rehash {
			d.Action, d.Err = r.settled(d.Action)
			if d.Err == nil && d.Action.Op.Changes() && !r.DryRun {
				more = append(more, d.Action)
				continue
			}
		}
		if failed := r.settle(d); failed != nil {
			return nil, failed
		}
		r.watch.done(before, d.Err)
	}
	return more, nil
}

// asLeft counts a file of which there is nothing to do and nothing new to remember.
func (r *run) asLeft(size int64) {
	r.left++
	r.leftBytes += size
	if r.left == leftAtOnce {
		r.countLeft()
		_ = r.pass() // Once the run ends no more is listed.
	}
}

// leftAtOnce is how many files are counted together: locks and the clock would cost more
// than deciding about them.
const leftAtOnce = 256

func (r *run) countLeft() {
	r.watch.passed(r.left)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Believed += r.left
	r.report.Done[plan.Equal] += r.left
	r.report.Bytes[plan.Equal] += r.leftBytes
	r.left, r.leftBytes = 0, 0
}

// answers checks that a pool said of each action what became of it.
func answers(it *Item, dones []Done) error {
	if len(dones) != len(it.Actions) {
		return fmt.Errorf("%w: %d results for %d actions", ErrPool, len(dones), len(it.Actions))
	}
	for i, d := range dones {
		if want := it.Actions[i].Key; d.Action.Key != want {
			return fmt.Errorf("%w: a result for %q and not for %q", ErrPool, d.Action.Key, want)
		}
	}
	return nil
}

// settle remembers and reports what became of an action.
func (r *run) settle(d Done) error {
	if !r.DryRun {
		if err := r.remember(&d); err != nil {
			return fmt.Errorf("remember %q: %w", d.Action.Key, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count(&d)
	if r.Each != nil && (d.Action.Op != plan.Equal && d.Action.Op != plan.Gone || d.Err != nil) {
		r.Each(d)
	}
	return nil
}

func (r *run) remember(d *Done) error {
	a := &d.Action
	if a.Op == plan.Conflict && (a.Reason == plan.ConflictUnicode || a.Reason == plan.ConflictKey) {
		return nil // another action speaks for the key
	}
	if r.names[plan.Dest] && a.Op == plan.Equal && listedAsLeft(a) {
		// No more was listed than that it is what was left there.
		sum := a.Dest.Sum
		a.Dest = a.Past.Dest
		a.Dest.Sum = sum.Merge(a.Dest.Sum)
	}
	next, keep := r.rules.Next(*a, d.Err == nil)
	switch {
	case !keep && a.Past.Key == "", keep && samePast(&next, &a.Past):
		return nil
	}
	if err := r.mark(); err != nil {
		return err
	}
	r.mu.Lock()
	r.report.Changed = true
	r.mu.Unlock()
	if !keep {
		return r.Store.Forget(a.Key)
	}
	return r.Store.Note(next)
}

// begin says, durably, that what is there or what is remembered is about to change.
func (r *run) begin() error {
	if !r.facts.Unfinished { // else it is not known either what the run left that began then
		r.facts.Unfinished, r.facts.Boot = true, r.Boot
	}
	r.facts.Generation++
	return r.saveFacts()
}

func (r *run) saveFacts() error {
	if err := r.Store.Save(FactsName, r.facts); err != nil {
		return fmt.Errorf("save what the job remembers of itself: %w", err)
	}
	return nil
}

func (r *run) count(d *Done) {
	a := &d.Action
	switch {
	case errors.Is(d.Err, ErrNotTried):
		r.report.NotTried++
		r.writesFailed = r.writesFailed || a.Op != plan.Delete
		return
	case errors.Is(d.Err, ErrHeldBack):
		r.report.HeldBack++
		return
	case d.Err != nil:
		r.writesFailed = r.writesFailed || a.Op != plan.Delete
		r.blocked = r.blocked || errors.Is(d.Err, place.ErrChanged) // maybe by who else writes there
		r.report.Fail(a.Key, a.Op, d.Err)
		return
	}
	r.blocked = r.blocked || a.Op == plan.Conflict && a.Reason != plan.ConflictUnicode
	if a.Op == plan.Equal && a.Believed {
		r.report.Believed++
	}
	r.report.Done[a.Op]++
	r.report.Bytes[a.Op] += subject(a).Size
	switch {
	case a.Op == plan.Conflict && len(r.report.Conflicts) < keepFirst:
		r.report.Conflicts = append(r.report.Conflicts, *a)
	case a.Op == plan.Unholdable && len(r.report.Unholdable) < keepFirst:
		r.report.Unholdable = append(r.report.Unholdable, *a)
	}
}

// subject is the entry that an action is about.
func subject(a *plan.Action) entry.Entry {
	if e := a.At(a.To.Other()); a.Op != plan.Delete && a.Op != plan.Keep && plan.Present(e) {
		return e
	}
	return a.At(a.To)
}

// tail carries out, in order, what waited for the end.
type tail struct {
	run     *run
	actions []plan.Action
	begun   bool
}

// tailActions is how many actions of the end are one item.
const tailActions = 1000

func (t *tail) add(a plan.Action) error {
	t.actions = append(t.actions, a)
	if len(t.actions) < tailActions {
		return nil
	}
	return t.flush()
}

func (t *tail) flush() error {
	actions := t.actions
	t.actions = nil
	if len(actions) == 0 {
		return nil
	}
	r := t.run
	r.mu.Lock()
	hold := r.writesFailed
	r.mu.Unlock()
	if !hold {
		if r.Bin != (place.Bin{}) && !t.begun {
			// What is put aside is kept from now on, however long the run took to come here.
			r.Bin.At, t.begun = r.Now().UTC().Truncate(time.Second), true
		}
		return r.now(r.batch.mark(Item{Actions: actions, Ordered: true, Bin: r.Bin}))
	}
	for _, a := range actions {
		if err := r.settle(Done{Action: a, Err: ErrHeldBack}); err != nil {
			return err
		}
		r.watch.done(&a, nil)
	}
	return nil
}
