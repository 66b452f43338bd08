package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/runlog"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

func (a *app) mirrorStatusCmd(o *mirrorOptions) *cobra.Command {
	return &cobra.Command{
		Use: "status [NAME | FROM TO]", Args: cobra.MaximumNArgs(2),
		Short: "Say what is known of a mirror, or list all",
		Long: `Say how the last runs of a mirror ended and when the next one is due; without an
argument, list the mirrors of the inventory and those that have run here. It looks
at neither location and changes nothing, and works also while a run is under way.

It exits with 0 if all is well with the mirror, or with all of the inventory (without one:
all that are listed): the last run that ended left nothing undone, no check has found drift
that is still there as far as is known, the last verification could be made, nothing stands
still, what the mirror does by itself, verifications included, is not late by more than
another interval, and the firedrill that is to run it answers. Else it exits with 1, and
says why.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.listMirrors(cmd.Context(), o)
			}
			s, err := a.mirror(cmd, args, o)
			if err != nil {
				return err
			}
			if err := s.check(); err != nil {
				return err
			}
			if !s.named && s.log.Mirror.From != "" {
				s.Mirror = s.log.Mirror
			}
			view, done := a.fleetView(cmd.Context())
			defer done()
			_, inv, err := a.mirrorEnv(o)
			if err != nil {
				return err
			}
			st, err := s.status(cmd.Context(), view, inv)
			if err != nil {
				return failure(s.plain(err))
			}
			if o.json {
				if err := writeJSON(a.Out, st); err != nil {
					return err
				}
			} else {
				st.print(a)
			}
			return wellExit(st.Well)
		},
	}
}

// wellExit is the exit code of what is well, or not.
func wellExit(well bool) error {
	if well {
		return nil
	}
	return &exitError{code: run.Fail}
}

// mirrorStatus is what is known of a mirror without looking at its places.
type mirrorStatus struct {
	Name string `json:"name,omitempty"`
	From string `json:"from"`
	To   string `json:"to"`
	// Mode is left out where nothing is known of the mirror.
	Mode   string   `json:"mode,omitempty"`
	Filter []string `json:"filter,omitempty"`
	// State is never, waiting (all is well, or it never ran, and a run waits for others),
	// running, stalled (it stands still), ok, drift (a check has found that a side is not what
	// the last run left), overdue (what it does by itself is late), undone (a run left something
	// undone), failed, cancelled or interrupted (its process is gone).
	State string `json:"state"`
	// Well says that nothing of it calls for anybody, Problems what does.
	Well     bool     `json:"well"`
	Problems []string `json:"problems,omitempty"`
	// KeepDeleted is how long what its runs delete is kept, which they prune.
	KeepDeleted string `json:"keepDeleted,omitempty"`
	// Running is there while a process has the mirror, or has a run in hands that waits.
	Running *runningJSON `json:"running,omitempty"`
	// Last is the last run that began, Success the last that left nothing to be done,
	// Failure the last other one that ended.
	Last    *runlog.Run `json:"last,omitempty"`
	Success *runlog.Run `json:"success,omitempty"`
	Failure *runlog.Run `json:"failure,omitempty"`
	// Check is what verify, drift or audit found last, Unchecked why a later one could not be
	// made.
	Check     *runlog.Check `json:"check,omitempty"`
	Unchecked string        `json:"unchecked,omitempty"`
	// Listed is when the destination was last listed in full.
	Listed *time.Time `json:"listed,omitempty"`
	// Schedule says when it runs by itself, Next when it does so next; Next is left out
	// while no firedrill that has the mirror runs.
	Schedule string     `json:"schedule,omitempty"`
	Next     *time.Time `json:"next,omitempty"`
	// VerifySchedule and NextVerify are those of its verification.
	VerifySchedule string     `json:"verifySchedule,omitempty"`
	NextVerify     *time.Time `json:"nextVerify,omitempty"`

	// Of are the places of the run that left what is remembered, where the inventory names
	// others by now.
	Of *movedJSON `json:"of,omitempty"`

	// dir is where runs are remembered.
	dir string
	// lost is why the firedrill that runs it could not be asked, unread why what its runs came
	// to could not be read as a whole.
	lost, unread error
	// verifiable is since when it could have been verified by itself; zero if that is not known.
	verifiable time.Time
}

// runningJSON is who has a mirror, since when, and how far a run is.
type runningJSON struct {
	Since time.Time `json:"since"`
	PID   int       `json:"pid,omitempty"`
	By    string    `json:"by,omitempty"`
	// Do is what is done: sync, verify, drift or audit; left out where that is not known.
	Do       string          `json:"do,omitempty"`
	Progress *fleet.Progress `json:"progress,omitempty"`
	// Waits says what a run waits for, which Since is then when it began to wait.
	Waits string `json:"waits,omitempty"`
	// Silent is since when nothing is heard of it, where its process is gone: nobody works on
	// it until its request is handed out again.
	Silent *time.Time `json:"silentSince,omitempty"`

	// heard is when something was heard of it last, quiet for how long nothing was.
	heard time.Time
	quiet time.Duration
}

// fleetView is what a running firedrill knows of mirrors; nil where none runs.
type fleetView struct {
	s *session
	// lost is why one that is there could not be asked.
	lost error
}

// fleetView joins a running firedrill, if there is one.
func (a *app) fleetView(ctx context.Context) (v *fleetView, done func()) {
	s, err := a.connect(ctx)
	switch {
	case errors.Is(err, errNoServer):
		return nil, func() {}
	case err != nil:
		fmt.Fprintf(a.Err, "firedrill: what a running firedrill knows is left out: %v\n", err)
		return &fleetView{lost: err}, func() {}
	}
	return &fleetView{s: s}, s.close
}

// look takes in what the fleet's events tell of a mirror that this machine may not know: of
// its runs, of comparisons, and of what is under way.
func (v *fleetView) look(ctx context.Context, st *mirrorStatus, log *runlog.Log) (*runlog.Log, error) {
	remote, check, err := fleet.Remembered(ctx, v.s.bus, st.Name)
	if err != nil {
		return nil, err
	}
	if remote.Newer(log) {
		log = remote
	}
	st.Check = check.Later(st.Check)
	if st.Unchecked, err = v.unchecked(ctx, st); err != nil {
		return nil, err
	}
	u, err := fleet.UnderWay(ctx, v.s.bus, st.Name)
	if err == nil && u.Last.Run != "" {
		st.Running, err = v.running(ctx, st.Name, u)
	}
	return log, err
}

// running tells of a run of the fleet.
func (v *fleetView) running(ctx context.Context, mirror string, u fleet.Underway) (*runningJSON, error) {
	e := u.Last
	r := &runningJSON{Since: u.Began, By: e.By, Do: e.Do, Progress: e.Progress, heard: e.At, quiet: u.Quiet}
	if u.Gone {
		r.Silent = &r.heard
	}
	switch {
	case e.Since != nil:
		r.Since, r.Waits = *e.Since, e.Reason
	case u.Began.IsZero():
		r.Since = e.At // it has not come so far, as a mount does not answer, or began long ago
		started, known, err := v.s.bus.LastMirrorEvent(ctx, mirror, fleet.KindStarted)
		if err != nil {
			return nil, err
		}
		var began fleet.Event
		if known && json.Unmarshal(started.Data, &began) == nil && began.Run == e.Run {
			r.Since = began.At
		}
	}
	return r, nil
}

// left reports whether a run of the fleet is the one that began last here, whose process would
// have the mirror open, and which has told nothing for longer than it does while it works:
// nobody has to wait until it counts as gone. The caller has seen that nobody has it open.
func (r *runningJSON) left(last *runlog.Run) bool {
	return r.quiet > quietFor && last != nil && last.Ended.IsZero() && last.By == r.By && !last.Began.Before(r.Since)
}

// quietFor is longer than between two of the events that tell how far a run is.
const quietFor = 3 * time.Second

// unchecked says why a comparison failed since the last that came to its end; "" if none did.
func (v *fleetView) unchecked(ctx context.Context, st *mirrorStatus) (string, error) {
	var good, since time.Time
	if st.Check != nil {
		good = st.Check.Ended
		since = good.Add(-clocksDiffer)
	}
	why := ""
	err := v.s.bus.MirrorEventsSince(ctx, st.Name, fleet.KindFailed, since, func(r bus.Record) error {
		var e fleet.Event
		if json.Unmarshal(r.Data, &e) == nil && e.Do != "" && e.Do != drill.MirrorSync && !good.After(e.At) {
			why = fmt.Sprintf("%s %s failed: %s", clockTime(e.At), e.Do, e.Reason)
		}
		return nil
	})
	return why, err
}

// clocksDiffer is by how much the clock of who compares may be ahead of the server's.
const clocksDiffer = time.Hour

// status gathers what is known; inv has the mirrors that it may have to wait for.
func (s *subject) status(ctx context.Context, v *fleetView, inv drill.Inventory) (*mirrorStatus, error) {
	st := &mirrorStatus{
		Name: s.Name, From: s.From, To: s.To, Mode: modeOf(s.Mode), Filter: s.Filter, Check: s.log.Check,
		Schedule: s.Cadence(drill.MirrorSync).String(), VerifySchedule: s.Cadence(drill.MirrorVerify).String(), dir: s.env.StateDir, unread: s.unread,
	}
	if s.KeepDeleted > 0 {
		st.KeepDeleted = s.KeepDeleted.String()
	}
	if !s.named && s.log.Mirror.From == "" {
		st.Mode = ""
	}
	log := &s.log
	if v != nil && v.lost != nil && s.named {
		st.lost = fmt.Errorf("what a running firedrill knows of it could not be asked: %w", v.lost)
	} else if v != nil && s.named {
		var err error
		if log, err = v.look(ctx, st, log); err != nil {
			return nil, err
		}
		if err := v.plan(ctx, st, s, inv); err != nil {
			return nil, err
		}
	}
	var facts engine.Facts
	if known, err := state.LoadFrom(s.dir(), engine.FactsName, &facts); err != nil {
		return nil, err
	} else if known && !facts.Listed.IsZero() {
		st.Listed = &facts.Listed
	}
	busy, err := state.Holder(s.dir())
	if err != nil {
		return nil, err
	}
	// What was under way a moment ago may have ended.
	if now, _, err := runlog.Read(s.dir()); err == nil && now.Newer(log) {
		log = &now
	}
	if st.verifiable.Before(log.Since) {
		st.verifiable = log.Since
	} else if log.Since.IsZero() {
		st.verifiable = time.Time{} // There was nothing yet to compare with.
	}
	st.Last, st.Success, st.Failure, st.Of = log.Last, log.Success, log.Failure, moved(s.Mirror, log.Mirror)
	if r := st.Running; r != nil && busy == nil && s.Snapshots == nil && r.left(log.Last) {
		r.Silent = &r.heard
	}
	if busy != nil && (st.Running == nil || st.Running.Silent != nil) {
		st.Running = &runningJSON{Since: busy.Since}
		if log.Last != nil && log.Last.Ended.IsZero() {
			st.Running.By = log.Last.By
		}
	}
	if busy != nil && st.Running.Waits == "" { // else it waits for that process
		st.Running.PID = busy.PID
	}
	st.judge(s.Mirror, inv, s.env.Now())
	return st, nil
}

// plan finds when the mirror does something by itself next, and what it waits for with that.
func (v *fleetView) plan(ctx context.Context, st *mirrorStatus, s *subject, inv drill.Inventory) (err error) {
	if st.Next, err = v.next(ctx, st, s.Mirror, drill.MirrorSync); err != nil {
		return err
	}
	if st.NextVerify, err = v.next(ctx, st, s.Mirror, drill.MirrorVerify); err != nil {
		return err
	}
	verify, err := v.s.bus.MirrorTimes(ctx, bus.MirrorSchedule{Mirror: s.Name, What: drill.MirrorVerify})
	if err != nil {
		return err
	}
	st.verifiable = verify.Set
	since, held, err := fleet.Held(ctx, v.s.bus, s.Mirror, s.env.Now())
	if err != nil || !held || len(s.After) == 0 {
		return err
	}
	waits, err := fleet.WaitsFor(s.Mirror, s.env.Now(), func(name string) (*runlog.Log, error) {
		m, _ := inv.FindMirror(name)
		own, _, err := runlog.Read(runlog.Dir(s.env, m))
		if err != nil {
			return nil, err
		}
		remote, _, err := fleet.Remembered(ctx, v.s.bus, name)
		if own.Newer(remote) {
			return &own, err
		}
		return remote, err
	})
	if err != nil || len(waits) == 0 {
		return err
	}
	st.Next = &since
	if st.Running == nil {
		st.Running = &runningJSON{Since: since.UTC(), By: fleet.Scheduler, Do: drill.MirrorSync, Waits: fleet.WaitsWords(waits)}
	}
	return nil
}

func modeOf(mode string) string { return cmp.Or(mode, drill.MirrorCopy) }

// next is when a mirror does something by itself next; nil if it does not. While what is due
// waits for others, that is since when it does: ticks that come meanwhile bring no other one.
func (v *fleetView) next(ctx context.Context, st *mirrorStatus, m drill.Mirror, what string) (*time.Time, error) {
	c := m.Cadence(what)
	if (c == drill.Cadence{}) {
		return nil, nil
	}
	if r := st.Running; r != nil && r.Waits != "" && r.By == fleet.SchedulerOf(what) {
		return &r.Since, nil
	}
	if since, overdue, err := fleet.Overdue(ctx, v.s.bus, m.Name, what); overdue || err != nil {
		return &since, err
	}
	t, err := v.s.bus.MirrorTimes(ctx, bus.MirrorSchedule{Mirror: m.Name, What: what})
	if err != nil || t.Spec == "" {
		return nil, err
	}
	last := t.Set
	if t.TickSeq > 0 {
		last = t.Ticked
	}
	at := nextTime(c, last, time.Now())
	return &at, nil
}

// nextTime is when what was last due, or scheduled, at a time is due next.
func nextTime(c drill.Cadence, last, now time.Time) time.Time {
	if c.Every > 0 {
		at := last.Add(c.Every.D())
		if late := now.Sub(at); late > 0 {
			at = at.Add(late.Truncate(c.Every.D()) + c.Every.D())
		}
		return at.UTC().Round(time.Second)
	}
	return c.Next(now).UTC()
}

// listMirrors lists the mirrors of the inventory, and those that have run here.
func (a *app) listMirrors(ctx context.Context, o *mirrorOptions) error {
	env, inv, err := a.mirrorEnv(o)
	if err != nil {
		return err
	}
	v, done := a.fleetView(ctx)
	defer done()
	all, idle, unread, err := a.subjects(env, inv)
	if err != nil {
		return failure(err)
	}
	list, well := []*mirrorStatus{}, !unread
	for _, s := range all {
		st, err := s.status(ctx, v, inv)
		if err != nil {
			return failure(s.plain(err))
		}
		list = append(list, st)
		// Of what else was tried out here an inventory says nothing.
		well = well && (st.Well || a.inventory != "" && !s.named)
	}
	if o.json {
		if err := writeJSON(a.Out, list); err != nil {
			return err
		}
		return wellExit(well)
	}
	if len(list) == 0 && !unread {
		fmt.Fprintln(a.Out, "no mirror has run here, and no inventory with mirrors was given: name its file with --inventory")
	} else if err := a.printMirrors(list); err != nil {
		return err
	}
	for _, st := range list {
		if st.Of != nil {
			fmt.Fprintf(a.Out, "%s: was %s\n", st.Name, st.Of.words())
		}
	}
	if idle > 0 {
		fmt.Fprintf(a.Out, "left out: %s, of which no run ever got to work, as of a mistyped one: `mirror status FROM TO` tells of it\n", fold.Plural(idle, "mirror"))
	}
	return wellExit(well)
}

// subjects are the mirrors of an inventory, and those without a name that have left a
// log; but for those, which it counts, of which no run ever got to work. unread says that
// there is a log of which it cannot be read whose it is.
func (a *app) subjects(env job.Env, inv drill.Inventory) (out []*subject, idle int, unread bool, err error) {
	for _, m := range inv.Spec.Mirrors {
		s := &subject{Mirror: m, env: env, named: true}
		s.log, _, s.unread = a.mirrorLog(s.dir())
		out = append(out, s)
	}
	dirs, err := os.ReadDir(env.StateDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, false, err
	}
	for _, d := range dirs {
		dir := filepath.Join(env.StateDir, d.Name())
		switch l, known, err := a.mirrorLog(dir); {
		case err != nil && !known:
			unread = true // Of which mirror it is nobody can tell.
		case !known || l.Mirror.Name != "":
		case l.Last != nil && l.Last.Ended.IsZero() || runlog.Begun(dir):
			out = append(out, &subject{Mirror: l.Mirror, env: env, log: l, unread: err})
		default:
			idle++
		}
	}
	return out, idle, unread, nil
}
