package fleet_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// waits awaits that a mirror is told to wait for others, for a reason.
func (w *world) waits(mirror, why string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	var e fleet.Event
	err := w.me.FollowMirrorKind(ctx, mirror, fleet.KindWaiting, 0, func(r bus.Record) error {
		if err := json.Unmarshal(r.Data, &e); err != nil {
			return err
		}
		if strings.Contains(e.Reason, why) {
			return bus.Stop
		}
		return nil
	})
	if err != nil || e.Run != "" || e.By != fleet.Scheduler || e.Since == nil || time.Since(*e.Since) > time.Minute {
		w.t.Fatalf("no word of %q: %+v, %v", why, e, err)
	}
}

// What is due waits until the mirrors before it are well, is not lost with who has waited
// for them, and comes once.
func TestAMirrorComesAfterOthers(t *testing.T) {
	w := newWorld(t,
		drill.Mirror{Name: "first", From: "dir:DIR/src", To: "dir:DIR/mid"},
		drill.Mirror{Name: "then", From: "dir:DIR/mid", To: "dir:DIR/dst", Every: event.Duration(time.Second), After: []string{"first"}},
		drill.Mirror{Name: "hourly", From: "dir:DIR/mid", To: "dir:DIR/other", Every: event.Duration(time.Hour), After: []string{"first"}})
	stop := w.start(fleet.LookDue(time.Hour))
	w.waits("then", "waits for first (it has not run yet)")
	w.ask("first", "") // there is no source
	_, _, failed := w.awaitAny("first", 0, fleet.KindFailed)
	w.waits("then", "waits for first (its last run left something undone)")
	if at := w.requested(fleet.Scheduler, "then"); at != 0 {
		t.Fatalf("it was asked for as %d, though the one before it failed", at)
	}
	w.tree("src", 3)
	w.ask("first", "")
	_, seq := w.await("first", failed, fleet.KindFinished)
	_, then := w.await("then", seq, fleet.KindFinished)
	w.same("src", "dst")
	w.await("hourly", 0, fleet.KindFinished) // as soon as that run has ended, and not when it is looked for
	w.waits("then", "waits for first (it has not run since)")
	stop()
	once := w.requested(fleet.Scheduler, "then")
	w.start(fleet.LookDue(time.Hour))
	must(t, os.WriteFile(filepath.Join(w.dir, "src", "more"), nil, 0o600))
	w.ask("first", "")
	_, then = w.await("then", then, fleet.KindFinished)
	w.same("src", "dst")
	if at := w.requested(fleet.Scheduler, "then"); at <= once || at > then {
		t.Errorf("after %d it was asked for as %d", once, at)
	}
}

func TestWhatAMirrorWaitsFor(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	good := func(from, to int) *runlog.Log {
		r := &runlog.Run{Began: at(from), Ended: at(to), Whole: true}
		return &runlog.Log{Last: r, Success: r}
	}
	under := func(from int, before *runlog.Log) *runlog.Log {
		return &runlog.Log{Last: &runlog.Run{Began: at(from)}, Success: before.Success}
	}
	undone := func(from, to int, before *runlog.Log) *runlog.Log {
		return &runlog.Log{Last: &runlog.Run{Began: at(from), Ended: at(to)}, Success: before.Success}
	}
	for name, c := range map[string]struct {
		own, other *runlog.Log
		want       string
	}{
		"neither ran":                        {nil, nil, "it has not run yet"},
		"the other ran":                      {nil, good(1, 2), ""},
		"it ran since":                       {good(1, 2), good(3, 4), ""},
		"it ran before":                      {good(3, 4), good(1, 2), "it has not run since"},
		"it ended while this one ran":        {good(3, 5), good(1, 4), ""},
		"it is under way":                    {good(1, 2), under(4, good(2, 3)), "its run has not ended"},
		"it failed since":                    {good(1, 2), undone(4, 5, good(2, 3)), "its last run left something undone"},
		"this one failed since":              {undone(5, 6, good(1, 2)), good(3, 4), ""},
		"this one never did anything whole":  {undone(5, 6, &runlog.Log{}), good(3, 4), ""},
		"by a clock that was ahead":          {good(23, 24), good(3, 4), ""},
		"the other never did anything whole": {nil, undone(3, 4, &runlog.Log{}), "its last run left something undone"},
	} {
		waits, err := fleet.WaitsFor(drill.Mirror{Name: "own", After: []string{"other"}}, at(12), func(mirror string) (*runlog.Log, error) {
			return map[string]*runlog.Log{"own": c.own, "other": c.other}[mirror], nil
		})
		got := ""
		if len(waits) > 0 {
			got = waits[0].Why
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}
