package live

import (
	"fmt"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// Describe is a line about an event for a person following the drill, or "" for
// events that only machines read. st is the drill with the event.
func Describe(st drill.State, s bus.Stored) string {
	switch p := s.Payload.(type) {
	case *event.DrillAccepted:
		return "accepted, asked by " + p.Requester
	case *event.DrillPlanned:
		return fmt.Sprintf("planned: %s on targets, blast radius %d", fold.Plural(len(p.Steps), "step"), p.BlastRadius)
	case *event.LeaseTaken:
		if p.Reason == "" {
			return ""
		}
		return fmt.Sprintf("injector %s took over: %s", p.Holder, p.Reason)
	case *event.ApprovalRequested:
		return "waiting for approval: firedrill approve " + s.Event.Subject
	case *event.ApprovalGiven:
		return "approved by " + p.By
	case *event.PhaseStarted:
		return "phase " + p.Phase
	case *event.SteadyEstablished:
		return "steady state holds (" + p.Step + ")"
	case *event.SteadyViolated:
		return "steady state does NOT hold: " + strings.Join(p.Reasons, "; ")
	case *event.BaselineRecorded:
		return "baselines recorded"
	case *event.EvidenceCollected:
		return "evidence kept of " + p.Target + ": " + p.Cause
	case *event.ExternalNoted:
		return p.From + ": " + p.Note
	case *event.AbortRequested:
		if p.Cause == drill.CauseHalt {
			return "ABORT: all drills are halted by " + p.By + ": " + strings.TrimPrefix(p.Reason, "halted: ")
		}
		return "ABORT by " + p.By + ": " + p.Reason
	case *event.PhaseFinished:
		if p.Complete {
			return "phase " + p.Phase + " finished"
		}
		return "phase " + p.Phase + " cut short"
	case *event.DrillFinished:
		if len(p.Outstanding) > 0 {
			return "finished, but STILL BROKEN: " + strings.Join(p.Outstanding, ", ")
		}
		if word := st.LetGo(); word != "" {
			return "finished: " + word
		}
		if !p.Complete {
			return "finished: everything is put back that this drill broke; it was cut short"
		}
		return "finished: everything is put back"
	case *event.ReportPublished:
		return "report published: " + p.Verdict
	}
	return describeEffect(s)
}

func describeEffect(s bus.Stored) string {
	switch p := s.Payload.(type) {
	case *event.FaultIntended:
		return fmt.Sprintf("fault %s on %s%s", p.Operation, p.Target, parts(p.Parts))
	case *event.FaultInjected:
		if !p.Proof.Proven {
			return "fault has no proof of effect: " + p.Proof.How
		}
		return "fault took effect: " + p.Proof.How
	case *event.FaultFailed:
		return "fault FAILED: " + p.Reason
	case *event.OutageStarted:
		// What it comes down to; the report has it in full.
		return fmt.Sprintf("outage on %s/%s: %s", p.Probe, p.Lane, fold.ShowCause(p.Error))
	case *event.OutageEnded:
		return fmt.Sprintf("%s/%s answers again after %s", p.Probe, p.Lane, time.Duration(p.Lasted.Mid()).Round(time.Millisecond))
	case *event.ActionIntended:
		return fmt.Sprintf("%s on %s%s", p.Operation, p.Target, parts(p.Parts))
	case *event.ActionDone:
		return p.Step + " done" + took(p.Began, p.Ended)
	case *event.ActionFailed:
		return p.Step + " FAILED: " + p.Reason
	case *event.RecoveryStable:
		return "the system is stable"
	case *event.RecoveryMissing:
		return "NO recovery within " + p.Waited.String() + ": " + strings.Join(p.Reasons, "; ")
	case *event.CheckCompleted:
		return describeCheck(p)
	case *event.MirrorCompleted:
		return fmt.Sprintf("kept %s, %s (%s verified)", fold.Plural(p.Files, "file"), fold.Plural(p.Bytes, "byte"), p.Verified)
	case *event.MirrorFailed:
		return p.Step + " FAILED: " + p.Reason
	case *event.UndoDone:
		return p.Step + " undone" + took(p.Began, p.Ended)
	case *event.UndoWaived:
		return fmt.Sprintf("%s is NOT undone, on the word of %s: %s", p.Step, p.By, p.Reason)
	case *event.UndoFailed:
		return fmt.Sprintf("undo of %s FAILED (try %d): %s", p.Step, p.Try, p.Reason)
	}
	return ""
}

// describeCheck names what was judged; what was only recorded where that is all.
func describeCheck(p *event.CheckCompleted) string {
	var judged, recorded []string
	for _, pr := range p.Properties {
		if pr.Result == event.ResultInfo {
			recorded = append(recorded, pr.Name+" ("+pr.Found+")")
		} else {
			judged = append(judged, pr.Name+" "+pr.Result+" ("+pr.Found+")")
		}
	}
	if len(judged) == 0 {
		judged = recorded
	}
	if len(judged) == 0 {
		return ""
	}
	return "check " + p.Check + ": " + strings.Join(judged, ", ")
}

func parts(ps []event.Part) string {
	if len(ps) == 0 {
		return ""
	}
	ids := make([]string, len(ps))
	for i, p := range ps {
		ids[i] = p.ID
	}
	return " (" + strings.Join(ids, ", ") + ")"
}

func took(began, ended event.Reading) string {
	if began.Clock != ended.Clock {
		return ""
	}
	return fmt.Sprintf(" in %s", time.Duration(ended.Mono-began.Mono).Round(time.Millisecond))
}
