package mirror

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/firedrill/firedrill/tests/bench"
)

// Record is all that a race has found out; a file of it is a line for the machine,
// then one for each run.
type Record struct {
	Machine Machine
	Runs    []Run
}

type recordLine struct {
	Machine *Machine `json:"machine,omitempty"`
	Run     *Run     `json:"run,omitempty"`
}

// writeMachine and writeRun write one line of a record.
func writeMachine(w io.Writer, m Machine) error {
	return json.NewEncoder(w).Encode(recordLine{Machine: &m})
}

func writeRun(w io.Writer, r Run) error { return json.NewEncoder(w).Encode(recordLine{Run: &r}) }

// ErrRecord says that a file is no record of a race.
var ErrRecord = errors.New("this is no record of a race")

// ReadRecord reads what a race has recorded, also one that was stopped.
func ReadRecord(r io.Reader) (Record, error) {
	var out Record
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var l recordLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return Record{}, fmt.Errorf("line %d: %w: %w", n, ErrRecord, err)
		}
		switch {
		case n == 1 && l.Machine != nil && l.Run == nil:
			out.Machine = *l.Machine
		case n > 1 && l.Run != nil && l.Machine == nil:
			out.Runs = append(out.Runs, *l.Run)
		default:
			return Record{}, fmt.Errorf("line %d: %w: the first line is the machine, each other one a run", n, ErrRecord)
		}
	}
	if err := lines.Err(); err != nil {
		return Record{}, fmt.Errorf("read the record of a race: %w", err)
	}
	if len(out.Runs) == 0 {
		return Record{}, fmt.Errorf("%w: it holds no run", ErrRecord)
	}
	return out, nil
}

// Spread is what several runs have in common.
type Spread struct{ Median, Min, Max float64 }

// spreadOf needs at least one value.
func spreadOf(values []float64) Spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	// For an even number this is the mean of the two in the middle.
	return Spread{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1]}
}

// Score is what one contestant reached in one case on one server.
type Score struct {
	Wall, CPU, RSS Spread
	// N is how many runs counted.
	N int
	// Failure is the reason of the first run that did not count: then the score is
	// worth nothing.
	Failure string
}

// Row is one case on one server.
type Row struct {
	Case   Case
	Server Server
	// Scores are by the contestant's name.
	Scores map[string]Score
}

// Rows are those that have any run, in the order of the cases and then the servers.
func Rows(cases []Case, servers []Server, runs []Run) []Row {
	var out []Row
	for _, c := range cases {
		for _, s := range servers {
			row := Row{Case: c, Server: s, Scores: map[string]Score{}}
			for _, r := range Contestants() {
				mine := slices.DeleteFunc(slices.Clone(runs), func(x Run) bool {
					return x.Case != c.Name || x.Server != s.Name || x.Contestant != r.Name()
				})
				if len(mine) > 0 {
					row.Scores[r.Name()] = scoreOf(mine)
				}
			}
			if len(row.Scores) > 0 {
				out = append(out, row)
			}
		}
	}
	return out
}

func scoreOf(runs []Run) Score {
	var wall, cpu, rss []float64
	var s Score
	for _, r := range runs {
		if r.Failure != "" {
			if s.Failure == "" {
				s.Failure = r.Failure
			}
			continue
		}
		wall, cpu, rss = append(wall, r.Wall), append(cpu, r.CPU), append(rss, r.RSS)
	}
	if s.N = len(wall); s.N > 0 {
		s.Wall, s.CPU, s.RSS = spreadOf(wall), spreadOf(cpu), spreadOf(rss)
	}
	return s
}

// Verdict is one promise and what became of it.
type Verdict struct {
	bench.Figure
	// Against is the contestant, "" for a bound of firedrill's own.
	Against string
	// CPU marks a ratio of processor time.
	CPU bool
}

// Verdicts are what the row says about firedrill's promises. There are none about
// somebody who took no part. Whoever failed gets a ratio of 0, if it is firedrill,
// and none if it is another: nobody is faster than one that does not do the work.
func (r Row) Verdicts() []Verdict {
	own, took := r.Scores[nameFiredrill]
	if !took {
		return nil
	}
	at := "mirror/" + r.Server.Name + "/" + r.Case.Name + "/"
	var out []Verdict
	for _, c := range Contestants()[1:] {
		peer, took := r.Scores[c.Name()]
		if !took || peer.Failure != "" {
			continue
		}
		n := min(own.N, peer.N)
		out = append(out, Verdict{Against: c.Name(), Figure: bench.Figure{
			Name: at + "wall-vs-" + c.Name(), Value: ratio(own, peer.Wall.Median, own.Wall.Median), Unit: "x", Better: "higher",
			Goal: r.Case.Floor(r.Server, c.Name()), N: n,
			Means: fmt.Sprintf("firedrill %.3g s, %s %.3g s", own.Wall.Median, c.Name(), peer.Wall.Median),
		}})
		if r.Case.CPU > 0 {
			out = append(out, Verdict{Against: c.Name(), CPU: true, Figure: bench.Figure{
				Name: at + "cpu-vs-" + c.Name(), Value: ratio(own, peer.CPU.Median, own.CPU.Median), Unit: "x", Better: "higher",
				Goal: r.Case.CPU, N: n,
				Means: fmt.Sprintf("client's processor time: firedrill %.3g s, %s %.3g s", own.CPU.Median, c.Name(), peer.CPU.Median),
			}})
		}
	}
	return append(out, r.memory(at, own)...)
}

// memory are the verdicts about firedrill's memory. A run that failed proves nothing
// about it.
func (r Row) memory(at string, own Score) []Verdict {
	var out []Verdict
	if own.Failure != "" {
		return nil
	}
	for what, bound := range r.Case.RSS {
		out = append(out, Verdict{Figure: bench.Figure{
			Name: at + what + "-rss", Value: own.RSS.Max, Unit: "MiB", Goal: bound, Better: "lower", N: own.N,
			Means: "peak of the one process that plans and works",
		}})
	}
	slices.SortFunc(out, func(a, b Verdict) int { return int(a.Goal - b.Goal) })
	return out
}

func ratio(own Score, theirs, ours float64) float64 {
	if own.Failure != "" || ours <= 0 {
		return 0
	}
	return theirs / ours
}
