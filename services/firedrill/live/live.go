// Package live shows a running drill on a terminal, from nothing but its events.
package live

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// cells is how many buckets a sparkline has, and bucket how long each lasts.
const (
	cells  = 48
	bucket = 250 * time.Millisecond
)

// View renders one drill. It is used by one goroutine.
type View struct {
	out   io.Writer
	fancy bool
	state drill.State
	lanes map[string]*lane
	slow  *slowness
	drawn int
	began time.Time
}

// lane is the recent past of one probe lane.
type lane struct {
	ok, bad [cells]int
	head    int64 // bucket number of the newest cell
	down    bool
	since   time.Time
}

// New returns a view; fancy redraws in place and needs a terminal.
func New(out io.Writer, fancy bool) *View {
	return &View{out: out, fancy: fancy, lanes: map[string]*lane{}, slow: newSlowness()}
}

// State is the drill as far as it was seen.
func (v *View) State() drill.State { return v.state }

// Event folds one event and, where it means something to a person, prints it. An
// untrusted one is passed over; the report names it.
func (v *View) Event(s bus.Stored) {
	if s.Trust != nil {
		return
	}
	v.state = drill.Apply(v.state, s.Event)
	v.slow.fold(s)
	if v.began.IsZero() {
		v.began = s.Event.Time
	}
	switch p := s.Payload.(type) {
	case *event.ProbeBatch:
		v.batch(p)
	case *event.OutageStarted:
		l := v.lane(p.Probe, p.Lane)
		l.down, l.since = true, p.At.Wall
	case *event.OutageEnded:
		v.lane(p.Probe, p.Lane).down = false
	}
	for _, line := range v.slow.news(v.state, s.Event.Time) {
		v.print(s.Event.Time, line)
	}
	if line := Describe(v.state, s); line != "" {
		v.print(s.Event.Time, line)
	}
	v.Draw(s.Event.Time)
}

func (v *View) lane(probe, name string) *lane {
	key := probe + "/" + name
	if v.lanes[key] == nil {
		v.lanes[key] = &lane{}
	}
	return v.lanes[key]
}

func (v *View) batch(p *event.ProbeBatch) {
	l := v.lane(p.Probe, p.Lane)
	at := p.Origin.Wall
	for i := range p.ScheduledUS {
		at = at.Add(time.Duration(p.ScheduledUS[i]) * time.Microsecond)
		l.advance(at.UnixNano() / int64(bucket))
		cell := at.UnixNano() / int64(bucket) % cells
		if i < len(p.Outcomes) && p.Outcomes[i] == 'k' {
			l.ok[cell]++
		} else {
			l.bad[cell]++
		}
	}
}

func (l *lane) advance(to int64) {
	if l.head == 0 {
		l.head = to
	}
	for l.head < to {
		l.head++
		l.ok[l.head%cells], l.bad[l.head%cells] = 0, 0
	}
}

// spark draws the lane's recent past, oldest first: a full block is all ok, a
// cross all bad, a dot no attempt.
func (l *lane) spark() string {
	var b strings.Builder
	for i := l.head - cells + 1; i <= l.head; i++ {
		c := (i%cells + cells) % cells
		switch ok, bad := l.ok[c], l.bad[c]; {
		case ok+bad == 0:
			b.WriteRune('·')
		case bad == 0:
			b.WriteRune('▇')
		case ok == 0:
			b.WriteRune('✗')
		default:
			b.WriteRune('▃')
		}
	}
	return b.String()
}

func (v *View) print(at time.Time, line string) {
	v.erase()
	fmt.Fprintf(v.out, "%7.1fs  %s\n", at.Sub(v.began).Seconds(), line)
}

func (v *View) erase() {
	if v.fancy && v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\x1b[J", v.drawn)
	}
	v.drawn = 0
}

// Draw redraws the status lines for the time now; without a terminal it does
// nothing.
func (v *View) Draw(now time.Time) {
	if !v.fancy || v.state.ID == "" || v.state.Published {
		v.erase()
		return
	}
	v.erase()
	step := "finishing"
	if i := v.state.Position(); i < len(v.state.Program) {
		step = v.state.Program[i].ID
	}
	if v.state.Abort != nil {
		step = "cleaning up after an abort"
	}
	fmt.Fprintf(v.out, "── %s  %s  %s\n", v.state.ID, step, now.Sub(v.began).Truncate(time.Second))
	v.drawn = 1
	names := make([]string, 0, len(v.lanes))
	for n := range v.lanes {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		l := v.lanes[n]
		note := "up"
		switch {
		case l.down:
			note = fmt.Sprintf("DOWN for %.1fs", now.Sub(l.since).Seconds())
		case !v.slow.since[n].IsZero():
			note = "up, slow"
		}
		fmt.Fprintf(v.out, "   %-18s %s %s\n", n, l.spark(), note)
		v.drawn++
	}
}
