package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
	"github.com/firedrill/firedrill/services/reporter"
)

// tryOutputs refuses to start where what a run has to write could not be written: a
// drill would break something, and then have nowhere to tell of it.
func (o runOptions) tryOutputs() error {
	if o.junit == "" {
		return nil
	}
	return tryOut("--junit", o.junit, filepath.Dir(o.junit))
}

// tryOut says why nothing can be written into the folder that a flag names or lies in.
func tryOut(flag, value, dir string) error {
	if err := reporter.TryOut(dir); err != nil {
		return fmt.Errorf("%s %s: nothing can be written there: %w: make that writable, or name another place with %s", flag, value, err, flag)
	}
	return nil
}

// errLeftOver ends the following of a drill that is over, and only lacks its report.
var errLeftOver = errors.New("interrupted after the drill's end")

// unreportedError says that a drill is over and gets no report by itself: making it has
// become a dead letter.
type unreportedError struct{ letter bus.DeadLetter }

func (e *unreportedError) Error() string { return e.letter.Reason }

// unreportedPause is how often it is looked whether the report of a finished drill
// became a dead letter.
const unreportedPause = time.Second

// awaitUnreported waits until the report of a drill that is seen to be over has become
// a dead letter, or ctx ends, which is no error. Where dead letters may not be read it
// waits on: nobody can tell.
func awaitUnreported(ctx context.Context, b *bus.Bus, v *view) error {
	tick := time.NewTicker(unreportedPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if v.state.Load().Finished == nil {
			continue
		}
		letters, err := b.DeadLetters(ctx)
		if errors.Is(err, bus.ErrDenied) {
			return nil
		}
		for _, d := range letters {
			if d.Durable == reporter.Durable && strings.HasPrefix(d.Subject, "drill.evt."+v.id+".") {
				return &unreportedError{d}
			}
		}
	}
}

// unreported says that the following of a drill ended without its report, for a cause
// that is known, and how to get that; nil where it ended for another one.
func (a *app) unreported(s *session, v *view, cause error, o runOptions) error {
	st := *v.state.Load()
	dead, isDead := errors.AsType[*unreportedError](cause)
	switch {
	case isDead:
		return &exitError{code: run.Crash, err: errors.New(a.withoutReport(s, st, dead.letter, o))}
	case errors.Is(cause, errLeftOver) && s.own == nil:
		return &exitError{code: run.Interrupted, err: fmt.Errorf("%s is over, and its report is being made: %s waits for it", st.ID, a.command("watch "+st.ID))}
	case errors.Is(cause, errLeftOver):
		fmt.Fprint(a.Err, a.leftUndone(st))
		return &exitError{code: run.Interrupted}
	}
	return nil
}

// withoutReport says what a drill whose report could not be made is left in, where its
// history is, and how to get the report once the cause is mended.
func (a *app) withoutReport(s *session, st drill.State, letter bus.DeadLetter, o runOptions) string {
	state := "is over, and " + cmp.Or(st.LetGo(), "everything is put back")
	if len(st.Debts) > 0 {
		state = fmt.Sprintf("is over, and NOT everything is put back: %s tries that again", a.command("undo "+st.ID))
	}
	text := fmt.Sprintf("%s %s, but its report could not be made: %s\n", st.ID, state, letter.Reason)
	if s.own == nil {
		return text + fmt.Sprintf("its history is kept by the firedrill that runs here: %s shows the report, and %s makes it once that is mended (%s names it)",
			a.command("report "+st.ID), a.command(fmt.Sprintf("dead replay %d", letter.Seq)), a.command("dead list"))
	}
	return text + fmt.Sprintf("its history is kept in %s: %s writes the report once that is mended, or to another folder with --out",
		allinone.StoreDir(a.stateDir), a.command("up --out "+o.out))
}
