package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// errWatched is why the watching of a run ends that takes longer than --timeout.
var errWatched = errors.New("the time of --timeout is over")

// goneWait is for how long a run is watched of which nothing can be heard.
const goneWait = 30 * time.Second

// askFleet has a running firedrill run a mirror of its inventory, and shows how far
// it is until it has ended, or for as long as timeout, unless that is 0.
func (a *app) askFleet(ctx context.Context, o *mirrorOptions, name string, r fleet.Request, timeout time.Duration) error {
	w := &fleetWatch{app: a, name: name, patience: goneWait, p: a.mirrorPrinter(o)}
	return w.ask(ctx, r, timeout)
}

// fleetWatch watches a run of the fleet, by one connection after the other.
type fleetWatch struct {
	*app
	name string
	// patience is how long it is borne with that nothing can be heard.
	patience time.Duration
	p        *mirrorPrinter
	run      *fleet.Watch
	began    time.Time
	// waits says that the run was told to wait.
	waits bool
	s     *session
	// lost is the address of a firedrill that cannot be reached; nil while one can.
	lost atomic.Pointer[string]
}

// ask asks for a run and watches it.
func (w *fleetWatch) ask(ctx context.Context, r fleet.Request, timeout time.Duration) (err error) {
	subject, err := bus.MirrorRequest{Who: requester(), Mirror: w.name}.Subject()
	if err != nil {
		return fmt.Errorf("mirror %q: %w", w.name, err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if w.s, err = w.join(ctx); err != nil {
		return err
	}
	defer func() { w.s.close() }()
	ack, err := w.s.bus.Publish(ctx, subject, body, "")
	if err != nil {
		return failure(err)
	}
	w.run, w.began = fleet.NewWatch(w.name, ack.Seq, w.show), time.Now()
	w.p.start()
	defer w.p.stop()
	run.LastWords(ctx, func() string { return "firedrill: no longer watching; " + w.left() + "\n" })
	watch := ctx
	if timeout > 0 {
		var stop context.CancelFunc
		watch, stop = context.WithTimeoutCause(ctx, timeout, errWatched)
		defer stop()
	}
	err = w.end(watch, "it may go on by itself")
	w.p.stop()
	switch {
	case err == nil:
		kind, last := w.run.Heard()
		return w.p.fleetEnd(w.name, kind, last)
	case ctx.Err() == nil && errors.Is(context.Cause(watch), errWatched):
		err = fmt.Errorf("mirror %s: %w (%s), and no end of the run was seen; %s", w.name, errWatched, timeout, w.left())
	}
	return interrupted(ctx, "no longer watching; "+w.left(), failure(err))
}

// show shows what is told of the run before its end.
func (w *fleetWatch) show(kind string, e fleet.Event) {
	switch kind {
	case fleet.KindWaiting:
		if !w.waits {
			w.p.say(fmt.Sprintf("firedrill: %s waits: %s", w.name, e.Reason))
		}
		w.waits = true
	case fleet.KindStarted:
		w.began, w.waits = e.At, false
	case fleet.KindProgress:
		if w.waits && e.Since == nil {
			w.p.say(fmt.Sprintf("firedrill: %s goes on", w.name))
			w.waits = false
		}
		w.p.progress(engineProgress(w.began, e))
	case fleet.KindStalled:
		w.p.say(fmt.Sprintf("firedrill: %s stands still: %s", w.name, e.Reason))
	}
}

// left says what becomes of a run that is watched no longer.
func (w *fleetWatch) left() string {
	if at := w.lost.Load(); at != nil {
		return fmt.Sprintf("the connection to %s is lost, so whether the run goes on is not known here: %s tells once a firedrill can be reached", *at, w.statusCommand())
	}
	return fmt.Sprintf("the run goes on: %s shows it, and %s calls it off", w.statusCommand(), w.command("mirror cancel "+w.name))
}

// statusCommand is what shows how the mirror's runs ended.
func (w *fleetWatch) statusCommand() string {
	return w.command("mirror status --inventory " + cmp.Or(w.inventory, "FILE") + " " + w.name)
}

// end waits for the run's end, for as long as there is anybody who could tell of it. later
// says what becomes of the run where there is nobody.
func (w *fleetWatch) end(ctx context.Context, later string) error {
	for {
		err := w.follow(ctx)
		switch {
		case errors.Is(err, fleet.ErrNobody):
			return fmt.Errorf("mirror %s: nobody works on the run: for %s no process that runs mirrors has waited for requests at %s, and no run there has told how far it is; %s; its request is kept, and %s when a firedrill that has this mirror is up there again: %s tells",
				w.name, w.patience, w.address(), w.heard(), later, w.statusCommand())
		case !errors.Is(err, fleet.ErrUnreachable):
			return err
		}
		if err := w.regain(ctx, later); err != nil {
			return err
		}
	}
}

// follow follows the run by the connection that there is, until the run's end, or until
// that has become useless.
func (w *fleetWatch) follow(ctx context.Context) error {
	here, cancel := context.WithCancelCause(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel(nil)
	s := w.s
	all.Go(func() {
		if err := fleet.Attend(here, s.bus, w.patience); err != nil {
			cancel(err)
		}
	})
	all.Go(func() {
		if w.awaitEnd(here, s) {
			cancel(fleet.ErrUnreachable)
		}
	})
	err := w.run.Follow(here, s.bus)
	if err != nil && ctx.Err() == nil && here.Err() != nil {
		return context.Cause(here)
	}
	return err
}

// regain waits, where the connection is lost, for the firedrill that was asked or for
// another one in its place, which takes its runs up. Where none comes it looks whether the
// run's end is in what the one that was asked has left, and else says what is known.
func (w *fleetWatch) regain(ctx context.Context, later string) error {
	at := w.address()
	w.lost.Store(&at)
	w.p.say(fmt.Sprintf("firedrill: lost the connection to %s; waiting up to %s for a firedrill there", at, w.patience))
	limit, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	for !w.reached(limit) {
		select {
		case <-tick.C:
			continue
		case <-limit.Done():
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return w.gone(ctx, at, later)
	}
	w.lost.Store(nil)
	w.p.say("firedrill: connected again, to " + w.address())
	return nil
}

// reached reports whether there is a firedrill to be asked, and connects to it.
func (w *fleetWatch) reached(ctx context.Context) bool {
	if w.runsStill(w.s.record) { // or servers were named
		_, _, err := w.s.bus.LastMirror(ctx, w.name)
		return err == nil
	}
	s, err := w.join(ctx)
	if err != nil {
		return false
	}
	w.s.close()
	w.s = s
	return true
}

// gone says what is known of a run whose firedrill has not come back; nil if it has ended.
func (w *fleetWatch) gone(ctx context.Context, at, later string) error {
	since, up := "what became of it since is not known here", "its mirror processes can be reached there again"
	if w.s.record.NATSURL != "" {
		up = w.command("up --inventory "+cmp.Or(w.inventory, "FILE")) + " runs here again"
		// It must not be made anew, nor be in the way of a firedrill that starts.
		if w.hasStore() {
			err := w.patiently(ctx, func(ctx context.Context, b *bus.Bus, _ bool) error { return w.run.CatchUp(ctx, b) }, func() {})
			switch {
			case w.run.Ended():
				return nil
			case err == nil:
				since = "it has not ended"
			}
		}
	}
	return fmt.Errorf("mirror %s: lost the connection to %s, and there was no firedrill for %s: %s, and %s; its request is kept, and %s when %s: %s tells",
		w.name, at, w.patience, w.heard(), since, later, up, w.statusCommand())
}

// heard says what is known of a run that has not ended.
func (w *fleetWatch) heard() string {
	kind, last := w.run.Heard()
	if kind == "" {
		return "that the run began was not heard of"
	}
	if kind == fleet.KindWaiting {
		return fmt.Sprintf("the run was last heard of at %s, when it waited: %s", clockTime(last.At), last.Reason)
	}
	far := &runningJSON{Since: w.began}
	if p := last.Progress; p != nil {
		shown := *p
		shown.LeftSeconds = nil // by when it was told
		far.Progress = &shown
	}
	return fmt.Sprintf("the run was last heard of at %s, under way %s", clockTime(last.At), far.words())
}

// address is that of the servers that are asked.
func (w *fleetWatch) address() string { return cmp.Or(w.s.record.NATSURL, bus.Redact(w.nats.URL)) }

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
		err = faulty(e.Fault, errors.New(e.Reason))
	case fleet.KindCancelled:
		err = &exitError{code: run.Fail, err: fmt.Errorf("mirror %s: %s", name, cmp.Or(e.Reason, fleet.ErrCancelled.Error()))}
	}
	if err != nil {
		return err
	}
	if p.json {
		if err := writeJSON(p.out, e); err != nil {
			return failure(err)
		}
	} else if e.Outcome != nil {
		_ = p.compared(e.Outcome.Compared(), nil) // Who made it says whether it is good.
	} else {
		p.fleetResult(name, e.Result)
	}
	if e.Outcome != nil && e.Outcome.Good {
		return nil
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
	did, more := counts(fleetReport(r)), ""
	if r.DryRun {
		did, more = "would have: "+did, " (the same without --fleet says which)"
	}
	fmt.Fprintf(p.out, "%s: %s in %.1f s%s\n", name, did, r.Seconds, more)
	// What a run of one's own says of the same.
	own := job.Result{New: r.NewDestination, Disowned: r.OwnersNotSet, Unread: r.Unchecked, Untried: r.Untried, Unasked: r.Unasked}
	own.Replaced, own.Mended = r.Replaced, [2]int64{plan.Source: r.SourcePermissionsSet, plan.Dest: r.PermissionsSet - r.SourcePermissionsSet}
	if r.Compared != nil {
		own.Check = engine.CheckAudit
		own.Compared = [2]int64{plan.Source: r.Compared[plan.Source.String()], plan.Dest: r.Compared[plan.Dest.String()]}
	}
	for _, note := range r.Keyless {
		fmt.Fprintln(p.err, "firedrill: note:", note)
	}
	p.reportNotes(drill.Mirror{From: r.From, To: r.To, Mode: r.Mode}, r.DryRun, own)
	for _, k := range r.Kept {
		if why := plan.Reason(k.Why); why != plan.KeepGuarded { // of which the problems tell
			p.kept[why] = k.Entries
		}
	}
	p.reportKept(drill.Mirror{Mode: r.Mode, Deletes: drill.MirrorDeletes{Scans: r.Scans}}, job.Result{})
	for _, problem := range r.Problems {
		fmt.Fprintln(p.out, "  "+problem)
	}
	if r.Root != "" {
		fmt.Fprintf(p.out, "  manifest   %d entries, root %s\n", r.Entries, r.Root)
	}
	p.removesNothing(r.Mode, true, r.FirstRun, r.KeptByMode)
}

// fleetReport is what counts are made of.
func fleetReport(r *fleet.Result) engine.Report {
	out := engine.Report{Began: r.Began, Believed: r.Believed, Listed: r.Listed, Failed: r.Failed, Done: map[plan.Op]int64{}, Bytes: map[plan.Op]int64{plan.Put: r.Bytes}}
	for op := plan.Equal; op <= plan.Gone; op++ {
		out.Done[op] = r.Done[op.String()]
	}
	return out
}

func (a *app) mirrorCancelCmd(o *mirrorOptions) *cobra.Command {
	return &cobra.Command{
		Use: "cancel NAME", Args: cobra.ExactArgs(1),
		Short: "Call off the run of a mirror that a running firedrill makes",
		Long: `Call off the run of a mirror that a running firedrill makes, or, where none is under
way, the one that waits. What it has copied stays, and the next run goes on from there.`,
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			u, err := fleet.UnderWay(cmd.Context(), s.bus, args[0])
			switch {
			case err != nil:
				return failure(fmt.Errorf("mirror %s: %w", args[0], err))
			case u.Last.Run == "":
				return a.notRunning(cmd.Context(), s.bus, args[0])
			}
			if err := s.bus.PublishMirrorCommand(cmd.Context(), args[0], "cancel", fleet.Cancel{Run: u.Last.Run, By: requester()}); err != nil {
				return failure(err)
			}
			w := &fleetWatch{app: a, name: args[0], patience: goneWait, p: a.mirrorPrinter(o), s: s,
				run: fleet.WatchRun(args[0], u.Last.Run, u.Seq), began: u.Last.At}
			defer func() {
				if w.s != s {
					w.s.close()
				}
			}()
			if err := w.end(cmd.Context(), "the run is called off"); err != nil {
				return interrupted(cmd.Context(), "it is being called off", failure(err))
			}
			kind, _ := w.run.Heard()
			if o.json {
				return writeJSON(a.Out, map[string]string{"mirror": args[0], "ended": kind})
			}
			fmt.Fprintf(a.Out, "mirror %s: %s\n", args[0], kind)
			return nil
		}),
	}
}

// notRunning says that there is no run of a mirror to be called off, and why not where it may
// be the name.
func (a *app) notRunning(ctx context.Context, b *bus.Bus, name string) error {
	_, inv, err := a.mirrorEnv(&mirrorOptions{})
	if err != nil {
		return err
	}
	if _, known := inv.FindMirror(name); a.inventory != "" && !known {
		return fmt.Errorf("mirror %q: the inventory %s has none of that name; it has %s", name, a.inventory, names(inv.Spec.Mirrors))
	}
	_, told, err := b.LastMirror(ctx, name)
	if err != nil {
		return failure(fmt.Errorf("mirror %s: %w", name, err))
	}
	if !told {
		return &exitError{code: run.Fail, err: fmt.Errorf("mirror %q: no run of a mirror of that name was ever heard of there, so none can be called off: %s lists those that there are", name, a.command("mirror status --inventory "+cmp.Or(a.inventory, "FILE")))}
	}
	return &exitError{code: run.Fail, err: fmt.Errorf("mirror %s: no run of it is under way, and none that was asked for waits, so none can be called off: %s tells how its last runs ended", name, a.command("mirror status --inventory "+cmp.Or(a.inventory, "FILE")+" "+name))}
}
