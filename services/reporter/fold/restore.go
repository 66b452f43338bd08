package fold

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// How far what a phase broke is back.
const (
	// BackOutstanding: an effect that has to be undone was not.
	BackOutstanding = "outstanding"
	// BackWrong: everything was undone, and what was found then is not as it was.
	BackWrong = "wrong"
	// BackUndone: everything was undone, and no check has shown that it is as it was.
	BackUndone = "undone"
	// BackChecked: everything was undone, and the restore checks passed.
	BackChecked = "checked"
)

// backText is Back for people.
func backText(back string) string {
	switch back {
	case BackOutstanding:
		return "not everything is undone"
	case BackWrong:
		return "undone, but not as it was"
	case BackUndone:
		return "undone; not checked"
	}
	return "everything is put back"
}

// judgeKeep judges the copies of evidence. What the restore may have destroyed
// cannot be looked at any more, so a phase that lacks a copy has not shown all
// that it was to show.
func (f *phaseFold) judgeKeep() {
	if f.out.State != StateFinished {
		return
	}
	if f.touched() {
		f.addUnasked() // else there is nothing to be seen in them
	}
	if len(f.out.Copies) == 0 {
		return
	}
	f.keptInstead()
	good, whole := 0, "every copy is whole and verified"
	var why []string
	for _, c := range f.out.Copies {
		if c.Status == statusDone {
			if good++; c.Verified == "" {
				whole = "every copy is whole"
			}
			continue
		}
		why = append(why, c.problem())
	}
	v := verdict.Pass
	if len(why) > 0 {
		v = verdict.Inconclusive
	}
	f.addResult(ofKeep, "every copy is made", fmt.Sprintf("%d of %s", good, Plural(len(f.out.Copies), "copy")), v, reasonOr(why, whole))
}

// touched reports whether a fault or an action has had an effect, or may have had one.
func (f *phaseFold) touched() bool {
	refused := func(step string) bool {
		return slices.ContainsFunc(f.log.entries, func(n entry) bool {
			p, ok := n.payload.(*event.FaultFailed)
			return ok && p.Step == step && !p.Unknown
		})
	}
	return len(f.out.Actions) > 0 || slices.ContainsFunc(f.out.Faults, func(r FaultRun) bool { return !refused(r.Step) })
}

// addUnasked lists the copies that the drill wants and that were never asked for.
func (f *phaseFold) addUnasked() {
	for _, k := range f.spec.Keep {
		step := drill.StepID(f.out.Name, drill.StepKeep, k.Name)
		if !slices.ContainsFunc(f.out.Copies, func(c CopyRun) bool { return c.Step == step }) {
			fill := func(location string) string {
				return strings.ReplaceAll(location, "{drill}", f.h.first.event.Subject)
			}
			f.out.Copies = append(f.out.Copies, CopyRun{Step: step, From: fill(k.From), To: fill(k.To), Mirror: k.Mirror, Status: statusNotAsked})
		}
	}
}

// keptInstead notes what the way back kept, which may be the one copy that was not made.
// Of several it does not say which it may stand for.
func (f *phaseFold) keptInstead() {
	lacking := -1
	for i, c := range f.out.Copies {
		if c.Status == statusDone || c.Mirror != "" {
			continue
		}
		if lacking >= 0 {
			return
		}
		lacking = i
	}
	if lacking < 0 {
		return
	}
	for _, u := range f.out.Undos {
		f.out.Copies[lacking].keeps(u.Status, u.Details)
	}
	for _, a := range f.out.Actions {
		if a.Stage == string(drill.StepRestore) {
			f.out.Copies[lacking].keeps(a.Status, a.Details)
		}
	}
}

// keeps takes what an undo or an action that was done says that it "kept".
func (c *CopyRun) keeps(status string, details map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(details)) {
		if kept, ok := strings.CutPrefix(details[k], "kept "); ok && status == statusDone {
			c.instead = append(c.instead, kept)
		}
	}
}

// problem says of a copy that was not made what it was and why.
func (c CopyRun) problem() string {
	_, name := cutStep(c.Step)
	what, instead := name, ""
	if len(c.instead) > 0 {
		instead = "; the way back kept " + strings.Join(c.instead, ", ") + ", which may be it"
	}
	failed := " could not be copied"
	switch {
	case c.Mirror != "":
		what += " (mirror " + c.Mirror + ")"
		failed = " is not whole"
	case c.From != "":
		what += " (" + c.From + " → " + c.To + ")"
	}
	switch c.Status {
	case statusFailed:
		return what + failed + suffix(c.Reason) + instead
	case statusNotAsked:
		return what + ": the phase ended before its turn came" + instead
	}
	return what + failed + ": the mirror did not answer" + instead
}

// judgeRestore judges the way back: nothing may stay broken.
func (f *phaseFold) judgeRestore() {
	if f.out.State != StateFinished || f.faultOrder < 0 && len(f.out.Undos) == 0 && !f.broke {
		return
	}
	j := &restoreJudge{}
	j.v, _, j.why = f.out.properties(drill.Restored, nil)
	f.judgeUndos(j)
	checked := f.judgeRestoreChecks(j)
	steady := f.judgeSteadyAfter(j, checked)
	switch {
	case len(f.out.Owed) > 0:
		f.out.Back = BackOutstanding
	case j.found:
		f.out.Back = BackWrong
	case !checked:
		f.out.Back = BackUndone
	default:
		f.out.Back = BackChecked
	}
	good := "everything was undone"
	switch {
	case checked && steady:
		good = "everything was put back: the restore checks passed, and the steady state holds"
	case checked:
		good = "everything was put back: the restore checks passed"
	case steady:
		good = "everything was undone and the steady state holds; the phase has no restore checks"
	}
	achieved := backText(f.out.Back)
	if cut := f.out.cutOff(); len(cut) > 0 {
		achieved += "; " + strings.Join(cut, ", ") + " cut off"
		if f.out.Back == BackChecked {
			j.why = append(j.why, good)
		}
	}
	f.addResult(ofRestore, "everything is put back", achieved, j.v, reasonOr(j.why, good))
}

// cutOff names the restore actions that the abort cut off.
func (p Phase) cutOff() []string {
	var out []string
	for _, a := range p.Actions {
		if a.Stage == string(drill.StepRestore) && a.Status == statusCutOff {
			out = append(out, a.Name)
		}
	}
	return out
}

// restoreJudge collects what speaks against a restore.
type restoreJudge struct {
	v   verdict.Verdict
	why []string
	// found: what was looked at afterwards was seen to be wrong.
	found bool
}

func (j *restoreJudge) worsen(w verdict.Verdict, format string, args ...any) {
	j.why = append(j.why, fmt.Sprintf(format, args...))
	if w == verdict.Fail || j.v == verdict.Pass {
		j.v = w
	}
}

// judgeUndos completes the list of what is owed by what the injector itself says
// is outstanding, and holds it against the restore.
func (f *phaseFold) judgeUndos(j *restoreJudge) {
	owe := func(step string) {
		if !slices.Contains(f.out.Owed, step) {
			f.out.Owed = append(f.out.Owed, step)
		}
	}
	for _, u := range f.out.Undos {
		if u.Status != statusDone {
			owe(u.Step)
		}
	}
	if f.h.finished != nil {
		for _, step := range f.h.finished.Outstanding {
			if strings.HasPrefix(step, f.out.Name+"/") {
				owe(step)
			}
		}
	}
	for _, a := range f.out.Actions {
		switch {
		case a.Stage != string(drill.StepRestore):
		case a.Status == statusFailed:
			j.worsen(verdict.Fail, "%s failed: %s", a.Name, a.Reason)
		case a.Status == statusCutOff:
			j.worsen(verdict.Inconclusive, "%s was cut off by the abort, so it is not known whether it works", a.Name)
		}
	}
	for _, step := range f.out.Owed {
		i := slices.IndexFunc(f.out.Undos, func(u UndoRun) bool { return u.Step == step })
		if i < 0 {
			j.worsen(verdict.Fail, "%s is still in effect", step)
			continue
		}
		j.worsen(verdict.Fail, "%s was not undone%s", step, suffix(counted(f.out.Undos[i].Reasons)))
	}
}

// judgeRestoreChecks reports whether checks after the restore have shown that
// all is as it was.
func (f *phaseFold) judgeRestoreChecks(j *restoreJudge) bool {
	made := f.restoredDone && slices.ContainsFunc(f.out.Checks, func(c CheckRun) bool { return c.When == drill.Restored })
	if len(f.spec.Restore.Checks) > 0 && !made {
		j.worsen(verdict.Inconclusive, "the checks after the restore were not made")
	}
	v, _, _ := f.out.properties(drill.Restored, nil)
	j.found = v == verdict.Fail
	return made && v == verdict.Pass
}

// judgeSteadyAfter reports whether the steady state was seen to hold after the
// restore. An aborted phase is not watched again: there, checks that passed speak
// for themselves.
func (f *phaseFold) judgeSteadyAfter(j *restoreJudge, checked bool) bool {
	after := slices.IndexFunc(f.out.Steady, func(s Steady) bool { return s.When == drill.After })
	switch {
	case after >= 0 && f.out.Steady[after].Status == statusViolated:
		j.found = true
		j.worsen(verdict.Fail, "the steady state did not come back: %s", joinReasons(f.out.Steady[after].Reasons))
	case after >= 0 && f.out.Steady[after].Status == statusEstablished:
		return true
	case after >= 0 || f.out.Complete || !checked:
		j.worsen(verdict.Inconclusive, "the steady state after the restore was not observed")
	}
	return false
}

// closing says in the executive summary how far everything is back, what that
// cost, and what the report rests on.
func closing(r Report) []string {
	out := []string{backSentence(r)}
	for _, p := range r.Phases {
		if p.Failback != nil && p.Failback.Longest != nil && !p.Failback.StillDown {
			out = append(out, fmt.Sprintf("The way back after “%s” cost its users an outage of %s%s.", p.Title, Show(*p.Failback.Longest), blindly(*p.Failback.Longest, p.Failback.unwatched)))
		}
	}
	return append(out, proofSentence(r))
}

// Text says what the way back cost.
func (b Failback) Text() string {
	if b.StillDown {
		return "The service was still down from the fault when the measured window ended, so the way back cannot be judged apart."
	}
	s := "After the measured window, with the checks and the way back"
	switch {
	case b.Outages == 0 && b.unwatched:
		return fmt.Sprintf("%s, no attempt failed, but a part of it nobody watched: over all lanes the service was down for %s.", s, Show(b.Downtime))
	case b.Outages == 0:
		return s + ", no attempt failed."
	case b.Longest.Lo > b.Downtime.Lo:
		// Attempts that succeeded may have been served within it, or by what was before.
		s += fmt.Sprintf(": the longest outage took %s from its first failure to its end (%s), and may have let attempts through in between; without service, over all lanes, it was for %s", Show(*b.Longest), b.Lane, Show(b.Downtime))
	default:
		s += fmt.Sprintf(": the longest outage took %s (%s), and over all lanes the service was down for %s", Show(*b.Longest), b.Lane, Show(b.Downtime))
	}
	return s + blindly(b.Downtime, b.unwatched) + "."
}

func backSentence(r Report) string {
	if owed := r.owed(); len(owed) > 0 {
		return stillInEffect(owed, r.ID)
	}
	is := func(back string) []string {
		var titles []string
		for _, p := range r.Phases {
			if p.Back == back {
				titles = append(titles, "“"+p.Title+"”")
			}
		}
		return titles
	}
	if wrong := is(BackWrong); len(wrong) > 0 {
		return fmt.Sprintf("Everything that the drill broke was undone, but not all is as it was: see the restore of %s.", strings.Join(wrong, ", "))
	}
	if bare := is(BackUndone); len(bare) > 0 {
		return fmt.Sprintf("Everything that the drill broke was undone; not checked: no restore checks were completed after %s.", strings.Join(bare, ", "))
	}
	if len(is(BackChecked)) > 0 {
		return "Everything that the drill broke was put back, and the restore checks passed."
	}
	for _, a := range r.Conduct.Aborts {
		if a.Cause == drill.CauseGuard {
			// What stood in its way may well be that something is broken.
			return fmt.Sprintf("The drill was refused before it broke anything; that says nothing of the system: %s.", strings.TrimSuffix(a.Reason, "."))
		}
	}
	return "The drill broke nothing, so nothing had to be put back."
}

// owed lists every step that is known not to be undone, in the order of the
// phases.
func (r Report) owed() []string {
	var out []string
	for _, p := range r.Phases {
		if p.State == StateFinished {
			out = append(out, p.Owed...)
		}
	}
	for _, step := range r.Outstanding {
		if !slices.Contains(out, step) {
			out = append(out, step)
		}
	}
	return out
}

// undoCommand is what tries the undos of a finished drill again.
func undoCommand(id string) string { return "firedrill undo " + id }

// stillInEffect names the steps that are not undone, and what undoes them.
func stillInEffect(steps []string, drill string) string {
	verb, them := "are", "them"
	if len(steps) == 1 {
		verb, them = "is", "it"
	}
	return fmt.Sprintf("Not everything was put back: %s %s still in effect. Run “%s” to undo %s.", strings.Join(steps, ", "), verb, undoCommand(drill), them)
}

func proofSentence(r Report) string {
	if r.Verification.Whole {
		return fmt.Sprintf("All %s events that this report is made from are signed and chained.", ShowCount(int64(r.Verification.Events)))
	}
	return "The history of events is not in order; see Verification."
}
