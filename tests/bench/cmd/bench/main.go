// Command bench measures firedrill and writes out/bench/*.jsonl.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/tests/bench"
)

func main() {
	run.Main(func(ctx context.Context, args []string, _ io.Reader, out, errs io.Writer) int {
		fs := flag.NewFlagSet("bench", flag.ContinueOnError)
		dir := fs.String("out", "out/bench", "folder of the results")
		binary := fs.String("firedrill", "out/bin/firedrill", "the program whose memory is measured")
		trials := fs.Int("failovers", 30, "how many primaries to kill")
		only := fs.String("only", "", "measure only this: memory, fold, latency or failover")
		if fs.Parse(args) != nil {
			return run.BadArguments
		}
		say := func(format string, a ...any) { fmt.Fprintf(errs, format+"\n", a...) }
		parts := map[string]func() ([]bench.Figure, error){
			"failover": func() ([]bench.Figure, error) { return bench.Failovers(ctx, *trials, say) },
			"fold":     func() ([]bench.Figure, error) { return bench.Folding(ctx, 20000) },
			"latency":  func() ([]bench.Figure, error) { return bench.RequestToFault(ctx, 20, say) },
			"memory":   func() ([]bench.Figure, error) { return bench.IdleMemory(ctx, *binary) },
		}
		var all []bench.Figure
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
				err = bench.Write(*dir, name, figures)
			}
			if err != nil {
				fmt.Fprintf(errs, "bench %s: %v\n", name, err)
				return run.Fail
			}
			all = append(all, figures...)
		}
		bench.Print(out, all)
		return run.OK
	})
}
