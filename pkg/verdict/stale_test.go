package verdict

import (
	"slices"
	"testing"
)

func TestStaleReads(t *testing.T) {
	write := laneOf(t, lanePooled, 10*ms, "600k")
	read := laneOf(t, lanePooled, 10*ms, "600k")
	read.Probe, read.Kind = "look", "read"
	for i := range read.Attempts {
		// The write of the slot before was acknowledged 8 ms before this read began.
		read.Attempts[i].Observed = int64(i)
	}
	stale := func(edit func(w, r *Lane)) int64 {
		w, r := write, read
		w.Attempts, r.Attempts = slices.Clone(write.Attempts), slices.Clone(read.Attempts)
		edit(&w, &r)
		return Measure(inputOf(w, r)).Lanes[1].StaleReads
	}
	check(t, "right reads", stale(func(_, _ *Lane) {}), 0)
	check(t, "three stale", stale(func(_, r *Lane) {
		for _, i := range []int{50, 300, 599} {
			r.Attempts[i].Observed--
		}
	}), 3)
	check(t, "a failed read shows nothing", stale(func(_, r *Lane) { r.Attempts[50].Outcome, r.Attempts[50].Observed = Failed, 0 }), 0)
	check(t, "an unacknowledged write need not be seen", stale(func(w, r *Lane) { w.Attempts[49].Outcome = Unknown; r.Attempts[50].Observed = 49 }), 0)
	check(t, "a named source, of another target", stale(func(w, r *Lane) { w.Target, r.Reads = "other", "orders"; r.Attempts[50].Observed = 1 }), 1)
	check(t, "a name that nobody has", stale(func(_, r *Lane) { r.Reads = "others"; r.Attempts[50].Observed = 1 }), -1)
	check(t, "a fresh reader reads the pooled writes", stale(func(_, r *Lane) { r.Name = "fresh"; r.Attempts[50].Observed = 1 }), 1)
	check(t, "and not the fresh ones", stale(func(w, r *Lane) { w.Name, r.Name = "fresh", "fresh"; r.Attempts[50].Observed = 1 }), -1)
	check(t, "another target's writes", stale(func(w, r *Lane) { w.Target = "other"; r.Attempts[50].Observed = 1 }), -1)
	check(t, "no read was ok", stale(func(_, r *Lane) {
		for i := range r.Attempts {
			r.Attempts[i].Outcome = Failed
		}
	}), -1)
}

// TestStaleReadsSaysWhyNot: each reason for not knowing is told apart.
func TestStaleReadsSaysWhyNot(t *testing.T) {
	lane := func(probe, kind, name string, o Outcome) Lane {
		return Lane{Probe: probe, Kind: kind, Name: name, Target: "db", Epoch: 1, Attempts: []Attempt{{Seq: 1, Completed: 1, Outcome: o}}}
	}
	reader := lane("look", "read", "fresh", OK)
	named := reader
	named.Reads = "orders"
	failed := lane("look", "read", lanePooled, Failed)
	orders, more := lane("orders", kindWrite, lanePooled, OK), lane("more", kindWrite, lanePooled, OK)
	old := orders
	old.Epoch = 0
	for _, c := range []struct {
		name   string
		reader Lane
		lanes  []Lane
		n      int64
		why    string
	}{
		{"known", reader, []Lane{reader, orders}, 0, ""},
		{"known by name", named, []Lane{more, orders}, 0, ""},
		{"no writes", reader, []Lane{reader}, -1, "it is not known whose writes were read"},
		{"not by name", named, []Lane{more}, -1, "the writes of orders, which were read, are not known"},
		{"two", reader, []Lane{orders, more}, -1, "it is not known whether the writes of orders or those of more were read"},
		{"another observer's", reader, []Lane{old}, -1, "it is not known whose writes were read"},
		{"none ok", failed, []Lane{orders}, -1, "no read was ok"},
	} {
		if n, why := StaleReads(c.reader, c.lanes); n != c.n || why != c.why {
			t.Errorf("%s: %d, %q", c.name, n, why)
		}
	}
}
