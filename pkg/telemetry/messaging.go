package telemetry

import (
	"cmp"
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

// Attribute keys of firedrill's own spans.
const (
	DrillKey   = attribute.Key("firedrill.drill")
	PhaseKey   = attribute.Key("firedrill.phase")
	StepKey    = attribute.Key("firedrill.step")
	KindKey    = attribute.Key("firedrill.event.type")
	ServiceKey = attribute.Key("firedrill.service")
)

// Messaging describes a message for its span, by OpenTelemetry's messaging
// conventions. Only Subject is needed.
type Messaging struct {
	// Subject is the NATS subject as published.
	Subject string
	// Template is the subject with its variable tokens named, such as
	// "drill.evt.{drill}.{service}.{kind}"; it keeps span names few.
	Template string
	// MessageID is the Nats-Msg-Id.
	MessageID string
	// Drill is the drill's id, where the message belongs to one.
	Drill string
	// Durable is the consumer's durable name, for processing.
	Durable string
	// Service is the service that acts, told apart inside the all-in-one.
	Service string
	// Bytes is the size of the body.
	Bytes int
}

// StartProcess starts a CONSUMER span for processing m, whose parent is the
// trace context in h, or the drill's root where h carries none.
func StartProcess(ctx context.Context, h nats.Header, m Messaging) (context.Context, trace.Span) {
	ctx = Extract(ctx, h)
	if m.Drill != "" && !trace.SpanContextFromContext(ctx).IsValid() {
		ctx = DrillContext(ctx, m.Drill)
	}
	return Tracer().Start(ctx, "process "+cmp.Or(m.Template, m.Subject), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(m.attributes()...))
}

// End ends a span with the outcome err; nil is success.
func End(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

func (m Messaging) attributes() []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		semconv.MessagingSystemKey.String("nats"),
		semconv.MessagingOperationName("process"),
		semconv.MessagingOperationTypeProcess,
		semconv.MessagingDestinationName(m.Subject),
	}
	if m.Template != "" {
		attrs = append(attrs, semconv.MessagingDestinationTemplate(m.Template))
	}
	if m.MessageID != "" {
		attrs = append(attrs, semconv.MessagingMessageID(m.MessageID))
	}
	if m.Drill != "" {
		attrs = append(attrs, semconv.MessagingMessageConversationID(m.Drill), DrillKey.String(m.Drill))
	}
	if m.Durable != "" {
		attrs = append(attrs, semconv.MessagingConsumerGroupName(m.Durable))
	}
	if m.Service != "" {
		attrs = append(attrs, ServiceKey.String(m.Service))
	}
	if m.Bytes > 0 {
		attrs = append(attrs, semconv.MessagingMessageBodySize(m.Bytes))
	}
	return attrs
}
