package telemetry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const drill = "01HZ-drill"

// recording makes the process's provider record, until the test ends.
func recording(t *testing.T) *tracetest.SpanRecorder {
	t.Helper()
	before := otel.GetTracerProvider()
	r := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r))
	otel.SetTracerProvider(p)
	t.Cleanup(func() {
		otel.SetTracerProvider(before)
		if err := p.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func only(t *testing.T, r *tracetest.SpanRecorder) sdktrace.ReadOnlySpan {
	t.Helper()
	if len(r.Ended()) != 1 {
		t.Fatalf("%d spans ended, want 1", len(r.Ended()))
	}
	return r.Ended()[0]
}

func attributes(s sdktrace.ReadOnlySpan) map[string]string {
	out := map[string]string{}
	for _, a := range s.Attributes() {
		out[string(a.Key)] = a.Value.String()
	}
	return out
}

// TestIDsNeverChange: they are part of what releases agree on.
func TestIDsNeverChange(t *testing.T) {
	for _, c := range [][2]string{
		{TraceID("d1").String(), "3aa82686f34aebd9b410c091e1066321"},
		{RootSpanID("d1").String(), "e6e884c1c8fa5507"},
		{SpanID("d1", "p", "x").String(), "315936846a6a8e2e"},
	} {
		if c[0] != c[1] {
			t.Errorf("got %s, want %s", c[0], c[1])
		}
	}
	if SpanID("d", "a") == SpanID("d", "b") || SpanID("d", "a") == SpanID("e", "a") || RootSpanID("a") == RootSpanID("b") {
		t.Error("different names, same id")
	}
}

func TestInjectWritesTheW3CName(t *testing.T) {
	ctx := DrillContext(t.Context(), drill)
	h := nats.Header{}
	Inject(ctx, h)
	want := "00-" + TraceID(drill).String() + "-" + RootSpanID(drill).String() + "-01"
	if got := h.Get("traceparent"); got != want || TraceParent(ctx) != want {
		t.Fatalf("header %v, TraceParent %s, want %s", h, TraceParent(ctx), want)
	}
	for _, name := range []string{"traceparent", "Traceparent", "TRACEPARENT"} {
		got := trace.SpanContextFromContext(Extract(t.Context(), nats.Header{name: {want}}))
		if got.TraceID() != TraceID(drill) || got.SpanID() != RootSpanID(drill) || !got.IsRemote() {
			t.Errorf("header name %s: %v", name, got)
		}
	}
}

func TestExtractOfNonsense(t *testing.T) {
	for _, h := range []nats.Header{nil, {}, {"traceparent": nil}, {"traceparent": {"x"}}, {"traceparent": {"00-0-0-00"}}} {
		if sc := trace.SpanContextFromContext(Extract(t.Context(), h)); sc.IsValid() {
			t.Errorf("%v gave %v", h, sc)
		}
	}
	Inject(DrillContext(t.Context(), drill), nil)
	if got := TraceParent(t.Context()); got != "" {
		t.Errorf("without a span: %q", got)
	}
}

func TestDrillContext(t *testing.T) {
	requester := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled}))
	in := DrillContext(requester, drill)
	if sc := trace.SpanContextFromContext(in); sc.TraceID() != TraceID(drill) || sc.SpanID() != RootSpanID(drill) {
		t.Fatalf("from the requester's trace: %v", sc)
	}
	r := recording(t)
	inner, span := Tracer().Start(in, "step")
	if got := DrillContext(inner, drill); !trace.SpanContextFromContext(got).Equal(span.SpanContext()) {
		t.Error("a span inside of the drill's trace was left")
	}
	span.End()
	if s := only(t, r); s.Parent().SpanID() != RootSpanID(drill) {
		t.Errorf("parent %v", s.Parent())
	}
}

func TestProcessingIsInTheSendersTrace(t *testing.T) {
	r := recording(t)
	m := Messaging{
		Subject: "drill.evt.d.injector.fault-injected", Template: "drill.evt.{drill}.{service}.{kind}",
		MessageID: "m1", Drill: drill, Durable: "observer", Service: "observer", Bytes: 12,
	}
	h := nats.Header{}
	ctx, sender := Tracer().Start(DrillContext(t.Context(), drill), "send")
	Inject(ctx, h)
	sender.End()
	_, span := StartProcess(t.Context(), h, m)
	End(span, errors.New("bad day"))

	sent, processed := r.Ended()[0], r.Ended()[1]
	if processed.Name() != "process "+m.Template || processed.SpanKind() != trace.SpanKindConsumer ||
		processed.Parent().SpanID() != sent.SpanContext().SpanID() || processed.Status().Description != "bad day" {
		t.Errorf("processed: %s %v under %v, %v", processed.Name(), processed.SpanKind(), processed.Parent(), processed.Status())
	}
	got := attributes(processed)
	for k, want := range map[string]string{
		"messaging.system": "nats", "messaging.operation.name": "process", "messaging.operation.type": "process",
		"messaging.destination.name": m.Subject, "messaging.destination.template": m.Template, "messaging.message.id": "m1",
		"messaging.message.conversation_id": drill, "messaging.consumer.group.name": "observer",
		"messaging.message.body.size": "12", "firedrill.drill": drill, "firedrill.service": "observer",
	} {
		if got[k] != want {
			t.Errorf("%s = %q, want %q", k, got[k], want)
		}
	}
}

func TestProcessWithoutTraceIsUnderTheDrill(t *testing.T) {
	r := recording(t)
	_, span := StartProcess(t.Context(), nil, Messaging{Subject: "s", Drill: drill})
	End(span, nil)
	if s := only(t, r); s.Parent().SpanID() != RootSpanID(drill) || s.Name() != "process s" {
		t.Fatalf("%s under %v", s.Name(), s.Parent())
	}
}

func timeline() (Timeline, time.Time) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	link, _ := Link(context.Background(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	return Timeline{TraceID: TraceID(drill), Service: "firedrill", Instance: "i", Spans: []Span{
		{Name: "drill", SpanID: RootSpanID(drill), Start: began, End: began.Add(time.Minute), Links: []trace.Link{link}},
		{Name: "fault", SpanID: SpanID(drill, "f"), ParentSpanID: RootSpanID(drill), Service: "injector",
			Start: began.Add(time.Second), End: began.Add(2 * time.Second), Error: "it hurt",
			Attributes: []attribute.KeyValue{StepKey.String("p/fault/kill")},
			Moments:    []Moment{{Name: "proof", At: began.Add(1500 * time.Millisecond)}}},
	}}, began
}

func TestTimelineKeepsIDsAndTimes(t *testing.T) {
	tl, began := timeline()
	to := tracetest.NewInMemoryExporter()
	// The exporting process's own span must not get into the drill's trace.
	ctx := DrillContext(t.Context(), "another")
	for range 2 {
		if err := tl.Export(ctx, to); err != nil {
			t.Fatal(err)
		}
	}
	got := to.GetSpans()
	if len(got) != 4 || got[0].SpanContext.SpanID() != got[2].SpanContext.SpanID() {
		t.Fatalf("%d spans; a second export must repeat the first", len(got))
	}
	root, fault := got[0], got[1]
	if root.SpanContext.TraceID() != TraceID(drill) || root.SpanContext.SpanID() != RootSpanID(drill) || root.Parent.IsValid() {
		t.Errorf("root: %v under %v", root.SpanContext, root.Parent)
	}
	if !root.StartTime.Equal(began) || !root.EndTime.Equal(began.Add(time.Minute)) || len(root.Links) != 1 {
		t.Errorf("root: %v to %v, links %v", root.StartTime, root.EndTime, root.Links)
	}
	if fault.SpanContext.TraceID() != TraceID(drill) || fault.SpanContext.SpanID() != SpanID(drill, "f") || fault.Parent.SpanID() != RootSpanID(drill) {
		t.Errorf("fault: %v under %v", fault.SpanContext, fault.Parent)
	}
	if fault.Status.Code != codes.Error || fault.Status.Description != "it hurt" || len(fault.Events) != 1 || !fault.Events[0].Time.Equal(began.Add(1500*time.Millisecond)) {
		t.Errorf("fault: %v, %v", fault.Status, fault.Events)
	}
	services := []string{}
	for _, s := range got[:2] {
		for _, a := range s.Resource.Attributes() {
			if a.Key == "service.name" {
				services = append(services, a.Value.AsString())
			}
		}
	}
	if strings.Join(services, " ") != "firedrill injector" {
		t.Errorf("services %v", services)
	}
}

// failing refuses from the nth call on.
type failing struct {
	tracetest.InMemoryExporter
	calls, from int
}

func (f *failing) ExportSpans(ctx context.Context, s []sdktrace.ReadOnlySpan) error {
	if f.calls++; f.calls >= f.from {
		return io.ErrUnexpectedEOF
	}
	return f.InMemoryExporter.ExportSpans(ctx, s)
}

func TestTimelineReportsErrors(t *testing.T) {
	tl, began := timeline()
	if err := tl.Export(t.Context(), &failing{from: 1}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the exporter's error: %v", err)
	}
	for name, bad := range map[string]Timeline{
		"no trace id":      {Spans: tl.Spans},
		"no span id":       {TraceID: tl.TraceID, Spans: []Span{{Start: began, End: began}}},
		"no start":         {TraceID: tl.TraceID, Spans: []Span{{SpanID: trace.SpanID{1}, End: began}}},
		"ends before":      {TraceID: tl.TraceID, Spans: []Span{{SpanID: trace.SpanID{1}, Start: began, End: began.Add(-1)}}},
		"a bad after good": {TraceID: tl.TraceID, Spans: append(tl.Spans[:1:1], Span{})},
	} {
		to := tracetest.NewInMemoryExporter()
		if err := bad.Export(t.Context(), to); err == nil || len(to.GetSpans()) > 0 {
			t.Errorf("%s: %v, %d spans exported", name, err, len(to.GetSpans()))
		}
	}
}

func TestTimelineGoesInChunks(t *testing.T) {
	tl, began := timeline()
	tl.Spans = nil
	for i := range 2*exportChunk + 1 {
		tl.Spans = append(tl.Spans, Span{SpanID: SpanID(drill, string(rune(i))), Start: began, End: began})
	}
	if err := tl.Export(t.Context(), &failing{from: 3}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the third chunk: %v", err)
	}
	to := &failing{from: 4}
	if err := tl.Export(t.Context(), to); err != nil || to.calls != 3 || len(to.GetSpans()) != len(tl.Spans) {
		t.Errorf("%v after %d calls", err, to.calls)
	}
}

func TestLinkOfNonsense(t *testing.T) {
	// Not even when the context has a span of its own.
	ctx := DrillContext(t.Context(), drill)
	for _, s := range []string{"", "x", "00-00000000000000000000000000000000-0000000000000000-01"} {
		if l, ok := Link(ctx, s); ok {
			t.Errorf("%q gave %v", s, l)
		}
	}
}

func TestSetupWithoutEndpointExportsNothing(t *testing.T) {
	for name, env := range map[string][2]string{"no endpoint": {"", ""}, "disabled": {"http://127.0.0.1:1", "true"}} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", env[0])
			t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
			t.Setenv("OTEL_SDK_DISABLED", env[1])
			shutdown, err := Setup(t.Context(), "observer", "i")
			if err != nil || Enabled() {
				t.Fatal(err)
			}
			_, span := Tracer().Start(t.Context(), "x")
			if span.IsRecording() {
				t.Error("it records")
			}
			span.End()
			if err := shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := NewExporter(t.Context()); !errors.Is(err, ErrNoEndpoint) {
				t.Error(err)
			}
		})
	}
}

func TestSetupExportsToTheEndpoint(t *testing.T) {
	var bodies atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/v1/traces" {
			bodies.Add(1)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collector.Close()
	before := otel.GetTracerProvider()
	defer otel.SetTracerProvider(before)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	shutdown, err := Setup(t.Context(), "observer", "i")
	if err != nil {
		t.Fatal(err)
	}
	_, span := Tracer().Start(DrillContext(t.Context(), drill), "x")
	span.End()
	for range 2 {
		if err := shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if bodies.Load() != 1 {
		t.Fatalf("%d requests reached the collector", bodies.Load())
	}
	http.DefaultClient.CloseIdleConnections()
}
