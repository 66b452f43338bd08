package minio

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/target"
)

// TestLaterClaimsOpenInAnOutage: an observer that takes over while the store refuses or
// hangs has lanes all the same, and their attempts say that it is down.
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
		t.Setenv("FIREDRILL_TEST_KEY", "a long secret key")
		key := map[string]any{"env": "FIREDRILL_TEST_KEY"}
		config, err := json.Marshal(map[string]any{
			"endpoint": "http://" + l.Addr().String(), "bucket": "canaries", "prefix": "firedrill", "user": "u", "secretKey": key,
			"admin": map[string]any{"user": "root", "secretKey": key}, "stateDir": t.TempDir(),
			"nodes": []map[string]any{{"name": "a", "host": "127.0.0.1", "port": 9000, "drives": []string{"/srv/a"}, "start": []string{"true"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		tg, err := Driver{}.Open(t.Context(), target.Config{Name: "s3", Raw: config})
		if err != nil {
			t.Fatal(err)
		}
		for _, lane := range []string{target.LanePooled, target.LaneFresh} {
			for kind, params := range map[string]string{ProbeWrite: "", ProbeRead: `{"of":"w"}`, ProbeCycle: `{"of":"w"}`} {
				s := spec(kind, kind, lane)
				s.Epoch, s.Params = 2, json.RawMessage(params)
				p, err := tg.Observer.OpenProbe(t.Context(), s)
				if err != nil {
					t.Errorf("%s: open %s/%s: %v", name, kind, lane, err)
					continue
				}
				if o := attempt(t.Context(), p, 1); o.Result == target.OK || o.Err == nil || name == "refuses" && o.Result != target.Failed {
					t.Errorf("%s: an attempt at %s/%s: %c %v", name, kind, lane, o.Result, o.Err)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		first, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := tg.Observer.OpenProbe(first, spec("w", ProbeWrite, target.LanePooled)); err == nil {
			t.Errorf("%s: the first claim's lane opens, and nobody has looked for the bucket", name)
		}
		cancel()
		if err := tg.Close(); err != nil {
			t.Error(err)
		}
	}
}
