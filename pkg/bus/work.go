package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/telemetry"
)

// WorkOptions configure Work.
type WorkOptions struct {
	// Concurrency is how many messages this process works on at once; 0 means 1. One that is
	// not there costs nothing.
	Concurrency int
	// Untried, if not nil, counts how often a message was handed out before to a worker that
	// only waited with it until it was stopped: that is no try. It is asked of what is handed
	// out again, but for dead letters, and with an error again later. Concurrently.
	Untried func(ctx context.Context, m Message) (int, error)
}

// Message is one piece of work. For a dead letter that is tried again, Subject,
// Header, Data, Seq and Stored are those of the original message.
type Message struct {
	Subject string
	Data    []byte
	Header  nats.Header
	// Seq is the message's sequence in its stream.
	Seq uint64
	// Delivered counts how often it was handed to a worker, this time included, but for what
	// was no try; see WorkOptions.
	Delivered int
	Stored    time.Time

	keyring event.Keyring
}

// Event opens a message of the stream DRILLS. The error, which equals the
// Trust of what is returned, says that it is not a verified event.
func (m Message) Event() (Stored, error) {
	s := open(record{Subject: m.Subject, Seq: m.Seq, Header: m.Header, Data: m.Data, Time: m.Stored}, m.keyring)
	return s, s.Trust
}

// poison marks an error that no retry mends.
type poison struct{ err error }

func (p *poison) Error() string { return p.err.Error() }
func (p *poison) Unwrap() error { return p.err }

// Poison marks an error of a worker's function as one that no retry mends: the
// message becomes a dead letter at once. Poison(nil) is nil.
func Poison(err error) error {
	if err == nil {
		return nil
	}
	return &poison{err}
}

// Work hands the messages of a durable (see Durables) to fn until ctx ends,
// shared with every other process that works on the same durable. While fn runs
// the message is kept from being handed out again. When fn returns nil the
// message is done; on an error it is tried again after a growing delay, and
// after five tries, or at once for Poison, it becomes a dead letter. A message
// whose workers crashed five times becomes one too, before fn sees it again.
//
// Delivery is at least once: a worker that lost its connection may finish a
// message that another one was given meanwhile, so effects must be idempotent.
func (b *Bus) Work(ctx context.Context, name string, opt WorkOptions, fn func(ctx context.Context, m Message) error) error {
	d, err := durable(name)
	if err != nil {
		return fmt.Errorf("work: %w", err)
	}
	if d.Lanes {
		return fmt.Errorf("work: durable %q is worked off by its lanes", name)
	}
	w := &worker{bus: b, durable: d, stream: d.Stream, consumer: d.Name, fn: fn, hands: opt.Concurrency, untried: opt.Untried}
	again := b.retrier(d, fn)
	again.hands = opt.Concurrency // One of them may wait for hours.
	return together(ctx, []loop{again.run, w.run})
}

// retrier works off the dead letters of a durable that are tried again.
func (b *Bus) retrier(d Durable, fn func(context.Context, Message) error) *worker {
	return &worker{bus: b, durable: d, stream: StreamRetry, consumer: d.retryName(), fn: fn}
}

// loop works until ctx ends or it cannot go on.
type loop func(ctx context.Context) error

// together runs loops until the first of them ends, and gives its error.
func together(ctx context.Context, loops []loop) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, len(loops))
	for _, run := range loops {
		wg.Go(func() {
			errs <- run(ctx)
			cancel()
		})
	}
	wg.Wait()
	return <-errs
}

type worker struct {
	bus      *Bus
	durable  Durable
	stream   string
	consumer string
	// lane says that the consumer is made by who works on it.
	lane *lane
	fn   func(context.Context, Message) error
	// hands is how many messages it works on at once; 0 means 1.
	hands int
	// untried is that of WorkOptions.
	untried func(context.Context, Message) (int, error)
}

// run works until ctx ends, and through any loss of connection or server.
func (w *worker) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	h := &hands{free: make(chan struct{}, max(w.hands, 1))}
	defer h.busy.Wait()
	defer cancel()
	missingSince := time.Time{}
	for try := 0; ; try++ {
		worked, err := w.fetch(ctx, h)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, jetstream.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionClosed):
			return fmt.Errorf("work on %s: %w", w.consumer, err)
		case !notFound(err):
			missingSince = time.Time{}
		case missingSince.IsZero():
			missingSince = time.Now()
		case time.Since(missingSince) > storeBudget:
			return fmt.Errorf("work on durable %s of stream %s: %w; run bootstrap", w.consumer, w.stream, err)
		}
		if worked {
			try = 0
		}
		level := slog.LevelDebug
		if _, refused := errors.AsType[*jetstream.APIError](err); try%tellEvery == tellEvery-1 || try == 0 && refused && !notFound(err) {
			level = slog.LevelWarn // It is no interruption, and somebody has to mend it.
		}
		w.bus.log.Log(ctx, level, "work goes on after an interruption", "durable", w.consumer, "error", err)
		if pause(ctx, backoff(try)) != nil {
			return ctx.Err()
		}
	}
}

// tellEvery is after how many failures in a row, of half a second each, that is told.
const tellEvery = 60

// hands are those of a worker.
type hands struct {
	// free has an element for each that is at work.
	free chan struct{}
	busy sync.WaitGroup
}

// fetch takes one message after the other, whenever there is a hand for it, until something
// is lost; worked says whether there was any.
func (w *worker) fetch(ctx context.Context, h *hands) (worked bool, err error) {
	cons, err := w.find(ctx)
	if err != nil {
		return false, err
	}
	wait := cons.CachedInfo().Config.AckWait
	if w.lane != nil {
		w.lane.found.Store(&cons)
		defer w.lane.found.Store(nil)
	}
	// One message a pull: what waits here could be under way elsewhere.
	it, err := cons.Messages(jetstream.PullMaxMessages(1),
		jetstream.PullHeartbeat(readerHeartbeat), jetstream.PullExpiry(30*time.Second))
	if err != nil {
		return false, err
	}
	defer giveBack(it)
	for {
		select {
		case h.free <- struct{}{}:
		case <-ctx.Done():
			return worked, ctx.Err()
		}
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			<-h.free
			return worked, err
		}
		worked = true
		h.busy.Go(func() {
			defer func() { <-h.free }()
			w.handle(ctx, m, wait)
		})
	}
}

// find gives the consumer; a lane's is made if it is not there.
func (w *worker) find(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	cons, err := w.bus.js.Consumer(ctx, w.stream, w.consumer)
	if w.lane != nil && notFound(err) {
		return w.bus.js.CreateOrUpdateConsumer(ctx, w.stream, w.durable.Lane(w.lane.Name))
	}
	return cons, err
}

// handOver is after how long what a stopping worker gives back is handed out again.
const handOver = 200 * time.Millisecond

// giveBack stops the iterator and returns what arrived in the last moment, so
// that no other worker has to wait for it.
func giveBack(it jetstream.MessagesContext) {
	it.Drain()
	for {
		// Without a connection the drain does not end; nothing can be there then.
		m, err := it.Next(jetstream.NextMaxWait(time.Second))
		if err != nil {
			return
		}
		// Without the nak the message comes back all the same, only later.
		_ = m.Nak()
	}
}

// handle works on a message that is handed out again after wait without a sign of life.
func (w *worker) handle(ctx context.Context, m jetstream.Msg, wait time.Duration) {
	log := w.bus.log.With("durable", w.durable.Name, "subject", m.Subject())
	msg, err := w.message(m)
	if err != nil {
		log.Error("message without a place in a stream", "error", err)
		_ = m.Term() // It is not JetStream's, so there is nothing to bury.
		return
	}
	if msg.Delivered, err = w.tries(ctx, msg); err != nil {
		log.Warn("message will be tried once it is known how often it was", "error", err)
		_ = m.NakWithDelay(retryDelay(msg.Delivered)) // else it comes back a little later
		return
	}
	log = log.With("seq", msg.Seq, "delivered", msg.Delivered)
	if msg.Delivered > maxDeliver {
		err = Poison(fmt.Errorf("handed out %d times, and no worker finished it: each crashed, hung or lost its connection", msg.Delivered-1))
	} else {
		err = w.call(ctx, m, msg, wait)
	}
	var hopeless *poison
	switch {
	case err == nil:
		err = w.settle(ctx, m.DoubleAck)
	case errors.As(err, &hopeless), msg.Delivered >= maxDeliver && ctx.Err() == nil:
		log.Error("message becomes a dead letter", "error", err)
		reason := err
		if err = w.bus.bury(context.WithoutCancel(ctx), w.durable, m, msg, reason); err == nil {
			err = m.TermWithReason("dead letter")
		} else {
			_ = m.NakWithDelay(retryDelay(msg.Delivered))
		}
	case ctx.Err() != nil:
		// At once it might be handed to this very process, which takes nothing any more,
		// and a try would be lost.
		err = m.NakWithDelay(handOver)
	default:
		log.Warn("message will be tried again", "error", err)
		err = m.NakWithDelay(retryDelay(msg.Delivered))
	}
	if err != nil {
		log.Warn("message may be handed out again", "error", err)
	}
}

// tries counts how often a message was tried, this time included.
func (w *worker) tries(ctx context.Context, m Message) (int, error) {
	if w.untried == nil || m.Delivered < 2 {
		return m.Delivered, nil
	}
	n, err := w.untried(ctx, m)
	return max(m.Delivered-n, 1), err
}

// settle acknowledges, also when the work was finished while ctx ended.
func (w *worker) settle(ctx context.Context, ack func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryWait)
	defer cancel()
	return ack(ctx)
}

// call runs fn inside a span, telling the server all the while that the message
// is being worked on.
func (w *worker) call(ctx context.Context, m jetstream.Msg, msg Message, wait time.Duration) error {
	ctx, span := telemetry.StartProcess(ctx, msg.Header, telemetry.Messaging{
		Subject: msg.Subject, MessageID: msg.Header.Get(nats.MsgIdHdr), Drill: drillOf(msg.Subject),
		Durable: w.durable.Name, Service: w.bus.id.Service, Bytes: len(msg.Data),
	})
	done := make(chan struct{})
	var alive sync.WaitGroup
	alive.Go(func() {
		tick := time.NewTicker(max(wait/3, 10*time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				// A lost sign of life is made good by the next one.
				_ = m.InProgress()
			}
		}
	})
	err := w.fn(ctx, msg)
	close(done)
	alive.Wait()
	telemetry.End(span, err)
	return err
}

// retryDelay grows from a quarter of a second to sixteen.
func retryDelay(delivered int) time.Duration {
	return 250 * time.Millisecond << (2 * min(max(delivered-1, 0), 3))
}

// message reads a delivery; what comes by way of RETRY is shown as the original.
func (w *worker) message(m jetstream.Msg) (Message, error) {
	meta, err := m.Metadata()
	if err != nil {
		return Message{}, err
	}
	msg := Message{
		Subject: m.Subject(), Data: m.Data(), Header: m.Headers(),
		Seq: meta.Sequence.Stream, Delivered: int(meta.NumDelivered), Stored: meta.Timestamp,
		keyring: w.bus.keyring,
	}
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	if w.stream == StreamRetry {
		letter := readDead(record{Header: msg.Header, Data: msg.Data})
		msg.Subject, msg.Header = letter.Subject, letter.Header
		msg.Seq, msg.Stored = letter.Original, letter.Stored
	}
	return msg, nil
}

// drillOf returns the drill that an event's subject names, or "".
func drillOf(subject string) string {
	parts := strings.Split(subject, ".")
	if len(parts) == 5 && parts[0] == "drill" && parts[1] == "evt" {
		return parts[2]
	}
	return ""
}
