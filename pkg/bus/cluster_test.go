package bus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// node is one server of a cluster, in a process of its own so that it can be
// killed.
type node struct {
	name   string
	url    string
	config string
	store  string
	env    []string // besides this process's own
	cmd    *exec.Cmd
}

func (n *node) start(t *testing.T) {
	t.Helper()
	n.cmd = exec.Command(os.Args[0], "-test.run=^TestHelperNode$")
	n.cmd.Env = append(os.Environ(), "FIREDRILL_HELPER_NODE="+n.config, "FIREDRILL_HELPER_STORE_DIR="+n.store)
	n.cmd.Env = append(n.cmd.Env, n.env...)
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (n *node) kill() {
	_ = n.cmd.Process.Kill() // It may have ended already.
	_ = n.cmd.Wait()         // The error says that it was killed.
}

// answers reports whether clients can connect again.
func (n *node) answers() bool {
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(n.url, "nats://"), time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// TestHelperNode is not a test of its own: it is a cluster node's process.
func TestHelperNode(t *testing.T) {
	config := os.Getenv("FIREDRILL_HELPER_NODE")
	if config == "" {
		return
	}
	startServer(t, bus.EmbeddedOptions{ConfigFile: config, StoreDir: os.Getenv("FIREDRILL_HELPER_STORE_DIR"), Listen: os.Getenv("FIREDRILL_HELPER_LISTEN")})
	<-t.Context().Done()
}

func startCluster(t *testing.T) map[string]*node {
	t.Helper()
	ports := freePorts(t, 6)
	var routes []string
	for i := range 3 {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[3+i]))
	}
	nodes := map[string]*node{}
	for i := range 3 {
		n := &node{name: fmt.Sprintf("n%d", i), url: fmt.Sprintf("nats://127.0.0.1:%d", ports[i]), store: t.TempDir()}
		n.config = filepath.Join(t.TempDir(), "node.conf")
		text := fmt.Sprintf("server_name: %s\nlisten: 127.0.0.1:%d\njetstream {}\ncluster { name: c, listen: 127.0.0.1:%d, routes: [%s] }\n",
			n.name, ports[i], ports[3+i], strings.Join(routes, ", "))
		if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n.start(t)
		t.Cleanup(n.kill)
		nodes[n.name] = n
	}
	return nodes
}

// freePorts finds ports that nobody listens on now: the nodes of a cluster must
// know each other's before they start.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

// bootstrapCluster makes the streams with three replicas, once the cluster takes any.
func bootstrapCluster(t *testing.T, js jetstream.JetStream, b *bus.Bus) {
	t.Helper()
	// Without a leader nobody answers, and Bootstrap would wait for a whole try of its own.
	eventually(t, 60*time.Second, "cluster with a leader", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := js.AccountInfo(ctx)
		return err == nil
	})
	eventually(t, 60*time.Second, "cluster that takes streams", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := b.Bootstrap(ctx, bus.BootstrapOptions{Replicas: 3})
		if err != nil {
			t.Logf("bootstrap: %v", err)
		}
		return err == nil
	})
}

func leader(t *testing.T, js jetstream.JetStream) string {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, bus.StreamDrills)
	if err != nil || s.CachedInfo().Cluster == nil {
		return ""
	}
	return s.CachedInfo().Cluster.Leader
}

// allCurrent reports whether every replica of DRILLS has caught up.
func allCurrent(t *testing.T, js jetstream.JetStream) bool {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, bus.StreamDrills)
	if err != nil || s.CachedInfo().Cluster == nil {
		return false
	}
	peers := s.CachedInfo().Cluster.Replicas
	return len(peers) == 2 && !slices.ContainsFunc(peers, func(p *jetstream.PeerInfo) bool { return !p.Current || p.Offline || p.Active > 2*time.Second })
}

// TestClusterSurvivesItsLeader kills -9 the leader of DRILLS under four writers
// and a follower: no acknowledged event is lost, none is stored twice, and the
// chain verifies.
func TestClusterSurvivesItsLeader(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t)
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.url)
	}
	s := newSigners(t)
	dial := func(service, instance string) *bus.Bus {
		return connect(t, bus.Options{URL: strings.Join(urls, ","), Identity: s.identity(service, instance), Keyring: s.ring})
	}
	boot := dial("bootstrap", "b") // Waits until they listen.
	js := plainJS(t, strings.Join(urls, ","))
	bootstrapCluster(t, js, boot)
	followed := make(chan string, 100000)
	follower := dial("cli", "f")
	spawn(t, func(ctx context.Context) error {
		return follower.Follow(ctx, "d", func(s bus.Stored) error {
			followed <- s.Event.ID
			return s.Trust
		})
	})
	acked := newAckLog()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 4 {
		b := dial(event.Injector, fmt.Sprintf("i%d", i))
		wg.Go(func() { acked.write(ctx, t, b, i) })
	}
	for range 2 {
		acked.more(t, 50)
		name := ""
		eventually(t, 30*time.Second, "leader", func() bool { name = leader(t, js); return name != "" })
		nodes[name].kill()
		began := time.Now()
		acked.more(t, 50)
		t.Logf("killed the leader %s; 50 more acknowledged after %s", name, time.Since(began).Round(time.Millisecond))
		nodes[name].start(t)
		// One failure at a time: without a majority nothing can be stored.
		eventually(t, 60*time.Second, "whole cluster", func() bool { return nodes[name].answers() && allCurrent(t, js) })
	}
	cancel()
	wg.Wait()
	history := mustVerify(t, follower, s.ring, "d", -1)
	stored := map[string]bool{}
	for _, e := range history {
		stored[e.Event.ID] = true
		if p := e.Payload.(*event.PhaseStarted).Phase; slices.Contains(acked.not, p) {
			t.Errorf("event %s of %s is stored, but its writer was told that it is not", e.Event.ID, p)
		}
		if got := await(t, followed, 30*time.Second, "followed event"); got != e.Event.ID {
			t.Fatalf("the follower saw %s in place of %s", got, e.Event.ID)
		}
	}
	for _, id := range acked.ids {
		if !stored[id] {
			t.Errorf("acknowledged event %s is lost", id)
		}
	}
	t.Logf("%d events stored, %d acknowledged, appends given up: %v", len(history), len(acked.ids), acked.refused)
}

// ackLog keeps what the writers were told is stored.
type ackLog struct {
	mu      sync.Mutex
	ids     []string
	refused map[string]int
	not     []string // what a writer was told is not stored
	grown   chan struct{}
}

func newAckLog() *ackLog {
	return &ackLog{refused: map[string]int{}, grown: make(chan struct{}, 1)}
}

// write appends until ctx ends, every second writer in batches of two.
func (a *ackLog) write(ctx context.Context, t *testing.T, b *bus.Bus, writer int) {
	for i := writer * 100000; ctx.Err() == nil; i++ {
		drafts := []event.Draft{phase(i), phase(i)}[:writer%2+1]
		out, err := b.Append(context.WithoutCancel(ctx), "d", drafts...)
		a.mu.Lock()
		switch {
		case err == nil:
			for _, s := range out {
				a.ids = append(a.ids, s.Event.ID)
			}
		// The budget may run out during a long election. That is an answer too:
		// it must be one of these three, and then nothing was acknowledged.
		case errors.Is(err, bus.ErrOutcomeUnknown):
			t.Logf("given up: %v", err)
			a.refused["outcome unknown"]++
		case errors.Is(err, bus.ErrNoAnswer):
			a.refused["no answer"]++
			a.not = append(a.not, drafts[0].Data.(event.PhaseStarted).Phase)
		case errors.Is(err, bus.ErrConflict):
			a.refused["conflict"]++
			a.not = append(a.not, drafts[0].Data.(event.PhaseStarted).Phase)
		default:
			t.Errorf("append: %v", err)
		}
		a.mu.Unlock()
		select {
		case a.grown <- struct{}{}:
		default:
		}
	}
}

// more waits for n further acknowledged events.
func (a *ackLog) more(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.ids)
	}
	want := count() + n
	deadline := time.After(90 * time.Second)
	for count() < want {
		select {
		case <-a.grown:
		case <-deadline:
			t.Fatalf("only %d of %d acknowledged events", count(), want)
		}
	}
}

func plainJS(t *testing.T, urls string) jetstream.JetStream {
	t.Helper()
	closed := make(chan struct{})
	nc, err := nats.Connect(urls, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); <-closed })
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
