package reporter_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/telemetry"
	"github.com/firedrill/firedrill/services/reporter"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// nats-server 2.15.2 leaves these behind when it is shut down in the middle
		// of an atomic batch.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"))
}

// world is an embedded server with one connection for each service.
type world struct {
	t      *testing.T
	server *bus.Embedded
	ring   event.Keyring
	out    string
	buses  map[string]*bus.Bus
	clock  *storyClock
}

// storyClock is what the services' events are stamped with: the moment at which
// the synthetic history has them written.
type storyClock struct {
	mu sync.Mutex
	at event.Reading
}

func (c *storyClock) Now() event.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *storyClock) set(r event.Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = r
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: t.TempDir(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	_, ring := synthetic.Keys()
	w := &world{t: t, server: server, ring: ring, out: t.TempDir(), buses: map[string]*bus.Bus{}, clock: &storyClock{at: clock.System().Now()}}
	if err := w.connect("bootstrap", "b").Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range event.Services() {
		w.buses[s] = w.connect(s, s+"-1")
	}
	return w
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (w *world) connect(service, instance string) *bus.Bus {
	w.t.Helper()
	id := bus.Identity{Service: service, Instance: instance, Clock: w.clock, Signer: synthetic.NewSigner(service)}
	b, err := bus.Connect(w.t.Context(), bus.Options{Embedded: w.server, Identity: id, Keyring: w.ring, Log: quiet()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(b.Close)
	return b
}

// write appends a synthetic drill's events, each by its own service. The id of
// the drill is the one given: the events are sealed anew.
func (w *world) write(id string, drafts []synthetic.Timed) {
	w.t.Helper()
	for _, d := range drafts {
		info, _ := event.Lookup(d.Type)
		w.clock.set(d.At)
		if _, err := w.buses[info.Service].Append(w.t.Context(), id, d.Draft); err != nil {
			w.t.Fatal(err)
		}
	}
}

// run starts a reporter; it ends with the test, or with stop.
func (w *world) run(change func(*reporter.Config)) (stop func()) {
	w.t.Helper()
	c := reporter.Config{Bus: w.connect(event.Reporter, "reporter-"+hex.EncodeToString([]byte(w.t.Name()))[:6]), Log: quiet(), Keyring: w.ring, OutDir: w.out, Quiet: 300 * time.Millisecond}
	if change != nil {
		change(&c)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- reporter.Run(ctx, c) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("the reporter ended with %v", err)
			}
		})
	}
	w.t.Cleanup(stop)
	return stop
}

// published waits for the drill's report.published.
func (w *world) published(id string) *event.ReportPublished {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	var out *event.ReportPublished
	err := w.buses[event.Observer].Follow(ctx, id, func(s bus.Stored) error {
		if p, ok := s.Payload.(*event.ReportPublished); ok && s.Trust == nil {
			out = p
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		w.t.Fatalf("wait for the report of %s: %v", id, err)
	}
	return out
}

// results collects the answers to a request until there are n, and a moment longer.
func (w *world) results(who, name string, n int) []reporter.Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	var out []reporter.Result
	err := w.buses[event.Observer].FollowResults(ctx, who, name, func(data []byte) error {
		var r reporter.Result
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		if out = append(out, r); len(out) == n {
			return bus.Stop
		}
		return nil
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		w.t.Fatal(err)
	}
	return out
}

func drafts(name string) []synthetic.Timed { return synthetic.Variants()[name].Drafts() }

func TestPublishesOneReport(t *testing.T) {
	w := newWorld(t)
	w.write("orders-failover-7", drafts("pass"))
	spans := tracetest.NewInMemoryExporter()
	w.run(func(c *reporter.Config) { c.Exporter = spans })
	w.run(func(c *reporter.Config) { c.Exporter = spans })
	p := w.published("orders-failover-7")
	if p.Verdict != "PASS" || len(p.Files) != 5 {
		t.Fatalf("published %+v", p)
	}
	// The answer comes when all files are closed.
	got := w.results("ada", "orders-failover", 1)
	for name, hash := range p.Files {
		data, err := os.ReadFile(filepath.Join(w.out, "orders-failover-7", name))
		if err != nil {
			t.Fatal(err)
		}
		if name == reporter.FileEvents { // its hash is of the lines before the last, which holds it
			data = data[:bytes.LastIndexByte(data[:len(data)-1], '\n')+1]
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != hash {
			t.Errorf("%s on disk is not the published one", name)
		}
	}
	if len(got) != 1 || got[0].State != "finished" || got[0].Drill != "orders-failover-7" || got[0].Verdict != "PASS" || len(got[0].Phases) != 2 {
		t.Errorf("result %+v", got)
	}
	w.recomputes("orders-failover-7")
	w.traced(spans, "orders-failover-7")
}

// recomputes folds the exported events: the same report.json must come out.
func (w *world) recomputes(id string) {
	w.t.Helper()
	f, err := os.Open(filepath.Join(w.out, id, reporter.FileEvents))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	raws, err := fold.Import(f)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := fold.Fold(raws, w.ring)
	if err != nil {
		w.t.Fatal(err)
	}
	again, err := r.JSON()
	if err != nil {
		w.t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(w.out, id, "report.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	if string(again) != string(want) {
		w.t.Error("the exported events fold to another report")
	}
}

// traced checks the timeline: one trace, one root with the requester's link, and
// every parent there.
func (w *world) traced(spans *tracetest.InMemoryExporter, id string) {
	w.t.Helper()
	waitFor(w.t, "the trace is exported", func() bool { return len(spans.GetSpans()) > 0 })
	ids, roots := map[string]bool{}, 0
	all := spans.GetSpans()
	for _, s := range all {
		if ids[s.SpanContext.SpanID().String()] {
			w.t.Errorf("span %s is there twice", s.Name)
		}
		ids[s.SpanContext.SpanID().String()] = true
	}
	for _, s := range all {
		if s.SpanContext.TraceID() != telemetry.TraceID(id) {
			w.t.Errorf("span %s lies in trace %s", s.Name, s.SpanContext.TraceID())
		}
		if !s.Parent.SpanID().IsValid() {
			roots++
			if len(s.Links) != 1 || s.SpanContext.SpanID() != telemetry.RootSpanID(id) {
				w.t.Errorf("root %s: id %s, links %v", s.Name, s.SpanContext.SpanID(), s.Links)
			}
			continue
		}
		if !ids[s.Parent.SpanID().String()] {
			w.t.Errorf("span %s has a parent that is not there", s.Name)
		}
	}
	if roots != 1 || len(all) < 20 {
		w.t.Errorf("%d spans, %d roots", len(all), roots)
	}
}

// TestPublishesASettlement: a drill without phases of its own has a report too.
func TestPublishesASettlement(t *testing.T) {
	w := newWorld(t)
	spans := tracetest.NewInMemoryExporter()
	w.run(func(c *reporter.Config) { c.Exporter = spans })
	w.write("orders-missing-9", drafts("settled"))
	if p := w.published("orders-missing-9"); p.Verdict != "PASS" || len(p.Files) != 5 {
		t.Errorf("published %+v", p)
	}
	got := w.results("ada", "orders-missing", 1)
	if len(got) != 1 || got[0].Verdict != "PASS" || !got[0].Complete || !strings.Contains(strings.Join(got[0].Summary, " "), "orders-missing-7") {
		t.Errorf("result %+v", got)
	}
	w.recomputes("orders-missing-9")
	if n := len(spans.GetSpans()); n != 3 {
		t.Errorf("%d spans, want the drill's and one of each undo", n)
	}
	list, err := w.buses[event.Injector].Call(t.Context(), "list", nil)
	if err != nil || !strings.Contains(string(list), "Settles drill orders-missing-7: A recovery that did not come") {
		t.Errorf("list %s, %v", list, err)
	}
}

// TestWaitsForTrailingBatches: what the observer still publishes after
// drill.finished belongs to the report.
func TestWaitsForTrailingBatches(t *testing.T) {
	w := newWorld(t)
	ds := drafts("pass")
	var late []synthetic.Timed
	var soon []synthetic.Timed
	for i := len(ds) - 1; i >= 0; i-- {
		if ds[i].Type == event.TypeProbeBatch && len(late) < 3 {
			late = append([]synthetic.Timed{ds[i]}, late...)
		} else {
			soon = append([]synthetic.Timed{ds[i]}, soon...)
		}
	}
	w.run(func(c *reporter.Config) { c.Quiet = 15 * time.Second })
	w.write("late-1", soon)
	w.write("late-1", late)
	p := w.published("late-1")
	stored, err := w.buses[event.Observer].History(t.Context(), "late-1")
	if err != nil {
		t.Fatal(err)
	}
	if int(p.Of) != len(ds) || stored[len(stored)-1].Event.Type != event.TypeReportPublished {
		t.Errorf("the report was folded from %d of %d events, the last event is %s", p.Of, len(ds), stored[len(stored)-1].Event.Type)
	}
}

// TestReportsWithoutTheLastBatches: an observer that died does not hold the
// report up for ever.
func TestReportsWithoutTheLastBatches(t *testing.T) {
	w := newWorld(t)
	var kept []synthetic.Timed
	for _, d := range drafts("fail") {
		if b, ok := d.Data.(event.ProbeBatch); ok && b.FirstSeq > 300 {
			continue
		}
		kept = append(kept, d)
	}
	w.run(nil)
	w.write("short-1", kept)
	if p := w.published("short-1"); p.Verdict == "PASS" {
		t.Errorf("published %+v", p)
	}
}

// TestRestart stops the reporter, starts it again, and lets it meet the same
// drill anew: there stays one report.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	stop := w.run(nil)
	w.write("orders-async-7", drafts("fail"))
	first := w.published("orders-async-7")
	w.results("ada", "orders-async", 1)
	stop()
	if err := os.RemoveAll(filepath.Join(w.out, "orders-async-7")); err != nil {
		t.Fatal(err)
	}
	// A second drill.finished is what a dead letter that is tried again looks like.
	w.write("orders-async-7", []synthetic.Timed{{Draft: event.Draft{Type: event.TypeDrillFinished, Data: event.DrillFinished{Complete: true}}, At: clock.System().Now()}})
	w.run(nil)
	w.write("orders-edge-7", drafts("inconclusive"))
	w.published("orders-edge-7")
	stored, err := w.buses[event.Observer].History(t.Context(), "orders-async-7")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range stored {
		if s.Event.Type == event.TypeReportPublished {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d reports were published, want 1", n)
	}
	path := filepath.Join(w.out, "orders-async-7", "report.json")
	waitFor(t, "the lost files are written again", func() bool {
		data, err := os.ReadFile(path)
		sum := sha256.Sum256(data)
		return err == nil && hex.EncodeToString(sum[:]) == first.Files["report.json"]
	})
	if got := w.results("ada", "orders-edge", 1); len(got) != 1 || got[0].Verdict != "INCONCLUSIVE" {
		t.Errorf("result %+v", got)
	}
}

func TestEndpoints(t *testing.T) {
	w := newWorld(t)
	w.run(nil)
	ds := drafts("pass")
	w.write("live-1", ds[:60])
	call := func(endpoint, data string) (string, error) {
		out, err := w.buses[event.Injector].Call(t.Context(), endpoint, []byte(data))
		return string(out), err
	}
	waitFor(t, "the API answers", func() bool { _, err := call("list", ""); return err == nil })
	status, err := call("status", `{"drill":"live-1"}`)
	if err != nil || !strings.Contains(status, `"state":"running"`) || !strings.Contains(status, `"phase":"kill-sync"`) {
		t.Errorf("status %s, %v", status, err)
	}
	if list, err := call("list", ""); err != nil || !strings.Contains(list, `"drill":"live-1"`) || !strings.Contains(list, "Failover of the orders database") {
		t.Errorf("list %s, %v", list, err)
	}
	for format, want := range map[string]string{"md": "# DR Drill Report: live-1", "html": "<!doctype html>", "xml": "<testsuites", "json": `"format": "firedrill/report/v1"`, "jsonl": `"type":"drill.accepted"`} {
		got, err := call("report", `{"drill":"live-1","format":"`+format+`"}`)
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("report as %s: %.80s, %v", format, got, err)
		}
	}
	for data, want := range map[string]string{`{"drill":"nope-1"}`: "no such drill", `{"drill":"../etc"}`: "no such drill", `{`: "not JSON", `{"drill":"live-1","format":"pdf"}`: "use json"} {
		if _, err := call("report", data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("report %s: %v, want %q", data, err, want)
		}
	}
}

// waitFor is for what no event announces: it looks again and again until ok.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// TestTraceOfEveryVariant exports each kind of drill's timeline.
func TestTraceOfEveryVariant(t *testing.T) {
	for name, b := range synthetic.Variants() {
		_, ring := synthetic.Keys()
		r, err := fold.Fold(b.History(), ring)
		if err != nil {
			t.Fatal(err)
		}
		var to sdktrace.SpanExporter = tracetest.NewInMemoryExporter()
		if err := reporter.Timeline(t.Context(), r, "i").Export(t.Context(), to); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
