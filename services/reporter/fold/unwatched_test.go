package fold

import (
	"slices"
	"testing"

	"github.com/firedrill/firedrill/pkg/verdict"
)

// TestUnwatched: a lane with a slot every 100 ms, and a deadline of 250 ms, between 0 and
// 10 s. All times are milliseconds.
func TestUnwatched(t *testing.T) {
	const ms = int64(1_000_000)
	lane := func(claim, from, until int64) verdict.Lane {
		l := verdict.Lane{Probe: "reads", Kind: "read", Name: "pooled", Epoch: claim, Deadline: 250 * ms}
		for at := from; at <= until; at += 100 {
			l.Attempts = append(l.Attempts, verdict.Attempt{Seq: at, Scheduled: at * ms, Started: at * ms, Completed: (at + 5) * ms, Outcome: verdict.OK})
		}
		return l
	}
	silent := func(l verdict.Lane, outcome verdict.Outcome, from, until int64) verdict.Lane {
		for i := range l.Attempts {
			if a := &l.Attempts[i]; a.Seq >= from && a.Seq <= until {
				a.Outcome = outcome
			}
		}
		return l
	}
	late := func(l verdict.Lane, asked, from, until int64) verdict.Lane {
		l = silent(l, verdict.Unknown, from, until)
		for i := range l.Attempts {
			if a := &l.Attempts[i]; a.Outcome == verdict.Unknown {
				a.Asked, a.Completed = asked*ms, a.Started+250*ms
			}
		}
		return l
	}
	for what, c := range map[string]struct {
		lanes []verdict.Lane
		want  []stretch
	}{
		"one observer":                   {[]verdict.Lane{lane(1, 0, 10_000)}, nil},
		"two without a pause":            {[]verdict.Lane{lane(1, 0, 4_000), lane(2, 4_100, 10_000)}, nil},
		"a pause of a slot more":         {[]verdict.Lane{lane(2, 4_200, 10_000), lane(1, 0, 4_000)}, []stretch{{4_000, 4_205}}},
		"two that overlap":               {[]verdict.Lane{lane(1, 0, 5_000), lane(2, 4_000, 10_000)}, nil},
		"an observer that died":          {[]verdict.Lane{lane(1, 0, 4_000)}, []stretch{{4_000, 10_000}}},
		"an observer that came late":     {[]verdict.Lane{lane(2, 6_000, 10_000)}, []stretch{{0, 6_005}}},
		"before and after":               {[]verdict.Lane{lane(1, -5_000, 15_000)}, nil},
		"a pause across the end":         {[]verdict.Lane{lane(1, 0, 9_000), lane(2, 12_000, 15_000)}, []stretch{{9_000, 10_000}}},
		"skipped slots, a few":           {[]verdict.Lane{silent(lane(1, 0, 10_000), verdict.Skipped, 4_000, 5_000)}, nil},
		"skipped slots, for long":        {[]verdict.Lane{silent(lane(1, 0, 10_000), verdict.Skipped, 4_000, 6_000)}, []stretch{{3_900, 6_105}}},
		"attempts not sent, for long":    {[]verdict.Lane{silent(lane(1, 0, 10_000), verdict.Unsent, 4_000, 6_000)}, []stretch{{3_900, 6_105}}},
		"too late to show anything":      {[]verdict.Lane{late(lane(1, 0, 10_000), 100, 4_000, 6_000)}, []stretch{{3_900, 6_105}}},
		"unanswered, but asked in time":  {[]verdict.Lane{late(lane(1, 0, 10_000), 50, 4_000, 6_000)}, nil},
		"failures show how it was":       {[]verdict.Lane{silent(lane(1, 0, 10_000), verdict.Failed, 4_000, 6_000)}, nil},
		"nothing but skipped slots":      {[]verdict.Lane{silent(lane(1, 0, 10_000), verdict.Skipped, 0, 10_000)}, []stretch{{0, 10_000}}},
		"three observers and two pauses": {[]verdict.Lane{lane(1, 0, 2_000), lane(2, 3_000, 5_000), lane(3, 6_000, 10_000)}, []stretch{{2_000, 3_005}, {5_000, 6_005}}},
	} {
		f := &phaseFold{lanes: c.lanes}
		var got []stretch
		for _, b := range f.unwatched(0, 10_000*ms) {
			got = append(got, stretch{b.from / ms, b.until / ms})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

// TestWhoAnswersForWhatNobodyWatched: the row of the claim before it, where there is one.
func TestWhoAnswersForWhatNobodyWatched(t *testing.T) {
	row := func(lane string, claim int64) verdict.LaneResult {
		return verdict.LaneResult{Probe: "reads", Kind: "read", Lane: lane, Epoch: claim}
	}
	rows := []verdict.LaneResult{row("fresh", 3), row("pooled", 4), row("pooled", 2), row("pooled", 3)}
	for after, want := range map[int64]int{0: 2, 1: 2, 2: 2, 3: 3, 4: 1, 7: 1} {
		for i := range rows {
			if got := len(ofRow(rows, i, []blind{{"reads", "read", "pooled", after, stretch{1, 2}}})) == 1; got != (i == want) {
				t.Errorf("after claim %d: row %d answers %v, want row %d", after, i, got, want)
			}
		}
	}
}
