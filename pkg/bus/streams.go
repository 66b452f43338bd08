package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/event"
)

// The streams.
const (
	StreamDrills   = "DRILLS"
	StreamRequests = "REQUESTS"
	StreamResults  = "RESULTS"
	StreamCommands = "COMMANDS"
	StreamControl  = "CONTROL"
	StreamExternal = "EXTERNAL"
	StreamDead     = "DEAD"
	StreamRetry    = "RETRY"
)

const (
	day = 24 * time.Hour

	// ackWait is how long a worker may be silent before its message is given to
	// another; it says that it is alive three times as often.
	ackWait = 30 * time.Second
	// maxDeliver is how often a message is tried before it is a dead letter.
	maxDeliver = 5
)

// BootstrapOptions configure Bootstrap.
type BootstrapOptions struct {
	// Replicas of each stream; 0 keeps what there is, or means 1.
	Replicas int
}

// Bootstrap makes the streams and durables, or brings them up to date. It is
// idempotent. Only the bootstrap identity is permitted to run it on a server
// with accounts: whoever may update a stream can cut its history.
func (b *Bus) Bootstrap(ctx context.Context, o BootstrapOptions) error {
	for _, cfg := range streamTable() {
		if err := b.bootstrapStream(ctx, cfg, o.Replicas); err != nil {
			return fmt.Errorf("bootstrap stream %s: %w", cfg.Name, err)
		}
	}
	for _, d := range Durables() {
		for _, cfg := range d.consumers() {
			if _, err := b.js.CreateOrUpdateConsumer(ctx, cfg.stream, cfg.config); err != nil {
				return fmt.Errorf("bootstrap durable %s on stream %s: %w", cfg.config.Durable, cfg.stream, err)
			}
		}
		if !d.Lanes {
			continue
		}
		// One consumer for all, as there was before there were lanes, keeps them from being made.
		if err := b.js.DeleteConsumer(ctx, d.Stream, d.Name); err != nil && !notFound(err) {
			return fmt.Errorf("bootstrap durable %s on stream %s: remove what was there before: %w", d.Name, d.Stream, err)
		}
	}
	return nil
}

type durableStream struct {
	stream string
	config jetstream.ConsumerConfig
}

// consumers are those that Bootstrap makes.
func (d Durable) consumers() []durableStream {
	all := []durableStream{{StreamRetry, d.retryConfig()}}
	if !d.Lanes {
		all = append(all, durableStream{d.Stream, d.config()})
	}
	return all
}

func (b *Bus) bootstrapStream(ctx context.Context, cfg jetstream.StreamConfig, replicas int) error {
	cfg.Replicas = max(replicas, 1)
	have, err := b.js.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = b.js.CreateStream(ctx, cfg)
		// Another process may bootstrap at the same time.
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err
		}
		have, err = b.js.Stream(ctx, cfg.Name)
	}
	if err != nil {
		return err
	}
	if replicas == 0 {
		cfg.Replicas = have.CachedInfo().Config.Replicas
	}
	_, err = b.js.UpdateStream(ctx, cfg)
	return err
}

// streamTable lists the streams. DRILLS keeps everything for ever and lets
// nobody delete or purge; the others hold what may be forgotten.
func streamTable() []jetstream.StreamConfig {
	return append(mirrorStreams(), []jetstream.StreamConfig{
		{
			Name: StreamDrills, Description: "Histories of drills: signed, hash-chained events.",
			Subjects: []string{"drill.evt.>"}, Storage: jetstream.FileStorage,
			DenyDelete: true, DenyPurge: true, AllowDirect: true, AllowAtomicPublish: true,
			Duplicates: 2 * time.Minute,
		},
		{
			Name: StreamRequests, Description: "Requests for drills: drill.req.<who>.<name>.",
			Subjects: []string{"drill.req.>"}, Storage: jetstream.FileStorage, AllowDirect: true,
			// A requester that repeats a Nats-Msg-Id within a day gets no second drill.
			Duplicates: day, MaxAge: 90 * day, MaxMsgSize: 512 << 10,
		},
		{
			Name: StreamResults, Description: "Answers to requests: drill.res.<who>.<name>.",
			Subjects: []string{"drill.res.>"}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: 2 * time.Minute, MaxAge: 365 * day,
		},
		{
			Name: StreamCommands, Description: "Commands to running drills: drill.cmd.<drill>.<verb>.",
			Subjects: []string{"drill.cmd.>"}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: 2 * time.Minute, MaxAge: 30 * day,
		},
		{
			Name: StreamControl, Description: "The halt switch, and which drill has which system: drill.claim.<hash>.",
			Subjects: []string{subjectHalt, "drill.claim.*"}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: 2 * time.Minute, MaxMsgsPerSubject: 64,
		},
		{
			Name: StreamExternal, Description: "Notes by other systems: drill.ext.<drill>.",
			Subjects: []string{"drill.ext.>"}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: 2 * time.Minute, MaxAge: 30 * day, MaxMsgSize: 64 << 10,
		},
		{
			Name: StreamDead, Description: "Messages that no worker could process: dead.<durable>.",
			Subjects: []string{"dead.>"}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: day,
		},
		{
			Name: StreamRetry, Description: "Dead letters that are tried again: retry.<durable>.",
			Subjects: []string{"retry.>"}, Storage: jetstream.FileStorage, AllowDirect: true,
			Duplicates: 2 * time.Minute, Retention: jetstream.WorkQueuePolicy,
		},
	}...)
}

// Durable is one row of the table of work queues.
type Durable struct {
	Name   string
	Stream string
	// Filters are the subjects whose messages are this durable's work.
	Filters []string
	// MaxAckPending caps how many messages are under way, over all workers.
	MaxAckPending int
	// Service is the only one that works it off.
	Service string
	// Lanes says that it is worked off by WorkLanes: each key, which is the first
	// wildcard of its one filter, has a consumer of its own, made by who works on it.
	Lanes bool
}

// Durables lists every work queue. Bootstrap makes them, Work serves them.
func Durables() []Durable {
	on := func(types ...event.Type) []string {
		var out []string
		for _, t := range types {
			info, _ := event.Lookup(t)
			out = append(out, "drill.evt.*."+info.Service+"."+t.Kind())
		}
		return out
	}
	return []Durable{
		{Name: "injector-requests", Stream: StreamRequests, Filters: []string{"drill.req.>"}, MaxAckPending: 1, Service: event.Injector},
		{Name: "injector-external", Stream: StreamExternal, Filters: []string{"drill.ext.>"}, MaxAckPending: 1, Service: event.Injector},
		{Name: "validator-baselines", Stream: StreamDrills, Filters: on(event.TypeBaselineRequested), MaxAckPending: 16, Service: event.Validator},
		{Name: "validator-checks", Stream: StreamDrills, Filters: on(event.TypeLedgerCut), MaxAckPending: 16, Service: event.Validator},
		{Name: "validator-evidence", Stream: StreamDrills, Filters: on(
			event.TypeRecoveryMissing, event.TypeSteadyViolated, event.TypeFaultFailed,
			event.TypeActionFailed, event.TypeUndoFailed, event.TypeChecksCompleted), MaxAckPending: 16, Service: event.Validator},
		{Name: "mirror-jobs", Stream: StreamDrills, Filters: on(event.TypeMirrorRequested), MaxAckPending: 64, Service: event.Mirror},
		{Name: MirrorRequests, Stream: StreamMirror, Filters: []string{mirrorRequests}, MaxAckPending: MirrorRequestsAtOnce, Service: event.Mirror},
		{Name: MirrorTicks, Stream: StreamMirrorSchedule, Filters: []string{mirrorTicks}, MaxAckPending: 16, Service: event.Mirror},
		{Name: MirrorWork, Stream: StreamMirrorWork, Filters: []string{mirrorWork}, MaxAckPending: 256, Service: event.Mirror, Lanes: true},
		{Name: "reporter-finished", Stream: StreamDrills, Filters: on(event.TypeDrillFinished), MaxAckPending: 16, Service: event.Reporter},
	}
}

func durable(name string) (Durable, error) {
	all := Durables()
	i := slices.IndexFunc(all, func(d Durable) bool { return d.Name == name })
	if i < 0 {
		return Durable{}, fmt.Errorf("durable %q is not in the table of durables", name)
	}
	return all[i], nil
}

// config is the consumer's configuration. MaxDeliver has no limit at the
// server: it would just stop delivering a message whose worker crashes every
// time, and that message would be lost to sight. Work counts instead.
func (d Durable) config() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: d.Name, FilterSubjects: d.Filters,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxDeliver: -1, MaxAckPending: d.MaxAckPending,
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}
}

func (d Durable) retryConfig() jetstream.ConsumerConfig {
	c := d.config()
	c.Durable = d.retryName()
	c.FilterSubjects = []string{"retry." + d.Name}
	return c
}

// laneIdle is how long the server keeps a lane that nobody asks for work.
const laneIdle = day

// Lane is the configuration of a lane's consumer. The server forgets it a day after the
// last worker asked for its messages; what waits there is kept as the stream says.
func (d Durable) Lane(key string) jetstream.ConsumerConfig {
	c := d.config()
	c.Durable = d.laneName(key)
	c.FilterSubjects, c.FilterSubject = nil, strings.Replace(d.Filters[0], "*", key, 1)
	c.InactiveThreshold = laneIdle
	return c
}

func (d Durable) laneName(key string) string { return d.Name + "-" + key }

func (d Durable) retryName() string { return d.Name + "-retry" }
