package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MirrorSchedule says what of a mirror is scheduled: each has a schedule of its own for
// everything that is done with it.
type MirrorSchedule struct{ Mirror, What string }

func (m MirrorSchedule) subject() string { return "mirror.schedule." + m.Mirror + "." + m.What }

// tick is where the server publishes each time that came.
func (m MirrorSchedule) tick() string { return "mirror.tick." + m.Mirror + "." + m.What }

// MirrorTimes is what the server knows of a schedule.
type MirrorTimes struct {
	// Spec and Zone are those given to ScheduleMirror; Spec is "" where nothing is scheduled.
	Spec, Zone string
	// Set is when that was stored, and Ticked when it was due last; zero if it was not since.
	Set, Ticked time.Time
	// SetSeq and TickSeq are where these are stored.
	SetSeq, TickSeq uint64
}

// The server's headers of a schedule.
const (
	headerSchedule       = "Nats-Schedule"
	headerScheduleTarget = "Nats-Schedule-Target"
	headerScheduleZone   = "Nats-Schedule-Time-Zone"
)

// zonesSince is the server that began to know zones; older ones would take any for UTC.
const zonesSince = "2.14.0"

// ScheduleMirror has the server publish a tick again and again: spec is "@every 5m", or a
// cron expression of six fields in a zone, by its IANA name, where "" is UTC. A schedule
// that says the same already stays as it is, and goes on to count from when it was due
// last; another one is replaced. An empty spec takes it away.
func (b *Bus) ScheduleMirror(ctx context.Context, s MirrorSchedule, spec, zone string) error {
	if !token(s.Mirror) || !token(s.What) {
		return fmt.Errorf("schedule to %q mirror %q: both must be single subject tokens", s.What, s.Mirror)
	}
	if spec == "" {
		return errors.Join(b.purge(ctx, StreamMirrorSchedule, s.subject()), b.purge(ctx, StreamMirrorSchedule, s.tick()))
	}
	if server := b.nc.ConnectedServerVersion(); zone != "" && olderThan(server, zonesSince) {
		return fmt.Errorf("schedule to %s mirror %s in zone %s: this needs nats-server %s or newer, and that which is there is %s: upgrade it, or leave out zone and say the time in UTC",
			s.What, s.Mirror, zone, zonesSince, server)
	}
	for {
		have, seq, err := b.schedule(ctx, s)
		if err != nil || have.Spec == spec && have.Zone == zone {
			return err
		}
		m := nats.NewMsg(s.subject())
		m.Header.Set(headerSchedule, spec)
		m.Header.Set(headerScheduleTarget, s.tick())
		if zone != "" {
			m.Header.Set(headerScheduleZone, zone)
		}
		// Another process may be saying so, too: what it has set must not begin anew.
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10))
		if _, err := b.publish(ctx, m, ""); !isCode(err, codeWrongLastSequence) {
			return err
		}
	}
}

// schedule reads what is stored of a schedule, and where the last message of its subject is.
func (b *Bus) schedule(ctx context.Context, s MirrorSchedule) (MirrorTimes, uint64, error) {
	r, err := b.get(ctx, StreamMirrorSchedule, getRequest{LastFor: s.subject()})
	if errors.Is(err, errNoRecord) {
		return MirrorTimes{}, 0, nil
	}
	if err != nil {
		return MirrorTimes{}, 0, fmt.Errorf("read when to %s mirror %s: %w", s.What, s.Mirror, err)
	}
	t := MirrorTimes{Spec: r.Header.Get(headerSchedule), Zone: r.Header.Get(headerScheduleZone), Set: r.Time, SetSeq: r.Seq}
	if r.Header.Get(headerScheduleTarget) != s.tick() {
		t.Spec = "" // nobody would hear it
	}
	return t, r.Seq, nil
}

// MirrorTimes reads what the server knows of a schedule.
func (b *Bus) MirrorTimes(ctx context.Context, s MirrorSchedule) (MirrorTimes, error) {
	t, _, err := b.schedule(ctx, s)
	if err != nil || t.Spec == "" {
		return MirrorTimes{}, err
	}
	tick, ticked, err := b.lastMirror(ctx, StreamMirrorSchedule, s.tick())
	if err != nil {
		return MirrorTimes{}, fmt.Errorf("read when to %s mirror %s: %w", s.What, s.Mirror, err)
	}
	// What an earlier schedule came to is nothing of this one's.
	if ticked && tick.Seq > t.SetSeq {
		t.Ticked, t.TickSeq = tick.Stored, tick.Seq
	}
	return t, nil
}

// KeepMirrorSchedules takes away every schedule that keep does not want, and what is no
// schedule of this version: the server would publish their ticks for ever.
func (b *Bus) KeepMirrorSchedules(ctx context.Context, keep func(MirrorSchedule) bool) error {
	subjects, err := b.scheduleSubjects(ctx)
	if err != nil {
		return fmt.Errorf("list the schedules of mirrors: %w", err)
	}
	var errs []error
	for subject := range subjects {
		s, err := readSchedule(subject)
		if err == nil && keep(s) {
			continue
		}
		errs = append(errs, b.purge(ctx, StreamMirrorSchedule, subject))
	}
	return errors.Join(errs...)
}

func (b *Bus) scheduleSubjects(ctx context.Context) (map[string]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	s, err := b.js.Stream(ctx, StreamMirrorSchedule)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return nil, err
	}
	return info.State.Subjects, nil
}

// readSchedule takes the subject of a schedule or of a tick apart.
func readSchedule(subject string) (MirrorSchedule, error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 || parts[0] != "mirror" || parts[1] != "schedule" && parts[1] != "tick" || !token(parts[2]) || !token(parts[3]) {
		return MirrorSchedule{}, fmt.Errorf("subject %q: that is no schedule of a mirror, nor a tick of one", subject)
	}
	return MirrorSchedule{Mirror: parts[2], What: parts[3]}, nil
}

// ReadMirrorTick takes the subject of a tick apart.
func ReadMirrorTick(subject string) (MirrorSchedule, error) {
	s, err := readSchedule(subject)
	if err != nil || subject != s.tick() {
		return MirrorSchedule{}, fmt.Errorf("subject %q: that is no tick of a mirror", subject)
	}
	return s, nil
}

// olderThan reports whether a server's version is before another one. One that cannot be
// read is not.
func olderThan(version, than string) bool {
	var have, want [3]int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &have[0], &have[1], &have[2]); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(than, "%d.%d.%d", &want[0], &want[1], &want[2]); err != nil {
		return false
	}
	for i := range have {
		if have[i] != want[i] {
			return have[i] < want[i]
		}
	}
	return false
}
