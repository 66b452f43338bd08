package plan

import (
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// ErrUsed means that the actions of a plan were asked for twice.
var ErrUsed = errors.New("the plan's streams were read already; make another plan")

// Plan is one merge of its streams. It is used by one goroutine, once.
type Plan struct {
	in    Input
	rules Rules
	spill Spill
	used  bool

	report Report
	tally  tally
}

// New makes a plan. The error is a [*RulesError]. The spill may be nil in the
// mode Copy.
func New(in Input, rules Rules, spill Spill) (*Plan, error) {
	if err := rules.check(in, spill); err != nil {
		return nil, err
	}
	return &Plan{in: in, rules: rules, spill: spill}, nil
}

// maxErrors is how many of the streams' errors a report keeps.
const maxErrors = 100

// Report is what a plan came to.
type Report struct {
	// Ops counts the actions by operation, Bytes the content that they concern. What
	// [Rules.AsLeft] was told of is added when the actions end.
	Ops   map[Op]int64
	Bytes map[Op]int64
	// Seen counts, by side, the entries that took part.
	Seen [2]int64
	// Refusals say why nothing is deleted; empty where nothing was to be.
	Refusals []Refusal
	// Errors are the first of those that the streams gave, Faults counts all.
	Errors []error
	Faults int64
}

// Report is what the plan came to so far: Refusals are there once the first
// Delete, or Keep for KeepGuarded, was yielded.
func (p *Plan) Report() Report { return p.report }

// Actions yields what has to be done and what has to be reported. All copies and
// directories come first, in the order of their keys but for those that had to
// wait for a later key; then what concerns deletes, children before their
// directories. A Put or MakeDir among the deletes needs the place of something
// that is deleted before it. Whoever carries the actions out has verified all
// before the first Delete before he carries that out.
//
// An error ends the plan: a stream that is out of order, or the spill. What the
// streams themselves report as errors is in the [Report], and turns deletes off.
func (p *Plan) Actions() iter.Seq2[Action, error] {
	return func(yield func(Action, error) bool) {
		if p.used {
			yield(Action{}, ErrUsed)
			return
		}
		p.used = true
		p.report.Ops, p.report.Bytes = map[Op]int64{}, map[Op]int64{}
		m := &merger{Plan: p, yield: yield}
		defer m.open()()
		defer func() { m.left.report(&p.report) }()
		if err := m.run(); err != nil && !errors.Is(err, errStopped) {
			yield(Action{}, fmt.Errorf("plan: %w", err))
		}
	}
}

// errStopped unwinds the merge when the consumer breaks off.
var errStopped = errors.New("stopped")

// merger is the state of one merge.
type merger struct {
	*Plan
	yield func(Action, error) bool

	sides [2]*stream[entry.Entry]
	past  *stream[Past]
	tree  tree
	alike alike
	// late are conflicts that a stream found while it moved on.
	late   []Action
	left   left
	mounts mounts
}

// open starts the streams and returns what stops them.
func (m *merger) open() (stop func()) {
	for _, s := range []Side{Source, Dest} {
		m.sides[s] = &stream[entry.Entry]{
			name: s.String(), key: func(e *entry.Entry) string { return e.Key() }, skip: m.skips, fault: m.fault,
			again: func(e *entry.Entry, key string) { m.again(s, *e, key) },
		}
	}
	m.past = &stream[Past]{
		name: "last run", fault: m.fault,
		key:  func(p *Past) string { return p.Key },
		skip: func(p *Past) bool { return p.Key == "" || m.skips(either(p)) },
		again: func(_ *Past, key string) {
			m.fault(&StreamError{"last run", key, fmt.Errorf("%w: %q comes twice", ErrOrder, key)})
		},
	}
	m.sides[Source].open(m.in.Source)
	m.sides[Dest].open(m.in.Dest)
	m.past.open(m.in.Past)
	m.alike = alike{sides: 1}
	if m.rules.Mode == TwoWay {
		m.alike.sides = 2
	}
	return func() {
		m.sides[Source].stop()
		m.sides[Dest].stop()
		m.past.stop()
	}
}

func either(p *Past) *entry.Entry {
	if Present(p.Source) {
		return &p.Source
	}
	return &p.Dest
}

func (m *merger) skips(e *entry.Entry) bool {
	return !Present(*e) || m.rules.Filter != nil && !m.rules.Filter(e.Path, e.Kind)
}

func (m *merger) fault(err error) {
	m.report.Faults++
	m.tally.errors++
	if m.tally.first == nil {
		m.tally.first = err
	}
	if len(m.report.Errors) < maxErrors {
		m.report.Errors = append(m.report.Errors, err)
	}
}

// again notes an entry whose key another one has already, which stands for both.
func (m *merger) again(s Side, e entry.Entry, key string) {
	a := Action{Op: Conflict, Key: key, To: s.Other(), Reason: ConflictKey}
	if a.Source = e; s == Dest {
		a.Source, a.Dest = entry.Entry{}, e
	}
	if len(m.late) < maxErrors {
		m.late = append(m.late, a)
	}
	m.fault(&StreamError{s.String(), key, fmt.Errorf("a second entry has the key %q", key)})
}

func (m *merger) run() error {
	if err := errors.Join(m.sides[Source].advance(), m.sides[Dest].advance(), m.past.advance()); err != nil {
		return err
	}
	for {
		if passed, err := m.passOver(); err != nil {
			return err
		} else if passed {
			continue
		}
		f, ok, err := m.next()
		if err != nil {
			return err
		}
		if err := m.settleLate(); err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := m.leave(&f); err != nil {
			return err
		}
		if err := m.visit(&f); err != nil {
			return err
		}
	}
	if err := m.leave(nil); err != nil {
		return err
	}
	return m.finish()
}

func (m *merger) settleLate() error {
	for _, a := range m.late {
		if err := m.emit(a); err != nil {
			return err
		}
	}
	m.late = m.late[:0]
	return nil
}

// next gathers what the streams know of the lowest key.
func (m *merger) next() (f found, ok bool, err error) {
	consider := func(key string, ended bool) {
		if !ended && (!ok || key < f.key) {
			f.key, ok = key, true
		}
	}
	consider(m.sides[Source].headKey, m.sides[Source].ended)
	consider(m.sides[Dest].headKey, m.sides[Dest].ended)
	consider(m.past.headKey, m.past.ended)
	if !ok {
		return f, false, nil
	}
	// Before the streams move on: an error that comes behind a key is not about it.
	f.unsure = [2]bool{m.sides[Source].failed, m.sides[Dest].failed}
	f.unsurePast = m.past.failed
	source, err1 := m.sides[Source].take(f.key)
	dest, err2 := m.sides[Dest].take(f.key)
	past, err3 := m.past.take(f.key)
	f.source, f.dest, f.past = source, dest, past
	if err := errors.Join(err1, err2, err3); err != nil {
		return f, false, err
	}
	if !Present(f.dest) && m.rules.Mode != TwoWay && (m.in.Dest == nil || f.unsure[Dest]) {
		f.dest, f.assumed = f.past.Dest, true
	}
	if strings.HasSuffix(f.key, "/") {
		m.enter(&f)
	}
	if m.shut(&f) {
		return found{key: f.key}, true, nil
	}
	for _, s := range []Side{Source, Dest} {
		if e := f.at(s); Present(e) {
			m.tally.seen[s]++
			if e.Kind != entry.Dir {
				m.tally.content[s]++
			}
		}
	}
	m.report.Seen = m.tally.seen
	return f, true, nil
}

// ahead reports whether the side holds something below the directory, which is
// at the key at hand or the next one of that side.
func (m *merger) ahead(f *found, s Side, dir string) bool {
	if f == nil {
		return false
	}
	if Present(f.at(s)) && within(f.key, dir) {
		return true
	}
	if s == Dest && m.in.Dest == nil {
		return !m.past.ended && Present(m.past.head.Dest) && within(m.past.headKey, dir)
	}
	return !m.sides[s].ended && within(m.sides[s].headKey, dir)
}

// emit hands an action to the consumer.
func (m *merger) emit(a Action) error {
	m.report.Ops[a.Op]++
	e := a.At(a.To.Other())
	if a.Op == Delete || a.Op == Keep || !Present(e) {
		e = a.At(a.To)
	}
	m.report.Bytes[a.Op] += e.Size
	if !m.yield(a, nil) {
		return errStopped
	}
	return nil
}

// push keeps an action until the deletes.
func (m *merger) push(a Action) error {
	if m.spill == nil {
		return fmt.Errorf("keep %q for the end: there is no spill; give one", a.Key)
	}
	if err := m.spill.Push(a); err != nil {
		return fmt.Errorf("keep %q for the end: %w", a.Key, err)
	}
	switch {
	case a.Op == Delete:
		m.tally.deletes[a.To]++
	case a.Reason == KeepMissing:
		m.tally.missing[a.To]++
	}
	return nil
}

// finish asks the guards and yields what waited.
func (m *merger) finish() error {
	if m.rules.Mode == Copy {
		return nil
	}
	refusals := m.rules.judge(&m.tally)
	m.report.Refusals = refusals
	for s := range m.mounts.away {
		if r, ok := m.mounts.away[s].refusal(Side(s)); ok {
			m.report.Refusals = append(m.report.Refusals, r)
		}
	}
	for a, err := range m.spill.All() {
		if err != nil {
			return fmt.Errorf("read the deletes back: %w", err)
		}
		if len(refusals) > 0 {
			a = refusedDelete(a, believed(refusals))
		}
		if err := m.emit(a); err != nil {
			return err
		}
	}
	return nil
}

// refusedDelete is what becomes of a spilled action when a guard refused; absent says that
// what is absent is believed to be.
func refusedDelete(a Action, absent bool) Action {
	switch a.Op {
	case Delete, Keep:
		a.Missed = absent && a.Op == Delete
		a.Op, a.Reason = Keep, KeepGuarded
	case Put, MakeDir:
		a.Op, a.Reason = Conflict, ConflictPlace
	}
	return a
}
