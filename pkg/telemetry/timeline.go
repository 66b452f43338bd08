package telemetry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// exportChunk bounds one export request, so that a long drill's timeline stays
// far below the usual body limits of collectors.
const exportChunk = 256

// Timeline is a finished drill as one trace, with ids and times chosen by the
// caller. Exporting it twice gives the same trace, not a second one.
type Timeline struct {
	TraceID trace.TraceID
	// Service and Instance describe the exporting process.
	Service  string
	Instance string
	Spans    []Span
}

// Span is one stretch of a timeline.
type Span struct {
	Name string
	// SpanID must be set, and unique in the trace.
	SpanID trace.SpanID
	// ParentSpanID is zero for the root.
	ParentSpanID trace.SpanID
	// Service overrides the timeline's, so that each stretch shows under the
	// service that lived it.
	Service string
	// Start and End are wall-clock times; an End before Start is an error.
	Start      time.Time
	End        time.Time
	Attributes []attribute.KeyValue
	Links      []trace.Link
	Moments    []Moment
	// Error, if not empty, marks the span as failed and says why.
	Error string
}

// Moment is something without duration inside a span.
type Moment struct {
	Name       string
	At         time.Time
	Attributes []attribute.KeyValue
}

// Export writes the timeline to the exporter, in order, and returns the first
// error: a span that cannot be, or what the exporter says. It does not shut the
// exporter down.
func (t Timeline) Export(ctx context.Context, to sdktrace.SpanExporter) error {
	if !t.TraceID.IsValid() {
		return fmt.Errorf("timeline of %d spans: the trace id is zero; use telemetry.TraceID", len(t.Spans))
	}
	var spans collector
	providers := map[string]*sdktrace.TracerProvider{}
	for _, s := range t.Spans {
		if err := s.check(); err != nil {
			return err
		}
		service := s.Service
		if service == "" {
			service = t.Service
		}
		p := providers[service]
		if p == nil {
			p = t.provider(service, &spans)
			providers[service] = p
		}
		t.emit(ctx, p.Tracer("github.com/firedrill/firedrill/timeline"), s)
	}
	done := spans.take()
	for from := 0; from < len(done); from += exportChunk {
		end := min(from+exportChunk, len(done))
		if err := to.ExportSpans(ctx, done[from:end]); err != nil {
			return fmt.Errorf("export spans %d to %d of %d of trace %s: %w", from+1, end, len(done), t.TraceID, err)
		}
	}
	return nil
}

func (s Span) check() error {
	switch {
	case !s.SpanID.IsValid():
		return fmt.Errorf("span %q: the span id is zero; use telemetry.SpanID", s.Name)
	case s.Start.IsZero() || s.End.IsZero():
		return fmt.Errorf("span %q: start or end is not set", s.Name)
	case s.End.Before(s.Start):
		return fmt.Errorf("span %q: ends %v before it starts", s.Name, s.Start.Sub(s.End))
	}
	return nil
}

func (t Timeline) provider(service string, into sdktrace.SpanProcessor) *sdktrace.TracerProvider {
	return sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithIDGenerator(chosenIDs{}),
		sdktrace.WithSpanProcessor(into),
		sdktrace.WithResource(resourceOf(service, t.Instance)),
	)
}

func (t Timeline) emit(ctx context.Context, tracer trace.Tracer, s Span) {
	// The caller's own span must not become the parent.
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	ctx = context.WithValue(ctx, chosenKey{}, chosen{t.TraceID, s.SpanID})
	if s.ParentSpanID.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: t.TraceID, SpanID: s.ParentSpanID, TraceFlags: trace.FlagsSampled, Remote: true,
		}))
	}
	_, span := tracer.Start(ctx, s.Name,
		trace.WithTimestamp(s.Start), trace.WithAttributes(s.Attributes...), trace.WithLinks(s.Links...))
	for _, m := range s.Moments {
		span.AddEvent(m.Name, trace.WithTimestamp(m.At), trace.WithAttributes(m.Attributes...))
	}
	if s.Error != "" {
		span.SetStatus(codes.Error, s.Error)
	}
	span.End(trace.WithTimestamp(s.End))
}

// Link makes a link to another trace from a W3C traceparent, such as the one
// of whoever asked for the drill; false if it is empty or malformed.
func Link(ctx context.Context, traceParent string, attrs ...attribute.KeyValue) (trace.Link, bool) {
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	sc := trace.SpanContextFromContext(Extract(ctx, map[string][]string{traceParentKey: {traceParent}}))
	if !sc.IsValid() {
		return trace.Link{}, false
	}
	return trace.Link{SpanContext: sc, Attributes: attrs}, true
}

// chosenIDs is an IDGenerator that takes the ids from the context.
type chosenIDs struct{}

type chosenKey struct{}

type chosen struct {
	trace trace.TraceID
	span  trace.SpanID
}

// NewIDs gives the ids of a root span.
func (chosenIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	c, _ := ctx.Value(chosenKey{}).(chosen)
	return c.trace, c.span
}

// NewSpanID gives the id of a child.
func (chosenIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	c, _ := ctx.Value(chosenKey{}).(chosen)
	return c.span
}

// collector keeps ended spans, so that they are exported together and the
// exporter's error reaches the caller; the SDK's own processors swallow it.
type collector struct {
	mu    sync.Mutex
	spans []sdktrace.ReadOnlySpan
}

// OnStart does nothing.
func (c *collector) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd keeps the span.
func (c *collector) OnEnd(s sdktrace.ReadOnlySpan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, s)
}

// Shutdown does nothing.
func (c *collector) Shutdown(context.Context) error { return nil }

// ForceFlush does nothing.
func (c *collector) ForceFlush(context.Context) error { return nil }

func (c *collector) take() []sdktrace.ReadOnlySpan {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.spans
	c.spans = nil
	return out
}
