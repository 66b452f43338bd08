package postgres

import (
	"context"
	"fmt"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/diskfill"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

func (s *servers) fillOf(o *operation) diskfill.Fill {
	return diskfill.Fill{
		Host: o.node.host, Token: o.rec.Token, Path: o.params.Path, Allowed: s.cfg.ScratchDirs,
		Keep:  []string{o.node.DataDir, s.cfg.Failback.EvidenceDir},
		Bytes: o.params.Bytes, Leave: o.params.Leave, Max: o.params.Max,
	}
}

func (s *servers) planFill(ctx context.Context, o *operation, views []view, p *target.Plan) error {
	if err := s.planRunning(o, views, p); err != nil {
		return err
	}
	f := s.fillOf(o)
	if err := f.Check(); err != nil {
		return err
	}
	size, err := f.Size(ctx)
	if err != nil {
		return fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	o.rec.Undo, o.rec.Path = undoFile, f.File()
	p.Parts = append(p.Parts, event.Part{ID: "disk:" + o.node.Name + ":" + o.params.Path, Kind: "filesystem", Labels: map[string]string{"host": o.node.Host}})
	p.DeadMan = undo.DeadMan(o.Operation)
	p.Does = []string{
		fmt.Sprintf("set a timer on the node's machine that removes the file after %v", p.DeadMan),
		fmt.Sprintf("write %d bytes to %s on node %s", size, o.rec.Path, o.node.Name),
	}
	p.Undoes = fmt.Sprintf("remove %s on node %s", o.rec.Path, o.node.Name)
	return nil
}

func (s *servers) fill(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	f := s.fillOf(o)
	size, err := f.Size(ctx)
	if err != nil {
		return e, fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	if err := s.arm(ctx, o, diskfill.Timer(o.rec.Path)); err != nil {
		return e, err
	}
	e.Began = s.clock.Now()
	e.Proof, err = f.Write(ctx, conductor(ctx), size)
	e.Ended = s.clock.Now()
	if err != nil {
		return e, fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	return e, nil
}

func (s *servers) undoFill(ctx context.Context, r record, j *undo.Journal) error {
	n, err := s.node(r.Node)
	if err != nil {
		return err
	}
	removed, err := diskfill.Remove(ctx, n.host, r.Token, r.Path)
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	if removed {
		j.Add("removed %s on node %s", r.Path, n.Name)
	}
	return s.disarm(ctx, n, r)
}
