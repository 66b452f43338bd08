// Package relay is a TCP endpoint for labs: it forwards to one upstream at a
// time, can be switched, paused, delayed and slowed while connections are open,
// and says on the monotonic clock when it was switched, which is the ground
// truth that measurements are compared with.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds a connection attempt to the upstream. On loopback an
// answer, good or bad, takes microseconds.
const dialTimeout = 2 * time.Second

// Options say what a relay does at first. The zero value of everything but
// Upstream is useful.
type Options struct {
	// Name is for logs and the announcement.
	Name string `json:"name,omitempty"`
	// Listen is the clients' host:port; "" means a free port of 127.0.0.1.
	Listen string `json:"listen,omitempty"`
	// Control is the host:port of the HTTP control; "" means a free port of
	// 127.0.0.1. Whoever reaches it may switch the relay: keep it on loopback.
	Control string `json:"control,omitempty"`
	// Upstream is the host:port forwarded to.
	Upstream string `json:"upstream"`
	Link     Link   `json:"link"`
	// Announce, if set, is a file that gets the relay's Announcement, whole or
	// not at all, once it listens.
	Announce string       `json:"announce,omitempty"`
	Log      *slog.Logger `json:"-"`
}

// Mode is what a relay does with connections.
type Mode string

// The modes of a relay.
const (
	// Forward is the normal mode.
	Forward Mode = "forward"
	// Hold accepts connections and lets nothing through, in either direction,
	// as a network that drops packets. Nothing is lost on resume.
	Hold Mode = "hold"
	// Refuse resets all connections, and new ones at once.
	Refuse Mode = "refuse"
)

// State is what GET /state answers.
type State struct {
	Name     string `json:"name,omitempty"`
	Listen   string `json:"listen"`
	Upstream string `json:"upstream"`
	Mode     Mode   `json:"mode"`
	// Paused is true in every mode but Forward.
	Paused bool `json:"paused"`
	// ResumesIn is after how long a paused relay forwards again by itself, in
	// nanoseconds; 0 when it does not.
	ResumesIn   time.Duration `json:"resumes_in_ns,omitempty"`
	Connections int           `json:"connections"`
	// SwitchedAt is CLOCK_MONOTONIC in nanoseconds, read when the present
	// upstream took effect: connections accepted later go there.
	SwitchedAt int64 `json:"switched_at_mono_ns"`
	Switches   int   `json:"switches"`
	Link       Link  `json:"link"`
}

// Relay is a running relay. Its methods are safe for concurrent use.
type Relay struct {
	name     string
	log      *slog.Logger
	listener net.Listener
	control  net.Listener
	server   *http.Server
	link     *link

	// ctx ends when the relay closes.
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	once   sync.Once

	mu         sync.Mutex
	upstream   string
	mode       Mode
	held       chan struct{} // closed when Hold ends; nil in other modes
	bound      *time.Timer   // ends the pause; nil when nothing does
	until      time.Time     // when bound fires
	switchedAt int64
	switches   int
	conns      map[*conn]struct{}
}

// Start listens and forwards until Close is called or ctx ends.
func Start(ctx context.Context, o Options) (*Relay, error) {
	if _, _, err := net.SplitHostPort(o.Upstream); err != nil {
		return nil, fmt.Errorf("relay %s: upstream %q: %w; give host:port", o.Name, o.Upstream, err)
	}
	if err := o.Link.check(); err != nil {
		return nil, fmt.Errorf("relay %s: %w", o.Name, err)
	}
	listener, err := listen(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("relay %s: listen for clients: %w", o.Name, err)
	}
	control, err := listen(o.Control)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay %s: listen for control: %w", o.Name, err), listener.Close())
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Relay{
		name: o.Name, log: o.Log.With("relay", o.Name), listener: listener, control: control,
		link: newLink(o.Link), upstream: o.Upstream, mode: Forward, switchedAt: monotonic(), conns: map[*conn]struct{}{},
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.server = &http.Server{Handler: r.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	r.done.Go(func() {
		if err := r.server.Serve(control); !errors.Is(err, http.ErrServerClosed) {
			r.log.Error("relay control ended", "error", err)
		}
	})
	r.done.Go(r.accept)
	stop := context.AfterFunc(r.ctx, r.shut)
	r.done.Go(func() { <-r.ctx.Done(); stop() })
	if o.Announce != "" {
		if err := r.announce(o.Announce); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// Close resets all connections, stops listening and waits for every goroutine.
func (r *Relay) Close() {
	r.cancel()
	r.shut()
	r.done.Wait()
}

func (r *Relay) shut() {
	r.once.Do(func() {
		_ = r.listener.Close()
		_ = r.server.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.unbind()
		r.resetAll()
	})
}

// Addr is where clients connect.
func (r *Relay) Addr() *net.TCPAddr { return r.listener.Addr().(*net.TCPAddr) }

// ControlURL is the base of the HTTP control, such as "http://127.0.0.1:40123".
func (r *Relay) ControlURL() string { return "http://" + r.control.Addr().String() }

// State reports the present state.
func (r *Relay) State() State {
	l := r.link.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	var in time.Duration
	if r.bound != nil {
		in = max(1, time.Until(r.until))
	}
	return State{
		ResumesIn: in,
		Name:      r.name, Listen: r.listener.Addr().String(), Upstream: r.upstream, Mode: r.mode, Paused: r.mode != Forward,
		Connections: len(r.conns), SwitchedAt: r.switchedAt, Switches: r.switches, Link: l,
	}
}

// Switch sends new connections to another upstream and resets the present
// ones. Switching to the same upstream resets connections too.
func (r *Relay) Switch(address string) (State, error) {
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return State{}, fmt.Errorf("address %q: give host:port, such as 127.0.0.1:5432", address)
	}
	r.mu.Lock()
	r.upstream = address
	r.switchedAt = monotonic()
	r.switches++
	r.resetAll()
	r.mu.Unlock()
	r.log.Info("relay switched", "upstream", address)
	return r.State(), nil
}

// Pause stops forwarding, in mode Hold or Refuse, until Resume.
func (r *Relay) Pause(mode Mode) (State, error) { return r.PauseFor(mode, 0) }

// PauseFor is Pause until Resume or for a time, whichever is sooner, also when nobody
// is left to resume it; 0 sets no bound. A later pause replaces mode and bound.
func (r *Relay) PauseFor(mode Mode, bound time.Duration) (State, error) {
	switch {
	case mode != Hold && mode != Refuse:
		return State{}, fmt.Errorf("mode %q: use hold or refuse", mode)
	case bound < 0:
		return State{}, fmt.Errorf("for %v: give a time above 0, such as 30s", bound)
	}
	r.mu.Lock()
	if r.held != nil && mode != Hold {
		close(r.held)
		r.held = nil
	}
	if mode == Hold && r.held == nil {
		r.held = make(chan struct{})
	}
	if mode == Refuse {
		r.resetAll()
	}
	r.mode = mode
	r.unbind()
	if bound > 0 && r.ctx.Err() == nil {
		var t *time.Timer
		t = time.AfterFunc(bound, func() { r.expire(&t) })
		r.bound, r.until = t, time.Now().Add(bound)
	}
	r.mu.Unlock()
	r.log.Info("relay paused", "mode", mode, "for", bound)
	return r.State(), nil
}

// expire ends the pause that the timer bounds, unless it was ended or replaced.
func (r *Relay) expire(t **time.Timer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bound == nil || r.bound != *t {
		return
	}
	r.forward()
	r.log.Info("relay resumed by itself")
}

// Keep has a pause last until Resume, whatever bound it was given; without effect if
// nothing is paused.
func (r *Relay) Keep() State {
	r.mu.Lock()
	r.unbind()
	r.mu.Unlock()
	r.log.Info("relay keeps its mode")
	return r.State()
}

// unbind is called with the lock held.
func (r *Relay) unbind() {
	if r.bound != nil {
		r.bound.Stop()
		r.bound = nil
	}
}

// forward is called with the lock held.
func (r *Relay) forward() {
	r.unbind()
	if r.held != nil {
		close(r.held)
		r.held = nil
	}
	r.mode = Forward
}

// Resume forwards again; without effect if nothing is paused.
func (r *Relay) Resume() State {
	r.mu.Lock()
	r.forward()
	r.mu.Unlock()
	r.log.Info("relay resumed")
	return r.State()
}

// SetLink changes delay and rate for bytes that arrive from now on; what is
// already under way keeps its schedule.
func (r *Relay) SetLink(l Link) (State, error) {
	if err := l.check(); err != nil {
		return State{}, err
	}
	r.link.set(l)
	r.log.Info("relay link set", "delay_ms", l.DelayMS, "bytes_per_s", l.BytesPerSecond)
	return r.State(), nil
}

func (r *Relay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			if r.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, say: the listener is still good.
			r.log.Warn("relay cannot accept; trying again", "error", err)
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		client := c.(*net.TCPConn)
		k, upstream := r.admit(client)
		if k == nil {
			reset(client)
			continue
		}
		r.done.Go(func() {
			defer r.forget(k)
			k.run(upstream)
		})
	}
}

// admit registers a connection, so that a later switch resets it, and fixes its
// upstream in the same step.
func (r *Relay) admit(client *net.TCPConn) (*conn, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mode == Refuse || r.ctx.Err() != nil {
		return nil, ""
	}
	k := &conn{relay: r, client: client}
	k.ctx, k.cancel = context.WithCancel(r.ctx)
	r.conns[k] = struct{}{}
	return k, r.upstream
}

func (r *Relay) forget(k *conn) {
	k.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, k)
}

// resetAll needs r.mu.
func (r *Relay) resetAll() {
	for k := range r.conns {
		k.reset()
	}
}

// gate returns the channel to wait on while the relay holds; nil when it does not.
func (r *Relay) gate() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

func listen(address string) (net.Listener, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	return net.Listen("tcp", address)
}

// reset closes with RST, so that the other end knows at once.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// monotonic reads CLOCK_MONOTONIC in nanoseconds, which processes of one boot share.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		// The kernel always has this clock; 0 marks the reading as absent.
		return 0
	}
	return ts.Nano()
}
