package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

func (s *servers) planPromote(_ context.Context, o *operation, views []view, p *target.Plan) error {
	if o.params.Node == "" {
		best := bestStandby(views)
		if best == nil {
			return errors.New("no node is a standby that answers; name one in params.node")
		}
		o.params.Node = best.node.Name
	}
	if err := s.choose(o, views); err != nil {
		return err
	}
	if !o.rec.has(o.node) {
		// This operation makes the node another's follower no more, so undoing
		// it is its duty.
		o.rec.Before = append(o.rec.Before, o.node.Name)
	}
	v := viewOf(views, o.node)
	p.Parts = []event.Part{part(o.node, v.role())}
	p.Does = []string{
		"cancel, on the other nodes' machines, the dead-man timers that could make a second primary",
		fmt.Sprintf("promote node %s (%s, timeline %d, received up to %s)", o.node.Name, v.role(), v.Timeline, v.At),
	}
	return nil
}

// bestStandby is the standby that received most.
func bestStandby(views []view) *view {
	var best *view
	for i := range views {
		v := &views[i]
		if v.Answers && v.InRecovery && (best == nil || v.At > best.At) {
			best = v
		}
	}
	return best
}

func (s *servers) promoteAction(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	if err := s.claim(ctx, s.duty(o.rec)); err != nil {
		return e, fmt.Errorf("not promoted: %w", err)
	}
	var disarmed []string
	e.Began = s.clock.Now()
	already, err := s.promote(ctx, o.node, func() (err error) {
		disarmed, err = s.disarmOthers(ctx, o.node, s.nodes)
		if err != nil {
			return fmt.Errorf("not promoted: %w", err)
		}
		return nil
	})
	e.Ended = s.clock.Now()
	e.Details = map[string]string{"node": o.node.Name, "already": fmt.Sprint(already)}
	if len(disarmed) > 0 {
		e.Details["disarmed"] = strings.Join(disarmed, ", ")
	}
	if err != nil {
		return e, err
	}
	e.Proof = event.Proof{Proven: true, How: "the node says that it is not in recovery", Observations: []string{o.node.Name}}
	return e, nil
}

// errNotPromoted is returned when a node has refused to become a primary: it has
// not begun to, and will not.
var errNotPromoted = errors.New("the node refuses to be promoted")

// promote makes a standby a primary, and reports whether it was one already.
// Right before the node is told, once it is known to answer, ready is called; its
// error stops the promotion. promote looks every few milliseconds: pg_promote
// itself looks ten times a second, which would add to the recovery time.
func (s *servers) promote(ctx context.Context, n *node, ready func() error) (bool, error) {
	c, err := s.open(ctx, n)
	if err != nil {
		return false, err
	}
	defer c.close()
	r, err := c.row(ctx, "SELECT pg_is_in_recovery()")
	if err != nil {
		return false, fmt.Errorf("node %s: %w", n.Name, err)
	}
	if err := ready(); err != nil {
		return false, err
	}
	if r[0] == "f" {
		return true, nil
	}
	r, err = c.row(ctx, "SELECT pg_promote(false)")
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.SeverityUnlocalized == "ERROR" || err == nil && r[0] != "t" {
		return false, fmt.Errorf("node %s: %w: %w; see its log", n.Name, errNotPromoted, cmp.Or(err, errors.New("pg_promote says no")))
	}
	if err != nil {
		return false, fmt.Errorf("node %s: promote: %w", n.Name, err)
	}
	return false, target.Poll(ctx, time.Minute, 3*time.Millisecond, "node "+n.Name+" to be the primary", func(ctx context.Context) (bool, string, error) {
		r, err := c.row(ctx, "SELECT pg_is_in_recovery()")
		if err != nil {
			return false, "", fmt.Errorf("node %s: %w", n.Name, err)
		}
		return r[0] == "f", "it is still in recovery", nil
	})
}

func (s *servers) planRedirect(_ context.Context, o *operation, views []view, p *target.Plan) error {
	p.Parts = []event.Part{s.servicePart()}
	if o.params.Node == "" {
		// Who is to be the primary then is not known before the promotion.
		p.Does = []string{fmt.Sprintf("lead clients of %s to the primary on the highest timeline that answers then", s.cfg.Service)}
		return nil
	}
	if err := s.choose(o, views); err != nil {
		return err
	}
	p.Parts = append(p.Parts, part(o.node, viewOf(views, o.node).role()))
	p.Does = []string{fmt.Sprintf("lead clients of %s to node %s at %s", s.cfg.Service, o.node.Name, o.node.Address())}
	return nil
}

// redirectLook bounds the look for the primary while clients wait.
const redirectLook = 500 * time.Millisecond

func (s *servers) redirectAction(ctx context.Context, o *operation) (target.Effect, error) {
	e := target.Effect{Began: s.clock.Now()}
	n := o.node
	if n == nil {
		err := target.Poll(ctx, time.Minute, 20*time.Millisecond, "a primary that answers", func(ctx context.Context) (bool, string, error) {
			views, err := s.look(ctx, redirectLook)
			if err != nil {
				return false, err.Error(), nil
			}
			if err := fence(views, o.rec.SystemID); err != nil {
				return false, "", err
			}
			v := acting(views)
			if v != nil {
				n = v.node
			}
			return v != nil && ctx.Err() == nil, "no node is one", nil // a look that was cut short may have missed a later one
		})
		if err != nil {
			return e, err
		}
	}
	if err := s.claim(ctx, []*node{n}); err != nil {
		return e, err
	}
	if err := s.redirect(ctx, n); err != nil {
		return e, err
	}
	e.Ended = s.clock.Now()
	e.Details = map[string]string{"node": n.Name, "address": n.Address().String()}
	up, err := s.endpoint.upstream(ctx)
	if err != nil {
		return e, err
	}
	if up == "" {
		return e, s.proveServed(ctx, n, &e)
	}
	if up != n.Address().String() {
		return e, fmt.Errorf("the endpoint leads to %s, not to node %s at %s; does somebody else move it?", up, n.Name, n.Address())
	}
	e.Proof = event.Proof{Proven: true, How: "the endpoint says where it leads", Observations: []string{up}}
	return e, nil
}

// proveServed is for endpoints that cannot say where they lead: the server that
// answers a client is known by its start time.
func (s *servers) proveServed(ctx context.Context, n *node, e *target.Effect) error {
	r, err := s.ask(ctx, n, "SELECT pg_postmaster_start_time()")
	if err != nil {
		return err
	}
	if err := s.awaitServed(ctx, n, r[0], 10*time.Second); err != nil {
		return err
	}
	e.Proof = event.Proof{Proven: true, How: "a client's connection is answered by the node", Observations: []string{n.Name + " started " + r[0]}}
	return nil
}

func (s *servers) planFailback(_ context.Context, o *operation, views []view, p *target.Plan) error {
	o.rec.Method = o.params.Method
	for _, v := range views {
		if o.rec.has(v.node) {
			p.Parts = append(p.Parts, part(v.node, v.role()))
		}
	}
	home := s.home().Name
	p.Does = []string{
		fmt.Sprintf("if another node than %s is the primary then: keep the old write-ahead log of %s in %s", home, home, s.cfg.Failback.EvidenceDir),
		fmt.Sprintf("rebuild %s as its standby by %s, and wait until it has caught up", home, s.method(o.rec)),
		fmt.Sprintf("hold clients, stop the acting primary in order, check that %s has all of its log, promote %s, let clients go on there", home, home),
		"make every other node stream from " + home,
	}
	return nil
}

func (s *servers) method(r record) string {
	if r.Method != "" {
		return r.Method
	}
	return s.cfg.Failback.Method
}

func (s *servers) failbackAction(ctx context.Context, o *operation) (target.Effect, error) {
	e := target.Effect{Began: s.clock.Now()}
	var j undo.Journal
	err := s.converge(ctx, o.rec, &j)
	e.Ended = s.clock.Now()
	e.Details = j.Details()
	if err != nil {
		return e, err
	}
	e.Proof = event.Proof{Proven: true, How: "every node has its home role, and the endpoint leads to the primary"}
	return e, nil
}
