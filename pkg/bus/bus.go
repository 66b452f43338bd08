// Package bus is JetStream as firedrill uses it: the streams, appending to a
// drill's history by compare-and-set, following it, durable work, dead letters,
// commands, and the request/reply API.
//
// Everything that blocks until its context ends returns the context's error
// then. A Bus is safe for concurrent use.
package bus

import (
	"errors"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// Errors that callers tell apart.
var (
	// ErrConflict means that the drill's history is not where the writer thought:
	// somebody else wrote, and nothing of this append was stored. Read on, decide
	// again.
	ErrConflict = errors.New("the drill's history moved on")
	// ErrOutcomeUnknown means that the server did not answer in time, and that
	// the message may or may not be stored.
	ErrOutcomeUnknown = errors.New("nobody knows whether it was stored")
	// ErrNoAnswer means that JetStream did not answer within 10 s, as when a
	// cluster elects a leader for longer than that. Nothing was stored; trying
	// again later is safe.
	ErrNoAnswer = errors.New("JetStream does not answer")
	// ErrStoreLocked means that another process has the store directory open.
	ErrStoreLocked = errors.New("the store directory is in use by another process")
	// ErrNoDrill means that no event of the drill is stored.
	ErrNoDrill = errors.New("no such drill")
	// ErrNoSigner means that this identity may read but not write events.
	ErrNoSigner = errors.New("this identity has no signing key")
	// ErrDenied means that the server refuses a subject that this service needs.
	ErrDenied = errors.New("permission denied by the NATS server")
	// ErrTLS means that client and server found no TLS connection that both accept:
	// one does not trust the other's certificate, or the server speaks no TLS.
	ErrTLS = errors.New("no TLS connection that both sides accept")
	// ErrUntrusted means that a stored message is not a verified event.
	ErrUntrusted = errors.New("not a verified event")
	// ErrUnavailable means that nobody answers on the endpoint.
	ErrUnavailable = errors.New("no service answers")
	// Stop, returned by a follower's function, ends the following without error.
	//lint:ignore ST1012 it is no failure, and reads as bus.Stop where it is returned
	Stop = errors.New("stop following")
)

// Clock is what events are stamped with.
type Clock interface{ Now() event.Reading }

// Identity is who writes. Service is one of event.Services, or another name
// (such as "cli") for a reader. Signer may be nil for readers.
type Identity struct {
	Service  string
	Instance string
	Signer   event.Signer
	Clock    Clock
}

// Tail is a place in a drill's history: after the event with chain index Index
// and hash Hash, with Seq the last sequence of anything on the drill's
// subjects. The zero Tail is before the first event.
type Tail struct {
	Seq   uint64
	Index int32
	Hash  string
}

// Stored is one message of a drill's history.
type Stored struct {
	// Seq is the message's sequence in the stream DRILLS.
	Seq uint64
	// Raw is the message as stored. It must not be changed.
	Raw []byte
	// Event and Payload are what Raw holds. If Trust is not nil they are only
	// what could be read, and Payload is nil.
	Event   event.Event
	Payload any
	// Trust is nil for an event that a service of the keyring signed, that lies
	// on its own subject and that continues the chain of trusted events before it
	// (the last only where the reader came by from the drill's start: in Follow
	// and History). Otherwise it wraps ErrUntrusted and says why; folds skip it.
	Trust error
	// Stored is when the server stored it, on the server's wall clock; zero for
	// an event returned by Append or AppendAt.
	Stored time.Time

	tail Tail
}

// Tail returns the place after this message, where AppendAt can continue.
func (s Stored) Tail() Tail { return s.tail }

// ConflictError says at which place an append did not fit. It is an ErrConflict.
type ConflictError struct {
	Drill string
	At    Tail
	// Last is the drill's last sequence as the server told it; 0 if it did not.
	Last uint64
}

// Error describes the conflict.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("append to drill %s after sequence %d (chain index %d): %v (last sequence %d)", e.Drill, e.At.Seq, e.At.Index, ErrConflict, e.Last)
}

// Unwrap returns ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }
