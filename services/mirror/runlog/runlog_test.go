package runlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/runlog"
	"github.com/firedrill/firedrill/services/mirror/state"
)

func at(s int) time.Time { return time.Unix(int64(1000+s), 0) }

func read(t *testing.T, dir string) runlog.Log {
	t.Helper()
	l, known, err := runlog.Read(dir)
	if err != nil || !known {
		t.Fatalf("read: %v, %v", known, err)
	}
	return l
}

func TestALogKeepsTheLastRunTheLastSuccessAndTheLastFailure(t *testing.T) {
	dir := t.TempDir()
	if _, known, err := runlog.Read(dir); known || err != nil {
		t.Fatalf("before the first run: %v, %v", known, err)
	}
	m := drill.Mirror{From: "dir:/a", To: "dir:/b", Filter: []string{"- *.tmp"}}
	good := job.Result{Report: engine.Report{Done: map[plan.Op]int64{plan.Put: 2}, Bytes: map[plan.Op]int64{plan.Put: 7}}}
	good.Root.Subject = "mirror"
	var bad job.Result
	bad.Fail("x", plan.Put, errors.New("no space"))
	bad.Fail("y", plan.Put, errors.New("no space"))
	for i, run := range []struct {
		res job.Result
		err error
	}{{good, nil}, {bad, nil}, {job.Result{}, errors.New("no server")}} {
		if err := runlog.Begin(dir, m, "me", at(10*i)); err != nil {
			t.Fatal(err)
		}
		if l := read(t, dir); !l.Last.Ended.IsZero() || !l.Last.Began.Equal(at(10*i)) {
			t.Errorf("while under way: %+v", l.Last)
		}
		if err := runlog.End(dir, m, run.res, run.err, at(10*i+1)); err != nil {
			t.Fatal(err)
		}
		if l := read(t, dir); i == 1 && (l.Failure.Problems != 2 || l.Failure.Problem != `put "x", "y": no space`) {
			t.Errorf("of single failures: %+v", l.Failure)
		}
	}
	l := read(t, dir)
	if !l.Success.Whole || l.Success.Copied != 2 || l.Success.Bytes != 7 || !l.Success.Ended.Equal(at(1)) {
		t.Errorf("success: %+v", l.Success)
	}
	if l.Failure.Problem != "no server" || l.Last.Problem != "no server" || !l.Last.Ended.Equal(at(21)) {
		t.Errorf("failure: %+v, last: %+v", l.Failure, l.Last)
	}
	// What did not come to its end is not what a comparison goes by.
	other := m
	other.Filter = nil
	if err := errors.Join(runlog.Begin(dir, other, "me", at(90)), runlog.End(dir, other, job.Result{}, errors.New("no server"), at(91))); err != nil {
		t.Fatal(err)
	}
	l = read(t, dir)
	if len(l.Mirror.Filter) != 1 || l.Mirror.To != "dir:/b" {
		t.Errorf("mirror: %+v", l.Mirror)
	}
}

// What a run leaves undone always has words.
func TestEveryProblemHasWords(t *testing.T) {
	for want, r := range map[string]engine.Report{
		"changed on both sides": {Done: map[plan.Op]int64{plan.Conflict: 1}, Conflicts: []plan.Action{{Key: "k", Reason: plan.ConflictChanged}}},
		"too long":              {Done: map[plan.Op]int64{plan.Unholdable: 1}, Unholdable: []plan.Action{{Key: "k", Err: errors.New("too long")}}},
		"empty":                 {Refusals: []plan.Refusal{{Guard: plan.GuardEmpty}}},
		"no listing":            {Faults: 1, Errors: []error{errors.New("no listing")}},
		"held back":             {HeldBack: 3},
	} {
		if got := strings.Join(runlog.Problems(&r), "\n"); !strings.Contains(got, want) || runlog.Left(&r) == 0 || r.Whole() {
			t.Errorf("%s: %q, %d left", want, got, runlog.Left(&r))
		}
	}
}

// A power cut may leave a part of it, or nothing but zeros: what is whole stays, and the
// next run writes a log that can be read.
func TestADamagedLogMendsItself(t *testing.T) {
	m := drill.Mirror{From: "dir:/a", To: "dir:/b", Filter: []string{"- *.tmp"}}
	good := job.Result{Report: engine.Report{Done: map[plan.Op]int64{plan.Put: 2}}}
	good.Root.Subject = "mirror"
	whole := t.TempDir()
	if err := errors.Join(runlog.Begin(whole, m, "me", at(1)), runlog.End(whole, m, good, nil, at(2))); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(whole, "runs"))
	if err != nil {
		t.Fatal(err)
	}
	broken := map[string][]byte{"zeros": make([]byte, len(raw)), "a tail": append(slices.Clone(raw), raw...), "another kind": []byte(`{"last": 7, "mirror": {"from": "dir:/other", "to": 7}}`), "no object": []byte("[]x")}
	for n := 0; n < len(raw)-1; n += 7 {
		broken[fmt.Sprintf("cut at %d", n)] = raw[:n]
	}
	mirrorEnds, lastEnds := bytes.Index(raw, []byte(`,"last"`)), bytes.Index(raw, []byte(`,"success"`))
	for name, content := range broken {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "runs"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		l, known, err := runlog.Read(dir)
		if !errors.Is(err, state.ErrCorrupt) || strings.Contains(err.Error(), "set the mirror up again") {
			t.Errorf("%s: %v", name, err)
		}
		if strings.HasPrefix(name, "cut") {
			if len(content) >= mirrorEnds && (!known || len(l.Mirror.Filter) != 1) {
				t.Errorf("%s: the mirror is lost: %+v", name, l)
			}
			if len(content) >= lastEnds && (l.Last == nil || l.Last.Copied != 2) {
				t.Errorf("%s: the last run is lost: %+v", name, l)
			}
		}
		if err := errors.Join(runlog.Begin(dir, m, "me", at(3)), runlog.End(dir, m, good, nil, at(4))); err != nil {
			t.Errorf("%s: the next run: %v", name, err)
		}
		if l := read(t, dir); !l.Success.Ended.Equal(at(4)) || l.Mirror.From != m.From {
			t.Errorf("%s: after the next run: %+v", name, l)
		}
	}
}

// Until a run has come to look at the places, the mirror is what it was described as last:
// what was mistyped at first is not what it stays.
func TestAMirrorIsWhatItsLastRunSaysUntilOneHasBegun(t *testing.T) {
	dir := t.TempDir()
	begin := func(mode string) runlog.Log {
		t.Helper()
		m := drill.Mirror{From: "dir:/a", To: "dir:/b", Mode: mode}
		if err := errors.Join(runlog.Begin(dir, m, "me", at(1)), runlog.End(dir, m, job.Result{}, errors.New("no such directory"), at(2))); err != nil {
			t.Fatal(err)
		}
		return read(t, dir)
	}
	begin(drill.MirrorTwoWay)
	if l := begin(drill.MirrorMirror); l.Mirror.Mode != drill.MirrorMirror || runlog.Begun(dir) {
		t.Errorf("never begun: %v, mode %q", runlog.Begun(dir), l.Mirror.Mode)
	}
	if err := state.SaveIn(dir, engine.FactsName, engine.Facts{Generation: 1}); err != nil {
		t.Fatal(err)
	}
	if l := begin(drill.MirrorCopy); l.Mirror.Mode != drill.MirrorMirror || !runlog.Begun(dir) {
		t.Errorf("begun: %v, mode %q", runlog.Begun(dir), l.Mirror.Mode)
	}
}

func TestTheLastComparisonIsKeptBesideTheRuns(t *testing.T) {
	dir := t.TempDir()
	m := drill.Mirror{From: "dir:/a", To: "dir:/b"}
	bad := runlog.Check{What: "verify", Level: "L4", By: "me", Ended: at(5).UTC(), Sides: []string{"dir:/b: NOT verified"}}
	good := bad
	good.Good, good.Ended = true, at(9).UTC()
	if err := errors.Join(runlog.Begin(dir, m, "me", at(1)), runlog.Checked(dir, good), runlog.Checked(dir, bad), runlog.Begin(dir, m, "me", at(7))); err != nil {
		t.Fatal(err)
	}
	l := read(t, dir)
	for _, noted := range []string{"", "{"} {
		other := t.TempDir()
		if noted != "" {
			if err := os.WriteFile(filepath.Join(other, "runs"), []byte(noted), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := runlog.Checked(other, bad); err != nil {
			t.Errorf("beside %q: %v", noted, err)
		}
		if raw, _ := os.ReadFile(filepath.Join(other, "runs")); string(raw) != noted {
			t.Errorf("%q became %q", noted, raw)
		}
	}
	if l.Check == nil || l.Check.Good || len(l.Check.Sides) != 1 || !l.Last.Began.Equal(at(7)) {
		t.Fatalf("%+v, of the run %+v", l.Check, l.Last)
	}
	if got, want := l.Check.Words(), "1970-01-01T00:16:45Z by me, verify at L4: not all is as it should be"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := good.Words(); !strings.HasSuffix(got, ": all is as it should be") {
		t.Error(got)
	}
}

func TestWhichLogTellsMore(t *testing.T) {
	at := time.Unix(1000, 0)
	log := func(began, ended time.Time) *runlog.Log {
		return &runlog.Log{Last: &runlog.Run{Began: began, Ended: ended}}
	}
	none, first, under, ended := &runlog.Log{}, log(at, at.Add(1)), log(at.Add(2), time.Time{}), log(at.Add(2), at.Add(3))
	for i, older := range []*runlog.Log{nil, none, first, under, ended} {
		for j, newer := range []*runlog.Log{nil, none, first, under, ended} {
			if got, want := newer.Newer(older), j > i && j > 1; got != want {
				t.Errorf("%d before %d: %v", i, j, got)
			}
		}
	}
}

// A later comparison to a lower level hides no other one, and since when there is something to
// compare with stays.
func TestALogKnowsWhenEachLevelWasReached(t *testing.T) {
	dir := t.TempDir()
	m := drill.Mirror{From: "dir:/a", To: "dir:/b"}
	for i := range 3 {
		if err := errors.Join(runlog.Begin(dir, m, "me", at(10*i)), runlog.End(dir, m, job.Result{}, nil, at(10*i+1))); err != nil {
			t.Fatal(err)
		}
	}
	for i, level := range []string{"L3", "L2", "L1"} {
		if err := runlog.Checked(dir, runlog.Check{What: "verify", Level: level, Ended: at(100 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	l := read(t, dir)
	if !l.Since.Equal(at(1)) {
		t.Errorf("since %s", l.Since)
	}
	c := l.Check.Later(&runlog.Check{Level: "L3", Ended: at(50)})
	c = (&runlog.Check{Level: "L4", Ended: at(51)}).Later(c)
	for level, want := range map[string]int{"L1": 102, "L2": 101, "L3": 100, "L4": 51} {
		if got := c.Reach(level); !got.Equal(at(want)) {
			t.Errorf("%s: %s, want %s", level, got, at(want))
		}
	}
	// By a clock that was ahead, and one that is no more.
	for _, ended := range []int{9999, 200} {
		if err := runlog.Checked(dir, runlog.Check{What: "verify", Level: "L2", Ended: at(ended)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, dir).Check.Reach("L2"); !got.Equal(at(200)) {
		t.Errorf("after a clock was ahead: %s", got)
	}
	if c = nil; !c.Reach("L1").IsZero() {
		t.Error("of nothing a level is reached")
	}
}
