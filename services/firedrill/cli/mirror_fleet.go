package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// askFleet has a running firedrill run a mirror of its inventory, and shows how far
// it is until it has ended.
func (a *app) askFleet(ctx context.Context, o *mirrorOptions, name string, r fleet.Request) error {
	s, err := a.connect(ctx)
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
	return a.followFleet(ctx, s, o, name, ack.Seq)
}

// followFleet shows the run that the request with that sequence asked for.
func (a *app) followFleet(ctx context.Context, s *session, o *mirrorOptions, name string, seq uint64) error {
	p := a.mirrorPrinter(o)
	run := strconv.FormatUint(seq, 10) + "-"
	began := time.Now()
	var last fleet.Event
	var kind string
	err := s.bus.FollowMirror(ctx, name, seq, func(r bus.Record) error {
		var e fleet.Event
		if err := json.Unmarshal(r.Data, &e); err != nil || !strings.HasPrefix(e.Run, run) {
			return nil // another run's, or another version's
		}
		last, kind = e, r.Kind
		switch r.Kind {
		case fleet.KindStarted:
			began = e.At
		case fleet.KindProgress:
			p.progress(engineProgress(began, e))
		case fleet.KindStalled:
			p.clear()
			fmt.Fprintf(a.Err, "%s stands still: %s\n", name, e.Reason)
		default:
			return bus.Stop
		}
		return nil
	})
	p.clear()
	if err != nil {
		return failure(err)
	}
	return p.fleetEnd(name, kind, last)
}

func engineProgress(began time.Time, e fleet.Event) engine.Progress {
	g := engine.Progress{At: e.At, Began: began}
	if p := e.Progress; p != nil {
		g.Planned = p.LeftSeconds != nil
		g.Seen, g.Actions, g.DoneActions = p.Seen, p.Actions, p.DoneActions
		g.Bytes, g.DoneBytes, g.Failed = p.Bytes, p.DoneBytes, p.Failed
	}
	return g
}

// fleetEnd prints what a run came to.
func (p *mirrorPrinter) fleetEnd(name, kind string, e fleet.Event) error {
	if p.json {
		if err := json.NewEncoder(p.out).Encode(e); err != nil {
			return err
		}
	}
	switch kind {
	case fleet.KindRejected:
		return fmt.Errorf("mirror %s: rejected: %s", name, e.Reason)
	case fleet.KindFailed:
		return failure(fmt.Errorf("mirror %s: %s", name, e.Reason))
	case fleet.KindCancelled:
		return &exitError{code: run.Fail, err: fmt.Errorf("mirror %s: the run was called off", name)}
	}
	if !p.json {
		p.fleetResult(name, e.Result)
	}
	if e.Result == nil || !e.Result.Whole && !e.Result.DryRun {
		return &exitError{code: run.Fail}
	}
	return nil
}

func (p *mirrorPrinter) fleetResult(name string, r *fleet.Result) {
	if r == nil {
		return
	}
	fmt.Fprintf(p.out, "%s: %d copied (%s), %d deleted, %d equal already, %d failed in %.1f s\n",
		name, r.Done["put"], size(r.Bytes), r.Done["delete"], r.Done["equal"], r.Failed, r.Seconds)
	for _, problem := range r.Problems {
		fmt.Fprintln(p.out, "  "+problem)
	}
	if r.Root != "" {
		fmt.Fprintf(p.out, "  manifest   %d entries, root %s\n", r.Entries, r.Root)
	}
}

func (a *app) mirrorCancelCmd() *cobra.Command {
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
			case !known || last.Kind != fleet.KindStarted && last.Kind != fleet.KindProgress && last.Kind != fleet.KindStalled:
				return fmt.Errorf("mirror %s: it does not run now", args[0])
			}
			if err := s.bus.PublishMirrorCommand(cmd.Context(), args[0], "cancel", struct{}{}); err != nil {
				return failure(err)
			}
			err = s.bus.FollowMirror(cmd.Context(), args[0], last.Seq, func(r bus.Record) error {
				switch r.Kind {
				case fleet.KindCancelled, fleet.KindFinished, fleet.KindFailed:
					fmt.Fprintf(a.Out, "mirror %s: %s\n", args[0], r.Kind)
					return bus.Stop
				}
				return nil
			})
			if err != nil && !errors.Is(err, bus.Stop) {
				return failure(err)
			}
			return nil
		}),
	}
}
