package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/live"
	"github.com/firedrill/firedrill/services/injector"
)

// follow shows a drill until its report is published and turns the verdict into
// the exit code. When ctx ends it aborts the drill and goes on until it is clean; a drill
// that is over is left without its report then.
func (a *app) follow(ctx, alive context.Context, s *session, id string, o runOptions) error {
	v := newView(a, id, o)
	watch, cancel := context.WithCancelCause(alive)
	defer cancel(nil)
	stopAbort := context.AfterFunc(ctx, func() {
		if v.state.Load().Finished != nil {
			cancel(errLeftOver) // there is nothing to abort any more
			return
		}
		a.interrupted(alive, s, &v.state)
	})
	defer stopAbort()
	var gone atomic.Bool
	go func() {
		if a.awaitEnd(watch, s) {
			gone.Store(true)
			cancel(nil)
		}
	}()
	go func() {
		if err := awaitUnreported(watch, s.bus, v); err != nil {
			cancel(err)
		}
	}()
	err := s.bus.Follow(watch, id, v.take)
	if err != nil && gone.Load() && s.own == nil && a.readRest(alive, v) {
		err = nil
	}
	if err != nil {
		if err := a.unreported(s, v, context.Cause(watch), o); err != nil {
			return err
		}
	}
	if err := a.unseen(s, id, gone.Load(), err); err != nil {
		return failure(err)
	}
	return a.conclude(s, id, v.history, o)
}

// readRest goes on where the following of a drill broke off, as its firedrill ended,
// with what that has left in its store, and reports whether it saw the drill's end
// there: a lone run ends right after its report, which a watcher may not have heard of.
func (a *app) readRest(ctx context.Context, v *view) bool {
	if !a.hasStore() {
		return false // it went with the firedrill, and must not be made anew
	}
	var stored []bus.Stored
	err := a.patiently(ctx, func(ctx context.Context, b *bus.Bus, _ bool) (err error) {
		stored, err = b.History(ctx, v.id)
		return err
	}, func() {})
	if err != nil {
		return false
	}
	for _, ev := range stored[min(len(v.history), len(stored)):] {
		if v.take(ev) != nil {
			return true
		}
	}
	return false
}

// unseen says why a drill's end was not seen; nil if it was, whatever has ended since.
// err is what ended the following, and gone that its firedrill has ended.
func (a *app) unseen(s *session, id string, gone bool, err error) error {
	switch {
	case err == nil:
		return nil
	case s.own != nil && s.own.Err() != nil:
		return s.own.Err()
	case gone:
		return fmt.Errorf("the firedrill that conducts %s has ended: start it again with %s, which goes on with the drill and puts everything back, then %s", id, a.command("up"), a.command("watch "+id))
	}
	return fmt.Errorf("following %s: %w", id, err)
}

// view is what was seen of a drill. One goroutine writes it; state may be read by others.
type view struct {
	id      string
	history []bus.Stored
	state   atomic.Pointer[drill.State]
	// show shows an event.
	show func(bus.Stored)
}

func newView(a *app, id string, o runOptions) *view {
	v := &view{id: id, show: func(bus.Stored) {}}
	v.state.Store(&drill.State{ID: id})
	if !o.json && !o.quiet {
		v.show = live.New(a.Out, isTerminal(a.Out)).Event
	}
	return v
}

// take shows the drill's next event and keeps its state; it returns Stop for its report.
func (v *view) take(ev bus.Stored) error {
	v.history = append(v.history, ev)
	if ev.Trust == nil {
		next := drill.Apply(*v.state.Load(), ev.Event)
		v.state.Store(&next)
	}
	v.show(ev)
	if ev.Event.Type == event.TypeReportPublished {
		return bus.Stop
	}
	return nil
}

// interrupted aborts the drill, and lets a further signal end the process.
func (a *app) interrupted(ctx context.Context, s *session, state *atomic.Pointer[drill.State]) {
	id := state.Load().ID
	run.LastWords(ctx, func() string { return a.lastWords(s, *state.Load()) })
	fmt.Fprintln(a.Err, "firedrill: interrupted: aborting the drill and putting everything back (interrupt again to leave it to a later `firedrill up`)")
	data, _ := json.Marshal(injector.AbortRequest{By: requester(), Reason: "interrupted at the command line"}) // two strings cannot fail
	if err := s.bus.Command(ctx, id, "abort", data); err != nil {
		fmt.Fprintln(a.Err, "firedrill: abort:", err)
	}
}

// lastWords says what a drill is left in when the command ends in the midst of it.
func (a *app) lastWords(s *session, st drill.State) string {
	if s.own == nil {
		return fmt.Sprintf("firedrill: left: the firedrill that conducts %s goes on aborting it: %s shows how\n", st.ID, a.command("watch "+st.ID))
	}
	return a.leftUndone(st)
}

// leftUndone says what of a drill is in effect when its own firedrill ends, and how
// to settle it.
func (a *app) leftUndone(st drill.State) string {
	var b strings.Builder
	switch {
	case len(st.Debts) > 0:
		fmt.Fprintf(&b, "firedrill: left: this of %s is not put back:\n", st.ID)
	case st.Finished != nil && st.LetGo() != "":
		fmt.Fprintf(&b, "firedrill: left: %s was %s, and it has no report yet\n", st.ID, st.LetGo())
	case st.Finished != nil:
		fmt.Fprintf(&b, "firedrill: left: everything that %s did is put back, but it has no report yet\n", st.ID)
	default:
		fmt.Fprintf(&b, "firedrill: left: %s is not over; nothing that is known of it has to be put back\n", st.ID)
	}
	for _, d := range st.Debts {
		fmt.Fprintf(&b, "  %s: %s on %s\n", d.Step, d.Operation, d.Target)
	}
	switch {
	case st.Finished == nil:
		fmt.Fprintf(&b, "%s takes the drill up again and brings it to its end; should something resist being put back, end that and try again with %s\n", a.command("up"), a.command("undo "+st.ID))
	case len(st.Debts) > 0:
		fmt.Fprintf(&b, "the drill is over and nothing goes on with that: try again with %s; its report is written by the next %s\n", a.command("undo "+st.ID), a.command("up"))
	default:
		fmt.Fprintf(&b, "%s writes that\n", a.command("up"))
	}
	return b.String()
}

// command is a command for the user to give, in backquotes.
func (a *app) command(words string) string {
	if a.stateDir == defaultStateDir {
		return "`firedrill " + words + "`"
	}
	return fmt.Sprintf("`firedrill --state-dir %s %s`", a.stateDir, words)
}

// awaitEnd waits until the firedrill that the session belongs to has ended, as far
// as that can be seen from here, or ctx does.
func (a *app) awaitEnd(ctx context.Context, s *session) bool {
	var ended <-chan struct{}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	if s.own != nil {
		ended = s.own.Ended()
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-ended:
			return true
		case <-tick.C:
			if !a.runsStill(s.record) {
				return true
			}
		}
	}
}
