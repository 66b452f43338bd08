package fleet_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/outcome"
)

// tick has a mirror be due, as the server does.
func (w *world) tick(mirror string) bus.Message {
	w.t.Helper()
	m := bus.Message{Subject: "mirror.tick." + mirror + ".sync"}
	_, err := w.me.Publish(w.t.Context(), m.Subject, nil, "")
	must(w.t, err)
	at, err := w.me.MirrorTimes(w.t.Context(), bus.MirrorSchedule{Mirror: mirror, What: drill.MirrorSync})
	must(w.t, err)
	m.Seq, m.Stored = at.TickSeq, at.Ticked
	return m
}

// tell publishes an event of a mirror, as a process does that runs it.
func (w *world) tell(mirror, kind string, e fleet.Event) {
	w.t.Helper()
	must(w.t, w.me.PublishMirrorEvent(w.t.Context(), mirror, kind, "", e))
}

// back is a mirror that is due half a day from now, and comes after "out".
func back() drill.Mirror {
	return drill.Mirror{Name: "back", From: "dir:DIR/dst", To: "dir:DIR/src", Daily: time.Now().UTC().Add(12 * time.Hour).Format("15:04"), After: []string{"out"}}
}

// What was due and waits is not done by what else ends with the same kinds of events.
func TestWhatWaitsIsNotLost(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"}, back())
	must(t, fleet.Tend(t.Context(), w.config()))
	held := func(want bool, after string) {
		t.Helper()
		_, is, err := fleet.Held(t.Context(), w.me, w.inv.Spec.Mirrors[1], time.Now())
		if err != nil || is != want {
			t.Fatalf("after %s it waits: %v, %v", after, is, err)
		}
	}
	verified := fleet.Event{Do: drill.MirrorVerify, By: fleet.VerifyScheduler, Outcome: &outcome.Outcome{}}
	byHand := fleet.Event{Do: drill.MirrorSync, By: "me"}
	done := func(r fleet.Result) fleet.Event {
		e := byHand
		e.Result = &r
		return e
	}
	held(false, "nothing")
	w.tick("back")
	held(true, "a tick")
	w.tell("back", fleet.KindFinished, verified)
	held(true, "a verification")
	w.tell("back", fleet.KindFailed, verified)
	held(true, "a verification that failed")
	w.tell("back", fleet.KindFinished, done(fleet.Result{Whole: true, DryRun: true}))
	held(true, "a dry run")
	w.tell("back", fleet.KindFinished, done(fleet.Result{}))
	held(true, "a run by hand that left something undone")
	w.tell("back", fleet.KindFailed, byHand)
	held(true, "a run by hand that failed")
	w.tell("back", fleet.KindFinished, done(fleet.Result{Whole: true}))
	held(false, "a run by hand")
	w.tell("back", fleet.KindFinished, verified)
	held(false, "a run by hand and a verification")
	w.tick("back")
	held(true, "the next tick")
	w.tell("back", fleet.KindFailed, fleet.Event{Do: drill.MirrorSync, By: fleet.Scheduler})
	held(false, "a run of the schedule, whatever came of it")
}

// A night's run comes once the mirror before it has ended, though the mirror was verified
// meanwhile.
func TestAVerificationTakesNoRunsPlace(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"}, back())
	w.tree("src", 3)
	must(t, fleet.Tend(t.Context(), w.config()))
	w.tick("back")
	w.tell("back", fleet.KindFinished, fleet.Event{Do: drill.MirrorVerify, By: fleet.VerifyScheduler, Outcome: &outcome.Outcome{}})
	newest, _, err := w.me.LastMirror(t.Context(), "back")
	must(t, err)
	w.start(fleet.LookDue(time.Hour))
	w.ask("out", "")
	w.await("out", 0, fleet.KindFinished)
	if e, _ := w.await("back", newest.Seq, fleet.KindFinished); e.By != fleet.Scheduler || e.Do != drill.MirrorSync {
		t.Errorf("what came is %+v", e)
	}
}

// Each tick that comes meanwhile waits for the same reason.
func TestThatItWaitsIsToldOnce(t *testing.T) {
	m := back()
	m.Every, m.Daily = event.Duration(time.Hour), ""
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"}, m)
	c := w.config()
	must(t, fleet.Tend(t.Context(), c))
	for range 3 {
		must(t, fleet.OnTick(t.Context(), c, w.tick("back")))
		must(t, fleet.Tend(t.Context(), c))
	}
	at, err := w.me.MirrorTimes(t.Context(), bus.MirrorSchedule{Mirror: "back", What: drill.MirrorSync})
	must(t, err)
	var told []fleet.Event
	must(t, w.me.MirrorEventsSince(t.Context(), "back", fleet.KindWaiting, time.Time{}, func(r bus.Record) error {
		var e fleet.Event
		err := json.Unmarshal(r.Data, &e)
		told = append(told, e)
		return err
	}))
	if len(told) != 1 || !told[0].Since.Equal(at.Set) {
		t.Errorf("it was told %d times: %+v", len(told), told)
	}
	since, is, err := fleet.Held(t.Context(), w.me, w.inv.Spec.Mirrors[1], time.Now())
	if err != nil || !is || !since.Equal(at.Set) {
		t.Errorf("it waits since %s, %v, %v, want %s", since, is, err, at.Set)
	}
}

func TestSinceWhenSomethingIsDue(t *testing.T) {
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 1, day, hour, minute, 0, 0, time.UTC) }
	hourly, nightly := drill.Mirror{Every: event.Duration(time.Hour)}, drill.Mirror{Daily: "02:30"}
	for name, c := range map[string]struct {
		m                      drill.Mirror
		set, ran, ticked, want time.Time
	}{
		"the last tick is the first":   {hourly, at(1, 0, 0), at(2, 5, 7), at(2, 6, 0), at(2, 6, 0)},
		"others came before":           {hourly, at(1, 0, 0), at(2, 5, 7), at(4, 6, 0), at(2, 6, 0)},
		"it never ran":                 {hourly, at(1, 0, 0), time.Time{}, at(4, 6, 0), at(1, 0, 0)},
		"a night":                      {nightly, at(1, 0, 0), at(2, 2, 31), at(3, 2, 30), at(3, 2, 30)},
		"nights":                       {nightly, at(1, 0, 0), at(2, 2, 31), at(9, 2, 30), at(3, 2, 30)},
		"nights, and it never ran":     {nightly, at(1, 0, 0), time.Time{}, at(9, 2, 30), at(1, 2, 30)},
		"nights, and it is set anew":   {nightly, at(5, 0, 0), at(2, 2, 31), at(9, 2, 30), at(5, 2, 30)},
		"a tick that comes before its": {nightly, at(1, 0, 0), at(2, 2, 31), at(3, 2, 29), at(3, 2, 29)},
	} {
		if got := fleet.FirstDue(c.m, bus.MirrorTimes{Set: c.set, Ticked: c.ticked}, c.ran); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// What is due and waits without a run hides no run that waits.
func TestARunThatWaitsIsNotHidden(t *testing.T) {
	w := newWorld(t)
	since := time.Now()
	w.tell("back", fleet.KindWaiting, fleet.Event{Run: "7-x", Since: &since})
	w.tell("back", fleet.KindWaiting, fleet.Event{By: fleet.Scheduler, Since: &since})
	if u, err := fleet.UnderWay(t.Context(), w.me, "back"); err != nil || u.Last.Run != "7-x" || u.Seq != 1 {
		t.Errorf("%+v, %v", u, err)
	}
	w.tell("back", fleet.KindCancelled, fleet.Event{Run: "7-x"})
	if u, err := fleet.UnderWay(t.Context(), w.me, "back"); err != nil || u.Last.Run != "" {
		t.Errorf("once it has ended: %+v, %v", u, err)
	}
}

// Ends are known in whatever order runs come to them, and hide no other run.
func TestWhatHasEndedIsNotUnderWay(t *testing.T) {
	w := newWorld(t)
	since := time.Now()
	tell := func(run, kind string) {
		t.Helper()
		e := fleet.Event{Run: run}
		if kind == fleet.KindWaiting {
			e.Since = &since
		}
		w.tell("out", kind, e)
	}
	is := func(want string) {
		t.Helper()
		if u, err := fleet.UnderWay(t.Context(), w.me, "out"); err != nil || u.Last.Run != want || u.Gone {
			t.Errorf("%+v, %v, want %q", u, err, want)
		}
	}
	tell("8-x", fleet.KindWaiting)
	tell("7-x", fleet.KindWaiting)
	is("7-x")
	tell("7-x", fleet.KindStarted)
	tell("9-x", fleet.KindWaiting)
	is("7-x") // which has begun
	tell("7-x", fleet.KindFinished)
	is("9-x")
	tell("9-y", fleet.KindFailed) // another try of it
	is("8-x")
	tell("8-x", fleet.KindCancelled)
	tell("5-x", fleet.KindStarted)
	tell("5-x", fleet.KindFinished)
	is("")
	tell("9-z", fleet.KindWaiting) // tried again by hand
	is("9-z")
}

var errFirst = errors.New("the first")

func TestEventsSince(t *testing.T) {
	w := newWorld(t)
	heard := func(since time.Time) (n int) {
		t.Helper()
		must(t, w.me.MirrorEventsSince(t.Context(), "out", fleet.KindFailed, since, func(bus.Record) error {
			n++
			return nil
		}))
		return n
	}
	if n := heard(time.Time{}); n != 0 {
		t.Errorf("of nothing it heard %d", n)
	}
	w.tell("out", fleet.KindFailed, fleet.Event{})
	first, _, err := w.me.LastMirror(t.Context(), "out")
	must(t, err)
	w.tell("out", fleet.KindFailed, fleet.Event{})
	w.tell("out", fleet.KindFinished, fleet.Event{})
	for since, want := range map[time.Time]int{{}: 2, first.Stored: 2, first.Stored.Add(1): 1, time.Now().Add(time.Hour): 0} {
		if n := heard(since); n != want {
			t.Errorf("since %s it heard %d, want %d", since, n, want)
		}
	}
	err = w.me.MirrorEventsSince(t.Context(), "out", fleet.KindFailed, time.Time{}, func(bus.Record) error { return errFirst })
	if !errors.Is(err, errFirst) {
		t.Errorf("it ended with %v", err)
	}
}
