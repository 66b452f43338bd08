package mirror

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/tests/bench"
	installation "github.com/firedrill/firedrill/tests/mirror"
)

// settings are what the command line says.
type settings struct {
	bin, out, docs, disk, ram      string
	contestants, servers, only     string
	rounds, kills                  int
	seed                           uint64
	quick, million, renderRecorded bool
	// racing and scaling say what takes place, beside what kills.
	racing, scaling bool
}

// Command races, and writes figures, runs and the report. It returns an exit code of
// package run: Fail also where a contestant failed, but not for a floor that was
// missed, which the report and the figures say.
func Command(ctx context.Context, args []string, _ io.Reader, out, errs io.Writer) int {
	if len(args) > 0 && args[0] == measureFlag {
		return measureOne(ctx, args[1:], out, errs)
	}
	if len(args) > 0 && args[0] == installation.ServeFlag {
		fmt.Fprintf(errs, "bench-mirror: %v\n", installation.ServeNATS(ctx, args[1:]))
		return run.Fail
	}
	s, err := parse(args, errs)
	if err != nil {
		return run.BadArguments
	}
	o, err := s.options(errs)
	if err != nil {
		fmt.Fprintf(errs, "bench-mirror: %v\n", err)
		return run.BadArguments
	}
	if s.racing {
		err = s.race(ctx, o)
	}
	if err == nil {
		err = s.fleet(ctx, o)
	}
	failed := 0
	if err == nil {
		failed, err = s.render(out)
	}
	if err != nil {
		fmt.Fprintf(errs, "bench-mirror: %v\n", err)
		return run.Fail
	}
	if failed > 0 {
		fmt.Fprintf(errs, "bench-mirror: %d runs failed: %s names them\n", failed, s.recordFile())
		return run.Fail
	}
	return run.OK
}

// parse reads the command line, and says on errs what is wrong with it.
func parse(args []string, errs io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("bench-mirror", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.StringVar(&s.bin, "bin", "out/bin", "folder of the programs: firedrill, rclone, mc, minio")
	flags.StringVar(&s.out, "out", "out/bench", "folder of the figures (mirror.jsonl) and the runs (mirror/runs.jsonl)")
	flags.StringVar(&s.docs, "docs", "docs", "folder of the report and its chart; with -quick they go below -out")
	flags.StringVar(&s.disk, "disk", os.TempDir(), "a folder on a disk, for trees, states and servers' data")
	flags.StringVar(&s.ram, "ram", "/dev/shm", "a folder in memory, for servers' data")
	flags.StringVar(&s.contestants, "contestants", "", "only these, with commas: firedrill, rclone, rclone-best, mc, mc-hash (large files only), firedrill-normal (not batch work; only where it is named); patterns such as rclone* will do")
	flags.StringVar(&s.servers, "servers", "", "only these: ram, ram-tls, disk, disk-tls")
	flags.StringVar(&s.only, "only", "", "only these cases, such as small-upload,huge-*; scale compares one worker with more of them")
	flags.IntVar(&s.kills, "kills", 0, "instead of racing, make so many runs whose processes are killed, and look that nothing is lost")
	flags.Uint64Var(&s.seed, "seed", 1, "other accidents for -kills")
	flags.IntVar(&s.rounds, "runs", 3, "how often each contestant takes its turn in each case")
	flags.BoolVar(&s.quick, "quick", false, "small trees, one run each: shows that everything works")
	flags.BoolVar(&s.million, "million", false, "also the cases with a million files, which take many minutes")
	flags.BoolVar(&s.renderRecorded, "render", false, "run nothing, and write figures and report of the recorded runs again")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 || s.rounds < 1 {
		err := errors.New("it takes flags only, and -runs of 1 or more")
		fmt.Fprintf(errs, "bench-mirror: %v\n", err)
		return s, err
	}
	if s.quick {
		s.rounds, s.out = min(s.rounds, 1), filepath.Join(s.out, "quick")
		s.docs = s.out
	}
	switch {
	case s.renderRecorded:
		s.kills = 0
	case s.kills > 0:
	default:
		s.scaling, s.only, s.racing = takeScale(s.only)
	}
	return s, nil
}

func (s settings) recordFile() string { return filepath.Join(s.out, "mirror", "runs.jsonl") }

// options chooses what takes part.
func (s settings) options(errs io.Writer) (Options, error) {
	o := Options{Bin: s.bin, Disk: s.disk, RAM: s.ram, Rounds: s.rounds, Settle: settleTime}
	o.Say = func(format string, a ...any) { fmt.Fprintf(errs, format+"\n", a...) }
	var err error
	if o.Bin, err = filepath.Abs(s.bin); err != nil {
		return o, err
	}
	if o.Disk, err = filepath.Abs(s.disk); err != nil {
		return o, err
	}
	if o.Self, err = os.Executable(); err != nil {
		return o, err
	}
	if o.Runners, err = choose(Contestants(), Runner.Name, s.contestants, "contestant"); err != nil {
		return o, err
	}
	if s.contestants == "" {
		o.Runners = slices.DeleteFunc(o.Runners, func(r Runner) bool { return r.Name() == nameNormal })
	}
	if o.Servers, err = choose(Servers(), func(v Server) string { return v.Name }, s.servers, "server"); err != nil {
		return o, err
	}
	cases := slices.DeleteFunc(Cases(s.quick), func(c Case) bool { return c.Million && !s.million })
	if o.Cases, err = choose(cases, func(c Case) string { return c.Name }, s.only, "case (those with a million files need -million)"); err != nil {
		return o, err
	}
	if !s.racing {
		return o, nil
	}
	return o, present(o.Bin, o.Runners)
}

// race records each run as soon as it ended, so that a race that is stopped leaves
// what it found.
func (s settings) race(ctx context.Context, o Options) error {
	m, err := thisMachine(o.Bin, append(programsOf(o.Runners), "minio"))
	if err != nil {
		return err
	}
	m.Rounds, m.Quick = s.rounds, s.quick
	if err := os.MkdirAll(filepath.Dir(s.recordFile()), 0o755); err != nil {
		return err
	}
	f, err := os.Create(s.recordFile())
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeMachine(f, m); err != nil {
		return err
	}
	o.Took = func(r Run) error { return writeRun(f, r) }
	if err := Race(ctx, o); err != nil {
		return err
	}
	return f.Close()
}

// render writes the figures that there are and, of a race, report and chart, and says
// how many of its runs failed.
func (s settings) render(out io.Writer) (failed int, err error) {
	fleet, err := s.fleetFigures()
	if err != nil {
		return 0, err
	}
	record, err := s.recorded()
	unraced := errors.Is(err, fs.ErrNotExist) && len(fleet) > 0
	if err != nil && !unraced {
		return 0, err
	}
	rows := Rows(Cases(record.Machine.Quick), Servers(), record.Runs)
	var figures []bench.Figure
	for _, r := range rows {
		for _, v := range r.Verdicts() {
			figures = append(figures, v.Figure)
		}
	}
	figures = append(figures, fleet...)
	if err := bench.Write(s.out, "mirror", figures); err != nil {
		return 0, err
	}
	bench.Print(out, figures)
	if unraced || !s.racing && !s.renderRecorded {
		return 0, nil // The report is about the race.
	}
	for _, r := range record.Runs {
		if r.Failure != "" {
			failed++
		}
	}
	err = writeFile(filepath.Join(s.docs, "mirror-bench.md"), func(w io.Writer) error { return writeReport(w, record.Machine, rows) })
	if err != nil {
		return failed, err
	}
	return failed, writeFile(filepath.Join(s.docs, chartFile), func(w io.Writer) error { return writeChart(w, rows) })
}

// recorded reads the last race.
func (s settings) recorded() (Record, error) {
	f, err := os.Open(s.recordFile())
	if err != nil {
		return Record{}, fmt.Errorf("%w: race first, without -render", err)
	}
	defer f.Close()
	record, err := ReadRecord(f)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", s.recordFile(), err)
	}
	return record, nil
}

// writeFile writes a file beside the old one first, so that no half one is left.
func writeFile(name string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name + ".part")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(name+".part", name)
}
