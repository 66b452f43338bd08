package live

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/schemas"
)

// TestEveryEventCanBeShown: no event of the table, not even an empty one, breaks
// the view.
func TestEveryEventCanBeShown(t *testing.T) {
	for _, fancy := range []bool{false, true} {
		var out strings.Builder
		v := New(&out, fancy)
		for i, info := range event.Table() {
			raw, ok := schemas.Example(string(info.Type))
			if !ok {
				t.Fatalf("no example of %s", info.Type)
			}
			var e event.Event
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatal(err)
			}
			p, err := event.Decode(e)
			if err != nil {
				t.Fatal(err)
			}
			v.Event(bus.Stored{Seq: uint64(i + 1), Event: e, Payload: p})
			v.Event(bus.Stored{Seq: uint64(i + 1), Event: e, Payload: info.New()})
		}
		for _, want := range []string{"accepted, asked by", "outage on", "report published"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("fancy=%v: %q is missing in:\n%s", fancy, want, out.String())
			}
		}
	}
}

func TestSparkShowsUpAndDown(t *testing.T) {
	v := New(&strings.Builder{}, true)
	start := time.Unix(1000, 0)
	ms := int64(time.Millisecond / time.Microsecond)
	b := &event.ProbeBatch{Probe: "w", Lane: "pooled", Origin: event.Reading{Wall: start}, Outcomes: "kkkkffff"}
	for range len(b.Outcomes) {
		b.ScheduledUS = append(b.ScheduledUS, 125*ms) // two attempts a bucket
	}
	b.ScheduledUS[0] = 0
	v.batch(b)
	if got := v.lane("w", "pooled").spark(); !strings.HasSuffix(got, "·▇▇✗✗") {
		t.Fatalf("spark %q", got)
	}
}
