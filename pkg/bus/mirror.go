package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The mirror's streams. Requests and what they came to are kept for people; work
// and its results only until a run has ended.
const (
	StreamMirror         = "MIRROR"
	StreamMirrorSchedule = "MIRROR_SCHEDULE"
	StreamMirrorWork     = "MIRROR_WORK"
	StreamMirrorDone     = "MIRROR_DONE"
	StreamMirrorLease    = "MIRROR_LEASE"
)

// The subjects of the mirror, where each wildcard is one token.
const (
	mirrorRequests  = "mirror.req.*.*"      // who asks, mirror
	mirrorEvents    = "mirror.evt.*.*"      // mirror, kind
	mirrorCommands  = "mirror.cmd.*.*"      // mirror, verb
	mirrorSchedules = "mirror.schedule.*.*" // mirror, what is done
	mirrorTicks     = "mirror.tick.*.*"     // mirror, what is done
	mirrorWork      = "mirror.work.*.*.*"   // mirror, run, number of the item
	mirrorDone      = "mirror.done.*.*.*"   // mirror, run, number of the item
)

// The mirror's work queues; see Durables.
const (
	MirrorRequests = "mirror-requests"
	MirrorTicks    = "mirror-ticks"
	MirrorWork     = "mirror-work"
)

func mirrorStreams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: StreamMirror, Description: "Requests for runs of mirrors and what became of them: mirror.req.<who>.<mirror>, mirror.evt.<mirror>.<kind>, mirror.cmd.<mirror>.<verb>.",
			Subjects: []string{mirrorRequests, mirrorEvents, mirrorCommands}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: day, MaxAge: 90 * day, MaxMsgsPerSubject: 10_000, MaxMsgSize: 512 << 10,
		},
		{
			// Schedules let anybody purge, so they lie apart.
			Name: StreamMirrorSchedule, Description: "When something is done with mirrors by itself: mirror.schedule.<mirror>.<what>, and each time that came: mirror.tick.<mirror>.<what>.",
			Subjects: []string{mirrorSchedules, mirrorTicks}, Storage: jetstream.FileStorage, AllowDirect: true,
			AllowMsgSchedules: true, Duplicates: 2 * time.Minute, MaxMsgsPerSubject: 1,
		},
		{
			Name: StreamMirrorWork, Description: "Work of running mirrors: mirror.work.<mirror>.<run>.<number>.",
			Subjects: []string{mirrorWork}, Storage: jetstream.FileStorage,
			Retention: jetstream.WorkQueuePolicy, Duplicates: 2 * time.Minute, MaxAge: 7 * day,
		},
		{
			Name: StreamMirrorDone, Description: "What became of that work: mirror.done.<mirror>.<run>.<number>.",
			Subjects: []string{mirrorDone}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: 2 * time.Minute, MaxAge: 7 * day,
		},
		{
			Name: StreamMirrorLease, Description: "Which run has which mirror: mirror.lease.<mirror>.",
			Subjects: []string{mirrorLeases}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: 2 * time.Minute, MaxMsgsPerSubject: 1,
		},
	}
}

// MirrorRequest says who asks for a run of which mirror.
type MirrorRequest struct{ Who, Mirror string }

// Subject is where the request is published.
func (r MirrorRequest) Subject() (string, error) {
	if !token(r.Who) || !token(r.Mirror) {
		return "", fmt.Errorf("request by %q for mirror %q: both must be single subject tokens", r.Who, r.Mirror)
	}
	return "mirror.req." + r.Who + "." + r.Mirror, nil
}

// ReadMirrorRequest takes a request's subject apart.
func ReadMirrorRequest(subject string) (MirrorRequest, error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 || parts[0] != "mirror" || parts[1] != "req" {
		return MirrorRequest{}, fmt.Errorf("subject %q: write mirror.req.<who>.<mirror>", subject)
	}
	return MirrorRequest{Who: parts[2], Mirror: parts[3]}, nil
}

// MirrorRequestsAtOnce is how many requests for runs may be under way, over all processes and
// in each: most of them may wait for hours, for a location or a machine, and none of the others
// may wait for that. Who takes them up bounds the runs that begin.
const MirrorRequestsAtOnce = 1024

// MirrorTries is how often Work hands out a request or an item of work before it
// becomes a dead letter.
const MirrorTries = maxDeliver

// MirrorRequested gives the last request by who for a mirror, whose Seq is 0 if there is
// none; waits says that it, or another request that came before it, is not worked off yet.
func (b *Bus) MirrorRequested(ctx context.Context, who, mirror string) (last Record, waits bool, err error) {
	last, known, err := b.lastMirror(ctx, StreamMirror, "mirror.req."+who+"."+mirror)
	if err != nil || !known {
		if err != nil {
			err = fmt.Errorf("read the last request by %s for mirror %s: %w", who, mirror, err)
		}
		return Record{}, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	c, err := b.js.Consumer(ctx, StreamMirror, MirrorRequests)
	if err != nil {
		return Record{}, false, fmt.Errorf("read how far the requests for mirrors are worked off: %w", err)
	}
	return last, c.CachedInfo().AckFloor.Stream < last.Seq, nil
}

// MirrorReaders is how many requests for runs of mirrors are waited for at this moment, by
// all processes that run mirrors: 0 where there are none, or have their hands full.
func (b *Bus) MirrorReaders(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	before, _ := b.violations()
	c, err := b.js.Consumer(ctx, StreamMirror, MirrorRequests)
	if err == nil {
		return c.CachedInfo().NumWaiting, nil
	}
	if denied, _ := b.violations(); len(denied) > len(before) {
		err = fmt.Errorf("%w: %s", ErrDenied, denied[len(denied)-1])
	}
	return 0, fmt.Errorf("look who takes requests for mirrors: %w", err)
}

// MirrorClock is what the server's clock shows, by which it is known how old events are.
func (b *Bus) MirrorClock(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	c, err := b.js.Consumer(ctx, StreamMirror, MirrorRequests)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the server's time: %w", err)
	}
	return c.CachedInfo().TimeStamp, nil
}

// MirrorWorkWaits reports whether an item of a run's work is still in its queue, or in
// a worker's hands.
func (b *Bus) MirrorWorkWaits(ctx context.Context, mirror, run string, number int64) (bool, error) {
	_, known, err := b.lastMirror(ctx, StreamMirrorWork, "mirror.work."+mirror+"."+run+"."+strconv.FormatInt(number, 10))
	if err != nil {
		err = fmt.Errorf("look for item %d of run %s of mirror %s: %w", number, run, mirror, err)
	}
	return known, err
}

// PublishMirrorEvent stores v as JSON on mirror.evt.<mirror>.<kind>; id makes it
// idempotent.
func (b *Bus) PublishMirrorEvent(ctx context.Context, mirror, kind, id string, v any) error {
	return b.publishMirror(ctx, "mirror.evt."+mirror+"."+kind, id, v)
}

// PublishMirrorCommand stores v as JSON on mirror.cmd.<mirror>.<verb>.
func (b *Bus) PublishMirrorCommand(ctx context.Context, mirror, verb string, v any) error {
	return b.publishMirror(ctx, "mirror.cmd."+mirror+"."+verb, "", v)
}

func (b *Bus) publishMirror(ctx context.Context, subject, id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", subject, err)
	}
	m := nats.NewMsg(subject)
	m.Data = data
	m.Header.Set("Content-Type", "application/json")
	_, err = b.publish(ctx, m, id)
	return err
}

// Record is one message of the mirror's streams.
type Record struct {
	Seq     uint64
	Subject string
	// Kind is the subject's last token: an event's kind, a command's verb.
	Kind   string
	Data   []byte
	Stored time.Time
	// Instance is the process that stored what became of an item; "" for the rest.
	Instance string
}

const headerMirrorInstance = "Firedrill-Mirror-Instance"

// FollowMirror calls fn for the events of a mirror behind a sequence, oldest first,
// and then for each new one, until ctx ends or fn returns an error (Stop ends
// without one).
func (b *Bus) FollowMirror(ctx context.Context, mirror string, after uint64, fn func(Record) error) error {
	return b.FollowMirrorKind(ctx, mirror, "*", after, fn)
}

// FollowMirrorKind is FollowMirror for events of one kind.
func (b *Bus) FollowMirrorKind(ctx context.Context, mirror, kind string, after uint64, fn func(Record) error) error {
	return b.followMirror(ctx, feed{stream: StreamMirror, filter: "mirror.evt." + mirror + "." + kind, after: after}, fn)
}

// MirrorEventsSince calls fn for the events of a kind that were stored since a time, oldest
// first, and returns once it has seen those that there were when it began; fn may end that
// earlier, with Stop without an error.
func (b *Bus) MirrorEventsSince(ctx context.Context, mirror, kind string, since time.Time, fn func(Record) error) error {
	last, known, err := b.LastMirrorEvent(ctx, mirror, kind)
	if err != nil || !known || last.Stored.Before(since) {
		return err
	}
	return b.followMirror(ctx, feed{stream: StreamMirror, filter: "mirror.evt." + mirror + "." + kind, since: since}, func(r Record) error {
		if r.Seq > last.Seq {
			return Stop
		}
		if err := fn(r); err != nil || r.Seq < last.Seq {
			return err
		}
		return Stop
	})
}

// FollowMirrorCommands is FollowMirror for commands.
func (b *Bus) FollowMirrorCommands(ctx context.Context, mirror string, after uint64, fn func(Record) error) error {
	return b.followMirror(ctx, feed{stream: StreamMirror, filter: "mirror.cmd." + mirror + ".*", after: after}, fn)
}

// FollowMirrorDone calls fn for what becomes of a run's items, each at least once;
// Kind is the item's number.
func (b *Bus) FollowMirrorDone(ctx context.Context, mirror, run string, fn func(Record) error) error {
	return b.followMirror(ctx, feed{stream: StreamMirrorDone, filter: "mirror.done." + mirror + "." + run + ".*"}, fn)
}

func (b *Bus) followMirror(ctx context.Context, f feed, fn func(Record) error) error {
	return b.read(ctx, f, func(r record) error {
		return fn(Record{
			Seq: r.Seq, Subject: r.Subject, Kind: r.Subject[strings.LastIndexByte(r.Subject, '.')+1:],
			Data: r.Data, Stored: r.Time, Instance: r.Header.Get(headerMirrorInstance),
		})
	})
}

// LastMirror gives the last event of a mirror; false if there is none.
func (b *Bus) LastMirror(ctx context.Context, mirror string) (Record, bool, error) {
	return b.LastMirrorEvent(ctx, mirror, "*")
}

// LastMirrorEvent is LastMirror for events of one kind.
func (b *Bus) LastMirrorEvent(ctx context.Context, mirror, kind string) (Record, bool, error) {
	r, known, err := b.lastMirror(ctx, StreamMirror, "mirror.evt."+mirror+"."+kind)
	if err != nil {
		err = fmt.Errorf("read the last event of mirror %s: %w", mirror, err)
	}
	return r, known, err
}

func (b *Bus) lastMirror(ctx context.Context, stream, subject string) (Record, bool, error) {
	r, err := b.get(ctx, stream, getRequest{LastFor: subject})
	if errors.Is(err, errNoRecord) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, err
	}
	return Record{Seq: r.Seq, Subject: r.Subject, Kind: r.Subject[strings.LastIndexByte(r.Subject, '.')+1:], Data: r.Data, Stored: r.Time}, true, nil
}

// PublishMirrorWork stores an item of a run's work, PublishMirrorDone what became of
// it: each at most once for its number within two minutes.
func (b *Bus) PublishMirrorWork(ctx context.Context, mirror, run string, number int64, data []byte) error {
	return b.publishMirrorItem(ctx, "mirror.work.", mirror, run, number, data)
}

// PublishMirrorDone: see PublishMirrorWork.
func (b *Bus) PublishMirrorDone(ctx context.Context, mirror, run string, number int64, data []byte) error {
	return b.publishMirrorItem(ctx, "mirror.done.", mirror, run, number, data)
}

// PublishMirrorRead stores v as JSON among what became of a run's work, as what a
// worker has read for it so far: FollowMirrorDone then has worker, which must not be a
// number, as the Kind.
func (b *Bus) PublishMirrorRead(ctx context.Context, mirror, run, worker string, v any) error {
	return b.publishMirror(ctx, "mirror.done."+mirror+"."+run+"."+worker, "", v)
}

func (b *Bus) publishMirrorItem(ctx context.Context, base, mirror, run string, number int64, data []byte) error {
	n := strconv.FormatInt(number, 10)
	m := nats.NewMsg(base + mirror + "." + run + "." + n)
	m.Data = data
	m.Header.Set(headerMirrorInstance, b.id.Instance)
	_, err := b.publish(ctx, m, mirror+"/"+run+"/"+n)
	return err
}

// MirrorItem is where an item of work belongs.
type MirrorItem struct {
	Mirror, Run string
	Number      int64
}

// ReadMirrorWork takes the subject of an item of work apart.
func ReadMirrorWork(subject string) (MirrorItem, error) {
	parts := strings.Split(subject, ".")
	if len(parts) == 5 && parts[0] == "mirror" && parts[1] == "work" {
		if n, err := strconv.ParseInt(parts[4], 10, 64); err == nil {
			return MirrorItem{parts[2], parts[3], n}, nil
		}
	}
	return MirrorItem{}, fmt.Errorf("subject %q: that is no item of a mirror's work", subject)
}

// AnyRun stands for all runs of a mirror where something is dropped.
const AnyRun = "*"

// DropMirrorWork removes what is left of a run's work: what nobody has begun is not
// begun any more.
func (b *Bus) DropMirrorWork(ctx context.Context, mirror, run string) error {
	return b.purge(ctx, StreamMirrorWork, "mirror.work."+mirror+"."+run+".*")
}

// DropMirrorDone removes the results of a run that has ended.
func (b *Bus) DropMirrorDone(ctx context.Context, mirror, run string) error {
	return b.purge(ctx, StreamMirrorDone, "mirror.done."+mirror+"."+run+".*")
}

// purge may be repeated, and is until it is answered: as long as a publish is.
func (b *Bus) purge(ctx context.Context, stream, filter string) error {
	give := time.Now().Add(storeBudget)
	for try := 0; ; try++ {
		err := b.purgeOnce(ctx, stream, filter)
		if err == nil {
			return nil
		}
		api, refused := errors.AsType[*jetstream.APIError](err)
		if refused && api.Code < 500 || !refused && !isTransient(err) || time.Now().After(give) || pause(ctx, backoff(try)) != nil {
			return fmt.Errorf("remove %s from stream %s: %w", filter, stream, err)
		}
	}
}

func (b *Bus) purgeOnce(ctx context.Context, stream, filter string) error {
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	return s.Purge(ctx, jetstream.WithPurgeSubject(filter))
}
