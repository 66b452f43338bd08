package bus

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/firedrill/firedrill/pkg/telemetry"
)

const (
	// apiSubject is the prefix of every endpoint's subject.
	apiSubject = "firedrill.api."
	// CallWait bounds a call whose context has no deadline of its own.
	CallWait = 30 * time.Second
	// maxCalls bounds the calls that one Serve answers at a time.
	maxCalls = 32
)

// Endpoint answers one call. Its error's text goes to the caller, so it must
// hold no secret.
type Endpoint = func(ctx context.Context, data []byte) ([]byte, error)

// CallError is an endpoint's own refusal, as opposed to a call that got no answer.
type CallError struct {
	Endpoint string
	// Code is 400 for an error of the endpoint.
	Code string
	Text string
}

// Error is the endpoint's text.
func (e *CallError) Error() string { return e.Text }

// Serve answers calls to the endpoints until ctx ends, then waits for those
// under way. Services with the same endpoint share the calls. `nats micro`
// lists the service and its endpoints. An endpoint's name is one or more subject
// tokens; its subject is firedrill.api.<name>.
func (b *Bus) Serve(ctx context.Context, service string, endpoints map[string]Endpoint) error {
	s, err := micro.AddService(b.nc, micro.Config{
		Name: "firedrill-" + service, Version: version(),
		Description: "firedrill " + service,
		Metadata:    map[string]string{"instance": b.id.Instance},
	})
	if err != nil {
		return fmt.Errorf("serve %s: %w", service, err)
	}
	calls := callGroup{slots: make(chan struct{}, maxCalls)}
	defer calls.close()
	defer func() {
		if err := s.Stop(); err != nil {
			b.log.Warn("service did not stop cleanly", "service", service, "error", err)
		}
	}()
	for name, fn := range endpoints {
		handler := micro.HandlerFunc(func(r micro.Request) {
			if !calls.start(func() { b.answer(ctx, service, name, fn, r) }) {
				_ = r.Error("503", "the service is stopping", nil) // Unanswered, the caller would just time out.
			}
		})
		err := s.AddEndpoint(strings.ReplaceAll(name, ".", "-"), handler, micro.WithEndpointSubject(apiSubject+name))
		if err != nil {
			return fmt.Errorf("serve %s: endpoint %s: %w", service, name, err)
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// callGroup runs calls beside each other, and none once it is closed.
type callGroup struct {
	slots  chan struct{}
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func (g *callGroup) start(f func()) bool {
	g.slots <- struct{}{}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		<-g.slots
		return false
	}
	g.wg.Go(func() {
		defer func() { <-g.slots }()
		f()
	})
	return true
}

func (g *callGroup) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}

func (b *Bus) answer(ctx context.Context, service, name string, fn Endpoint, r micro.Request) {
	ctx, span := telemetry.StartProcess(ctx, nats.Header(r.Headers()), telemetry.Messaging{
		Subject: r.Subject(), Template: apiSubject + name, Service: service, Bytes: len(r.Data()),
	})
	out, err := fn(ctx, r.Data())
	telemetry.End(span, err)
	// The request's own Respond and Error note the outcome in a field that micro
	// reads as soon as the handler has returned, and this runs beside the handler.
	reply := nats.NewMsg(r.Reply())
	reply.Data = out
	if err != nil {
		reply.Data = []byte(err.Error())
		reply.Header.Set(micro.ErrorHeader, oneLine(err.Error()))
		reply.Header.Set(micro.ErrorCodeHeader, "400")
	}
	if err := b.nc.PublishMsg(reply); err != nil {
		b.log.Warn("answer could not be sent", "endpoint", name, "error", err)
	}
}

// Call asks an endpoint and returns its answer. It waits for ctx, at most 30 s.
// A *CallError is the endpoint's refusal; ErrUnavailable says that no service
// serves it.
func (b *Bus) Call(ctx context.Context, endpoint string, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, CallWait)
	defer cancel()
	m := nats.NewMsg(apiSubject + endpoint)
	m.Data = data
	telemetry.Inject(ctx, m.Header)
	reply, err := b.nc.RequestMsgWithContext(ctx, m)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, fmt.Errorf("call %s: %w; is the service running?", endpoint, ErrUnavailable)
	}
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", endpoint, err)
	}
	if code := reply.Header.Get(micro.ErrorCodeHeader); code != "" {
		text := string(reply.Data)
		if text == "" {
			text = reply.Header.Get(micro.ErrorHeader)
		}
		return nil, &CallError{Endpoint: endpoint, Code: code, Text: text}
	}
	return reply.Data, nil
}

// version is the build's module version as NATS micro wants it (x.y.z).
func version() string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		if v, found := strings.CutPrefix(info.Main.Version, "v"); found && !strings.ContainsAny(v, "+") {
			return v
		}
	}
	return "0.0.0"
}
