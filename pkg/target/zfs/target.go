// Package zfs drills a ZFS pool: it damages blocks of a disk behind ZFS's back and
// takes disks away, writes canaries into a dataset as its users would, and checks
// that a scrub has found and repaired everything. It runs zpool, zfs and zdb on the
// pool's machine, with nothing but what zfs-fuse 0.7 and OpenZFS both understand.
package zfs

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"path"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// Name is the driver's name in a drill.
const Name = "zfs"

//go:embed sample.yaml
var sample string

// Driver drills a ZFS pool of mirrors. Its zero value is ready and stateless.
type Driver struct{}

// Name is "zfs".
func (Driver) Name() string { return Name }

// Check reads a configuration without touching anything.
func (Driver) Check(raw json.RawMessage) error {
	_, err := parseConfig(raw)
	return err
}

// Open returns the target. It connects to nothing.
func (Driver) Open(_ context.Context, c target.Config) (*target.Target, error) {
	cfg, err := parseConfig(c.Raw)
	if err != nil {
		return nil, err
	}
	p, err := newPool(cfg, c)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", c.Name, err)
	}
	return &target.Target{Injector: p, Observer: p, Checker: p, Evidence: p, Identity: p, Close: p.close}, nil
}

// pool is an open target. Apart from its probes it holds nothing open.
type pool struct {
	cfg    Config
	clock  target.Clock
	log    *slog.Logger
	host   *control.Host
	probes canary.Book
	latest canary.Latest
}

func newPool(cfg Config, c target.Config) (*pool, error) {
	p := &pool{cfg: cfg, clock: c.Clock, log: c.Log}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = p.log.With("target", c.Name, "driver", Name)
	var err error
	p.host, err = control.New(cfg.Control)
	return p, err
}

func (p *pool) close() error {
	p.probes.Close()
	return nil
}

// machine is the pool's machine, where its faults are undone.
func (p *pool) machine() undo.Machine {
	return undo.Machine{Host: p.host, Name: "pool " + p.cfg.Pool, StateDir: p.cfg.StateDir, Field: "control"}
}

// marker names the fault that is outstanding on the pool, and below its token what it
// damaged. Two faults together could hit both sides of a mirror.
func (p *pool) marker() undo.Marker {
	return undo.Marker{Machine: p.machine(), File: path.Join(p.cfg.StateDir, "zfs-"+p.cfg.Pool+".fault")}
}

// tree is where the canaries lie in the dataset.
func (p *pool) tree() canary.Tree { return canary.Tree(p.cfg.Prefix) }

// prelude is before every script: ZFS's programs are where only root's PATH leads.
const prelude = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin\n"

// run runs a script on the pool's machine.
func (p *pool) run(ctx context.Context, what, script string, args ...string) (string, error) {
	out, err := p.host.Output(ctx, control.Command{What: what, Script: prelude + script, Args: args})
	if err != nil {
		return out, fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	return out, nil
}
