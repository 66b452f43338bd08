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

// The headers that make a dead letter of a message. The message's own headers
// stand beside them, apart from those that steer the server, whose names begin
// with Nats-; its message id is kept as headerDeadID.
const (
	headerDeadDurable   = "Firedrill-Dead-Durable"
	headerDeadStream    = "Firedrill-Dead-Stream"
	headerDeadSubject   = "Firedrill-Dead-Subject"
	headerDeadSeq       = "Firedrill-Dead-Seq"
	headerDeadStored    = "Firedrill-Dead-Stored"
	headerDeadDelivered = "Firedrill-Dead-Delivered"
	headerDeadReason    = "Firedrill-Dead-Reason"
	headerDeadID        = "Firedrill-Dead-Msg-Id"

	deadPrefix  = "Firedrill-Dead-"
	steerPrefix = "Nats-"
	maxReason   = 500
)

// ErrNoDeadLetter means that there is no dead letter with that sequence.
var ErrNoDeadLetter = errors.New("no such dead letter")

// DeadLetter is a message that a durable's workers could not process.
type DeadLetter struct {
	// Seq names the dead letter, for ReplayDead and DropDead.
	Seq     uint64
	Durable string
	// Reason is the last error.
	Reason string
	// Delivered counts the tries.
	Delivered int
	Died      time.Time
	// Stream, Subject, Original, Stored, Header and Data are the message's:
	// Original is its sequence there, Stored when it was stored.
	Stream   string
	Subject  string
	Original uint64
	Stored   time.Time
	Header   nats.Header
	Data     []byte
}

// Unfinished reports whether no worker came to an end with it: each crashed, hung or lost
// its connection. The next one may, too.
func (d DeadLetter) Unfinished() bool { return d.Delivered > maxDeliver }

// bury stores a message as a dead letter, once however often it is called.
func (b *Bus) bury(ctx context.Context, d Durable, m jetstream.Msg, msg Message, reason error) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	letter := nats.NewMsg("dead." + d.Name)
	letter.Data = msg.Data
	for k, v := range msg.Header {
		if !strings.HasPrefix(k, steerPrefix) && !strings.HasPrefix(k, deadPrefix) {
			letter.Header[k] = v
		}
	}
	set := func(k, v string) {
		if v != "" {
			letter.Header.Set(k, v)
		}
	}
	set(headerDeadDurable, d.Name)
	set(headerDeadStream, d.Stream)
	set(headerDeadSubject, msg.Subject)
	set(headerDeadSeq, strconv.FormatUint(msg.Seq, 10))
	set(headerDeadStored, msg.Stored.UTC().Format(time.RFC3339Nano))
	set(headerDeadDelivered, strconv.Itoa(msg.Delivered))
	set(headerDeadReason, oneLine(reason.Error()))
	set(headerDeadID, msg.Header.Get(nats.MsgIdHdr))
	id := fmt.Sprintf("dead.%s.%s.%d", d.Name, meta.Stream, meta.Sequence.Stream)
	if _, err := b.publish(ctx, letter, id); err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	return nil
}

// oneLine makes a text fit for a header.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

// readDead turns a dead letter's message back into what it was made of.
func readDead(r record) DeadLetter {
	h := r.Header
	out := DeadLetter{
		Seq: r.Seq, Died: r.Time, Data: r.Data, Header: nats.Header{},
		Durable: h.Get(headerDeadDurable), Stream: h.Get(headerDeadStream),
		Subject: h.Get(headerDeadSubject), Reason: h.Get(headerDeadReason),
	}
	// A field that is missing or unreadable stays zero: a dead letter is shown
	// as far as it can be read.
	out.Original, _ = strconv.ParseUint(h.Get(headerDeadSeq), 10, 64)
	out.Delivered, _ = strconv.Atoi(h.Get(headerDeadDelivered))
	out.Stored, _ = time.Parse(time.RFC3339Nano, h.Get(headerDeadStored))
	for k, v := range h {
		if !strings.HasPrefix(k, steerPrefix) && !strings.HasPrefix(k, deadPrefix) {
			out.Header[k] = v
		}
	}
	if id := h.Get(headerDeadID); id != "" {
		out.Header.Set(nats.MsgIdHdr, id)
	}
	return out
}

// DeadLetters lists the dead letters, oldest first.
func (b *Bus) DeadLetters(ctx context.Context) ([]DeadLetter, error) {
	var out []DeadLetter
	err := b.readAll(ctx, feed{stream: StreamDead, filter: "dead.>"}, func(r record) error {
		out = append(out, readDead(r))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return out, nil
}

// DeadLetterAt returns a dead letter. ErrNoDeadLetter says that there is none with that
// sequence, or not any more.
func (b *Bus) DeadLetterAt(ctx context.Context, seq uint64) (DeadLetter, error) {
	rec, err := b.deadRecord(ctx, seq)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter %d: %w", seq, err)
	}
	return readDead(rec), nil
}

func (b *Bus) deadRecord(ctx context.Context, seq uint64) (record, error) {
	if seq == 0 {
		return record{}, ErrNoDeadLetter
	}
	rec, err := b.get(ctx, StreamDead, getRequest{Seq: seq})
	if errors.Is(err, errNoRecord) {
		return record{}, ErrNoDeadLetter
	}
	return rec, err
}

// DropDead takes a dead letter off the list. Its message stays in the stream that it
// came from. ErrNoDeadLetter says that there is none with that sequence, or not any more.
func (b *Bus) DropDead(ctx context.Context, seq uint64) error {
	_, err := b.deadRecord(ctx, seq)
	if err == nil {
		err = b.deleteDead(ctx, seq)
	}
	if err != nil {
		return fmt.Errorf("drop dead letter %d: %w", seq, err)
	}
	return nil
}

// ReplayDead hands a dead letter to its durable's workers again and takes it off
// the list. If it fails again, it becomes a new dead letter. ErrNoDeadLetter
// says that there is none with that sequence, or not any more.
func (b *Bus) ReplayDead(ctx context.Context, seq uint64) error {
	rec, err := b.deadRecord(ctx, seq)
	if err != nil {
		return fmt.Errorf("replay dead letter %d: %w", seq, err)
	}
	name := rec.Header.Get(headerDeadDurable)
	if _, err := durable(name); err != nil {
		return fmt.Errorf("replay dead letter %d: %w", seq, err)
	}
	m := nats.NewMsg("retry." + name)
	m.Data = rec.Data
	for k, v := range rec.Header {
		if !strings.HasPrefix(k, steerPrefix) {
			m.Header[k] = v
		}
	}
	// Stored for retry first, deleted second: a crash between the two leaves a
	// letter on the list that is being tried again, and loses nothing.
	if _, err := b.publish(ctx, m, fmt.Sprintf("replay.%d", seq)); err != nil {
		return fmt.Errorf("replay dead letter %d: %w", seq, err)
	}
	if err := b.deleteDead(ctx, seq); err != nil {
		return fmt.Errorf("dead letter %d is being tried again, but stays on the list: %w", seq, err)
	}
	return nil
}

func (b *Bus) deleteDead(ctx context.Context, seq uint64) error {
	body, err := json.Marshal(map[string]any{"seq": seq, "no_erase": true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	reply, err := b.nc.RequestWithContext(ctx, apiBase+"STREAM.MSG.DELETE."+StreamDead, body)
	if err != nil {
		return err
	}
	var answer struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}
