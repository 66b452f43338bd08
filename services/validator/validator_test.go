package validator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/validator"
)

// TestLedger: each kind of damage is found, and only that.
func TestLedger(t *testing.T) {
	clean := map[string]string{"lost": "pass", "recovered-unknown": "info", "duplicate": "pass", "phantom": "pass"}
	with := func(prop, result string) map[string]string {
		out := map[string]string{}
		for k, v := range clean {
			out[k] = v
		}
		out[prop] = result
		return out
	}
	two, none := int64(2), int64(0)
	cases := map[string]struct {
		rpo     *int64
		present event.Ranges
		doubles map[int64]int64
		readErr error
		want    map[string]string
		found   map[string]string // part of what a property says
		passed  bool
	}{
		// Of the attempts kkkkkukfkk, 1-5, 7, 9 and 10 were acknowledged.
		"clean":               {rpo: &none, present: event.Ranges{{1, 5}, {7, 7}, {9, 10}}, want: clean, passed: true},
		"no objective":        {present: event.Ranges{{1, 5}, {7, 7}, {9, 10}}, want: clean, passed: true},
		"lost":                {rpo: &none, present: event.Ranges{{1, 3}, {7, 7}, {9, 10}}, want: with("lost", "fail"), found: map[string]string{"lost": "2 of 8"}},
		"lost within":         {rpo: &two, present: event.Ranges{{1, 3}, {7, 7}, {9, 10}}, want: clean, found: map[string]string{"lost": "2 of 8"}, passed: true},
		"lost, not judged":    {present: event.Ranges{{1, 3}, {7, 7}, {9, 10}}, want: with("lost", "info"), passed: true},
		"everything lost":     {rpo: &two, want: with("lost", "fail"), found: map[string]string{"lost": "8 of 8"}},
		"unknown recovered":   {rpo: &none, present: event.Ranges{{1, 10}}, want: clean, found: map[string]string{"recovered-unknown": "2 writes"}, passed: true},
		"duplicate":           {rpo: &none, present: event.Ranges{{1, 5}, {7, 7}, {9, 10}}, doubles: map[int64]int64{7: 2}, want: with("duplicate", "fail")},
		"phantom":             {rpo: &none, present: event.Ranges{{0, 5}, {7, 7}, {9, 10}}, want: clean, passed: true}, // below the phase's first: another phase's
		"read failed":         {rpo: &none, readErr: errors.New("relation is gone"), want: map[string]string{"lost": "inconclusive", "recovered-unknown": "info", "duplicate": "inconclusive", "phantom": "inconclusive", "ledger": "inconclusive"}, found: map[string]string{"ledger": "relation is gone"}},
		"malformed":           {rpo: &none, present: event.Ranges{{5, 1}}, want: map[string]string{"lost": "inconclusive", "recovered-unknown": "info", "duplicate": "inconclusive", "phantom": "inconclusive", "ledger": "inconclusive"}},
		"later than the cut":  {rpo: &none, present: event.Ranges{{1, 5}, {7, 7}, {9, 12}}, want: clean, passed: true},
		"duplicate after cut": {rpo: &none, present: event.Ranges{{1, 5}, {7, 7}, {9, 12}}, doubles: map[int64]int64{12: 3}, want: clean, passed: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ph := phase(drill.Check{Check: "ledger"})
			if c.rpo != nil {
				ph.Objective.RPO = &drill.RPO{Records: c.rpo}
			}
			p := newPlay(t, ph)
			p.attempts("w", "write", "pooled", 1, 1, "kkkkkukfkk")
			p.holds("w", "pooled", 1, c.present, c.doubles)
			p.fake.readErr = c.readErr
			p.cut(event.LaneCut{Probe: "w", Lane: "pooled", Epoch: 1, UpTo: 10})
			p.validate("v1")
			got := await[event.CheckCompleted](p, nil)
			p.same(results(got), c.want)
			for _, prop := range got.Properties {
				if !strings.Contains(prop.Found, c.found[prop.Name]) {
					t.Errorf("%s: %q, want %q in it", prop.Name, prop.Found, c.found[prop.Name])
				}
			}
			if done := await[event.ChecksCompleted](p, nil); done.Passed != c.passed {
				t.Fatalf("passed: %v", done.Passed)
			}
		})
	}
}

// A number that was skipped was never attempted.
func TestPhantom(t *testing.T) {
	p := newPlay(t, phase(drill.Check{Check: "ledger"}))
	p.attempts("w", "write", "pooled", 1, 1, "kksk")
	p.holds("w", "pooled", 1, event.Ranges{{1, 4}}, nil)
	p.cut(event.LaneCut{Probe: "w", Lane: "pooled", Epoch: 1, UpTo: 4})
	p.validate("v1")
	got := await[event.CheckCompleted](p, nil)
	if r := results(got)["phantom"]; r != event.ResultFail {
		t.Fatalf("%+v", got.Properties)
	}
}

// TestLedgerLanes: all lanes and claims count, numbers of an earlier phase do not.
func TestLedgerLanes(t *testing.T) {
	ph := phase(drill.Check{Check: "ledger"})
	none := int64(0)
	ph.Objective.RPO = &drill.RPO{Records: &none}
	p := newPlay(t, ph)
	p.attempts("w", "write", "pooled", 1, 101, "kkkk")
	p.attempts("w", "write", "fresh", 1, 1, "kk")
	p.attempts("w", "write", "pooled", 2, 1, "kkk")
	p.holds("w", "pooled", 1, event.Ranges{{1, 50}, {101, 104}}, map[int64]int64{3: 2})
	p.holds("w", "fresh", 1, event.Ranges{{1, 1}}, nil)
	p.holds("w", "pooled", 2, event.Ranges{{1, 2}}, nil)
	p.cut(
		event.LaneCut{Probe: "w", Lane: "fresh", Epoch: 1, UpTo: 2},
		event.LaneCut{Probe: "w", Lane: "pooled", Epoch: 1, UpTo: 104},
		event.LaneCut{Probe: "w", Lane: "pooled", Epoch: 2, UpTo: 3},
	)
	p.validate("v1")
	got := await[event.CheckCompleted](p, nil)
	p.same(results(got), map[string]string{"lost": "fail", "recovered-unknown": "info", "duplicate": "pass", "phantom": "pass"})
	if lost := got.Properties[0]; fmt.Sprint(lost.Samples) != "[w/fresh/1 #2 w/pooled/2 #3]" || lost.Found != "2 of 9 acknowledged writes are not there" {
		t.Fatalf("%+v", lost)
	}
	if len(got.Ledgers) != 3 || fmt.Sprint(got.Ledgers[1].Present) != "[[101 104]]" || got.Ledgers[1].Duplicates != nil {
		t.Fatalf("%+v", got.Ledgers)
	}
}

// A cut that names attempts which are not stored proves nothing.
func TestLedgerWithoutAttempts(t *testing.T) {
	for name, upTo := range map[string]int64{"some": 9, "none": 0} {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, phase(drill.Check{Check: "ledger"}))
			if name == "some" {
				p.attempts("w", "write", "pooled", 1, 1, "kkkk")
			}
			p.holds("w", "pooled", 1, event.Ranges{{1, 4}}, nil)
			p.cut(event.LaneCut{Probe: "w", Lane: "pooled", Epoch: 1, UpTo: upTo})
			p.validate("v1")
			got := await[event.CheckCompleted](p, nil)
			if r := results(got); r["lost"] != event.ResultInconclusive || r["ledger"] != event.ResultInconclusive {
				t.Fatalf("%+v", got.Properties)
			}
		})
	}
}

func TestStaleReads(t *testing.T) {
	cases := map[string]struct {
		present event.Ranges
		reads   string
		seen    []int64
		want    string
		found   string
	}{
		"fresh":            {event.Ranges{{1, 5}}, "kkkkk", []int64{1, 1, 2, 3, 4}, event.ResultPass, "0 reads"},
		"stale":            {event.Ranges{{1, 5}}, "kkkkk", []int64{0, 1, 1, 1, 4}, event.ResultFail, "2 reads"},
		"shadow of a loss": {event.Ranges{{1, 3}}, "kkkkk", []int64{0, 1, 1, 1, 3}, event.ResultInfo, "3 reads"},
		"nothing was read": {event.Ranges{{1, 5}}, "ffuff", []int64{0, 0, 0, 0, 0}, event.ResultInconclusive, "r/pooled: no read was ok"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, phase(drill.Check{Check: "ledger"}))
			p.attempts("w", "write", "pooled", 1, 1, "kkkkk")
			p.attempts("r", "read", "pooled", 1, 1, c.reads, c.seen...)
			p.holds("w", "pooled", 1, c.present, nil)
			p.cut(event.LaneCut{Probe: "w", Lane: "pooled", Epoch: 1, UpTo: 5})
			p.validate("v1")
			got := await[event.CheckCompleted](p, nil)
			i := slices.IndexFunc(got.Properties, func(p event.Property) bool { return p.Name == "stale-reads" })
			if i < 0 || got.Properties[i].Result != c.want || !strings.Contains(got.Properties[i].Found, c.found) {
				t.Fatalf("%+v", got.Properties)
			}
		})
	}
}

// TestDriverChecks: what keeps a check from being made never passes it.
func TestDriverChecks(t *testing.T) {
	type props = []event.Property
	cases := map[string]struct {
		check  func(context.Context, target.CheckSpec, json.RawMessage) ([]event.Property, error)
		kind   string
		want   string
		says   string
		passed bool
	}{
		"pass": {nil, "state", event.ResultPass, "base", true},
		"fail": {func(context.Context, target.CheckSpec, json.RawMessage) (props, error) {
			return props{{Name: "x", Result: event.ResultFail, Found: "2 timelines"}}, nil
		}, "state", event.ResultFail, "2 timelines", false},
		"error": {func(context.Context, target.CheckSpec, json.RawMessage) (props, error) {
			return nil, errors.New("no route to host")
		}, "state", event.ResultInconclusive, "no route to host", false},
		"panic": {func(context.Context, target.CheckSpec, json.RawMessage) (props, error) { panic("boom") }, "state", event.ResultInconclusive, "panicked: boom", false},
		"slow": {func(ctx context.Context, _ target.CheckSpec, _ json.RawMessage) (props, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "state", event.ResultInconclusive, "deadline", false},
		"says nothing": {func(context.Context, target.CheckSpec, json.RawMessage) (props, error) { return nil, nil }, "state", event.ResultInconclusive, "said nothing", false},
		"foreign result": {func(context.Context, target.CheckSpec, json.RawMessage) (props, error) {
			return props{{Result: "ok"}}, nil
		}, "state", event.ResultInconclusive, "unknown result", false},
		"no baseline":     {nil, "rows", event.ResultInconclusive, "no baseline", false},
		"unknown check":   {nil, "nope", event.ResultInconclusive, "no check", false},
		"huge properties": {func(context.Context, target.CheckSpec, json.RawMessage) (props, error) { return huge(), nil }, "state", event.ResultPass, "xxx", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, phase(drill.Check{Check: c.kind, Name: "it"}))
			p.fake.check = c.check
			p.cut()
			p.validate("v1")
			got := await[event.CheckCompleted](p, nil)
			if len(got.Properties) != 1 || got.Properties[0].Result != c.want || !strings.Contains(got.Properties[0].Found, c.says) {
				t.Fatalf("%+v", got.Properties)
			}
			if len(got.Properties[0].Samples) > 20 || len(got.Properties[0].Found) > 2100 {
				t.Fatal("the property was not cut to size")
			}
			if done := await[event.ChecksCompleted](p, nil); done.Passed != c.passed {
				t.Fatalf("passed: %v", done.Passed)
			}
		})
	}
}

func huge() []event.Property {
	p := event.Property{Name: "x", Result: event.ResultPass, Found: strings.Repeat("x", 1<<20)}
	for range 1000 {
		p.Samples = append(p.Samples, strings.Repeat("y", 10_000))
	}
	return []event.Property{p}
}

func TestTargetThatDoesNotOpen(t *testing.T) {
	p := newPlay(t, phase(drill.Check{Check: "ledger"}, drill.Check{Check: "state"}))
	p.fake.openErr = errors.New("the password file is missing")
	p.cut(event.LaneCut{Probe: "w", Lane: "pooled", Epoch: 1, UpTo: 1})
	p.validate("v1")
	if done := await[event.ChecksCompleted](p, nil); done.Passed {
		t.Fatal("passed")
	}
	for _, c := range all[event.CheckCompleted](p) {
		if r := c.Properties[0]; r.Result != event.ResultInconclusive || !strings.Contains(r.Found, "password file") {
			t.Fatalf("%+v", c)
		}
	}
}

// TestBaseline: only checks that need one get one, and it reaches the check.
func TestBaseline(t *testing.T) {
	step := drill.StepID("p", drill.StepBaseline, "")
	p := newPlay(t, phase(drill.Check{Check: "ledger"}, drill.Check{Check: "state"}, drill.Check{Check: "rows", Name: "good"},
		drill.Check{Check: "rows", Name: "bad"}, drill.Check{Check: "rows", Name: "torn"}, drill.Check{Check: "rows", Name: "panics"}))
	p.fake.baseline = func(_ context.Context, s target.CheckSpec) (json.RawMessage, error) {
		switch s.Name {
		case "bad":
			return nil, errors.New("table is locked")
		case "torn":
			return json.RawMessage(`{`), nil
		case "panics":
			panic("boom")
		}
		return json.RawMessage(`{"rows":7}`), nil
	}
	p.say(p.inject, event.TypeBaselineRequested, event.BaselineRequested{Step: step})
	p.validate("v1")
	got := await[event.BaselineRecorded](p, nil)
	if len(got.Checks) != 1 || string(got.Checks["good"]) != `{"rows":7}` || len(got.Problems) != 3 {
		t.Fatalf("%+v", got)
	}
	p.cut()
	await[event.ChecksCompleted](p, nil)
	for _, c := range all[event.CheckCompleted](p) {
		r := c.Properties[0]
		switch c.Check {
		case "good":
			if r.Result != event.ResultPass || !strings.Contains(r.Found, `{"rows":7}`) {
				t.Errorf("%s: %+v", c.Check, r)
			}
		case "bad":
			if r.Result != event.ResultInconclusive || !strings.Contains(r.Found, "table is locked") {
				t.Errorf("%s: %+v", c.Check, r)
			}
		}
	}
}

// TestBaselineOfNothing: the injector waits for an answer even if no check needs one.
func TestBaselineOfNothing(t *testing.T) {
	step := drill.StepID("p", drill.StepBaseline, "")
	p := newPlay(t, phase(drill.Check{Check: "ledger"}))
	p.say(p.inject, event.TypeBaselineRequested, event.BaselineRequested{Step: step})
	p.validate("v1")
	if got := await[event.BaselineRecorded](p, nil); got.Step != step || len(got.Checks)+len(got.Problems) != 0 {
		t.Fatalf("%+v", got)
	}
}

// TestDuplicateWork: two validators, and every request twice: one answer each.
func TestDuplicateWork(t *testing.T) {
	base := drill.StepID("p", drill.StepBaseline, "")
	p := newPlay(t, phase(drill.Check{Check: "rows"}, drill.Check{Check: "state"}, drill.Check{Check: "ledger"}))
	p.attempts("w", "write", "pooled", 1, 1, "kk")
	for range 3 {
		p.say(p.inject, event.TypeBaselineRequested, event.BaselineRequested{Step: base})
	}
	p.validate("v1")
	p.validate("v2")
	await[event.BaselineRecorded](p, nil)
	for range 3 {
		p.cut(event.LaneCut{Probe: "w", Lane: "pooled", Epoch: 1, UpTo: 2})
	}
	await[event.ChecksCompleted](p, nil)
	// Each answer is a compare-and-set against the history that has none, so a
	// late delivery finds the first one's answer; other work shows that time passed.
	p.fake.collect = func(context.Context) ([]event.Artifact, error) {
		return []event.Artifact{{Name: "x", Text: "x"}}, nil
	}
	p.say(p.inject, event.TypeFaultFailed, event.FaultFailed{Step: drill.StepID("p", drill.StepFault, "break"), Reason: "x"})
	await[event.EvidenceCollected](p, func(e *event.EvidenceCollected) bool { return e.Cause == "fault.failed" })
	if b, c, d := len(all[event.BaselineRecorded](p)), len(all[event.CheckCompleted](p)), len(all[event.ChecksCompleted](p)); b != 1 || c != 3 || d != 1 {
		t.Fatalf("%d baselines, %d results, %d ends", b, c, d)
	}
}

// TestRestartInMidStep: what has a result is not checked again.
func TestRestartInMidStep(t *testing.T) {
	p := newPlay(t, phase(drill.Check{Check: "state", Name: "first"}, drill.Check{Check: "state", Name: "second"}))
	blocked := make(chan struct{})
	p.fake.check = func(ctx context.Context, s target.CheckSpec, _ json.RawMessage) ([]event.Property, error) {
		if s.Name == "second" && p.fake.times("check second") == 1 {
			close(blocked)
			<-ctx.Done() // the process stops in the middle
			return nil, ctx.Err()
		}
		return []event.Property{{Name: "x", Result: event.ResultPass, Found: "fine"}}, nil
	}
	p.cut()
	stop := p.validate("v1")
	<-blocked
	stop()
	p.validate("v2")
	if done := await[event.ChecksCompleted](p, nil); !done.Passed {
		t.Fatalf("not passed: %+v", all[event.CheckCompleted](p))
	}
	if n := p.fake.times("check first"); n != 1 {
		t.Fatalf("the first check was made %d times", n)
	}
}

func TestEvidence(t *testing.T) {
	p := newPlay(t, phase(drill.Check{Check: "state"}))
	p.fake.collect = func(context.Context) ([]event.Artifact, error) {
		return []event.Artifact{
			{Name: "log", Text: strings.Repeat("é", 200_000) + "the end"},
			{Name: "state", Text: "primary"},
		}, errors.New("settings: permission denied")
	}
	p.validate("v1")
	fault := event.FaultFailed{Step: drill.StepID("p", drill.StepFault, "break"), Reason: "x"}
	p.say(p.inject, event.TypeFaultFailed, fault)
	p.say(p.inject, event.TypeFaultFailed, fault)
	got := await[event.EvidenceCollected](p, nil)
	if got.Phase != "p" || got.Target != "t" || got.Cause != "fault.failed" || len(got.Items) != 3 {
		t.Fatalf("%s of %s in %s: %d items", got.Cause, got.Target, got.Phase, len(got.Items))
	}
	log := got.Items[0]
	if !log.Truncated || len(log.Text) > 64<<10 || !strings.HasSuffix(log.Text, "the end") || !strings.HasPrefix(log.Text, "é") {
		t.Fatalf("the log has %d bytes, truncated: %v", len(log.Text), log.Truncated)
	}
	if got.Items[1].Truncated || got.Items[2].Text != "settings: permission denied" {
		t.Fatalf("%+v", got.Items[1:])
	}
	// Checks that passed call for none; the next cause gets its own.
	p.cut()
	await[event.ChecksCompleted](p, nil)
	p.say(p.watch, event.TypeRecoveryMissing, event.RecoveryMissing{Step: drill.StepID("p", drill.StepSettle, "")})
	await[event.EvidenceCollected](p, func(e *event.EvidenceCollected) bool { return e.Cause == "recovery.missing" })
	if n := len(all[event.EvidenceCollected](p)); n != 2 {
		t.Fatalf("%d pieces of evidence, want 2", n)
	}
}

// TestEvidenceFitsAnEvent: what a driver collects cannot be too large or too odd.
func TestEvidenceFitsAnEvent(t *testing.T) {
	cases := map[string]func(context.Context) ([]event.Artifact, error){
		"many":   func(context.Context) ([]event.Artifact, error) { return many(5000, "x") },
		"large":  func(context.Context) ([]event.Artifact, error) { return many(60, "x") },
		"binary": func(context.Context) ([]event.Artifact, error) { return many(20, "\x00\xff") },
		"panics": func(context.Context) ([]event.Artifact, error) { panic("boom") },
	}
	for name, collect := range cases {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, phase(drill.Check{Check: "state"}))
			p.fake.collect = collect
			p.say(p.inject, event.TypeUndoFailed, event.UndoFailed{Step: drill.StepID("p", drill.StepFault, "break"), Try: 1, Reason: "x"})
			p.validate("v1")
			if got := await[event.EvidenceCollected](p, nil); len(got.Items) == 0 {
				t.Fatal("nothing was kept")
			}
		})
	}
}

func many(n int, of string) ([]event.Artifact, error) {
	out := make([]event.Artifact, n)
	for i := range out {
		out[i] = event.Artifact{Name: fmt.Sprint("item ", i), Text: strings.Repeat(of, 100_000)}
	}
	return out, nil
}

// TestClosedHistory: after the report nothing is written any more.
func TestClosedHistory(t *testing.T) {
	p := newPlay(t, phase(drill.Check{Check: "state"}))
	p.fake.collect = func(context.Context) ([]event.Artifact, error) {
		return []event.Artifact{{Name: "x", Text: "x"}}, nil
	}
	p.cut()
	p.say(p.inject, event.TypePhaseFinished, event.PhaseFinished{Phase: "p"})
	p.say(p.inject, event.TypeFaultFailed, event.FaultFailed{Step: drill.StepID("p", drill.StepFault, "break"), Reason: "x"})
	p.say(p.inject, event.TypeDrillFinished, event.DrillFinished{})
	p.say(p.report, event.TypeReportPublished, event.ReportPublished{Verdict: "FAIL"})
	p.validate("v1")
	// Another drill's work shows that the first one's was done with.
	_, err := p.inject.Append(t.Context(), "d-2",
		event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Requester: "me", Spec: p.spec()}},
		event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "p"}},
		event.Draft{Type: event.TypeFaultFailed, Data: event.FaultFailed{Step: drill.StepID("p", drill.StepFault, "break"), Reason: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = p.inject.Follow(ctx, "d-2", func(s bus.Stored) error {
		if s.Event.Type == event.TypeEvidenceCollected {
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(all[event.EvidenceCollected](p)) + len(all[event.CheckCompleted](p)); n != 0 {
		t.Fatalf("%d events after the end", n)
	}
}

func (p *play) spec() json.RawMessage {
	return all[event.DrillAccepted](p)[0].Spec
}

// TestSay: what others write in between is read, and so is that it was said already;
// who never comes through does not try for ever.
func TestSay(t *testing.T) {
	p := newPlay(t, phase())
	c := validator.Config{Bus: p.connect(event.Validator, "v1")}
	step := drill.StepID("p", drill.StepBaseline, "")
	draft := event.Draft{Type: event.TypeBaselineRecorded, Data: event.BaselineRecorded{Step: step}}
	looks := 0
	between := func(times int) func() {
		return func() {
			if looks++; looks <= times {
				p.say(p.inject, event.TypeLeaseRenewed, event.LeaseRenewed{Epoch: 1})
			}
		}
	}
	if err := validator.Say(t.Context(), c, id, step, between(1000), draft); !errors.Is(err, bus.ErrConflict) || looks != 100 {
		t.Fatalf("%d looks, error %v", looks, err)
	}
	if n := len(all[event.BaselineRecorded](p)); n != 0 {
		t.Fatalf("it was said %d times although the say failed", n)
	}
	for range 2 {
		looks = 0
		if err := validator.Say(t.Context(), c, id, step, between(3), draft); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(all[event.BaselineRecorded](p)); n != 1 {
		t.Fatalf("it was said %d times", n)
	}
}
