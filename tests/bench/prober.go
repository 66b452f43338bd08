package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// probing is what a way to probe costs in percent of a core, measured in a process that
// does nothing else: the lab's relay runs in this one. way is the flag of Command that
// stands for it.
func probing(ctx context.Context, way string, config json.RawMessage, every time.Duration) (percent float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, "-"+way, every.String())
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(config), &out, &errs
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s at %v: %w: %s", way, every, err, &errs)
	}
	_, err = fmt.Sscan(out.String(), &percent)
	return percent, err
}

// prober runs the observer's lanes against the target whose configuration it reads
// for ten seconds, and prints the CPU time that took in percent of a core.
func prober(ctx context.Context, in io.Reader, out io.Writer, every time.Duration) error {
	config, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	t, err := postgres.Driver{}.Open(ctx, target.Config{Name: "orders", Raw: config, Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()
	pooled, fresh, err := (&failoverBench{target: t}).lanes(ctx, "cpu-"+every.String(), every)
	if err != nil {
		return err
	}
	pause(ctx, time.Second) // the first connections are the start's
	before, began := cpuTime(), time.Now()
	pause(ctx, 10*time.Second)
	used, took := cpuTime()-before, time.Since(began)
	if err := pooled.Stop(ctx); err != nil {
		return err
	}
	if err := fresh.Stop(ctx); err != nil {
		return err
	}
	for _, a := range append(lane(target.LanePooled, pooled).Attempts, lane(target.LaneFresh, fresh).Attempts...) {
		if a.Bad() {
			return fmt.Errorf("attempt %d was bad: what it cost says nothing", a.Seq)
		}
	}
	_, err = fmt.Fprintln(out, 100*used.Seconds()/took.Seconds())
	return err
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
