package zfs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawSnapshots(t *rapid.T) []Snapshot {
	n := rapid.IntRange(0, 60).Draw(t, "n")
	at := time.Date(2023, 12, 20, 0, 0, 0, 0, time.UTC)
	var out []Snapshot
	for i := range n {
		at = at.Add(time.Duration(rapid.IntRange(0, 90*3600).Draw(t, "gap")) * time.Second)
		out = append(out, Snapshot{Dataset: "d", Name: fmt.Sprint("s", i), GUID: uint64(i + 1), TXG: uint64(i + 1), Created: at,
			Holds: rapid.SampledFrom([]int{0, 0, 0, 0, 1}).Draw(t, "holds")})
	}
	return out
}

func drawKeep(t *rapid.T) Keep {
	some := rapid.IntRange(0, 12)
	return Keep{Hourly: some.Draw(t, "hourly"), Daily: some.Draw(t, "daily"), Weekly: some.Draw(t, "weekly"), Monthly: some.Draw(t, "monthly")}
}

func TestExpiredNeverTakesWhatIsNeeded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all, keep := drawSnapshots(t), drawKeep(t)
		var common []uint64
		if len(all) > 0 {
			common = append(common, rapid.SampledFrom(all).Draw(t, "common").GUID)
		}
		expired := keep.Expired(all, common...)
		for i, s := range all {
			if (i == len(all)-1 || s.Holds > 0 || slices.Contains(common, s.GUID)) && slices.Contains(expired, s) {
				t.Fatalf("%+v expired", s)
			}
		}
		// What is left does not expire by looking again, and more is kept by keeping more.
		left := slices.DeleteFunc(slices.Clone(all), func(s Snapshot) bool { return slices.Contains(expired, s) })
		if again := keep.Expired(left, common...); len(again) > 0 {
			t.Fatalf("then also %s", namesOf(again))
		}
		more := keep
		more.Daily++
		for _, s := range more.Expired(all, common...) {
			if !slices.Contains(expired, s) {
				t.Fatalf("keeping one day more lets %s go", s)
			}
		}
		// However they are sorted.
		shuffled := slices.Clone(all)
		slices.Reverse(shuffled)
		other := keep.Expired(shuffled, common...)
		slices.Reverse(other)
		if !slices.Equal(other, expired) {
			t.Fatalf("reversed: %s, not %s", namesOf(other), namesOf(expired))
		}
	})
}

// TestExpiredKeepsPeriods counts by hand what a period's newest is.
func TestExpiredKeepsPeriods(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all, days := drawSnapshots(t), rapid.IntRange(1, 12).Draw(t, "days")
		for i := range all {
			all[i].Holds = 0
		}
		newest := map[string]Snapshot{}
		for _, s := range all {
			newest[s.Created.Format(time.DateOnly)] = s
		}
		var dates []string
		for d := range newest {
			dates = append(dates, d)
		}
		slices.Sort(dates)
		var want []string
		for _, d := range dates[max(0, len(dates)-days):] {
			want = append(want, newest[d].Name)
		}
		expired := Keep{Daily: days}.Expired(all)
		left := slices.DeleteFunc(slices.Clone(all), func(s Snapshot) bool { return slices.Contains(expired, s) })
		if got := namesOf(left); got != strings.Join(want, " ") {
			t.Fatalf("left %s, want %v", got, want)
		}
	})
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		v, err := time.Parse("2006-01-02 15:04", text)
		must(t, err)
		return v
	}
	for _, c := range []struct {
		of      func(time.Time) [2]int
		a, b, c string // a and b are in one period, c is not
	}{
		{hourOf, "2024-02-29 23:00", "2024-02-29 23:59", "2024-03-01 00:00"},
		{dayOf, "2024-02-29 00:00", "2024-02-29 23:59", "2023-02-28 12:00"},
		{weekOf, "2024-12-30 00:00", "2025-01-05 23:59", "2025-01-06 00:00"},
		{monthOf, "2024-12-01 00:00", "2024-12-31 23:59", "2025-12-01 00:00"},
	} {
		if c.of(at(c.a)) != c.of(at(c.b)) || c.of(at(c.a)) == c.of(at(c.c)) {
			t.Errorf("%s %v, %s %v, %s %v", c.a, c.of(at(c.a)), c.b, c.of(at(c.b)), c.c, c.of(at(c.c)))
		}
	}
}

// TestExpiredOverlooksReadings: what is there for a reading only does not stand for
// its hour, in which it is the newest.
func TestExpiredOverlooksReadings(t *testing.T) {
	t.Parallel()
	at := time.Date(2024, 5, 6, 7, 0, 0, 0, time.UTC)
	all := []Snapshot{
		{Name: "old", GUID: 1, TXG: 1, Created: at.Add(-time.Hour)}, {Name: "kept", GUID: 2, TXG: 2, Created: at},
		{Name: readingPrefix + "x", GUID: 3, TXG: 3, Created: at.Add(time.Minute)},
	}
	if got := namesOf(Keep{Hourly: 1}.Expired(all)); got != "old" {
		t.Errorf("expired: %s", got)
	}
}

func TestParseKeep(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawKeep(t)
		text := fmt.Sprintf("weekly=%d,hourly=%d,monthly=%d,daily=%d", want.Weekly, want.Hourly, want.Monthly, want.Daily)
		if got, err := ParseKeep(text); got != want || (err == nil) != (want != Keep{}) {
			t.Fatalf("%q: %+v, %v", text, got, err)
		}
	})
	if got, err := ParseKeep("daily=3"); err != nil || got != (Keep{Daily: 3}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "daily", "daily=", "daily=x", "daily=1,daily=2", "yearly=1", "daily=-1", "daily=0", "daily=1,", "daily = 1", "daily=99999999999999999999"} {
		if got, err := ParseKeep(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestKeepIsValidated(t *testing.T) {
	t.Parallel()
	for _, bad := range []Keep{{}, {Hourly: -1, Daily: 2}} {
		if bad.Validate() == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	must(t, Keep{Monthly: 1}.Validate())
}

func TestPrune(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 5), on(t, "target")
	r := h.to(t, target)
	_, err := r.Run(t.Context()) // s4 is held on the source
	must(t, err)
	h.step(t)
	h.do(t, "snapshot", h.dataset+"@by-hand")
	h.do(t, "clone", h.snapshots[2].String(), h.dataset+"/clone")
	o := PruneOptions{Keep: Keep{Hourly: 1}, Prefix: "s", Common: []uint64{h.snapshots[1].GUID}, DryRun: true}
	would, err := h.Prune(t.Context(), h.dataset, o)
	wants(t, err, ErrCloned) // as the real one
	if namesOf(would) != "s0 s3" || !strings.Contains(err.Error(), h.snapshots[2].String()) {
		t.Errorf("would destroy %s: %v", namesOf(would), err)
	}
	o.DryRun = false
	gone, err := h.Prune(t.Context(), h.dataset, o)
	wants(t, err, ErrCloned)
	left, err := h.Snapshots(t.Context(), h.dataset)
	must(t, err)
	if namesOf(gone) != "s0 s3" || namesOf(left) != "s1 s2 s4 s5 by-hand" {
		t.Errorf("gone %s, left %s", namesOf(gone), namesOf(left))
	}
	// The chain goes on.
	_, err = r.Run(t.Context())
	must(t, err)
	same(t, target, r.To, "s5", h.copies[5])
	if _, err := h.Prune(t.Context(), h.dataset, PruneOptions{}); err == nil {
		t.Error("a policy that keeps nothing was taken")
	}
}
