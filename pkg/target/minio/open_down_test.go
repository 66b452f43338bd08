package minio

import (
	"encoding/json"
	"testing"

	"github.com/firedrill/firedrill/pkg/target/targettest"
)

func TestLaterClaimsOpenInAnOutage(t *testing.T) {
	of := json.RawMessage(`{"of":"w"}`)
	targettest.OpensInAnOutage(t, targettest.Outage{
		Driver: Driver{}, Write: ProbeWrite,
		Params: map[string]json.RawMessage{ProbeWrite: nil, ProbeRead: of, ProbeCycle: of},
		Config: func(address string) json.RawMessage { return configAt(t, "http://"+address) },
	})
}

// configAt is a configuration of a store at an endpoint, of which nothing else is asked.
func configAt(t *testing.T, endpoint string) json.RawMessage {
	t.Helper()
	t.Setenv("FIREDRILL_TEST_KEY", "a long secret key")
	key := map[string]any{"env": "FIREDRILL_TEST_KEY"}
	return raw(t, map[string]any{
		"endpoint": endpoint, "bucket": "canaries", "prefix": "firedrill", "user": "u", "secretKey": key,
		"admin": map[string]any{"user": "root", "secretKey": key}, "stateDir": t.TempDir(),
		"nodes": []map[string]any{{"name": "a", "host": "127.0.0.1", "port": 9000, "drives": []string{"/srv/a"}, "start": []string{"true"}}},
	})
}
