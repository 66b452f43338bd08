package observer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// sample is one round trip to a process with another clock.
type sample struct {
	// sent and got are the observer's clock around the request.
	sent, got int64
	// other is what the other process read in between.
	other event.Reading
}

// errNoSample is returned when no answer came from the clock that was asked for.
var errNoSample = errors.New("no usable round trip")

// compareClocks relates the clock named other to the observer's by the quickest
// round trip: the reading was taken at its middle, give or take half of it.
func compareClocks(observer, other string, samples []sample) (event.ClockCompared, error) {
	best := -1
	for i, s := range samples {
		if s.other.Clock != other || s.got < s.sent {
			continue
		}
		if best < 0 || s.got-s.sent < samples[best].got-samples[best].sent {
			best = i
		}
	}
	if best < 0 {
		return event.ClockCompared{}, fmt.Errorf("compare clock %s: %w in %d", other, errNoSample, len(samples))
	}
	s := samples[best]
	half := (s.got - s.sent + 1) / 2 // rounded up: the interval must hold the truth
	mid := s.sent + (s.got-s.sent)/2
	return event.ClockCompared{
		Observer: observer, Other: other,
		Offset: event.Nanos(s.other.Mono - mid), Error: event.Nanos(half),
	}, nil
}

const (
	roundTrips  = 8
	compareTime = 3 * time.Second
	// compareAgain bounds what the clocks' drift adds to a comparison: at 100 ppm
	// a minute is 6 ms.
	compareAgain = 20 * time.Second
)

// comparing keeps which other clocks were compared.
type comparing struct {
	done chan event.ClockCompared
	// at is when each clock was asked for last.
	at map[string]time.Time
	// wanted is the event whose clock is to be compared.
	wanted *event.Event
}

// wantComparison notes that an event that is measured by came from another clock.
func (s *session) wantComparison(e event.Event) {
	switch e.Type {
	case event.TypePhaseStarted, event.TypeFaultIntended, event.TypeFaultInjected, event.TypeActionDone, event.TypeUndoDone:
	default:
		return
	}
	if e.Clock == s.clock {
		return
	}
	s.compare.wanted = &e
}

// startComparison asks the process that wrote the wanted event for its clock.
func (s *session) startComparison(ctx context.Context) {
	e := s.compare.wanted
	if e == nil {
		return
	}
	s.compare.wanted = nil
	// A fault is compared in any case: its time is what all figures hang on.
	if e.Type != event.TypeFaultInjected && time.Since(s.compare.at[e.Clock]) < compareAgain {
		return
	}
	s.compare.at[e.Clock] = time.Now()
	s.calls.Go(func() {
		got, err := s.askClock(ctx, e.Instance(), e.Clock)
		if err != nil {
			s.log.WarnContext(ctx, "another clock cannot be compared with this one", "instance", e.Instance(), "error", err)
			return
		}
		select {
		case s.compare.done <- got:
		case <-ctx.Done():
		}
	})
}

// askClock makes some round trips to the instance's clock endpoint.
func (s *session) askClock(ctx context.Context, instance, clock string) (event.ClockCompared, error) {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	var samples []sample
	var last error
	for range roundTrips {
		sent := s.c.Clock.Now().Mono
		raw, err := s.c.Bus.Call(ctx, "clock."+instance, nil)
		got := s.c.Clock.Now().Mono
		if err != nil {
			last = err
			break
		}
		var r event.Reading
		if err := json.Unmarshal(raw, &r); err != nil {
			last = fmt.Errorf("answer of clock.%s: %w", instance, err)
			break
		}
		samples = append(samples, sample{sent: sent, got: got, other: r})
	}
	c, err := compareClocks(s.clock, clock, samples)
	if err != nil {
		return c, errors.Join(err, last)
	}
	return c, nil
}
