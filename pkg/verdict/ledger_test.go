package verdict

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
)

// rightBooks draws a lane and a ledger without any loss: all that was
// acknowledged is present, and some of what was not.
func rightBooks(seed uint64) (Lane, Ledger, *rand.Rand) {
	r := rand.New(rand.NewPCG(seed, 11))
	l := Lane{Probe: "orders", Name: lanePooled, Kind: kindWrite, Epoch: 1, Deadline: 250 * ms}
	led := Ledger{Probe: "orders", Lane: lanePooled, Epoch: 1, Duplicates: map[int64]int64{}}
	n := 60 + r.Int64N(200)
	for i := range n {
		a := Attempt{Seq: i + 1, Scheduled: i * 10 * ms, Started: i * 10 * ms, Completed: i*10*ms + 2*ms, Outcome: OK}
		switch r.IntN(8) {
		case 0:
			a.Outcome = Unknown
		case 1:
			a.Outcome = Failed
		case 2:
			a.Outcome, a.Completed = Skipped, a.Started
		}
		if a.Outcome == OK || (a.Outcome != Skipped && r.IntN(3) == 0) {
			led.Present.Add(a.Seq)
		}
		l.Attempts = append(l.Attempts, a)
	}
	led.UpTo = n
	return l, led, r
}

// members lists a set's numbers.
func members(rs event.Ranges) []int64 {
	var out []int64
	for _, p := range rs {
		for s := p[0]; s <= p[1]; s++ {
			out = append(out, s)
		}
	}
	return out
}

func setOf(seqs []int64) event.Ranges {
	slices.Sort(seqs)
	var out event.Ranges
	for _, s := range slices.Compact(seqs) {
		out.Add(s)
	}
	return out
}

// with returns the lane's numbers with one of these outcomes.
func with(l Lane, outcomes ...Outcome) []int64 {
	var out []int64
	for _, a := range l.Attempts {
		if slices.Contains(outcomes, a.Outcome) {
			out = append(out, a.Seq)
		}
	}
	return out
}

// TestLedgerCheckerCatchesEveryMutation takes right books, which must be found
// right, and spoils them in every way; each must be found, and found as what it is.
func TestLedgerCheckerCatchesEveryMutation(t *testing.T) {
	faults := []FaultTime{{Step: "f", F0: 400 * ms, F1: 402 * ms, Proven: true}}
	drop := func(led *Ledger, seqs ...int64) {
		led.Present = led.Present.Minus(setOf(slices.Clone(seqs)))
	}
	put := func(led *Ledger, seqs ...int64) {
		led.Present = setOf(append(members(led.Present), seqs...))
	}
	type mutation struct {
		name string
		// spoil returns what must be found of the result, or nil for an error.
		spoil func(l *Lane, led *Ledger, r *rand.Rand) func(LedgerResult) bool
	}
	lost := func(seqs ...int64) func(LedgerResult) bool {
		want := setOf(slices.Clone(seqs))
		return func(x LedgerResult) bool { return reflect.DeepEqual(x.Lost, want) && len(x.Phantom) == 0 }
	}
	phantom := func(seqs ...int64) func(LedgerResult) bool {
		want := setOf(slices.Clone(seqs))
		return func(x LedgerResult) bool { return reflect.DeepEqual(x.Phantom, want) && len(x.Lost) == 0 }
	}
	mutations := []mutation{
		{"drop one acknowledged", func(l *Lane, led *Ledger, r *rand.Rand) func(LedgerResult) bool {
			acked := with(*l, OK)
			s := acked[r.IntN(len(acked))]
			drop(led, s)
			return lost(s)
		}},
		{"drop the first acknowledged", func(l *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			s := with(*l, OK)[0]
			drop(led, s)
			return lost(s)
		}},
		{"drop the last acknowledged", func(l *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			acked := with(*l, OK)
			drop(led, acked[len(acked)-1])
			return lost(acked[len(acked)-1])
		}},
		{"drop the tail", func(l *Lane, led *Ledger, r *rand.Rand) func(LedgerResult) bool {
			acked := with(*l, OK)
			tail := acked[len(acked)-1-r.IntN(len(acked)/2):]
			drop(led, tail...)
			return lost(tail...)
		}},
		{"drop a hole and a few", func(l *Lane, led *Ledger, r *rand.Rand) func(LedgerResult) bool {
			acked := with(*l, OK)
			i := r.IntN(len(acked) / 2)
			gone := append(slices.Clone(acked[i:i+5]), acked[len(acked)-2])
			drop(led, gone...)
			return lost(gone...)
		}},
		{"drop everything", func(l *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			led.Present = nil
			return lost(with(*l, OK)...)
		}},
		{"acknowledge what is not there", func(l *Lane, led *Ledger, r *rand.Rand) func(LedgerResult) bool {
			gone := setOf(with(*l, Unknown, Failed)).Minus(led.Present)
			s := members(gone)[r.IntN(int(gone.Len()))]
			l.Attempts[s-1].Outcome = OK
			return lost(s)
		}},
		{"a skipped number is there", func(l *Lane, led *Ledger, r *rand.Rand) func(LedgerResult) bool {
			skipped := with(*l, Skipped)
			s := skipped[r.IntN(len(skipped))]
			put(led, s)
			return phantom(s)
		}},
		{"a number before the first is there", func(_ *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			put(led, 0, -7)
			return phantom(-7, 0)
		}},
		{"a number after the last is there", func(_ *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			led.UpTo++
			put(led, led.UpTo)
			return phantom(led.UpTo)
		}},
		{"another lane's numbers", func(l *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			for i := range led.Present {
				led.Present[i][0] += 1000
				led.Present[i][1] += 1000
			}
			led.UpTo += 1000
			want := setOf(members(led.Present))
			gone := setOf(with(*l, OK))
			return func(x LedgerResult) bool {
				return reflect.DeepEqual(x.Lost, gone) && reflect.DeepEqual(x.Phantom, want)
			}
		}},
		{"a duplicate", func(l *Lane, led *Ledger, r *rand.Rand) func(LedgerResult) bool {
			all := members(led.Present)
			s := all[r.IntN(len(all))]
			led.Duplicates[s] = 2
			return func(x LedgerResult) bool {
				return reflect.DeepEqual(x.Duplicate, setOf([]int64{s})) && len(x.Lost)+len(x.Phantom) == 0
			}
		}},
		{"an unknown one is there after all", func(l *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			put(led, with(*l, Unknown, Failed)...)
			want := setOf(with(*l, Unknown, Failed))
			return func(x LedgerResult) bool { return reflect.DeepEqual(x.Recovered, want) }
		}},
		{"ranges out of order", func(_ *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			led.Present[0], led.Present[1] = led.Present[1], led.Present[0]
			return nil
		}},
		{"ranges that overlap", func(_ *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			led.Present[0][1] = led.Present[1][0]
			return nil
		}},
		{"a duplicate that is not there", func(l *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			led.Duplicates[with(*l, Skipped)[0]] = 2
			return nil
		}},
		{"a duplicate found once", func(l *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			led.Duplicates[with(*l, OK)[0]] = 1
			return nil
		}},
		{"attempts out of order", func(l *Lane, _ *Ledger, r *rand.Rand) func(LedgerResult) bool {
			i := r.IntN(len(l.Attempts) - 1)
			l.Attempts[i], l.Attempts[i+1] = l.Attempts[i+1], l.Attempts[i]
			return nil
		}},
		{"an attempt twice", func(l *Lane, _ *Ledger, r *rand.Rand) func(LedgerResult) bool {
			i := r.IntN(len(l.Attempts))
			l.Attempts = slices.Insert(l.Attempts, i, l.Attempts[i])
			return nil
		}},
		{"an outcome that is none", func(l *Lane, _ *Ledger, r *rand.Rand) func(LedgerResult) bool {
			l.Attempts[r.IntN(len(l.Attempts))].Outcome = '?'
			return nil
		}},
		{"the ledger of another epoch", func(_ *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			led.Epoch++
			return nil
		}},
		{"the ledger of another lane", func(_ *Lane, led *Ledger, _ *rand.Rand) func(LedgerResult) bool {
			led.Lane = "fresh"
			return nil
		}},
	}
	for seed := range uint64(100) {
		l, led, _ := rightBooks(seed)
		right, err := CompareLedger(l, led, faults)
		if err != nil || len(right.Lost)+len(right.Phantom)+len(right.Duplicate) != 0 || right.Acked != int64(len(with(l, OK))) {
			t.Fatalf("seed %d: right books found wrong: %+v %v", seed, right, err)
		}
		for _, m := range mutations {
			l, led, r := rightBooks(seed)
			found := m.spoil(&l, &led, r)
			got, err := CompareLedger(l, led, faults)
			switch {
			case found == nil && !errors.Is(err, ErrLedger):
				t.Errorf("seed %d, %s: no error, but %+v", seed, m.name, got)
			case found != nil && (err != nil || !found(got)):
				t.Errorf("seed %d, %s: %+v %v", seed, m.name, got, err)
			}
		}
	}
}

// TestLedgerCut: what lies behind the cut is compared on neither side.
func TestLedgerCut(t *testing.T) {
	l, led, _ := rightBooks(1)
	led.UpTo = 30
	led.Present = led.Present.Minus(event.Ranges{{31, 1 << 40}})
	led.Present.Add(500)
	led.Duplicates[500] = 3
	got, err := CompareLedger(l, led, nil)
	if err != nil || len(got.Lost)+len(got.Phantom)+len(got.Duplicate) != 0 {
		t.Fatalf("%+v %v", got, err)
	}
	check(t, "without a fault the recovery point is open", got.RPA, event.Interval{Open: true})
}

func TestRecoveryPoint(t *testing.T) {
	l := laneOf(t, lanePooled, 10*ms, "200k")
	f := func(at int64) FaultTime { return FaultTime{F0: (at - 1) * ms, F1: (at + 1) * ms} }
	rpa := func(lost event.Ranges, faults ...FaultTime) event.Interval {
		t.Helper()
		led := Ledger{Probe: "orders", Lane: lanePooled, Epoch: 1, UpTo: 200, Present: event.Ranges{{1, 200}}.Minus(lost)}
		r, err := CompareLedger(l, led, faults)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "lost", r.Lost, lost)
		return r.RPA
	}
	// Attempt n runs from 10(n-1) to 10(n-1)+2 ms.
	check(t, "none lost", rpa(nil, f(1000)), ival(0, 1001-990))
	check(t, "lost before the fault", rpa(event.Ranges{{91, 100}}, f(1000)), ival(999-902, 1001-890))
	check(t, "no survivor", rpa(event.Ranges{{1, 100}}, f(1000)), openFrom(999-2))
	// Acknowledged by an old primary after the fault: the loss reaches back from
	// the last of them.
	check(t, "lost after the fault", rpa(event.Ranges{{120, 150}}, f(1000)), ival(1490-1192, 1492-1180))
	check(t, "charged to the fault that follows", rpa(event.Ranges{{91, 95}}, f(1000), f(1900)), ival(999-902, 1001-890))
	check(t, "the worst of two", rpa(event.Ranges{{91, 95}, {181, 190}}, f(1900), f(1000)), ival(999-902, 1001-890))
	check(t, "the second is worse", rpa(event.Ranges{{96, 97}, {171, 172}}, f(1000), f(1900)), ival(1899-1702, 1901-1690))
}
