package mirror

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/tests/bench"
)

// settings are what the command line says.
type settings struct {
	bin, out, docs, disk, ram      string
	contestants, servers, only     string
	rounds                         int
	quick, million, renderRecorded bool
}

// Command races, and writes figures, runs and the report. It returns an exit code of
// package run: Fail also where a contestant failed, but not for a floor that was
// missed, which the report and the figures say.
func Command(ctx context.Context, args []string, _ io.Reader, out, errs io.Writer) int {
	if len(args) > 0 && args[0] == measureFlag {
		return measureOne(ctx, args[1:], out, errs)
	}
	var s settings
	fs := flag.NewFlagSet("bench-mirror", flag.ContinueOnError)
	fs.SetOutput(errs)
	fs.StringVar(&s.bin, "bin", "out/bin", "folder of the programs: firedrill, rclone, mc, minio")
	fs.StringVar(&s.out, "out", "out/bench", "folder of the figures (mirror.jsonl) and the runs (mirror/runs.jsonl)")
	fs.StringVar(&s.docs, "docs", "docs", "folder of the report and its chart; with -quick they go below -out")
	fs.StringVar(&s.disk, "disk", os.TempDir(), "a folder on a disk, for trees, states and servers' data")
	fs.StringVar(&s.ram, "ram", "/dev/shm", "a folder in memory, for servers' data")
	fs.StringVar(&s.contestants, "contestants", "", "only these, with commas: firedrill, rclone, rclone-best, mc; patterns such as rclone* will do")
	fs.StringVar(&s.servers, "servers", "", "only these: ram, ram-tls, disk, disk-tls")
	fs.StringVar(&s.only, "only", "", "only these cases, such as small-upload,huge-*")
	fs.IntVar(&s.rounds, "runs", 3, "how often each contestant takes its turn in each case")
	fs.BoolVar(&s.quick, "quick", false, "small trees, one run each: shows that everything works")
	fs.BoolVar(&s.million, "million", false, "also the cases with a million files, which take many minutes")
	fs.BoolVar(&s.renderRecorded, "render", false, "run nothing, and write figures and report of the recorded runs again")
	if err := fs.Parse(args); err != nil {
		return run.BadArguments
	}
	if fs.NArg() > 0 || s.rounds < 1 {
		fmt.Fprintf(errs, "bench-mirror: it takes flags only, and -runs of 1 or more\n")
		return run.BadArguments
	}
	if s.quick {
		s.rounds, s.out = min(s.rounds, 1), filepath.Join(s.out, "quick")
		s.docs = s.out
	}
	o, err := s.options(errs)
	if err != nil {
		fmt.Fprintf(errs, "bench-mirror: %v\n", err)
		return run.BadArguments
	}
	if !s.renderRecorded {
		if err := s.race(ctx, o); err != nil {
			fmt.Fprintf(errs, "bench-mirror: %v\n", err)
			return run.Fail
		}
	}
	failed, err := s.render(out)
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
	if o.Servers, err = choose(Servers(), func(v Server) string { return v.Name }, s.servers, "server"); err != nil {
		return o, err
	}
	cases := slices.DeleteFunc(Cases(s.quick), func(c Case) bool { return c.Million && !s.million })
	if o.Cases, err = choose(cases, func(c Case) string { return c.Name }, s.only, "case (those with a million files need -million)"); err != nil {
		return o, err
	}
	if s.renderRecorded {
		return o, nil
	}
	return o, present(o.Bin, o.Runners)
}

// race records each run as soon as it ended, so that a race that is stopped leaves
// what it found.
func (s settings) race(ctx context.Context, o Options) error {
	programs := []string{"minio"}
	for _, r := range o.Runners {
		if !slices.Contains(programs, r.Program()) {
			programs = append(programs, r.Program())
		}
	}
	m, err := thisMachine(o.Bin, programs)
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

// render writes figures, report and chart of what is recorded, and says how many
// runs failed.
func (s settings) render(out io.Writer) (failed int, err error) {
	f, err := os.Open(s.recordFile())
	if err != nil {
		return 0, fmt.Errorf("%w: race first, without -render", err)
	}
	defer f.Close()
	record, err := ReadRecord(f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.recordFile(), err)
	}
	for _, r := range record.Runs {
		if r.Failure != "" {
			failed++
		}
	}
	rows := Rows(Cases(record.Machine.Quick), Servers(), record.Runs)
	var figures []bench.Figure
	for _, r := range rows {
		for _, v := range r.Verdicts() {
			figures = append(figures, v.Figure)
		}
	}
	if err := bench.Write(s.out, "mirror", figures); err != nil {
		return failed, err
	}
	bench.Print(out, figures)
	err = writeFile(filepath.Join(s.docs, "mirror-bench.md"), func(w io.Writer) error { return writeReport(w, record.Machine, rows) })
	if err != nil {
		return failed, err
	}
	return failed, writeFile(filepath.Join(s.docs, chartFile), func(w io.Writer) error { return writeChart(w, rows) })
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
