package minio

import (
	"context"
	"fmt"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/diskfill"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

func (s *store) fillOf(o *operation) diskfill.Fill {
	return diskfill.Fill{
		Host: o.node.host, Token: o.rec.Token, Path: o.params.Path, Allowed: s.cfg.ScratchDirs,
		Keep:  append([]string{s.cfg.StateDir}, o.node.Drives...),
		Bytes: o.params.Bytes, Leave: o.params.Leave, Max: o.params.Max,
	}
}

func (s *store) planFill(ctx context.Context, o *operation, p *target.Plan) error {
	f := s.fillOf(o)
	if err := f.Check(); err != nil {
		return err
	}
	size, err := f.Size(ctx)
	if err != nil {
		return fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	o.rec.Undo, o.rec.Path = undoFile, f.File()
	p.Parts = []event.Part{
		s.part(o.node),
		{ID: "disk:" + o.node.Name + ":" + o.params.Path, Kind: "filesystem", Labels: map[string]string{"host": o.node.Host}},
	}
	p.DeadMan = undo.DeadMan(o.Operation)
	p.Does = []string{
		fmt.Sprintf("set a timer on the node's machine that removes the file after %v", p.DeadMan),
		fmt.Sprintf("write %d bytes to %s on node %s", size, o.rec.Path, o.node.Name),
	}
	p.Undoes = fmt.Sprintf("remove %s on node %s", o.rec.Path, o.node.Name)
	return nil
}

func (s *store) fill(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	f := s.fillOf(o)
	size, err := f.Size(ctx)
	if err != nil {
		return e, fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	if err := o.machine.Arm(ctx, o.Operation, o.rec.Token, diskfill.Timer(o.rec.Path)); err != nil {
		return e, err
	}
	e.Began = s.clock.Now()
	e.Proof, err = f.Write(ctx, o.fence, size)
	e.Ended = s.clock.Now()
	if err != nil {
		return e, fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	return e, nil
}

func (s *store) undoFill(ctx context.Context, o *operation, j *undo.Journal) error {
	removed, err := diskfill.Remove(ctx, o.node.host, o.rec.Token, o.rec.Path)
	if err != nil {
		return fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	if removed {
		j.Add("removed %s on node %s", o.rec.Path, o.node.Name)
	}
	return nil
}
