package event_test

import (
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// A duration is printed as people write it.
func TestDurationsAreBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 7 * 24 * time.Hour: "168h", 5 * time.Minute: "5m", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s",
		10 * time.Second: "10s", 20 * time.Minute: "20m", 10 * time.Hour: "10h", -time.Hour: "-1h", 1500 * time.Millisecond: "1.5s", 30 * time.Minute: "30m",
	} {
		if got := event.Duration(d).String(); got != want {
			t.Errorf("%v is printed as %s, want %s", d, got, want)
		}
	}
}
