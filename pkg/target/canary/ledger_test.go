package canary_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
)

func TestReadsLookAtThePooledLane(t *testing.T) {
	s := target.ProbeSpec{Drill: "d", Name: "mine", Lane: target.LaneFresh, Epoch: 3}
	for of, want := range map[string]string{"": "d/mine/pooled/3", "writes": "d/writes/pooled/3"} {
		if got := canary.ReadFrom(s, of); got != want {
			t.Errorf("of %q: %s, want %s", of, got, want)
		}
	}
	if s.Ledger() != "d/mine/fresh/3" {
		t.Errorf("the lane itself is another: %s", s.Ledger())
	}
}

func TestHeldIsWhatWasFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		found := rapid.MapOf(rapid.Int64Range(0, 50), rapid.Int64Range(1, 3)).Draw(t, "found")
		held := canary.Held(found)
		if err := held.Present.Validate(); err != nil || held.Present.Len() != int64(len(found)) {
			t.Fatalf("%v: %v", held.Present, err)
		}
		for seq := range int64(51) {
			if n := found[seq]; held.Present.Has(seq) != (n > 0) || held.Duplicates[seq] != n && n > 1 || n < 2 && held.Duplicates[seq] != 0 {
				t.Fatalf("%d was found %d times: %+v", seq, n, held)
			}
		}
	})
	if h := canary.Held(nil); h.Present.Len() != 0 || h.Duplicates == nil {
		t.Errorf("of nothing: %+v", h)
	}
}

func TestLatestOnlyRises(t *testing.T) {
	var l canary.Latest
	if seq, ok := l.Of("a"); ok {
		t.Fatalf("%d is known", seq)
	}
	rapid.Check(t, func(t *rapid.T) {
		var l canary.Latest
		want := map[string]int64{}
		for range rapid.IntRange(1, 20).Draw(t, "times") {
			of, seq := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "ledger"), rapid.Int64Range(0, 5).Draw(t, "seq")
			l.Raise(of, seq)
			want[of] = max(want[of], seq)
		}
		for of, w := range want {
			if got, ok := l.Of(of); !ok || got != w {
				t.Fatalf("%s: %d, %t, want %d", of, got, ok, w)
			}
		}
	})
}

func TestTally(t *testing.T) {
	tally := func(whole, damaged int) *canary.Tally {
		t := new(canary.Tally)
		for i := range whole + damaged {
			var err error
			if i >= whole {
				err = canary.ErrDamaged
			}
			t.Add(fmt.Sprint("c", i), 10, err)
		}
		return t
	}
	for _, c := range []struct {
		whole, damaged int
		err            error
		result         string
		found          string
		samples        int
	}{
		{0, 0, nil, event.ResultInfo, "the drill has no canaries", 0},
		{3, 0, nil, event.ResultPass, "3 of 3 canaries (30 bytes) are whole", 0},
		{3, 2, nil, event.ResultFail, "3 of 5 canaries (50 bytes) are whole", 2},
		{0, 100, nil, event.ResultFail, "0 of 100 canaries (1000 bytes) are whole", 20},
		{3, 2, errors.New("no answer"), event.ResultInconclusive, "no answer", 0},
		{0, 0, errors.New("no answer"), event.ResultInconclusive, "no answer", 0},
	} {
		p := tally(c.whole, c.damaged).Property(c.err)
		if p.Name != "canaries" || p.Result != c.result || p.Found != c.found || len(p.Samples) != c.samples {
			t.Errorf("%d whole, %d damaged, %v: %+v", c.whole, c.damaged, c.err, p)
		}
		for _, s := range p.Samples {
			if !strings.HasPrefix(s, "c") || !strings.HasSuffix(s, ": "+canary.ErrDamaged.Error()) {
				t.Errorf("sample %q", s)
			}
		}
	}
}
