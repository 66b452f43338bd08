package fold_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

// TestIntakeGrows: a report of what has come so far is, at every moment, byte
// for byte the one that is folded from the same messages at once, however many
// were made before. Forged and foreign messages lie among them.
func TestIntakeGrows(t *testing.T) {
	b := synthetic.Variants()["missing"]
	b.Add(time.Hour, event.TypeReportPublished, event.ReportPublished{Verdict: "FAIL", Files: map[string]string{}, Of: 1})
	raws := b.History()
	forged := bytes.Replace(slices.Clone(raws[9]), []byte(`"chainindex":10`), []byte(`"chainindex":11`), 1)
	raws = slices.Insert(raws, 14, []byte("not an event"), forged)
	var n fold.Intake
	for i, raw := range raws {
		n.Add(event.OpenMessage(raw, ring()), nil)
		if i%9 != 0 && i < len(raws)-3 {
			continue
		}
		got, err := n.Report()
		if err != nil {
			t.Fatalf("%d messages: %v", i+1, err)
		}
		if want := mustFold(t, raws[:i+1]); asJSON(t, got) != asJSON(t, want) {
			t.Fatalf("after %d messages one by one the report differs from that of them at once", i+1)
		}
	}
	if got := n.Folded(); n.Len() != len(raws) || len(got) != len(raws)-1 {
		t.Errorf("%d of %d messages are folded, want all but report.published", len(got), n.Len())
	}
}

// TestIntakeUsesThePayload: what the bus has decoded is not decoded again. The
// event's own data is taken away to show it.
func TestIntakeUsesThePayload(t *testing.T) {
	raws := kill(nil)
	var n fold.Intake
	for _, o := range event.OpenAll(raws, ring()) {
		payload, err := event.Decode(o.Event)
		if err != nil {
			t.Fatal(err)
		}
		o.Event.Data = nil
		n.Add(o, payload)
	}
	got, err := n.Report()
	if err != nil {
		t.Fatal(err)
	}
	if asJSON(t, got) != asJSON(t, mustFold(t, raws)) {
		t.Error("the report of decoded payloads differs")
	}
}

func TestEmptyIntake(t *testing.T) {
	var n fold.Intake
	if _, err := n.Report(); !errors.Is(err, fold.ErrNoDrill) {
		t.Errorf("a report of nothing: %v, want ErrNoDrill", err)
	}
}

// BenchmarkFold is a whole report from bytes, signatures and all; Refold is the
// same report of messages that were taken in before.
func BenchmarkFold(b *testing.B) {
	raws := synthetic.Variants()["pass"].History()
	for b.Loop() {
		if _, err := fold.Fold(raws, ring()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(raws)), "µs/event")
}

func BenchmarkRefold(b *testing.B) {
	raws := synthetic.Variants()["pass"].History()
	n := fold.OpenIntake(raws, ring())
	for b.Loop() {
		if _, err := n.Report(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(raws)), "µs/event")
}
