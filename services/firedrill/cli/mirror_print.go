package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/heavy"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/pulse"
)

// mirrorPrinter writes what a mirror does: progress on a terminal, results for
// people or as JSON. Its methods may be used concurrently until it is stopped.
type mirrorPrinter struct {
	out, err io.Writer
	json     bool
	live     bool
	// bytes is what was read so far, looked what a check has looked at.
	bytes, looked atomic.Int64
	// pulse tells whether that goes on.
	pulse *pulse.Pulse
	// waits says that somebody else has the mirror, a place or the machine, which is waited
	// for.
	waits atomic.Bool
	// load is what is done here to other heavy work; nil if it is none.
	load *heavy.Work
	// kept counts, by reason, what a run did not remove.
	kept map[plan.Reason]int64

	end   chan struct{}
	ended sync.WaitGroup
	once  sync.Once

	mu    sync.Mutex // guards what follows, and err
	began time.Time
	drawn bool
	// dry is what is not printed yet of a dry run.
	dry dryLines
	// last is what was told last; told says that anything was.
	last engine.Progress
	told bool
	side plan.Side
	// shown is what was drawn last, from which the smoothed speed follows.
	shown     engine.Progress
	perSecond float64
}

func (a *app) mirrorPrinter(o *mirrorOptions) *mirrorPrinter {
	return &mirrorPrinter{
		out: a.Out, err: a.Err, json: o.json, live: !o.quiet && terminal(a.Err),
		kept: map[plan.Reason]int64{}, end: make(chan struct{}), began: time.Now(),
	}
}

// drawEvery is how often progress is drawn.
const drawEvery = 250 * time.Millisecond

// start begins to draw, if there is a terminal to draw on. The caller stops it.
func (p *mirrorPrinter) start() {
	if !p.live {
		return
	}
	p.ended.Go(func() {
		tick := time.NewTicker(drawEvery)
		defer tick.Stop()
		for {
			select {
			case <-p.end:
				return
			case <-tick.C:
				p.draw(time.Now())
			}
		}
	})
}

// guardEvery is how often a run that is made here is looked at, whether it stands still.
const guardEvery = time.Second

// guard warns when what is done with a mirror makes no progress for as long as the mirror
// allows, and says when it goes on, until what it returns is called.
func (a *app) guard(p *mirrorPrinter, s *subject) (done func()) {
	log, err := a.log()
	if err != nil {
		log = slog.New(slog.DiscardHandler) // Wrong levels are refused where logs are all there is.
	}
	p.pulse = pulse.New(s.Stalled.D(), time.Now())
	end := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(guardEvery)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			if p.waits.Load() {
				p.pulse.Wake(time.Now())
			}
			switch b := p.pulse.Look(time.Now(), 0); {
			case b.Stalled:
				p.say(fmt.Sprintf("firedrill: warning: %s stands still: %s: see whether both places answer; it goes on waiting, and an interrupt ends it", s.title(), b.Reason()))
				log.Info("a mirror stands still", "mirror", s.title(), "for", b.Still)
			case b.Moves:
				p.say(fmt.Sprintf("firedrill: %s goes on", s.title()))
				log.Info("a mirror that stood still goes on", "mirror", s.title())
			}
		}
	})
	return func() {
		close(end)
		ended.Wait()
	}
}

// behind is told for whom heavy work waits, with nil when that is over.
func (p *mirrorPrinter) behind(first *machine.Head) {
	p.pulse.Wake(time.Now())
	p.waits.Store(first != nil)
	p.say(behindWhom(first))
}

// behindWhom says for whom heavy work waits, and with nil that it goes on.
func behindWhom(first *machine.Head) string {
	if first == nil {
		return "firedrill: it goes on"
	}
	return "firedrill: waiting: " + heavy.Reason(*first)
}

// beside says why heavy work waits for no other.
func beside(why error) string {
	return fmt.Sprintf("firedrill: warning: it waits for no other heavy work of this machine, as who is at it cannot be told: %q", why.Error())
}

// work is what is done with a mirror here to the machine's other heavy work. The caller ends
// it.
func (p *mirrorPrinter) work(ctx context.Context, s *subject) *heavy.Work {
	return heavy.OfMirror(ctx, s.Mirror, heavy.Options{
		Locks: s.env.Locks, By: job.Called(s.Mirror), Waits: p.behind,
		Unlocked: func(why error) { p.say(beside(why)) },
	})
}

// stop ends the drawing, and takes the line away. It may be called again.
func (p *mirrorPrinter) stop() {
	p.once.Do(func() { close(p.end) })
	p.ended.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// say prints a line for people beside the progress.
func (p *mirrorPrinter) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.err, line)
}

// clear takes the line away. mu is held.
func (p *mirrorPrinter) clear() {
	if p.drawn {
		fmt.Fprint(p.err, "\r\x1b[K")
		p.drawn = false
	}
}

// progress is told how far a run is, read how many bytes of content were read.
func (p *mirrorPrinter) progress(g engine.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.told = g, true
	if p.pulse != nil {
		p.pulse.Feel(g)
	}
}

func (p *mirrorPrinter) read(n int) {
	p.bytes.Add(int64(n))
	if p.pulse != nil {
		p.pulse.Read(n)
	}
}

// seen counts what a check has looked at.
func (p *mirrorPrinter) seen(side plan.Side, e entry.Entry) {
	if p.pulse != nil {
		p.pulse.Looked(side, e)
	}
	if p.looked.Add(1)%64 == 1 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.side = side
	}
}

// count counts what a run did not remove.
func (p *mirrorPrinter) count(d engine.Done) {
	if d.Err == nil && d.Action.Op == plan.Keep {
		p.kept[d.Action.Reason]++
	}
}

func (p *mirrorPrinter) draw(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drawn = true
	fmt.Fprintf(p.err, "\r%s\x1b[K", p.line(now))
}

// line is what is shown at a time. mu is held.
func (p *mirrorPrinter) line(now time.Time) string {
	spent := now.Sub(p.began).Round(time.Second)
	switch n := p.looked.Load(); {
	case p.waits.Load():
		return fmt.Sprintf("waiting, %s", spent)
	case n > 0:
		return fmt.Sprintf("%d looked at, now in the %s, %s", n, p.side, spent)
	case !p.told:
		return fmt.Sprintf("looking, %s", spent)
	}
	g := p.last.WithRead(p.bytes.Load())
	g.At = now
	if span := g.At.Sub(p.shown.At).Seconds(); span > 0 && !p.shown.At.IsZero() {
		speed, smooth := float64(g.DoneBytes-p.shown.DoneBytes)/span, 4.0
		if p.perSecond == 0 {
			smooth = 1
		}
		p.perSecond += (speed - p.perSecond) / smooth
	}
	p.shown = g
	return progressLine(g, p.perSecond, spent)
}

func progressLine(g engine.Progress, perSecond float64, spent time.Duration) string {
	todo := fmt.Sprintf("%d of %d", g.DoneActions, g.Actions)
	if g.Bytes > 0 {
		todo += fmt.Sprintf(", %s of %s", size(g.DoneBytes), size(g.Bytes))
	}
	if g.DoneBytes < g.Bytes { // else it is attributes and names, which no bytes tell of
		todo += fmt.Sprintf(", %s/s", size(int64(perSecond)))
	}
	if !g.Planned {
		return fmt.Sprintf("still looking: %d seen, %s; done so far: %s", g.Seen, spent, todo)
	}
	share := 0.0
	switch {
	case g.Bytes > 0:
		share = float64(g.DoneBytes) / float64(g.Bytes)
	case g.Actions > 0:
		share = float64(g.DoneActions) / float64(g.Actions)
	}
	text := bar(share) + " " + todo
	if left, ok := g.ETA(); ok {
		text += ", " + left.Round(time.Second).String() + " left"
	}
	return text
}

const barWidth = 24

func bar(share float64) string {
	n := min(max(int(share*barWidth+0.5), 0), barWidth)
	return "[" + strings.Repeat("#", n) + strings.Repeat("-", barWidth-n) + "]"
}

// size is a number of bytes for people, in powers of 1024.
func size(n int64) string {
	f, unit := float64(n), 0
	for f >= 1024 && unit < 5 {
		f, unit = f/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[unit-1])
}
