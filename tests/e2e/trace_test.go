package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/telemetry"
)

// span is what Jaeger's query API says of one.
type span struct {
	SpanID        string `json:"spanID"`
	OperationName string `json:"operationName"`
	References    []struct {
		RefType string `json:"refType"`
		TraceID string `json:"traceID"`
		SpanID  string `json:"spanID"`
	} `json:"references"`
	StartTime int64  `json:"startTime"` // microseconds since the epoch
	Duration  int64  `json:"duration"`  // microseconds
	ProcessID string `json:"processID"`
}

type trace struct {
	TraceID   string `json:"traceID"`
	Spans     []span `json:"spans"`
	Processes map[string]struct {
		ServiceName string `json:"serviceName"`
		Tags        []struct {
			Key   string `json:"key"`
			Value any    `json:"value"`
		} `json:"tags"`
	} `json:"processes"`
}

// startJaeger starts a real Jaeger, to which everything started from now on exports
// its spans, soon after they end.
func startJaeger(t *testing.T) *lab.Jaeger {
	t.Helper()
	j, err := lab.StartJaeger(t.Context(), lab.JaegerOptions{Binary: filepath.Join(os.Getenv("FIREDRILL_BIN"), "jaeger"), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", j.Endpoint)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "200") // milliseconds
	return j
}

// TestTimelineInJaeger: a real Jaeger shows the drill as one trace, under the id
// that follows from the drill's, with the times at which things really happened.
func TestTimelineInJaeger(t *testing.T) {
	j := startJaeger(t)
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
	// Of the all-in-one's spans those of messages come first, the timeline's with the report.
	awaitTrace(t, j.QueryURL, telemetry.TraceID(id).String(), all(
		of("firedrill/test", "injector/allinone", "observer/allinone", "validator/allinone"), atTheFault(history)))
}

// atTheFault: the fault's span begins when the fault did.
func atTheFault(history []bus.Stored) func(trace) []string {
	var f0 time.Time
	for _, h := range history {
		if f, ok := h.Payload.(*event.FaultInjected); ok {
			f0 = f.F0.Wall
		}
	}
	return func(tr trace) []string {
		for _, s := range tr.Spans {
			if strings.Contains(s.OperationName, "fault") && abs(s.StartTime-f0.UnixMicro()) < 1000 {
				return nil
			}
		}
		return []string{fmt.Sprintf("no span starts when the fault did (%s): %+v", f0.Format(time.RFC3339Nano), tr.Spans)}
	}
}

// oneTrace: five programs have put what they did for a drill into one trace, whose id
// follows from the drill's; it leads to the trace of whoever asked for the drill.
func oneTrace(t *testing.T, query, drill string) {
	t.Helper()
	want := telemetry.TraceID(drill).String()
	// Who works on messages exports spans of its own. The injector and the observer
	// are in it by what the reporter read in the history.
	awaitTrace(t, query, want, all(of("validator/validator-1", "mirror/mirror-1", "reporter/reporter-1",
		"injector/reporter-1", "observer/reporter-1", "validator/reporter-1"), connected))
	awaitTrace(t, query, requesterTrace, of("injector/injector-1"))
}

// connected: each span's parent is in the trace, only the drill itself has none, and it
// is linked to the trace of its requester.
func connected(tr trace) (wrong []string) {
	in := map[string]bool{}
	for _, s := range tr.Spans {
		in[s.SpanID] = true
	}
	var linked bool
	for _, s := range tr.Spans {
		root := strings.HasPrefix(s.OperationName, "drill ")
		for _, r := range s.References {
			switch {
			case r.RefType == "FOLLOWS_FROM":
				linked = linked || root && r.TraceID == requesterTrace
			case r.TraceID != tr.TraceID || !in[r.SpanID]:
				wrong = append(wrong, fmt.Sprintf("the parent %s/%s of %q is not in the drill's trace", r.TraceID, r.SpanID, s.OperationName))
			}
		}
		if root != (len(tr.parents(s)) == 0) {
			wrong = append(wrong, fmt.Sprintf("%q has the parents %q: only the drill itself has none", s.OperationName, tr.parents(s)))
		}
	}
	if !linked {
		wrong = append(wrong, "the drill's own span has no link to the requester's trace")
	}
	return wrong
}

// of wants spans by each of these exporters.
func of(exporters ...string) func(trace) []string {
	return func(tr trace) (missing []string) {
		have := tr.exporters()
		for _, e := range exporters {
			if !slices.Contains(have, e) {
				missing = append(missing, fmt.Sprintf("no span is by %s, only by %q", e, have))
			}
		}
		return missing
	}
}

func all(checks ...func(trace) []string) func(trace) []string {
	return func(tr trace) (wrong []string) {
		for _, check := range checks {
			wrong = append(wrong, check(tr)...)
		}
		return wrong
	}
}

func (tr trace) parents(s span) (ids []string) {
	for _, r := range s.References {
		if r.RefType == "CHILD_OF" {
			ids = append(ids, r.SpanID)
		}
	}
	return ids
}

func abs(n int64) int64 { return max(n, -n) }

// exporters are the processes with spans in the trace, each as service/instance.
func (tr trace) exporters() []string {
	var out []string
	for _, s := range tr.Spans {
		p := tr.Processes[s.ProcessID]
		for _, tag := range p.Tags {
			if name := fmt.Sprintf("%s/%v", p.ServiceName, tag.Value); tag.Key == "service.instance.id" && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// awaitTrace asks Jaeger until nothing is wrong with the trace: its spans come from
// several programs, a few at a time and in no order.
func awaitTrace(t *testing.T, query, id string, check func(trace) (wrong []string)) trace {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		var body struct {
			Data []trace `json:"data"`
		}
		resp, err := http.Get(query + "/api/traces/" + id)
		if err == nil {
			err = json.NewDecoder(resp.Body).Decode(&body)
			_ = resp.Body.Close()
		}
		wrong := []string{"it is not there"}
		if len(body.Data) == 1 {
			wrong = check(body.Data[0])
		}
		if len(wrong) == 0 {
			return body.Data[0]
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("trace %s in Jaeger, %v:\n%s", id, err, strings.Join(wrong, "\n"))
		}
	}
}
