package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/tests/bench"
	installation "github.com/firedrill/firedrill/tests/mirror"
)

// scaleCase is the name of the case that compares firedrill with more of itself.
const scaleCase = "scale"

// scaleRTT is how far away the store is, in milliseconds there and back.
const scaleRTT = 100

// scaleGoals are how many times faster so many workers should be than one.
func scaleGoals() map[int]float64 { return map[int]float64{2: 1.8, 4: 3.5} }

// takeScale says whether the case takes part, and gives the list without it. more
// says whether the list asks for anything else.
func takeScale(only string) (scale bool, rest string, more bool) {
	if only == "" {
		return true, "", true
	}
	names := strings.Split(only, ",")
	kept := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == scaleCase })
	return len(kept) < len(names), strings.Join(kept, ","), len(kept) > 0
}

// fleetFile has figures beside the race's: each is measured by itself, and stays until
// it is measured again.
func (s settings) fleetFile() string { return filepath.Join(s.out, "mirror", "fleet.jsonl") }

func (s settings) fleetFigures() ([]bench.Figure, error) {
	f, err := os.Open(s.fleetFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []bench.Figure
	for d := json.NewDecoder(f); d.More(); {
		var fig bench.Figure
		if err := d.Decode(&fig); err != nil {
			return nil, fmt.Errorf("%s: %w", s.fleetFile(), err)
		}
		out = append(out, fig)
	}
	return out, nil
}

// keep puts figures in the place of those of the same names.
func (s settings) keep(figures []bench.Figure) error {
	all, err := s.fleetFigures()
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(old bench.Figure) bool {
		return slices.ContainsFunc(figures, func(f bench.Figure) bool { return f.Name == old.Name })
	})
	return bench.Write(filepath.Join(s.out, "mirror"), "fleet", append(all, figures...))
}

// fleet measures what an installation of several processes does.
func (s settings) fleet(ctx context.Context, o Options) error {
	if s.scaling {
		if err := s.within(o, func(dir, data string) ([]bench.Figure, error) { return s.scale(ctx, o, dir, data) }); err != nil {
			return fmt.Errorf("%s: %w", scaleCase, err)
		}
	}
	if s.kills > 0 {
		return s.within(o, func(dir, data string) ([]bench.Figure, error) { return s.kill(ctx, o, dir, data) })
	}
	return nil
}

// within makes figures in folders that are gone afterwards, on the disk and in memory.
func (s settings) within(o Options, measure func(dir, data string) ([]bench.Figure, error)) (err error) {
	dir, err := os.MkdirTemp(o.Disk, "bench-mirror-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	data, err := os.MkdirTemp(o.RAM, "bench-mirror-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	figures, err := measure(dir, filepath.Join(data, "minio"))
	if err != nil {
		return err
	}
	return s.keep(figures)
}

func (s settings) scale(ctx context.Context, o Options, dir, data string) ([]bench.Figure, error) {
	c := installation.Scale{
		Bin: o.Bin, Self: o.Self, Dir: dir, Data: data, Say: o.Say,
		// One file at a time, so that even four workers leave the processors idle.
		Files: 400, Items: 1, Workers: []int{1, 2, 4}, Rounds: s.rounds, DelayMS: scaleRTT / 2,
	}
	if s.quick {
		c.Files, c.Workers = 40, []int{1, 2}
	}
	all, err := c.Run(ctx)
	if err != nil {
		return nil, err
	}
	return scaleFigures(all), nil
}

func (s settings) kill(ctx context.Context, o Options, dir, data string) ([]bench.Figure, error) {
	k := installation.Kills{Bin: o.Bin, Self: o.Self, Dir: dir, Data: data, Runs: s.kills, Seed: s.seed, Say: o.Say}
	res, err := k.Run(ctx)
	if err != nil {
		return nil, err
	}
	return killFigures(s.kills, res), nil
}

// scaleFigures compares each number of workers with the first, one.
func scaleFigures(all []installation.Measured) (out []bench.Figure) {
	for _, m := range all[min(1, len(all)):] {
		one := spreadOf(all[0].PerSecond).Median
		out = append(out, bench.Figure{
			Name: fmt.Sprintf("mirror_%s_%d", scaleCase, m.Workers), Value: spreadOf(m.PerSecond).Median / one, Unit: "x",
			Goal: scaleGoals()[m.Workers], Better: "higher", N: len(m.PerSecond),
			Means: fmt.Sprintf("bytes per second of %d workers against those of one (%.2f MB/s), each a process, with the store %d ms away and one file at a time", m.Workers, one/1e6, scaleRTT),
		})
	}
	return out
}

// killFigures are only made of runs in which nothing was lost or different.
func killFigures(runs int, r installation.KillsResult) []bench.Figure {
	kills := r.Kills[installation.Worker] + r.Kills[installation.Planner] + r.Kills[installation.NATS]
	return []bench.Figure{
		{Name: "mirror_kills_different", Value: 0, Unit: "runs", Goal: 0, Better: "lower", N: runs,
			Means: fmt.Sprintf("runs whose end another program found different, of %d in which %d processes were killed: %d workers, %d planners, %d times NATS; %d of %d requests had to be made again",
				runs, kills, r.Kills[installation.Worker], r.Kills[installation.Planner], r.Kills[installation.NATS], r.Again, r.Requests)},
		{Name: "mirror_kills_twice", Value: float64(r.Twice), Unit: "objects", Goal: float64(r.Allowed), Better: "lower", N: r.Written,
			Means: "objects that were written again though they were there, against the pieces of work that were in flight when something was killed"},
	}
}
