package zfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// collectLimit bounds each piece of evidence, and collectMost is how many bytes of it
// are kept.
const (
	collectLimit = 10 * time.Second
	collectMost  = 16 << 10
)

// Collect gathers the pool's status, its recent history, the dataset's properties and
// the outstanding fault. What could not be had is in the error; the rest is returned.
func (p *pool) Collect(ctx context.Context) ([]event.Artifact, error) {
	var out []event.Artifact
	var errs []error
	for _, e := range []struct{ name, script, of string }{
		{"status", `zpool status -v -- "$1"; zpool list -- "$1"`, p.cfg.Pool},
		{"history", `zpool history -- "$1" | tail -n 50`, p.cfg.Pool},
		{"dataset", `zfs get all "$1"`, p.cfg.Dataset},
		{"fault", `[ ! -e "$1" ] || cat -- "$1"`, p.marker().File},
	} {
		one, cancel := context.WithTimeout(ctx, collectLimit)
		text, err := p.run(one, "collect "+e.name, e.script, e.of)
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.name, err))
		}
		if text != "" {
			out = append(out, event.Artifact{Name: e.name, Text: text[:min(len(text), collectMost)], Truncated: len(text) > collectMost})
		}
	}
	return out, errors.Join(errs...)
}
