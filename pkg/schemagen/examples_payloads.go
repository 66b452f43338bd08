package schemagen

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

const (
	examplePhase = "kill-primary"
	exampleFault = examplePhase + "/fault/kill"
	exampleHash  = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)

// examplePayloads has a payload for each type, all of one drill that kills a
// PostgreSQL primary. Every field of a payload is set where that makes sense.
func examplePayloads() map[event.Type]any {
	out := map[event.Type]any{}
	for _, part := range []map[event.Type]any{drillPayloads(), effectPayloads(), observerPayloads(), checkPayloads()} {
		for t, p := range part {
			out[t] = p
		}
	}
	return out
}

func seconds(s float64) event.Duration { return event.Duration(s * float64(time.Second)) }

func at(s float64) event.Reading { return exampleReading(seconds(s).D()) }

func exampleLanes() []event.LaneSummary {
	return []event.LaneSummary{
		{Probe: "writes", Lane: "pooled", Scheduled: 500, OK: 500, P50: 1_200_000, P95: 2_900_000, P99: 4_100_000},
		{Probe: "writes", Lane: "fresh", Scheduled: 25, OK: 25, P50: 5_400_000, P95: 7_800_000, P99: 9_300_000},
	}
}

func exampleParts() []event.Part {
	return []event.Part{{ID: "pg/a", Kind: "server", Labels: map[string]string{"role": "primary"}}}
}

func drillPayloads() map[event.Type]any {
	return map[event.Type]any{
		event.TypeDrillAccepted: event.DrillAccepted{
			Requester: "ci", Spec: exampleSpec(), SpecHash: exampleHash, Seed: 4_611_686_018_427_387_904,
			Request: event.RequestRef{Subject: "drill.req.ci.nightly", Sequence: 17, MsgID: "nightly-2026-03-14",
				TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		},
		event.TypeDrillPlanned: event.DrillPlanned{BlastRadius: 1, Steps: []event.PlannedStep{
			{Step: exampleFault, Target: "pg", Operation: "kill", Parts: exampleParts(), DeadMan: seconds(600),
				Does: []string{"kill -9 every process of server a"}, Undo: "start server a as a standby of b"},
			{Step: examplePhase + "/recovery/promote", Target: "pg", Operation: "promote", Parts: []event.Part{{ID: "pg/b", Kind: "server"}},
				Does: []string{"promote server b", "point the endpoint at server b"}},
		}},
		event.TypeLeaseTaken:   event.LeaseTaken{Holder: "injector-1", Epoch: 1, TTL: seconds(10)},
		event.TypeLeaseRenewed: event.LeaseRenewed{Holder: "injector-1", Epoch: 1},
		event.TypeApprovalRequested: event.ApprovalRequested{
			Reason: "the drill asks for approval before its first fault"},
		event.TypeApprovalGiven:  event.ApprovalGiven{By: "ada"},
		event.TypePhaseStarted:   event.PhaseStarted{Phase: examplePhase},
		event.TypePhaseFinished:  event.PhaseFinished{Phase: examplePhase, Complete: false, Reason: "stop condition: writes failed for 5m"},
		event.TypeAbortRequested: event.AbortRequested{By: "injector-1", Reason: "writes failed for longer than 5m", Cause: "stop-condition"},
		event.TypeDrillFinished: event.DrillFinished{Complete: false, Reason: "stop condition: writes failed for 5m",
			Outstanding: []string{exampleFault}},
		event.TypeReportPublished: event.ReportPublished{Verdict: "FAIL", Of: int32(len(event.Table()) - 1), Files: map[string]string{
			"report.html": exampleHash, "report.json": strings.Repeat("0a", 32), "report.md": strings.Repeat("1b", 32), "report.xml": strings.Repeat("2c", 32)}},
		event.TypeExternalNoted: event.ExternalNoted{From: "alertmanager", Note: "PostgresDown is firing",
			Data: json.RawMessage(`{"alertname":"PostgresDown","severity":"critical"}`)},
	}
}

func exampleSpec() json.RawMessage {
	return json.RawMessage(`{"apiVersion":"firedrill/v1","kind":"Drill","metadata":{"name":"pg-failover"},"spec":{` +
		`"phases":[{"checks":[{"check":"ledger","name":"ledger","target":"pg"}],` +
		`"faults":[{"fault":"kill","name":"kill","params":{"node":"primary"},"target":"pg"}],"name":"kill-primary",` +
		`"objective":{"rpo":{"records":0},"rto":"30s"},"probes":[{"name":"writes","probe":"write","target":"pg"}],` +
		`"recovery":[{"action":"promote","name":"promote","target":"pg"}]}],` +
		`"targets":[{"config":{"password":{"env":"PGPASSWORD"}},"driver":"postgres","name":"pg"}]}}`)
}

func effectPayloads() map[event.Type]any {
	undo := json.RawMessage(`{"node":"a","start":true}`)
	details := map[string]string{"server": "b", "timeline": "2"}
	return map[event.Type]any{
		event.TypeFaultIntended: event.FaultIntended{Hold: seconds(90), DeadMan: seconds(600), Effect: event.Effect{
			Step: exampleFault, Target: "pg", Operation: "kill", Epoch: 1, Parts: exampleParts(), Undo: undo}},
		event.TypeFaultInjected: event.FaultInjected{Step: exampleFault, F0: at(25.5), F1: at(25.512), Proof: event.Proof{
			Proven: true, How: "no process of the server is left and its port refuses connections",
			Observations: []string{"pid 4242: gone after 3 ms", "127.0.0.1:5432: connection refused after 9 ms"}}},
		event.TypeFaultFailed: event.FaultFailed{Step: exampleFault, Reason: "injector-1 died before it said whether the fault took effect", Unknown: true},
		event.TypeActionIntended: event.ActionIntended{Effect: event.Effect{
			Step: examplePhase + "/recovery/promote", Target: "pg", Operation: "promote", Epoch: 1,
			Parts: []event.Part{{ID: "pg/b", Kind: "server"}}, Undo: json.RawMessage(`{"endpoint":"a"}`)}},
		event.TypeActionDone:        event.ActionDone{Step: examplePhase + "/recovery/promote", Began: at(27), Ended: at(27.84), Details: details},
		event.TypeActionFailed:      event.ActionFailed{Step: examplePhase + "/restore/rewind", Reason: "pg_rewind: the servers diverged at timeline 1; take a base backup instead"},
		event.TypeUndoIntended:      event.UndoIntended{Step: exampleFault, Epoch: 1, Try: 1},
		event.TypeUndoDone:          event.UndoDone{Step: exampleFault, Began: at(52), Ended: at(54.25), Details: map[string]string{"started": "a"}},
		event.TypeUndoFailed:        event.UndoFailed{Step: exampleFault, Try: 1, Reason: "server a did not start within 30s: see its log"},
		event.TypeUndoWaived:        event.UndoWaived{Step: exampleFault, By: "ada", Reason: "rebuilt from last night's backup, checked by hand"},
		event.TypeSteadyRequested:   event.SteadyRequested{Step: examplePhase + "/steady/before"},
		event.TypeBaselineRequested: event.BaselineRequested{Step: examplePhase + "/baseline"},
		event.TypeChecksRequested:   event.ChecksRequested{Step: examplePhase + "/checks/recovered"},
		event.TypeMirrorRequested:   event.MirrorRequested{Step: examplePhase + "/keep/old-wal", From: "dir:/var/lib/postgresql/a/pg_wal", To: "dir:/var/lib/firedrill/kept"},
	}
}

func observerPayloads() map[event.Type]any {
	return map[event.Type]any{
		event.TypeObserverClaimed: event.ObserverClaimed{Instance: "observer-1", Epoch: 1},
		event.TypeClockCompared:   event.ClockCompared{Observer: "boot-5f1d0c2a", Other: "boot-77b0e913", Offset: -1_834_200, Error: 41_500},
		event.TypeProbeBatch: event.ProbeBatch{
			Phase: examplePhase, Probe: "writes", Target: "pg", Kind: "write", Lane: "pooled", Epoch: 1,
			Origin: at(25.48), FirstSeq: 612, ScheduledUS: []int64{0, 10_000, 10_000, 10_000, 10_000},
			LateUS: []int64{35, 41, 38, 52, 40}, TookUS: []int64{1_240, 1_310, 2_905, 250_000, 0}, Outcomes: "kkfus",
			AskedUS: []int64{12, 9, 2_104, 11, 0}, Connected: []int64{614},
			ObservedSeq: []int64{612, 613, 0, 0, 0}, DeadlineUS: 250_000,
			Errors: []event.ProbeError{{FirstSeq: 614, Count: 1, Text: "connection refused"}, {FirstSeq: 615, Count: 1, Text: "deadline exceeded after the write was sent"}},
		},
		event.TypeSteadyEstablished: event.SteadyEstablished{Step: examplePhase + "/steady/before", Window: seconds(5), Lanes: exampleLanes()},
		event.TypeSteadyViolated: event.SteadyViolated{Step: examplePhase + "/steady/before", Lanes: exampleLanes(),
			Reasons: []string{"writes/pooled: 98.2 % of the attempts succeeded, 100 % are wanted"}},
		event.TypeOutageStarted: event.OutageStarted{Phase: examplePhase, Probe: "writes", Lane: "pooled", At: at(25.504), Error: "connection refused"},
		event.TypeOutageEnded: event.OutageEnded{Phase: examplePhase, Probe: "writes", Lane: "pooled", At: at(27.861),
			Lasted: event.Interval{Lo: 2_341_000_000, Hi: 2_361_000_000}},
		event.TypeRecoveryStable: event.RecoveryStable{Step: examplePhase + "/settle", At: at(27.861)},
		event.TypeRecoveryMissing: event.RecoveryMissing{Step: examplePhase + "/settle", Waited: seconds(90),
			Reasons: []string{"writes/fresh: still failing: connection refused"}},
		event.TypeLedgerCut: event.LedgerCut{Step: examplePhase + "/checks/recovered", Lanes: []event.LaneCut{
			{Probe: "writes", Lane: "pooled", Epoch: 1, UpTo: 3_420}, {Probe: "writes", Lane: "fresh", Epoch: 1, UpTo: 171}}},
	}
}

func checkPayloads() map[event.Type]any {
	return map[event.Type]any{
		event.TypeBaselineRecorded: event.BaselineRecorded{Step: examplePhase + "/baseline",
			Checks:   map[string]json.RawMessage{"hashes": json.RawMessage(`{"lsn":"0/5000148","tables":{"accounts":"6b86b273"}}`)},
			Problems: []string{"timeline: the standby did not answer within 5s"}},
		event.TypeCheckCompleted: event.CheckCompleted{
			Step: examplePhase + "/checks/recovered", Check: "ledger", Target: "pg", Kind: "ledger", Began: at(40.5), Ended: at(40.62),
			Properties: []event.Property{
				{Name: "no acknowledged write is lost", Result: event.ResultFail, Found: "2 lost", Wanted: "0 lost", Samples: []string{"612", "613"}},
				{Name: "writes recovered whose fate was unknown", Result: event.ResultInfo, Found: "1"}},
			Ledgers: []event.LedgerFound{{Probe: "writes", Lane: "pooled", Epoch: 1, UpTo: 3_420,
				Present: event.Ranges{{1, 611}, {615, 3_420}}, Duplicates: map[string]int64{"901": 2}}},
		},
		event.TypeChecksCompleted: event.ChecksCompleted{Step: examplePhase + "/checks/recovered", Passed: false},
		event.TypeEvidenceCollected: event.EvidenceCollected{Phase: examplePhase, Target: "pg", Cause: "checks.completed: not passed",
			Items: []event.Artifact{{Name: "b/log", Text: "LOG:  selected new timeline ID: 2\n", Truncated: true}, {Name: "b/pg_stat_replication", Text: "(0 rows)"}}},
		event.TypeMirrorCompleted: event.MirrorCompleted{Step: examplePhase + "/keep/old-wal", Began: at(44), Ended: at(45.3),
			Files: 4, Bytes: 67_108_864, Root: exampleHash, Manifest: "dir:/var/lib/firedrill/kept/manifest.json", Verified: "L3"},
		event.TypeMirrorFailed: event.MirrorFailed{Step: examplePhase + "/keep/old-wal", Reason: "dir:/var/lib/firedrill/kept: no space left on device"},
	}
}
