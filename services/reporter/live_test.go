package reporter_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

// TestLiveReportGrows asks for a running drill's report again and again: each is
// the one that is folded from all that is stored then.
func TestLiveReportGrows(t *testing.T) {
	w := newWorld(t)
	w.run(nil)
	ds := drafts("missing")
	for from, to := 0, 20; from < len(ds)-1; from, to = to, min(to+23, len(ds)-1) {
		w.write("live-1", ds[from:to])
		got, err := w.buses[event.Injector].Call(t.Context(), "report", []byte("live-1"))
		if err != nil {
			t.Fatal(err)
		}
		if want := w.foldNow("live-1"); string(got) != want {
			t.Fatalf("after %d events the report is not that of the stored ones", to)
		}
	}
}

// TestStatusInAnOutage: whoever looks in the middle of an outage reads that the
// service is down.
func TestStatusInAnOutage(t *testing.T) {
	w := newWorld(t)
	w.run(nil)
	ds := drafts("missing")
	began := slices.IndexFunc(ds, func(d synthetic.Timed) bool { return d.Type == event.TypeOutageStarted })
	w.write("live-1", ds[:began+1])
	got, err := w.buses[event.Injector].Call(t.Context(), "status", []byte("live-1"))
	if err != nil {
		t.Fatal(err)
	}
	if s := string(got); strings.Contains(s, "never_failed") || !strings.Contains(s, `"achieved":"the outage goes on, `) || !strings.Contains(s, `"ongoing":true`) {
		t.Errorf("status: %s", s)
	}
}

// foldNow is report.json of all that is stored of a drill.
func (w *world) foldNow(id string) string {
	w.t.Helper()
	stored, err := w.buses[event.Observer].History(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	var raws [][]byte
	for _, s := range stored {
		raws = append(raws, s.Raw)
	}
	r, err := fold.Fold(raws, w.ring)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := r.JSON()
	if err != nil {
		w.t.Fatal(err)
	}
	return string(out)
}

// TestLiveReportsVerifyOnce: what was read of a live drill is not verified again
// for the next look at it. A service whose keys are taken out of the keyring in
// between would show it: all that it had written would no longer count.
func TestLiveReportsVerifyOnce(t *testing.T) {
	w := newWorld(t)
	ring := maps.Clone(w.ring)
	w.run(func(c *reporter.Config) {
		id := bus.Identity{Service: event.Reporter, Instance: "reporter-9", Clock: w.clock, Signer: synthetic.NewSigner(event.Reporter)}
		b, err := bus.Connect(t.Context(), bus.Options{Embedded: w.server, Identity: id, Keyring: ring, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		c.Bus, c.Keyring = b, ring
	})
	ds := drafts("missing")
	w.write("live-1", ds[:40])
	status := func() string {
		t.Helper()
		got, err := w.buses[event.Injector].Call(t.Context(), "status", []byte("live-1"))
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	first := status()
	delete(ring, event.Injector)
	if again := status(); again != first || !strings.Contains(first, `"events":40`) {
		t.Errorf("the same events again: %s, want %s", again, first)
	}
	var more []synthetic.Timed
	for _, d := range ds[40:] {
		if info, _ := event.Lookup(d.Type); info.Service == event.Observer {
			more = append(more, d)
		}
	}
	w.write("live-1", more[:10])
	if grown := status(); !strings.Contains(grown, `"events":50`) || strings.Contains(grown, "cannot be trusted") {
		t.Errorf("ten more events: %s", grown)
	}
}
