package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
)

// conductorKey is the key of an operation's fence in its context. The epoch
// belongs to the request, and is wanted by every signal and script below it.
type conductorKey struct{}

// withConductor returns a context on behalf of the operation's conductor.
func (s *servers) withConductor(ctx context.Context, op target.Operation, r record) context.Context {
	return context.WithValue(ctx, conductorKey{}, control.Fence{
		Dir: s.cfg.Failback.EvidenceDir, Name: op.Whose(), Epoch: op.Fence, Note: strings.Join(r.Before, ","),
	})
}

// conductor is the fence of the conductor for whom ctx is; one without an epoch
// compares nothing.
func conductor(ctx context.Context) control.Fence {
	f, _ := ctx.Value(conductorKey{}).(control.Fence)
	return f
}

// claim records on the nodes' machines that the conductor of ctx acts there, and
// which nodes are the drill's duty. It refuses if a newer conductor has acted on
// any of them: a conductor that was suspended and replaced, and goes on, must
// not break what its successor has mended.
//
// Signals are sent, and scripts that change a server or its files begun, under a
// check of their own. What remains are windows between this claim and an
// effect that is not a script: the statement that promotes, and the endpoint's
// switch; and the time that a script already begun takes.
func (s *servers) claim(ctx context.Context, nodes []*node) error {
	f := conductor(ctx)
	if f.Name == "" && f.Epoch == 0 {
		return nil // a caller without a drill
	}
	var machines []*node
	for _, n := range nodes {
		if !slices.ContainsFunc(machines, func(m *node) bool { return sameMachine(m, n) }) {
			machines = append(machines, n)
		}
	}
	errs := make([]error, len(machines))
	var wg sync.WaitGroup
	for i, n := range machines {
		wg.Go(func() {
			f := f
			f.Owner = n.OSUser
			err := n.host.Fence(ctx, f)
			if _, fenced := errors.AsType[*control.FencedError](err); err != nil && !fenced {
				err = fmt.Errorf("%w; make its machine reachable (nodes[].control), and let firedrill write to %s there", err, f.Dir)
			}
			if err != nil {
				errs[i] = fmt.Errorf("node %s: %w", n.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// claimToMend is claim for what puts things back: a machine that cannot record the
// claim, because its disk is full or can only be read, is mended all the same, as
// long as no newer conductor is known there.
func (s *servers) claimToMend(ctx context.Context, nodes []*node) error {
	err := s.claim(ctx, nodes)
	if err == nil || errors.As(err, new(*control.FencedError)) {
		return err
	}
	for _, n := range nodes {
		if known := n.host.FenceCheck(ctx, conductor(ctx)); known != nil {
			return errors.Join(err, fmt.Errorf("node %s: %w", n.Name, known))
		}
	}
	return nil
}

// sameMachine reports whether two nodes are reached by the same way.
func sameMachine(a, b *node) bool { return slices.Equal(a.Control.Argv, b.Control.Argv) }

// signal sends a signal unless a newer conductor has acted.
func (s *servers) signal(ctx context.Context, n *node, sig syscall.Signal, procs []control.Process) error {
	if err := n.host.SignalFenced(ctx, conductor(ctx), sig, pidsOf(procs)...); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

// members are the nodes that do their part now: the acting primary, and the
// standbys that stream. While no primary acts a standby cannot be blamed for not
// streaming.
func members(views []view) []string {
	out := []string{}
	p := acting(views)
	for _, v := range views {
		switch {
		case !v.Answers || v.Rebuilding:
		case !v.InRecovery && p != nil && p.node == v.node, v.InRecovery && (v.Streaming || p == nil):
			out = append(out, v.node.Name)
		}
	}
	return out
}

// before is the record's list of the nodes that the drill has a duty for: those
// that do their part now, and those that did when an earlier operation of the
// drill was planned, which its machines remember. So the primary that the first
// operation killed is in the second one's list, in whatever process that is
// planned, and a standby that was down before the drill is in none.
func (s *servers) before(ctx context.Context, drill string, views []view) ([]string, error) {
	names := members(views)
	if drill == "" {
		return names, nil
	}
	notes, errs := make([]string, len(s.nodes)), make([]error, len(s.nodes))
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() {
			notes[i], errs[i] = n.host.FenceNote(ctx, control.Fence{Dir: s.cfg.Failback.EvidenceDir, Name: drill})
		})
	}
	wg.Wait()
	for _, note := range notes {
		names = append(names, strings.Split(note, ",")...)
	}
	out := []string{}
	for _, n := range s.nodes {
		if slices.Contains(names, n.Name) {
			out = append(out, n.Name)
		}
	}
	return out, errors.Join(errs...)
}

// has reports whether the record's undo has a duty for a node. A record without
// a list is an older version's, and means all of them.
func (r record) has(n *node) bool { return r.Before == nil || slices.Contains(r.Before, n.Name) }

// duty are the nodes that an undo by the record may touch, in the order of the
// configuration.
func (s *servers) duty(r record) []*node {
	var out []*node
	for _, n := range s.nodes {
		if r.has(n) {
			out = append(out, n)
		}
	}
	return out
}

// mendable refuses a fault that undoing would not put right: an undo leaves a
// node alone that was not a member before.
func (o *operation) mendable(v view) error {
	if o.rec.has(o.node) {
		return nil
	}
	return fmt.Errorf("node %s is %s and no healthy member of the cluster (neither the acting primary nor streaming from it), so undoing %s would leave it as it is; mend it first, or name another node in params.node",
		o.node.Name, v.role(), o.Name)
}

// disarmOthers cancels, on the machine of each other node, the timers that would
// let that node take commits as a primary again: a promotion makes n the
// primary, and then their firing would make two. Relays that would resume by
// themselves are kept paused for the same reason: no relay says whose it is. Where
// there is no other node nothing could make a second primary, and all may fire. It
// returns what was disarmed.
//
// Which timers those are was decided when each was set, see record.Opens:
//   - freeze: waking a primary lets the clients that still hold a connection to
//     it go on. Harmful.
//   - refuse: the primary runs, and the lines are all that keeps clients out.
//     Harmful.
//   - cut-replication: with synchronous replication the missing standby is what
//     keeps the primary from acknowledging; one that streams again lets every
//     waiting commit through. Harmful.
//   - fill-disk: a full disk does not keep a primary from answering, and one that
//     it has stopped is not started by free space; the rebuild needs that space.
//     Harmless, so it stays armed.
//   - any of these on a standby: it wakes as a standby. Harmless.
func (s *servers) disarmOthers(ctx context.Context, n *node, nodes []*node) ([]string, error) {
	others := slices.DeleteFunc(slices.Clone(nodes), func(m *node) bool { return m == n })
	if len(others) == 0 {
		return nil, nil
	}
	found, errs := make([][]string, len(others)+len(s.cfg.Relays)), make([]error, len(others)+len(s.cfg.Relays))
	var wg sync.WaitGroup
	for i, base := range s.cfg.Relays {
		wg.Go(func() {
			kept, err := (&relay{base: base}).keep(ctx)
			if err != nil {
				errs[len(others)+i] = fmt.Errorf("a cut of the replication there could end by itself and make a second primary beside %s; make the relay's control reachable (relays[%d]), or end the relay and take it out of the configuration, then try again: %w",
					n.Name, i, err)
			}
			if kept {
				found[len(others)+i] = []string{"relay " + base}
			}
		})
	}
	for i, m := range others {
		wg.Go(func() {
			var err error
			found[i], err = m.host.DisarmAll(ctx, s.cfg.Failback.EvidenceDir, "firedrill-????????????????"+opensSuffix(m.Name))
			if err != nil {
				errs[i] = fmt.Errorf("the dead-man timers of node %s cannot be disarmed, and could make it a second primary beside %s later; make its machine reachable (nodes[].control), or shut it down for good and take the node out of the configuration, then try again: %w",
					m.Name, n.Name, err)
			}
		})
	}
	wg.Wait()
	return slices.Concat(found...), errors.Join(errs...)
}

// opensSuffix ends the token of a timer that lets a node take commits again.
func opensSuffix(node string) string { return "." + node + ".opens" }
