// Package pulse tells whether what a mirror does makes progress.
package pulse

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Pulse is that of one run, or of one comparison. Its methods may be used concurrently.
type Pulse struct {
	stalled time.Duration
	// bytes were read here, looked is how many entries a comparison has looked at.
	bytes, looked atomic.Int64

	mu    sync.Mutex // guards what follows
	last  engine.Progress
	read  int64
	moved time.Time
	still bool
}

// New begins at a time. No progress for as long as stalled is an alarm; 0 means
// drill.DefaultStalled.
func New(stalled time.Duration, began time.Time) *Pulse {
	return &Pulse{stalled: cmp.Or(stalled, drill.DefaultStalled), last: engine.Progress{Began: began}, moved: began}
}

// Wake takes a time for one of progress: what was waited for before it is no standing still.
func (p *Pulse) Wake(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved = now
}

// Feel is told of progress by the engine. It is quick.
func (p *Pulse) Feel(g engine.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.Seen != p.last.Seen || g.DoneActions != p.last.DoneActions || g.DoneBytes != p.last.DoneBytes {
		p.moved = g.At
	}
	p.last = g
}

// Looks begins a comparison that is to look at a number of entries, and to read so many
// bytes; 0 is not known.
func (p *Pulse) Looks(at, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last.Planned, p.last.Actions, p.last.Bytes = at > 0, at, bytes
}

// Looked is told of an entry that a comparison has looked at.
func (p *Pulse) Looked(plan.Side, entry.Entry) { p.looked.Add(1) }

// Read is told that this process has read n bytes.
func (p *Pulse) Read(n int) { p.bytes.Add(int64(n)) }

// Beat is what a pulse says at a time.
type Beat struct {
	engine.Progress
	// Still is for how long nothing has moved, once that is an alarm; else 0.
	Still time.Duration
	// Stalled says that this became so now, Moves that it is over now.
	Stalled, Moves bool
}

// Look looks at a time. more is how many bytes other processes have read.
func (p *Pulse) Look(now time.Time, more int64) Beat {
	read, looked := p.bytes.Load()+more, p.looked.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if read != p.read || looked > p.last.Seen {
		p.moved, p.read = now, read
	}
	if looked > 0 {
		p.last.Seen, p.last.DoneActions, p.last.DoneBytes = looked, looked, read
		p.last.Actions = max(p.last.Actions, looked)
	}
	b := Beat{Progress: p.last.WithRead(read)}
	b.At = now
	still := now.Sub(p.moved)
	was := p.still
	if p.still = still >= p.stalled; p.still {
		b.Still = still
	}
	b.Stalled, b.Moves = p.still && !was, was && !p.still
	return b
}

// Reason says for how long nothing has moved.
func (b Beat) Reason() string {
	return fmt.Sprintf("no progress for %s", event.Duration(b.Still.Round(time.Second)))
}
