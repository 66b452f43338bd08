package fold

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// Severities of an issue.
const (
	Critical = "critical"
	Major    = "major"
	Minor    = "minor"
)

// docket collects issues and, with each, what to do about it.
type docket struct {
	issues []Issue
	items  []ActionItem
}

// open adds an issue with its action items.
func (d *docket) open(severity, phase, title, detail string, todo ...string) {
	id := fmt.Sprintf("I%d", len(d.issues)+1)
	d.issues = append(d.issues, Issue{ID: id, Severity: severity, Phase: phase, Title: title, Detail: ShowUnits(detail)})
	for _, t := range todo {
		d.items = append(d.items, ActionItem{Issue: id, Text: t})
	}
}

// issues derives what was found wrong, and what to do about it, the gravest first.
func issues(h *history, r Report) ([]Issue, []ActionItem) {
	d := &docket{issues: []Issue{}, items: []ActionItem{}}
	d.drill(h, r)
	if r.Settlement != nil {
		d.settlement(r)
	}
	for _, p := range r.Phases {
		if p.State == "waiting" && r.State == StateRunning {
			continue
		}
		d.restore(r, p)
		d.copies(p)
		d.results(p)
		d.conduct(p)
	}
	d.history(h, r)
	d.rank()
	return d.issues, d.items
}

// rank puts the gravest issues first, and numbers them in that order.
func (d *docket) rank() {
	order := []string{Critical, Major, Minor}
	slices.SortStableFunc(d.issues, func(a, b Issue) int {
		return cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity))
	})
	place := map[string]int{}
	for i := range d.issues {
		place[d.issues[i].ID] = i
		d.issues[i].ID = fmt.Sprintf("I%d", i+1)
	}
	slices.SortStableFunc(d.items, func(a, b ActionItem) int { return cmp.Compare(place[a.Issue], place[b.Issue]) })
	for i := range d.items {
		d.items[i].Issue = d.issues[place[d.items[i].Issue]].ID
	}
}

func (d *docket) drill(h *history, r Report) {
	if owed := owing(r); len(owed) > 0 && r.Settlement == nil {
		list := strings.Join(owed, ", ")
		d.open(Critical, "", "Something is still broken", "Never undone: "+list,
			fmt.Sprintf("Run “%s”. If that fails, put back by hand what %s left behind; the undo records are in the fault.intended and action.intended events.", undoCommand(r.ID), list))
	}
	if h.specFault != "" {
		d.open(Major, "", "The drill's definition cannot be read", h.specFault,
			"Report this with the drill's events: an accepted drill must be readable.")
	}
	for _, a := range r.Conduct.Aborts {
		d.open(Major, "", "The drill was aborted", fmt.Sprintf("%s, by %s: %s", a.Cause, a.By, a.Reason), abortAction(a.Cause))
	}
	if r.State == StateFinished && !r.Complete && len(r.Conduct.Aborts) == 0 && (r.Settlement == nil || len(r.Settlement.Owed) == 0) {
		d.open(Major, "", "The drill did not run to its end", r.Reason, "Remove the cause, then run the drill again.")
	}
}

func abortAction(cause string) string {
	switch cause {
	case "stop-condition":
		return "Decide whether the stop condition is right; if it is, treat the outage as the drill's finding before running it again."
	case "deadline":
		return "Find the step that used up the time; raise guards.deadline only if the time was well spent."
	case "steady-state":
		return "Repair the system until its steady state holds, then run the drill again."
	case "halt":
		return "Clear the reason for the halt, lift it, and run the drill again."
	case drill.CauseGuard:
		return "Do what the refusal says, see that `firedrill plan` finds no problem, and run the drill again."
	case "failure":
		return "Repair the step that failed, then run the drill again."
	}
	return "Run the drill again when the reason for the abort is gone."
}

// owing lists the steps that are not undone and of which no undo was tried.
func owing(r Report) []string {
	if r.State != StateFinished {
		return nil
	}
	return slices.DeleteFunc(r.owed(), func(step string) bool {
		return slices.ContainsFunc(r.Phases, func(p Phase) bool {
			return slices.ContainsFunc(p.Undos, func(u UndoRun) bool { return u.Step == step && u.Status != statusDone })
		})
	})
}

// restore lists what did not go back to how it was.
func (d *docket) restore(r Report, p Phase) {
	for _, u := range p.Undos {
		if u.Status == statusDone {
			if len(u.Reasons) > 0 {
				d.open(Minor, p.Name, "An undo needed several tries", fmt.Sprintf("%s: done at try %d; before: %s", u.Step, u.Tries, joinReasons(u.Reasons)),
					fmt.Sprintf("Find out why the undo of %s does not work at once: the next drill may not be so lucky.", u.Step))
			}
			continue
		}
	}
	if r.State != StateRunning {
		for _, g := range alike(p.Undos) {
			d.open(Critical, p.Name, "An undo failed, so something is still broken", g.detail(),
				g.advice(r.ID))
		}
	}
	for _, a := range p.Actions {
		if a.Status == statusFailed {
			d.open(Major, p.Name, fmt.Sprintf("The %s action %s failed", a.Stage, a.Name), a.Reason,
				fmt.Sprintf("Repair %q on %s and rehearse it alone before the next drill.", a.Operation, a.Target))
		}
	}
}

// failedAlike are undos that failed for one and the same reason: one thing to repair.
type failedAlike struct {
	undos []UndoRun
	why   []string
}

// alike groups the undos that failed by what they say of it, apart from their own names.
func alike(undos []UndoRun) []failedAlike {
	var out []failedAlike
	for _, u := range undos {
		if u.Status == statusDone {
			continue
		}
		why := make([]string, len(u.Reasons))
		for i, r := range u.Reasons {
			why[i] = r
			if _, cause, ok := strings.Cut(r, ": "); ok && strings.HasPrefix(r, "undoing ") {
				why[i] = cause
			}
		}
		i := slices.IndexFunc(out, func(g failedAlike) bool { return len(why) > 0 && counted(g.why) == counted(why) })
		if i < 0 {
			out = append(out, failedAlike{why: why})
			i = len(out) - 1
		}
		out[i].undos = append(out[i].undos, u)
	}
	return out
}

func (g failedAlike) names() string {
	var steps []string
	for _, u := range g.undos {
		steps = append(steps, u.Step)
	}
	return strings.Join(steps, ", ")
}

// advice is what to do about them, in the drill with an id.
func (g failedAlike) advice(id string) string {
	return fmt.Sprintf("Repair what made the undo of %s fail, then run “%s”, with --with where the drill described its target wrongly. If it still fails, put the target back by hand and run it once more, to show that; or with --let-go, where that cannot be looked at.", g.names(), undoCommand(id))
}

// detail keeps the reasons as they were told where there is one undo.
func (g failedAlike) detail() string {
	u, each := g.undos[0], ""
	if len(g.undos) > 1 {
		each = " each"
	} else {
		g.why = u.Reasons
	}
	return fmt.Sprintf("%s, after %s%s%s", g.names(), Plural(u.Tries, "try"), each, suffix(counted(g.why)))
}

// copies lists the evidence that was not kept, and what can still be done.
func (d *docket) copies(p Phase) {
	for _, c := range p.Copies {
		if c.Status == statusDone || p.State != StateFinished {
			continue
		}
		_, name := cutStep(c.Step)
		if c.Mirror != "" {
			d.open(Major, p.Name, "A mirror was not brought up to date: "+name, c.problem(),
				fmt.Sprintf("See `firedrill mirror status %s`, remove the cause and run `firedrill mirror sync %s --fleet`.", c.Mirror, c.Mirror))
			continue
		}
		if len(c.instead) > 0 {
			d.open(Minor, p.Name, "Evidence was not kept as planned: "+name, c.problem(), "See whether what the way back kept is what was to be kept.")
			continue
		}
		d.open(Major, p.Name, "Evidence was not kept: "+name, c.problem(),
			fmt.Sprintf("Copy %s to %s by hand now, if the restore has left it as it was.", orThe(c.From, "what was to be kept"), orThe(c.To, "a safe place")),
			"Remove the cause and rehearse the copy alone before the next drill: the restore may destroy what it should have kept.")
	}
}

func orThe(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// results lists every judgement that is not a PASS.
func (d *docket) results(p Phase) {
	loss := d.loss(p)
	for _, r := range p.Results {
		if r.Verdict == verdict.Pass {
			continue
		}
		severity := Major
		switch {
		case r.Verdict == verdict.Fail && (r.Of == verdict.OfRPORecords || r.Of == ofChecks || r.Of == ofRestore):
			severity = Critical
		case r.Verdict == verdict.Inconclusive:
			severity = Minor
		}
		if p.invalid() && r.Of != verdict.OfValidity && r.Of != ofRestore && r.Verdict != verdict.Fail {
			continue // the validity line says it
		}
		if r.Of == ofKeep {
			continue // each copy that was not made is an issue of its own
		}
		if loss && speaksOfLoss(r) {
			continue // said above
		}
		if r.Of == ofChecks && r.Verdict == verdict.Fail {
			v, _, why := p.properties(drill.Recovered, func(q event.Property) bool {
				return loss && q.Name == propLost || q.Name == propStale && len(p.staleLanes()) > 0
			})
			if v != verdict.Fail {
				continue // what failed is an issue of its own
			}
			r.Why = ShowUnits(joinReasons(why))
		}
		if r.Of == ofRestore && r.Verdict == verdict.Fail && !p.unsteady() {
			continue // each failed undo and action is an issue of its own
		}
		if r.Of == ofRestore && r.Verdict == verdict.Fail {
			r.Why = joinReasons(p.notAsBefore())
		}
		d.open(severity, p.Name, titleOf(r), r.Why, todo(p, r)...)
	}
}

func speaksOfLoss(r Result) bool {
	return r.Verdict == verdict.Fail && (r.Of == verdict.OfRPORecords || r.Of == verdict.OfRPOTime)
}

// loss opens one issue for a loss beyond an objective, with all that was found of
// it: by number, by time, and by the checks. It is false where there is none.
func (d *docket) loss(p Phase) bool {
	var why, todos []string
	title, severity := "", Major
	for _, r := range p.Results {
		if !speaksOfLoss(r) {
			continue
		}
		if title == "" {
			title, todos = titleOf(r), todo(p, r)
		}
		if r.Of == verdict.OfRPORecords {
			severity = Critical
		}
		why = append(why, r.Why)
	}
	if title == "" {
		return false
	}
	if found := p.failed(propLost); len(found) > 0 {
		severity, why = Critical, append(why, found...)
	}
	d.open(severity, p.Name, title, joinReasons(why), todos...)
	return true
}

// unsteady reports whether the state after the restore was seen to be wrong.
func (p Phase) unsteady() bool {
	return slices.ContainsFunc(p.Steady, func(s Steady) bool { return s.When == drill.After && s.Status == statusViolated }) ||
		slices.ContainsFunc(p.Checks, func(c CheckRun) bool {
			return c.When == drill.Restored && slices.ContainsFunc(c.Properties, func(q event.Property) bool { return q.Result == event.ResultFail })
		})
}

// notAsBefore says what was seen to be wrong after the restore.
func (p Phase) notAsBefore() []string {
	_, _, out := p.properties(drill.Restored, func(q event.Property) bool { return q.Result != event.ResultFail })
	for _, s := range p.Steady {
		if s.When == drill.After && s.Status == statusViolated {
			out = append(out, "the steady state did not come back: "+joinReasons(s.Reasons))
		}
	}
	return out
}

func (p Phase) invalid() bool {
	return slices.ContainsFunc(p.Results, func(r Result) bool { return r.Of == verdict.OfValidity && r.Verdict == verdict.Invalid })
}

// Subject names what a result is of, for people.
func Subject(of string) string {
	switch of {
	case verdict.OfRTO:
		return "Recovery time"
	case verdict.OfRPORecords:
		return "Lost writes"
	case verdict.OfRPOTime:
		return "Recovery point"
	case verdict.OfAvailability:
		return "Availability"
	case verdict.OfValidity:
		return "Validity"
	case ofChecks:
		return "Data checks"
	case ofKeep:
		return "Evidence kept"
	case ofRestore:
		return "Restore"
	case ofUndo:
		return "Undo"
	}
	return of
}

func titleOf(r Result) string {
	switch r.Verdict {
	case verdict.Fail:
		switch r.Of {
		case verdict.OfRTO:
			return "The recovery took longer than its objective"
		case verdict.OfRPORecords:
			return "Acknowledged writes were lost beyond the objective"
		case verdict.OfRPOTime:
			return "The recovery point lies further back than its objective"
		case verdict.OfAvailability:
			return "The availability was below its objective"
		case ofChecks:
			return "A data check failed"
		case ofRestore:
			return "Not everything was put back"
		}
	case verdict.Inconclusive:
		return Subject(r.Of) + ": could not be decided"
	case verdict.Invalid:
		if r.Of == verdict.OfValidity {
			return "The measurement is not valid"
		}
		return Subject(r.Of) + ": not judged, the tool was late"
	}
	return Subject(r.Of)
}

// todo is what a result asks for.
func todo(p Phase, r Result) []string {
	if r.Verdict == verdict.Invalid {
		return []string{"Remove the cause and run the phase again: this run proves nothing about the system. " + r.cause.advice()}
	}
	if r.Verdict == verdict.Inconclusive {
		switch r.Of {
		case verdict.OfRTO:
			if len(p.Recovery) > 0 && worstRecovery(p.Recovery).Achieved.Open {
				return append(quicken(p), "Let the phase wait for stability (stable.timeout) for longer than its objective, and run it again.")
			}
			return []string{"The interval straddles the objective: run the phase again, with a shorter probe interval if it stays so."}
		case verdict.OfRPORecords, verdict.OfRPOTime:
			return []string{"Add a ledger check for every write probe, so that lost writes can be counted."}
		case ofRestore:
			if cut := p.cutOff(); len(cut) > 0 && p.Back == BackChecked {
				return []string{fmt.Sprintf("Run the phase to its end, to see whether %s works.", strings.Join(cut, ", "))}
			}
			return []string{"Check by hand that the system is as it was before the drill."}
		}
		return []string{"Find out why it could not be decided; until then it counts as not shown."}
	}
	switch r.Of {
	case verdict.OfRTO:
		return append(quicken(p), "Shorten the recovery: "+slowest(p), "Review whether the objective of "+ShowDuration(p.Objective.RTO)+" is the one the business needs.")
	case verdict.OfRPORecords, verdict.OfRPOTime:
		return []string{"Reconcile the lost writes listed in the ledger with their source.",
			"Close the gap: synchronous replication, or an objective that allows for the replication lag."}
	case verdict.OfAvailability:
		return []string{"Find the lane with the lowest availability in the table and shorten or avoid its outages."}
	case ofChecks:
		return []string{"Compare the failed properties' samples with the evidence, and repair the data before it is relied on."}
	case ofRestore:
		return []string{"Bring the system back to its steady state by hand and check it before anything else is drilled."}
	}
	return []string{"Review: " + r.Why}
}

// quicken is what to do about lanes that were back and too slow.
func quicken(p Phase) []string {
	var lanes []string
	for _, r := range p.Recovery {
		for _, s := range r.Slow {
			if lane := s.Probe + "/" + s.Lane; !slices.Contains(lanes, lane) {
				lanes = append(lanes, lane)
			}
		}
	}
	if len(lanes) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("Find out what slowed the service down after it was back, as %s felt it: cold caches, missing statistics, a smaller machine, or a network further away.", strings.Join(lanes, ", "))}
}

// slowest names the split that took longest.
func slowest(p Phase) string {
	if len(p.Recovery) == 0 {
		return "see the timeline."
	}
	s := worstRecovery(p.Recovery).Splits
	name, longest := "", int64(-1)
	for _, x := range []struct {
		name string
		f    Figure
	}{{"detecting the fault", s.Detect}, {"failing over", s.Failover}, {"getting stable after the failover", s.Restore}} {
		if v := x.f.Lo; x.f.Known && v > longest {
			name, longest = fmt.Sprintf("most of it went into %s (%s).", x.name, ShowFigure(x.f)), v
		}
	}
	if name == "" {
		return "see the timeline."
	}
	return name
}

// staleLanes says of each lane how many reads were stale. After a loss reads had
// to miss what was lost, which is no problem of its own.
func (p Phase) staleLanes() []string {
	var out []string
	for _, l := range p.Availability {
		if l.StaleReads > 0 && !lost(p) {
			out = append(out, fmt.Sprintf("%s/%s: %s missed a write that had been acknowledged before", l.Probe, l.Lane, Plural(l.StaleReads, "read")))
		}
	}
	return out
}

func lost(p Phase) bool {
	return slices.ContainsFunc(p.Ledgers, func(l Ledger) bool { return l.LostCount > 0 })
}

// conduct lists problems of the drill's own running.
func (d *docket) conduct(p Phase) {
	for _, s := range p.Steady {
		if s.When == drill.Before && s.Status == statusViolated {
			d.open(Major, p.Name, "The steady state did not hold before the fault", joinReasons(s.Reasons),
				"Repair the system until its steady state holds, then run the drill again.")
		}
	}
	if stale := p.staleLanes(); len(stale) > 0 {
		d.open(Major, p.Name, "Reads were stale", joinReasons(append(stale, p.failed(propStale)...)),
			"Find out which server answered those reads; route them away from lagging or fenced-off servers.")
	}
	for _, l := range p.Ledgers {
		if l.PhantomCount+l.DuplicateCount > 0 {
			d.open(Major, p.Name, "The ledger holds writes that it should not", fmt.Sprintf("%s/%s: %s never attempted, %s more than once", l.Probe, l.Lane, ShowCount(l.PhantomCount), ShowCount(l.DuplicateCount)),
				"Look for a retrying client or proxy between the probe and the target, and for another writer of the ledger.")
		}
	}
	if p.Failback != nil && p.Failback.Outages > 0 && !p.Failback.StillDown && p.Objective.RTO > 0 && p.Failback.Longest.Lo > p.Objective.RTO {
		d.open(Minor, p.Name, "Failing back took the service down for longer than the objective", fmt.Sprintf("%s on %s", Show(*p.Failback.Longest), p.Failback.Lane),
			"Plan the failback for a maintenance window, or use a switchover that keeps the service up.")
	}
}

// history lists what is wrong with the events themselves.
func (d *docket) history(h *history, r Report) {
	if len(r.Verification.Problems) > 0 {
		severity, todo := Major, "Find out who published messages into the drill's history that no service of the keyring signed."
		if !h.sound {
			severity, todo = Critical, "Find out who changed the stored events; run firedrill verify on them."
		}
		d.open(severity, "", fmt.Sprintf("%d of %d messages of the history cannot be trusted", len(r.Verification.Problems), r.Verification.Events),
			joinReasons(first(r.Verification.Problems, 5)), todo)
	}
	if n := len(r.Verification.Unknown); n > 0 {
		kinds := slices.Sorted(maps.Keys(r.Verification.Unknown))
		d.open(Minor, "", "The history holds events of unknown types", strings.Join(kinds, ", "),
			"Fold the history with the version of firedrill that wrote it: this one left those events out.")
	}
	for _, l := range h.turns {
		if p := l.payload.(*event.LeaseTaken); p.Epoch > 1 {
			d.open(Minor, "", "The injector was replaced", fmt.Sprintf("%s took over (epoch %d)%s", p.Holder, p.Epoch, suffix(p.Reason)),
				"Find out why the injector died or fell silent in mid-drill.")
		}
	}
	for _, c := range h.claims {
		if p := c.payload.(*event.ObserverClaimed); p.Epoch > 1 {
			d.open(Minor, "", "The observer was replaced", fmt.Sprintf("%s took over (claim %d)", p.Instance, p.Epoch),
				"Find out why the observer died or fell silent in mid-drill.")
		}
	}
}

func first(list []string, n int) []string { return list[:min(n, len(list))] }
