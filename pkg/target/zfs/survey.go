package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// Survey tries what the operations, and undoing them, will need, as far as that can be
// done by reading: ZFS's programs, the state directory, the disks, and the directory in
// which probes write.
func (p *pool) Survey(ctx context.Context, ops []target.Operation) (target.Survey, error) {
	sv := target.Survey{Parts: make([]event.Part, len(p.cfg.BreakableVdevs))}
	for i, vdev := range p.cfg.BreakableVdevs {
		sv.Parts[i] = p.part(vdev)
	}
	var errs []error
	programs := []string{"zpool", "zfs"}
	for _, op := range ops {
		_, err := target.Named(operations(), op.Name, operationKind.title)
		errs = append(errs, err)
	}
	if len(ops) > 0 {
		programs = append(programs, "zdb", "awk", "dd", "flock")
	}
	var found strict.Problems
	p.surveyMachine(ctx, programs, &found)
	if len(found) == 0 {
		p.surveyPool(ctx, &found)
	}
	if root, err := p.openDirectory(); err != nil {
		found.Add("directory", p.cfg.Directory, fmt.Sprintf("probes write there: %v", err))
	} else {
		errs = append(errs, root.Close())
	}
	return sv, errors.Join(slices.Concat(errs, found)...)
}

func (p *pool) part(vdev string) event.Part {
	return event.Part{ID: "zfs:" + p.cfg.Pool + ":" + vdev, Kind: "zfs-vdev", Labels: map[string]string{"pool": p.cfg.Pool, "dataset": p.cfg.Dataset, "vdev": vdev}}
}

func (p *pool) surveyMachine(ctx context.Context, programs []string, found *strict.Problems) {
	lacking, writable, err := p.machine().Survey(ctx, prelude, programs...)
	if err != nil {
		*found = append(*found, err)
		return
	}
	if len(lacking) > 0 {
		found.Add("control", "", fmt.Sprintf("%s cannot be run on the pool's machine, and undoing needs it: install it there", strings.Join(lacking, ", ")))
	}
	if !writable {
		found.Add("stateDir", p.cfg.StateDir, "firedrill cannot write there on the pool's machine: let it, or choose another directory")
	}
}

// surveyPool looks whether the pool is there and knows the disks that may be broken.
func (p *pool) surveyPool(ctx context.Context, found *strict.Problems) {
	s, err := p.look(ctx)
	if err != nil {
		found.Add("pool", p.cfg.Pool, err.Error())
		return
	}
	for i, vdev := range p.cfg.BreakableVdevs {
		if _, _, err := s.leaf(vdev); err != nil {
			found.Add(fmt.Sprintf("breakableVdevs[%d]", i), vdev, fmt.Sprintf("%v; zpool status shows the pool's disks", err))
		}
	}
}
