package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/internal/await"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// upstream is a server that says its name, then echoes until the end of input.
func upstream(t *testing.T, name string) string {
	t.Helper()
	return serve(t, func(c *net.TCPConn) {
		if _, err := io.WriteString(c, name+"\n"); err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
}

func serve(t *testing.T, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			go func() {
				defer stop()
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
	t.Cleanup(func() { cancel(); _ = l.Close(); <-done })
	return l.Addr().String()
}

func start(t *testing.T, o Options) *Relay {
	t.Helper()
	r, err := Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func dial(t *testing.T, r *Relay) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// readAll connects and reads to the end. A reset may come as early as connect.
func readAll(r *Relay) ([]byte, error) {
	c, err := net.DialTimeout("tcp", r.Addr().String(), patience)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return io.ReadAll(c)
}

func line(t *testing.T, c net.Conn) string {
	t.Helper()
	var out []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		if b[0] == '\n' {
			return string(out)
		}
		out = append(out, b[0])
	}
}

// wantReset reads until the connection breaks, which must be by RST.
func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v, want a reset", err)
	}
}

// silent reports that nothing arrives for a while.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(80 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v; want silence", n, err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

func TestForwardsBytesUnchangedAndHalfCloses(t *testing.T) {
	r := start(t, Options{Upstream: upstream(t, "one")})
	c := dial(t, r)
	if got := line(t, c); got != "one" {
		t.Fatal(got)
	}
	sent := make([]byte, 8<<20)
	if _, err := rand.Read(sent); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	await.Until(t, patience, "the connection is forgotten", func() bool { return r.State().Connections == 0 })
}

func TestSwitchResetsOldConnectionsAndStampsTheMoment(t *testing.T) {
	r := start(t, Options{Upstream: upstream(t, "one")})
	old := dial(t, r)
	line(t, old)
	two := upstream(t, "two")
	before := monotonic()
	s, err := r.Switch(two)
	after := monotonic()
	if err != nil || s.SwitchedAt < before || s.SwitchedAt > after || s.Upstream != two || s.Switches != 1 {
		t.Fatalf("%+v, %v; want a moment in [%d, %d]", s, err, before, after)
	}
	wantReset(t, old)
	if got := line(t, dial(t, r)); got != "two" {
		t.Fatal(got)
	}
}

func TestDeadUpstreamResetsTheClient(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := gone.Addr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(start(t, Options{Upstream: address})); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v, want a reset", got, err)
	}
}

func TestHoldLosesNothing(t *testing.T) {
	r := start(t, Options{Upstream: upstream(t, "one")})
	old := dial(t, r)
	line(t, old)
	if _, err := r.Pause(Hold); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(old, "ping\n"); err != nil {
		t.Fatal(err)
	}
	silent(t, old)
	fresh := dial(t, r)
	silent(t, fresh)
	if s := r.State(); !s.Paused || s.Mode != Hold {
		t.Fatalf("%+v", s)
	}
	r.Resume()
	if got := line(t, old); got != "ping" {
		t.Fatal(got)
	}
	if got := line(t, fresh); got != "one" {
		t.Fatal(got)
	}
}

func TestRefuseResetsOldAndNew(t *testing.T) {
	r := start(t, Options{Upstream: upstream(t, "one")})
	old := dial(t, r)
	line(t, old)
	held := func() *net.TCPConn {
		if _, err := r.Pause(Hold); err != nil {
			t.Fatal(err)
		}
		c := dial(t, r)
		await.Until(t, patience, "accepted", func() bool { return r.State().Connections == 2 })
		return c
	}()
	if _, err := r.Pause(Refuse); err != nil {
		t.Fatal(err)
	}
	wantReset(t, old)
	wantReset(t, held)
	if got, err := readAll(r); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v, want a reset", got, err)
	}
	r.Resume()
	if got := line(t, dial(t, r)); got != "one" {
		t.Fatal(got)
	}
}

// A bounded pause ends by itself, unless it was ended, replaced or kept before: whoever
// paused may be gone.
func TestPauseEndsByItself(t *testing.T) {
	r := start(t, Options{Upstream: upstream(t, "one")})
	c := Client{URL: r.ControlURL()}
	ctx := t.Context()
	if s, err := r.PauseFor(Hold, time.Hour); err != nil || s.ResumesIn < 59*time.Minute || s.ResumesIn > time.Hour {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err := c.State(ctx); err != nil || s.Mode != Hold || s.ResumesIn < 59*time.Minute {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, unbind := range map[string]func() State{
		"kept":     func() State { return r.Keep() },
		"resumed":  func() State { r.Resume(); s, _ := r.Pause(Hold); return s },
		"replaced": func() State { s, _ := r.Pause(Hold); return s },
	} {
		if _, err := r.PauseFor(Hold, 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if s := unbind(); s.ResumesIn != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		r.mu.Lock()
		if r.bound != nil {
			t.Errorf("%s: something still bounds the pause", name)
		}
		r.mu.Unlock()
	}
	r.Resume()
	if s := r.Keep(); s.Paused {
		t.Errorf("keep paused a relay that forwards: %+v", s)
	}
	if _, err := r.PauseFor(Refuse, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	await.Until(t, patience, "forwarding again", func() bool { s := r.State(); return !s.Paused && s.ResumesIn == 0 })
	if got := line(t, dial(t, r)); got != "one" {
		t.Fatal(got)
	}
}

// TestDelayIsAPipeline sends a stream through a link whose delay, if it were
// slept for each chunk, would take many times longer.
func TestDelayIsAPipeline(t *testing.T) {
	const delay = 100 * time.Millisecond
	r := start(t, Options{Upstream: upstream(t, "one"), Link: Link{DelayMS: 100}})
	c := dial(t, r)
	began := time.Now()
	line(t, c)
	if took := time.Since(began); took < delay {
		t.Fatalf("the first line took %v, less than the delay", took)
	}
	began = time.Now()
	go func() {
		for range 200 {
			if _, err := c.Write(bytes.Repeat([]byte("x"), 32<<10)); err != nil {
				return
			}
		}
		_ = c.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, c)
	took := time.Since(began)
	if err != nil || n != 200*32<<10 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	// 200 chunks slept for one after the other would be 20 s in each direction.
	if took < 2*delay || took > 40*delay {
		t.Fatalf("took %v, want a little more than %v", took, 2*delay)
	}
}

func TestRateIsKept(t *testing.T) {
	r := start(t, Options{Upstream: upstream(t, "one"), Link: Link{BytesPerSecond: 200_000}})
	c := dial(t, r)
	line(t, c)
	began := time.Now()
	go func() {
		_, _ = c.Write(make([]byte, 100_000))
		_ = c.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, c)
	took := time.Since(began)
	if err != nil || n != 100_000 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	// There and back overlap, so it is little more than once the time.
	if took < 480*time.Millisecond || took > 4*time.Second {
		t.Fatalf("100 kB at 200 kB/s took %v", took)
	}
	if _, err := r.SetLink(Link{}); err != nil {
		t.Fatal(err)
	}
	fast := dial(t, r)
	line(t, fast)
	began = time.Now()
	go func() {
		_, _ = fast.Write(make([]byte, 1_000_000))
		_ = fast.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, fast); err != nil || n != 1_000_000 || time.Since(began) > 4*time.Second {
		t.Fatalf("after lifting the limit: %d bytes in %v, %v", n, time.Since(began), err)
	}
}

func TestDropInFlight(t *testing.T) {
	for name, drop := range map[string]bool{"kept": false, "dropped": true} {
		t.Run(name, func(t *testing.T) {
			address := serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "last words\n") })
			r := start(t, Options{Upstream: address, Link: Link{DelayMS: 150, DropInFlight: drop}})
			got, err := readAll(r)
			if drop && (len(got) > 0 || !errors.Is(err, syscall.ECONNRESET)) {
				t.Fatalf("got %q, %v; what was under way should be lost", got, err)
			}
			if !drop && (string(got) != "last words\n" || err != nil) {
				t.Fatalf("got %q, %v; what was under way should arrive", got, err)
			}
		})
	}
}

func TestControl(t *testing.T) {
	r := start(t, Options{Name: "svc", Upstream: upstream(t, "one")})
	k := Client{URL: r.ControlURL()}
	ctx := t.Context()
	two := upstream(t, "two")
	if s, err := k.Switch(ctx, two); err != nil || s.Upstream != two || s.SwitchedAt == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err := k.Pause(ctx, Refuse); err != nil || !s.Paused || s.Mode != Refuse {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err := k.Resume(ctx); err != nil || s.Paused {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err := k.SetLink(ctx, Link{DelayMS: 2.5, BytesPerSecond: 7}); err != nil || s.Link.DelayMS != 2.5 || s.Link.BytesPerSecond != 7 {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err := k.State(ctx); err != nil || s.Name != "svc" || s.Listen != r.Addr().String() {
		t.Fatalf("%+v, %v", s, err)
	}
}

// TestControlByHand is what a person with curl gets: a pause without a body,
// a link with one field only.
func TestControlByHand(t *testing.T) {
	r := start(t, Options{Upstream: upstream(t, "one"), Link: Link{DelayMS: 1, BytesPerSecond: 9}})
	for _, c := range []struct {
		method, path, body string
		code               int
		contains           string
	}{
		{"POST", "/pause", "", 200, `"mode":"hold"`},
		{"POST", "/resume", "", 200, `"paused":false`},
		{"PUT", "/link", `{"delay_ms":3}`, 200, `"bytes_per_s":9`},
		{"PUT", "/link", `{"delay_ms":-1}`, 400, "delay_ms"},
		{"PUT", "/link", `{"bytes_per_s":-1}`, 400, "bytes_per_s"},
		{"PUT", "/link", `{"latency":1}`, 400, "latency"},
		{"PUT", "/upstream", `{"address":"nowhere"}`, 400, "host:port"},
		{"PUT", "/upstream", `{"address":":80"}`, 400, "host:port"},
		{"PUT", "/upstream", `{`, 400, "request body"},
		{"POST", "/pause", `{"mode":"sulk"}`, 400, "hold or refuse"},
		{"POST", "/pause", `{"for":"1h"}`, 200, `"resumes_in_ns":3`},
		{"POST", "/keep", "", 200, `"mode":"hold"`},
		{"POST", "/resume", "", 200, `"paused":false`},
		{"POST", "/pause", `{"for":"soon"}`, 400, "such as 30s"},
		{"POST", "/pause", `{"for":"-1s"}`, 400, "above 0"},
		{"DELETE", "/upstream", "", 405, ""},
		{"GET", "/nothing", "", 404, ""},
	} {
		t.Run(c.method+c.path+c.body, func(t *testing.T) {
			q, err := http.NewRequestWithContext(t.Context(), c.method, r.ControlURL()+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			q.Close = true
			a, err := http.DefaultClient.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			got, err := io.ReadAll(a.Body)
			if err != nil || a.StatusCode != c.code || !strings.Contains(string(got), c.contains) {
				t.Fatalf("%s: %s, %v", a.Status, got, err)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no upstream":   {},
		"bad upstream":  {Upstream: "x"},
		"negative":      {Upstream: "127.0.0.1:1", Link: Link{DelayMS: -1}},
		"endless delay": {Upstream: "127.0.0.1:1", Link: Link{DelayMS: 1e9}},
		"bad listen":    {Upstream: "127.0.0.1:1", Listen: "nowhere"},
		"bad control":   {Upstream: "127.0.0.1:1", Control: "nowhere"},
		"bad announce":  {Upstream: "127.0.0.1:1", Announce: filepath.Join(os.DevNull, "x")},
	} {
		if r, err := Start(t.Context(), o); err == nil {
			r.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestServeFileAnnouncesAndEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "relays.json")
	all := []Options{
		{Name: "x", Upstream: upstream(t, "one"), Announce: filepath.Join(dir, "x.json")},
		{Name: "y", Upstream: upstream(t, "two"), Announce: filepath.Join(dir, "y.json")},
	}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- ServeFile(ctx, file, nil) }()
	var a Announcement
	await.Until(t, patience, "announced", func() bool {
		raw, err := os.ReadFile(filepath.Join(dir, "y.json"))
		return err == nil && json.Unmarshal(raw, &a) == nil
	})
	c, err := net.Dial("tcp", a.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := line(t, c); got != "two" || a.PID != os.Getpid() {
		t.Fatalf("%q, %+v", got, a)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{filepath.Join(dir, "absent"), filepath.Join(dir, "x.json")} {
		if err := ServeFile(t.Context(), bad, nil); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}
