package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/inherit"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/heavy"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/runlog"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/stores"
)

// syncFlags are the flags of sync.
type syncFlags struct {
	job.SyncOptions
	check string
	fleetFlags
}

func (a *app) mirrorSyncCmd(o *mirrorOptions) *cobra.Command {
	var sf syncFlags
	use, args := mirrorArgs("sync")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "Make the second location like the first",
		Long: `Make the second location like the first, and leave a signed manifest of what both hold.
It may be repeated at any time: what is equal is not copied again. After an interrupted run
the next one goes on: at most the files that were under way begin anew.

Modes: copy removes nothing. mirror removes what the first location no longer has, last,
only if all before went well and only what was missing in two runs; guards hold that back
where too much would go or the first location looks empty or unmounted. two-way carries
changes both ways, and reports conflicts without resolving them.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := sf.parse()
			if err == nil {
				err = sf.fleetFlags.check(cmd.Flags(), args)
			}
			if err != nil {
				return err
			}
			if sf.fleet {
				return a.askFleet(cmd.Context(), o, args[0], fleet.Request{Check: sf.check, DryRun: sf.DryRun}, sf.timeout)
			}
			s, err := a.mirror(cmd, args, o)
			if err == nil {
				err = s.check()
			}
			if err != nil {
				return err
			}
			if s.Snapshots != nil {
				return a.syncSnapshots(cmd, o, s, sf.SyncOptions)
			}
			for _, w := range append(s.env.Keyless(s.Mirror), s.changed()) {
				if w != "" && !o.json {
					fmt.Fprintln(a.Err, "firedrill: note:", w)
				}
			}
			return a.sync(cmd.Context(), o, s, sf.SyncOptions)
		},
	}
	f := c.Flags()
	o.describe(f)
	o.describeWait(f)
	f.StringVar(&sf.check, "check", "auto", "what to go by for the second location: state (what the last run left there; it is not looked at), listing (its listing), audit (hashes only: what has none is read), or auto (state while the last listing is younger than 24h, else listing)")
	f.BoolVar(&sf.DryRun, "dry-run", false, "do nothing, print what would be done, and exit as the run would")
	f.Int64Var(&sf.MayDelete, "may-delete", 0, "how many entries this run may delete on a side, in place of the mirror's limits; -1 is any number")
	f.BoolVar(&sf.AcceptPlaces, "accept-places", false, "go on although a location is not the disk, dataset or bucket that the mirror was set up with, and take it for the right one from now on")
	sf.fleetFlags.describe(f, "with all its mirror workers")
	f.IntVar(&sf.Items, "transfers", 0, "how many pieces of work are under way at once; 0 lets firedrill choose")
	return c
}

func (sf *syncFlags) parse() (err error) {
	if sf.Check, err = engine.ParseCheck(sf.check); err != nil {
		return fmt.Errorf("--check: %w", err)
	}
	switch {
	case sf.Items < 0:
		return fmt.Errorf("--transfers: %d is no number of pieces: write 1 or more, or 0 to let firedrill choose", sf.Items)
	case sf.MayDelete < -1:
		return fmt.Errorf("--may-delete: %d is no number of entries: write how many, or -1 to take the limits off for this run", sf.MayDelete)
	}
	return nil
}

// sync makes a run in this process.
func (a *app) sync(ctx context.Context, o *mirrorOptions, s *subject, so job.SyncOptions) error {
	p := a.mirrorPrinter(o)
	p.start()
	defer p.stop()
	defer a.guard(p, s)()
	defer mindInterrupt(ctx, p, s.left(so.DryRun))()
	began, first := time.Now(), !runlog.Begun(s.dir())
	if !so.DryRun {
		// What cannot be signed at the end is not begun.
		if _, err := s.env.Signer(); err != nil {
			return failure(&shortError{fmt.Sprintf("the key that signs manifests: %v: name another place for what firedrill keeps with --state-dir", err), err})
		}
	}
	var load *heavy.Work
	defer func() { load.End() }()
	env := s.env
	env.Pass = func(ctx context.Context) error { // It waits before it changes anything.
		load = p.work(ctx, s)
		return load.Pass(ctx)
	}
	j, err := a.open(ctx, o, s, p, runs(so), func() (*job.Job, error) { return env.OpenRun(ctx, s.Mirror, so.DryRun) })
	if err != nil {
		if !errors.Is(err, state.ErrLocked) && ctx.Err() == nil {
			a.noteBegin(s, so, began)
			a.noteEnd(s, so, job.Result{}, err)
		}
		return interrupted(ctx, s.left(so.DryRun), err)
	}
	a.noteBegin(s, so, began)
	if load == nil {
		load = p.work(ctx, s)
	}
	so.Pass, so.Watch, so.Each = load.Pass, p.progress, p.count
	if so.DryRun {
		so.Each = p.each(s.Mirror)
	}
	w := j.Worker()
	w.Read = p.read
	so.Pool = engine.Local{Worker: w, Items: so.Items}
	res, err := j.Sync(ctx, so)
	err = s.plain(s.advise(err))
	if err == nil || ctx.Err() == nil {
		a.noteEnd(s, so, res, err)
	}
	if cerr := j.Close(ctx); err == nil {
		err = s.plain(cerr)
	}
	p.stop()
	if !so.DryRun {
		a.warnStrange(s)
	}
	err = interrupted(ctx, s.left(so.DryRun), syncExit(res, err))
	err = p.result(s.Mirror, so.DryRun, res, err)
	if !res.Began.IsZero() {
		p.removesNothing(s.Mode, s.named, first, p.kept[plan.KeepMode])
	}
	return err
}

// runs is what a run does at its places.
func runs(so job.SyncOptions) job.Use {
	if so.DryRun {
		return job.Looks
	}
	return job.Runs
}

// warnStrange says what of the state this run, by root, could not leave to whom the state's
// directory belongs.
func (a *app) warnStrange(s *subject) {
	if err := inherit.Strange(s.dir()); err != nil {
		fmt.Fprintln(a.Err, "firedrill: warning:", err)
	}
}

// removesNothing says of a run in mode copy that nothing is deleted at the destination:
// where something was left there, and in the first run, as mostly nobody chose that mode.
// named says that an inventory describes the mirror.
func (p *mirrorPrinter) removesNothing(mode string, named, first bool, kept int64) {
	if p.json || modeOf(mode) != drill.MirrorCopy || kept == 0 && !first {
		return
	}
	how := "--mode mirror does, guarded"
	if named {
		how = "with mode: mirror in the inventory it is, guarded"
	}
	fmt.Fprintf(p.out, "  mode       copy: what the source holds no more is not deleted at the destination (%s)\n", how)
}

// left is what an interrupted run leaves behind.
func (s *subject) left(dry bool) string {
	if dry {
		return "nothing was changed"
	}
	return "what was copied stays, and the next run goes on from there"
}

// advise says in the command line's words what the engine refuses.
func (s *subject) advise(err error) error {
	e, ok := errors.AsType[*engine.JobError](err)
	switch {
	case !ok:
		return err
	case e.Field == "Mode":
		way := "give the mirror another name in the inventory"
		if !s.named {
			way = "start anew with another folder in --state"
		}
		return &shortError{fmt.Sprintf("mode %s: what the runs so far remember is that of mode %s, which does not fit: keep that mode, or %s", modeOf(s.Mode), modeOf(s.log.Mirror.Mode), way), err}
	}
	return &shortError{e.Problem + ": " + e.Fix, err}
}

// noteBegin and noteEnd keep what runs came to; err is in the words of the command line. That
// it cannot be noted keeps no run from being made.
func (a *app) noteBegin(s *subject, so job.SyncOptions, at time.Time) {
	if so.DryRun {
		return
	}
	l, known, err := runlog.Read(s.dir())
	if s.before, s.unread = nil, err; known {
		s.before = &l
	}
	if err := runlog.Begin(s.dir(), s.Mirror, requester(), at); err != nil {
		fmt.Fprintln(a.Err, "firedrill:", err)
	}
}

func (a *app) noteEnd(s *subject, so job.SyncOptions, res job.Result, err error) {
	if so.DryRun {
		return
	}
	var nerr error
	if s.unread == nil && refused(err) {
		nerr = runlog.Refused(s.dir(), s.before)
	} else {
		nerr = runlog.End(s.dir(), s.Mirror, res, err, time.Now())
	}
	if nerr != nil {
		fmt.Fprintln(a.Err, "firedrill:", nerr)
	}
}

// refused reports whether a command was refused for what it was given, or was not: nothing was
// looked at, and it tells nothing of the mirror's runs.
func refused(err error) bool {
	_, store := errors.AsType[*stores.StoreError](err)
	_, key := errors.AsType[*stores.KeyError](err)
	return store || key || job.FaultOf(err) == job.FaultDescription
}

// noteCheck keeps what a comparison came to of the mirror that is remembered in dir, which
// is open. Of one that did not come to its end nothing is kept.
func (a *app) noteCheck(dir string, c job.Compared, err error) {
	if err != nil {
		return
	}
	if err := runlog.Checked(dir, runlog.CheckOf(c, requester(), time.Now())); err != nil {
		fmt.Fprintln(a.Err, "firedrill:", err)
	}
}

// mirrorFailure is the exit code of what kept a mirror from running, or from being compared:
// a wrong description is the caller's.
func mirrorFailure(err error) error { return faulty(job.FaultOf(err), err) }

// faulty gives an error the exit code of a fault.
func faulty(f job.Fault, err error) error {
	switch {
	case err == nil:
		return nil
	case f == job.FaultRefused:
		return &exitError{code: run.Fail, err: err}
	case f == job.FaultDescription:
		return err
	}
	return failure(err)
}

// syncExit is how a run ends. A dry one ends as the real one would, as far as that can be
// known: a conflict, or a guard that refuses, is no success because nothing was done.
func syncExit(res job.Result, err error) error {
	switch {
	case err != nil:
		return mirrorFailure(err)
	case res.Whole():
		return nil
	}
	return &exitError{code: run.Fail}
}

// mindInterrupt says that the command ends when ctx does, and what is left where the
// process is then ended at once. The caller calls what it returns when it is done.
func mindInterrupt(ctx context.Context, p *mirrorPrinter, left string) (done func()) {
	run.LastWords(ctx, func() string { return "firedrill: left: " + left + "\n" })
	stop := context.AfterFunc(ctx, func() {
		p.say("firedrill: interrupted: ending what is under way (interrupt again to end at once)")
	})
	return func() { stop() }
}

// interrupted is what a command returns that ctx may have cut short.
func interrupted(ctx context.Context, left string, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return &exitError{code: run.Interrupted, err: errors.New("interrupted: " + left)}
}
