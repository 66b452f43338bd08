package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, serverLeftovers()...) }

// serverLeftovers are goroutines that nats-server 2.15.2 leaves behind: a server
// that is shut down between the first message of an atomic batch and its commit
// does not close the batch's own file store.
func serverLeftovers() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	}
}

// signers are one key for each service, and their keyring.
type signers struct {
	ring event.Keyring
	by   map[string]*keys.Signer
}

func newSigners(t *testing.T) signers {
	t.Helper()
	s := signers{ring: event.Keyring{}, by: map[string]*keys.Signer{}}
	for _, service := range event.Services() {
		k, err := keys.New()
		if err != nil {
			t.Fatal(err)
		}
		s.by[service] = k
		s.ring[service] = []string{k.Public()}
	}
	return s
}

func (s signers) identity(service, instance string) bus.Identity {
	id := bus.Identity{Service: service, Instance: instance, Clock: clock.System()}
	if k, ok := s.by[service]; ok {
		id.Signer = k
	}
	return id
}

// world is an embedded server with its streams, and connections to it.
type world struct {
	t      *testing.T
	dir    string
	server *bus.Embedded
	signers
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), signers: newSigners(t)}
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir})
	if err := w.connect("bootstrap").Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	return w
}

func startServer(t *testing.T, o bus.EmbeddedOptions) *bus.Embedded {
	t.Helper()
	o.Log = quiet()
	e, err := bus.StartEmbedded(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	return e
}

// connect connects a service in process; the connection closes with the test.
func (w *world) connect(service string) *bus.Bus {
	w.t.Helper()
	return connect(w.t, bus.Options{Embedded: w.server, Identity: w.identity(service, service+"-1"), Keyring: w.ring})
}

func connect(t *testing.T, o bus.Options) *bus.Bus {
	t.Helper()
	o.Log = quiet()
	b, err := bus.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// spawn runs a blocking call and ends it, checked, with the test.
func spawn(t *testing.T, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("background call: %v", err)
				}
			case <-time.After(15 * time.Second):
				t.Error("a background call did not end with its context")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// await takes the next value from a channel, or fails.
func await[T any](t *testing.T, ch <-chan T, within time.Duration, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(within):
		t.Fatalf("no %s within %s", what, within)
		panic("unreachable")
	}
}

func phase(n int) event.Draft {
	return event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: fmt.Sprintf("p%d", n)}}
}

func outage(n int) event.Draft {
	return event.Draft{Type: event.TypeOutageStarted, Data: event.OutageStarted{Phase: fmt.Sprintf("p%d", n)}}
}

func accepted() event.Draft {
	return event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Requester: "me", Spec: []byte(`{}`)}}
}

func finished() event.Draft {
	return event.Draft{Type: event.TypeDrillFinished, Data: event.DrillFinished{Complete: true}}
}

// mustVerify reads the drill's history and proves it whole.
func mustVerify(t *testing.T, b *bus.Bus, ring event.Keyring, drill string, want int) []bus.Stored {
	t.Helper()
	history, err := b.History(t.Context(), drill)
	if err != nil {
		t.Fatal(err)
	}
	raws := make([][]byte, len(history))
	ids := map[string]bool{}
	for i, s := range history {
		raws[i] = s.Raw
		if s.Trust != nil {
			t.Fatalf("untrusted: %v", s.Trust)
		}
		if ids[s.Event.ID] {
			t.Fatalf("event %s is stored twice", s.Event.ID)
		}
		ids[s.Event.ID] = true
	}
	if v := event.VerifyHistory(raws, ring); !v.Whole() {
		t.Fatalf("history of %s: %v", drill, v.Findings)
	}
	if want >= 0 && len(history) != want {
		t.Fatalf("the history holds %d events, want %d", len(history), want)
	}
	return history
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("no %s within %s", what, within)
		}
	}
}

// plain is a client without the bus, for playing others.
func (w *world) plain(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(w.server.URL(), nats.InProcessServer(w.server.Server()))
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() { nc.Close(); <-closed })
	return nc
}

func (w *world) js(t *testing.T) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(w.plain(t))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// raw stores bytes on a subject, past the bus.
func (w *world) raw(t *testing.T, subject string, data []byte) {
	t.Helper()
	if _, err := w.js(t).Publish(t.Context(), subject, data); err != nil {
		t.Fatal(err)
	}
}

func (w *world) request(t *testing.T, subject string) string {
	t.Helper()
	m, err := w.plain(t).RequestWithContext(t.Context(), subject, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Data)
}

// pending counts a durable's messages that are under way or still to come.
func (w *world) pending(t *testing.T, stream, durable string) int {
	t.Helper()
	c, err := w.js(t).Consumer(t.Context(), stream, durable)
	if err != nil {
		t.Fatal(err)
	}
	info := c.CachedInfo()
	return int(info.NumPending) + info.NumAckPending
}

func (w *world) awaitPending(t *testing.T, stream, durable string, want int) {
	t.Helper()
	eventually(t, 10*time.Second, "idle durable", func() bool { return w.pending(t, stream, durable) == want })
}

func (w *world) setAckWait(t *testing.T, stream, durable string, wait time.Duration) {
	t.Helper()
	js := w.js(t)
	c, err := js.Consumer(t.Context(), stream, durable)
	if err != nil {
		t.Fatal(err)
	}
	cfg := c.CachedInfo().Config
	cfg.AckWait = wait
	if _, err := js.UpdateConsumer(t.Context(), stream, cfg); err != nil {
		t.Fatal(err)
	}
}

// takeAndDie takes the durable's first message again and again without a word.
func (w *world) takeAndDie(t *testing.T, stream, durable string, times int) {
	t.Helper()
	c, err := w.js(t).Consumer(t.Context(), stream, durable)
	if err != nil {
		t.Fatal(err)
	}
	for n := range times {
		m, err := c.Next(jetstream.FetchMaxWait(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if meta, err := m.Metadata(); err != nil || meta.NumDelivered != uint64(n+1) {
			t.Fatalf("delivery %d: %+v, %v", n+1, meta, err)
		}
	}
}

func (w *world) awaitDead(t *testing.T, b *bus.Bus, want int) (letters []bus.DeadLetter) {
	t.Helper()
	eventually(t, 20*time.Second, "expected number of dead letters", func() bool {
		var err error
		letters, err = b.DeadLetters(t.Context())
		return err == nil && len(letters) == want
	})
	return letters
}
