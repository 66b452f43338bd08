package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/telemetry"
)

// maxBatch is JetStream's limit for one atomic batch.
const maxBatch = 1000

// minConflicts is how many conflicts Append takes before its budget counts. Each says that
// others were stored meanwhile. Who has lost is behind: it reads what the others wrote, who
// need not. Of eight that write without a pause one was seen to lose 23 times in a row.
const minConflicts = 100

// The headers of an atomic batch, which nats.go does not offer yet.
const (
	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
)

// EventSubject is the subject that an event lies on.
func EventSubject(drill, service string, t event.Type) string {
	return "drill.evt." + drill + "." + service + "." + t.Kind()
}

// drillFilter matches all events of a drill. Compare-and-set compares with this
// very string: with replicas, every writer must use the same one.
func drillFilter(drill string) string { return "drill.evt." + drill + ".>" }

// sealed is a signed event on its way to the stream.
type sealed struct {
	event   event.Event
	raw     []byte
	payload any
	subject string
}

// AppendAt stores the drafts as the next events of the drill's history, if and
// only if the history still ends at the given place. Either all are stored, one
// after the other with nothing in between, or none.
//
// A *ConflictError (ErrConflict) says that somebody else wrote and nothing was
// stored. ErrOutcomeUnknown says that the server did not answer within 10 s, or
// before ctx ended; read the history to find out. ErrNoAnswer says the same of a
// server that was never reached: nothing was stored. A lost answer alone does not
// lead to an error: the try is repeated, and what was stored already is found.
func (b *Bus) AppendAt(ctx context.Context, drill string, at Tail, drafts ...event.Draft) ([]Stored, error) {
	ids := newIDs(len(drafts))
	events, err := b.seal(ctx, drill, at, drafts, ids)
	if err != nil {
		return nil, err
	}
	return b.store(ctx, drill, at, events)
}

// Append is AppendAt at wherever the drill's history ends, for writers whose
// events do not depend on what others wrote meanwhile. It repeats on conflict
// until ctx ends, or 10 s have passed with at least 100 tries: one conflict after
// a long election is no reason to give up, nor are a busy machine and many that write. The end of the history is remembered, so
// that a writer in a row does not read it each time, and after a conflict only what
// others wrote is read.
func (b *Bus) Append(ctx context.Context, drill string, drafts ...event.Draft) ([]Stored, error) {
	ids := newIDs(len(drafts))
	give := time.Now().Add(storeBudget)
	at, cached := b.tails.get(drill)
	if !cached {
		var err error
		if at, err = b.tail(ctx, drill); err != nil {
			return nil, err
		}
	}
	for try := 0; ; try++ {
		events, err := b.seal(ctx, drill, at, drafts, ids)
		if err != nil {
			return nil, err
		}
		out, err := b.store(ctx, drill, at, events)
		if !errors.Is(err, ErrConflict) || (try >= minConflicts && time.Now().After(give)) {
			return out, err
		}
		if try > 1 {
			if e := pause(ctx, backoff(0)/4); e != nil {
				return nil, err
			}
		}
		if at, err = b.tailAfter(ctx, drill, at); err != nil {
			return nil, err
		}
	}
}

func newIDs(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = rand.Text()
	}
	return out
}

// seal chains the drafts onto the tail and signs them.
func (b *Bus) seal(ctx context.Context, drill string, at Tail, drafts []event.Draft, ids []string) ([]sealed, error) {
	if b.id.Signer == nil {
		return nil, fmt.Errorf("append to drill %s as %s: %w", drill, b.id.Service, ErrNoSigner)
	}
	if len(drafts) == 0 || len(drafts) > maxBatch {
		return nil, fmt.Errorf("append to drill %s: %d events; an append takes 1 to %d", drill, len(drafts), maxBatch)
	}
	o := event.Origin{
		Service: b.id.Service, Instance: b.id.Instance, Drill: drill,
		TraceParent: telemetry.TraceParent(telemetry.DrillContext(ctx, drill)),
		Index:       at.Index, PrevHash: at.Hash,
	}
	if at.Index == 0 {
		o.PrevHash = event.NoHash
	}
	out := make([]sealed, len(drafts))
	for i, d := range drafts {
		o.ID, o.At = ids[i], b.id.Clock.Now()
		o.Index++
		e, err := event.Compose(d, o)
		if err != nil {
			return nil, fmt.Errorf("append to drill %s: %w", drill, err)
		}
		raw, err := event.Seal(e, b.id.Signer)
		if err != nil {
			return nil, fmt.Errorf("append to drill %s: %w", drill, err)
		}
		if limit := b.nc.MaxPayload(); int64(len(raw))+headerRoom > limit {
			return nil, fmt.Errorf("append to drill %s: the %s is %d bytes, the server takes %d; split it or shorten its texts", drill, d.Type, len(raw), limit-headerRoom)
		}
		if e, err = event.Open(raw, event.Keyring{b.id.Service: {b.id.Signer.Public()}}); err != nil {
			return nil, fmt.Errorf("append to drill %s: own event does not verify: %w", drill, err)
		}
		payload, err := event.Decode(e)
		if err != nil {
			return nil, fmt.Errorf("append to drill %s: %w", drill, err)
		}
		out[i] = sealed{event: e, raw: raw, payload: payload, subject: EventSubject(drill, b.id.Service, d.Type)}
		o.PrevHash = event.Hash(raw)
	}
	return out, nil
}

// headerRoom is kept free of the server's limit for headers.
const headerRoom = 2048

// store publishes sealed events, repeating a try whose outcome is open, and
// finds out what became of it.
func (b *Bus) store(ctx context.Context, drill string, at Tail, events []sealed) ([]Stored, error) {
	give := time.Now().Add(storeBudget)
	open := false // whether an earlier try may have been stored
	for try := 0; ; try++ {
		ack, err := b.publishOnce(ctx, b.messages(ctx, drill, at, events))
		switch {
		case err == nil && !ack.Duplicate:
			return b.stored(drill, events, ack.Seq-uint64(len(events))+1), nil
		case err == nil, isCode(err, codeBatchHasDuplicate):
			return b.alreadyStored(ctx, drill, at, events)
		case isCode(err, codeWrongLastSequence):
			last := lastSequence(err)
			if !open {
				return nil, &ConflictError{Drill: drill, At: at, Last: last}
			}
			return b.settle(ctx, drill, at, events, last)
		case !isTransient(err):
			return nil, fmt.Errorf("append to drill %s: %w", drill, err)
		}
		open = open || !isUnsent(err)
		if ctx.Err() != nil || time.Now().After(give) || pause(ctx, backoff(try)) != nil {
			return nil, b.undecided(drill, open, noAnswer(ctx, try+1, err))
		}
	}
}

func (b *Bus) undecided(drill string, open bool, err error) error {
	if denied, _ := b.violations(); len(denied) > 0 {
		err = fmt.Errorf("%w (the server also refused: %s)", err, denied[len(denied)-1])
	}
	if !open {
		return fmt.Errorf("append to drill %s: not stored: %w", drill, err)
	}
	// Not wrapped: ErrNoAnswer promises that nothing was stored.
	return fmt.Errorf("append to drill %s: %w: %v", drill, ErrOutcomeUnknown, err)
}

// messages builds the messages of one try. A batch needs a new id at each try,
// because the server may still hold parts of the last one.
func (b *Bus) messages(ctx context.Context, drill string, at Tail, events []sealed) []*nats.Msg {
	batch := rand.Text()
	out := make([]*nats.Msg, len(events))
	for i, e := range events {
		m := nats.NewMsg(e.subject)
		m.Data = e.raw
		m.Header.Set(nats.MsgIdHdr, e.event.ID)
		m.Header.Set("Content-Type", event.ContentType)
		telemetry.Inject(telemetry.DrillContext(ctx, drill), m.Header)
		if i == 0 {
			m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(at.Seq, 10))
			m.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, drillFilter(drill))
		}
		if len(events) > 1 {
			m.Header.Set(headerBatchID, batch)
			m.Header.Set(headerBatchSeq, strconv.Itoa(i+1))
			if i == len(events)-1 {
				m.Header.Set(headerBatchCommit, "1")
			}
		}
		out[i] = m
	}
	return out
}

// stored turns acknowledged events into what a reader would see.
func (b *Bus) stored(drill string, events []sealed, first uint64) []Stored {
	out := make([]Stored, len(events))
	for i, e := range events {
		seq := first + uint64(i)
		out[i] = Stored{
			Seq: seq, Raw: e.raw, Event: e.event, Payload: e.payload,
			tail: Tail{Seq: seq, Index: e.event.ChainIndex, Hash: event.Hash(e.raw)},
		}
	}
	b.tails.put(drill, out[len(out)-1])
	return out
}

// settle decides a conflict that an earlier try of the same append may have
// caused: whatever follows the expected place is either that try or foreign.
func (b *Bus) settle(ctx context.Context, drill string, at Tail, events []sealed, last uint64) ([]Stored, error) {
	next, err := b.get(ctx, StreamDrills, getRequest{Seq: at.Seq + 1, NextFor: drillFilter(drill)})
	switch {
	case errors.Is(err, errNoRecord):
		return nil, &ConflictError{Drill: drill, At: at, Last: last}
	case err != nil:
		return nil, fmt.Errorf("append to drill %s: %w: reading the history back: %w", drill, ErrOutcomeUnknown, err)
	case string(next.Data) != string(events[0].raw):
		return nil, &ConflictError{Drill: drill, At: at, Last: last}
	}
	return b.stored(drill, events, next.Seq), nil
}

// alreadyStored handles the answer that the events' ids are stored. Append may
// have chained an earlier try of the same ids to another place, so they are
// looked up and returned as they lie there.
func (b *Bus) alreadyStored(ctx context.Context, drill string, at Tail, events []sealed) ([]Stored, error) {
	if out, err := b.settle(ctx, drill, at, events, 0); !errors.Is(err, ErrConflict) {
		return out, err
	}
	history, err := b.History(ctx, drill)
	if err != nil {
		return nil, fmt.Errorf("append to drill %s: %w: reading the history back: %w", drill, ErrOutcomeUnknown, err)
	}
	for i, s := range history {
		if s.Trust == nil && s.Event.ID == events[0].event.ID && i+len(events) <= len(history) {
			return history[i : i+len(events)], nil
		}
	}
	return nil, fmt.Errorf("append to drill %s: %w: the server calls event %s a duplicate, but the history does not hold it", drill, ErrOutcomeUnknown, events[0].event.ID)
}

// lastSequence reads the sequence in "wrong last sequence: 7"; 0 if there is none.
func lastSequence(err error) uint64 {
	var api *apiError
	if !errors.As(err, &api) {
		return 0
	}
	_, digits, _ := strings.Cut(api.Description, ": ")
	n, e := strconv.ParseUint(digits, 10, 64)
	if e != nil {
		return 0
	}
	return n
}
