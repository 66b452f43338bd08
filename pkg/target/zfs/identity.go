package zfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// guidTime is how long a ZFS may take to say which pool it is before its disks are
// asked instead.
const guidTime = 5 * time.Second

var guidForm = lazy.Regexp(`^[1-9][0-9]{0,19}$`)

// guid is the pool's own number, drawn when it was made, as the running ZFS says.
func (p *pool) guid(ctx context.Context) (string, error) {
	out, err := p.run(ctx, "ask for the pool", `zpool list -H -o guid -- "$1"`, p.cfg.Pool)
	if err != nil {
		return "", err
	}
	if !guidForm().MatchString(out) {
		return "", fmt.Errorf("pool %s: zpool says that its guid is %q", p.cfg.Pool, clip(out, 100))
	}
	return out, nil
}

// Identify is "zfs/" and the pool's guid, whatever name the pool was imported under
// and however its machine is reached. A ZFS that does not answer is not needed: the
// labels of the disks hold it too.
func (p *pool) Identify(ctx context.Context) (string, error) {
	asking, cancel := context.WithTimeout(ctx, guidTime)
	defer cancel()
	guid, err := p.guid(asking)
	if err == nil {
		return Name + "/" + guid, nil
	}
	errs := []error{err}
	for _, vdev := range p.cfg.BreakableVdevs {
		l, err := p.label(ctx, vdev)
		switch {
		case err != nil:
			errs = append(errs, err)
		case guid == "":
			guid = l.pool
		case guid != l.pool:
			return "", fmt.Errorf("the disks belong to pools %s and %s: %w; list the disks of one pool", guid, l.pool, ErrFence)
		}
	}
	if guid == "" {
		return "", fmt.Errorf("neither ZFS nor a disk tells which pool it is; make its machine reachable: %w", errors.Join(errs...))
	}
	return Name + "/" + guid, nil
}
