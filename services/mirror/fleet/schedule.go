package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
)

const (
	// scheduleAgain is how long after a failure the server is told again.
	scheduleAgain = 5 * time.Second
	// defaultDueLook is how often it is looked for what is due and nobody has asked for, and
	// dueLate how late the server's tick may be before that is done without it.
	defaultDueLook = 30 * time.Second
	dueLate        = 2 * time.Minute
)

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

// SchedulerOf is who asks for what mirrors do by themselves.
func SchedulerOf(what string) string { return schedulers()[what] }

// scheduled is one thing that a mirror does by itself.
type scheduled struct {
	bus.MirrorSchedule
	mirror drill.Mirror
	when   drill.Cadence
}

// scheduled is all that the inventory's mirrors do by themselves.
func (c Config) scheduled() (out []scheduled) {
	for _, m := range c.Inventory.Spec.Mirrors {
		for _, what := range []string{drill.MirrorSync, drill.MirrorVerify} {
			if when := m.Cadence(what); when != (drill.Cadence{}) {
				out = append(out, scheduled{bus.MirrorSchedule{Mirror: m.Name, What: what}, m, when})
			}
		}
	}
	return out
}

// schedule tells the server when mirrors do something by themselves, and does not rest until
// it has heard so; each process says the same. Then it looks for what is due without a tick.
func (r *runner) schedule(ctx context.Context) {
	all := r.scheduled()
	told, tidy := map[bus.MirrorSchedule]bool{}, false
	for ctx.Err() == nil {
		wait := r.dueLook
		if !tidy {
			err := r.Bus.KeepMirrorSchedules(ctx, func(s bus.MirrorSchedule) bool {
				return slices.ContainsFunc(all, func(one scheduled) bool { return one.MirrorSchedule == s })
			})
			if tidy = err == nil; !tidy {
				wait = scheduleAgain
				r.warn(ctx, "what is scheduled no more is not removed yet", "error", err)
			}
		}
		for _, s := range all {
			err := r.tend(ctx, s, told)
			if !told[s.MirrorSchedule] {
				wait = scheduleAgain
			}
			if err != nil {
				r.warn(ctx, "a mirror's schedule is not seen to yet", "mirror", s.Mirror, "what", s.What, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// warn says what keeps something from being done, but for the process's own end.
func (r *runner) warn(ctx context.Context, text string, args ...any) {
	if ctx.Err() == nil {
		r.Log.Warn(text, args...)
	}
}

// tend sees to one schedule: until the server is told of it, again where somebody else has
// taken it away, and then to what is due. One that says something else is another process's,
// which has a newer inventory: it stays.
func (r *runner) tend(ctx context.Context, s scheduled, told map[bus.MirrorSchedule]bool) error {
	t, err := r.Bus.MirrorTimes(ctx, s.MirrorSchedule)
	if err != nil {
		return err
	}
	if lost := told[s.MirrorSchedule] && t.Spec == ""; lost || !told[s.MirrorSchedule] {
		if err := r.Bus.ScheduleMirror(ctx, s.MirrorSchedule, spec(s.when), s.when.Zone); err != nil {
			return err
		}
		if told[s.MirrorSchedule] = true; lost {
			r.warn(ctx, "a mirror's schedule was taken away, and is set again: give all mirror processes the same inventory", "mirror", s.Mirror, "what", s.What)
		}
		if t, err = r.Bus.MirrorTimes(ctx, s.MirrorSchedule); err != nil {
			return err
		}
	}
	return r.catchUpBy(ctx, s, t)
}

// spec is a cadence as NATS writes it.
func spec(c drill.Cadence) string {
	if c.Every > 0 {
		return "@every " + c.Every.D().String()
	}
	return fmt.Sprintf("0 %s %s * * *", c.Daily[3:], c.Daily[:2])
}

// due is something that nobody has asked for since it was due: the same for all processes
// that see it.
type due struct {
	since time.Time
	id    string
	// after is where the last request is stored.
	after uint64
}

// catchUp asks for what is due and no tick asks for any more.
func (r *runner) catchUp(ctx context.Context, s scheduled) error {
	t, err := r.Bus.MirrorTimes(ctx, s.MirrorSchedule)
	if err != nil {
		return err
	}
	return r.catchUpBy(ctx, s, t)
}

// catchUpBy is catchUp by what the server knows of the schedule.
func (r *runner) catchUpBy(ctx context.Context, s scheduled, t bus.MirrorTimes) error {
	d, is, err := r.due(ctx, s, t)
	if err != nil || !is {
		return err
	}
	if s.What == drill.MirrorVerify {
		// There is nothing yet that it could be compared with.
		if log, err := r.history(ctx, s.mirror); err != nil || log == nil || log.Success == nil {
			return err
		}
	}
	return r.askFor(ctx, s, d)
}

// due finds what is due without a tick that has just come: the first run of a schedule that
// is new or another one now, what the server has missed while it was down or clocks were put
// forward, and what waits for other mirrors.
func (r *runner) due(ctx context.Context, s scheduled, t bus.MirrorTimes) (d due, is bool, err error) {
	if t.Spec == "" {
		return d, false, nil
	}
	late := func(asked time.Time) (time.Time, bool) {
		at := s.when.Next(latest(t.Set, t.Ticked, asked))
		return at, !r.Env.Now().Before(at.Add(dueLate))
	}
	fresh, held := s.when.Every > 0 && t.TickSeq == 0, s.waits() && t.TickSeq > 0
	if _, is := late(time.Time{}); !is && !fresh && !held {
		return d, false, nil // mostly, and it took no more than that to know
	}
	last, _, err := r.Bus.MirrorRequested(ctx, s.who(), s.Mirror)
	if err != nil {
		return d, false, err
	}
	at, missed := late(last.Stored)
	switch {
	case fresh && t.Set.After(last.Stored):
		return due{t.Set, fmt.Sprintf("set/%s/%d", s.Mirror, t.SetSeq), last.Seq}, true, nil
	case held && t.Ticked.After(last.Stored) && !s.again(last, t.Ticked):
		ran, err := ranSince(ctx, r.Bus, s.Mirror, last.Stored)
		if err != nil || ran.After(t.Ticked) {
			return d, false, err
		}
		return due{s.firstDue(t, latest(last.Stored, ran)), tickID(s.Mirror, t.TickSeq), last.Seq}, true, nil
	case missed:
		return due{at, fmt.Sprintf("late/%s/%s/%d", s.Mirror, s.What, at.Unix()), last.Seq}, true, nil
	}
	return d, false, nil
}

// firstDue is when a schedule that has ticked since its last run was due first after that: of
// ticks the server keeps the last one.
func (s scheduled) firstDue(t bus.MirrorTimes, ran time.Time) time.Time {
	every := s.when.Every.D()
	switch {
	case every > 0 && t.Set.After(ran):
		return t.Set // as a new one is due at once
	case every > 0:
		return t.Ticked.Add(-t.Ticked.Sub(ran).Truncate(every))
	}
	if first := s.when.Next(latest(t.Set, ran)); first.Before(t.Ticked) {
		return first
	}
	return t.Ticked
}

// latest is that of some times.
func latest(times ...time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

func tickID(mirror string, seq uint64) string {
	return "tick/" + mirror + "/" + strconv.FormatUint(seq, 10)
}

// who asks for it.
func (s scheduled) who() string { return SchedulerOf(s.What) }

// waits reports whether other mirrors come first.
func (s scheduled) waits() bool { return s.What == drill.MirrorSync && len(s.mirror.After) > 0 }

// again reports whether a tick came on a day that had its request: where clocks are put back
// the server sees the same time of day twice.
func (s scheduled) again(last bus.Record, tick time.Time) bool {
	return s.when.Zone != "" && last.Seq > 0 && s.when.Next(last.Stored).After(tick)
}

// request is what is asked for.
func (s scheduled) request() Request {
	if s.What == drill.MirrorVerify {
		return Request{Do: s.What, Level: s.mirror.Verify.Level}
	}
	return Request{Do: s.What, Check: s.mirror.Check}
}

// onTick turns a tick of the clock into a request. One that was scheduled by an inventory
// that is no more brings none: whoever starts with another one takes its schedule away.
func (r *runner) onTick(ctx context.Context, m bus.Message) error {
	tick, err := bus.ReadMirrorTick(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	all := r.scheduled()
	i := slices.IndexFunc(all, func(s scheduled) bool { return s.MirrorSchedule == tick })
	if i < 0 {
		return nil
	}
	if all[i].waits() {
		return r.catchUp(ctx, all[i]) // It may have been due before.
	}
	last, _, err := r.Bus.MirrorRequested(ctx, all[i].who(), tick.Mirror)
	if err != nil || all[i].again(last, m.Stored) {
		return err
	}
	return r.askFor(ctx, all[i], due{m.Stored, tickID(tick.Mirror, m.Seq), last.Seq})
}

// askFor asks for what is due, unless the one before of its kind is not worked off yet, by
// whatever process: a mirror that takes longer than its schedule gives it must not take the
// places of the others. Nor does it while other mirrors come first, which is told.
func (r *runner) askFor(ctx context.Context, s scheduled, d due) error {
	if pending, err := r.pending(ctx, s.who(), s.Mirror); pending || err != nil {
		return err
	}
	if s.waits() {
		if waits, err := r.waitsFor(ctx, s.mirror); err != nil || len(waits) > 0 {
			return errors.Join(err, r.tellWaits(ctx, s, d, waits))
		}
	}
	subject, err := bus.MirrorRequest{Who: s.who(), Mirror: s.Mirror}.Subject()
	if err != nil {
		return bus.Poison(err)
	}
	body, err := json.Marshal(s.request())
	if err != nil {
		return bus.Poison(err)
	}
	_, err = r.Bus.Publish(ctx, subject, body, d.id)
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
	last, waits, err := b.MirrorRequested(ctx, SchedulerOf(what), mirror)
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
