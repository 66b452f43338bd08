package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/telemetry"
)

// span is what Jaeger's query API says of one.
type span struct {
	OperationName string `json:"operationName"`
	StartTime     int64  `json:"startTime"` // microseconds since the epoch
	Duration      int64  `json:"duration"`  // microseconds
	ProcessID     string `json:"processID"`
}

type trace struct {
	Spans     []span `json:"spans"`
	Processes map[string]struct {
		ServiceName string `json:"serviceName"`
	} `json:"processes"`
}

// TestTimelineInJaeger: a real Jaeger shows the drill as one trace, under the id
// that follows from the drill's, with the times at which things really happened.
func TestTimelineInJaeger(t *testing.T) {
	j, err := lab.StartJaeger(t.Context(), lab.JaegerOptions{Binary: filepath.Join(os.Getenv("FIREDRILL_BIN"), "jaeger"), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", j.Endpoint)
	flush, err := telemetry.Setup(t.Context(), "firedrill", "test")
	if err != nil {
		t.Fatal(err)
	}
	p := startLab(t, lab.PostgresOptions{Synchronous: true})
	stack, rec, _ := startAllInOne(t, p)
	publish(t, rec.NATSURL, "traced", quickDrill(t, "traced", hurried))
	id := accepted(t, stack.Bus, "traced")
	history := await(t.Context(), t, stack.Bus, id, nil)
	if err := flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr := awaitTrace(t, j.QueryURL, telemetry.TraceID(id).String(), id)
	var fault *event.FaultInjected
	for _, h := range history {
		if f, ok := h.Payload.(*event.FaultInjected); ok {
			fault = f
		}
	}
	found := false
	for _, s := range tr.Spans {
		if strings.Contains(s.OperationName, "fault") && abs(s.StartTime-fault.F0.Wall.UnixMicro()) < 1000 {
			found = true
		}
	}
	if !found {
		t.Errorf("no span starts when the fault did (%s): %+v", fault.F0.Wall.Format(time.RFC3339Nano), tr.Spans)
	}
}

func hasService(services map[string]bool, want string) bool {
	for s := range services {
		if strings.Contains(s, want) {
			return true
		}
	}
	return false
}

func abs(n int64) int64 { return max(n, -n) }

// whole reports whether a trace has the drill's own span and some of each service.
// The spans of messages under way come first, the timeline's with the report.
func (tr trace) whole() bool {
	services, root := map[string]bool{}, false
	for _, s := range tr.Spans {
		services[tr.Processes[s.ProcessID].ServiceName] = true
		root = root || strings.HasPrefix(s.OperationName, "drill ")
	}
	return root && hasService(services, event.Injector) && hasService(services, event.Observer) &&
		hasService(services, event.Validator) && hasService(services, "firedrill")
}

// awaitTrace asks Jaeger until the trace is whole.
func awaitTrace(t *testing.T, query, traceID, drill string) trace {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		var body struct {
			Data []trace `json:"data"`
		}
		resp, err := http.Get(query + "/api/traces/" + traceID)
		if err == nil {
			err = json.NewDecoder(resp.Body).Decode(&body)
			_ = resp.Body.Close()
		}
		for _, tr := range body.Data {
			if tr.whole() {
				return tr
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("Jaeger has no whole trace %s of %s: %v %+v", traceID, drill, err, body.Data)
		}
	}
}
