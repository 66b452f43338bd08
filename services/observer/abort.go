package observer

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// abortCommand is what the injector reads from drill.cmd.<drill>.abort.
type abortCommand struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
	Cause  string `json:"cause"`
}

// stopConditions asks for an abort when a probe is down for longer than the
// phase lets pass. Any of its lanes counts: this is a guard rail.
func (s *session) stopConditions(ctx context.Context) {
	w, now := s.watch, s.c.Clock.Now().Mono
	if len(w.phase.Stop) == 0 || s.state.Abort != nil {
		return
	}
	down := w.live.Down()
	for _, l := range w.lanes {
		if l.taken < l.first {
			delete(down, l.key) // an earlier claim saw it down; it may be up again
		}
	}
	for _, c := range w.phase.Stop {
		for k, since := range down {
			if k.Probe != c.Probe || now-since <= int64(c.DownFor) || now < w.stopped[c.Probe] {
				continue
			}
			w.stopped[c.Probe] = now + int64(stopAgain)
			reason := fmt.Sprintf("probe %s (%s) has been down for %v, longer than the stop condition's %v",
				k.Probe, k.Name, time.Duration(now-since).Round(time.Millisecond), c.DownFor)
			s.sendAbort(ctx, reason)
		}
	}
}

// stopAgain is when an abort that has had no effect is asked for again, and how long
// asking may take.
const stopAgain = 5 * time.Second

// sendAbort asks beside the session: a slow server holds up no judgement.
func (s *session) sendAbort(ctx context.Context, reason string) {
	by := event.Observer + "/" + s.claim.me
	s.calls.Go(func() {
		data, err := json.Marshal(abortCommand{By: by, Reason: reason, Cause: "stop-condition"})
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, stopAgain)
			defer cancel()
			err = s.c.Bus.Command(ctx, s.id, "abort", data)
		}
		if err != nil {
			s.log.ErrorContext(ctx, "the abort that a stop condition asks for was not sent; it is tried again", "reason", reason, "error", err)
			return
		}
		s.log.WarnContext(ctx, "a stop condition asks for an abort", "reason", reason)
	})
}
