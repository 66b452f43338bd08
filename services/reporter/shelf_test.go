package reporter

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// TestShelfRendersWhatIsAskedFor: a status costs no rendering, a file is rendered
// once, and what was rendered of fewer messages is not given again.
func TestShelfRendersWhatIsAskedFor(t *testing.T) {
	_, ring := synthetic.Keys()
	raws := synthetic.Variants()["missing"].History()
	d := &shelved{history: &history{drill: "d", keys: ring}}
	take := func(raws [][]byte) {
		t.Helper()
		for _, raw := range raws {
			d.history.intake.Add(event.OpenMessage(raw, ring), nil)
		}
		if err := d.fold(); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) []byte {
		t.Helper()
		b, err := d.file(name)
		if err != nil || len(b) == 0 {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
		return b
	}
	rendered := func(want ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(d.files)); !slices.Equal(got, want) {
			t.Fatalf("rendered are %q, want %q", got, want)
		}
	}
	take(raws[:60])
	rendered()
	first := file(render.FileMarkdown)
	if again := file(render.FileMarkdown); &again[0] != &first[0] {
		t.Error("the same file was rendered twice")
	}
	rendered(render.FileMarkdown)
	d.history.published = &event.ReportPublished{}
	take(raws[60:])
	rendered(FileEvents)
	if bytes.Equal(file(render.FileMarkdown), first) {
		t.Error("the report of fewer messages was given again")
	}
	if events := file(FileEvents); bytes.Count(events, []byte("\n")) != len(raws) {
		t.Errorf("%d events exported, want %d", bytes.Count(events, []byte("\n")), len(raws))
	}
	if d.history != nil || !d.last.published {
		t.Error("the messages of a published drill are kept")
	}
	if _, err := d.file("report.pdf"); err == nil {
		t.Error("a file that there is none of")
	}
}
