package reporter

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// laneSlack is how long before phase.finished a lane's last attempt may lie for
// the lane to count as complete: two slots of the slowest lane and a deadline.
const laneSlack = 700 * time.Millisecond

// settled reads a finished drill's history, following it until what trails the
// end is in: the lanes' last batches, and the evidence of failures. It waits no
// longer than until the drill has been silent for Quiet.
func (s *service) settled(ctx context.Context, drill string) (*history, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h, trailing := s.newHistory(drill), newTrailing()
	next := make(chan bus.Stored)
	ended := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		ended <- s.Bus.Follow(ctx, drill, func(e bus.Stored) error {
			select {
			case next <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	quiet := time.NewTimer(s.Quiet)
	defer quiet.Stop()
	for {
		select {
		case e := <-next:
			h.add(e)
			trailing.take(e)
			quiet.Reset(s.Quiet)
			if h.published != nil || h.finished && trailing.complete() {
				return h, nil
			}
		case <-quiet.C:
			if !h.finished {
				// Silence before the end says nothing about the drill: the stream may
				// be without a leader. The message is tried again.
				return h, fmt.Errorf("%s: its end was announced but cannot be read yet", drill)
			}
			if !trailing.complete() {
				s.Log.Warn("the report is published without the drill's last batches", "drill", drill, "quiet", s.Quiet.String())
			}
			return h, nil
		case err := <-ended:
			return h, err
		}
	}
}

// trailing knows what a finished drill still lacks.
type trailing struct {
	// last is the end of each lane, by phase and then by probe, lane and epoch.
	last map[string]map[laneKey]event.Reading
	ends map[string]event.Reading
	// wanted and kept count, by phase, reasons for evidence and collections of it.
	wanted, kept map[string]int
	epoch        int64
}

type laneKey struct {
	probe, lane string
	epoch       int64
}

func newTrailing() *trailing {
	return &trailing{last: map[string]map[laneKey]event.Reading{}, ends: map[string]event.Reading{}, wanted: map[string]int{}, kept: map[string]int{}}
}

func (t *trailing) take(s bus.Stored) {
	if s.Trust != nil {
		return
	}
	switch p := s.Payload.(type) {
	case *event.ObserverClaimed:
		t.epoch = max(t.epoch, p.Epoch)
	case *event.ProbeBatch:
		if t.last[p.Phase] == nil {
			t.last[p.Phase] = map[laneKey]event.Reading{}
		}
		t.last[p.Phase][laneKey{p.Probe, p.Lane, p.Epoch}] = endOf(*p)
	case *event.PhaseFinished:
		t.ends[p.Phase] = s.Event.At()
	case *event.RecoveryMissing:
		t.wanted[phaseOf(p.Step)]++
	case *event.FaultFailed:
		t.wanted[phaseOf(p.Step)]++
	case *event.ActionFailed:
		t.wanted[phaseOf(p.Step)]++
	case *event.SteadyViolated:
		t.wanted[phaseOf(p.Step)]++
	case *event.UndoFailed:
		t.wanted[phaseOf(p.Step)]++
	case *event.ChecksCompleted:
		if !p.Passed {
			t.wanted[phaseOf(p.Step)]++
		}
	case *event.EvidenceCollected:
		t.kept[p.Phase]++
	}
}

// endOf is the schedule time of a batch's last attempt.
func endOf(b event.ProbeBatch) event.Reading {
	var us int64
	for _, d := range b.ScheduledUS {
		us += d
	}
	end := b.Origin
	end.Mono += us * int64(time.Microsecond)
	end.Wall = end.Wall.Add(time.Duration(us) * time.Microsecond)
	return end
}

func phaseOf(step string) string {
	for i := range step {
		if step[i] == '/' {
			return step[:i]
		}
	}
	return step
}

// complete reports whether every lane of the last claim goes on until its
// phase's end, and every failure has its evidence.
func (t *trailing) complete() bool {
	for phase, end := range t.ends {
		for key, last := range t.last[phase] {
			if key.epoch == t.epoch && gap(last, end) > laneSlack {
				return false
			}
		}
	}
	// A settlement has failures to keep evidence of, and no phases that end.
	for phase, failures := range t.wanted {
		if failures > 0 && t.kept[phase] == 0 {
			return false
		}
	}
	return true
}

// gap is how long after a an event was written, on one clock if they share it.
func gap(a, b event.Reading) time.Duration {
	if a.Clock == b.Clock {
		return time.Duration(b.Mono - a.Mono)
	}
	return b.Wall.Sub(a.Wall)
}
