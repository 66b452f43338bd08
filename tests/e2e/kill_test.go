package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// TestInjectorKilledAtEveryBoundary: the injector is killed with SIGKILL as soon
// as each of its events is stored. Each time another one ends the drill clean, and
// the one report tells it.
func TestInjectorKilledAtEveryBoundary(t *testing.T) {
	afresh := func(name string, run func(f *fleet, p *lab.Postgres)) bool {
		return t.Run(name, func(t *testing.T) {
			p := startLab(t, lab.PostgresOptions{Synchronous: true})
			f := startFleet(t, p)
			run(f, p)
			f.oneReportEach()
		})
	}
	// One undisturbed drill names the boundaries.
	var boundaries []string
	if !afresh("none", func(f *fleet, p *lab.Postgres) { boundaries = f.drillKilledAt(p, "none", "") }) {
		return
	}
	// What the machine alone may bring about, such as a second try of an undo, need not
	// come again.
	boundaries = slices.DeleteFunc(boundaries, func(at string) bool {
		kind, _, _ := strings.Cut(at, " ")
		return strings.HasSuffix(kind, ".failed") || kind == string(event.TypeAbortRequested)
	})
	if len(boundaries) < 15 {
		t.Fatalf("only %d events by the injector: %q", len(boundaries), boundaries)
	}
	// Going back takes longer with each drill that a pair has behind it.
	const perLab = 8
	for some := range slices.Chunk(boundaries, perLab) {
		afresh("from "+some[0], func(f *fleet, p *lab.Postgres) {
			for _, at := range some {
				f.drillKilledAt(p, "kill-at", at)
			}
		})
	}
}

// boundary names an event of the injector by its type and its step, if it has one.
func boundary(s bus.Stored) string {
	var of struct {
		Step string `json:"step"`
	}
	if json.Unmarshal(s.Event.Data, &of) != nil || of.Step == "" {
		return string(s.Event.Type)
	}
	return string(s.Event.Type) + " " + of.Step
}

// drillKilledAt runs a drill and kills the injector once the event of this name is
// stored (never for ""). It returns the names of all that the injectors wrote.
func (f *fleet) drillKilledAt(p *lab.Postgres, name, at string) []string {
	f.t.Helper()
	publish(f.t, f.url, name, quickDrill(f.t, name, hurried))
	f.requests++
	id := newest(f.t, f.bus, name, uint64(f.requests))
	f.drills = append(f.drills, id)
	var names []string
	killed, before := false, f.instance()
	history := await(f.ctx, f.t, f.bus, id, func(s bus.Stored) {
		if s.Event.Service() != event.Injector || s.Event.Type == event.TypeLeaseRenewed {
			return
		}
		here := boundary(s)
		if here == at && !killed {
			f.kill(event.Injector)
			f.generation++
			f.start(event.Injector, f.instance())
			killed = true
		}
		names = append(names, here)
	})
	if killed != (at != "") {
		f.t.Fatalf("the drill that was to be disturbed at %q never came there: it went\n%s", at, strings.Join(names, "\n"))
	}
	wholeHistory(f.t, history, f.keyring)
	atHome(f.t, p)
	r := foldReport(f.t, history, f.keyring)
	f.t.Logf("killed at %q: %s, complete=%v, leases %+v, undos %d", at, r.Verdict, r.Complete, r.Conduct.Leases, len(r.Phases[0].Undos))
	for _, wrong := range slices.Concat(takeoverTold(history, r, before, f.instance()), undoneTold(history, r), verdictFits(history, r)) {
		f.t.Errorf("killed at %q: %s", at, wrong)
	}
	checkFiles(f.t, filepath.Join(f.dir, "out", id), r, f.keyring)
	if f.t.Failed() {
		f.t.Fatalf("verdict %s, %+v\n%s", r.Verdict, r.Issues, outline(history))
	}
	return names
}

// takeoverTold: the report has the second injector's lease, with its reason, and the
// phase's timeline shows it; unless there was nothing to take over.
func takeoverTold(history []bus.Stored, r fold.Report, before, after string) (wrong []string) {
	// during: a phase was open as the drill changed hands.
	during, phase, turns := false, false, 0
	for _, h := range history {
		switch p := h.Payload.(type) {
		case *event.PhaseStarted:
			phase = true
		case *event.PhaseFinished:
			phase = false
		case *event.LeaseTaken:
			if turns++; p.Epoch > 1 {
				during = phase
			}
		}
	}
	leases := r.Conduct.Leases
	if len(leases) != turns || turns > 2 {
		return []string{fmt.Sprintf("the report has %d leases, the history %d: %+v", len(leases), turns, leases)}
	}
	if turns == 1 { // killed before it had taken the lease, or after it had ended the drill
		if leases[0].Holder != before && leases[0].Holder != after {
			wrong = append(wrong, fmt.Sprintf("the lease was %q's: want %q or %q", leases[0].Holder, before, after))
		}
		return wrong
	}
	first, second := leases[0], leases[1]
	reason := "the injector was restarted"
	if before != after {
		reason = before + " was silent for "
	}
	if first.Holder != before || second.Holder != after || second.Epoch != first.Epoch+1 || !strings.HasPrefix(second.Reason, reason) {
		wrong = append(wrong, fmt.Sprintf("leases %+v: want %s, then %s because %q", leases, before, after, reason))
	}
	if told, want := issue(r, "The injector was replaced"), fmt.Sprintf("%s took over (epoch %d): ", after, second.Epoch); !strings.HasPrefix(told, want) {
		wrong = append(wrong, fmt.Sprintf("the issue says %q, want %q and why", told, want))
	}
	marked := r.Phases[0].Timeline != nil && slices.ContainsFunc(r.Phases[0].Timeline.Marks, func(m fold.Mark) bool { return m.Kind == "takeover" })
	if marked != during {
		wrong = append(wrong, fmt.Sprintf("taken over in the phase: %v; its timeline says so: %v", during, marked))
	}
	return wrong
}

// undoneTold: the report lists as undone exactly what was intended with an undo
// record, and says how far it was checked. The fault itself is never repeated.
func undoneTold(history []bus.Stored, r fold.Report) (wrong []string) {
	var owed []string
	faults := 0
	owe := func(e event.Effect) {
		if len(e.Undo) > 0 && !slices.Contains(owed, e.Step) {
			owed = append(owed, e.Step)
		}
	}
	for _, h := range history {
		switch p := h.Payload.(type) {
		case *event.FaultIntended:
			faults++
			owe(p.Effect)
		case *event.ActionIntended:
			owe(p.Effect)
		}
	}
	phase := r.Phases[0]
	var undone []string
	for _, u := range phase.Undos {
		if u.Status == "done" {
			undone = append(undone, u.Step)
		}
	}
	slices.Sort(owed)
	slices.Sort(undone)
	if faults > 1 || len(phase.Faults) != faults {
		wrong = append(wrong, fmt.Sprintf("%d faults were intended, the report has %d: want at most one", faults, len(phase.Faults)))
	}
	if !slices.Equal(owed, undone) || len(phase.Owed)+len(r.Outstanding) > 0 {
		wrong = append(wrong, fmt.Sprintf("to be undone %q, the report says undone %q, owed %q, outstanding %q", owed, undone, phase.Owed, r.Outstanding))
	}
	back, said := fold.BackChecked, "Everything that the drill broke was put back, and the restore checks passed."
	if len(owed) == 0 {
		back, said = "", "The drill broke nothing"
	}
	if phase.Back != back || !strings.Contains(strings.Join(r.Summary, " "), said) {
		wrong = append(wrong, fmt.Sprintf("the way back is %q, want %q; the summary %q", phase.Back, back, r.Summary))
	}
	return wrong
}

// verdictFits: a fault whose outcome died with its injector cuts the drill short and
// proves nothing; any other drill runs to its end, and then only the machine may
// have spoilt the measurement, which the report says. It never FAILs: nothing is lost.
func verdictFits(history []bus.Stored, r fold.Report) (wrong []string) {
	unknown := slices.ContainsFunc(history, func(h bus.Stored) bool {
		p, ok := h.Payload.(*event.FaultFailed)
		return ok && p.Unknown
	})
	if unknown == r.Complete {
		wrong = append(wrong, fmt.Sprintf("the fault's outcome unknown: %v, the drill complete: %v (%s)", unknown, r.Complete, r.Reason))
	}
	phase := r.Phases[0]
	excuses := map[verdict.Verdict]string{verdict.Invalid: "The measurement is not valid", verdict.Inconclusive: "Recovery time: could not be decided"}
	switch {
	case unknown && (r.Verdict != verdict.Invalid || phase.Faults[0].Status != "failed" || !strings.Contains(phase.Faults[0].Reason, "was replaced")):
		wrong = append(wrong, fmt.Sprintf("verdict %s, fault %+v: want INVALID, and that its injector was replaced", r.Verdict, phase.Faults[0]))
	case r.Complete && r.Verdict != verdict.Pass && issue(r, excuses[r.Verdict]) == "":
		wrong = append(wrong, fmt.Sprintf("verdict %s: want PASS, or why the machine did not let it be measured: %+v", r.Verdict, r.Issues))
	}
	return wrong
}

// issue is the detail of the report's issue with this title; "" without one.
func issue(r fold.Report, title string) string {
	for _, i := range r.Issues {
		if i.Title == title {
			return i.Detail
		}
	}
	return ""
}

// oneReportEach looks again once all drills are over: a report that a second
// reporter, or a second try, published later would stand there by now.
func (f *fleet) oneReportEach() {
	f.t.Helper()
	for _, id := range f.drills {
		history, err := f.bus.History(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		reports := 0
		for _, h := range history {
			if h.Event.Type == event.TypeReportPublished {
				reports++
			}
		}
		if last := history[len(history)-1].Event.Type; reports != 1 || last != event.TypeReportPublished {
			f.t.Errorf("drill %s has %d reports, and ends with %s", id, reports, last)
		}
	}
	folders, err := filepath.Glob(filepath.Join(f.dir, "out", "*", "report.json"))
	if err != nil || len(folders) != len(f.drills) {
		f.t.Errorf("%d drills left the reports %q, %v", len(f.drills), folders, err)
	}
}
