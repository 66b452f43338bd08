package bus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/firedrill/firedrill/pkg/telemetry"
)

// PubAck says where a message was stored. Duplicate means that the same message
// id was stored before, at Seq.
type PubAck struct {
	Stream    string
	Seq       uint64
	Duplicate bool
}

// Publish stores a message on a subject of any stream but DRILLS, whose events
// go through Append. msgID makes it idempotent for the stream's duplicate
// window (a day for requests); an empty one is replaced by a random id, which
// only makes the retries idempotent. It retries for up to 10 s; then ErrNoAnswer
// says that nothing was stored, and ErrOutcomeUnknown that it may be.
func (b *Bus) Publish(ctx context.Context, subject string, data []byte, msgID string) (PubAck, error) {
	if strings.HasPrefix(subject, "drill.evt.") {
		return PubAck{}, fmt.Errorf("publish to %s: events are appended, not published", subject)
	}
	m := nats.NewMsg(subject)
	m.Data = data
	return b.publish(ctx, m, msgID)
}

func (b *Bus) publish(ctx context.Context, m *nats.Msg, msgID string) (PubAck, error) {
	if msgID == "" {
		msgID = rand.Text()
	}
	m.Header.Set(nats.MsgIdHdr, msgID)
	if m.Header.Get("traceparent") == "" {
		telemetry.Inject(ctx, m.Header)
	}
	give := time.Now().Add(storeBudget)
	open := false // whether an earlier try may have been stored
	for try := 0; ; try++ {
		ack, err := b.publishOnce(ctx, []*nats.Msg{m})
		if err == nil {
			return PubAck{Stream: ack.Stream, Seq: ack.Seq, Duplicate: ack.Duplicate}, nil
		}
		if !isTransient(err) {
			return PubAck{}, fmt.Errorf("publish to %s: %w", m.Subject, err)
		}
		open = open || !isUnsent(err)
		if time.Now().After(give) || pause(ctx, backoff(try)) != nil {
			err = noAnswer(ctx, try+1, err)
			if open {
				err = fmt.Errorf("%w: %v", ErrOutcomeUnknown, err)
			}
			if denied, _ := b.violations(); len(denied) > 0 {
				err = fmt.Errorf("%w (the server also refused: %s)", err, denied[len(denied)-1])
			}
			return PubAck{}, fmt.Errorf("publish to %s: %w", m.Subject, err)
		}
	}
}

// publishJSON stores v as JSON, under the message id that v gives itself, if it does.
func (b *Bus) publishJSON(ctx context.Context, subject string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", subject, err)
	}
	m := nats.NewMsg(subject)
	m.Data = data
	m.Header.Set("Content-Type", "application/json")
	id := ""
	if own, ok := v.(interface{ MessageID() string }); ok {
		id = own.MessageID()
	}
	_, err = b.publish(ctx, m, id)
	return err
}

// PublishResult answers a request: r as JSON on drill.res.<who>.<name>, in
// stream RESULTS, where the requester finds it also later. If r has a method
// MessageID() string, the stream drops an answer with the same id within its
// duplicate window.
func (b *Bus) PublishResult(ctx context.Context, who, name string, r any) error {
	if !token(who) || !token(name) {
		return fmt.Errorf("publish result for %q of %q: both must be single subject tokens", name, who)
	}
	return b.publishJSON(ctx, "drill.res."+who+"."+name, r)
}

// FollowResults calls fn for each stored result on drill.res.<who>.<name>,
// oldest first, and then for each new one, until ctx ends or fn returns an error
// (Stop ends without one).
func (b *Bus) FollowResults(ctx context.Context, who, name string, fn func(data []byte) error) error {
	if !token(who) || !token(name) {
		return fmt.Errorf("follow results for %q of %q: both must be single subject tokens", name, who)
	}
	return b.read(ctx, feed{stream: StreamResults, filter: "drill.res." + who + "." + name}, func(r record) error {
		return fn(r.Data)
	})
}
