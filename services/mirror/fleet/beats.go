package fleet

import (
	"context"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/heavy"
	"github.com/firedrill/firedrill/services/mirror/pulse"
)

// beats publish how far a run is, and raise the alarm when it stands still. One that waits
// until other heavy work has left the machine does not.
type beats struct {
	runner *runner
	event  Event
	*pulse.Pulse
	// read is what was read so far, by all processes, also of what is not done yet.
	read *tally

	mu sync.Mutex // guards what follows
	// reason says for whom the run waits, since when it does, and when that is told next; ""
	// if it does not.
	reason      string
	since, next time.Time
}

// pulseEvery is how often progress is published.
const pulseEvery = 2 * time.Second

func newBeats(r *runner, m drill.Mirror, e Event) *beats {
	return &beats{runner: r, event: e, Pulse: pulse.New(m.Stalled.D(), r.Env.Now()), read: &tally{}}
}

// waits is told for whom the run waits, with nil when that is over. It has told that by the
// time it returns: what happens from then on is a try (see runner.untried).
func (p *beats) waits(ctx context.Context, first *machine.Head) {
	now := p.runner.Env.Now()
	p.Wake(now)
	p.wait(now, first)
	if first == nil {
		e := p.event
		e.Progress = describe(p.Look(now, p.read.bytes()))
		p.tell(ctx, KindProgress, e)
	}
}

func (p *beats) wait(now time.Time, first *machine.Head) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if first == nil {
		p.runner.Log.Info("a run goes on that waited for other heavy work", "mirror", p.event.Mirror, "run", p.event.Run, "for", now.Sub(p.since))
		p.reason = ""
		return
	}
	if p.reason == "" {
		p.since = now.UTC()
	}
	p.reason, p.next = heavy.Reason(*first), now
	p.runner.Log.Info("a run waits for other heavy work", "mirror", p.event.Mirror, "run", p.event.Run, "reason", p.reason)
}

// waiting gives what all that is told has in common, with whether the run waits; due says
// that this is to be told by itself.
func (p *beats) waiting(now time.Time) (e Event, due bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e = p.event; p.reason == "" {
		return e, false
	}
	since := p.since
	e.Since, e.Reason = &since, p.reason
	if due = !now.Before(p.next); due {
		p.next = now.Add(waitsEvery)
	}
	return e, due
}

// publish publishes until ctx ends.
func (p *beats) publish(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := p.runner.Env.Now()
		e, due := p.waiting(now)
		if e.Since != nil {
			p.Wake(now)
		}
		b := p.Look(now, p.read.bytes())
		kind := KindProgress
		e.Progress = describe(b)
		if due {
			p.tell(ctx, KindWaiting, e)
		}
		switch {
		case b.Stalled: // once; then it goes on telling: who is silent is taken for dead
			kind, e.Reason = KindStalled, b.Reason()
			p.runner.Log.Error("a mirror stands still", "mirror", e.Mirror, "run", e.Run, "for", b.Still)
		case b.Moves:
			p.runner.Log.Warn("a mirror that stood still goes on", "mirror", e.Mirror, "run", e.Run)
		}
		p.tell(ctx, kind, e)
	}
}

func (p *beats) tell(ctx context.Context, kind string, e Event) {
	if err := p.runner.tell(ctx, kind, e); err != nil && ctx.Err() == nil {
		p.runner.Log.Warn("publish progress", "mirror", e.Mirror, "run", e.Run, "error", err)
	}
}

func describe(b pulse.Beat) *Progress {
	p := &Progress{
		Planned: b.Planned, Seen: b.Seen, Actions: b.Actions, DoneActions: b.DoneActions, Bytes: b.Bytes, DoneBytes: b.DoneBytes, Failed: b.Failed,
		StillSeconds: b.Still.Seconds(),
	}
	if left, ok := b.ETA(); ok {
		s := left.Seconds()
		p.LeftSeconds = &s
	}
	return p
}
