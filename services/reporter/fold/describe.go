package fold

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// Statuses of steps in a report.
const (
	statusIntended    = "intended"
	statusInjected    = "injected"
	statusDone        = "done"
	statusFailed      = "failed"
	statusCutOff      = "cut off"
	statusAsked       = "asked"
	statusNotAsked    = "not asked"
	statusEstablished = "established"
	statusViolated    = "violated"
)

// describe lists what was done in the phase, step by step.
func (f *phaseFold) describe() {
	for _, n := range f.log.entries {
		f.owe(n.payload)
		kind, name := cutStep(stepOf(n.payload))
		if f.describeFault(n, name) || f.describeAction(n, kind, name) || f.describeUndo(n) || f.describeCopy(n, name) {
			continue
		}
		switch p := n.payload.(type) {
		case *event.SteadyRequested:
			f.steady(name).Status = statusAsked
		case *event.SteadyEstablished:
			s := f.steady(name)
			s.Status, s.Window, s.Lanes = statusEstablished, int64(p.Window), p.Lanes
		case *event.SteadyViolated:
			s := f.steady(name)
			s.Status, s.Reasons, s.Lanes = statusViolated, p.Reasons, p.Lanes
			f.mark("missing", "steady state "+name, n.at(), n.at(), true)
		case *event.RecoveryStable:
			f.mark("stable", "stable", p.At, p.At, false)
		case *event.RecoveryMissing:
			f.mark("missing", "not stable", n.at(), n.at(), true)
		case *event.BaselineRecorded:
			for _, problem := range p.Problems {
				f.out.Evidence = append(f.out.Evidence, EvidenceSet{Cause: "no baseline: " + problem, Items: []event.Artifact{}})
			}
		case *event.CheckCompleted:
			f.check(p, name)
		case *event.EvidenceCollected:
			items := p.Items
			if items == nil {
				items = []event.Artifact{}
			}
			f.out.Evidence = append(f.out.Evidence, EvidenceSet{Target: p.Target, Cause: p.Cause, Items: items})
		}
	}
	for _, t := range f.h.turns {
		if p := t.payload.(*event.LeaseTaken); p.Epoch > 1 && f.during(t.order) {
			f.mark("takeover", "injector taken over", t.at(), t.at(), true)
		}
	}
	for _, c := range f.h.claims {
		if p := c.payload.(*event.ObserverClaimed); p.Epoch > 1 && f.during(c.order) {
			f.mark("observer", "observer replaced", c.at(), c.at(), true)
		}
	}
	for _, a := range f.h.aborts {
		if f.during(a.order) {
			f.mark("abort", "abort", a.at(), a.at(), true)
		}
	}
}

// owe notes what an intent promises to undo, and what was.
func (f *phaseFold) owe(payload any) {
	var e event.Effect
	switch p := payload.(type) {
	case *event.FaultIntended:
		e = p.Effect
	case *event.ActionIntended:
		e = p.Effect
	case *event.UndoDone:
		f.out.Owed = slices.DeleteFunc(f.out.Owed, func(step string) bool { return step == p.Step })
		return
	}
	if len(e.Undo) > 0 {
		f.broke = true
		if !slices.Contains(f.out.Owed, e.Step) {
			f.out.Owed = append(f.out.Owed, e.Step)
		}
	}
}

// during reports whether a place of the history lies within the phase.
func (f *phaseFold) during(order int) bool {
	from := f.log.entries[0].order
	if f.log.started != nil {
		from = f.log.started.order
	}
	to := f.log.entries[len(f.log.entries)-1].order
	if f.log.finished != nil {
		to = f.log.finished.order
	}
	return order >= from && order <= to
}

func (f *phaseFold) mark(kind, label string, from, to event.Reading, failed bool) {
	f.marks = append(f.marks, Mark{Kind: kind, Label: label, From: f.axis.place(from), To: max(f.axis.place(from), f.axis.place(to)), Failed: failed})
}

func (f *phaseFold) steady(when string) *Steady {
	i := slices.IndexFunc(f.out.Steady, func(s Steady) bool { return s.When == when })
	if i < 0 {
		f.out.Steady = append(f.out.Steady, Steady{When: when})
		i = len(f.out.Steady) - 1
	}
	return &f.out.Steady[i]
}

func (f *phaseFold) fault(step string) *FaultRun {
	i := slices.IndexFunc(f.out.Faults, func(r FaultRun) bool { return r.Step == step })
	if i < 0 {
		_, name := cutStep(step)
		f.out.Faults = append(f.out.Faults, FaultRun{Step: step, Name: name, Status: statusIntended, Parts: []event.Part{}})
		i = len(f.out.Faults) - 1
	}
	return &f.out.Faults[i]
}

func (f *phaseFold) describeFault(n entry, name string) bool {
	switch p := n.payload.(type) {
	case *event.FaultIntended:
		r := f.fault(p.Step)
		r.Target, r.Operation, r.Hold = p.Target, p.Operation, int64(p.Hold)
		if p.Parts != nil {
			r.Parts = p.Parts
		}
		r.At, r.From, r.To = n.event.Time, f.axis.place(n.at()), f.axis.place(n.at())
	case *event.FaultInjected:
		r := f.fault(p.Step)
		r.Status, r.Proof, r.At = statusInjected, p.Proof, f.axis.wall(f.axis.moment(p.F0))
		r.From, r.To = f.axis.place(p.F0), f.axis.place(p.F1)
		f.mark("fault", name, p.F0, p.F1, false)
	case *event.FaultFailed:
		r := f.fault(p.Step)
		r.Status, r.Reason = statusFailed, p.Reason
		f.mark("fault", name, n.at(), n.at(), true)
	default:
		return false
	}
	return true
}

func (f *phaseFold) action(step string) *ActionRun {
	i := slices.IndexFunc(f.out.Actions, func(r ActionRun) bool { return r.Step == step })
	if i < 0 {
		kind, name := cutStep(step)
		f.out.Actions = append(f.out.Actions, ActionRun{Step: step, Name: name, Stage: string(kind), Status: statusIntended})
		i = len(f.out.Actions) - 1
	}
	return &f.out.Actions[i]
}

func (f *phaseFold) describeAction(n entry, kind drill.StepKind, name string) bool {
	as := "action"
	if kind == drill.StepRestore {
		as = "restore"
	}
	switch p := n.payload.(type) {
	case *event.ActionIntended:
		r := f.action(p.Step)
		r.Target, r.Operation = p.Target, p.Operation
		r.At, r.From, r.To = n.event.Time, f.axis.place(n.at()), f.axis.place(n.at())
	case *event.ActionDone:
		r := f.action(p.Step)
		r.Status, r.Details, r.At = statusDone, maps.Clone(p.Details), f.axis.wall(f.axis.moment(p.Began))
		r.From, r.To = f.axis.place(p.Began), f.axis.place(p.Ended)
		r.Took = max(0, sub(r.To, r.From))
		f.mark(as, name, p.Began, p.Ended, false)
	case *event.ActionFailed:
		r := f.action(p.Step)
		r.Status, r.Reason = statusFailed, p.Reason
		if f.cutOff(n, p.Step) {
			r.Status = statusCutOff
		}
		r.To = f.axis.place(n.at())
		if !r.At.IsZero() { // it was begun
			r.Took = max(0, sub(r.To, r.From))
		}
		f.mark(as, name, n.at(), n.at(), true)
	default:
		return false
	}
	return true
}

// cutOff reports whether an action was under way when the drill was aborted, which ends
// it: that it failed says nothing of the system then.
func (f *phaseFold) cutOff(failed entry, step string) bool {
	begun := slices.IndexFunc(f.log.entries, func(n entry) bool {
		p, ok := n.payload.(*event.ActionIntended)
		return ok && p.Step == step
	})
	return begun >= 0 && slices.ContainsFunc(f.h.aborts, func(a entry) bool {
		return a.order > f.log.entries[begun].order && a.order < failed.order
	})
}

func (f *phaseFold) undo(step string) *UndoRun {
	i := slices.IndexFunc(f.out.Undos, func(r UndoRun) bool { return r.Step == step })
	if i < 0 {
		f.out.Undos = append(f.out.Undos, UndoRun{Step: step, Status: statusIntended})
		i = len(f.out.Undos) - 1
	}
	return &f.out.Undos[i]
}

func (f *phaseFold) describeUndo(n entry) bool {
	switch p := n.payload.(type) {
	case *event.UndoIntended:
		r := f.undo(p.Step)
		r.Tries = max(r.Tries, p.Try)
		if r.At.IsZero() || r.Status == statusDone {
			r.At, r.From, r.To = n.event.Time, f.axis.place(n.at()), f.axis.place(n.at())
		}
	case *event.UndoDone:
		r := f.undo(p.Step)
		r.Status, r.Details = statusDone, maps.Clone(p.Details)
		r.At, r.From, r.To = f.axis.wall(f.axis.moment(p.Began)), f.axis.place(p.Began), f.axis.place(p.Ended)
		r.Took = max(0, sub(r.To, r.From))
		_, name := cutStep(p.Step)
		f.mark("undo", "undo "+name, p.Began, p.Ended, false)
	case *event.UndoWaived:
		r := f.undo(p.Step)
		r.Status, r.At = statusWaived, n.event.Time
		r.From, r.To = f.axis.place(n.at()), f.axis.place(n.at())
		r.Reasons = append(r.Reasons, fmt.Sprintf("not undone, on the word of %s: %s", p.By, p.Reason))
	case *event.UndoFailed:
		r := f.undo(p.Step)
		r.Status, r.Tries = statusFailed, max(r.Tries, p.Try)
		r.Reasons = append(r.Reasons, p.Reason)
		r.To = f.axis.place(n.at()) // all tries, with the pauses in between
		r.Took = max(0, sub(r.To, r.From))
		_, name := cutStep(p.Step)
		f.mark("undo", "undo "+name, n.at(), n.at(), true)
	default:
		return false
	}
	return true
}

func (f *phaseFold) copyRun(step string) *CopyRun {
	i := slices.IndexFunc(f.out.Copies, func(r CopyRun) bool { return r.Step == step })
	if i < 0 {
		f.out.Copies = append(f.out.Copies, CopyRun{Step: step, Status: statusAsked})
		i = len(f.out.Copies) - 1
	}
	return &f.out.Copies[i]
}

func (f *phaseFold) describeCopy(n entry, name string) bool {
	switch p := n.payload.(type) {
	case *event.MirrorRequested:
		r := f.copyRun(p.Step)
		r.From, r.To, r.Mirror = p.From, p.To, p.Mirror
	case *event.MirrorCompleted:
		r := f.copyRun(p.Step)
		r.Status, r.Files, r.Bytes, r.Root, r.Verified = statusDone, p.Files, p.Bytes, p.Root, p.Verified
		f.mark("copy", "keep "+name, p.Began, p.Ended, false)
	case *event.MirrorFailed:
		r := f.copyRun(p.Step)
		r.Status, r.Reason = statusFailed, p.Reason
		f.mark("copy", "keep "+name, n.at(), n.at(), true)
	default:
		return false
	}
	return true
}

func (f *phaseFold) check(p *event.CheckCompleted, when string) {
	props := withinReach(p.Properties)
	if props == nil {
		props = []event.Property{}
	}
	r := CheckRun{Step: p.Step, Check: p.Check, Target: p.Target, Kind: p.Kind, When: when, Properties: props,
		From: f.axis.place(p.Began), To: f.axis.place(p.Ended)}
	r.Took = max(0, sub(r.To, r.From))
	f.out.Checks = append(f.out.Checks, r)
	bad := slices.ContainsFunc(props, func(q event.Property) bool { return q.Result == event.ResultFail })
	f.mark("check", p.Check, p.Began, p.Ended, bad)
	for _, l := range p.Ledgers {
		led := verdict.Ledger{Probe: l.Probe, Lane: l.Lane, Epoch: l.Epoch, UpTo: l.UpTo, Present: l.Present}
		for key, times := range l.Duplicates {
			seq, err := strconv.ParseInt(key, 10, 64)
			if err != nil {
				f.invalid("ledger of %s/%s: %q is no sequence number", l.Probe, l.Lane, key)
				continue
			}
			if led.Duplicates == nil {
				led.Duplicates = map[int64]int64{}
			}
			led.Duplicates[seq] = times
		}
		f.ledgers = append(f.ledgers, found{p.Step, led})
	}
}

// foldLedgers lists every ledger that was read, against its lane. Of a lane on
// another clock than the faults, only the numbers are compared.
func (f *phaseFold) foldLedgers() {
	all := slices.Concat(f.lanes, f.foreign)
	for _, l := range f.ledgers {
		i := slices.IndexFunc(all, func(x verdict.Lane) bool { return x.Probe == l.Probe && x.Name == l.Lane && x.Epoch == l.Epoch })
		if i < 0 {
			continue
		}
		faults := f.faults
		if i >= len(f.lanes) {
			faults = nil
		}
		r, err := verdict.CompareLedger(all[i], l.Ledger, faults)
		if err != nil {
			continue // Measure names it among the problems
		}
		f.out.Ledgers = append(f.out.Ledgers, Ledger{Step: l.step, Observer: f.observerOf(l.Epoch), LedgerResult: r,
			LostCount: r.Lost.Len(), RecoveredCount: r.Recovered.Len(), PhantomCount: r.Phantom.Len(), DuplicateCount: r.Duplicate.Len()})
	}
}
