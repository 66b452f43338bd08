package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// Owners that nobody but root can set are one line, where nothing else differs: JSON has
// each.
func TestOwnersThatCannotBeSetAreOneLine(t *testing.T) {
	of := func(owners int64, disowning bool) []job.Verified {
		v := job.Verified{Place: "dir:/dst", Disowning: disowning}
		v.Verdict = proof.Verdict{Level: proof.L1, Asked: proof.L1, Checked: 2, Owners: owners}
		v.Verdict.MetadataOnly.Add("a", "belongs to 1:1, not 0:0")
		v.Verdict.MetadataOnly.Add("b", "belongs to 1:1, not 0:0")
		return []job.Verified{v}
	}
	const each, one = `metadata   "a": belongs to 1:1`, "metadata   2 entries of another owner or group, and nothing else"
	for _, c := range []struct {
		of         []job.Verified
		list, json bool
		want, not  string
	}{
		{of(2, true), false, false, one, each},
		{of(2, true), true, false, one, each},
		{of(1, true), false, false, each, one},
		{of(2, false), false, false, each, one},
		{of(2, true), false, true, `"ownersOnly": 2`, one},
		{of(2, true), false, true, `"detail": "belongs to 1:1, not 0:0"`, one},
	} {
		var out bytes.Buffer
		a := &app{Streams: Streams{Out: &out}}
		err := a.mirrorPrinter(&mirrorOptions{json: c.json}).verified(c.of, c.list, nil)
		if err != nil || !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), c.not) {
			t.Errorf("%+v: %v, printed\n%s", c, err, &out)
		}
	}
}

// What was refused, or could not be shown, is no failure of firedrill, and no mistake of its
// caller.
func TestWhatIsHeldBackExitsWithOne(t *testing.T) {
	for want, errs := range map[int][]error{
		run.Fail: {
			&engine.JobError{Field: "Places", Problem: "another"}, &engine.GaveUpError{}, fmt.Errorf("mirror m: %w", job.ErrNothingKnown),
			fmt.Errorf("mirror m: %w", job.ErrTooMuch), fmt.Errorf("mirror m: %w", job.ErrUnwritable),
		},
		run.BadArguments: {&engine.JobError{Field: "Mode", Problem: "another"}, &job.SpecError{Field: "to"}},
		run.Crash:        {errors.New("no space left")},
	} {
		for _, err := range errs {
			if got := codeOf(mirrorFailure(err)); got != want {
				t.Errorf("%v: exit code %d, want %d", err, got, want)
			}
			if got := codeOf(syncExit(job.Result{}, err)); got != want {
				t.Errorf("a run with %v: exit code %d, want %d", err, got, want)
			}
		}
	}
}

// What is unchecked and unreadable is counted as that once, however many there are, and what is
// unreadable for another reason takes nothing from the count.
func TestWithoutWhatOthersTell(t *testing.T) {
	var all, other proof.Findings
	const unreadable, unknown, extra = 1500, 30, 200
	for i := range unreadable {
		all.Add(fmt.Sprint("lost", i), "")
		other.Add(fmt.Sprint("lost", i), "")
	}
	for i := range unknown {
		all.Add(fmt.Sprint("unknown", i), "")
	}
	for i := range extra {
		other.Add(fmt.Sprint("extra", i), "")
	}
	if rest := without(all, other, unreadable); rest.Count != unknown || len(rest.First) != 0 {
		t.Errorf("%d are left, of which %d are named", rest.Count, len(rest.First))
	}
}

// What cannot be read has one line, which says why, and an audit says how to mend what it found.
func TestWhatWasFoundIsToldOnceWithTheWayOut(t *testing.T) {
	v := job.Verified{Place: "dir:/dst", Side: plan.Dest, Mode: plan.Mirror}
	v.Verdict = proof.Verdict{Level: proof.LevelNone, Asked: proof.L4, Checked: 2}
	v.Verdict.Unchecked.Add("lost", "it could not be read: the disk has a hole")
	v.Verdict.Unchecked.Add("unknown", "no run has read it")
	v.Verdict.Unread = 1
	v.Unreadable.Add("lost", "the disk has a hole")
	var out bytes.Buffer
	a := &app{Streams: Streams{Out: &out}}
	p := a.mirrorPrinter(&mirrorOptions{})
	if err := p.verified([]job.Verified{v}, false, nil); codeOf(err) != run.Fail {
		t.Errorf("verified: %v", err)
	}
	text := out.String()
	if strings.Count(text, `"lost"`) != 1 || !strings.Contains(text, "2 unchecked; 1 could not be read\n") || !strings.Contains(text, `unreadable "lost": the disk has a hole`) ||
		!strings.Contains(text, `unchecked  "unknown"`) || !strings.Contains(text, "`mirror audit --repair`") {
		t.Errorf("printed\n%s", text)
	}
	for _, c := range []struct {
		rot       job.Rot
		mode      plan.Mode
		err       error
		want, not string
	}{
		{job.Rot{Side: plan.Dest}, plan.Mirror, nil, "`mirror audit --repair` replaces", "--repair-source"},
		{job.Rot{Side: plan.Source}, plan.Mirror, nil, "--repair-source", "\x00"},
		{job.Rot{Side: plan.Source}, plan.TwoWay, nil, "`mirror audit --repair` replaces", "--repair-source"},
		{job.Rot{Side: plan.Dest, Repaired: true}, plan.Mirror, nil, "rotten", "--repair"},
		{job.Rot{Side: plan.Dest, Err: errors.New("gone")}, plan.Mirror, nil, "rotten", "--repair"},
		{job.Rot{Side: plan.Dest}, plan.Mirror, failure(job.ErrTooMuch), "rotten", "--repair"},
	} {
		out.Reset()
		audited := job.Audited{Rotten: []job.Rot{c.rot}}
		audited.Sides[plan.Source] = job.Verified{Place: "dir:/src", Mode: c.mode}
		audited.Sides[plan.Dest] = job.Verified{Place: "dir:/dst", Side: plan.Dest, Mode: c.mode}
		if err := p.audited(audited, c.err); !errors.Is(err, c.err) || !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), c.not) {
			t.Errorf("%+v: %v, printed\n%s", c, err, &out)
		}
	}
}

// The JSON of a run is one object, whatever it is made of.
func TestARunIsOneObject(t *testing.T) {
	r := job.Result{Mended: [2]int64{plan.Dest: 1}, Compared: [2]int64{1, 2}}
	r.Check, r.Failed, r.NotTried, r.Refusals, r.Replaced = engine.CheckAudit, 3, 4, []plan.Refusal{{Guard: plan.GuardVersioned}}, 5
	raw, err := json.Marshal(asJSON(drill.Mirror{From: "a", To: "b"}, true, r))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"from":"a","to":"b","mode":"copy","dryRun":true,"began":"0001-01-01T00:00:00Z","seconds":0,"whole":false,"done":{},"bytes":0,` +
		`"problems":8,"failedCount":3,"notTried":4,"refusals":["two-way removes nothing while the destination keeps no versions: turn on the bucket's versioning, keep what is deleted (--keep-deleted, in the inventory keepDeleted), or remove it on both sides by hand"],` +
		`"errorsCount":0,"permissionsSet":1,"replaced":5,"compared":{"destination":2,"source":1}}`
	if string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}

// An audit that did not come to its end says of no side what it did not see, and how it ends.
func TestAnAuditThatWasCutOffSaysHowFarItCame(t *testing.T) {
	var audited job.Audited
	audited.Sides[0] = job.Verified{Place: "dir:/src"}
	var out bytes.Buffer
	a := &app{Streams: Streams{Out: &out}}
	err := a.mirrorPrinter(&mirrorOptions{json: true}).audited(audited, &exitError{code: run.Interrupted, err: errors.New("interrupted")})
	if codeOf(err) != run.Interrupted || !strings.Contains(out.String(), `"exitCode": 130`) || strings.Count(out.String(), `"place"`) != 1 {
		t.Errorf("%v, printed\n%s", err, &out)
	}
}
