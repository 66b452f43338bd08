package bus

import "github.com/nats-io/nats-server/v2/server"

// Server is the server itself, for tests that look behind the bus.
func (e *Embedded) Server() *server.Server { return e.server }

// InMsgs counts the messages that the server received from clients.
func (e *Embedded) InMsgs() int64 {
	v, err := e.server.Varz(nil)
	if err != nil {
		return -1
	}
	return v.InMsgs
}

// Sent and Received count the messages of this connection.
func (b *Bus) Sent() uint64     { return b.nc.Stats().OutMsgs }
func (b *Bus) Received() uint64 { return b.nc.Stats().InMsgs }
