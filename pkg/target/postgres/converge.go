package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// streamLimit bounds the wait for a standby to stream: the longest common
// wal_retrieve_retry_interval several times over.
const streamLimit = 60 * time.Second

// ErrNoPrimary is returned when no node could be the primary.
var ErrNoPrimary = errors.New("no node is a primary, nor would start as one")

// converge brings every node to its home role, from whatever state it is in. It
// keeps nothing in memory that a fresh process would not find again, so it may
// be cut off anywhere and started again:
//
//   - which nodes are primaries follows from their files and timelines;
//   - a rebuild that was cut off leaves a mark outside the data directory;
//   - at every moment at least one node is, or would start as, a primary that
//     has all that clients were told is stored.
//
// Only nodes in the record's Before are looked at and touched. Each operation of
// a drill has those that did their part when it, or an earlier one of the drill,
// was planned: a node that was down for reasons of its own, and may be kept so on
// purpose, is neither started nor rebuilt. If that is the home primary, the
// cluster was not at home before, and whoever leads stays the primary.
func (s *servers) converge(ctx context.Context, r record, j *undo.Journal) error {
	home, err := s.node(r.Home)
	if err != nil {
		return err
	}
	nodes := s.duty(r)
	for _, n := range s.nodes {
		if !r.has(n) {
			j.Add("node %s left alone: was down before the drill, or did not follow", n.Name)
		}
	}
	if err := s.claimToMend(ctx, nodes); err != nil {
		return err
	}
	views, err := s.lookAmong(ctx, nodes, lookLimit)
	if err != nil {
		return err
	}
	if err := fence(views, r.SystemID); err != nil {
		return err
	}
	lead, err := s.startLead(ctx, views, j)
	if err != nil {
		return err
	}
	if !r.has(home) {
		home = lead
	}
	if lead != home {
		if err := s.leadHome(ctx, lead, home, r, j); err != nil {
			return err
		}
	}
	if err := s.moveEndpoint(ctx, home, j); err != nil {
		return err
	}
	for _, n := range nodes {
		if n == home {
			continue
		}
		if err := s.follow(ctx, n, home, r, j); err != nil {
			return err
		}
	}
	return s.finish(ctx, home, nodes, j)
}

// leadHome makes home the primary again, while lead is the acting one.
func (s *servers) leadHome(ctx context.Context, lead, home *node, r record, j *undo.Journal) error {
	// The service comes first: whatever else has to be put right takes longer.
	if err := s.moveEndpoint(ctx, lead, j); err != nil {
		return err
	}
	if err := s.follow(ctx, home, lead, r, j); err != nil {
		return err
	}
	return s.switchover(ctx, lead, home, j)
}

// startLead decides which node leads, and makes sure that it runs. Before that,
// nothing that is to lose may wake up by itself any more, and a frozen node is
// let go on as the primary only when no other one runs.
func (s *servers) startLead(ctx context.Context, views []view, j *undo.Journal) (*node, error) {
	order := s.leads(ctx, views)
	if len(order) == 0 {
		return nil, fmt.Errorf("%w (%s); somebody must decide: promote one by hand", ErrNoPrimary, describe(views))
	}
	losers := make([]*node, 0, len(order))
	for _, v := range order[1:] {
		losers = append(losers, v.node)
	}
	if _, err := s.disarmOthers(ctx, order[0].node, losers); err != nil {
		return nil, err
	}
	if order[0].Frozen {
		for i, v := range order[1:] {
			if err := s.halt(ctx, v, j); err != nil {
				return nil, err
			}
			order[1+i].Procs, order[1+i].Answers = nil, false
		}
	}
	var errs []error
	for _, v := range order {
		err := s.ensureRunning(ctx, v, j)
		if err == nil {
			if len(order) > 1 {
				j.Add("node %s leads: %s", v.node.Name, describe(views))
			}
			return v.node, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func describe(views []view) string {
	var parts []string
	for _, v := range views {
		parts = append(parts, fmt.Sprintf("%s is %s on timeline %d", v.node.Name, v.role(), v.Timeline))
	}
	return strings.Join(parts, ", ")
}

// leads are the nodes that could be the primary, the one to take first.
//
// One that holds all of another's log supersedes it. Where the logs have parted,
// the one that clients reach wins: what they were told is stored lies there. If
// nobody can say where that is, the highest timeline wins.
func (s *servers) leads(ctx context.Context, views []view) []view {
	var out []view
	for _, v := range views {
		if v.primary() {
			out = append(out, v)
		}
	}
	if len(out) < 2 {
		return out
	}
	top := 0
	for i, v := range out {
		if v.Timeline > out[top].Timeline {
			top = i
		}
	}
	out[0], out[top] = out[top], out[0]
	parted := false
	for _, v := range out[1:] {
		parted = parted || !supersedes(out[0], v)
	}
	if !parted {
		return out
	}
	serving := s.serving(ctx, views)
	for i, v := range out {
		if v.node == serving {
			out[0], out[i] = out[i], out[0]
		}
	}
	return out
}

// supersedes reports whether x has all of y's log: y was shut down in order
// before x left y's timeline.
func supersedes(x, y view) bool {
	at, ok := x.forkFrom(y.Timeline)
	return ok && !y.Running() && y.State == "shut down" && y.Checkpoint < at
}

// ensureRunning thaws or starts a node that is to lead.
func (s *servers) ensureRunning(ctx context.Context, v view, j *undo.Journal) error {
	switch {
	case v.Frozen:
		return s.resumeProcesses(ctx, v.node, j)
	case !v.Running():
		j.Add("started node %s", v.node.Name)
		return s.startNode(ctx, v.node)
	case !v.Answers:
		return fmt.Errorf("node %s runs and does not answer: %w", v.node.Name, v.SQLError)
	}
	return nil
}

// moveEndpoint leads clients to n and lets them through.
func (s *servers) moveEndpoint(ctx context.Context, n *node, j *undo.Journal) error {
	up, err := s.endpoint.upstream(ctx)
	if err != nil {
		return err
	}
	if up == "" {
		r, err := s.ask(ctx, n, "SELECT pg_postmaster_start_time()")
		if err != nil {
			return err
		}
		if got, err := s.servedBy(ctx); err == nil && got == r[0] {
			return nil
		}
	}
	if up != n.Address().String() {
		j.Add("led clients to node %s", n.Name)
		return s.redirect(ctx, n)
	}
	return s.endpoint.resume(ctx)
}

// follow makes n a standby that streams from lead, by the gentlest means.
func (s *servers) follow(ctx context.Context, n, lead *node, r record, j *undo.Journal) error {
	v, err := s.lookAt(ctx, n, lookLimit)
	if err != nil {
		return err
	}
	l, err := s.lookAt(ctx, lead, lookLimit)
	if err != nil {
		return err
	}
	if v.Rebuilding {
		// What an unfinished rebuild left can only be written anew.
		return s.rebuild(ctx, v, lead, MethodBaseBackup, j)
	}
	if v.primary() {
		if !supersedes(l, v) {
			return s.rebuild(ctx, v, lead, s.method(r), j)
		}
	}
	if v.Frozen {
		if err := s.resumeProcesses(ctx, n, j); err != nil {
			return err
		}
	}
	if !v.Running() {
		if err := s.becomeStandby(ctx, n, lead, j); err != nil {
			return err
		}
		j.Add("started node %s as a standby", n.Name)
		if err := s.startNode(ctx, n); err != nil {
			return err
		}
	}
	err = s.awaitStreaming(ctx, n, l.Timeline, streamLimit)
	if err == nil || ctx.Err() != nil {
		return err
	}
	j.Add("node %s did not stream from %s: %v", n.Name, lead.Name, err)
	if v, err = s.lookAt(ctx, n, lookLimit); err != nil {
		return err
	}
	return s.rebuild(ctx, v, lead, s.method(r), j)
}

// awaitStreaming waits until n receives the timeline tl.
func (s *servers) awaitStreaming(ctx context.Context, n *node, tl int, limit time.Duration) error {
	const sql = "SELECT coalesce((SELECT status || ' on timeline ' || received_tli FROM pg_stat_wal_receiver), 'not connected'), pg_is_in_recovery()"
	want := fmt.Sprintf("streaming on timeline %d", tl)
	return target.Poll(ctx, limit, 30*time.Millisecond, fmt.Sprintf("node %s to stream timeline %d", n.Name, tl), func(ctx context.Context) (bool, string, error) {
		r, err := s.ask(ctx, n, sql)
		if err != nil {
			return false, err.Error(), nil
		}
		return r[0] == want && r[1] == "t", "it is " + r[0], nil
	})
}

// exec runs one statement on a node as the admin, without a limit of its own.
func (s *servers) exec(ctx context.Context, n *node, sql string, args ...string) ([][]string, error) {
	c, err := s.open(ctx, n)
	if err != nil {
		return nil, err
	}
	defer c.close()
	rows, err := c.rows(ctx, sql, args...)
	if err != nil {
		return nil, s.scrub(fmt.Errorf("node %s: %w", n.Name, err))
	}
	return rows, nil
}

// finish checks the result and clears away what the rebuilds kept aside.
func (s *servers) finish(ctx context.Context, home *node, nodes []*node, j *undo.Journal) error {
	err := target.Poll(ctx, streamLimit, 30*time.Millisecond, "the home topology", func(ctx context.Context) (bool, string, error) {
		views, err := s.lookAmong(ctx, nodes, lookLimit)
		if err != nil {
			return false, "", err
		}
		why := s.away(ctx, views, home)
		return len(why) == 0, strings.Join(why, "; "), nil
	})
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := s.restoreSettings(ctx, n, j); err != nil {
			return err
		}
	}
	return nil
}

// away lists how the nodes differ from the home topology.
func (s *servers) away(ctx context.Context, views []view, home *node) []string {
	var why []string
	h := viewOf(views, home)
	if !h.Answers || h.InRecovery {
		why = append(why, fmt.Sprintf("node %s is %s, not the primary", home.Name, h.role()))
	}
	for _, v := range views {
		switch {
		case v.node == home:
		case !v.Answers || !v.InRecovery:
			why = append(why, fmt.Sprintf("node %s is %s, not a standby", v.node.Name, v.role()))
		case !v.Streaming:
			why = append(why, fmt.Sprintf("standby %s does not stream", v.node.Name))
		case v.Timeline != h.Timeline:
			why = append(why, fmt.Sprintf("standby %s is on timeline %d, %s on %d", v.node.Name, v.Timeline, home.Name, h.Timeline))
		}
	}
	if n := s.serving(ctx, views); n != home {
		where := "an unknown server"
		if n != nil {
			where = "node " + n.Name
		}
		why = append(why, "clients are led to "+where)
	}
	return why
}
