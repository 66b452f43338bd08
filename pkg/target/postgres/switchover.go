package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// caughtUpLimit bounds the wait for a rebuilt node to have all of the log.
const caughtUpLimit = 10 * time.Minute

// handover is a switchover under way: how far it came decides what letting the
// clients go on means when it fails.
type handover struct {
	lead, home *node
	// stopped is set before lead is told to stop, asked before home is told to
	// become the primary; asked is taken back when home has refused.
	stopped, asked bool
}

// switchover hands the primary's role from lead to home, which streams from it.
// Clients are held meanwhile, and are let go on however it ends. Nothing that lead
// acknowledged is left behind: home is promoted only when it has lead's last
// record, the shutdown checkpoint.
func (s *servers) switchover(ctx context.Context, lead, home *node, j *undo.Journal) error {
	if err := s.awaitCaughtUp(ctx, lead, home); err != nil {
		return err
	}
	// A checkpoint beforehand makes the one at shutdown, which clients wait for, short.
	if _, err := s.exec(ctx, lead, "CHECKPOINT"); err != nil {
		return err
	}
	h := handover{lead: lead, home: home}
	began := time.Now()
	if err := s.endpoint.pause(ctx); err != nil {
		j.Add("clients were not held: %v", s.scrub(err))
	}
	at, err := s.handOver(ctx, &h)
	if err != nil {
		return errors.Join(err, s.letGo(ctx, h, j))
	}
	j.Add("switched over from %s to %s in %v; %s had received %s, past the last checkpoint of %s",
		lead.Name, home.Name, time.Since(began).Round(time.Millisecond), home.Name, at, lead.Name)
	return nil
}

func (s *servers) handOver(ctx context.Context, h *handover) (lsn, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	h.stopped = true
	if err := s.stopNode(ctx, h.lead, "fast"); err != nil {
		return 0, err
	}
	at, err := s.awaitLastRecord(ctx, h.lead, h.home)
	if err != nil {
		return 0, err
	}
	_, err = s.promote(ctx, h.home, func() error { h.asked = true; return nil })
	if err != nil {
		h.asked = h.asked && !errors.Is(err, errNotPromoted)
		return 0, err
	}
	return at, s.endpoint.redirect(ctx, h.home)
}

// How long clients are held at most after a switchover has failed: until one of
// the two is the primary again, and for each order to the endpoint.
const (
	giveBackLimit = 30 * time.Second
	letGoLimit    = endpointTimeout
)

// letGo ends the hold on clients after a switchover that failed, also when that
// was because ctx ended: it has times of its own. Clients go on where the primary
// is: to lead, on the route they had, unless home may have become one. If that
// cannot be brought about they are let go on all the same: an error that a client
// sees is better than a wait that nobody ends.
func (s *servers) letGo(ctx context.Context, h handover, j *undo.Journal) error {
	ctx = context.WithoutCancel(ctx)
	back, cancel := context.WithTimeoutCause(ctx, giveBackLimit, fmt.Errorf("no primary within %v", giveBackLimit))
	to, err := s.settle(back, h)
	cancel()
	switch {
	case err != nil:
		j.Add("the switchover failed, and neither %s nor %s could be made to serve: %v", h.lead.Name, h.home.Name, s.scrub(err))
	case to == h.home:
		j.Add("the switchover failed after %s had become the primary; clients go on there", to.Name)
		lead, cancel := context.WithTimeout(ctx, letGoLimit)
		err = s.endpoint.redirect(lead, to)
		cancel()
	default:
		j.Add("the switchover was given up; clients go on with %s", to.Name)
	}
	return errors.Join(err, s.resume(ctx))
}

// resume lets clients go on, within a time of its own that ctx does not end.
func (s *servers) resume(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGoLimit)
	defer cancel()
	if err := s.endpoint.resume(ctx); err != nil {
		return fmt.Errorf("clients of %s may still be held; resume the endpoint by hand: %w", s.cfg.Service, err)
	}
	return nil
}

// redirect leads clients to n. If that fails, they are let go on wherever they
// are led by then: the endpoint may hold them meanwhile.
func (s *servers) redirect(ctx context.Context, n *node) error {
	err := s.endpoint.redirect(ctx, n)
	if err == nil {
		return nil
	}
	return errors.Join(err, s.resume(ctx))
}

// settle finds or makes the primary after a failed switchover. Once home was
// asked to become one, lead is not started again: there would be two.
func (s *servers) settle(ctx context.Context, h handover) (*node, error) {
	if h.asked {
		return h.home, target.Poll(ctx, giveBackLimit, 20*time.Millisecond, "node "+h.home.Name+" to be the primary", func(ctx context.Context) (bool, string, error) {
			r, err := s.ask(ctx, h.home, "SELECT pg_is_in_recovery()")
			if err != nil {
				return false, err.Error(), nil
			}
			return r[0] == "f", "it is still in recovery", nil
		})
	}
	if !h.stopped {
		return h.lead, nil
	}
	// The order to stop may still be at work when ctx ended in it.
	stopped := false
	err := target.Poll(ctx, giveBackLimit, 20*time.Millisecond, "node "+h.lead.Name+" to have stopped, or not", func(ctx context.Context) (bool, string, error) {
		procs, err := s.processes(ctx, h.lead)
		if stopped = err == nil && len(procs) == 0; err != nil || stopped {
			return stopped, "", err
		}
		_, err = s.ask(ctx, h.lead, "SELECT 1")
		return err == nil, fmt.Sprint(err), nil
	})
	if err != nil || !stopped {
		return h.lead, err
	}
	return h.lead, s.startNode(ctx, h.lead)
}

func (s *servers) awaitCaughtUp(ctx context.Context, lead, home *node) error {
	r, err := s.ask(ctx, lead, "SELECT pg_current_wal_lsn()")
	if err != nil {
		return err
	}
	return target.Poll(ctx, caughtUpLimit, 20*time.Millisecond, fmt.Sprintf("node %s to replay up to %s", home.Name, r[0]), func(ctx context.Context) (bool, string, error) {
		h, err := s.ask(ctx, home, "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn, pg_last_wal_replay_lsn()", r[0])
		if err != nil {
			return false, "", err
		}
		return h[0] == "t", "it has " + h[1], nil
	})
}

// awaitLastRecord waits until home has replayed past the shutdown checkpoint of lead.
func (s *servers) awaitLastRecord(ctx context.Context, lead, home *node) (lsn, error) {
	l, err := s.lookAt(ctx, lead, lookLimit)
	if err != nil {
		return 0, err
	}
	if l.Running() || l.State != "shut down" {
		return 0, fmt.Errorf("node %s is not shut down in order but %q: its last record is not known", lead.Name, l.State)
	}
	var at lsn
	err = target.Poll(ctx, 10*time.Second, 5*time.Millisecond, fmt.Sprintf("node %s to have the last record of %s at %s", home.Name, lead.Name, l.Checkpoint), func(ctx context.Context) (bool, string, error) {
		r, err := s.ask(ctx, home, "SELECT pg_last_wal_replay_lsn()")
		if err != nil {
			return false, "", err
		}
		at, err = parseLSN(r[0])
		return at > l.Checkpoint, "it has " + r[0], err
	})
	return at, err
}
