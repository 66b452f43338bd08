package fold

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// Never stands for a figure that is not there.
const Never = "–"

// Nameless is the requester of a drill that was asked for over HTTP by somebody
// who gave no name.
const Nameless = "http"

// ShowRequester names who asked for a drill.
func ShowRequester(who string) string {
	if who == Nameless {
		return "not named (over HTTP)"
	}
	return who
}

// Show writes an interval of nanoseconds for people: "2.31 s – 2.33 s", or
// "≥ 30 s" when it is open. The lower end is rounded down and the upper end up,
// so that what is shown still contains the truth.
func Show(i event.Interval) string {
	if i.Open {
		return "≥ " + showTrim(i.Lo, math.Floor, scaleOf(i.Lo, i.Lo))
	}
	s := scaleOf(i.Hi, i.Hi-i.Lo)
	lo, hi := showTrim(i.Lo, math.Floor, s), showTrim(i.Hi, math.Ceil, s)
	if lo == hi {
		return lo
	}
	return lo + " – " + hi
}

// ShowFigure writes a figure, or Never when it is not known.
func ShowFigure(f Figure) string {
	if !f.Known {
		return Never
	}
	return Show(f.Interval)
}

// ShowDuration writes a single duration, such as an objective.
func ShowDuration(ns int64) string { return showTrim(ns, math.Round, scaleOf(ns, 1)) }

// ShowLatency writes a percentile; -1 stands for +inf.
func ShowLatency(ns int64) string {
	if ns < 0 {
		return "+∞"
	}
	return showTrim(ns, math.Ceil, scaleOf(ns, ns))
}

// ShowPercent writes a percentage with up to three decimals, rounded down, so
// that nothing short of everything reads as 100 %.
func ShowPercent(p float64) string {
	if math.IsNaN(p) {
		return Never
	}
	text := strconv.FormatFloat(math.Floor(p*1000+1e-7)/1000, 'f', 3, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + " %"
}

// ShowTime writes a moment for people, in UTC.
func ShowTime(t time.Time) string {
	if t.IsZero() {
		return Never
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 MST")
}

// ShowCount writes a count with thin separators: 12 345.
func ShowCount(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "\u202f" + s[at:]
	}
	return sign + s
}

// ShowRanges writes up to limit pairs of a set of numbers: "17–40, 52".
func ShowRanges(r event.Ranges, limit int) string {
	if len(r) == 0 {
		return Never
	}
	var parts []string
	for i, p := range r {
		if i == limit {
			parts = append(parts, fmt.Sprintf("and %d more runs", len(r)-limit))
			break
		}
		if p[0] == p[1] {
			parts = append(parts, strconv.FormatInt(p[0], 10))
		} else {
			parts = append(parts, fmt.Sprintf("%d–%d", p[0], p[1]))
		}
	}
	return strings.Join(parts, ", ")
}

// scale is a unit and how many decimals it is shown with.
type scale struct {
	unit     string
	ns       float64
	decimals int
}

// scaleOf picks the unit for a largest value, and decimals that resolve the
// given width.
func scaleOf(largest, width int64) scale {
	if largest < 0 {
		largest = -max(largest, -math.MaxInt64)
	}
	var s scale
	switch {
	case largest < int64(time.Millisecond):
		s = scale{"µs", 1e3, 0}
	case largest < int64(time.Second):
		s = scale{"ms", 1e6, 1}
	case largest < int64(2*time.Minute):
		s = scale{"s", 1e9, 2}
		if width > 0 && width < int64(20*time.Millisecond) {
			s.decimals = 3
		}
	case largest < int64(2*time.Hour):
		s = scale{"min", 60e9, 0}
	default:
		s = scale{"h", 3600e9, 0}
	}
	return s
}

func showTrim(ns int64, round func(float64) float64, s scale) string {
	switch s.unit {
	case "min":
		return showSplit(ns, round, 60, "min", "s", 1e9)
	case "h":
		return showSplit(ns, round, 60, "h", "min", 60e9)
	}
	if ns == 0 {
		return "0 s"
	}
	p := math.Pow10(s.decimals)
	// The product is made before the division: 2.33 s must not become 2.34 s by
	// a rounding error of the quotient.
	text := strconv.FormatFloat(round(float64(ns)*p/s.ns)/p, 'f', s.decimals, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	if text == "-0" {
		text = "0"
	}
	return text + " " + s.unit
}

// showSplit writes minutes and seconds, or hours and minutes.
func showSplit(ns int64, round func(float64) float64, per int64, major, minor string, minorNS float64) string {
	n := int64(round(float64(ns) / minorNS))
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	switch {
	case n == 0:
		return "0 s"
	case n < per:
		return fmt.Sprintf("%s%d %s", sign, n, minor)
	case n%per == 0:
		return fmt.Sprintf("%s%d %s", sign, n/per, major)
	}
	return fmt.Sprintf("%s%d %s %d %s", sign, n/per, major, n%per, minor)
}
