package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
)

// EncodeItem writes an item of work for two places.
var EncodeItem = encodeItem

// DecodeItem reads what EncodeItem wrote.
var DecodeItem = decodeItem

// DecodeDones reads what became of an item.
var DecodeDones = decodeDones

// Hold has a mirror as a planner does while fn runs.
func Hold(ctx context.Context, c Config, mirror, run string, fn func()) error {
	r := &runner{Config: c, slots: make(chan struct{}, 1)}
	return r.alone(ctx, mirror, run, func(context.Context, *held) error {
		fn()
		return nil
	})
}

// SendItem has an item carried out by others, and looks for it that often.
func SendItem(ctx context.Context, b *bus.Bus, at bus.MirrorItem, w *engine.Worker, it engine.Item, look time.Duration) ([]engine.Done, error) {
	p := newPool(b, at.Mirror, at.Run, w, &tally{})
	p.look = look
	return p.Do(ctx, it)
}

// OnRequest makes the run of one request.
func OnRequest(ctx context.Context, c Config, m bus.Message) error {
	c.Runs = 1
	return newRunner(c).onRequest(ctx, m)
}

// OnRequestAt is OnRequest where turn says what a job needs.
func OnRequestAt(ctx context.Context, c Config, turn func(drill.Mirror, job.Use) job.Turn, m bus.Message) error {
	c.Runs = 1
	r := newRunner(c)
	r.turn = turn
	return r.onRequest(ctx, m)
}

// Untried counts the runs of a request that only waited.
func Untried(ctx context.Context, c Config, m bus.Message) (int, error) {
	return newRunner(c).untried(ctx, m)
}

// EncodeDones writes what became of an item.
var EncodeDones = encodeDones

// Summary is what is published of a run's result.
var Summary = summary

// Pending reports whether the last request of a scheduler waits.
func Pending(ctx context.Context, c Config, who, mirror string) (bool, error) {
	return (&runner{Config: c}).pending(ctx, who, mirror)
}

// Tend sees once to all that the mirrors of an inventory do by themselves.
func Tend(ctx context.Context, c Config) error {
	return Tender(c)(ctx)
}

// Tender gives what sees to that again and again, as one process does.
func Tender(c Config) func(context.Context) error {
	r, told := newRunner(c.complete()), map[bus.MirrorSchedule]bool{}
	return func(ctx context.Context) error {
		var errs []error
		for _, s := range r.scheduled() {
			errs = append(errs, r.tend(ctx, s, told))
		}
		return errors.Join(errs...)
	}
}

// FirstDue is when what a mirror does by itself was due first after it ran.
func FirstDue(m drill.Mirror, t bus.MirrorTimes, ran time.Time) time.Time {
	return scheduled{mirror: m, when: m.Cadence(drill.MirrorSync)}.firstDue(t, ran)
}

// OnTick takes a tick of the clock.
func OnTick(ctx context.Context, c Config, m bus.Message) error {
	return newRunner(c.complete()).onTick(ctx, m)
}

// LookDue says how often a process looks for what is due.
func LookDue(every time.Duration) func(*Config) {
	return func(c *Config) { c.dueLook = every }
}
