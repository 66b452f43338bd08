package bus_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func out(what string) bus.MirrorSchedule { return bus.MirrorSchedule{Mirror: "out", What: what} }

// times are what is known of a schedule.
func times(t *testing.T, b *bus.Bus, s bus.MirrorSchedule) bus.MirrorTimes {
	t.Helper()
	at, err := b.MirrorTimes(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Who says again what is scheduled already does not have it begin anew, nor does a server that
// is restarted.
func TestAScheduleThatSaysTheSameStays(t *testing.T) {
	w := newWorld(t)
	all := []*bus.Bus{w.connect(event.Mirror), w.connect(event.Mirror), w.connect(event.Mirror)}
	said := map[uint64]bool{}
	say := func(spec, zone string) {
		t.Helper()
		var wg sync.WaitGroup
		for _, b := range all {
			wg.Go(func() {
				if err := b.ScheduleMirror(t.Context(), out("sync"), spec, zone); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		at := times(t, all[0], out("sync"))
		if at.Spec != spec || at.Zone != zone || time.Since(at.Set) > time.Minute {
			t.Errorf("of %q in %q is known: %+v", spec, zone, at)
		}
		said[at.SetSeq] = true
	}
	say("@every 1h", "")
	say("@every 1h", "")
	if len(said) != 1 {
		t.Errorf("the same was stored at %v", slices.Collect(maps.Keys(said)))
	}
	w.server.Shutdown()
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir})
	for i := range all {
		all[i] = w.connect(event.Mirror)
	}
	say("@every 1h", "")
	if len(said) != 1 {
		t.Errorf("after a restart the same was stored at %v", slices.Collect(maps.Keys(said)))
	}
	say("@every 2h", "")
	say("0 30 02 * * *", "")
	say("0 30 02 * * *", "Europe/Berlin")
	if len(said) != 4 {
		t.Errorf("what is another one was stored at %v", slices.Collect(maps.Keys(said)))
	}
}

// A server knows what time it is elsewhere.
func TestAScheduleInAZone(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Mirror)
	ticks := make(chan bus.Message, 10)
	spawn(t, func(ctx context.Context) error {
		return b.Work(ctx, bus.MirrorTicks, bus.WorkOptions{}, func(_ context.Context, m bus.Message) error {
			ticks <- m
			return nil
		})
	})
	kolkata, err := time.LoadLocation("Asia/Kolkata") // half an hour apart from most others
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(3 * time.Second).In(kolkata).Format("05 04 15 * * *")
	if err := b.ScheduleMirror(t.Context(), out("sync"), soon, "Asia/Kolkata"); err != nil {
		t.Fatal(err)
	}
	m := await(t, ticks, 15*time.Second, "tick")
	if at := times(t, b, out("sync")); at.TickSeq != m.Seq || !at.Ticked.Equal(m.Stored) {
		t.Errorf("the tick %d of %s is known as %+v", m.Seq, m.Stored, at)
	}
	if err := b.ScheduleMirror(t.Context(), out("sync"), soon, "Asia/Atlantis"); err == nil {
		t.Error("a zone that nobody knows was taken")
	}
}

// What an earlier version, or inventory, has scheduled ends.
func TestSchedulesThatNobodyWantsEnd(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Mirror)
	nc, err := nats.Connect(w.server.URL(), nats.InProcessServer(w.server.Server()))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), bus.StreamMirrorSchedule)
	if err != nil {
		t.Fatal(err)
	}
	now := s.CachedInfo().Config
	before := now
	before.Subjects = append(slices.Clone(now.Subjects), "mirror.schedule.*", "mirror.tick.*")
	if _, err := js.UpdateStream(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	old := nats.NewMsg("mirror.schedule.out")
	old.Header.Set("Nats-Schedule", "@every 1s")
	old.Header.Set("Nats-Schedule-Target", "mirror.tick.out")
	if _, err := js.PublishMsg(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := js.UpdateStream(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	gone := bus.MirrorSchedule{Mirror: "gone", What: "sync"}
	for _, one := range []bus.MirrorSchedule{out("sync"), out("verify"), gone} {
		if err := b.ScheduleMirror(t.Context(), one, "@every 1h", ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.KeepMirrorSchedules(t.Context(), func(one bus.MirrorSchedule) bool { return one == out("sync") }); err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	if left := slices.Collect(maps.Keys(info.State.Subjects)); !slices.Equal(left, []string{"mirror.schedule.out.sync"}) {
		t.Errorf("there is still %v", left)
	}
}
