package postgres

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/target"
)

// sampleAt is the sample configuration with another service and with passwords.
func sampleAt(t *testing.T, service string) json.RawMessage {
	t.Helper()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("a long password"), 0o600); err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := yaml.Unmarshal([]byte(sample), &m); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(service)
	if err != nil {
		t.Fatal(err)
	}
	m["service"], m["sslMode"] = map[string]any{"host": host, "port": json.Number(port)}, "disable"
	setPasswords(m, password)
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func setPasswords(m map[string]any, file string) {
	for k, v := range m {
		if k == "password" {
			m[k] = map[string]any{"file": file}
		} else if deeper, ok := v.(map[string]any); ok {
			setPasswords(deeper, file)
		}
	}
}

// TestLaterClaimsOpenInAnOutage: an observer that takes over while the service refuses
// or hangs has lanes all the same, and their attempts say that it is down.
func TestLaterClaimsOpenInAnOutage(t *testing.T) {
	refuses, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := refuses.Close(); err != nil {
		t.Fatal(err)
	}
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hangs.Close() }()
	for name, l := range map[string]net.Listener{"refuses": refuses, "hangs": hangs} {
		tg, err := Driver{}.Open(t.Context(), target.Config{Name: "db", Raw: sampleAt(t, l.Addr().String()), Clock: clock.System()})
		if err != nil {
			t.Fatal(err)
		}
		for _, lane := range []string{target.LanePooled, target.LaneFresh} {
			for kind, params := range map[string]string{ProbeWrite: "", ProbeRead: `{"of":"w"}`} {
				spec := target.ProbeSpec{Drill: "d-1", Probe: kind, Name: kind, Lane: lane, Epoch: 2, Deadline: 50 * time.Millisecond, Params: json.RawMessage(params)}
				p, err := tg.Observer.OpenProbe(t.Context(), spec)
				if err != nil {
					t.Errorf("%s: open %s/%s: %v", name, kind, lane, err)
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), spec.Deadline)
				if o := p.Attempt(ctx, 1); o.Result != target.Failed || o.Err == nil {
					t.Errorf("%s: an attempt at %s/%s: %c %v", name, kind, lane, o.Result, o.Err)
				}
				cancel()
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		first, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := tg.Observer.OpenProbe(first, target.ProbeSpec{Drill: "d-1", Probe: ProbeWrite, Name: "w", Lane: target.LanePooled, Epoch: 1}); err == nil {
			t.Errorf("%s: the first claim's lane opens, and nobody has made the table", name)
		}
		cancel()
		if err := tg.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestARelayThatReopensIsNoKeptOne: its time may be up between the look and the order.
func TestARelayThatReopensIsNoKeptOne(t *testing.T) {
	for name, c := range map[string]struct {
		before, after string
		kept          bool
		says          string
	}{
		"kept":       {`{"paused":true,"resumes_in_ns":1000}`, `{"paused":true}`, true, ""},
		"reopened":   {`{"paused":true,"resumes_in_ns":1000}`, `{"paused":false}`, false, "let everything through again"},
		"not cut":    {`{"paused":false}`, `{"paused":false}`, false, ""},
		"not for it": {`{"paused":true}`, `{"paused":true}`, false, ""},
	} {
		r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			answer := c.before
			if q.URL.Path == "/keep" {
				answer = c.after
			}
			_, _ = w.Write([]byte(answer))
		}))
		kept, err := (&relay{base: r.URL}).keep(t.Context())
		r.Close()
		if kept != c.kept || (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: kept %v, %v", name, kept, err)
		}
	}
}
