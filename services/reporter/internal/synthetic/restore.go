package synthetic

import (
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// checks writes the checks after the recovery.
func (r *run) checks(lanes []verdict.Lane) {
	b, p, step := r.b, r.p, r.step("checks/recovered")
	cut := r.settled + 100*time.Millisecond
	b.Add(r.settled+10*time.Millisecond, event.TypeChecksRequested, event.ChecksRequested{Step: step})
	var found []event.LedgerFound
	for i, l := range lanes {
		if lost := p.Lost; l.Kind == "write" {
			if i > 0 {
				lost = 0
			}
			if f := held(l, cut, r.f0, lost); f.UpTo > 0 {
				found = append(found, f)
			}
		}
	}
	var cuts []event.LaneCut
	for _, l := range found {
		cuts = append(cuts, event.LaneCut{Probe: l.Probe, Lane: l.Lane, Epoch: l.Epoch, UpTo: l.UpTo})
	}
	b.Add(cut+20*time.Millisecond, event.TypeLedgerCut, event.LedgerCut{Step: step, Lanes: cuts})
	acked := int64(p.Lost)
	for _, l := range found {
		acked += l.Present.Len()
	}
	lost := event.Property{Name: "lost", Result: event.ResultPass, Found: fmt.Sprintf("%d of %d acknowledged writes are not there", p.Lost, acked), Wanted: "at most 0"}
	if p.Lost > 0 {
		lost.Result = event.ResultFail
	}
	b.Add(cut+300*time.Millisecond, event.TypeCheckCompleted, event.CheckCompleted{
		Step: step, Check: "ledger", Target: "orders", Kind: "ledger", Began: b.Reading(cut + 40*time.Millisecond), Ended: b.Reading(cut + 280*time.Millisecond), Ledgers: found,
		Properties: []event.Property{lost,
			{Name: "duplicate", Result: event.ResultPass, Found: "0 writes are there more than once", Wanted: "0"},
			{Name: "phantom", Result: event.ResultPass, Found: "0 writes are there that were never attempted", Wanted: "0"},
			{Name: "stale-reads", Result: event.ResultPass, Found: "0 reads missed a write acknowledged before they began", Wanted: "0"}}})
	rows := []event.Property{{Name: "rows unchanged", Result: event.ResultPass, Found: "2000000 rows, sum 7d1c…", Wanted: "as before the fault"}}
	if p.CheckFails {
		rows = []event.Property{{Name: "rows unchanged", Result: event.ResultFail, Found: "2 of 200 chunks differ", Wanted: "as before the fault", Samples: []string{"orders: keys 120001–130000", "orders: keys 130001–140000"}}}
	}
	b.Add(cut+800*time.Millisecond, event.TypeCheckCompleted, event.CheckCompleted{
		Step: step, Check: "rows", Target: "orders", Kind: "hashes", Began: b.Reading(cut + 300*time.Millisecond), Ended: b.Reading(cut + 790*time.Millisecond), Properties: rows})
	b.Add(cut+820*time.Millisecond, event.TypeChecksCompleted, event.ChecksCompleted{Step: step, Passed: !p.CheckFails})
}

// putBack writes the restore, the steady state after it, and its checks.
func (r *run) putBack() {
	b, p := r.b, r.p
	if p.CutOff {
		r.cutOff()
		return
	}
	r.action(r.step("restore/failback"), "failback", r.restore+10*time.Millisecond, r.restore+1600*time.Millisecond, map[string]string{"method": "pg_rewind", "rewound_bytes": "41943040"})
	r.undo(r.restore + 1700*time.Millisecond)
	b.Add(r.steady, event.TypeSteadyRequested, event.SteadyRequested{Step: r.step("steady/after")})
	if p.UndoFails {
		b.Add(r.steady+5100*time.Millisecond, event.TypeSteadyViolated, event.SteadyViolated{Step: r.step("steady/after"), Reasons: []string{"orders has no standby"}})
		return
	}
	b.Add(r.steady+5100*time.Millisecond, event.TypeSteadyEstablished, event.SteadyEstablished{Step: r.step("steady/after"), Window: event.Duration(5 * time.Second),
		Lanes: []event.LaneSummary{{Probe: "orders-write", Lane: "pooled", Scheduled: 50, OK: 50, P50: 1_150_000, P95: 1_480_000, P99: 1_500_000}}})
	r.checkRestored(r.steady + 5120*time.Millisecond)
}

// cutOff writes a failback in whose midst the drill is aborted, and its undo.
func (r *run) cutOff() {
	b, step := r.b, r.step("restore/failback")
	b.Add(r.restore, event.TypeActionIntended, event.ActionIntended{Effect: event.Effect{Step: step, Target: "orders", Operation: "failback", Epoch: 1, Undo: []byte(`{"home":"orders-a"}`)}})
	b.abort(r.restore + 400*time.Millisecond)
	b.Add(r.restore+420*time.Millisecond, event.TypeActionFailed, event.ActionFailed{Step: step, Reason: "failback on orders: copy the write-ahead log: context canceled (signal: killed)"})
	b.undone(r.restore+500*time.Millisecond, step)
	r.undo(r.restore + 1700*time.Millisecond)
	r.checkRestored(r.steady)
}

// checkRestored writes the checks after the restore, which take 190 ms.
func (r *run) checkRestored(at time.Duration) {
	if !r.p.Unchecked {
		r.b.checkRestored(at, r.step("checks/restored"))
	}
}

// checkRestored writes the restore checks, which pass.
func (b *Builder) checkRestored(at time.Duration, step string) {
	b.Add(at, event.TypeChecksRequested, event.ChecksRequested{Step: step})
	b.Add(at+180*time.Millisecond, event.TypeCheckCompleted, event.CheckCompleted{
		Step: step, Check: "replication", Target: "orders", Kind: "replication", Began: b.Reading(at + 80*time.Millisecond), Ended: b.Reading(at + 170*time.Millisecond),
		Properties: []event.Property{{Name: "standby streams", Result: event.ResultPass, Found: "orders-b, lag 0 bytes"}}})
	b.Add(at+190*time.Millisecond, event.TypeChecksCompleted, event.ChecksCompleted{Step: step, Passed: true})
}

// keep writes the copy of the evidence.
func (r *run) keep() {
	b, p, step, at := r.b, r.p, r.step("keep/wal"), r.settled+950*time.Millisecond
	if p.Keep == "" {
		return
	}
	asked := event.MirrorRequested{Step: step, From: "dir:/srv/orders-a/pg_wal", To: "dir:/evidence/" + b.drill + "/wal"}
	if p.Mirror != "" {
		asked = event.MirrorRequested{Step: step, Mirror: p.Mirror}
	}
	b.Add(at, event.TypeMirrorRequested, asked)
	switch {
	case p.Keep == KeepDone && p.Mirror != "":
		b.Add(at+80*time.Millisecond, event.TypeMirrorCompleted, event.MirrorCompleted{Step: step, Began: b.Reading(at + 5*time.Millisecond), Ended: b.Reading(at + 70*time.Millisecond),
			Files: 2, Bytes: 33_554_432, Root: "5f2d1c"})
	case p.Keep == KeepDone:
		b.Add(at+80*time.Millisecond, event.TypeMirrorCompleted, event.MirrorCompleted{Step: step, Began: b.Reading(at + 5*time.Millisecond), Ended: b.Reading(at + 70*time.Millisecond),
			Files: 12, Bytes: 201_326_592, Root: "5f2d1c", Manifest: "dir:/evidence/" + b.drill + "/wal/.manifest", Verified: "L2"})
	case p.Keep == KeepFails:
		b.Add(at+80*time.Millisecond, event.TypeMirrorFailed, event.MirrorFailed{Step: step, Reason: "write /evidence/" + b.drill + "/wal/000000010000000000000007: no space left on device"})
	}
}

func (r *run) undo(at time.Duration) {
	b, step := r.b, r.step("fault/primary")
	if r.p.UndoFails {
		for i := 1; i <= 3; i++ {
			b.Add(at+time.Duration(i)*100*time.Millisecond, event.TypeUndoIntended, event.UndoIntended{Step: step, Epoch: 1, Try: i})
			b.Add(at+time.Duration(i)*100*time.Millisecond+50*time.Millisecond, event.TypeUndoFailed, event.UndoFailed{Step: step, Try: i, Reason: "pg_ctl start on orders-a: could not bind port 5432: address in use"})
		}
		return
	}
	b.undone(at, step)
}

// undone writes an undo that succeeds and takes 700 ms.
func (b *Builder) undone(at time.Duration, step string) {
	b.Add(at, event.TypeUndoIntended, event.UndoIntended{Step: step, Epoch: 1, Try: 1})
	b.Add(at+700*time.Millisecond, event.TypeUndoDone, event.UndoDone{Step: step, Began: b.Reading(at + 5*time.Millisecond), Ended: b.Reading(at + 690*time.Millisecond), Details: map[string]string{"orders-a": "was running already: nothing to do"}})
}

// abort writes an operator's abort and the clean-up.
func (r *run) abort() {
	b, p := r.b, r.p
	b.abort(r.f0 + p.AbortAt)
	r.undo(r.restore)
	r.checkRestored(r.restore + 800*time.Millisecond)
	b.Add(r.end, event.TypePhaseFinished, event.PhaseFinished{Phase: p.Name, Complete: false, Reason: aborted})
}

func (b *Builder) abort(at time.Duration) {
	b.Add(at, event.TypeAbortRequested, event.AbortRequested{By: "ada", Cause: "operator", Reason: "customers called"})
}
