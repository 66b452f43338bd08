package synthetic

import (
	"encoding/json"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// Variants are the scenarios of the golden files, by name.
func Variants() map[string]*Builder {
	kill := Phase{Name: "kill-sync", Title: "Kill of the primary", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond}
	freeze := Phase{Name: "freeze", Title: "Freeze of the primary", Operation: "freeze", RTO: 30 * time.Second, Back: 2600 * time.Millisecond, Hang: true, Flap: 3100 * time.Millisecond}
	with := func(p Phase, f func(*Phase)) Phase { f(&p); return p }
	return map[string]*Builder{
		"pass":         Build("orders-failover", "Failover of the orders database", kill, freeze),
		"fail":         Build("orders-async", "Failover of an asynchronous standby", with(kill, func(p *Phase) { p.Name, p.Lost, p.RTO, p.CheckFails = "kill-async", 24, 2*time.Second, true })),
		"inconclusive": Build("orders-edge", "Recovery at the edge of its objective", with(kill, func(p *Phase) { p.RTO = 2308 * time.Millisecond })),
		"invalid":      Build("orders-blind", "A fault that could not be proven", with(kill, func(p *Phase) { p.Unproven, p.Late = true, 9*time.Millisecond })),
		"aborted":      Build("orders-abort", "A drill that was aborted", with(kill, func(p *Phase) { p.AbortAt = 1400 * time.Millisecond })),
		"missing":      Build("orders-missing", "A recovery that did not come", with(kill, func(p *Phase) { p.RTO, p.Back, p.UndoFails = 10*time.Second, 0, true })),
		"unkept":       Build("orders-unkept", "A copy of the evidence that failed", with(kill, func(p *Phase) { p.Keep = KeepFails })),
		"reclaimed":    Build("orders-reclaimed", "An observer that was replaced in the outage", with(kill, func(p *Phase) { p.ReclaimAt = time.Second })),
		"slow":         Build("orders-slow", "A service that is back and slow", with(kill, func(p *Phase) { p.RTO, p.Slow = 4*time.Second, 3*time.Second })),
		"settled":      Settle("orders-missing", "A recovery that did not come", 0),
		"unsettled":    Settle("orders-missing", "A recovery that did not come", 1),
	}
}

// Settle makes the history of a drill that settles the drill <name>-7, which
// left two steps behind: the last of them cannot be undone by any try if left is
// 1, and nothing stays if it is 0.
func Settle(name, title string, left int) *Builder {
	p := Phase{Name: "kill-sync", Title: "Kill of the primary", Operation: "kill", RTO: 10 * time.Second}
	steps := []string{p.Name + "/fault/primary", p.Name + "/recovery/promote"}
	b := New(name + "-9")
	a := accepted(Definition(name, title, p), "ada", 9)
	a.Settles = name + "-7"
	for i, step := range steps {
		a.Owes = append(a.Owes, event.Effect{Step: step, Target: "orders", Operation: []string{"kill", "promote"}[i], Epoch: 1, Undo: json.RawMessage(`{"start":"orders-a"}`)})
	}
	b.Add(0, event.TypeDrillAccepted, a)
	b.Add(5*time.Millisecond, event.TypeLeaseTaken, event.LeaseTaken{Holder: "injector-1", Epoch: 1, TTL: event.Duration(15 * time.Second)})
	b.Add(20*time.Millisecond, event.TypeDrillPlanned, event.DrillPlanned{Steps: []event.PlannedStep{}, Systems: map[string]string{"orders": "postgres/7412345678901234567"}})
	undo := func(at time.Duration, step string, try int) {
		b.Add(at, event.TypeUndoIntended, event.UndoIntended{Step: step, Epoch: 1, Try: try})
	}
	done := func(at time.Duration, step string, try int) {
		undo(at, step, try)
		b.Add(at+800*time.Millisecond, event.TypeUndoDone, event.UndoDone{Step: step, Began: b.Reading(at + 5*time.Millisecond), Ended: b.Reading(at + 790*time.Millisecond), Details: map[string]string{"orders-a": "started as a standby"}})
	}
	failed := func(at time.Duration, step string, try int) {
		undo(at, step, try)
		b.Add(at+60*time.Millisecond, event.TypeUndoFailed, event.UndoFailed{Step: step, Try: try, Reason: "pg_ctl start on orders-a: could not bind port 5432: address in use"})
	}
	failed(100*time.Millisecond, steps[1], 1)
	end := event.DrillFinished{Complete: true}
	if left > 0 {
		failed(1100*time.Millisecond, steps[1], 2)
		failed(2100*time.Millisecond, steps[1], 3)
		end = event.DrillFinished{Outstanding: steps[1:]}
	} else {
		done(1100*time.Millisecond, steps[1], 2)
	}
	done(2200*time.Millisecond, steps[0], 1)
	b.Add(3400*time.Millisecond, event.TypeDrillFinished, end)
	return b
}
