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
// as each of its events is stored, and each type of those that others write. Each time
// another one ends the drill clean, and the one report tells it.
func TestInjectorKilledAtEveryBoundary(t *testing.T) {
	t.Parallel() // no clock judges what is measured, here or in any other test that says so
	afresh := func(t *testing.T, run func(f *fleet, p *lab.Postgres)) {
		p := startLab(t, lab.PostgresOptions{Synchronous: true})
		f := startFleet(t, p)
		run(f, p)
		f.oneReportEach()
	}
	// One undisturbed drill names the boundaries.
	var own, others []string
	if !t.Run("none", func(t *testing.T) {
		afresh(t, func(f *fleet, p *lab.Postgres) {
			_, history := f.drillKilledAt(p, disturbance{name: "none", change: hurriedCopy(p)})
			own, others = boundaries(history)
		})
	}) {
		return
	}
	if len(own) < 15 || len(others) < 12 {
		t.Fatalf("only %d events by the injector, %d types by others: %q, %q", len(own), len(others), own, others)
	}
	// Most of such a drill is waiting, for a lease or for a server to start: so two parts run
	// at the same time, each with servers of its own.
	beside := func(name string, run func(f *fleet, p *lab.Postgres)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			afresh(t, run)
		})
	}
	// Going back takes longer with each drill that a pair has behind it.
	const perLab = 6
	for some := range slices.Chunk(own, perLab) {
		beside("from "+some[0], func(f *fleet, p *lab.Postgres) {
			for _, at := range some {
				f.drillKilledAt(p, disturbance{name: "kill-at", change: hurried, at: []string{at}})
			}
		})
	}
	beside("others' events, and an abort", func(f *fleet, p *lab.Postgres) {
		f.killedAtAll(p, disturbance{name: "kill-often", change: hurriedCopy(p), at: others})
		const freeze = " failover/fault/freeze"
		f.killedAtAll(p, disturbance{name: "abort", change: frozen, abort: true, at: []string{
			string(event.TypeAbortRequested), string(event.TypeUndoIntended) + freeze, string(event.TypeUndoDone) + freeze,
		}})
	})
}

// hurriedCopy is hurried, and has the mirror keep the old primary's log.
func hurriedCopy(p *lab.Postgres) func(phase map[string]any) {
	return func(phase map[string]any) {
		hurried(phase)
		keepOldWAL(p)(phase)
	}
}

// frozen is hurried, and has the primary hang until somebody ends that.
func frozen(phase map[string]any) {
	hurried(phase)
	phase["faults"] = []any{map[string]any{"name": "freeze", "target": "orders", "fault": "freeze"}}
	delete(phase, "recovery")
}

// boundaries are the names of the injector's events, each with a drill of its own to
// be killed in, and those of the others' types, and of what is asked of the mirror:
// the injector can be killed at several of them in one drill. What the machine alone
// may bring about, such as a second try of an undo, need not come again.
func boundaries(history []bus.Stored) (own, others []string) {
	for _, h := range history {
		to := &own
		if h.Event.Service() != event.Injector || h.Event.Type == event.TypeMirrorRequested {
			to = &others
		}
		here := boundary(h)
		spontaneous := strings.HasSuffix(string(h.Event.Type), ".failed") || slices.Contains([]event.Type{
			event.TypeAbortRequested, event.TypeLeaseRenewed, event.TypeSteadyViolated, event.TypeRecoveryMissing, event.TypeEvidenceCollected,
		}, h.Event.Type)
		if !spontaneous && !slices.Contains(*to, here) {
			*to = append(*to, here)
		}
	}
	return own, others
}

// boundary names an event: one of the injector's by its type and its step, if it has
// one, any other by its type.
func boundary(s bus.Stored) string {
	var of struct {
		Step string `json:"step"`
	}
	if s.Event.Service() != event.Injector || json.Unmarshal(s.Event.Data, &of) != nil || of.Step == "" {
		return string(s.Event.Type)
	}
	return string(s.Event.Type) + " " + of.Step
}

// disturbance is a drill and what is done to it.
type disturbance struct {
	name   string
	change func(phase map[string]any)
	// at names the events at which the injector is killed, once at each: as soon as one
	// is stored while the injector that was started after the kill before has the lease.
	// With several, it is also killed at every failure that comes of the kills.
	at []string
	// abort has the drill aborted as soon as its fault is injected.
	abort bool
}

// killedAtAll repeats a drill, which makes some progress each time, until its injector
// was killed at each event.
func (f *fleet) killedAtAll(p *lab.Postgres, d disturbance) {
	f.t.Helper()
	for len(d.at) > 0 {
		killed, _ := f.drillKilledAt(p, d)
		d.at = slices.DeleteFunc(slices.Clone(d.at), func(at string) bool { return slices.Contains(killed, at) })
	}
}

// drillKilledAt runs a drill, and kills the injector at each of the events that it can
// be killed at, at one at least. It returns where it was killed, and the history.
func (f *fleet) drillKilledAt(p *lab.Postgres, d disturbance) (killed []string, history []bus.Stored) {
	f.t.Helper()
	publish(f.t, f.url, d.name, quickDrill(f.t, d.name, d.change))
	f.requests++
	id := newest(f.t, f.bus, d.name, uint64(f.requests))
	f.drills = append(f.drills, id)
	holders, holds := []string{f.instance()}, true
	deadly := func(s bus.Stored) bool {
		failure := len(d.at) > 1 && s.Event.Service() == event.Injector && strings.HasSuffix(string(s.Event.Type), ".failed")
		return (failure || slices.Contains(d.at, boundary(s))) && !slices.Contains(killed, boundary(s))
	}
	history = await(f.ctx, f.t, f.bus, id, func(s bus.Stored) {
		if d.abort && s.Event.Type == event.TypeFaultInjected {
			if err := f.bus.Command(f.ctx, id, "abort", []byte(`{"by":"me","reason":"seen enough"}`)); err != nil {
				f.t.Error(err)
			}
		}
		holds = holds || s.Event.Type == event.TypeLeaseTaken
		if holds && deadly(s) {
			f.kill(event.Injector)
			if len(d.at) == 1 {
				f.generation++ // of several, each has the same name, and need not wait for the lease
			}
			f.start(event.Injector, f.instance())
			killed, holders, holds = append(killed, boundary(s)), append(holders, f.instance()), false
		}
	})
	if (len(killed) > 0) != (len(d.at) > 0) {
		f.t.Fatalf("the drill that was to be disturbed at %q was disturbed at %q: it went\n%s", d.at, killed, outline(history))
	}
	wholeHistory(f.t, history, f.keyring)
	atHome(f.t, p)
	r := foldReport(f.t, history, f.keyring)
	f.t.Logf("killed at %q: %s, complete=%v, leases %+v, undos %d", killed, r.Verdict, r.Complete, r.Conduct.Leases, len(r.Phases[0].Undos))
	for _, wrong := range slices.Concat(takeoversTold(history, r, holders), undoneTold(history, r), verdictFits(history, r, d.abort)) {
		f.t.Errorf("killed at %q: %s", killed, wrong)
	}
	checkFiles(f.t, filepath.Join(f.dir, "out", id), r, f.keyring)
	if f.t.Failed() {
		f.t.Fatalf("verdict %s, %+v\n%s", r.Verdict, r.Issues, outline(history))
	}
	return killed, history
}

// takeoversTold: the report has each injector's lease, with its reason, and the phase's
// timeline shows those that changed hands in it. holders are the injectors that ran, one
// after the other: only one that was killed before it had taken the lease, or was
// started after the drill's end, has none.
func takeoversTold(history []bus.Stored, r fold.Report, holders []string) (wrong []string) {
	// during: how often a phase was open as the drill changed hands.
	during, phase, turns := 0, false, 0
	for _, h := range history {
		switch p := h.Payload.(type) {
		case *event.PhaseStarted:
			phase = true
		case *event.PhaseFinished:
			phase = false
		case *event.LeaseTaken:
			if turns++; p.Epoch > 1 && phase {
				during++
			}
		}
	}
	leases := r.Conduct.Leases
	if len(leases) != turns || turns > len(holders) || turns < max(len(holders)-1, 1) {
		return []string{fmt.Sprintf("the report has %d leases, the history %d, of the injectors %q: %+v", len(leases), turns, holders, leases)}
	}
	var told []string
	for _, i := range r.Issues {
		if i.Title == "The injector was replaced" {
			told = append(told, i.Detail)
		}
	}
	rest := holders
	for i, l := range leases {
		turn := slices.Index(rest, l.Holder)
		if turn < 0 {
			return append(wrong, fmt.Sprintf("leases %+v: want those of %q, in this order", leases, holders))
		}
		rest = rest[turn+1:]
		if i == 0 {
			continue
		}
		before, reason := leases[i-1], "the injector was restarted"
		if before.Holder != l.Holder {
			reason = before.Holder + " was silent for "
		}
		if l.Epoch != before.Epoch+1 || !strings.HasPrefix(l.Reason, reason) {
			wrong = append(wrong, fmt.Sprintf("lease %+v after %+v: want the next epoch, because %q", l, before, reason))
		}
		if want := fmt.Sprintf("%s took over (epoch %d): ", l.Holder, l.Epoch); len(told) != turns-1 || !strings.HasPrefix(told[i-1], want) {
			wrong = append(wrong, fmt.Sprintf("the issues say %q, want %d, among them %q and why", told, turns-1, want))
		}
	}
	marked := 0
	if line := r.Phases[0].Timeline; line != nil {
		for _, m := range line.Marks {
			if m.Kind == "takeover" {
				marked++
			}
		}
	}
	if marked != during {
		wrong = append(wrong, fmt.Sprintf("taken over in the phase %d times; its timeline shows %d", during, marked))
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
// proves nothing, nor does a drill that was aborted; any other one runs to its end, and
// then only the machine may have spoilt the measurement, which the report says. It never
// FAILs: nothing is lost.
func verdictFits(history []bus.Stored, r fold.Report, aborted bool) (wrong []string) {
	unknown := slices.ContainsFunc(history, func(h bus.Stored) bool {
		p, ok := h.Payload.(*event.FaultFailed)
		return ok && p.Unknown
	})
	if (unknown || aborted) == r.Complete {
		wrong = append(wrong, fmt.Sprintf("the fault's outcome unknown: %v, aborted: %v, the drill complete: %v (%s)", unknown, aborted, r.Complete, r.Reason))
	}
	phase := r.Phases[0]
	excuses := map[verdict.Verdict]string{verdict.Invalid: "The measurement is not valid", verdict.Inconclusive: "Recovery time: could not be decided"}
	switch {
	case unknown && (r.Verdict != verdict.Invalid || phase.Faults[0].Status != "failed" || !strings.Contains(phase.Faults[0].Reason, "was replaced")):
		wrong = append(wrong, fmt.Sprintf("verdict %s, fault %+v: want INVALID, and that its injector was replaced", r.Verdict, phase.Faults[0]))
	case aborted && (r.Verdict != verdict.Invalid || len(r.Conduct.Aborts) != 1 || r.Conduct.Aborts[0].By != "me"):
		wrong = append(wrong, fmt.Sprintf("verdict %s, aborts %+v: want INVALID, and the one abort", r.Verdict, r.Conduct.Aborts))
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
