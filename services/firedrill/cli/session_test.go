package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// somebodysDrill is a drill that a server of serve holds. Nobody conducts it.
const somebodysDrill = "somebody-1"

// serve starts a NATS server with one drill under way and no services, and records
// it as a running firedrill in a state directory.
func serve(t *testing.T) (stateDir string) {
	t.Helper()
	dir := t.TempDir()
	server, b := openStore(t, dir, "127.0.0.1:0")
	t.Cleanup(server.Shutdown)
	t.Cleanup(b.Close)
	begin(t, b, event.RequestRef{MsgID: "weekly"})
	record(t, dir, allinone.Record{PID: os.Getpid(), NATSURL: server.URL()})
	return dir
}

// record writes the record of a running firedrill.
func record(t *testing.T, dir string, r allinone.Record) {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "up.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// leave makes a state directory whose firedrill has ended in the midst of a drill.
func leave(t *testing.T) (stateDir string) {
	t.Helper()
	dir := t.TempDir()
	server, b := openStore(t, dir, "")
	r := leftRequest()
	ack, err := b.Publish(t.Context(), r.subject, r.raw, r.msgID)
	if err != nil {
		t.Fatal(err)
	}
	begin(t, b, event.RequestRef{Subject: r.subject, Sequence: ack.Seq, MsgID: r.msgID})
	b.Close()
	server.Shutdown()
	return dir
}

// leftRequest is what the drill of leave was asked for by.
func leftRequest() asked {
	return asked{document{raw: []byte("kind: Drill"), name: "somebody"}, "drill.req.ada.somebody", "weekly"}
}

// openStore starts a NATS server on a state directory and connects to it as the
// injector.
func openStore(t *testing.T, dir, listen string) (*bus.Embedded, *bus.Bus) {
	t.Helper()
	return openStoreAs(t, event.Injector, dir, listen)
}

// openStoreAs is openStore for any service.
func openStoreAs(t *testing.T, service, dir, listen string) (*bus.Embedded, *bus.Bus) {
	t.Helper()
	ring, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(dir, "nats"), Listen: listen, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ring.Signer(service)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.Connect(t.Context(), bus.Options{Embedded: server, Keyring: ring.Keyring, Log: log,
		Identity: bus.Identity{Service: service, Instance: "test", Signer: signer, Clock: clock.System()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Bootstrap(t.Context(), bus.BootstrapOptions{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	return server, b
}

// begin stores somebody's drill.
func begin(t *testing.T, b *bus.Bus, r event.RequestRef) {
	t.Helper()
	spec, hash, err := drill.JSON(drill.WithDefaults(drill.Drill{APIVersion: drill.APIVersion, Kind: drill.Kind, Metadata: drill.Metadata{Name: "somebody", Title: "Loss of the primary"}}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Append(t.Context(), somebodysDrill, event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{
		Requester: "ada", Request: r, Spec: spec, SpecHash: hash, Seed: 1}})
	if err != nil {
		t.Fatal(err)
	}
}

// ask runs a command against a server of serve.
func ask(ctx context.Context, stateDir string, out io.Writer, args ...string) (code int, errs string) {
	var e bytes.Buffer
	code = Run(ctx, append([]string{"--state-dir", stateDir}, args...), Streams{In: strings.NewReader(""), Out: out, Err: &e}, target.NewRegistry())
	return code, e.String()
}

// says fails the test unless a command succeeds with these words, and without
// those after "not:".
func says(t *testing.T, stateDir string, words []string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	code, errs := ask(t.Context(), stateDir, &out, args...)
	if code != run.OK {
		t.Fatalf("%v: exit %d: %s", args, code, errs)
	}
	for _, w := range words {
		w, unwanted := strings.CutPrefix(w, "not:")
		if strings.Contains(out.String()+errs, w) == unwanted {
			t.Errorf("%v says\n%s%s\nas to %q", args, out.String(), errs, w)
		}
	}
}

// TestTheFirstHaltStays: who releases it must see why it was given, and everybody
// that there is one.
func TestTheFirstHaltStays(t *testing.T) {
	dir := serve(t)
	says(t, dir, []string{"nothing is halted"}, "halt", "--release")
	says(t, dir, []string{somebodysDrill, "not:HALTED"}, "list")
	says(t, dir, []string{"halted: running drills are being aborted"}, "halt", "the disks are full")
	says(t, dir, []string{"halted already", "by " + requester() + " on 20", "the disks are full", "not:being aborted"}, "halt", "--reason", "another reason")
	for _, args := range [][]string{{"list"}, {"status", somebodysDrill}} {
		says(t, dir, []string{"ALL DRILLS ARE HALTED", "the disks are full", "not:another reason", "halt --release", somebodysDrill}, args...)
	}
	var out bytes.Buffer
	if code, errs := ask(t.Context(), dir, &out, "list", "--json"); code != run.OK || !json.Valid(out.Bytes()) || !strings.Contains(errs, "the disks are full") {
		t.Errorf("exit %d, %s%s", code, out.String(), errs)
	}
	says(t, dir, []string{"released", "the disks are full"}, "halt", "--release")
	says(t, dir, []string{"not:HALTED"}, "list")
}

// atFirstWord calls something at the first write.
type atFirstWord struct {
	once sync.Once
	call func()
}

func (w *atFirstWord) Write(p []byte) (int, error) {
	w.once.Do(w.call)
	return len(p), nil
}

// TestLeavingAWatch says that the drill goes on, and nothing of contexts.
func TestLeavingAWatch(t *testing.T) {
	dir := serve(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	code, errs := ask(ctx, dir, &atFirstWord{call: func() { cancel(&run.Signal{Signal: os.Interrupt}) }}, "watch", somebodysDrill)
	want := "firedrill: no longer watching; the drill goes on: `firedrill --state-dir " + dir + " watch " + somebodysDrill + "` shows it again\n"
	if code != run.Interrupted || errs != want {
		t.Fatalf("exit %d, %q; want %q", code, errs, want)
	}
}

// TestAWatchReadsTheEndFromTheStore: the firedrill of a lone run ends right after the
// report, which a watcher may not have heard of. Where the store does not have it
// either, the watcher says so.
func TestAWatchReadsTheEndFromTheStore(t *testing.T) {
	for name, published := range map[string]bool{"published": true, "left": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			server, b := openStore(t, dir, "127.0.0.1:0")
			begin(t, b, event.RequestRef{MsgID: "weekly"})
			record(t, dir, allinone.Record{PID: os.Getpid(), NATSURL: server.URL()})
			var out lines
			out.call = func() {
				b.Close()
				server.Shutdown()
				if !published {
					return
				}
				for _, d := range []event.Draft{
					{Type: event.TypeDrillFinished, Data: event.DrillFinished{Complete: true}},
					{Type: event.TypeReportPublished, Data: event.ReportPublished{Verdict: "INVALID", Of: 2}},
				} {
					info, _ := event.Lookup(d.Type)
					server, b := openStoreAs(t, info.Service, dir, "")
					if _, err := b.Append(t.Context(), somebodysDrill, d); err != nil {
						t.Error(err)
					}
					b.Close()
					server.Shutdown()
				}
			}
			code, errs := ask(t.Context(), dir, &out, "watch", somebodysDrill)
			switch said := out.text.String(); {
			case published && (code != run.Inconclusive || !strings.Contains(said, somebodysDrill+": INVALID") || strings.Contains(errs, "has ended")):
				t.Errorf("exit %d, %s%s", code, said, errs)
			case !published && (code != run.Crash || !strings.Contains(errs, "the firedrill that conducts "+somebodysDrill+" has ended")):
				t.Errorf("exit %d, %s%s", code, said, errs)
			}
		})
	}
}
