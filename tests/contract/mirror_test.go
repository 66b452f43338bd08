package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/schemas"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
)

// mirrored is an installation that runs mirrors.
type mirrored struct {
	t    *testing.T
	dir  string
	me   *bus.Bus
	last uint64
}

func newMirrored(t *testing.T) *mirrored {
	t.Helper()
	m := &mirrored{t: t, dir: t.TempDir()}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(m.dir, "nats"), Listen: "127.0.0.1:0", Log: quiet})
	m.must(err)
	t.Cleanup(server.Shutdown)
	connect := func(service string) *bus.Bus {
		b, err := bus.Connect(t.Context(), bus.Options{Embedded: server, Log: quiet, Identity: bus.Identity{Service: service, Instance: service, Clock: clock.System()}})
		m.must(err)
		t.Cleanup(b.Close)
		return b
	}
	m.me = connect("cli")
	m.must(m.me.Bootstrap(t.Context(), bus.BootstrapOptions{}))
	inv := drill.Inventory{}
	inv.Spec.Mirrors = []drill.Mirror{
		{Name: "out", From: "dir:" + m.dir + "/src", To: "dir:" + m.dir + "/dst", Filter: []string{"- *.tmp"}, Verify: &drill.MirrorVerification{Every: event.Duration(time.Hour)}},
		{Name: "slow", From: "dir:" + m.dir + "/src", To: "dir:" + m.dir + "/slow", BytesPerSecond: 1, Stalled: event.Duration(time.Second)},
	}
	m.write("src/a", strings.Repeat("x", 1<<20))
	m.write("src/d/b", "content")
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	c := fleet.Config{Bus: connect(event.Mirror), Log: quiet, Inventory: inv, Env: job.Env{StateDir: filepath.Join(m.dir, "state"), Now: time.Now}}
	go func() { ended <- fleet.Run(ctx, c) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *mirrored) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *mirrored) write(name, content string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	m.must(errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o640)))
}

func (m *mirrored) ask(mirror, body string) {
	m.t.Helper()
	_, err := m.me.Publish(m.t.Context(), "mirror.req.test."+mirror, []byte(body), "")
	m.must(err)
}

// await waits for an event behind those that were waited for before.
func (m *mirrored) await(mirror, kind string) (e fleet.Event) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	err := m.me.FollowMirrorKind(ctx, mirror, kind, m.last, func(r bus.Record) error {
		m.last = r.Seq
		return errors.Join(json.Unmarshal(r.Data, &e), bus.Stop)
	})
	if err != nil && !errors.Is(err, bus.Stop) {
		m.t.Fatalf("await %s of %s: %v", kind, mirror, err)
	}
	return e
}

// TestTheMirrorsMessagesFitTheirSchemas: all that is asked, told and commanded in real runs,
// of every kind, is what the AsyncAPI document and the schemas say.
func TestTheMirrorsMessagesFitTheirSchemas(t *testing.T) {
	m := newMirrored(t)
	requests := []string{
		`{"do": "verify"}`, "{}", `{"do": "verify", "level": "L3", "read": "100%", "period": "48h", "side": "both"}`,
		`{"do": "audit", "repair": true, "repairSource": true}`, `{"check": "listing", "dryRun": true}`,
	}
	m.ask("out", requests[0])
	m.await("out", fleet.KindFailed) // before the first run
	m.ask("out", requests[1])
	m.await("out", fleet.KindFinished)
	m.ask("out", requests[2])
	m.await("out", fleet.KindFinished)
	m.write("dst/d/b", "others")
	m.write("dst/e", "extra")
	m.ask("out", requests[3])
	m.await("out", fleet.KindDrift)
	m.ask("out", requests[4])
	m.await("out", fleet.KindFinished)
	m.ask("out", `{"do": "nothing"}`)
	m.await("out", fleet.KindRejected)
	m.ask("slow", "")
	run := m.await("slow", fleet.KindStarted).Run
	m.ask("slow", "")
	m.await("slow", fleet.KindWaiting)
	m.await("slow", fleet.KindStalled)
	m.await("slow", fleet.KindProgress)
	m.must(m.me.PublishMirrorCommand(t.Context(), "slow", "cancel", fleet.Cancel{Run: run}))
	m.await("slow", fleet.KindCancelled)
	payloads, seen := asyncPayloads(t), map[string]int{}
	for _, mirror := range []string{"out", "slow"} {
		last, _, err := m.me.LastMirror(t.Context(), mirror)
		m.must(err)
		m.must(m.me.FollowMirror(t.Context(), mirror, 0, func(r bus.Record) error {
			seen[r.Kind]++
			if payloads[r.Kind] == nil {
				t.Errorf("%s is no kind that the document has", r.Kind)
			} else if err := payloads[r.Kind].Validate(instance(t, r.Data)); err != nil {
				t.Errorf("%s: %v\n%s", r.Kind, err, r.Data)
			}
			if r.Seq >= last.Seq {
				return bus.Stop
			}
			return nil
		}))
	}
	for kind := range payloads {
		if seen[kind] == 0 {
			t.Errorf("no %s was told", kind)
		}
	}
	request, cancel := compiled(t, "mirror-request"), compiled(t, "mirror-cancel")
	for _, body := range requests {
		if err := request.Validate(instance(t, []byte(body))); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	for _, body := range []string{`{"do": "nothing"}`, `{"level": "L9"}`, `{"Do": "verify"}`, `{"period": 7}`} {
		if request.Validate(instance(t, []byte(body))) == nil {
			t.Errorf("%s passes", body)
		}
	}
	m.must(m.me.FollowMirrorCommands(t.Context(), "slow", 0, func(r bus.Record) error {
		return errors.Join(cancel.Validate(instance(t, r.Data)), bus.Stop)
	}))
}

// asyncPayloads are, by kind, the schemas of the mirror's events in the AsyncAPI document.
func asyncPayloads(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	var doc struct {
		Channels   map[string]struct{ Messages map[string]any }
		Components struct {
			Messages map[string]struct {
				Name    string
				Payload any
			}
		}
	}
	if err := yaml.Unmarshal(schemas.AsyncAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	raw, ok := schemas.Named("mirror-event")
	if !ok {
		t.Fatal("mirror-event has no schema: run `make fix`")
	}
	out := map[string]*jsonschema.Schema{}
	for name := range doc.Channels["mirrorEvents"].Messages {
		msg := doc.Components.Messages[name]
		payload, err := json.Marshal(msg.Payload)
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		at := event.SchemaBase + name + ".json"
		if err := errors.Join(c.AddResource(event.SchemaBase+"v1/mirror-event.json", instance(t, raw)), c.AddResource(at, instance(t, bytes.TrimSpace(payload)))); err != nil {
			t.Fatal(err)
		}
		if out[msg.Name], err = c.Compile(at); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 9 {
		t.Fatalf("the document has %d kinds of a mirror's events", len(out))
	}
	return out
}
