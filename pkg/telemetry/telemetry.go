// Package telemetry is firedrill's OpenTelemetry: trace context in NATS
// headers, ids that follow from a drill's id, spans around messages, and the
// drill's timeline exported as spans with the real times.
//
// A drill is one trace. Its trace id and the id of its root span are hashes of
// the drill's id, so that every service puts its spans under the root without
// asking anybody; the root itself is exported once, by the reporter, when the
// real times are known.
package telemetry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

// ErrNoEndpoint says that no OTLP endpoint is set, so there is nowhere to export to.
var ErrNoEndpoint = errors.New("no OTLP endpoint: set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://127.0.0.1:4318")

// Enabled reports whether this process exports traces: an OTLP endpoint is set
// in the environment and OTEL_SDK_DISABLED is not true.
func Enabled() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// Setup makes the process's tracing: the W3C propagator always, and a tracer
// provider with an OTLP/HTTP exporter if Enabled. It sets OpenTelemetry's
// process-wide defaults, so it is called once, by the process and not by a
// library. The returned shutdown exports what is left, within its context; it
// is never nil, also with an error, and may be called more than once. A
// collector that is down never makes Setup fail: what cannot be exported is
// logged and dropped.
func Setup(ctx context.Context, service, instance string) (func(context.Context) error, error) {
	otel.SetTextMapPropagator(propagator())
	none := func(context.Context) error { return nil }
	if !Enabled() {
		return none, nil
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		slog.Warn("traces could not be exported; the drill goes on", "error", err)
	}))
	exporter, err := NewExporter(ctx)
	if err != nil {
		return none, err
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resourceOf(service, instance)),
	)
	otel.SetTracerProvider(provider)
	return provider.Shutdown, nil
}

// NewExporter returns an OTLP/HTTP exporter set up from the standard OTEL_*
// environment, or ErrNoEndpoint. It connects on first use. The caller shuts it
// down.
func NewExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	if !Enabled() {
		return nil, ErrNoEndpoint
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTLP exporter from the OTEL_EXPORTER_OTLP_* environment: %w; check the endpoint's URL", err)
	}
	return exporter, nil
}

// Tracer returns firedrill's tracer from the process's provider.
func Tracer() trace.Tracer {
	return otel.Tracer("github.com/firedrill/firedrill/pkg/telemetry")
}

// TraceID is the trace of a drill: the same in every process.
func TraceID(drill string) trace.TraceID {
	sum := sha256.Sum256([]byte("drill/" + drill))
	return trace.TraceID(sum[:16])
}

// RootSpanID is the id of the drill's root span.
func RootSpanID(drill string) trace.SpanID {
	return SpanID(drill, "root")
}

// SpanID is the id of a named span of a drill's timeline: a step, a phase, an
// outage. The same names give the same id in every process and on every retry.
func SpanID(drill string, names ...string) trace.SpanID {
	sum := sha256.Sum256([]byte("span/" + drill + "/" + strings.Join(names, "/")))
	return trace.SpanID(sum[:8])
}

// DrillContext returns ctx with the drill's root span as remote parent, unless
// ctx already lies inside the drill's trace, which is then kept.
func DrillContext(ctx context.Context, drill string) context.Context {
	id := TraceID(drill)
	if trace.SpanContextFromContext(ctx).TraceID() == id {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    id,
		SpanID:     RootSpanID(drill),
		TraceFlags: trace.FlagsSampled,
		Remote:     true,
	}))
}

// TraceParent is the W3C traceparent of ctx's span, or "" if it has none.
func TraceParent(ctx context.Context) string {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c[traceParentKey]
}

func propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

func resourceOf(service, instance string) *resource.Resource {
	return resource.NewWithAttributes(semconv.SchemaURL,
		semconv.ServiceNamespace("firedrill"),
		semconv.ServiceName(service),
		semconv.ServiceInstanceID(instance),
	)
}
