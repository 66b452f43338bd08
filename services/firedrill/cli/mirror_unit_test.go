package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

func TestBandwidth(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1500": 1500, "10M": 10_000_000, "10Mi": 10 << 20, "1.5K": 1500, "2Gi": 2 << 30, "1T": 1e12, "500Ki": 500 << 10,
	} {
		var b bandwidth
		if err := b.Set(text); err != nil || int64(b) != want {
			t.Errorf("%q is %d, %v, want %d", text, b, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "10MB", "10Q", "10iM", "10MM", "NaN", "Inf", "1e40", "0.1", "10 M", "99999999T"} {
		var b bandwidth
		if err := b.Set(text); err == nil || !strings.Contains(err.Error(), "10M (10,000,000) or 10Mi (10,485,760)") {
			t.Errorf("%q is %d, %v", text, b, err)
		}
	}
}

// What the user chose wins.
func TestTheCollectorIsTunedUnlessTheUserDid(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	defer func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) }()
	for _, c := range []struct {
		gogc, limit string
		percent     int
		most        int64
	}{
		{"", "", mirrorGarbage, mirrorMemory},
		{"150", "", 100, mirrorMemory},
		{"", "1GiB", mirrorGarbage, math.MaxInt64},
		{"off", "off", 100, math.MaxInt64},
	} {
		t.Setenv("GOGC", c.gogc)
		t.Setenv("GOMEMLIMIT", c.limit)
		tuneCollector()
		if percent, most := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64); percent != c.percent || most != c.most {
			t.Errorf("GOGC=%s GOMEMLIMIT=%s: %d %%, %d bytes", c.gogc, c.limit, percent, most)
		}
	}
}

func TestNextRun(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	hourly, nightly := drill.Cadence{Every: event.Duration(time.Hour)}, drill.Cadence{Daily: "02:30"}
	for _, c := range []struct {
		m               drill.Cadence
		last, now, want string
	}{
		{hourly, "2026-01-01T10:00:00Z", "2026-01-01T10:20:00Z", "2026-01-01T11:00:00Z"},
		{hourly, "2026-01-01T10:00:00Z", "2026-01-01T12:20:00Z", "2026-01-01T13:00:00Z"},
		{nightly, "2026-01-01T02:30:00Z", "2026-01-01T02:29:59Z", "2026-01-01T02:30:00Z"},
		{nightly, "2026-01-01T02:30:00Z", "2026-01-01T03:30:00+01:00", "2026-01-02T02:30:00Z"},
	} {
		if got := nextTime(c.m, at(c.last), at(c.now)); !got.Equal(at(c.want)) {
			t.Errorf("%+v at %s: %s, want %s", c.m, c.now, got, c.want)
		}
	}
}

func TestTheProgressLine(t *testing.T) {
	began := time.Unix(1000, 0)
	var errs bytes.Buffer
	a := &app{Streams: Streams{Err: &errs}}
	p := a.mirrorPrinter(&mirrorOptions{})
	p.began = began
	shows := func(second int, want string) {
		t.Helper()
		if got := p.line(began.Add(time.Duration(second) * time.Second)); got != want {
			t.Errorf("after %d s it shows\n%s, want\n%s", second, got, want)
		}
	}
	shows(3, "looking, 3s")
	g := engine.Progress{Began: began, Seen: 7, Actions: 1, Bytes: 100 << 20}
	p.progress(g)
	shows(4, "still looking: 7 seen, 4s; done so far: 0 of 1, 0 B of 100.0 MiB, 0 B/s")
	g.Planned = true
	p.progress(g)
	// Nothing more is told until the large file is done: what is read shows.
	p.read(25 << 20)
	shows(5, "[######------------------] 0 of 1, 25.0 MiB of 100.0 MiB, 25.0 MiB/s, 15s left")
	p.read(25 << 20)
	shows(10, "[############------------] 0 of 1, 50.0 MiB of 100.0 MiB, 20.0 MiB/s, 10s left")
	p.seen(plan.Dest, entry.Entry{})
	shows(11, "1 looked at, now in the destination, 11s")
	p.say("a line")
	p.stop()
	if got := errs.String(); got != "a line\n" {
		t.Errorf("without a terminal it wrote %q", got)
	}
}

// What one side has shown is not lost because the other could not be looked at.
func TestWhatTheFirstSideShowedIsPrintedWithTheError(t *testing.T) {
	first := job.Verified{Place: "dir:/src"}
	first.Verdict.Missing = proof.Findings{Count: 1, First: []proof.Finding{{Key: "gone"}}}
	broken := failure(errors.New("the second side is away"))
	for _, asJSON := range []bool{true, false} {
		var out, errs bytes.Buffer
		a := &app{Streams: Streams{Out: &out, Err: &errs}}
		err := a.mirrorPrinter(&mirrorOptions{json: asJSON}).verified([]job.Verified{first}, false, broken)
		if code := codeOf(err); err == nil || code != run.Crash {
			t.Errorf("JSON %v: exit code %d", asJSON, code)
		}
		if !asJSON {
			if !strings.Contains(out.String(), `missing    "gone"`) || !errors.Is(err, broken) {
				t.Errorf("%v, printed\n%s", err, &out)
			}
			continue
		}
		var got struct {
			Error    string
			ExitCode int
			Sides    []struct {
				Place   string
				Missing struct{ Count int }
			}
		}
		d := json.NewDecoder(&out)
		if err := d.Decode(&got); err != nil || d.More() {
			t.Fatalf("%v, and more: %v", err, d.More())
		}
		if got.Error != "the second side is away" || got.ExitCode != run.Crash || len(got.Sides) != 1 ||
			got.Sides[0].Place != "dir:/src" || got.Sides[0].Missing.Count != 1 {
			t.Errorf("printed %+v", got)
		}
		if coded, ok := errors.AsType[*exitError](err); !ok || coded.err != nil {
			t.Errorf("the error would be printed twice: %v", err)
		}
	}
}

// A run that was cut off did not find that there was nothing to do.
func TestARunThatWasCutOffSaysSo(t *testing.T) {
	began := time.Unix(1000, 0)
	undone := engine.Report{Began: began, Ended: began.Add(3 * time.Second), Done: map[plan.Op]int64{plan.Equal: 0}}
	equal := undone
	equal.Seen = [2]int64{3, 3}
	some := undone
	some.Done, some.Seen = map[plan.Op]int64{plan.Delete: 2}, [2]int64{3, 3}
	stop := &exitError{code: run.Interrupted, err: errors.New("interrupted: what was copied stays")}
	for _, c := range []struct {
		r    engine.Report
		dry  bool
		err  error
		want string
	}{
		{undone, false, stop, "a -> b: interrupted after 3s: nothing was done yet\n"},
		{undone, true, stop, "a -> b: interrupted after 3s: nothing was done yet\n"},
		{some, false, stop, "a -> b: interrupted after 3s: 2 deleted\n"},
		{some, true, stop, "a -> b: interrupted after 3s: would have: 2 deleted\n"},
		{some, false, failure(errors.New("no space")), "a -> b: stopped after 3s: 2 deleted\n"},
		{undone, false, failure(errors.New("no space")), ""},
		{engine.Report{}, false, stop, ""},
		{equal, false, nil, "a -> b: nothing to do in 3s\n"},
		{undone, false, nil, "a -> b: nothing to do in 3s\n" +
			"  nothing    neither place holds anything that takes part: are they mounted, and named right, and does the filter leave something?\n"},
		{some, true, nil, "a -> b: would have: 2 deleted in 3s\n"},
	} {
		var out bytes.Buffer
		a := &app{Streams: Streams{Out: &out}}
		err := a.mirrorPrinter(&mirrorOptions{}).result(drill.Mirror{From: "a", To: "b"}, c.dry, job.Result{Report: c.r}, c.err)
		if out.String() != c.want || !errors.Is(err, c.err) {
			t.Errorf("%+v, %v: printed %q and gave %v, want %q", c.r, c.err, &out, err, c.want)
		}
	}
}

// What was repaired is not left with the word that it is not as it should be.
func TestAnAuditSaysOfEachSideWhatWasRepaired(t *testing.T) {
	var audited job.Audited
	for side, place := range []string{"dir:/src", "dir:/dst"} {
		audited.Sides[side].Place = place
		audited.Sides[side].Verdict = proof.Verdict{Level: proof.L4, Asked: proof.L4, Checked: 2}
	}
	audited.Contents, audited.Checked = 2, 2
	audited.Sides[plan.Dest].Verdict.Checked = 1
	audited.Sides[plan.Dest].Verdict.Different = proof.Findings{Count: 1, First: []proof.Finding{{Key: "a"}}}
	for repaired, want := range map[bool]string{
		true:  "dir:/dst: 1 repaired; before that NOT verified (L4): 1 checked, 1 different\n",
		false: "\ndir:/dst: NOT verified (L4): 1 checked, 1 different\n",
	} {
		audited.Rotten = []job.Rot{{Key: "a", Side: plan.Dest, Repaired: repaired}}
		var out bytes.Buffer
		a := &app{Streams: Streams{Out: &out}}
		err := a.mirrorPrinter(&mirrorOptions{}).audited(audited, nil)
		if (err == nil) != repaired || !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "dir:/src: verified (L4)") {
			t.Errorf("repaired %v: %v, printed\n%s", repaired, err, &out)
		}
	}
}

// TestFewFailuresArePrinted: one cause is often that of all, and has one line.
func TestFewFailuresArePrinted(t *testing.T) {
	var res job.Result
	for i := range 30 {
		for range 3 {
			res.Fail(fmt.Sprint(i), plan.Put, fmt.Errorf("cause %d", i))
		}
	}
	for range 5000 {
		res.Fail("x", plan.Delete, errors.New("access denied"))
	}
	var out bytes.Buffer
	(&mirrorPrinter{out: &out}).report(drill.Mirror{Name: "m"}, false, res, "")
	for _, want := range []string{"5090 FAILED", `delete "x", "x", "x", "x", "x" and 4995 more: access denied`, `put "0", "0", "0": cause 0`, "and 33 more failures"} {
		if !strings.Contains(out.String(), want) || strings.Count(out.String(), "cause ") != fewFindings-1 {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	res = job.Result{}
	for i := range 5000 {
		res.Fail(fmt.Sprintf("d/%d", i), plan.Put, fmt.Errorf("put %q: access denied", fmt.Sprintf("d/%d", i)))
	}
	out.Reset()
	(&mirrorPrinter{out: &out}).report(drill.Mirror{Name: "m"}, false, res, "")
	if want := `put "d/0", "d/1", "d/2", "d/3", "d/4" and 4995 more: access denied`; !strings.Contains(out.String(), want) || strings.Contains(out.String(), "more failures") {
		t.Errorf("%q is not in\n%s", want, &out)
	}
}

// Of attributes and names no bytes tell, nor how fast they are.
func TestTheProgressOfWhatHasNoContent(t *testing.T) {
	began := time.Now()
	for want, g := range map[string]engine.Progress{
		"[############------------] 5 of 10, 4s left":                           {Actions: 10, DoneActions: 5},
		"[########################] 5 of 10, 2.0 KiB of 2.0 KiB, 4s left":       {Actions: 10, DoneActions: 5, Bytes: 2048, DoneBytes: 2048},
		"[######------------------] 5 of 10, 512 B of 2.0 KiB, 0 B/s, 12s left": {Actions: 10, DoneActions: 5, Bytes: 2048, DoneBytes: 512},
	} {
		g.Planned, g.Began, g.At = true, began, began.Add(4*time.Second)
		if got := progressLine(g, 0, 4*time.Second); got != want {
			t.Errorf("it shows %s, want %s", got, want)
		}
	}
}

// Why something was kept is said once, with numbers that are of one thing each.
func TestWhatWasKeptIsSaidOnce(t *testing.T) {
	var out bytes.Buffer
	p := &mirrorPrinter{out: &out, kept: map[plan.Reason]int64{plan.KeepGuarded: 17, plan.KeepMissing: 2}}
	r := job.Result{}
	r.Done = map[plan.Op]int64{plan.Keep: 19, plan.Put: 1}
	r.Refusals = []plan.Refusal{
		{Guard: plan.GuardNumber, Value: "17 of the destination's 20 entries", Limit: "at most 5 (deletes.most)", Deletes: 17},
		{Guard: plan.GuardPercent, Value: "17 of the destination's 20 entries", Limit: "at most 5 (25 %, deletes.mostPercent)", Deletes: 17},
	}
	p.report(drill.Mirror{Name: "m", Mode: drill.MirrorMirror}, false, r, "")
	const want = `  kept       2: gone from the source: removed once 2 runs in a row have found it gone (dry runs do not count)
  kept       17 of the destination's 20 entries would be removed, at most 5 (deletes.most) may be
  kept       and: 17 of the destination's 20 entries would be removed, at most 5 (25 %, deletes.mostPercent) may be: look at it with --dry-run; if this is meant, allow it for one run with --may-delete 17
`
	if first, rest, _ := strings.Cut(out.String(), "\n"); !strings.Contains(first, ": 1 copied (0 B) in ") || strings.Contains(first, "kept") || !strings.HasSuffix(rest, want) {
		t.Errorf("it says\n%s", &out)
	}
}

// What a disk that is not mounted keeps is counted by itself, and what else is refused is told
// as if it were alone.
func TestWhatAMountKeepsIsSaidByItself(t *testing.T) {
	var out bytes.Buffer
	p := &mirrorPrinter{out: &out, kept: map[plan.Reason]int64{plan.KeepGuarded: 17, plan.KeepAway: 8}}
	r := job.Result{}
	r.Refusals = []plan.Refusal{
		{Guard: plan.GuardPercent, Value: "17 of the destination's 20 entries", Limit: "at most 5 (25 %, deletes.mostPercent)", Deletes: 17},
		{Guard: plan.GuardMount, Value: `another file system, or none, at "disk" in the source`, Deletes: 8},
	}
	p.reportKept(drill.Mirror{Mode: drill.MirrorMirror}, r)
	const want = `  kept       17 of the destination's 20 entries would be removed, at most 5 (25 %, deletes.mostPercent) may be: look at it with --dry-run; if this is meant, allow it for one run with --may-delete 17
  kept       8: another file system, or none, at "disk" in the source: see whether the right one is mounted; if it was unmounted, replaced or removed on purpose, run once with --accept-places
`
	if out.String() != want {
		t.Errorf("it says\n%s", &out)
	}
	out.Reset()
	p.kept = map[plan.Reason]int64{plan.KeepAway: 8}
	if p.reportKept(drill.Mirror{Mode: drill.MirrorCopy}, job.Result{}); out.String() != "  kept       8: the other side's file system that held it is not mounted there\n" {
		t.Errorf("of a copy it says\n%s", &out)
	}
}

// What a dry run finds nearly in order it prints in order, and what it holds back for that
// is bounded: also of more entries than that only what comes late is out of place.
func TestADryRunIsPrintedByPath(t *testing.T) {
	var out bytes.Buffer
	p := &mirrorPrinter{out: &out, kept: map[plan.Reason]int64{}}
	each := p.each(drill.Mirror{})
	const all, block = 2*dryAtOnce + 5000, 1000
	most := 0
	for at := 0; at < all; at += block {
		for i := range block {
			key := fmt.Sprintf("%06d", at+block-1-i)
			each(engine.Done{Action: plan.Action{Op: plan.Put, Key: key, To: plan.Dest}})
			most = max(most, len(p.dry))
		}
	}
	each(engine.Done{Action: plan.Action{Op: plan.Delete, Key: "000000", To: plan.Dest}})
	early := strings.Count(out.String(), "\n")
	p.flushDry()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if most > dryAtOnce || early != all-dryAtOnce+1 || len(lines) != all+1 {
		t.Fatalf("%d lines waited, %d were printed before the end, %d in all", most, early, len(lines))
	}
	late := slices.Index(lines, `delete     "000000" on the destination`)
	if late != all-dryAtOnce {
		t.Errorf("what came last is line %d", late)
	}
	if lines = slices.Delete(lines, late, late+1); !slices.IsSorted(lines) || lines[0] != `put        "000000" on the destination` {
		t.Errorf("not by path; the first is %s", lines[0])
	}
}
