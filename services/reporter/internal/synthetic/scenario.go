package synthetic

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// Phase is the truth of one phase, with times from its fault.
type Phase struct {
	Name, Title string
	Operation   string
	RTO         time.Duration
	// Back is when the service works again; 0 means never before the restore.
	Back time.Duration
	// Hang makes the outage a silent one.
	Hang bool
	// Flap is a second, short outage at this time after the fault; 0 for none.
	Flap time.Duration
	// Lost is how many acknowledged writes the new primary lacks.
	Lost int
	// Unproven leaves the fault without a proof of effect.
	Unproven bool
	// Late delays the observer's attempts, which makes the measurement invalid.
	Late time.Duration
	// Rough is for how long the service is down before its steady window, soon after the
	// watching began; less than half a second.
	Rough time.Duration
	// Slow is for how long after its return the service takes 40 ms to answer.
	Slow time.Duration
	// AbortAt cuts the drill short at that time after the fault; 0 does not.
	AbortAt time.Duration
	// TakeoverAt and ReclaimAt replace the injector or the observer at that time
	// after the fault; 0 does not.
	TakeoverAt, ReclaimAt time.Duration
	// Unwatched is for how long nobody watches before ReclaimAt; 0 is a short time.
	Unwatched time.Duration
	// CutOff aborts the drill while its failback is under way.
	CutOff bool
	// UndoFails lets every try to undo fail.
	UndoFails bool
	// CheckFails adds a failing property to the checks.
	CheckFails bool
	// Keep has evidence copied before the restore: KeepDone, KeepFails or
	// KeepSilent; empty keeps none.
	Keep string
	// Mirror is, with Keep, the mirror that is run instead of the copy.
	Mirror string
	// Unchecked leaves out the checks after the restore.
	Unchecked bool
}

// What becomes of the copy of the evidence.
const (
	KeepDone   = "done"
	KeepFails  = "fails"
	KeepSilent = "silent"
)

// Window is the stable window of every phase, Timeout the wait for it.
const (
	Window  = 5 * time.Second
	Timeout = 12 * time.Second
)

// aborted is why a phase that an operator aborted ended.
const aborted = "aborted by ada: customers called"

// Definition is the drill that the phases belong to.
func Definition(name, title string, phases ...Phase) drill.Drill {
	d := drill.Drill{APIVersion: drill.APIVersion, Kind: drill.Kind, Metadata: drill.Metadata{Name: name, Title: title, Labels: map[string]string{"team": "platform"}}}
	d.Spec.Description = "Loses the primary of the orders database and measures how the service comes back."
	d.Spec.Participants = []string{"Ada (incident lead)", "Grace (database)", "Linus (observer)"}
	d.Spec.Targets = []drill.Target{{Name: "orders", Driver: "postgres", Config: json.RawMessage(`{"service":{"host":"orders.internal","port":5432},"password":{"env":"ORDERS_PASSWORD"}}`)}}
	for _, p := range phases {
		none := int64(0)
		var keep []drill.Keep
		if p.Keep != "" {
			if keep = []drill.Keep{{Name: "wal", From: "dir:/srv/orders-a/pg_wal", To: "dir:/evidence/{drill}/wal"}}; p.Mirror != "" {
				keep = []drill.Keep{{Name: "wal", Mirror: p.Mirror}}
			}
		}
		d.Spec.Phases = append(d.Spec.Phases, drill.Phase{
			Name: p.Name, Title: p.Title,
			Objective: drill.Objective{RTO: event.Duration(p.RTO), RPO: &drill.RPO{Records: &none}},
			Probes: []drill.Probe{{Name: "orders-write", Target: "orders", Probe: "write"},
				{Name: "orders-read", Target: "orders", Probe: "read"}},
			SteadyState: drill.SteadyState{Window: event.Duration(5 * time.Second)},
			Faults:      []drill.Fault{{Name: "primary", Target: "orders", Fault: p.Operation}},
			Recovery: []drill.Action{{Name: "promote", Target: "orders", Action: "promote", After: event.Duration(time.Second)},
				{Name: "redirect", Target: "orders", Action: "redirect"}},
			Keep:    keep,
			Stable:  drill.Stable{Window: event.Duration(Window), Timeout: event.Duration(Timeout)},
			Checks:  []drill.Check{{Name: "ledger", Target: "orders", Check: "ledger"}, {Name: "rows", Target: "orders", Check: "hashes"}},
			Restore: drill.Restore{Actions: []drill.Action{{Name: "failback", Target: "orders", Action: "failback"}}, Checks: []drill.Check{{Name: "replication", Target: "orders", Check: "replication"}}},
		})
	}
	return d
}

// Build makes the whole history of a drill over the phases.
func Build(name, title string, phases ...Phase) *Builder {
	b := New(name + "-7")
	b.Accept(Definition(name, title, phases...), "ada")
	b.plan(phases)
	at, complete, reason := 300*time.Millisecond, true, ""
	var outstanding []string
	for _, p := range phases {
		r := &run{b: b, p: p, begin: at}
		at = r.phase() + 200*time.Millisecond
		if p.UndoFails {
			outstanding = append(outstanding, r.step("fault/primary"))
		}
		if p.AbortAt > 0 || p.CutOff {
			complete, reason = false, "aborted by ada"
			break
		}
	}
	b.Add(at, event.TypeDrillFinished, event.DrillFinished{Complete: complete, Reason: reason, Outstanding: outstanding})
	return b
}

func (b *Builder) plan(phases []Phase) {
	var steps []event.PlannedStep
	for _, p := range phases {
		part := []event.Part{{ID: "orders-a", Kind: "postgres server", Labels: map[string]string{"role": "primary"}}}
		steps = append(steps,
			event.PlannedStep{Step: p.Name + "/fault/primary", Target: "orders", Operation: p.Operation, Parts: part,
				Does: []string{"find all processes of orders-a", "send them SIGKILL"}, Undo: "start orders-a again", DeadMan: event.Duration(10 * time.Minute)},
			event.PlannedStep{Step: p.Name + "/recovery/promote", Target: "orders", Operation: "promote", Parts: []event.Part{{ID: "orders-b", Kind: "postgres server"}},
				Does: []string{"promote orders-b with pg_ctl promote"}})
	}
	b.Add(60*time.Millisecond, event.TypeDrillPlanned, event.DrillPlanned{Steps: steps, BlastRadius: 1})
}

// run is one phase being written.
type run struct {
	b     *Builder
	p     Phase
	begin time.Duration
	// f0 is the fault, settled the observer's word, back the service's return.
	f0, settled, back, restore, steady, end time.Duration
}

func (r *run) step(rest string) string { return r.p.Name + "/" + rest }

// phase writes the phase and returns its end.
func (r *run) phase() time.Duration {
	b, p := r.b, r.p
	r.f0 = r.begin + 5900*time.Millisecond
	r.plan()
	b.Add(r.begin, event.TypePhaseStarted, event.PhaseStarted{Phase: p.Name})
	b.Add(r.begin+50*time.Millisecond, event.TypeBaselineRequested, event.BaselineRequested{Step: r.step("baseline")})
	b.Add(r.begin+120*time.Millisecond, event.TypeBaselineRecorded, event.BaselineRecorded{Step: r.step("baseline")})
	b.Add(r.begin+150*time.Millisecond, event.TypeSteadyRequested, event.SteadyRequested{Step: r.step("steady/before")})
	b.Add(r.f0-100*time.Millisecond, event.TypeSteadyEstablished, event.SteadyEstablished{Step: r.step("steady/before"), Window: event.Duration(5 * time.Second),
		Lanes: []event.LaneSummary{{Probe: "orders-write", Lane: "pooled", Scheduled: 320, OK: 320, P50: 1_150_000, P95: 1_480_000, P99: 1_500_000}}})
	r.inject()
	lanes := r.observe(r.watch())
	if p.AbortAt > 0 {
		r.abort()
		return r.end
	}
	r.recover()
	r.checks(lanes)
	r.keep()
	r.putBack()
	end := event.PhaseFinished{Phase: p.Name, Complete: !p.CutOff}
	if p.CutOff {
		end.Reason = aborted
	}
	b.Add(r.end, event.TypePhaseFinished, end)
	return r.end
}

// plan sets the moments of the phase.
func (r *run) plan() {
	p := r.p
	r.back = r.f0 + p.Back
	last := r.back + p.Slow
	if p.Flap > 0 {
		last = r.f0 + p.Flap + 120*time.Millisecond
	}
	r.settled = last + Window + 600*time.Millisecond
	if p.Back == 0 {
		r.settled = r.f0 + Timeout
		r.back = r.settled + 1500*time.Millisecond
	}
	r.restore = r.settled + 1100*time.Millisecond
	if p.AbortAt > 0 {
		r.restore = r.f0 + p.AbortAt + 30*time.Millisecond
		r.back = r.restore + 900*time.Millisecond
	}
	r.steady = r.restore + 3*time.Second
	r.end = r.steady + 5500*time.Millisecond
	if p.AbortAt > 0 {
		r.end = r.restore + 1500*time.Millisecond
	}
}

func (r *run) watch() watch {
	w := watch{phase: r.p.Name, begin: r.begin + 100*time.Millisecond, end: r.end - 50*time.Millisecond, epoch: 1, late: r.p.Late, slow: down{from: r.back, to: r.back + r.p.Slow}}
	w.downs = append(w.downs, down{from: r.f0 + 4*time.Millisecond, to: r.back, hang: r.p.Hang})
	if r.p.Rough > 0 {
		w.downs = append(w.downs, down{from: r.begin + 250*time.Millisecond, to: r.begin + 250*time.Millisecond + r.p.Rough})
	}
	if r.p.Flap > 0 {
		w.downs = append(w.downs, down{from: r.f0 + r.p.Flap, to: r.f0 + r.p.Flap + 120*time.Millisecond})
	}
	if r.p.AbortAt == 0 && r.p.Back > 0 {
		w.downs = append(w.downs, down{from: r.restore + 1200*time.Millisecond, to: r.restore + 1480*time.Millisecond})
	}
	w.bursts = []down{{from: r.f0 - 3*time.Second, to: r.settled}, {from: r.restore, to: r.steady}}
	return w
}

func (r *run) inject() {
	b, p := r.b, r.p
	undo, err := json.Marshal(map[string]string{"start": "orders-a"})
	if err != nil {
		panic(fmt.Sprintf("marshal an undo record: %v", err))
	}
	parts := []event.Part{{ID: "orders-a", Kind: "postgres server", Labels: map[string]string{"role": "primary"}}}
	b.Add(r.f0-20*time.Millisecond, event.TypeFaultIntended, event.FaultIntended{
		Effect: event.Effect{Step: r.step("fault/primary"), Target: "orders", Operation: p.Operation, Epoch: 1, Parts: parts, Undo: undo}, DeadMan: event.Duration(10 * time.Minute)})
	proof := event.Proof{Proven: true, How: "none of the server's 9 processes is left", Observations: []string{"pid 4711 (postmaster): gone", "postmaster.pid names no process"}}
	if p.Unproven {
		proof = event.Proof{How: "the server's processes could not be listed"}
	}
	b.Add(r.f0+15*time.Millisecond, event.TypeFaultInjected, event.FaultInjected{Step: r.step("fault/primary"), F0: b.Reading(r.f0), F1: b.Reading(r.f0 + 6*time.Millisecond), Proof: proof})
	b.Add(r.f0+18*time.Millisecond, event.TypeOutageStarted, event.OutageStarted{Phase: p.Name, Probe: "orders-write", Lane: "pooled", At: b.Reading(r.f0 + 12*time.Millisecond), Error: "connection refused"})
	if p.TakeoverAt > 0 {
		b.Add(r.f0+p.TakeoverAt, event.TypeLeaseTaken, event.LeaseTaken{Holder: "injector-2", Epoch: 2, TTL: event.Duration(15 * time.Second), Reason: "injector-1 was silent for 15s"})
	}
}

// observe makes the lanes of the phase's observers.
func (r *run) observe(w watch) []verdict.Lane {
	b, at := r.b, r.f0+r.p.ReclaimAt
	unwatched := max(r.p.Unwatched, 80*time.Millisecond)
	if r.p.ReclaimAt == 0 {
		at = w.end + unwatched
	}
	first := w
	first.end = at - unwatched
	lanes := b.lanes(first)
	if r.p.ReclaimAt != 0 {
		b.Add(at, event.TypeObserverClaimed, event.ObserverClaimed{Instance: "observer-2", Epoch: 2})
		w.begin, w.epoch = at+50*time.Millisecond, 2
		lanes = append(lanes, b.lanes(w)...)
	}
	b.publish(lanes)
	return lanes
}

func (r *run) action(step, operation string, began, ended time.Duration, details map[string]string) {
	b := r.b
	b.Add(began-10*time.Millisecond, event.TypeActionIntended, event.ActionIntended{Effect: event.Effect{Step: step, Target: "orders", Operation: operation, Epoch: 1}})
	b.Add(ended+5*time.Millisecond, event.TypeActionDone, event.ActionDone{Step: step, Began: b.Reading(began), Ended: b.Reading(ended), Details: details})
}

func (r *run) recover() {
	b, p := r.b, r.p
	r.action(r.step("recovery/promote"), "promote", r.f0+1050*time.Millisecond, r.f0+1920*time.Millisecond, map[string]string{"server": "orders-b", "timeline": "2"})
	r.action(r.step("recovery/redirect"), "redirect", r.f0+1940*time.Millisecond, r.f0+1990*time.Millisecond, nil)
	step := r.step("settle")
	if p.Back == 0 {
		b.Add(r.settled, event.TypeRecoveryMissing, event.RecoveryMissing{Step: step, Waited: event.Duration(Timeout), Reasons: []string{"orders-write/pooled is still failing: connection refused"}})
		b.Add(r.settled+200*time.Millisecond, event.TypeEvidenceCollected, event.EvidenceCollected{Phase: p.Name, Target: "orders", Cause: "recovery.missing", Items: []event.Artifact{
			{Name: "orders-b: server log", Text: "2026-05-04 09:30:08 UTC LOG:  received promote request\n2026-05-04 09:30:08 UTC FATAL:  could not open file \"pg_wal/00000002.history\": No space left on device", Truncated: true},
			{Name: "orders-b: pg_stat_replication", Text: "(0 rows)"}}})
		return
	}
	stable := r.settled - Window - 600*time.Millisecond
	b.Add(r.back+20*time.Millisecond, event.TypeOutageEnded, event.OutageEnded{Phase: p.Name, Probe: "orders-write", Lane: "pooled", At: b.Reading(r.back + 10*time.Millisecond)})
	b.Add(r.settled, event.TypeRecoveryStable, event.RecoveryStable{Step: step, At: b.Reading(stable + 150*time.Millisecond)})
}
