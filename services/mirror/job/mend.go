package job

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// mending sets modes and owners on one side by the job's rules: after the copy, never
// beside it.
type mending struct {
	*Job
	side   plan.Side
	rules  ruling
	place  place.Place
	report *engine.Report
	// each, if not nil, is told what would be set, in place of setting it.
	each func(engine.Done)
	// planned are, of a dry run, what it would write to the destination, and delete there.
	planned map[string]bool
	// pass, if not nil, is asked before each entry, as by the run.
	pass func(context.Context) error
	// past is what the run left, next and head where the walk is in it.
	past engine.Store
	next func() (plan.Past, error, bool)
	head plan.Past
	more bool
	// noted says that something is remembered anew, touched that something was to be set.
	noted, touched bool
	n              int64
}

// mendRights sets what the rules want on both sides, the source's first, as the copy is
// already what these make of it. It counts, by side, the entries that were changed, or in a
// dry run would be; what could not be changed is in the report.
func (j *Job) mendRights(ctx context.Context, o SyncOptions, past engine.Store, a *asked, res *Result) error {
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		switch {
		case len(j.spec.rights[side]) == 0:
		case side == plan.Source && a.differs == 0:
			// The run has just looked at all of it.
		case side == plan.Dest && o.DryRun && !j.groupsAlone(): // The plan has named what it would set.
		default:
			if side == plan.Source {
				if held, err := j.held(a, &res.Report); err != nil {
					return err
				} else if held {
					continue
				}
			}
			m := &mending{Job: j, side: side, rules: j.ruling(side), place: plainly(j.places[side]), report: &res.Report, past: past, pass: o.Pass}
			if o.DryRun {
				m.each, m.planned = o.Each, a.planned
			}
			err := m.all(ctx, o.DryRun)
			if res.Mended[side] += m.n; err != nil {
				return fmt.Errorf("mirror %s: set permissions in %s: %w", j.spec.Name, j.places[side], err)
			}
		}
	}
	return nil
}

var (
	errUnseen = errors.New("the rules for the source's permissions wait until all of it can be listed: mend what could not be read, and run again")
	errEmpty  = errors.New("the rules for the source's permissions wait, as it holds no file, and held some when the mirror last ran: see whether it is mounted")
)

// held reports whether the source may be another thing than what the rules are for. That it
// is another place ends a run before it begins.
func (j *Job) held(a *asked, report *engine.Report) (bool, error) {
	if report.Faults > 0 {
		report.Fail(rootKey, plan.Meta, errUnseen)
		return true, nil
	}
	if a.files > 0 {
		return false, nil
	}
	had, err := j.heldFiles()
	if err != nil {
		return false, fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	if had {
		report.Fail(rootKey, plan.Meta, errEmpty)
	}
	return had, nil
}

// heldFiles reports whether the last run found a file at the source.
func (j *Job) heldFiles() (bool, error) {
	for p, err := range j.store.Past() {
		if err != nil || plan.Present(p.Source) && p.Source.Kind != entry.Dir {
			return err == nil, err
		}
	}
	return false, nil
}

// all walks the side once. Where that is called off, or fails, what was set by then is
// settled all the same.
func (m *mending) all(ctx context.Context, dry bool) error {
	err := m.walk(ctx, dry)
	if err != nil && m.touched {
		settle, end := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
		defer end()
		ctx = settle
	}
	if !m.touched {
		return err
	}
	return errors.Join(err, m.settle(ctx))
}

// settle ends what was begun of the entries that were set.
func (m *mending) settle(ctx context.Context) error {
	if err := m.place.Finish(ctx); err != nil {
		return err
	}
	if m.noted {
		if err := m.past.Commit(); err != nil {
			return err
		}
	}
	if m.side == plan.Source || m.n == 0 {
		return nil
	}
	return m.distrust()
}

// walk looks at the side once, and sets what the rules want otherwise.
func (m *mending) walk(ctx context.Context, dry bool) error {
	next, stop := iter.Pull2(m.past.Past())
	defer stop()
	m.next = next
	if err := m.advance(); err != nil {
		return err
	}
	for e, err := range m.place.Entries(ctx, m.listOptions()) {
		if err == nil && m.pass != nil {
			err = m.pass(ctx)
		}
		if err != nil {
			return err
		}
		want, differs, err := m.rules.apply(ctx, e)
		switch {
		case err != nil:
			return err
		case !differs:
		case dry && m.side == plan.Dest && (want.GID == e.GID || m.planned[e.Key()]): // The plan names it.
		case dry:
			if err := m.tell(want, e); err != nil {
				return err
			}
		default:
			if err := m.set(ctx, want, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell names what a run would set, and what it could not.
func (m *mending) tell(want, have entry.Entry) error {
	to, err := m.righter()
	if err != nil {
		return err
	}
	if err = to.MaySetRights(want, have); err != nil {
		m.report.Fail(have.Key(), plan.Meta, err)
	} else {
		m.n++
	}
	if m.each == nil {
		return nil
	}
	a := plan.Action{Op: plan.Meta, Key: have.Key(), To: m.side, Source: have, Dest: want}
	if m.side == plan.Dest {
		a.Source, a.Dest = want, have
	}
	m.each(engine.Done{Action: a, Err: err})
	return nil
}

// righter is the place, which has permissions that can be set.
func (m *mending) righter() (place.Righter, error) {
	to, can := m.place.(place.Righter)
	if !can {
		return nil, fmt.Errorf("%w: it keeps no permissions", errors.ErrUnsupported)
	}
	return to, nil
}

// set gives one entry what the rules want. Only the end of ctx, and what keeps from
// remembering, is an error.
func (m *mending) set(ctx context.Context, want, have entry.Entry) error {
	to, err := m.righter()
	if err != nil {
		return err
	}
	m.touched = true
	now, err := to.SetRights(ctx, want, have)
	if errors.Is(err, place.ErrChanged) {
		// Somebody is at work on it; or it is one file of several names, and has got them
		// under another one.
		return m.again(ctx, to, have, err)
	}
	if err != nil {
		return m.fail(ctx, have, err)
	}
	m.n++
	return m.note(now, have)
}

func (m *mending) again(ctx context.Context, to place.Righter, have entry.Entry, was error) error {
	now, there, err := m.place.Look(ctx, have)
	switch {
	case err != nil:
		return m.fail(ctx, have, err)
	case !there:
		return nil // The next run sees that.
	case now.Kind != have.Kind:
		return m.fail(ctx, have, was)
	}
	want, differs, err := m.rules.apply(ctx, now)
	if err == nil && differs {
		if _, err = to.SetRights(ctx, want, now); err == nil {
			m.n++
		}
	}
	return m.fail(ctx, have, err)
}

func (m *mending) fail(ctx context.Context, e entry.Entry, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		m.report.Fail(e.Key(), plan.Meta, err)
	}
	return nil
}

// note remembers what an entry looks like now, if nothing but its mode and its owner is
// other than the run left it: what was changed meanwhile the next run is to see.
func (m *mending) note(now, have entry.Entry) error {
	if have.Kind == entry.Dir {
		return nil // Nothing is told by its times.
	}
	key := have.Key()
	for m.more && m.head.Key < key {
		if err := m.advance(); err != nil {
			return err
		}
	}
	p := m.head
	was := p.At(m.side)
	if !m.more || p.Key != key || was.Change != have.Change || was.MTime != have.MTime || was.Size != have.Size ||
		now.MTime != have.MTime || now.Size != have.Size {
		return nil
	}
	// Where the other side's rules want it otherwise, that is what is remembered.
	if was.Change = now.Change; m.side == plan.Source {
		p.Source = was
	} else {
		was.Mode, was.UID, was.GID = now.Mode, now.UID, now.GID
		p.Dest = was
	}
	if err := m.begin(); err != nil {
		return err
	}
	return m.past.Note(p)
}

// begin says, once, that what is remembered is about to change.
func (m *mending) begin() error {
	if m.noted {
		return nil
	}
	m.noted = true
	facts, _, err := m.Facts()
	if err != nil {
		return err
	}
	facts.Generation++
	return m.store.Save(engine.FactsName, facts)
}

func (m *mending) advance() (err error) {
	m.head, err, m.more = m.next()
	return err
}

// distrust has the next run list the destination: what is remembered of it is not
// what is there any more.
func (j *Job) distrust() error {
	facts, known, err := j.Facts()
	if err == nil && known && !facts.Listed.IsZero() {
		facts.Listed = time.Time{}
		err = j.store.Save(engine.FactsName, facts)
	}
	if err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	return nil
}
