package fold_test

import (
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

func TestShow(t *testing.T) {
	const ms, s = 1_000_000, 1_000_000_000
	for _, c := range []struct {
		i    event.Interval
		want string
	}{
		{event.Interval{Lo: 2310 * ms, Hi: 2330 * ms}, "2.31 s – 2.33 s"},
		{event.Interval{Lo: 30 * s, Open: true}, "≥ 30 s"},
		{event.Interval{Lo: 2314_200_001, Hi: 2331_000_001}, "2.314 s – 2.332 s"},
		{event.Interval{Lo: 12 * ms, Hi: 12 * ms}, "12 ms"},
		{event.Interval{Hi: 16_100_001}, "0 s – 16.2 ms"},
		{event.Interval{Lo: 125 * s, Hi: 131 * s}, "2 min 5 s – 2 min 11 s"},
		{event.Interval{Lo: 7200 * s, Hi: 7260 * s}, "2 h – 2 h 1 min"},
		{event.Interval{Hi: 816 * s}, "0 s – 13 min 36 s"},
		{event.Interval{Lo: 3 * s, Hi: 180 * s}, "3 s – 3 min"},
		{event.Interval{Lo: 20 * s, Hi: 7260 * s}, "0 s – 2 h 1 min"},
		{event.Interval{}, "0 s"},
		{event.Interval{Open: true}, "≥ 0 s"},
		{event.Interval{Lo: 900, Hi: 1500}, "0 µs – 2 µs"},
	} {
		if got := fold.Show(c.i); got != c.want {
			t.Errorf("Show(%+v) = %q, want %q", c.i, got, c.want)
		}
	}
	for ns, want := range map[int64]string{-1: "+∞", 1_600_001: "1.7 ms", 0: "0 s"} {
		if got := fold.ShowLatency(ns); got != want {
			t.Errorf("ShowLatency(%d) = %q, want %q", ns, got, want)
		}
	}
	for p, want := range map[float64]string{100: "100 %", 99.9999: "99.999 %", 79.5: "79.5 %", 0: "0 %"} {
		if got := fold.ShowPercent(p); got != want {
			t.Errorf("ShowPercent(%g) = %q, want %q", p, got, want)
		}
	}
}
