package fleet_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
)

// config is that of a process that is not started.
func (w *world) config() fleet.Config {
	w.t.Helper()
	return fleet.Config{
		Bus: w.connect(event.Mirror), Log: quiet(), Inventory: w.inv,
		Env: job.Env{StateDir: filepath.Join(w.dir, "state"), Now: time.Now},
	}
}

// requested gives where the last request by who for a mirror is stored; 0 if there is none.
func (w *world) requested(who, mirror string) uint64 {
	w.t.Helper()
	last, _, err := w.me.MirrorRequested(w.t.Context(), who, mirror)
	must(w.t, err)
	return last.Seq
}

// Whoever restarts more often than a mirror runs does not keep it from being due.
func TestAScheduleOutlivesRestarts(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "often", From: "dir:DIR/src", To: "dir:DIR/dst", Every: event.Duration(4 * time.Second)})
	c := w.config()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(30 * time.Second); ; <-tick.C {
		must(t, fleet.Tend(t.Context(), c)) // as each does that starts
		at, err := w.me.MirrorTimes(t.Context(), bus.MirrorSchedule{Mirror: "often", What: drill.MirrorSync})
		must(t, err)
		if at.TickSeq > 0 {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("it is never due: %+v", at)
		}
	}
}

// A mirror that is new runs at once, one whose interval is another one now too, and however
// many processes see that, and see it again, one run is asked for.
func TestANewScheduleBeginsAtOnceAndOnce(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", Every: event.Duration(time.Hour)})
	w.tree("src", 2)
	all := []fleet.Config{w.config(), w.config(), w.config()}
	tend := func() {
		t.Helper()
		var wg sync.WaitGroup
		errs := make([]error, len(all))
		for i, c := range all {
			wg.Go(func() { errs[i] = fleet.Tend(t.Context(), c) })
		}
		wg.Wait()
		must(t, errors.Join(errs...))
	}
	tend()
	if at := w.requested(fleet.Scheduler, "out"); at != 1 {
		t.Fatalf("the last request is %d", at)
	}
	stop := w.start()
	_, seq := w.await("out", 0, fleet.KindFinished)
	stop()
	tend()
	if at := w.requested(fleet.Scheduler, "out"); at != 1 {
		t.Fatalf("with the same schedule it was asked for again, by request %d", at)
	}
	for i := range all {
		all[i].Inventory.Spec.Mirrors = []drill.Mirror{w.inv.Spec.Mirrors[0]}
		all[i].Inventory.Spec.Mirrors[0].Every = event.Duration(2 * time.Hour)
	}
	tend()
	changed := w.requested(fleet.Scheduler, "out")
	if changed <= seq {
		t.Fatalf("with another interval it was not asked for: the last request is %d", changed)
	}
	tend()
	if at := w.requested(fleet.Scheduler, "out"); at != changed {
		t.Errorf("it was asked for again, by request %d", at)
	}
}

// What the server has missed, as it was down, is asked for all the same.
func TestAMissedRunIsMadeUpFor(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	w := newWorld(t,
		drill.Mirror{Name: "often", From: "dir:DIR/src", To: "dir:DIR/dst", Every: event.Duration(time.Hour)},
		drill.Mirror{Name: "nightly", From: "dir:DIR/src", To: "dir:DIR/other", Daily: time.Now().Add(12 * time.Hour).In(berlin).Format("15:04"), Zone: "Europe/Berlin"})
	c := w.config()
	must(t, fleet.Tend(t.Context(), c))
	if often, nightly := w.requested(fleet.Scheduler, "often"), w.requested(fleet.Scheduler, "nightly"); often != 1 || nightly != 0 {
		t.Fatalf("requests %d and %d", often, nightly)
	}
	w.tree("src", 2)
	stop := w.start()
	_, seq := w.await("often", 0, fleet.KindFinished)
	stop()
	asked := map[string]uint64{}
	for _, later := range []time.Duration{time.Hour + time.Minute, 25 * time.Hour, 25 * time.Hour} {
		c.Env.Now = func() time.Time { return time.Now().Add(later) }
		must(t, fleet.Tend(t.Context(), c))
		for _, mirror := range []string{"often", "nightly"} {
			at := w.requested(fleet.Scheduler, mirror)
			switch {
			case later < 2*time.Hour && at > 1:
				t.Errorf("%s is asked for before the server is late", mirror)
			case later > 2*time.Hour && at <= seq:
				t.Errorf("%s is not asked for", mirror)
			case asked[mirror] > 0 && at != asked[mirror]:
				t.Errorf("%s is asked for again", mirror)
			case later > 2*time.Hour:
				asked[mirror] = at
			}
		}
	}
}

// A verification has to wait for something that it could compare with.
func TestAVerificationBeginsBehindAFirstRun(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", Verify: &drill.MirrorVerification{Every: event.Duration(time.Hour)}})
	w.tree("src", 2)
	c := w.config()
	must(t, fleet.Tend(t.Context(), c))
	if at := w.requested(fleet.VerifyScheduler, "out"); at != 0 {
		t.Errorf("it is asked for before there was a run: request %d", at)
	}
	stop := w.start()
	w.ask("out", "")
	w.await("out", 0, fleet.KindFinished)
	stop()
	must(t, fleet.Tend(t.Context(), c))
	if at := w.requested(fleet.VerifyScheduler, "out"); at == 0 {
		t.Error("it is not asked for")
	}
}

// Where clocks are put back, the server sees a time of day twice.
func TestADayHasOneRun(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", Daily: time.Now().UTC().Add(-time.Minute).Format("15:04"), Zone: "Europe/London"})
	c := w.config()
	tick := bus.Message{Subject: "mirror.tick.out.sync", Seq: 7, Stored: time.Now()}
	must(t, fleet.OnTick(t.Context(), c, tick))
	first := w.requested(fleet.Scheduler, "out")
	if first == 0 {
		t.Fatal("a tick brings no request")
	}
	stop := w.start()
	w.tree("src", 1)
	w.await("out", 0, fleet.KindFinished, fleet.KindFailed)
	stop()
	tick.Seq, tick.Stored = 8, tick.Stored.Add(time.Hour)
	must(t, fleet.OnTick(t.Context(), c, tick))
	if at := w.requested(fleet.Scheduler, "out"); at != first {
		t.Errorf("the same day has another request, %d", at)
	}
	tick.Seq, tick.Stored = 9, tick.Stored.Add(25*time.Hour)
	must(t, fleet.OnTick(t.Context(), c, tick))
	if at := w.requested(fleet.Scheduler, "out"); at <= first {
		t.Error("the next day has none")
	}
}

// A schedule that another process takes away is set again; one that says something else stays.
func TestAScheduleThatIsTakenAwayIsSetAgain(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", Every: event.Duration(time.Hour)})
	c := w.config()
	var log lines
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	tend, out := fleet.Tender(c), bus.MirrorSchedule{Mirror: "out", What: drill.MirrorSync}
	is := func(want string) {
		t.Helper()
		must(t, tend(t.Context()))
		if at, err := w.me.MirrorTimes(t.Context(), out); err != nil || at.Spec != want {
			t.Errorf("it is scheduled %q, %v, want %q", at.Spec, err, want)
		}
	}
	is("@every 1h0m0s")
	must(t, w.me.KeepMirrorSchedules(t.Context(), func(bus.MirrorSchedule) bool { return false }))
	if strings.Contains(log.String(), "taken away") {
		t.Errorf("logged %s", &log)
	}
	is("@every 1h0m0s")
	if !strings.Contains(log.String(), "a mirror's schedule was taken away, and is set again") {
		t.Errorf("logged %s", &log)
	}
	must(t, w.me.ScheduleMirror(t.Context(), out, "@every 2h0m0s", ""))
	is("@every 2h0m0s")
}
