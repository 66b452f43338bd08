package minio

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/targettest"
)

func (r *rig) harness(t *testing.T) targettest.Harness {
	return targettest.Harness{
		Driver: Driver{}, Config: r.config, Secrets: []string{testSecret, r.SecretKey}, Healthy: r.healthy, Snapshot: r.snapshot, Blocked: r.blocked(t),
		Aliases: []json.RawMessage{r.edit(t, renamed), r.edit(t, elsewhere)},
		Write:   ProbeWrite, Read: ProbeRead, Hang: FaultFreeze,
		ReadParams: func(of string) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"of":%q}`, of)) },
		Duplicate: func(ctx context.Context, ledger string, seq int64) error {
			body := canary.Body(ledger, seq, canary.DefaultSize)
			_, err := r.root.users.client().PutObject(ctx, testBucket, canary.Tree(defaultPrefix).Name(ledger, seq), bytes.NewReader(body), int64(len(body)), "", "", minio.PutObjectOptions{})
			return err
		},
		Checks: []targettest.Check{
			{Name: CheckHealth}, {Name: CheckWritable}, {Name: CheckCanaries}, {Name: CheckSettings},
			{Name: CheckSpace, Params: json.RawMessage(`{"minFree":1048576}`)},
		},
	}
}

func (r *rig) processFaults() []targettest.Fault {
	return []targettest.Fault{
		{Name: FaultKill, Outage: true, DeadMan: true, Broken: r.down},
		{Name: FaultFreeze, Outage: true, DeadMan: true, Broken: r.down},
		{Name: FaultStop, Outage: true, DeadMan: true, Broken: r.down},
	}
}

func (r *rig) objectFaults(t *testing.T) []targettest.Fault {
	var out []targettest.Fault
	for _, name := range []string{FaultDeleteObject, FaultCorruptObject} {
		for key := range r.victims {
			out = append(out, targettest.Fault{Name: name, DeadMan: true, Params: raw(t, map[string]any{"key": key}), Broken: r.unreadable(key)})
		}
	}
	return out
}

func TestContractOnThisMachine(t *testing.T) {
	r := startRig(t)
	h := r.harness(t)
	h.Bad = r.badConfigs(t)
	free, err := r.root.free(t.Context(), r.root.nodes[0], r.drive())
	if err != nil {
		t.Fatal(err)
	}
	// MinIO wants a hundredth of the file system left, so that this is full for it.
	full := map[string]any{"path": filepath.Join(r.dir, "scratch"), "bytes": free - fileSystem/200}
	h.Faults = append(append(r.processFaults(), r.objectFaults(t)...),
		targettest.Fault{Name: FaultFillDisk, Outage: true, DeadMan: true, Params: raw(t, full), Broken: r.writesFail(http.StatusInsufficientStorage)},
		targettest.Fault{Name: FaultReadOnly, Outage: true, Broken: r.writesFail(http.StatusForbidden)},
	)
	targettest.Run(t, h)
}

func TestContractElsewhere(t *testing.T) {
	r := startRig(t)
	r.config = r.edit(t, elsewhere)
	h := r.harness(t)
	h.Faults = append(r.processFaults(), r.objectFaults(t)...)
	targettest.Run(t, h)
}

// writesFail returns nil when the probes' user is refused with a status.
func (r *rig) writesFail(want int) func(context.Context) error {
	return func(ctx context.Context) error {
		s, err := newConns(r.root.service, login{testUser, testSecret}, true)
		if err != nil {
			return err
		}
		defer s.reset()
		// MinIO remembers for a second how full a drive is.
		return target.Poll(ctx, 1500*time.Millisecond, 20*time.Millisecond, "a refusal", func(ctx context.Context) (bool, string, error) {
			_, err := s.client().PutObject(ctx, testBucket, "refused", bytes.NewReader([]byte("x")), 1, "", "", minio.PutObjectOptions{})
			status, _ := refused(err)
			return status == want, fmt.Sprintf("a write gets %d, %v", status, err), nil
		})
	}
}

// blocked are configurations that validate takes, each with one mistake that no undo
// could do without.
func (r *rig) blocked(t *testing.T) []targettest.Bad {
	t.Setenv("FIREDRILL_TEST_WRONG", "not-the-secret-key")
	return []targettest.Bad{
		{Name: "nobody listens", Field: "endpoint", Config: r.edit(t, func(c map[string]any) { c["endpoint"] = "http://127.0.0.1:9" })},
		{Name: "a secret key that is wrong", Field: "endpoint", Config: r.edit(t, func(c map[string]any) { c["secretKey"] = map[string]any{"env": "FIREDRILL_TEST_WRONG"} })},
		{Name: "no program to start it", Field: "nodes[0].start", Config: r.edit(t, func(c map[string]any) { nodeOf(c)["start"] = []string{"/nowhere/minio", targettest.Argument} })},
		{Name: "no program to stop it", Field: "nodes[0].stop", Config: r.edit(t, func(c map[string]any) { nodeOf(c)["stop"] = []string{"/nowhere/stop", targettest.Argument} })},
		{Name: "another port of the node", Field: "nodes[0].port", Config: r.edit(t, func(c map[string]any) { nodeOf(c)["port"] = 9 })},
		{Name: "state that cannot be kept", Field: "stateDir", Config: r.edit(t, func(c map[string]any) { c["stateDir"] = "/dev/null/state" })},
	}
}

// badConfigs break one field each.
func (r *rig) badConfigs(t *testing.T) []targettest.Bad {
	var out []targettest.Bad
	bad := func(field string, f func(c map[string]any)) {
		out = append(out, targettest.Bad{Name: fmt.Sprintf("%s %d", field, len(out)), Field: field, Config: r.edit(t, f)})
	}
	set := func(key string, value any) func(map[string]any) { return func(c map[string]any) { c[key] = value } }
	node := func(key string, value any) func(map[string]any) {
		return func(c map[string]any) { nodeOf(c)[key] = value }
	}
	bad("endpoint", set("endpoint", "127.0.0.1:9000"))
	bad("endpoint", set("endpoint", "http://user:password@host"))
	bad("endpoint", set("endpoint", "http://host/path"))
	bad("caFile", set("caFile", "relative.pem"))
	bad("bucket", set("bucket", "No"))
	bad("bucket", set("bucket", "../x"))
	bad("prefix", set("prefix", "a/../b"))
	bad("user", set("user", ""))
	bad("secretKey", set("secretKey", map[string]any{}))
	bad("secretKey", set("secretKey", map[string]any{"env": "A", "file": "/b"}))
	bad("secretKey", set("secretKey", "plain"))
	bad("admin.user", func(c map[string]any) { c["admin"].(map[string]any)["user"] = testUser })
	bad("stateDir", set("stateDir", ""))
	bad("stateDir", set("stateDir", r.drive()+"/state"))
	bad("scratchDirs[0]", set("scratchDirs", []string{"/"}))
	bad("breakablePrefixes[0]", set("breakablePrefixes", []string{""}))
	bad("breakablePrefixes[0]", set("breakablePrefixes", []string{"../"}))
	bad("nodes", set("nodes", []any{}))
	bad("nodes[1].name", func(c map[string]any) { c["nodes"] = append(c["nodes"].([]any), nodeOf(c)) })
	bad("nodes[0].name", node("name", "a b"))
	bad("nodes[0].host", node("host", ""))
	bad("nodes[0].port", node("port", 0))
	bad("nodes[0].drives", node("drives", []string{}))
	bad("nodes[0].drives[0]", node("drives", []string{"data"}))
	bad("nodes[0].process", node("process", "a name that is too long"))
	bad("nodes[0].start", node("start", []string{}))
	bad("nodes[0].logFile", node("logFile", "log"))
	bad("nodes[0].control.kind", node("control", map[string]any{"kind": "carrier pigeon"}))
	return out
}
