package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
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
at neither location and changes nothing, and works also while a run is under way.`,
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
			st, err := s.status(cmd.Context(), view)
			if err != nil {
				return failure(s.plain(err))
			}
			if o.json {
				return writeJSON(a.Out, st)
			}
			st.print(a)
			return nil
		},
	}
}

// mirrorStatus is what is known of a mirror without looking at its places.
type mirrorStatus struct {
	Name string `json:"name,omitempty"`
	From string `json:"from"`
	To   string `json:"to"`
	// Mode is left out where nothing is known of the mirror.
	Mode   string   `json:"mode,omitempty"`
	Filter []string `json:"filter,omitempty"`
	// State is never, waiting (a run waits for others), running, stalled (it stands still),
	// ok, undone (a run left something undone), failed, cancelled or interrupted.
	State string `json:"state"`
	// Running is there while a process has the mirror, or has a run in hands that waits.
	Running *runningJSON `json:"running,omitempty"`
	// Last is the last run that began, Success the last that left nothing to be done,
	// Failure the last other one that ended.
	Last    *runlog.Run `json:"last,omitempty"`
	Success *runlog.Run `json:"success,omitempty"`
	Failure *runlog.Run `json:"failure,omitempty"`
	// Check is what verify, drift or audit found last.
	Check *runlog.Check `json:"check,omitempty"`
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
}

// fleetView is what a running firedrill knows of mirrors; nil where none runs.
type fleetView struct{ s *session }

// fleetView joins a running firedrill, if there is one.
func (a *app) fleetView(ctx context.Context) (v *fleetView, done func()) {
	s, err := a.connect(ctx)
	switch {
	case errors.Is(err, errNoServer):
		return nil, func() {}
	case err != nil:
		fmt.Fprintf(a.Err, "firedrill: what a running firedrill knows is left out: %v\n", err)
		return nil, func() {}
	}
	return &fleetView{s}, s.close
}

// look gives what the fleet's events tell of a mirror that this machine may not know: of its
// runs, of the last comparison, and of what is under way.
func (v *fleetView) look(ctx context.Context, name string) (log *runlog.Log, check *runlog.Check, running *runningJSON, err error) {
	for _, kind := range fleet.Endings() {
		r, known, err := v.s.bus.LastMirrorEvent(ctx, name, kind)
		if err != nil {
			return nil, nil, nil, err
		}
		var e fleet.Event
		if !known || json.Unmarshal(r.Data, &e) != nil || e.Log == nil {
			continue
		}
		if newer(e.Log, log) {
			log = e.Log
		}
		check = later(e.Log.Check, check)
	}
	e, _, err := fleet.UnderWay(ctx, v.s.bus, name)
	if err != nil || e.Run == "" {
		return log, check, nil, err
	}
	running = &runningJSON{Since: e.At, By: e.By, Do: e.Do, Progress: e.Progress}
	if e.Since != nil {
		running.Since, running.Waits = *e.Since, e.Reason
	} else if started, known, err := v.s.bus.LastMirrorEvent(ctx, name, fleet.KindStarted); err == nil && known {
		running.Since = started.Stored
	}
	return log, check, running, nil
}

// later is the comparison of two that ended later.
func later(a, b *runlog.Check) *runlog.Check {
	if a == nil || b != nil && b.Ended.After(a.Ended) {
		return b
	}
	return a
}

// newer reports whether a tells of a later run than b.
func newer(a, b *runlog.Log) bool {
	return a != nil && a.Last != nil && (b == nil || b.Last == nil || a.Last.Began.After(b.Last.Began))
}

// status gathers what is known.
func (s *subject) status(ctx context.Context, v *fleetView) (*mirrorStatus, error) {
	syncs, verifies := s.Cadence(drill.MirrorSync), s.Cadence(drill.MirrorVerify)
	st := &mirrorStatus{Name: s.Name, From: s.From, To: s.To, Mode: modeOf(s.Mode), Filter: s.Filter, Check: s.log.Check, Schedule: syncs.String(), VerifySchedule: verifies.String(), dir: s.env.StateDir}
	if !s.named && s.log.Mirror.From == "" {
		st.Mode = ""
	}
	log := &s.log
	if v != nil && s.named {
		remote, check, running, err := v.look(ctx, s.Name)
		if err != nil {
			return nil, err
		}
		if st.Running = running; newer(remote, log) {
			log = remote
		}
		st.Check = later(check, st.Check)
		if st.Next, err = v.next(ctx, s.Name, drill.MirrorSync, syncs); err != nil {
			return nil, err
		}
		if st.NextVerify, err = v.next(ctx, s.Name, drill.MirrorVerify, verifies); err != nil {
			return nil, err
		}
	}
	st.Last, st.Success, st.Failure, st.Of = log.Last, log.Success, log.Failure, moved(s.Mirror, log.Mirror)
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
	if busy != nil && st.Running == nil {
		st.Running = &runningJSON{Since: busy.Since}
		if log.Last != nil && log.Last.Ended.IsZero() {
			st.Running.By = log.Last.By
		}
	}
	if busy != nil {
		st.Running.PID = busy.PID
	}
	st.State = st.state()
	return st, nil
}

func (st *mirrorStatus) state() string {
	switch {
	case st.Running != nil && st.Running.Waits != "":
		return "waiting"
	case st.Running != nil && st.Running.Progress != nil && st.Running.Progress.StillSeconds > 0:
		return "stalled"
	case st.Running != nil:
		return "running"
	case st.Last == nil:
		return "never"
	case st.Last.Ended.IsZero():
		return "interrupted"
	case st.Last.Whole:
		return "ok"
	case st.Last.Cancelled:
		return "cancelled"
	case st.Last.Failed:
		return "failed"
	}
	return "undone"
}

func modeOf(mode string) string { return cmp.Or(mode, drill.MirrorCopy) }

// next is when a mirror does something by itself next; nil if it does not. While what is due
// waits for others, that is since when it does: ticks that come meanwhile bring no other one.
func (v *fleetView) next(ctx context.Context, mirror, what string, c drill.Cadence) (*time.Time, error) {
	if (c == drill.Cadence{}) {
		return nil, nil
	}
	if since, overdue, err := fleet.Overdue(ctx, v.s.bus, mirror, what); overdue || err != nil {
		return &since, err
	}
	t, err := v.s.bus.MirrorTimes(ctx, bus.MirrorSchedule{Mirror: mirror, What: what})
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

// print writes the status for people.
func (st *mirrorStatus) print(a *app) {
	title := st.From + " -> " + st.To
	if st.Name != "" {
		title = st.Name + ": " + title
	}
	if st.Mode != "" {
		title += ", mode " + st.Mode
	}
	fmt.Fprintln(a.Out, title)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(a.Out, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	if len(st.Filter) > 0 {
		line("filter", "%q", st.Filter)
	}
	if r := st.Running; r != nil {
		line(st.State, "%s", r.words())
	}
	if st.Of != nil {
		line("was", "%s", st.Of.words())
	}
	switch {
	case st.Mode == "":
		line("last run", "none is remembered in %s: if it ran from another directory, name what firedrill keeps there with --state-dir", st.dir)
	case st.Last == nil:
		line("last run", "none yet")
	case st.Last.Ended.IsZero() && st.Running == nil:
		line("last run", "%s by %s: interrupted; the next run goes on from there", clockTime(st.Last.Began), st.Last.By)
	case st.Last.Ended.IsZero():
	default:
		line("last run", "%s", st.Last.Words())
	}
	if st.Success != nil && st.State != "ok" {
		line("last success", "%s", st.Success.Words())
	}
	if st.Failure != nil && st.State != "failed" && st.State != "undone" && st.State != "cancelled" {
		line("last failure", "%s", st.Failure.Words())
	}
	next := func(name, schedule string, at *time.Time) {
		switch {
		case schedule == "":
		case at != nil && at.Before(time.Now()):
			line(name, "as soon as it has its turn, due since %s (%s)", clockTime(*at), schedule)
		case at != nil:
			line(name, "%s (%s)", clockTime(*at), schedule)
		default:
			line(name, "%s, once `firedrill up` runs with this inventory", schedule)
		}
	}
	next("next run", st.Schedule, st.Next)
	next("next verify", st.VerifySchedule, st.NextVerify)
	if st.Listed != nil {
		line("listed", "%s, the destination in full: what others changed there since, no run may have seen", clockTime(*st.Listed))
	}
	if c := st.Check; c != nil {
		line("last check", "%s", c.Words())
		for _, side := range c.Sides {
			line("", "%s", side)
		}
	}
	for _, r := range []*runlog.Run{st.Last, st.Success, st.Failure} {
		if r != nil && r.Root != nil {
			line("manifest", "%s, %s, root %s", fold.Plural(r.Root.Root.Entries, "entry"), size(r.Root.Root.Bytes), r.Root.Root.Hash)
			if r.Root.Signer != "" {
				line("", "signed by %s", r.Root.Signer)
			}
			break
		}
	}
}

func (r *runningJSON) words() string {
	text := "since " + clockTime(r.Since)
	if r.By != "" {
		text += " by " + r.By
	}
	if r.PID > 0 {
		text += fmt.Sprintf(" (process %d)", r.PID)
	}
	if r.Do != "" && r.Do != drill.MirrorSync {
		text = r.Do + " " + text
	}
	if r.Waits != "" {
		text += ": " + r.Waits
	}
	if p := r.Progress; p != nil {
		text += fmt.Sprintf(": %d of %d, %s of %s", p.DoneActions, p.Actions, size(p.DoneBytes), size(p.Bytes))
		switch {
		case !p.Planned:
			text += fmt.Sprintf(", still looking (%d seen)", p.Seen)
		case p.StillSeconds > 0:
			text += fmt.Sprintf(", no progress for %s", time.Duration(p.StillSeconds*float64(time.Second)).Round(time.Second))
		case p.LeftSeconds != nil:
			text += fmt.Sprintf(", %s left", time.Duration(*p.LeftSeconds*float64(time.Second)).Round(time.Second))
		}
	}
	return text
}

// listMirrors lists the mirrors of the inventory, and those that have run here.
func (a *app) listMirrors(ctx context.Context, o *mirrorOptions) error {
	env, inv, err := a.mirrorEnv(o)
	if err != nil {
		return err
	}
	v, done := a.fleetView(ctx)
	defer done()
	all, idle, err := a.subjects(env, inv)
	if err != nil {
		return failure(err)
	}
	list := []*mirrorStatus{}
	for _, s := range all {
		st, err := s.status(ctx, v)
		if err != nil {
			return failure(s.plain(err))
		}
		list = append(list, st)
	}
	if o.json {
		return writeJSON(a.Out, list)
	}
	if len(list) == 0 {
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
	return nil
}

// subjects are the mirrors of an inventory, and those without a name that have left a
// log; but for those, which it counts, of which no run ever got to work.
func (a *app) subjects(env job.Env, inv drill.Inventory) (out []*subject, idle int, err error) {
	for _, m := range inv.Spec.Mirrors {
		s := &subject{Mirror: m, env: env, named: true}
		s.log, _ = a.mirrorLog(s.dir())
		out = append(out, s)
	}
	dirs, err := os.ReadDir(env.StateDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, err
	}
	for _, d := range dirs {
		dir := filepath.Join(env.StateDir, d.Name())
		switch l, known := a.mirrorLog(dir); {
		case !known || l.Mirror.Name != "":
		case l.Last != nil && l.Last.Ended.IsZero() || runlog.Begun(dir):
			out = append(out, &subject{Mirror: l.Mirror, env: env, log: l})
		default:
			idle++
		}
	}
	return out, idle, nil
}

// checkedAt says in a few words what the last comparison found, and when.
func checkedAt(c *runlog.Check) string {
	if c == nil {
		return "-"
	}
	found := "ok"
	switch {
	case c.Differs:
		found = "DRIFT"
	case !c.Good:
		found = "NOT ok"
	}
	return fmt.Sprintf("%s %s %s: %s", clockTime(c.Ended), c.What, c.Level, found)
}

func (a *app) printMirrors(list []*mirrorStatus) error {
	t := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "MIRROR\tMODE\tSTATE\tLAST RUN\tLAST SUCCESS\tLAST CHECK\tNEXT RUN\tLAST ERROR")
	when := func(r *runlog.Run) string {
		if r == nil {
			return "-"
		}
		return clockTime(r.Began)
	}
	for _, st := range list {
		next, problem := "-", "-"
		switch {
		case st.Next != nil:
			next = clockTime(*st.Next)
		case st.Schedule != "":
			next = "when firedrill up runs"
		}
		if st.Failure != nil && st.State != "ok" {
			problem = strings.Join(strings.Fields(strings.TrimPrefix(st.Failure.Problem, "mirror "+st.Name+": ")), " ")
		}
		fmt.Fprintln(t, strings.Join([]string{
			cmp.Or(st.Name, st.From+" -> "+st.To), st.Mode, st.State, when(st.Last), when(st.Success), checkedAt(st.Check), next, problem,
		}, "\t"))
	}
	return t.Flush()
}
