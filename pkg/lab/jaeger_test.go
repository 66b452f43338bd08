package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/internal/await"
	"github.com/firedrill/firedrill/pkg/telemetry"
)

type jaegerTrace struct {
	Data []struct {
		TraceID string
		Spans   []struct {
			SpanID, OperationName, ProcessID string
			StartTime, Duration              int64
			References                       []struct{ RefType, TraceID, SpanID string }
			Tags                             []struct {
				Key   string
				Value any
			}
		}
		Processes map[string]struct{ ServiceName string }
	}
}

// TestJaegerShowsATimeline exports a drill's timeline over OTLP and reads it
// back from the query API of a real Jaeger.
func TestJaegerShowsATimeline(t *testing.T) {
	ctx := within(t, 9*time.Minute)
	const binary = "../../out/bin/jaeger"
	must(t, BuildJaeger(ctx, "../..", binary))
	j, err := StartJaeger(ctx, JaegerOptions{Binary: binary, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", j.Endpoint)
	to, err := telemetry.NewExporter(ctx)
	must(t, err)

	const drill = "d-1"
	began := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	id, root := telemetry.TraceID(drill), telemetry.RootSpanID(drill)
	must(t, telemetry.Timeline{TraceID: id, Service: "firedrill", Instance: "test", Spans: []telemetry.Span{
		{Name: "drill", SpanID: root, Start: began, End: began.Add(90 * time.Second)},
		{Name: "fault", SpanID: telemetry.SpanID(drill, "p/fault/kill"), ParentSpanID: root, Service: "injector",
			Start: began.Add(10 * time.Second), End: began.Add(11 * time.Second), Error: "it hurt"},
	}}.Export(ctx, to))
	must(t, to.Shutdown(ctx))

	var got jaegerTrace
	await.Until(t, patience, "the trace is found", func() bool {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, j.QueryURL+"/api/traces/"+id.String(), nil)
		must(t, err)
		q.Close = true
		a, err := http.DefaultClient.Do(q)
		must(t, err)
		defer a.Body.Close()
		got = jaegerTrace{}
		return json.NewDecoder(a.Body).Decode(&got) == nil && len(got.Data) == 1 && len(got.Data[0].Spans) == 2
	})
	seen := map[string]string{}
	for _, s := range got.Data[0].Spans {
		parent := ""
		for _, r := range s.References {
			parent = r.SpanID
		}
		seen[s.OperationName] = fmt.Sprint(got.Data[0].Processes[s.ProcessID].ServiceName, " ", s.SpanID, " under ", parent,
			" from ", s.StartTime-began.UnixMicro(), " for ", s.Duration)
	}
	for name, want := range map[string]string{
		"drill": fmt.Sprintf("firedrill %s under  from 0 for 90000000", root),
		"fault": fmt.Sprintf("injector %s under %s from 10000000 for 1000000", telemetry.SpanID(drill, "p/fault/kill"), root),
	} {
		if seen[name] != want {
			t.Errorf("%s:\n got %s\nwant %s", name, seen[name], want)
		}
	}
	j.Stop()
}

func TestMissingJaegerSaysHowToBuild(t *testing.T) {
	_, err := StartJaeger(within(t, time.Minute), JaegerOptions{Binary: filepath.Join(t.TempDir(), "jaeger"), Dir: t.TempDir()})
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "BuildJaeger") {
		t.Fatalf("got %v", err)
	}
}

func TestJaegerThatEndsAtOnce(t *testing.T) {
	began := time.Now()
	_, err := StartJaeger(within(t, time.Minute), JaegerOptions{Binary: "/bin/false", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "ended at once") || time.Since(began) > 10*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
}
