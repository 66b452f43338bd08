package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	readSize = 64 << 10
	// pipeBytes bounds what one direction holds under way; beyond it the sender
	// feels back-pressure, as on a real path.
	pipeBytes = 16 << 20
)

// conn is one client's connection with its upstream side.
type conn struct {
	relay  *Relay
	ctx    context.Context
	cancel context.CancelFunc
	client *net.TCPConn

	mu     sync.Mutex
	server *net.TCPConn
	dead   bool
}

// run forwards until both directions have ended or the connection is reset.
func (k *conn) run(upstream string) {
	defer k.reset()
	if !k.waitGate() {
		return
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	c, err := dialer.DialContext(k.ctx, "tcp", upstream)
	if err != nil {
		k.relay.log.Debug("relay upstream does not answer", "upstream", upstream, "error", err)
		return
	}
	server := c.(*net.TCPConn)
	if !k.attach(server) {
		reset(server)
		return
	}
	stop := context.AfterFunc(k.ctx, k.reset)
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { k.copy(up, k.client, server) })
	both.Go(func() { k.copy(down, server, k.client) })
	both.Wait()
	k.closeGently()
}

// attach remembers the upstream side; false if the connection was reset meanwhile.
func (k *conn) attach(server *net.TCPConn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return false
	}
	k.server = server
	return true
}

// reset ends both sides at once with RST. It may be called at any time, twice too.
func (k *conn) reset() {
	k.cancel()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return
	}
	k.dead = true
	reset(k.client)
	if k.server != nil {
		reset(k.server)
	}
}

// closeGently ends both sides after each has said that it is done.
func (k *conn) closeGently() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return
	}
	k.dead = true
	_ = k.client.Close()
	_ = k.server.Close()
}

// waitGate waits while the relay holds; false if the connection ended.
func (k *conn) waitGate() bool {
	for {
		held := k.relay.gate()
		if held == nil {
			return k.ctx.Err() == nil
		}
		select {
		case <-held:
		case <-k.ctx.Done():
			return false
		}
	}
}

// waitUntil waits for a moment; false if the connection ended.
func (k *conn) waitUntil(t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return k.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-k.ctx.Done():
		return false
	}
}

// copy carries one direction: it reads and books bytes on the wire, while the
// deliverer, in its own goroutine, writes them when they are due.
func (k *conn) copy(d direction, from, to *net.TCPConn) {
	p := newPipe()
	var deliverer sync.WaitGroup
	deliverer.Go(func() { k.deliver(p, to) })
	err := k.read(d, from, p)
	switch {
	case d == down && k.relay.link.get().DropInFlight:
		// The upstream is gone, and the wire with it.
		k.reset()
	case errors.Is(err, io.EOF):
		_, at := k.relay.link.book(d, 0, time.Now())
		p.put(k.ctx, parcel{due: at, end: true})
	default:
		k.reset()
	}
	deliverer.Wait()
}

func (k *conn) read(d direction, from *net.TCPConn, p *pipe) error {
	buf := make([]byte, readSize)
	for {
		n, err := from.Read(buf[:k.relay.link.chunk(len(buf))])
		if n > 0 {
			sent, due := k.relay.link.book(d, n, time.Now())
			if !k.waitUntil(sent) || !p.put(k.ctx, parcel{due: due, data: append([]byte(nil), buf[:n]...)}) {
				return k.ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
}

func (k *conn) deliver(p *pipe, to *net.TCPConn) {
	for {
		c, ok := p.take(k.ctx)
		if !ok || !k.waitUntil(c.due) || !k.waitGate() {
			return
		}
		if c.end {
			_ = to.CloseWrite()
			return
		}
		if _, err := to.Write(c.data); err != nil {
			k.reset()
			return
		}
	}
}

// parcel is a chunk under way, or the end of the stream.
type parcel struct {
	due  time.Time
	data []byte
	end  bool
}

// pipe is a queue bounded by bytes, with one putter and one taker.
type pipe struct {
	mu    sync.Mutex
	queue []parcel
	bytes int
	more  chan struct{} // a token when something was put
	less  chan struct{} // a token when something was taken
}

func newPipe() *pipe {
	return &pipe{more: make(chan struct{}, 1), less: make(chan struct{}, 1)}
}

// put waits for room; false if ctx ended first.
func (p *pipe) put(ctx context.Context, c parcel) bool {
	for {
		p.mu.Lock()
		if p.bytes == 0 || p.bytes+len(c.data) <= pipeBytes {
			p.queue = append(p.queue, c)
			p.bytes += len(c.data)
			p.mu.Unlock()
			signal(p.more)
			return true
		}
		p.mu.Unlock()
		select {
		case <-p.less:
		case <-ctx.Done():
			return false
		}
	}
}

// take waits for a parcel; false if ctx ended first.
func (p *pipe) take(ctx context.Context) (parcel, bool) {
	for {
		p.mu.Lock()
		if len(p.queue) > 0 {
			c := p.queue[0]
			p.queue[0] = parcel{}
			p.queue = p.queue[1:]
			p.bytes -= len(c.data)
			p.mu.Unlock()
			signal(p.less)
			return c, true
		}
		p.mu.Unlock()
		select {
		case <-p.more:
		case <-ctx.Done():
			return parcel{}, false
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
