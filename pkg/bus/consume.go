package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readerIdle is how long the server keeps a reader's consumer after the
	// reader is gone. Readers do not delete theirs: they need no permission to.
	readerIdle = 15 * time.Second
	// readerHeartbeat finds a consumer that the server lost within twice that.
	readerHeartbeat = 2 * time.Second
	readerPrefetch  = 512
)

// feed says what a reader reads.
type feed struct {
	stream string
	filter string
	// after is the last sequence that the reader knows already.
	after uint64
	// since, if not zero, leaves out what was stored before.
	since time.Time
	// lastOnly starts with the last message of each subject.
	lastOnly bool
	// idle, if not nil, is called once all messages that the stream held at the
	// start are read.
	idle func() error
}

// handlerError carries an error of a reader's function through the retries.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }

// read calls fn for each message of the feed in order, each exactly once, until
// ctx ends or fn fails. It survives reconnects, server restarts and changes of
// leader by going on after the last sequence it handed out.
func (b *Bus) read(ctx context.Context, f feed, fn func(record) error) error {
	r := &reader{bus: b, feed: f, fn: fn, last: f.after}
	var missingSince time.Time
	known, _ := b.violations()
	for try := 0; ; try++ {
		before := r.last
		err := r.run(ctx)
		var own *handlerError
		switch {
		case errors.As(err, &own) && errors.Is(own.err, Stop):
			return nil
		case errors.As(err, &own):
			return own.err
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, jetstream.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionClosed):
			return fmt.Errorf("read %s of stream %s: %w", f.filter, f.stream, err)
		// A server that just started may not have found its streams yet.
		case !notFound(err):
			missingSince = time.Time{}
		case missingSince.IsZero():
			missingSince = time.Now()
		case time.Since(missingSince) > storeBudget:
			return fmt.Errorf("read %s of stream %s: %w; run bootstrap", f.filter, f.stream, err)
		}
		if r.last > before {
			try = 0
		}
		b.log.Debug("reading again", "stream", f.stream, "filter", f.filter, "after", r.last, "error", err)
		if denied, _ := b.violations(); len(denied) > len(known) && try > 2 {
			return fmt.Errorf("read %s of stream %s: %w: %s", f.filter, f.stream, ErrDenied, denied[len(denied)-1])
		}
		if err := pause(ctx, backoff(try)); err != nil {
			return err
		}
	}
}

type reader struct {
	bus *Bus
	feed
	fn   func(record) error
	last uint64
	done bool // idle was called
}

// run reads by one consumer until something is lost.
func (r *reader) run(ctx context.Context) error {
	cfg := jetstream.ConsumerConfig{
		FilterSubject: r.filter, AckPolicy: jetstream.AckNonePolicy,
		DeliverPolicy: jetstream.DeliverAllPolicy, MaxDeliver: 1,
		InactiveThreshold: readerIdle, MemoryStorage: true, Replicas: 1,
	}
	switch {
	case r.last > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, r.last+1
	case !r.since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &r.since
	case r.lastOnly:
		cfg.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
	}
	create, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	cons, err := r.bus.js.CreateConsumer(create, r.stream, cfg)
	if err != nil {
		return err
	}
	info := cons.CachedInfo()
	if info.NumPending == 0 {
		if err := r.caughtUp(); err != nil {
			return err
		}
	}
	it, err := cons.Messages(jetstream.PullMaxMessages(readerPrefetch),
		jetstream.PullHeartbeat(readerHeartbeat), jetstream.PullExpiry(30*time.Second))
	if err != nil {
		return err
	}
	defer it.Stop()
	for expect := uint64(1); ; expect++ {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Consumer != expect {
			return fmt.Errorf("message %d of the consumer came where %d was due", meta.Sequence.Consumer, expect)
		}
		rec := record{Subject: m.Subject(), Seq: meta.Sequence.Stream, Header: m.Headers(), Data: m.Data(), Time: meta.Timestamp}
		if err := r.fn(rec); err != nil {
			return &handlerError{err}
		}
		r.last = rec.Seq
		if meta.NumPending == 0 {
			if err := r.caughtUp(); err != nil {
				return err
			}
		}
	}
}

func (r *reader) caughtUp() error {
	if r.idle == nil || r.done {
		return nil
	}
	r.done = true
	if err := r.idle(); err != nil {
		return &handlerError{err}
	}
	return nil
}

// readAll reads what the feed holds now and returns.
func (b *Bus) readAll(ctx context.Context, f feed, fn func(record) error) error {
	f.idle = func() error { return Stop }
	return b.read(ctx, f, fn)
}
