package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/event"
)

// Ready reports whether this identity can do its work now: the server answers,
// the streams and the service's durables exist, and the server permits what the
// service publishes, and that it makes the lanes of its durables. It stores nothing.
// Without it a missing permission would show only as timeouts in the middle of a
// drill. ErrDenied says that the server refused a subject, now or earlier on this
// connection.
func (b *Bus) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeBudget)
	defer cancel()
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("not ready: NATS does not answer: %w", err)
	}
	if denied, _ := b.violations(); len(denied) > 0 {
		return fmt.Errorf("not ready: %w: %s", ErrDenied, denied[0])
	}
	_, err := b.get(ctx, StreamDrills, getRequest{LastFor: "drill.evt.>"})
	switch {
	case err == nil, errors.Is(err, errNoRecord):
	case isCode(err, codeStreamNotFound):
		return fmt.Errorf("not ready: %w; run bootstrap", err)
	default:
		return fmt.Errorf("not ready: %w", err)
	}
	if !slices.Contains(event.Services(), b.id.Service) {
		return nil
	}
	for _, subject := range b.publishes() {
		if err := b.mayPublish(ctx, subject); err != nil {
			return fmt.Errorf("not ready: publish to %s: %w", subject, err)
		}
	}
	for _, d := range Durables() {
		if d.Service != b.id.Service {
			continue
		}
		err := b.hasDurable(ctx, d)
		if err == nil && d.Lanes {
			err = b.mayMakeLane(ctx, d)
		}
		if err != nil {
			return fmt.Errorf("not ready: %w", err)
		}
	}
	return nil
}

// publishes lists a subject of each kind that the service publishes to.
func (b *Bus) publishes() []string {
	out := []string{"drill.evt.readiness." + b.id.Service + ".check"}
	for _, d := range Durables() {
		if d.Service == b.id.Service {
			out = append(out, "dead."+d.Name)
		}
	}
	if b.id.Service == event.Injector {
		out = append(out, "drill.res.readiness.check", "drill.claim.readiness")
	}
	return out
}

// mayPublish asks the server to store a message in a stream that the subject
// does not belong to. The refusal of just that proves that the subject is
// permitted and reaches JetStream.
func (b *Bus) mayPublish(ctx context.Context, subject string) error {
	m := nats.NewMsg(subject)
	m.Header.Set(jetstream.ExpectedStreamHeader, "firedrill-readiness")
	return b.refusedAs(ctx, codeStreamMismatch, func(ctx context.Context) error {
		_, err := b.publishOnce(ctx, []*nats.Msg{m})
		return err
	})
}

// mayMakeLane asks the server to make a lane of a stream by the name of another one, for
// which mayPublish has the reason.
func (b *Bus) mayMakeLane(ctx context.Context, d Durable) error {
	what := fmt.Sprintf("make a lane of durable %s in stream %s", d.Name, d.Stream)
	if _, err := b.js.Stream(ctx, d.Stream); err != nil {
		return fmt.Errorf("%s: %w; run bootstrap", what, err)
	}
	lane := d.Lane("readiness")
	body, err := json.Marshal(map[string]any{"stream_name": "firedrill-readiness", "config": lane})
	if err != nil {
		return err
	}
	err = b.refusedAs(ctx, codeRequestMismatch, func(ctx context.Context) error {
		reply, err := b.nc.RequestWithContext(ctx, apiBase+"CONSUMER.CREATE."+d.Stream+"."+lane.Durable+"."+lane.FilterSubject, body)
		if err != nil {
			return err
		}
		var answer struct {
			Error *apiError `json:"error"`
		}
		if err := json.Unmarshal(reply.Data, &answer); err != nil || answer.Error == nil {
			return err
		}
		return answer.Error
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// refusedAs asks for what the server can only refuse, with a code that says that it would
// have been permitted.
func (b *Bus) refusedAs(ctx context.Context, code int, do func(context.Context) error) error {
	_, changed := b.violations()
	answer := make(chan error, 1)
	ask, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { answer <- do(ask) }()
	select {
	case <-changed:
		cancel()
		<-answer
		denied, _ := b.violations()
		return fmt.Errorf("%w: %s", ErrDenied, denied[len(denied)-1])
	case err := <-answer:
		switch {
		case isCode(err, code):
			return nil
		case err == nil:
			return errors.New("the server took what was meant for no stream")
		default:
			return err
		}
	}
}

func (b *Bus) hasDurable(ctx context.Context, d Durable) error {
	for _, at := range d.consumers() {
		ctx, cancel := context.WithTimeout(ctx, tryWait)
		_, err := b.js.Consumer(ctx, at.stream, at.config.Durable)
		cancel()
		if err == nil {
			continue
		}
		if denied, _ := b.violations(); len(denied) > 0 {
			return fmt.Errorf("durable %s: %w: %s", at.config.Durable, ErrDenied, denied[len(denied)-1])
		}
		return fmt.Errorf("durable %s of stream %s: %w; run bootstrap", at.config.Durable, at.stream, err)
	}
	return nil
}
