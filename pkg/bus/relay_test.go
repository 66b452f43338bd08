package bus_test

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// relay is a TCP relay that can lose what the server answers and cut every
// connection.
type relay struct {
	listener net.Listener
	to       string
	mute     atomic.Bool
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, to: to, open: map[net.Conn]bool{}}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.cut()
		r.wg.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		r.mu.Lock()
		r.open[client], r.open[server] = true, true
		r.mu.Unlock()
		r.wg.Go(func() { r.pump(server, client, false) })
		r.wg.Go(func() { r.pump(client, server, true) })
	}
}

func (r *relay) pump(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !(answers && r.mute.Load()) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		_ = c.Close()
	}
	clear(r.open)
}

// TestLostAck stores an append whose answer never arrives. The append must
// succeed all the same, and be stored once, also if somebody wrote after it.
func TestLostAck(t *testing.T) {
	for name, tc := range map[string]struct {
		drafts []event.Draft
		after  bool
		place  bool
	}{
		"one event":                      {drafts: []event.Draft{phase(1)}},
		"a batch":                        {drafts: []event.Draft{phase(1), phase(2), phase(3)}},
		"one event, another after it":    {drafts: []event.Draft{phase(1)}, after: true},
		"a batch, another after it":      {drafts: []event.Draft{phase(1), phase(2)}, after: true},
		"at a place":                     {drafts: []event.Draft{phase(1)}, place: true},
		"a batch at a place, and others": {drafts: []event.Draft{phase(1), phase(2)}, after: true, place: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, dir: t.TempDir(), signers: newSigners(t)}
			w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir, Listen: "127.0.0.1:0"})
			near := w.connect(event.Observer)
			if err := near.Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
				t.Fatal(err)
			}
			r := newRelay(t, w.server.URL()[len("nats://"):])
			far := connect(t, bus.Options{URL: "nats://" + r.listener.Addr().String(), Identity: w.identity(event.Injector, "far"), Keyring: w.ring})
			first, err := far.Append(t.Context(), "d", accepted())
			if err != nil {
				t.Fatal(err)
			}
			r.mute.Store(true)
			type outcome struct {
				stored []bus.Stored
				err    error
			}
			done := make(chan outcome, 1)
			go func() {
				var o outcome
				if tc.place {
					o.stored, o.err = far.AppendAt(t.Context(), "d", first[0].Tail(), tc.drafts...)
				} else {
					o.stored, o.err = far.Append(t.Context(), "d", tc.drafts...)
				}
				done <- o
			}()
			want := 1 + len(tc.drafts)
			eventually(t, 10*time.Second, "stored append", func() bool {
				h, err := near.History(t.Context(), "d")
				return err == nil && len(h) == want
			})
			if tc.after {
				if _, err := near.Append(t.Context(), "d", outage(1)); err != nil {
					t.Fatal(err)
				}
				want++
			}
			r.cut()
			r.mute.Store(false)
			o := await(t, done, 20*time.Second, "end of the append")
			if o.err != nil {
				t.Fatal(o.err)
			}
			history := mustVerify(t, near, w.ring, "d", want)
			for i, s := range o.stored {
				if got := history[1+i]; got.Event.ID != s.Event.ID || got.Seq != s.Seq || got.Tail() != s.Tail() {
					t.Errorf("event %d was reported at %d, and lies at %d", i, s.Seq, got.Seq)
				}
			}
		})
	}
}

// TestNoServerIsReported: a budget that runs out says whether something may be
// stored.
func TestNoServerIsReported(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), signers: newSigners(t)}
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir, Listen: "127.0.0.1:0"})
	b := connect(t, bus.Options{URL: w.server.URL(), Identity: w.identity(event.Injector, "i"), Keyring: w.ring})
	if err := b.Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	first, err := b.Append(t.Context(), "d", accepted())
	if err != nil {
		t.Fatal(err)
	}
	w.server.Shutdown()
	began := time.Now()
	_, err = b.AppendAt(t.Context(), "d", first[0].Tail(), phase(1))
	if err == nil || errors.Is(err, bus.ErrConflict) {
		t.Fatalf("append without a server: %v", err)
	}
	if took := time.Since(began); took < 9*time.Second || took > 16*time.Second {
		t.Errorf("gave up after %s, want about 10 s", took)
	}
}
