package postgres

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/firedrill/firedrill/pkg/target/targettest"
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

func TestLaterClaimsOpenInAnOutage(t *testing.T) {
	targettest.OpensInAnOutage(t, targettest.Outage{
		Driver: Driver{}, Write: ProbeWrite,
		Params: map[string]json.RawMessage{ProbeWrite: nil, ProbeRead: json.RawMessage(`{"of":"w"}`)},
		Config: func(address string) json.RawMessage { return sampleAt(t, address) },
	})
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
