package zfs

import (
	"context"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

func (p *pool) planOffline(ctx context.Context, o *operation, plan *target.Plan) error {
	s, err := p.look(ctx)
	if err != nil {
		return err
	}
	if err := s.unfit(o.rec.Vdev); err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	if _, err := p.ownLabel(ctx, o.rec.Vdev, o.rec.GUID); err != nil {
		return err
	}
	o.rec.Undo = undoOnline
	plan.DeadMan = undo.DeadMan(o.Operation)
	plan.Does = []string{
		fmt.Sprintf("set a timer on the pool's machine that brings the disk back after %v", plan.DeadMan),
		fmt.Sprintf("take %s out of pool %s, until it is imported anew at the latest", o.rec.Vdev, p.cfg.Pool),
	}
	plan.Undoes = fmt.Sprintf("bring %s back into pool %s unless it is, and wait until it is resilvered", o.rec.Vdev, p.cfg.Pool)
	return nil
}

func (p *pool) offline(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	if err := p.begin(ctx, o); err != nil {
		return e, err
	}
	e.Began = p.clock.Now()
	_, err := p.run(ctx, "take "+o.rec.Vdev+" away", o.fence.Guard(`zpool offline -t -- "$1" "$2"`), p.cfg.Pool, o.rec.Vdev)
	e.Ended = p.clock.Now()
	if err != nil {
		return e, err
	}
	s, err := p.look(ctx)
	if err != nil {
		return e, err
	}
	v, _, err := s.leaf(o.rec.Vdev)
	if err != nil {
		return e, fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	e.Proof = event.Proof{Proven: v.state == offline, How: "zpool status says that the disk is offline", Observations: []string{strings.TrimSpace(v.String()), "the pool is " + s.state}}
	return e, nil
}
