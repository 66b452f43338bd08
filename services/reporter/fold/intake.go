package fold

import (
	"github.com/firedrill/firedrill/pkg/event"
)

// Intake takes in a drill's messages, in the order of the stream, and reports
// on those so far as often as it is asked: each is opened once and decoded once,
// however many reports are made of it. The zero Intake is empty. It is not safe
// for concurrent use; the reports it gives are the caller's, and share parts of
// payloads that nobody changes.
type Intake struct {
	messages []message
	// closed is the number of messages before the first trusted
	// report.published, once there is one.
	closed    int
	published bool
}

// message is one message with its payload.
type message struct {
	event.Opened
	// payload is nil for messages that are not trusted, and where fault says why
	// it cannot be decoded.
	payload any
	fault   error
}

// OpenIntake takes in messages that nobody has opened yet. Their signatures are
// verified on all cores.
func OpenIntake(raws [][]byte, keys event.Keyring) *Intake {
	n := &Intake{messages: make([]message, 0, len(raws))}
	for _, o := range event.OpenAll(raws, keys) {
		n.Add(o, nil)
	}
	return n
}

// Add takes in one message that was opened already, by the keyring that all the
// others were opened with. Its payload, if it is trusted, is what event.Decode
// gave, or nil to have it decoded here; it must not be changed any more.
func (n *Intake) Add(o event.Opened, payload any) {
	m := message{Opened: o}
	if o.Err == nil {
		if m.payload = payload; payload == nil {
			m.payload, m.fault = event.Decode(o.Event)
		}
		if !n.published && o.Event.Type == event.TypeReportPublished {
			n.published, n.closed = true, len(n.messages)
		}
	}
	n.messages = append(n.messages, m)
}

// Len is the number of messages taken in.
func (n *Intake) Len() int { return len(n.messages) }

// Folded returns the stored bytes of the messages that the report is folded
// from: those before the first trusted report.published.
func (n *Intake) Folded() [][]byte {
	raws := make([][]byte, len(n.folded()))
	for i, m := range n.folded() {
		raws[i] = m.Raw
	}
	return raws
}

func (n *Intake) folded() []message {
	if n.published {
		return n.messages[:n.closed]
	}
	return n.messages
}

// Report folds the messages taken in so far; see Fold.
func (n *Intake) Report() (Report, error) {
	h, err := gather(n.folded())
	if err != nil {
		return Report{}, err
	}
	return h.report(), nil
}
