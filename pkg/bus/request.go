package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// storeBudget is how long a publish is retried: longer than a JetStream
	// leader's election after a crash was measured to take (4.3 to 6.9 s).
	storeBudget = 10 * time.Second
	// tryWait bounds one try.
	tryWait = 2 * time.Second
	apiBase = "$JS.API."
)

// JetStream error codes that mean something here.
const (
	codeMessageNotFound      = 10037
	codeStreamNotFound       = 10059
	codeRequestMismatch      = 10056 // the stream in the subject is not that in the request
	codeStreamMismatch       = 10060
	codeWrongLastSequence    = 10071
	codeDuplicateInProgress  = 10158
	codeWrongSequenceInFlght = 10164
	codeBatchIncomplete      = 10176
	codeBatchHasDuplicate    = 10201
	codeBatchTooManyInFlight = 10210
)

// apiError is JetStream's own answer.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("JetStream: %s (%d)", e.Description, e.ErrCode)
}

// isCode reports whether err is JetStream's answer with the given code.
func isCode(err error, code int) bool {
	var api *apiError
	return errors.As(err, &api) && api.ErrCode == code
}

// isTransient reports whether the same try may succeed later: no answer, no
// connection, or a server without a leader or without resources for now.
func isTransient(err error) bool {
	var api *apiError
	if errors.As(err, &api) {
		switch api.ErrCode {
		case codeDuplicateInProgress, codeWrongSequenceInFlght, codeBatchIncomplete, codeBatchTooManyInFlight:
			return true
		}
		return api.Code >= 500
	}
	for _, target := range []error{
		ErrNoAnswer, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected,
		nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting, nats.ErrStaleConnection,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// noAnswer is the error of a call given up after some tries. It wraps the
// context's error only if the caller's own context ended: the deadline of a
// single try is no business of the caller.
func noAnswer(ctx context.Context, tries int, last error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w after %d tries (last: %v)", err, tries, last)
	}
	return fmt.Errorf("%w after %d tries (last: %v)", ErrNoAnswer, tries, last)
}

// isUnsent reports whether a failed try certainly never reached the server.
func isUnsent(err error) bool {
	return errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrNoResponders)
}

// pubAck is the server's answer to a publish.
type pubAck struct {
	Stream    string    `json:"stream"`
	Seq       uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
	Error     *apiError `json:"error"`
}

// publishOnce sends the messages, the last of which is a request for the pub
// ack, and waits for it. Messages before it are parts of an atomic batch.
func (b *Bus) publishOnce(ctx context.Context, msgs []*nats.Msg) (pubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	last := len(msgs) - 1
	for _, m := range msgs[:last] {
		if err := b.nc.PublishMsg(m); err != nil {
			return pubAck{}, err
		}
	}
	reply, err := b.nc.RequestMsgWithContext(ctx, msgs[last])
	if err != nil {
		return pubAck{}, err
	}
	var ack pubAck
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return pubAck{}, fmt.Errorf("the answer to the publish is not a JetStream ack: %w", err)
	}
	if ack.Error != nil {
		return pubAck{}, ack.Error
	}
	if ack.Stream == "" || ack.Seq == 0 {
		return pubAck{}, errors.New("the answer to the publish is not a JetStream ack: it names no stream")
	}
	return ack, nil
}

// record is one stored message as read from the stream's leader.
type record struct {
	Subject string
	Seq     uint64
	Header  nats.Header
	Data    []byte
	Time    time.Time
}

// errNoRecord means that the stream holds no such message.
var errNoRecord = errors.New("no such message")

type getRequest struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
}

// get reads one message from the stream's leader. It does not use direct gets:
// any replica answers those, and a replica that lags would hide a message that
// was acknowledged already. It retries within the budget.
func (b *Bus) get(ctx context.Context, stream string, r getRequest) (record, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return record{}, fmt.Errorf("read from stream %s: %w", stream, err)
	}
	give := time.Now().Add(storeBudget)
	before, _ := b.violations()
	for try := 0; ; try++ {
		rec, err := b.getOnce(ctx, stream, body)
		if err == nil || errors.Is(err, errNoRecord) {
			return rec, err
		}
		if denied, _ := b.violations(); len(denied) > len(before) {
			return record{}, fmt.Errorf("read from stream %s: %w: %s", stream, ErrDenied, denied[len(denied)-1])
		}
		if !isTransient(err) {
			return record{}, fmt.Errorf("read from stream %s: %w", stream, err)
		}
		if time.Now().After(give) || pause(ctx, backoff(try)) != nil {
			return record{}, fmt.Errorf("read from stream %s: %w", stream, noAnswer(ctx, try+1, err))
		}
	}
}

func (b *Bus) getOnce(ctx context.Context, stream string, body []byte) (record, error) {
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	reply, err := b.nc.RequestWithContext(ctx, apiBase+"STREAM.MSG.GET."+stream, body)
	if err != nil {
		return record{}, err
	}
	var answer struct {
		Error   *apiError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return record{}, fmt.Errorf("the answer is not JetStream's: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrCode == codeMessageNotFound:
		return record{}, errNoRecord
	case answer.Error != nil:
		return record{}, answer.Error
	case answer.Message == nil:
		return record{}, errors.New("the answer holds no message")
	}
	m := answer.Message
	rec := record{Subject: m.Subject, Seq: m.Seq, Data: m.Data, Time: m.Time}
	if len(m.Header) > 0 {
		if rec.Header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return record{}, fmt.Errorf("message %d of stream %s: headers: %w", m.Seq, stream, err)
		}
	}
	return rec, nil
}

// notFound reports whether a jetstream call failed because the thing is not there.
func notFound(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound)
}

// Redact removes users, passwords and tokens from a list of URLs, for errors and logs.
func Redact(urls string) string {
	parts := strings.Split(urls, ",")
	for i, p := range parts {
		if u, err := url.Parse(strings.TrimSpace(p)); err == nil {
			parts[i] = u.Scheme + "://" + u.Host
		} else {
			parts[i] = "(an unreadable URL)"
		}
	}
	return strings.Join(parts, ",")
}
