package fold

import (
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// TestWhoSawTheLongestOutage: the lanes that may have, and not one whose own was shorter
// than what another proves.
func TestWhoSawTheLongestOutage(t *testing.T) {
	lane := func(name string, lo, hi int64) verdict.LaneResult {
		return verdict.LaneResult{Probe: "reads", Lane: name, Outages: []verdict.Outage{{Length: event.Interval{Lo: lo, Hi: hi}}}}
	}
	all := []verdict.LaneResult{lane("fresh", 0, 3638), lane("pooled", 308, 3357), lane("short", 5, 307), {Probe: "reads", Lane: "calm"}}
	got, lanes := longestOutage(all, nil)
	if got == nil || *got != (event.Interval{Lo: 308, Hi: 3638}) || lanes != "reads/fresh, reads/pooled" {
		t.Errorf("%+v, %q", got, lanes)
	}
	got, lanes = longestOutage(all, []blind{{probe: "reads", lane: "calm", stretch: stretch{20, 9020}}})
	if got == nil || *got != (event.Interval{Lo: 308, Hi: 9000}) || lanes != "reads/fresh, reads/pooled, reads/calm" {
		t.Errorf("with what nobody watched: %+v, %q", got, lanes)
	}
	if got, lanes := longestOutage(nil, nil); got != nil || lanes != "" {
		t.Errorf("of none: %+v, %q", got, lanes)
	}
}
