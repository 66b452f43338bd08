package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/injector"
)

// caveatWait bounds the wait for a running firedrill that was not what was asked for.
const caveatWait = 5 * time.Second

// inlineRefused ends the injector's word on a drill that brings its own configuration.
const inlineRefused = "no configuration of their own"

// onlyListed explains it.
const onlyListed = "it only drills what its inventory lists: name its entry, or stop it to run a drill that brings everything itself"

// caveats are what keeps a valid drill from being run right now. A drill that this
// process could check itself was not shown to the firedrill that runs here, which is
// the one that `firedrill run` asks.
func (a *app) caveats(ctx context.Context, raw []byte) []string {
	ctx, cancel := context.WithTimeout(ctx, caveatWait)
	defer cancel()
	s, err := a.join(ctx)
	switch {
	case errors.Is(err, errNoServer):
		return a.storedCaveats(ctx)
	case errors.Is(err, errOneRun):
		return []string{"not now: " + err.Error()}
	}
	if err != nil {
		return []string{fmt.Sprintf("whether the firedrill that runs here would take it is not known: %v", err)}
	}
	defer s.close()
	var out []string
	switch no, err := a.refused(ctx, s, raw); {
	case err != nil:
		out = append(out, fmt.Sprintf("whether the firedrill that runs here would take it is not known: %v", err))
	case no != nil && strings.Contains(no.Error(), inlineRefused):
		out = append(out, "the firedrill that runs here would reject it: "+onlyListed)
	case no != nil:
		out = append(out, "the firedrill that runs here would reject it, because by its inventory "+no.Error())
	}
	if h, err := s.bus.HaltState(ctx); err == nil && h.Halted {
		out = append(out, a.haltedCaveat(h))
	}
	return out
}

func (a *app) haltedCaveat(h bus.Halt) string {
	return fmt.Sprintf("it would be rejected now: ALL DRILLS ARE HALTED %s: release with %s", h, a.command("halt --release"))
}

// storedCaveats are the caveats where no firedrill runs, by what the last one has left.
func (a *app) storedCaveats(ctx context.Context) []string {
	if !a.hasStore() {
		return nil
	}
	var out []string
	err := a.withStore(ctx, func(b *bus.Bus) error {
		h, err := b.HaltState(ctx)
		if err != nil {
			return err
		}
		if h.Halted {
			out = append(out, a.haltedCaveat(h))
		}
		left, err := unfinished(ctx, b)
		if len(left) > 0 {
			out = append(out, "not now: "+a.wasLeft(left[0].Drill))
		}
		return err
	})
	if err != nil {
		out = append(out, fmt.Sprintf("whether it could be run now is not known: %v", err))
	}
	return out
}

// refused is what a running firedrill finds wrong with a drill; nil where it is what
// has checked the drill in the first place.
func (a *app) refused(ctx context.Context, s *session, raw []byte) (*drill.Problems, error) {
	if a.asks(raw) {
		return nil, nil
	}
	data, err := s.bus.Call(ctx, injector.VerbValidate, raw)
	if err != nil {
		return nil, err
	}
	var c injector.Checked
	if err := json.Unmarshal(data, &c); err != nil || c.Valid {
		return nil, err
	}
	return &c.Problems, nil
}
