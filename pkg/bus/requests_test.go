package bus_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// TestAConflictReadsOnlyWhatIsNew: two writers in turns, whose history grows, never
// read it again from its start.
func TestAConflictReadsOnlyWhatIsNew(t *testing.T) {
	w := newWorld(t)
	injector, observer := w.connect(event.Injector), w.connect(event.Observer)
	if _, err := injector.Append(t.Context(), "d", accepted()); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if _, err := injector.Append(t.Context(), "d", phase(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := observer.Append(t.Context(), "d", outage(0)); err != nil { // reads it all, this once
		t.Fatal(err)
	}
	before := injector.Received()
	for i := range 10 {
		if _, err := injector.Append(t.Context(), "d", phase(100+i)); err != nil {
			t.Fatal(err)
		}
		if _, err := observer.Append(t.Context(), "d", outage(1+i)); err != nil {
			t.Fatal(err)
		}
	}
	// A conflict, the last sequence, the one new message, and the ack, ten times.
	if n := injector.Received() - before; n > 4*10 {
		t.Errorf("the injector has received %d messages for 10 appends to a history of 62", n)
	}
	mustVerify(t, observer, w.ring, "d", 82)
}

// TestAListCostsTheSameForManyDrills as for few, apart from the events themselves.
func TestAListCostsTheSameForManyDrills(t *testing.T) {
	w := newWorld(t)
	injector, reporter, reader := w.connect(event.Injector), w.connect(event.Reporter), w.connect("cli")
	const many = 30
	for i := range many {
		id := fmt.Sprint("d-", i)
		if _, err := injector.Append(t.Context(), id, accepted()); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			continue
		}
		if _, err := injector.Append(t.Context(), id, finished()); err != nil {
			t.Fatal(err)
		}
		if i%3 == 1 {
			continue
		}
		if _, err := reporter.Append(t.Context(), id, event.Draft{Type: event.TypeReportPublished, Data: event.ReportPublished{Verdict: "PASS"}}); err != nil {
			t.Fatal(err)
		}
	}
	before := reader.Sent()
	list, err := reader.List(t.Context())
	if err != nil || len(list) != many {
		t.Fatalf("%d drills, %v", len(list), err)
	}
	if n := reader.Sent() - before; n > 15 {
		t.Errorf("%d requests for a list of %d drills", n, many)
	}
	for i, d := range list {
		if d.Drill != fmt.Sprint("d-", i) || (d.Finished != nil) != (i%3 > 0) || (d.Published != nil) != (i%3 > 1) {
			t.Errorf("drill %d: %+v", i, d)
		}
	}
}

// TestTheLastDrillsWithAReport are found from the end on, and nothing before them is
// looked at.
func TestTheLastDrillsWithAReport(t *testing.T) {
	w := newWorld(t)
	injector, reporter, reader := w.connect(event.Injector), w.connect(event.Reporter), w.connect("cli")
	if got, err := reader.LastPublished(t.Context(), 3, func(bus.Stored) bool { return true }); err != nil || len(got) != 0 {
		t.Fatalf("of none: %q, %v", got, err)
	}
	const many = 12
	for i := range many {
		id := fmt.Sprint("d-", i)
		if _, err := injector.Append(t.Context(), id, accepted()); err != nil {
			t.Fatal(err)
		}
		if i == many-1 {
			break // it is under way
		}
		if _, err := reporter.Append(t.Context(), id, event.Draft{Type: event.TypeReportPublished, Data: event.ReportPublished{Verdict: "PASS"}}); err != nil {
			t.Fatal(err)
		}
	}
	last := func(n int, not ...string) (got, seen []string) {
		t.Helper()
		got, err := reader.LastPublished(t.Context(), n, func(s bus.Stored) bool {
			if _, ok := s.Payload.(*event.DrillAccepted); !ok || s.Trust != nil {
				t.Errorf("%s: %T, %v", s.Event.Subject, s.Payload, s.Trust)
			}
			seen = append(seen, s.Event.Subject)
			return !slices.Contains(not, s.Event.Subject)
		})
		if err != nil {
			t.Fatal(err)
		}
		return got, seen
	}
	got, seen := last(2, "d-9")
	if want := []string{"d-10", "d-8"}; !slices.Equal(got, want) || len(seen) != 4 {
		t.Errorf("%q, having looked at %q, want %q", got, seen, want)
	}
	if got, _ := last(99); len(got) != many-1 || got[0] != "d-10" || got[many-2] != "d-0" {
		t.Errorf("all of them: %q", got)
	}
}
