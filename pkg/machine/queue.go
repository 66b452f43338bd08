package machine

import (
	"context"
	"encoding/json"
	"os"
	"time"
)

// Queued is a job in a queue of this machine; nil is one of no directory, which is never kept
// waiting. It is for one goroutine at a time.
type Queued struct {
	locks  Locks
	name   string
	posted *Posted
	note   queueNote
}

// queueNote is what others of the machine read.
type queueNote struct {
	// Number is that of those who came before, and one more.
	Number int64 `json:"number"`
	// By is who it is, for people; Since is when it came to be the first one.
	By    string    `json:"by"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since,omitzero"`
	First bool      `json:"first,omitempty"`
}

// mostQueued is a number that nobody has who means well.
const mostQueued = 1 << 53

// Queue puts a job into the queue of a name, behind all that are there. by names it to
// people. It is there until Leave, or until its process ends. The error says why there can be
// no queue.
func (l Locks) Queue(ctx context.Context, name, by string) (*Queued, error) {
	if l == "" {
		return nil, nil
	}
	q := &Queued{locks: l, name: name, note: queueNote{By: by, PID: os.Getpid()}}
	var err error
	q.posted, err = l.Post(ctx, name, func(others [][]byte) ([]byte, error) {
		for _, other := range others {
			if o, ok := readQueued(other); ok {
				q.note.Number = max(q.note.Number, o.Number)
			}
		}
		q.note.Number++
		return json.Marshal(q.note)
	})
	if err != nil {
		return nil, err
	}
	return q, nil
}

// Head is the first one of a queue: who it is, by what it said of itself, without what
// terminals take for commands, and since when it is the first.
type Head struct {
	By    string
	PID   int
	Since time.Time
}

// Head gives the first one of the queue, if that is another one; nil once this one is.
// Another error than that of ctx says why that cannot be told.
func (q *Queued) Head(ctx context.Context) (first *Head, err error) {
	if q == nil || q.note.First {
		return nil, nil
	}
	err = q.locks.atBoard(ctx, q.name, func(_ string, notes [][]byte) error {
		now := time.Now().UTC()
		least := q.note
		for _, note := range notes {
			if o, ok := readQueued(note); ok && o.Number < least.Number {
				least = o
			}
		}
		if !least.First {
			least.Since = now
		}
		if least.Number < q.note.Number {
			first = &Head{least.By, least.PID, least.Since}
			return nil
		}
		q.note = least
		q.note.First = true
		note, err := json.Marshal(q.note)
		if err != nil {
			return err
		}
		return q.posted.write(note) // for people
	})
	return first, err
}

// Leave makes room for those behind.
func (q *Queued) Leave() error {
	if q == nil {
		return nil
	}
	return q.posted.Remove()
}

// readQueued reads a note, which anybody may have written.
func readQueued(note []byte) (n queueNote, ok bool) {
	if json.Unmarshal(note, &n) != nil || n.Number <= 0 || n.Number > mostQueued {
		return n, false
	}
	n.By = Printable(n.By)
	return n, true
}
