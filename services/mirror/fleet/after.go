package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// Remembered gives what the events of a mirror tell of its runs, and of the last comparison;
// nil where they tell nothing.
func Remembered(ctx context.Context, b *bus.Bus, mirror string) (log *runlog.Log, check *runlog.Check, err error) {
	for _, kind := range Endings() {
		r, known, err := b.LastMirrorEvent(ctx, mirror, kind)
		if err != nil {
			return nil, nil, err
		}
		var e Event
		if !known || json.Unmarshal(r.Data, &e) != nil || e.Log == nil {
			continue
		}
		if e.Log.Newer(log) {
			log = e.Log
		}
		check = e.Log.Check.Later(check)
	}
	return log, check, nil
}

// history is what is known of a mirror's runs, by its events and here; nil if nothing is.
func (r *runner) history(ctx context.Context, m drill.Mirror) (*runlog.Log, error) {
	log, _, err := Remembered(ctx, r.Bus, m.Name)
	if err != nil {
		return nil, err
	}
	if own := r.known(m); own.Newer(log) {
		return own, nil
	}
	return log, nil
}

// ranSince gives when a run of a mirror ended last, since a time, that did what was due: one
// of its schedule, however it ended, or another one that left nothing undone. It is zero if
// none did.
func ranSince(ctx context.Context, b *bus.Bus, mirror string, since time.Time) (last time.Time, err error) {
	for _, kind := range Endings() {
		err := b.MirrorEventsSince(ctx, mirror, kind, since, func(rec bus.Record) error {
			var e Event
			if json.Unmarshal(rec.Data, &e) == nil && e.didWhatWasDue() {
				last = latest(last, rec.Stored)
			}
			return nil
		})
		if err != nil {
			return last, err
		}
	}
	return last, nil
}

// didWhatWasDue reports whether the end of a run is that of a sync that made the scheduled one
// needless. Comparisons and dry runs end with the same kinds of events.
func (e Event) didWhatWasDue() bool {
	switch {
	case e.Do != "" && e.Do != drill.MirrorSync, e.Outcome != nil:
		return false
	case e.By == Scheduler:
		return true
	}
	return e.Result != nil && e.Result.Whole && !e.Result.DryRun
}

// Wait is a mirror that comes before another one, and why that one still waits for it.
type Wait struct{ Mirror, Why string }

// WaitsFor gives the mirrors for which a mirror's runs wait, as it is now. log gives what is known of a
// mirror's runs, nil if nothing is.
func WaitsFor(m drill.Mirror, now time.Time, log func(mirror string) (*runlog.Log, error)) (out []Wait, err error) {
	if len(m.After) == 0 {
		return nil, nil
	}
	own, err := log(m.Name)
	if err != nil {
		return nil, err
	}
	var since time.Time
	if own != nil && own.Success != nil {
		// One that is yet to come was told by a clock that was ahead, and all would wait for it.
		if since = own.Success.Began; since.After(now) {
			since = time.Time{}
		}
	}
	for _, name := range m.After {
		l, err := log(name)
		if err != nil {
			return nil, err
		}
		why := ""
		switch {
		case l == nil || l.Last == nil:
			why = "it has not run yet"
		case l.Last.Ended.IsZero():
			why = "its run has not ended"
		case !l.Last.Whole:
			why = "its last run left something undone"
		case !l.Last.Ended.After(since):
			why = "it has not run since"
		}
		if why != "" {
			out = append(out, Wait{name, why})
		}
	}
	return out, nil
}

// waitsFor is WaitsFor by what this process knows.
func (r *runner) waitsFor(ctx context.Context, m drill.Mirror) ([]Wait, error) {
	return WaitsFor(m, r.Env.Now(), func(name string) (*runlog.Log, error) {
		other, known := r.Inventory.FindMirror(name)
		if !known {
			return nil, fmt.Errorf("mirror %s: after: %w: %q", m.Name, ErrUnknown, name)
		}
		return r.history(ctx, other)
	})
}

// WaitsWords says what is waited for.
func WaitsWords(waits []Wait) string {
	var out []string
	for _, w := range waits {
		out = append(out, fmt.Sprintf("%s (%s)", w.Mirror, w.Why))
	}
	return "waits for " + strings.Join(out, " and ")
}

// tellWaits tells, once for each reason, that what is due waits for other mirrors.
func (r *runner) tellWaits(ctx context.Context, s scheduled, d due, waits []Wait) error {
	if len(waits) == 0 {
		return nil
	}
	since := d.since.UTC()
	e := Event{Mirror: s.Mirror, Do: s.What, By: s.who(), At: r.Env.Now().UTC(), Since: &since, Reason: WaitsWords(waits)}
	if err := r.Bus.PublishMirrorEvent(ctx, s.Mirror, KindWaiting, fmt.Sprintf("held/%s/%d/%s", s.Mirror, d.after, e.Reason), e); err != nil {
		return fmt.Errorf("mirror %s: tell that it waits: %w", s.Mirror, err)
	}
	return nil
}

// followers asks for what has waited for a run that left nothing undone. What fails is looked
// for again by and by.
func (r *runner) followers(ctx context.Context, mirror string) {
	for _, s := range r.scheduled() {
		for _, name := range s.mirror.After {
			if name != mirror || !s.waits() {
				continue
			}
			if err := r.catchUp(ctx, s); err != nil {
				r.warn(ctx, "a mirror that comes after another one is not asked for yet", "mirror", s.Mirror, "after", mirror, "error", err)
			}
		}
	}
}

// Held gives since when what a mirror does by itself waits for other mirrors; false if
// nothing is due, or it was asked for.
func Held(ctx context.Context, b *bus.Bus, m drill.Mirror, now time.Time) (since time.Time, is bool, err error) {
	r := &runner{Config: Config{Bus: b}}
	r.Env.Now = func() time.Time { return now }
	s := scheduled{bus.MirrorSchedule{Mirror: m.Name, What: drill.MirrorSync}, m, m.Cadence(drill.MirrorSync)}
	t, err := b.MirrorTimes(ctx, s.MirrorSchedule)
	if err != nil {
		return since, false, err
	}
	d, is, err := r.due(ctx, s, t)
	return d.since, is, err
}
