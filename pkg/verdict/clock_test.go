package verdict

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

func TestClockMap(t *testing.T) {
	m := NewClockMap("obs")
	at := func(clock string, mono int64) (event.Interval, error) {
		return m.Map(event.Reading{Clock: clock, Mono: mono})
	}
	add := func(offset, bound, when int64) error {
		return m.Add(event.ClockCompared{Observer: "obs", Other: "inj", Offset: event.Nanos(offset), Error: event.Nanos(bound)}, when)
	}
	if i, err := at("obs", 42); err != nil || i != (event.Interval{Lo: 42, Hi: 42}) {
		t.Fatalf("the observer's own clock: %+v %v", i, err)
	}
	if _, err := at("inj", 42); !errors.Is(err, ErrNoComparison) {
		t.Fatalf("an unknown clock: %v", err)
	}
	if _, err := NewClockMap("").Map(event.Reading{}); !errors.Is(err, ErrNoComparison) {
		t.Fatalf("a reading never taken: %v", err)
	}
	if err := add(1000*ms, 2*ms, 5000*ms); err != nil {
		t.Fatal(err)
	}
	// Ten seconds away, 500 ppm of drift are 5 ms.
	i, err := at("inj", 16_000*ms)
	if err != nil || !i.Contains(15_000*ms+7*ms) || !i.Contains(15_000*ms-7*ms) || i.Width() > 2*(7*ms+ms/10) {
		t.Fatalf("%+v %v", i, err)
	}
	// A second, nearer and better comparison narrows it.
	if err := add(1003*ms, ms/2, 15_000*ms); err != nil {
		t.Fatal(err)
	}
	j, err := at("inj", 16_000*ms)
	if err != nil || j.Width() > ms+ms/10 || !j.Contains(14_997*ms) {
		t.Fatalf("%+v %v", j, err)
	}
	if err := add(2000*ms, ms, 15_000*ms); err != nil {
		t.Fatal(err)
	}
	if _, err := at("inj", 16_000*ms); !errors.Is(err, ErrClocksContradict) {
		t.Fatalf("contradiction: %v", err)
	}
	if _, err := m.Fault(event.FaultInjected{Step: "f", F0: event.Reading{Clock: "x"}}); !errors.Is(err, ErrNoComparison) {
		t.Fatalf("fault on an unknown clock: %v", err)
	}
}

func TestClockMapRefuses(t *testing.T) {
	for name, c := range map[string]event.ClockCompared{
		"another observer": {Observer: "x", Other: "inj"},
		"no name":          {Observer: "obs"},
		"negative error":   {Observer: "obs", Other: "inj", Error: -1},
		"offset too large": {Observer: "obs", Other: "inj", Offset: math.MinInt64},
		"error too large":  {Observer: "obs", Other: "inj", Error: math.MaxInt64},
	} {
		if NewClockMap("obs").Add(c, 0) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestClockMapHoldsTheTruth draws clocks with offset and drift, comparisons with
// bounded errors, and readings far from them.
func TestClockMapHoldsTheTruth(t *testing.T) {
	for seed := range uint64(5_000) {
		r := rand.New(rand.NewPCG(seed, 5))
		offset := between(r, -int64(1000*time.Hour), int64(1000*time.Hour))
		ppm := between(r, -490, 490)
		base := between(r, 0, int64(1000*time.Hour))
		other := func(t int64) int64 { return t + offset + (t-base)*ppm/1_000_000 }
		m := NewClockMap("obs")
		for range 1 + r.IntN(5) {
			when := base + between(r, 0, int64(time.Hour))
			bound := between(r, 0, 100*ms)
			c := event.ClockCompared{Observer: "obs", Other: "inj", Error: event.Nanos(bound + 2), Offset: event.Nanos(other(when) - when + between(r, -bound, bound))}
			if err := m.Add(c, when); err != nil {
				t.Fatal(err)
			}
		}
		truth := base + between(r, 0, int64(time.Hour))
		i, err := m.Map(event.Reading{Clock: "inj", Mono: other(truth)})
		if err != nil || !i.Contains(truth) {
			t.Fatalf("seed %d: truth %d outside %+v: %v", seed, truth, i, err)
		}
	}
}

func TestClockMapAtTheEndsOfTheRange(t *testing.T) {
	m := NewClockMap("obs")
	for _, when := range []int64{math.MinInt64, math.MaxInt64} {
		if err := m.Add(event.ClockCompared{Observer: "obs", Other: "inj", Offset: event.Nanos(-maxMono), Error: event.Nanos(maxMono)}, when); err != nil {
			t.Fatal(err)
		}
	}
	for _, mono := range []int64{math.MinInt64, 0, math.MaxInt64} {
		if i, err := m.Map(event.Reading{Clock: "inj", Mono: mono}); err != nil || i.Lo > i.Hi {
			t.Fatalf("%+v %v", i, err)
		}
	}
}
