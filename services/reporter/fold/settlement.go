package fold

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// ofUndo is the result of a settlement's undos.
const ofUndo = "undo"

// statusOwed is a step's whose undo was not tried yet.
const statusOwed = "owed"

// statusWaived is a step's that is not undone, on somebody's word.
const statusWaived = "waived"

// SettlesTitle is the title of a drill that settles another one, whose title is
// given.
func SettlesTitle(settles, title string) string {
	return fmt.Sprintf("Settles drill %s: %s", settles, title)
}

// foldSettlement folds a drill that undoes what an earlier one left. Nothing is
// injected in it and nothing is measured, so it has no phases and needs no probes.
func foldSettlement(h *history) *Settlement {
	f := settlementFold(h)
	s := &Settlement{Undos: []SettledStep{}, Results: []Result{}, Evidence: f.out.Evidence, Anew: h.accepted.Anew}
	for _, e := range h.accepted.Owes {
		u := s.add(e.Step)
		u.Target, u.Operation = e.Target, e.Operation
	}
	for _, u := range f.out.Undos {
		s.add(u.Step).UndoRun = u
	}
	for _, u := range s.Undos {
		if u.Status != statusDone && u.Status != statusWaived {
			s.Owed = append(s.Owed, u.Step)
		}
	}
	if h.finished == nil {
		return s
	}
	for _, step := range h.finished.Outstanding {
		if !slices.Contains(s.Owed, step) {
			s.add(step)
			s.Owed = append(s.Owed, step)
		}
	}
	s.judgeUndos(h)
	s.Back = BackUndone
	if len(s.Owed) > 0 || slices.ContainsFunc(s.Undos, func(u SettledStep) bool { return u.Status == statusWaived }) {
		s.Back = BackOutstanding
	}
	return s
}

// settlementFold describes the settlement's steps as if they were one phase's,
// whose time begins with the drill.
func settlementFold(h *history) *phaseFold {
	f := &phaseFold{h: h, log: &phaseLog{entries: []entry{h.first}}, steadyOrder: -1, faultOrder: -1, settleOrder: -1, restoreOrder: -1, targets: map[string]string{}}
	for _, l := range h.phases {
		f.log.entries = append(f.log.entries, l.entries...)
	}
	slices.SortFunc(f.log.entries, func(a, b entry) int { return cmp.Compare(a.order, b.order) })
	f.out = emptyPhase("", drill.Phase{})
	f.openAxis()
	f.setZero()
	f.describe()
	return f
}

// add finds a step's line, or appends one.
func (s *Settlement) add(step string) *SettledStep {
	i := slices.IndexFunc(s.Undos, func(u SettledStep) bool { return u.Step == step })
	if i < 0 {
		s.Undos = append(s.Undos, SettledStep{UndoRun: UndoRun{Step: step, Status: statusOwed}})
		i = len(s.Undos) - 1
	}
	return &s.Undos[i]
}

// judgeUndos: nothing may be left, and nothing may have been left out.
func (s *Settlement) judgeUndos(h *history) {
	var why []string
	done := 0
	for _, u := range s.Undos {
		if u.Status == statusDone {
			done++
		}
	}
	for _, step := range s.Owed {
		why = append(why, step+" is still in effect"+suffix(counted(s.add(step).Reasons)))
	}
	var waived []string
	for _, u := range s.Undos {
		if u.Status == statusWaived {
			waived = append(waived, u.Step+" was "+counted(u.Reasons))
		}
	}
	if !h.finished.Complete && len(why) == 0 {
		why = append(why, "the settlement was cut short"+suffix(h.finished.Reason))
	}
	v := verdict.Pass
	switch {
	case len(why) > 0:
		v = verdict.Fail
	case len(waived) > 0:
		v, why = verdict.Inconclusive, waived
	}
	s.Results = append(s.Results, Result{Of: ofUndo, Objective: "nothing is left to undo", Achieved: fmt.Sprintf("%d of %s undone", done, Plural(len(s.Undos), "step")),
		Verdict: v, Why: reasonOr(why, "every step was undone")})
}

// verdict is PASS when nothing is left.
// An unfinished settlement has none.
func (s *Settlement) verdict(h *history) verdict.Verdict {
	if !h.sound {
		return verdict.Invalid
	}
	if h.finished == nil {
		return ""
	}
	for _, r := range s.Results {
		if r.Verdict != verdict.Pass {
			return r.Verdict
		}
	}
	return verdict.Pass
}

func summariseSettlement(r Report) []string {
	s := r.Settlement
	if r.State == StateRunning {
		return []string{fmt.Sprintf("The settlement of drill %s is running; what is shown is provisional (%s so far).", r.Settles, ShowDuration(r.Duration))}
	}
	took := ShowDuration(r.Duration)
	var opening string
	switch r.Verdict {
	case verdict.Pass:
		opening = fmt.Sprintf("The settlement passed: what drill %s had left, %s, was undone in %s.", r.Settles, Plural(len(s.Undos), "step"), took)
	case verdict.Fail:
		opening = fmt.Sprintf("The settlement failed: not all that drill %s had left could be shown to be back, after %s.", r.Settles, took)
	case verdict.Inconclusive:
		return []string{fmt.Sprintf("What drill %s had left was let go, and nothing has shown that it is back: %s.", r.Settles, s.Results[0].Why), proofSentence(r)}
	default:
		opening = fmt.Sprintf("The settlement of drill %s is not valid: its history cannot be trusted.", r.Settles)
	}
	if len(s.Anew) > 0 {
		opening += fmt.Sprintf(" %s described the targets anew that the drill had described otherwise: %s.", ShowRequester(r.Requester), strings.Join(s.Anew, ", "))
	}
	back := "Everything was undone; not checked further than each undo does itself."
	if s.Back == BackOutstanding {
		back = stillInEffect(s.Owed, r.Settles)
	}
	return []string{opening, back, proofSentence(r)}
}

// settlement lists what a settlement left, and what to do about it.
func (d *docket) settlement(r Report) {
	s := r.Settlement
	for _, u := range s.Undos {
		switch {
		case u.Status == statusDone && len(u.Reasons) > 0:
			d.open(Minor, "", "An undo needed several tries", fmt.Sprintf("%s: done at try %d; before: %s", u.Step, u.Tries, joinReasons(u.Reasons)),
				fmt.Sprintf("Find out why the undo of %s does not work at once.", u.Step))
		}
	}
	if r.State == StateRunning {
		return
	}
	var undos []UndoRun
	for _, u := range s.Undos {
		if u.Status == statusWaived {
			d.open(Major, "", "Something was let go without being undone", u.Step+": "+counted(u.Reasons),
				fmt.Sprintf("Check by hand that nothing of %s is left on %s before it is drilled again.", u.Step, u.Target))
			continue
		}
		undos = append(undos, u.UndoRun)
	}
	for _, g := range alike(undos) {
		d.open(Critical, "", "Something is still broken", g.detail(),
			g.advice(r.Settles))
	}
}
