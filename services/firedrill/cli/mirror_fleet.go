package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// errWatched is why the watching of a run ends that takes longer than --timeout.
var errWatched = errors.New("the time of --timeout is over")

// askFleet has a running firedrill run a mirror of its inventory, and shows how far
// it is until it has ended, or for as long as timeout, unless that is 0.
func (a *app) askFleet(ctx context.Context, o *mirrorOptions, name string, r fleet.Request, timeout time.Duration) error {
	s, err := a.join(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	subject, err := bus.MirrorRequest{Who: requester(), Mirror: name}.Subject()
	if err != nil {
		return fmt.Errorf("mirror %q: %w", name, err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	ack, err := s.bus.Publish(ctx, subject, body, "")
	if err != nil {
		return failure(err)
	}
	left := fmt.Sprintf("the run goes on: %s shows it, and %s calls it off", a.command("mirror status "+name), a.command("mirror cancel "+name))
	p := a.mirrorPrinter(o)
	p.start()
	defer p.stop()
	run.LastWords(ctx, func() string { return "firedrill: no longer watching; " + left + "\n" })
	watch := ctx
	if timeout > 0 {
		var stop context.CancelFunc
		watch, stop = context.WithTimeoutCause(ctx, timeout, errWatched)
		defer stop()
	}
	began := time.Now()
	kind, last, err := fleet.Follow(watch, s.bus, name, ack.Seq, func(kind string, e fleet.Event) {
		switch kind {
		case fleet.KindStarted:
			began = e.At
		case fleet.KindProgress:
			p.progress(engineProgress(began, e))
		case fleet.KindStalled:
			p.say(fmt.Sprintf("firedrill: %s stands still: %s", name, e.Reason))
		}
	})
	p.stop()
	switch {
	case err == nil:
		return p.fleetEnd(name, kind, last)
	case ctx.Err() == nil && errors.Is(context.Cause(watch), errWatched):
		err = fmt.Errorf("mirror %s: %w (%s) and it has not ended; %s", name, errWatched, timeout, left)
	}
	return interrupted(ctx, "no longer watching; "+left, failure(err))
}

func engineProgress(began time.Time, e fleet.Event) engine.Progress {
	g := engine.Progress{At: e.At, Began: began}
	if p := e.Progress; p != nil {
		g.Planned, g.Seen, g.Actions, g.DoneActions = p.Planned, p.Seen, p.Actions, p.DoneActions
		g.Bytes, g.DoneBytes, g.Failed = p.Bytes, p.DoneBytes, p.Failed
	}
	return g
}

// fleetEnd prints what a run came to.
func (p *mirrorPrinter) fleetEnd(name, kind string, e fleet.Event) error {
	var err error
	switch kind {
	case fleet.KindRejected:
		err = fmt.Errorf("mirror %s: rejected: %s", name, e.Reason)
	case fleet.KindFailed:
		err = failure(errors.New(e.Reason))
	case fleet.KindCancelled:
		err = &exitError{code: run.Fail, err: fmt.Errorf("mirror %s: the run was called off", name)}
	}
	if err != nil {
		return err
	}
	if p.json {
		if err := writeJSON(p.out, e); err != nil {
			return failure(err)
		}
	} else {
		p.fleetResult(name, e.Result)
	}
	if e.Result == nil || !e.Result.Whole {
		return &exitError{code: run.Fail}
	}
	return nil
}

func (p *mirrorPrinter) fleetResult(name string, r *fleet.Result) {
	if r == nil {
		return
	}
	if r.DryRun {
		fmt.Fprintf(p.out, "%s: nothing was done; it would have copied %d (%s), deleted %d; %d equal already, %d believed equal (the same without --fleet says which)\n",
			name, r.Done["put"], size(r.Bytes), r.Done["delete"], r.Done["equal"]-r.Believed, r.Believed)
	} else {
		fmt.Fprintf(p.out, "%s: %d copied (%s), %d deleted, %d equal already, %d believed equal, %d failed in %.1f s\n",
			name, r.Done["put"], size(r.Bytes), r.Done["delete"], r.Done["equal"]-r.Believed, r.Believed, r.Failed, r.Seconds)
	}
	for _, problem := range r.Problems {
		fmt.Fprintln(p.out, "  "+problem)
	}
	if r.Root != "" {
		fmt.Fprintf(p.out, "  manifest   %d entries, root %s\n", r.Entries, r.Root)
	}
}

func (a *app) mirrorCancelCmd(o *mirrorOptions) *cobra.Command {
	return &cobra.Command{
		Use: "cancel NAME", Args: cobra.ExactArgs(1),
		Short: "Call off the run of a mirror that a running firedrill makes",
		Long: `Call off the run of a mirror that a running firedrill makes. What it has copied
stays, and the next run goes on from there.`,
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			last, known, err := s.bus.LastMirror(cmd.Context(), args[0])
			switch {
			case err != nil:
				return failure(err)
			case !known || !underWayKind(last.Kind):
				return fmt.Errorf("mirror %s: it does not run now", args[0])
			}
			var running fleet.Event
			if err := json.Unmarshal(last.Data, &running); err != nil {
				return fmt.Errorf("mirror %s: read what is told of its run: %w", args[0], err)
			}
			if err := s.bus.PublishMirrorCommand(cmd.Context(), args[0], "cancel", fleet.Cancel{Run: running.Run}); err != nil {
				return failure(err)
			}
			kind := ""
			err = s.bus.FollowMirror(cmd.Context(), args[0], last.Seq, func(r bus.Record) error {
				switch r.Kind {
				case fleet.KindCancelled, fleet.KindFinished, fleet.KindFailed:
					kind = r.Kind
					return bus.Stop
				}
				return nil
			})
			if err != nil && !errors.Is(err, bus.Stop) {
				return interrupted(cmd.Context(), "it is being called off", failure(err))
			}
			if o.json {
				return writeJSON(a.Out, map[string]string{"mirror": args[0], "ended": kind})
			}
			fmt.Fprintf(a.Out, "mirror %s: %s\n", args[0], kind)
			return nil
		}),
	}
}

// underWayKind reports whether a run whose last event is of that kind has not ended.
func underWayKind(kind string) bool {
	return kind == fleet.KindStarted || kind == fleet.KindProgress || kind == fleet.KindStalled
}
