package bench

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/firedrill/firedrill/pkg/run"
)

// Command measures what args ask for, or everything, writes the figures as lines of
// JSON and prints them as a table. It returns an exit code of package run.
func Command(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	dir := fs.String("out", "out/bench", "folder of the results")
	binary := fs.String("firedrill", "out/bin/firedrill", "the program whose memory is measured")
	trials := fs.Int("failovers", 30, "how many primaries to kill")
	only := fs.String("only", "", "measure only this: memory, fold, latency or failover")
	alone := fs.Duration("prober", 0, "only probe at this interval the target whose configuration is on stdin, and print the CPU that takes; for bench itself")
	plain := fs.Duration("bare", 0, "as -prober, with the least that asks as often")
	if fs.Parse(args) != nil {
		return run.BadArguments
	}
	for every, probe := range map[time.Duration]func(context.Context, io.Reader, io.Writer, time.Duration) error{*alone: prober, *plain: bare} {
		if every <= 0 {
			continue
		}
		if err := probe(ctx, in, out, every); err != nil {
			fmt.Fprintf(errs, "bench: probing every %s: %v\n", every, err)
			return run.Fail
		}
		return run.OK
	}
	if *trials < 1 {
		fmt.Fprintf(errs, "bench: -failovers %d: give 1 or more\n", *trials)
		return run.BadArguments
	}
	say := func(format string, a ...any) { fmt.Fprintf(errs, format+"\n", a...) }
	parts := map[string]func() ([]Figure, error){
		"failover": func() ([]Figure, error) { return Failovers(ctx, *trials, say) },
		"fold":     func() ([]Figure, error) { return Folding(ctx, 20000) },
		"latency":  func() ([]Figure, error) { return RequestToFault(ctx, 20, say) },
		"memory":   func() ([]Figure, error) { return IdleMemory(ctx, *binary) },
	}
	var all []Figure
	names := []string{"memory", "fold", "latency", "failover"}
	if *only != "" {
		names = []string{*only}
	}
	for _, name := range names {
		if parts[name] == nil {
			fmt.Fprintf(errs, "bench: there is no part %q\n", name)
			return run.BadArguments
		}
		figures, err := parts[name]()
		if err == nil {
			err = Write(*dir, name, figures)
		}
		if err != nil {
			fmt.Fprintf(errs, "bench %s: %v\n", name, err)
			return run.Fail
		}
		all = append(all, figures...)
	}
	Print(out, all)
	return run.OK
}
