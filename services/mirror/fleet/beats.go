package fleet

import (
	"context"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/pulse"
)

// beats publish how far a run is, and raise the alarm when it stands still.
type beats struct {
	runner *runner
	event  Event
	*pulse.Pulse
	// read is what was read so far, by all processes, also of what is not done yet.
	read *tally
}

// pulseEvery is how often progress is published.
const pulseEvery = 2 * time.Second

func newBeats(r *runner, m drill.Mirror, e Event) *beats {
	return &beats{runner: r, event: e, Pulse: pulse.New(m.Stalled.D(), r.Env.Now()), read: &tally{}}
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
		b := p.Look(p.runner.Env.Now(), p.read.bytes())
		kind, e := KindProgress, p.event
		e.Progress = describe(b)
		switch {
		case b.Stalled: // once; then it goes on telling: who is silent is taken for dead
			kind, e.Reason = KindStalled, b.Reason()
			p.runner.Log.Error("a mirror stands still", "mirror", e.Mirror, "run", e.Run, "for", b.Still)
		case b.Moves:
			p.runner.Log.Warn("a mirror that stood still goes on", "mirror", e.Mirror, "run", e.Run)
		}
		if err := p.runner.tell(ctx, kind, e); err != nil && ctx.Err() == nil {
			p.runner.Log.Warn("publish progress", "error", err)
		}
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
