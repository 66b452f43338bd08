package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/outcome"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// comparisons are what each command may have shown.
func comparisons() map[string]job.Compared {
	side := func(s plan.Side, change func(*job.Verified)) job.Verified {
		v := job.Verified{Place: "dir:/" + s.String(), Side: s, Mode: plan.Mirror, Entries: 9, Filter: []string{"- *.tmp"}, Disowning: true}
		v.Verdict = proof.Verdict{Level: proof.L4, Asked: proof.L4, Checked: 9}
		v.Verdict.At[proof.L4] = 9
		v.Read, v.Elsewhere, v.Gone, v.LeftOut.Names, v.LeftOut.Entries = 3, 1, 2, 4, 5
		change(&v)
		return v
	}
	whole := func(*job.Verified) {}
	bad := func(v *job.Verified) {
		for i, f := range []*proof.Findings{
			&v.Verdict.Missing, &v.Verdict.Extra, &v.Verdict.Different, &v.Verdict.MetadataOnly, &v.Verdict.Unchecked, &v.Verdict.Low, &v.Verdict.Kept, &v.Verdict.Waiting,
		} {
			f.Add(fmt.Sprint("key", i), "detail")
		}
		v.Unreadable.Add("key4", "a hole")
	}
	of := func(what string, change func(*job.Verified)) job.Compared {
		return job.Compared{Comparison: job.Comparison{What: what, Level: proof.L4}, Shown: []job.Verified{side(plan.Source, whole), side(plan.Dest, change)}}
	}
	audited := of(drill.MirrorAudit, func(v *job.Verified) { v.Verdict.Different.Count = 3 })
	audited.Audited = &job.Audited{Sides: [2]job.Verified{audited.Shown[0], audited.Shown[1]}, Contents: 9, Checked: 5, Rotten: []job.Rot{
		{Key: "mended", Side: plan.Dest, Detail: "has another hash", Repaired: true}, {Key: "lost", Side: plan.Dest, Lost: true},
		{Key: "kept", Side: plan.Source, Err: job.ErrSourceKept},
	}}
	audited.Audited.Apart.Add("apart", "who knows")
	return map[string]job.Compared{
		"verified": of(drill.MirrorVerify, whole), "not verified": of(drill.MirrorVerify, bad), "drift": of(drill.MirrorDrift, bad), "audited": audited,
		"attributes": of(drill.MirrorDrift, func(v *job.Verified) { v.Verdict.MetadataOnly.Add("m", "has the mode 0600, not 0644") }),
		"nothing":    of(drill.MirrorVerify, func(v *job.Verified) { v.Result.Verdict = proof.Verdict{Asked: proof.L4} }),
	}
}

// TestAComparisonOfTheFleetIsPrintedAsALoneOne, and ends with the same code.
func TestAComparisonOfTheFleetIsPrintedAsALoneOne(t *testing.T) {
	for name, c := range comparisons() {
		lone, here := watching(t.TempDir(), "", 0)
		want := lone.p.compared(c, nil)
		o := outcome.Of(c, proof.Root{}, time.Second, 20)
		raw, err := json.Marshal(fleet.Event{Outcome: &o})
		var e fleet.Event
		if err = errors.Join(err, json.Unmarshal(raw, &e)); err != nil {
			t.Fatal(err)
		}
		asked, there := watching(t.TempDir(), "", 0)
		got := asked.p.fleetEnd("out", fleet.KindFinished, e)
		if there.String() != here.String() || exitCode(got) != exitCode(want) {
			t.Errorf("%s: a comparison of the fleet says (%d)\n%sa lone one (%d)\n%s", name, exitCode(got), there, exitCode(want), here)
		}
		if good := name == "verified"; good != (want == nil) || !strings.Contains(here.String(), "dir:/destination: ") {
			t.Errorf("%s: %v\n%s", name, want, here)
		}
	}
}

// exitCode is codeOf, also where there is no error.
func exitCode(err error) int {
	if err == nil {
		return run.OK
	}
	return codeOf(err)
}

// TestWhatKeepsARunOfTheFleetHasTheCodeOfALoneOne.
func TestWhatKeepsARunOfTheFleetHasTheCodeOfALoneOne(t *testing.T) {
	for fault, want := range map[job.Fault]int{job.FaultFailed: run.Crash, job.FaultRefused: run.Fail, job.FaultDescription: run.BadArguments} {
		w, _ := watching(t.TempDir(), "", 0)
		err := w.p.fleetEnd("out", fleet.KindFailed, fleet.Event{Reason: "why", Fault: fault})
		if codeOf(err) != want || err.Error() != "why" {
			t.Errorf("%q: exit code %d: %v", fault, codeOf(err), err)
		}
	}
}

func TestTheStatesOfAMirror(t *testing.T) {
	ended := runlog.Run{Ended: time.Now()}
	with := func(change func(*runlog.Run)) *runlog.Run {
		r := ended
		change(&r)
		return &r
	}
	good, now := with(func(r *runlog.Run) { r.Whole = true }), time.Now()
	ago := func(d time.Duration) *time.Time {
		at := now.Add(-d)
		return &at
	}
	began := func(d time.Duration) *runlog.Run {
		return with(func(r *runlog.Run) { r.Whole, r.Began = true, *ago(d) })
	}
	found := func(level string) *runlog.Check {
		return &runlog.Check{Differs: true, Level: level, Ended: *ago(time.Hour)}
	}
	drifted := mirrorStatus{Last: good, Check: found("L1")}
	var hourly drill.Mirror
	hourly.Every = event.Duration(time.Hour)
	verified := drill.Mirror{Verify: &drill.MirrorVerification{Daily: "04:00"}}
	thoroughly := drill.Mirror{Verify: &drill.MirrorVerification{Daily: "04:00", Level: "L2"}}
	for name, c := range map[string]struct {
		st    mirrorStatus
		m     drill.Mirror
		state string
		well  bool
	}{
		"waits":                  {st: mirrorStatus{Running: &runningJSON{Waits: "another one"}, Last: good, Success: good}, state: "waiting", well: true},
		"waits behind a failure": {st: mirrorStatus{Running: &runningJSON{Waits: "another one"}, Last: with(func(r *runlog.Run) { r.Failed = true })}, state: "failed"},
		"waits, and has drifted": {st: mirrorStatus{Running: &runningJSON{Waits: "another one"}, Last: good, Check: found("L1")}, state: "drift"},
		"waits for the first":    {st: mirrorStatus{Running: &runningJSON{Waits: "another one"}}, state: "waiting"},
		"its process is gone":    {st: mirrorStatus{Running: &runningJSON{Silent: ago(0)}, Last: good, Success: good}, state: "interrupted"},
		"gone while it waited":   {st: mirrorStatus{Running: &runningJSON{Silent: ago(0), Waits: "another one"}, Last: good, Success: good}, state: "interrupted"},
		"stands still":           {st: mirrorStatus{Running: &runningJSON{Progress: &fleet.Progress{StillSeconds: 900}}, Last: &runlog.Run{}, Success: good}, state: "stalled"},
		"runs":                   {st: mirrorStatus{Running: &runningJSON{Progress: &fleet.Progress{}}, Last: &runlog.Run{}, Success: good}, state: "running", well: true},
		"runs first":             {st: mirrorStatus{Running: &runningJSON{Progress: &fleet.Progress{}}, Last: &runlog.Run{}}, state: "running"},
		"runs behind a failure":  {st: mirrorStatus{Running: &runningJSON{}, Last: &runlog.Run{}, Success: good, Failure: with(func(r *runlog.Run) { r.Ended = now.Add(time.Hour) })}, state: "running"},
		"new":                    {state: "never"},
		"killed":                 {st: mirrorStatus{Last: &runlog.Run{}, Success: good}, state: "interrupted"},
		"fine":                   {st: mirrorStatus{Last: good}, state: "ok", well: true},
		"called off":             {st: mirrorStatus{Last: with(func(r *runlog.Run) { r.Cancelled, r.Failed = true, true })}, state: "cancelled"},
		"failed":                 {st: mirrorStatus{Last: with(func(r *runlog.Run) { r.Failed = true })}, state: "failed"},
		"not all done":           {st: mirrorStatus{Last: &ended}, state: "undone"},
		"drifted":                {st: drifted, state: "drift"},
		"drifted and failed":     {st: mirrorStatus{Last: &ended, Check: found("L1")}, state: "undone"},
		"drifted and runs":       {st: mirrorStatus{Last: good, Check: found("L1"), Running: &runningJSON{}}, state: "running"},
		"run since":              {st: mirrorStatus{Last: began(0), Success: began(0), Check: found("L1")}, state: "drift"},
		"listed and run since":   {st: mirrorStatus{Last: began(0), Success: began(0), Listed: ago(0), Check: found("L1")}, state: "ok", well: true},
		"rotten":                 {st: mirrorStatus{Last: began(0), Success: began(0), Listed: ago(0), Check: found("L4")}, state: "drift"},
		"repaired":               {st: mirrorStatus{Last: good, Check: &runlog.Check{Differs: true, Good: true, Level: "L4"}}, state: "ok", well: true},
		"not all proven yet":     {st: mirrorStatus{Last: good, Check: &runlog.Check{Level: "L3"}}, state: "ok", well: true},
		"not to be verified":     {st: mirrorStatus{Last: good, Unchecked: "verify failed"}, state: "ok"},
		"in time":                {st: mirrorStatus{Last: began(2 * time.Hour), Success: began(2 * time.Hour)}, m: hourly, state: "ok", well: true},
		"late":                   {st: mirrorStatus{Last: began(3 * time.Hour), Success: began(3 * time.Hour)}, m: hourly, state: "overdue"},
		"good, by a clock ahead": {st: mirrorStatus{Last: began(-999 * time.Hour), Success: began(-999 * time.Hour)}, m: hourly, state: "overdue"},
		"by one a little ahead":  {st: mirrorStatus{Last: began(-time.Minute), Success: began(-time.Minute)}, m: hourly, state: "ok", well: true},
		"verified, clock ahead":  {st: mirrorStatus{Last: good, Check: &runlog.Check{Good: true, Level: "L1", Ended: *ago(-999 * time.Hour)}}, m: verified, state: "overdue"},
		"late and runs":          {st: mirrorStatus{Last: &runlog.Run{}, Success: began(3 * time.Hour), Running: &runningJSON{}}, m: hourly, state: "running", well: true},
		"late and waits":         {st: mirrorStatus{Last: began(3 * time.Hour), Success: began(3 * time.Hour), Running: &runningJSON{Waits: "another one"}}, m: hourly, state: "overdue"},
		"after a nightly one":    {st: mirrorStatus{Last: began(3 * time.Hour), Success: began(3 * time.Hour)}, m: drill.Mirror{Every: hourly.Every, After: []string{"nightly"}}, state: "ok", well: true},
		"after one by hand":      {st: mirrorStatus{Last: began(999 * time.Hour), Success: began(999 * time.Hour)}, m: drill.Mirror{Every: hourly.Every, After: []string{"hand"}}, state: "ok", well: true},
		"verified":               {st: mirrorStatus{Last: good, Check: &runlog.Check{Good: true, Level: "L1", Ended: *ago(30 * time.Hour)}}, m: verified, state: "ok", well: true},
		"verified long ago":      {st: mirrorStatus{Last: good, Check: &runlog.Check{Good: true, Level: "L1", Ended: *ago(60 * time.Hour)}}, m: verified, state: "overdue"},
		"never verified":         {st: mirrorStatus{Last: good, verifiable: *ago(60 * time.Hour)}, m: verified, state: "overdue"},
		"not verified yet":       {st: mirrorStatus{Last: good, verifiable: *ago(30 * time.Hour)}, m: verified, state: "ok", well: true},
		"not to be verified yet": {st: mirrorStatus{Last: good}, m: verified, state: "ok", well: true},
		"verified better":        {st: mirrorStatus{Last: good, Check: &runlog.Check{Good: true, Level: "L4", Ended: *ago(time.Hour)}}, m: thoroughly, state: "ok", well: true},
		"verified worse":         {st: mirrorStatus{Last: good, verifiable: *ago(60 * time.Hour), Check: &runlog.Check{Good: true, Level: "L1", Ended: *ago(time.Hour)}}, m: thoroughly, state: "overdue"},
		"verified worse since":   {st: mirrorStatus{Last: good, verifiable: *ago(60 * time.Hour), Check: &runlog.Check{Good: true, Level: "L1", Ended: *ago(time.Hour), Levels: map[string]time.Time{"L2": *ago(30 * time.Hour)}}}, m: thoroughly, state: "ok", well: true},
	} {
		var inv drill.Inventory
		inv.Spec.Mirrors = []drill.Mirror{{Name: "nightly", Daily: "02:30"}, {Name: "hand"}}
		c.st.judge(c.m, inv, now)
		if c.st.State != c.state || c.st.Well != c.well || c.well != (len(c.st.Problems) == 0) {
			t.Errorf("%s: %s, well %v: %q, want %s, %v", name, c.st.State, c.st.Well, c.st.Problems, c.state, c.well)
		}
	}
}

// A run that began here, which has told nothing for a moment and whose state nobody has open,
// has lost its process.
func TestARunThatLostItsProcess(t *testing.T) {
	began := time.Now()
	own := runlog.Run{By: "me", Began: began.Add(time.Second)}
	for name, c := range map[string]struct {
		quiet time.Duration
		last  func(*runlog.Run)
		want  bool
	}{
		"gone":             {4 * time.Second, func(*runlog.Run) {}, true},
		"heard of":         {2 * time.Second, func(*runlog.Run) {}, false},
		"ended":            {4 * time.Second, func(r *runlog.Run) { r.Ended = began.Add(time.Minute) }, false},
		"another's":        {4 * time.Second, func(r *runlog.Run) { r.By = "schedule" }, false},
		"an earlier one's": {4 * time.Second, func(r *runlog.Run) { r.Began = began.Add(-time.Second) }, false},
	} {
		last := own
		c.last(&last)
		r := &runningJSON{Since: began, By: "me", quiet: c.quiet}
		if got := r.left(&last); got != c.want || r.left(nil) {
			t.Errorf("%s: %v, of nothing %v", name, got, r.left(nil))
		}
	}
}

// TestTheFleetComparesAMirror: what is asked for is done there, under way it is shown by
// status, and what was found is in its list.
func TestTheFleetComparesAMirror(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	src, dst := filepath.Join(data, "src"), filepath.Join(data, "dst")
	enginetest.Must(t, os.Mkdir(src, 0o755))
	enginetest.Must(t, os.WriteFile(filepath.Join(src, "a"), []byte("text"), 0o644))
	inventory := write(t, "inventory.yaml", fmt.Sprintf(`apiVersion: firedrill/v1
kind: Inventory
spec:
  mirrors:
    - {name: out, from: %q, to: %q, daily: "03:00", zone: Europe/Berlin, check: listing, verify: {level: L4, daily: "04:00"}}
    - {name: again, from: %[2]q, to: %[3]q, every: 1s}
    - {name: slow, from: %[1]q, to: %[3]q, bytesPerSecond: 1, stalled: 1s}
`, "dir:"+src, "dir:"+dst, "dir:"+filepath.Join(data, "third")))
	up := start(t, dir, "--log-level", "info", "up", "--listen", "127.0.0.1:0", "--http", "", "--inventory", inventory, "--out", filepath.Join(dir, "out"))
	up.says("firedrill is up")
	told(t, mirrored(t, dir, run.Fail, "verify", "--fleet", "out"), "run it first")
	told(t, mirrored(t, dir, run.Fail, "status", "--inventory", inventory), "  never  ", "  FAILED  ")
	mirrored(t, dir, run.OK, "sync", "--fleet", "out")
	up.says("a mirror's run ended well")
	told(t, mirrored(t, dir, run.OK, "verify", "--fleet", "--level", "L4", "out"), "dir:"+src+": verified (L4): 1 checked", "dir:"+dst+": verified (L4): 1 checked")
	told(t, mirrored(t, dir, run.OK, "audit", "--fleet", "out"), "both sides: 1 of 1 contents read on both and equal")
	enginetest.Must(t, os.Chmod(filepath.Join(dst, "a"), 0o600))
	told(t, mirrored(t, dir, run.OK, "verify", "--fleet", "out"), `metadata   "a": has the mode 0600, not 0644`)
	told(t, mirrored(t, dir, run.Fail, "drift", "--fleet", "out"), `metadata   "a": has the mode 0600, not 0644`)
	told(t, mirrored(t, dir, run.Fail, "drift", "--inventory", inventory, "out"), `metadata   "a": has the mode 0600, not 0644`)
	enginetest.Must(t, os.WriteFile(filepath.Join(dst, "a"), []byte("others'"), 0o644))
	told(t, mirrored(t, dir, run.Fail, "verify", "--fleet", "--json", "out"), `"differs": true`, `"good": false`, `"key": "a"`)
	up.says("a mirror is not what its last run left")
	told(t, mirrored(t, dir, run.Fail, "status", "--inventory", inventory, "out"), "  not well      the last check has found drift", "next run", "(daily at 03:00 Europe/Berlin)", "next verify", "(daily at 04:00 UTC)", "verify at L1: not all is as it should be", "1 different")
	told(t, mirrored(t, dir, run.Fail, "status", "--inventory", inventory), "verify L1: DRIFT")

	// One that waits shows since when it is due, however often that comes meanwhile.
	enginetest.Must(t, os.WriteFile(filepath.Join(src, "heavy"), make([]byte, 4<<20), 0o644)) // which takes for ever at a byte a second
	slow := start(t, dir, "mirror", "sync", "--fleet", "slow")
	slow.says("slow stands still")
	told(t, mirrored(t, dir, run.Fail, "status", "--inventory", inventory, "slow"), "  stalled       since ", "no progress for ")
	until := time.Now().Add(time.Minute)
	for text := ""; !strings.Contains(text, "  waiting       since "); {
		_, text, _ = invoke(t, "", "mirror", "--state-dir", dir, "status", "--inventory", inventory, "again")
		if time.Now().After(until) {
			t.Fatalf("it never waits:\n%s", text)
		}
	}
	_, text, _ := invoke(t, "", "mirror", "--state-dir", dir, "status", "--inventory", inventory, "again")
	told(t, text, "one has a location in common with it", "next run      as soon as it has its turn, due since 2")
	told(t, mirrored(t, dir, run.OK, "cancel", "slow"), "mirror slow: cancelled")
	told(t, mirrored(t, dir, run.Fail, "status", "--inventory", inventory, "slow"), fmt.Sprintf("called off by %q; the next run goes on from there", requester()))
	told(t, mirrored(t, dir, run.Fail, "status", "--inventory", inventory), fmt.Sprintf("  the run was called off by %q\n", requester()))
	if code := slow.ends(); code != run.Fail {
		t.Errorf("the one that watched it: exit code %d", code)
	}
}

// TestALoneRunThatStandsStillSaysSo: once, in one line.
func TestALoneRunThatStandsStillSaysSo(t *testing.T) {
	t.Parallel() // it waits for most of its time
	dir, data := t.TempDir(), t.TempDir()
	enginetest.Must(t, os.Mkdir(filepath.Join(data, "src"), 0o755))
	enginetest.Must(t, os.WriteFile(filepath.Join(data, "src", "a"), make([]byte, 4<<20), 0o644))
	inventory := func(more string) string {
		return write(t, "inventory.yaml", fmt.Sprintf("apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  mirrors:\n    - {name: out, from: %q, to: %q%s}\n", "dir:"+data+"/src", "dir:"+data+"/dst", more))
	}
	slow := inventory(", bytesPerSecond: 1, stalled: 1s")
	stands := func(args ...string) {
		t.Helper()
		p := start(t, dir, append([]string{"mirror", "--inventory", slow, "--log-level", "info"}, args...)...)
		p.says("firedrill: warning: out stands still: no progress for ")
		p.says(`msg="a mirror stands still" mirror=out`)
		enginetest.Must(t, p.cmd.Process.Signal(syscall.SIGINT))
		if code := p.ends(); code != run.Interrupted || strings.Count(p.words(), "firedrill: warning:") != 1 {
			t.Errorf("%q: exit code %d:\n%s", args, code, p.words())
		}
	}
	stands("sync", "out")
	mirrored(t, dir, run.OK, "sync", "--inventory", inventory(""), "out")
	stands("verify", "--level", "L4", "out")
	stands("audit", "out")
}
