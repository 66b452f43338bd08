package zfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// Checked is what CheckAll found.
type Checked struct {
	// Points and Parts were looked at, and Bytes of parts read.
	Points, Parts int
	Bytes         int64
	// Damaged are the points that cannot be restored, in the order of Points, with
	// their damaged parts as *PartError.
	Damaged []Damage
	// Indexes are those that cannot be read: no one can say which points they were of.
	Indexes []error
}

// Whole reports whether all can be restored.
func (c Checked) Whole() bool { return len(c.Damaged) == 0 && len(c.Indexes) == 0 }

// Damage is why a point cannot be restored: what is wrong with it or with those that
// it builds on.
type Damage struct {
	Point Point
	Errs  []error
}

// CheckAll reads every part of every point once and compares all hashes, without ZFS,
// and sees that each point leads back to a whole one. watch, unless it is nil, is told
// how far it is, often and from another goroutine. The error is for what kept it from
// looking, never for damage.
func (a *Archive) CheckAll(ctx context.Context, watch func(Progress)) (Checked, error) {
	points, indexes, err := a.points(ctx)
	c := Checked{Indexes: indexes}
	if err != nil {
		return c, err
	}
	own := make(map[uint64][]error, len(points))
	for i, p := range points {
		at := Progress{Snapshot: p.Name(), Number: i + 1, Of: len(points), Total: p.Stream.Bytes}
		if own[p.GUID], err = a.checkPoint(ctx, p, at.watch(watch)); err != nil {
			return c, err
		}
		c.Points, c.Parts, c.Bytes = c.Points+1, c.Parts+len(p.Parts), c.Bytes+p.Stored()
	}
	lost := unfounded(points, own)
	for _, p := range points {
		errs := own[p.GUID]
		if err := lost[p.GUID]; err != nil {
			errs = append(errs, err)
		}
		if len(errs) > 0 {
			c.Damaged = append(c.Damaged, Damage{p, errs})
		}
	}
	return c, nil
}

// unfounded says of points why what they build on cannot be restored.
func unfounded(points []Point, damaged map[uint64][]error) map[uint64]error {
	depth := depths(points)
	byDepth := slices.SortedStableFunc(slices.Values(points), func(a, b Point) int { return cmp.Compare(depth[a.GUID], depth[b.GUID]) })
	// names are those of what cannot be restored.
	names, out := map[uint64]string{}, map[uint64]error{}
	for _, p := range byDepth {
		below, broken := names[p.From]
		if depth[p.GUID] == 0 {
			_, out[p.GUID] = Path(points, p.GUID)
		} else if broken {
			out[p.GUID] = fmt.Errorf("archive of %s: %w: it builds on %s, which cannot be restored", p.Name(), ErrCorrupt, below)
		}
		if out[p.GUID] != nil || len(damaged[p.GUID]) > 0 {
			names[p.GUID] = p.Name()
		}
	}
	return out
}

// checkPoint finds what is damaged in one point. The error is for what kept it from
// looking.
func (a *Archive) checkPoint(ctx context.Context, p Point, watch func(int64)) (damaged []error, err error) {
	err = a.open(ctx, p, func(r io.Reader) error {
		_, err := io.Copy(&counter{watch: watch}, r)
		return err
	})
	if err == nil {
		return nil, nil
	}
	if !isDamage(err) {
		return nil, err
	}
	damaged = append(damaged, err)
	part, ok := errors.AsType[*PartError](err)
	if !ok {
		return damaged, nil
	}
	// Nothing can be unpacked any more, but its other parts have hashes of their own.
	for number := part.Number + 1; number < len(p.Parts); number++ {
		switch err := a.fetch(ctx, p, number, new(bytes.Buffer)); {
		case err == nil:
		case isDamage(err):
			damaged = append(damaged, err)
		default:
			return damaged, err
		}
	}
	return damaged, nil
}

func isDamage(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, bucket.ErrNotFound)
}

// counter counts what is written to it and forgets it.
type counter struct {
	bytes int64
	watch func(int64)
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	if c.watch != nil {
		c.watch(c.bytes)
	}
	return len(p), nil
}
