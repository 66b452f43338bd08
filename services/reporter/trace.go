package reporter

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/telemetry"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// exportWait bounds the export of one timeline.
const exportWait = 10 * time.Second

// exporter returns what traces go to, and how to let go of it.
func (c Config) exporter(ctx context.Context) (sdktrace.SpanExporter, func(), error) {
	if c.Exporter != nil {
		return c.Exporter, func() {}, nil
	}
	e, err := telemetry.NewExporter(ctx)
	if errors.Is(err, telemetry.ErrNoEndpoint) {
		return nil, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return e, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportWait)
		defer cancel()
		if err := e.Shutdown(ctx); err != nil {
			c.Log.Warn("the trace exporter did not stop cleanly", "error", err)
		}
	}, nil
}

// emitTrace exports the drill's timeline.
func (s *service) emitTrace(ctx context.Context, r fold.Report) error {
	if s.Exporter == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, exportWait)
	defer cancel()
	return Timeline(ctx, r, s.Bus.Identity().Instance).Export(ctx, s.Exporter)
}

// Timeline is a report as a trace with the drill's real times: the drill, its
// phases, and in them everything that took time. Its ids are derived from the
// drill's id, and it links to the requester's trace.
func Timeline(ctx context.Context, r fold.Report, instance string) telemetry.Timeline {
	t := telemetry.Timeline{TraceID: telemetry.TraceID(r.ID), Service: event.Reporter, Instance: instance}
	root := telemetry.Span{
		Name: "drill " + r.Name, SpanID: telemetry.RootSpanID(r.ID), Service: event.Injector, Start: r.Accepted, End: later(r.Accepted, r.Ended),
		Attributes: []attribute.KeyValue{attribute.String("firedrill.drill", r.ID), attribute.String("firedrill.verdict", string(r.Verdict)),
			attribute.String("firedrill.requester", r.Requester), attribute.Int("firedrill.issues", len(r.Issues))},
	}
	if r.Verdict == verdict.Fail || r.Verdict == verdict.Invalid {
		root.Error = r.Summary[0]
	}
	if link, ok := telemetry.Link(ctx, r.Request.TraceParent, attribute.String("firedrill.link", "requester")); ok {
		root.Links = []trace.Link{link}
	}
	for _, a := range r.Conduct.Aborts {
		root.Moments = append(root.Moments, telemetry.Moment{Name: "abort.requested", At: a.At, Attributes: []attribute.KeyValue{attribute.String("cause", a.Cause), attribute.String("by", a.By)}})
	}
	for _, l := range r.Conduct.Leases {
		root.Moments = append(root.Moments, telemetry.Moment{Name: "lease.taken", At: l.At, Attributes: []attribute.KeyValue{attribute.String("holder", l.Holder), attribute.Int64("epoch", l.Epoch)}})
	}
	t.Spans = append(t.Spans, root)
	if r.Settlement != nil {
		t.Spans = append(t.Spans, settlementSpans(r, root.SpanID)...)
	}
	for _, p := range r.Phases {
		if p.Started.IsZero() {
			continue
		}
		tr := &phaseTrace{drill: r.ID, phase: p, id: telemetry.SpanID(r.ID, p.Name)}
		t.Spans = append(t.Spans, tr.spans(root.SpanID)...)
	}
	return t
}

// settlementSpans are a settlement's undos, below the drill itself.
func settlementSpans(r fold.Report, parent trace.SpanID) []telemetry.Span {
	var out []telemetry.Span
	for _, u := range r.Settlement.Undos {
		if u.At.IsZero() {
			continue // never tried
		}
		failed := ""
		if u.Status != "done" {
			failed = "the undo did not succeed"
		}
		out = append(out, telemetry.Span{
			Name: "undo " + u.Step, SpanID: telemetry.SpanID(r.ID, "undo/"+u.Step), ParentSpanID: parent, Service: event.Injector,
			Start: u.At, End: u.At.Add(time.Duration(u.Took)), Error: failed,
			Attributes: []attribute.KeyValue{attribute.String("firedrill.settles", r.Settles), attribute.String("operation", u.Operation), attribute.String("target", u.Target), attribute.Int("tries", u.Tries)},
		})
	}
	return out
}

// phaseTrace makes the spans of one phase.
type phaseTrace struct {
	drill string
	phase fold.Phase
	id    trace.SpanID
	out   []telemetry.Span
}

func (t *phaseTrace) spans(parent trace.SpanID) []telemetry.Span {
	p := t.phase
	top := telemetry.Span{
		Name: "phase " + p.Name, SpanID: t.id, ParentSpanID: parent, Service: event.Injector, Start: p.Started, End: later(p.Started, p.Ended),
		Attributes: []attribute.KeyValue{attribute.String("firedrill.phase", p.Name), attribute.String("firedrill.verdict", string(p.Verdict))},
	}
	for _, r := range p.Recovery {
		top.Attributes = append(top.Attributes, interval("firedrill.recovery."+r.Name, r.Achieved)...)
	}
	if p.Verdict == verdict.Fail || p.Verdict == verdict.Invalid {
		top.Error = string(p.Verdict)
	}
	if p.Timeline == nil {
		return []telemetry.Span{top}
	}
	for _, f := range p.Faults {
		failed := ""
		if f.Status != "injected" {
			failed = f.Reason
		}
		t.add("fault "+f.Name, f.Step, event.Injector, f.From, f.To, failed, attribute.String("operation", f.Operation), attribute.String("target", f.Target), attribute.Bool("proven", f.Proof.Proven))
	}
	for _, a := range p.Actions {
		t.add(a.Stage+" "+a.Name, a.Step, event.Injector, a.From, a.To, a.Reason, attribute.String("operation", a.Operation), attribute.String("target", a.Target))
	}
	for _, u := range p.Undos {
		failed := ""
		if u.Status != "done" {
			failed = "the undo did not succeed"
		}
		t.add("undo "+u.Step, "undo/"+u.Step, event.Injector, u.From, u.To, failed, attribute.Int("tries", u.Tries))
	}
	t.outages()
	t.settle()
	for _, c := range p.Checks {
		t.add("check "+c.Check, c.Step+"/"+c.Check, event.Validator, c.From, c.To, failedCheck(c), attribute.String("kind", c.Kind), attribute.String("target", c.Target))
	}
	return append([]telemetry.Span{top}, t.out...)
}

// outages are drawn at their widest; the attributes have the intervals.
func (t *phaseTrace) outages() {
	for _, o := range t.phase.Outages {
		end := o.To.Hi
		if o.To.Open {
			end = t.phase.Timeline.To
		}
		attrs := append(interval("start", o.From), interval("end", o.To)...)
		attrs = append(attrs, interval("length", o.Length)...)
		attrs = append(attrs, attribute.String("probe", o.Probe), attribute.String("lane", o.Lane), attribute.Int64("first_bad", o.FirstBad), attribute.Int64("last_bad", o.LastBad))
		t.add("outage "+o.Probe+"/"+o.Lane, "outage/"+o.Probe+"/"+o.Lane+"/"+time.Duration(o.FirstBad).String(), event.Observer, o.From.Lo, end, "no service", attrs...)
	}
}

// settle runs from the last fault to the service's being stable.
func (t *phaseTrace) settle() {
	p := t.phase
	if len(p.Recovery) == 0 || len(p.Faults) == 0 {
		return
	}
	r, f := p.Recovery[len(p.Recovery)-1], p.Faults[len(p.Faults)-1]
	end, failed := f.From+r.Achieved.Hi, ""
	if r.Achieved.Open {
		end, failed = f.To+r.Achieved.Lo, "not stable"
	}
	t.add("settle", p.Name+"/settle", event.Observer, f.From, end, failed, append(interval("achieved", r.Achieved), interval("first_success", r.FirstSuccess)...)...)
}

func (t *phaseTrace) add(name, key, service string, from, to int64, failed string, attrs ...attribute.KeyValue) {
	start, end := t.wall(from), t.wall(to)
	if start.IsZero() || end.IsZero() {
		return
	}
	t.out = append(t.out, telemetry.Span{
		Name: name, SpanID: telemetry.SpanID(t.drill, t.phase.Name, key), ParentSpanID: t.id, Service: service,
		Start: start, End: later(start, end), Attributes: attrs, Error: failed,
	})
}

// wall turns a distance from the timeline's zero into wall time.
func (t *phaseTrace) wall(ns int64) time.Time {
	if t.phase.Timeline.Zero.IsZero() {
		return time.Time{}
	}
	return t.phase.Timeline.Zero.Add(time.Duration(ns))
}

func later(start, end time.Time) time.Time {
	if end.Before(start) {
		return start
	}
	return end
}

func failedCheck(c fold.CheckRun) string {
	for _, p := range c.Properties {
		if p.Result == event.ResultFail {
			return p.Name + ": " + p.Found
		}
	}
	return ""
}

func interval(name string, i event.Interval) []attribute.KeyValue {
	out := []attribute.KeyValue{attribute.Int64(name+".lo_ns", i.Lo)}
	if i.Open {
		return append(out, attribute.Bool(name+".open", true))
	}
	return append(out, attribute.Int64(name+".hi_ns", i.Hi))
}
