package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
)

// scheduleAgain is how long after a failure the server is told again.
const scheduleAgain = 5 * time.Second

// Scheduler asks for what mirrors do by themselves, and VerifyScheduler for their
// verifications: each kind of request waits for itself only.
const (
	Scheduler       = "schedule"
	VerifyScheduler = "schedule-verify"
)

// schedulers are, by what is done, who asks for it when it is due.
func schedulers() map[string]string {
	return map[string]string{drill.MirrorSync: Scheduler, drill.MirrorVerify: VerifyScheduler}
}

// schedule tells the server when mirrors do something by themselves, and does not rest until
// it has heard so. Each process says the same.
func (c Config) schedule(ctx context.Context) {
	for _, m := range c.Inventory.Spec.Mirrors {
		for what := range schedulers() {
			if !c.scheduleOne(ctx, bus.MirrorSchedule{Mirror: m.Name, What: what}, cadence(m.Cadence(what))) {
				return
			}
		}
	}
}

// scheduleOne is schedule for one schedule; false once ctx has ended.
func (c Config) scheduleOne(ctx context.Context, s bus.MirrorSchedule, spec string) bool {
	for {
		err := c.Bus.ScheduleMirror(ctx, s, spec)
		if err == nil || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		c.Log.Warn("a mirror is not scheduled yet", "mirror", s.Mirror, "what", s.What, "error", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(scheduleAgain):
		}
	}
}

// cadence is a schedule as NATS writes it; "" if it is never.
func cadence(c drill.Cadence) string {
	switch {
	case c.Every > 0:
		return "@every " + c.Every.D().String()
	case c.Daily != "":
		return fmt.Sprintf("0 %s %s * * *", c.Daily[3:], c.Daily[:2])
	}
	return ""
}

// due is what a mirror asks for when that is due.
func due(m drill.Mirror, what string) Request {
	if what == drill.MirrorVerify && m.Verify != nil {
		return Request{Do: what, Level: m.Verify.Level}
	}
	return Request{Do: what, Check: m.Check}
}

// onTick turns a tick of the clock into a request, unless the one before of its kind is not
// worked off yet, by whatever process: a mirror that takes longer than its schedule gives it
// must not take the places of the others.
func (r *runner) onTick(ctx context.Context, m bus.Message) error {
	tick, err := bus.ReadMirrorTick(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	mirror, known := r.Inventory.FindMirror(tick.Mirror)
	who := schedulers()[tick.What]
	if !known || who == "" || mirror.Cadence(tick.What) == (drill.Cadence{}) {
		// It was scheduled by an inventory that is no more.
		return r.Bus.ScheduleMirror(ctx, tick, "")
	}
	if pending, err := r.pending(ctx, who, tick.Mirror); pending || err != nil {
		return err
	}
	subject, err := bus.MirrorRequest{Who: who, Mirror: tick.Mirror}.Subject()
	if err != nil {
		return bus.Poison(err)
	}
	body, err := json.Marshal(due(mirror, tick.What))
	if err != nil {
		return bus.Poison(err)
	}
	_, err = r.Bus.Publish(ctx, subject, body, "tick/"+tick.Mirror+"/"+strconv.FormatUint(m.Seq, 10))
	return err
}

// endings are the kinds of events that end a request.
func endings() []string { return append(Endings(), KindRejected) }

// pending reports whether the last request of a scheduler for a mirror waits or is being
// worked off. Requests that another one's long run keeps from being counted as worked
// off are known by how they ended.
func (r *runner) pending(ctx context.Context, who, mirror string) (bool, error) {
	last, waits, err := r.Bus.MirrorRequested(ctx, who, mirror)
	if err != nil || !waits {
		return false, err
	}
	heard, err := told(ctx, r.Bus, mirror, last.Seq, endings()...)
	return !heard, err
}

// Overdue gives since when what a mirror does by itself, a sync or a verification, is due and
// has not begun, as others come first; false if that is not so.
func Overdue(ctx context.Context, b *bus.Bus, mirror, what string) (since time.Time, is bool, err error) {
	last, waits, err := b.MirrorRequested(ctx, schedulers()[what], mirror)
	if err != nil || !waits {
		return time.Time{}, false, err
	}
	heard, err := told(ctx, b, mirror, last.Seq, append(endings(), KindStarted)...)
	return last.Stored, !heard && err == nil, err
}

// told reports whether an event of one of the kinds was told of the runs of a request. Those
// of requests that came before or behind it tell nothing of it.
func told(ctx context.Context, b *bus.Bus, mirror string, request uint64, kinds ...string) (bool, error) {
	for _, kind := range kinds {
		last, known, err := b.LastMirrorEvent(ctx, mirror, kind)
		if err != nil {
			return false, err
		}
		if !known || last.Seq < request {
			continue
		}
		heard := false
		err = b.FollowMirrorKind(ctx, mirror, kind, request, func(rec bus.Record) error {
			var e Event
			heard = json.Unmarshal(rec.Data, &e) == nil && requestOf(e.Run) == strconv.FormatUint(request, 10)
			if heard || rec.Seq >= last.Seq {
				return bus.Stop
			}
			return nil
		})
		if heard || err != nil {
			return heard, err
		}
	}
	return false, nil
}
