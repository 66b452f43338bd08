package reporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// keepAlive is the distance of comments that keep proxies from closing a silent
// stream.
const keepAlive = 15 * time.Second

// errClientGone ends a stream whose reader went away.
var errClientGone = errors.New("the client is gone")

// getEvents streams a drill's trusted events: the history and then each new one,
// until the report is published. The id of each is its chain index, so that a
// client that reconnects with Last-Event-ID goes on where it was.
func (s *service) getEvents(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var after int64
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		n, err := strconv.ParseInt(last, 10, 32)
		if err != nil || n < 0 {
			s.refuse(w, http.StatusBadRequest, "the last event's id is none", drill.Problem{Field: "Last-Event-ID", Fix: "send the id of an event of this stream, or leave it out"})
			return
		}
		after = n
	}
	known, err := s.refreshed(r.Context(), id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	known.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	out := &eventStream{w: w, c: http.NewResponseController(w)}
	if err := s.stream(r.Context(), id, int32(after), out); err != nil && r.Context().Err() == nil && !errors.Is(err, errClientGone) {
		s.Log.Warn("stream of events ended", "drill", id, "error", err)
	}
}

// stream follows the drill; all writing is done by this goroutine.
func (s *service) stream(ctx context.Context, id string, after int32, out *eventStream) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next, ended := make(chan bus.Stored), make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- s.Bus.Follow(ctx, id, func(e bus.Stored) error {
			select {
			case next <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	err := out.copy(ctx, next, ended, after)
	cancel()
	<-ended
	return err
}

type eventStream struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func (o *eventStream) copy(ctx context.Context, next <-chan bus.Stored, ended <-chan error, after int32) error {
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for {
		select {
		case e := <-next:
			if e.Trust != nil || e.Event.ChainIndex <= after {
				continue
			}
			if err := o.send("id: %d\nevent: %s\ndata: %s\n\n", e.Event.ChainIndex, e.Event.Type, e.Raw); err != nil {
				return err
			}
			if e.Event.Type == event.TypeReportPublished {
				return nil
			}
		case <-alive.C:
			if err := o.send(": still here\n\n"); err != nil {
				return err
			}
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o *eventStream) send(format string, args ...any) error {
	// The server's limits are for requests; a stream sets its own.
	if err := o.c.SetWriteDeadline(time.Now().Add(keepAlive)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return errClientGone
	}
	if _, err := fmt.Fprintf(o.w, format, args...); err != nil {
		return errClientGone
	}
	if err := o.c.Flush(); err != nil {
		return errClientGone
	}
	return nil
}
