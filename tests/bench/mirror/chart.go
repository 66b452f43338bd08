package mirror

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// The chart's measures, in pixels.
const (
	chartLeft  = 330
	chartWide  = 560
	chartTop   = 64
	chartRow   = 17
	chartRight = 20
)

// scale places ratios on a logarithmic axis.
type scale struct{ low, high float64 }

func (s scale) x(ratio float64) float64 {
	at := (math.Log(ratio) - math.Log(s.low)) / (math.Log(s.high) - math.Log(s.low))
	return chartLeft + chartWide*min(max(at, 0), 1)
}

// writeChart draws a line for each row: a dot for each other contestant, at how many
// times faster firedrill is, and a tick of the same colour at the floor.
func writeChart(w io.Writer, rows []Row) error {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r Row) bool {
		return !slices.ContainsFunc(r.Verdicts(), func(v Verdict) bool { return v.Against != "" })
	})
	s := scale{low: 0.5, high: 2}
	for _, r := range rows {
		for _, v := range r.Verdicts() {
			if v.Against != "" && !v.CPU {
				s.low, s.high = min(s.low, max(v.Value, 0.01)), max(s.high, v.Value*1.1, v.Goal*1.1)
			}
		}
	}
	height := chartTop + chartRow*len(rows) + 30
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", chartLeft+chartWide+chartRight, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n")
	fmt.Fprintf(&b, `<text x="10" y="20" font-size="14">How many times faster firedrill is (dot), and the floor (tick); left of 1 it is slower</text>`+"\n")
	legend(&b, rows)
	axis(&b, s, height)
	for i, r := range rows {
		y := chartTop + chartRow*i + chartRow/2
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", chartLeft-8, y+4,
			html.EscapeString(r.Case.Set.Describe()+", "+r.Case.Title+", "+r.Server.Name))
		for _, v := range r.Verdicts() {
			if v.Against == "" || v.CPU {
				continue
			}
			if v.Goal != 1 {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="2" height="12" fill="%s"/>`+"\n", s.x(v.Goal)-1, y-6, colour(v.Against))
			}
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%d" r="4" fill="%s"><title>%s %.2fx</title></circle>`+"\n", s.x(max(v.Value, s.low)), y, colour(v.Against), label(v.Against), v.Value)
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func legend(b *strings.Builder, rows []Row) {
	x := 10
	for _, name := range shown(rows)[1:] {
		fmt.Fprintf(b, `<circle cx="%d" cy="38" r="4" fill="%s"/><text x="%d" y="42">vs %s</text>`+"\n", x+4, colour(name), x+12, label(name))
		x += 100
	}
}

// axis draws the lines of 1, 2, 5, 10 and so on.
func axis(b *strings.Builder, s scale, height int) {
	for power := 0.01; power <= 10_000; power *= 10 {
		for _, step := range []float64{1, 2, 5} {
			v := power * step
			if v < s.low || v > s.high {
				continue
			}
			line := "#dddddd"
			if v > 0.999 && v < 1.001 {
				line = "#000000"
			}
			fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`+"\n", s.x(v), chartTop-6, s.x(v), height-22, line)
			for _, y := range []int{chartTop - 10, height - 8} {
				fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%.3gx</text>`+"\n", s.x(v), y, v)
			}
		}
	}
}

func colour(contestant string) string {
	switch contestant {
	case nameRclone:
		return "#999999"
	case nameBest:
		return "#0072b2"
	case nameMCHash:
		return "#009e73"
	case nameNormal:
		return "#cc79a7"
	}
	return "#d55e00"
}
