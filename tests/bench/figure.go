// Package bench measures firedrill itself: how narrow and how right its
// intervals are against a known truth, and what it costs. Figures that depend on
// the machine's speed are ratios against a peer in the same run.
package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// Figure is one measured value and what it should reach.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Goal  float64 `json:"goal"`
	// Better is lower or higher.
	Better string `json:"better"`
	// N is how many samples the value rests on.
	N int `json:"n"`
	// Means says what was measured, where the name does not.
	Means string `json:"means,omitempty"`
}

// Reached reports whether the goal was met.
func (f Figure) Reached() bool {
	if f.Better == "higher" {
		return f.Value >= f.Goal
	}
	return f.Value <= f.Goal
}

// Write writes figures to dir/name.jsonl, a line a figure.
func Write(dir, name string, figures []Figure) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, name+".jsonl"))
	if err != nil {
		return err
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	for _, fig := range figures {
		if err := enc.Encode(fig); err != nil {
			return err
		}
	}
	return f.Close()
}

// Print shows figures as a table, and below it what they mean.
func Print(w io.Writer, figures []Figure) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tVALUE\tGOAL\tN\t")
	for _, f := range figures {
		sign, note := "<=", ""
		if f.Better == "higher" {
			sign = ">="
		}
		if !f.Reached() {
			note = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%.4g %s\t%s %.4g\t%d\t%s\n", f.Name, f.Value, f.Unit, sign, f.Goal, f.N, note)
	}
	_ = t.Flush() // the terminal is the only place to complain to
	for _, f := range figures {
		if f.Means != "" {
			fmt.Fprintf(w, "%s: %s\n", f.Name, f.Means)
		}
	}
}

// percentile is the nearest-rank percentile of values, which it sorts.
func percentile(values []float64, p float64) float64 {
	slices.Sort(values)
	i := int(p/100*float64(len(values))+0.9999999) - 1
	return values[min(max(i, 0), len(values)-1)]
}
