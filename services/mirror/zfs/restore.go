package zfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// RestoreOptions say how a point is restored.
type RestoreOptions struct {
	// BytesPerSecond bounds the streams; 0 does not.
	BytesPerSecond int64
	// Whole destroys the dataset again if this call made it and did not get to the
	// point that was asked for. Otherwise the points before a damaged one stay.
	Whole bool
	// Watch, if not nil, is told how far it is, often and from another goroutine.
	Watch func(Progress)
}

// Restore receives the point with the guid, and those it builds on, into a dataset
// that does not exist, or that has some of them and nothing newer: an interrupted
// Restore goes on. No part is given to ZFS before its hashes were compared, and no
// stream ends before its own was, so that nothing of a damaged point is received;
// the damaged part is named by a *PartError. The guid of each snapshot is compared
// afterwards. It returns the snapshots that it received, with an error too. The
// dataset is not mounted.
func (a *Archive) Restore(ctx context.Context, h *Host, dataset string, guid uint64, o RestoreOptions) (received []Snapshot, err error) {
	if err := checkDataset(dataset); err != nil {
		return nil, err
	}
	path, err := a.path(ctx, guid)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", dataset, err)
	}
	missing, err := h.missing(ctx, dataset, path)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", dataset, err)
	}
	// A part that is gone or cut short is found before anything is received.
	if err := a.look(ctx, missing); err != nil {
		return nil, fmt.Errorf("restore %s: %w", dataset, err)
	}
	for i, p := range missing {
		at := Progress{Snapshot: p.Name(), Number: i + 1, Of: len(missing), Total: p.Stream.Bytes}
		s, err := a.receive(ctx, h, dataset, p, o.BytesPerSecond, at.watch(o.Watch))
		if err == nil {
			received = append(received, s)
			continue
		}
		err = fmt.Errorf("restore %s to %s: %w", p.Name(), dataset, err)
		if o.Whole && len(missing) == len(path) && len(received) > 0 {
			err, received = errors.Join(err, h.discard(ctx, dataset, received)), nil
		}
		return received, err
	}
	return received, nil
}

// Check reads a point and those it builds on and compares every hash, as Restore
// does, without ZFS. A damaged part is a *PartError.
func (a *Archive) Check(ctx context.Context, guid uint64) error {
	path, err := a.path(ctx, guid)
	if err != nil {
		return err
	}
	if err := a.look(ctx, path); err != nil {
		return err
	}
	for _, p := range path {
		err := a.open(ctx, p, func(r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// path reads the indexes. One that is damaged matters if the path needs it.
func (a *Archive) path(ctx context.Context, guid uint64) ([]Point, error) {
	points, damaged := a.Points(ctx)
	if damaged != nil && !errors.Is(damaged, ErrCorrupt) && !errors.Is(damaged, ErrUnsupported) {
		return nil, damaged
	}
	path, err := Path(points, guid)
	if err != nil {
		return nil, errors.Join(err, damaged)
	}
	return path, nil
}

// missing are those of the points that a dataset does not have.
func (h *Host) missing(ctx context.Context, dataset string, path []Point) ([]Point, error) {
	found, err := h.Snapshots(ctx, dataset)
	if errors.Is(err, ErrNotExist) {
		return path, nil
	}
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: it exists without a snapshot: choose a dataset that does not exist", ErrNoCommon)
	}
	newest := found[len(found)-1]
	at := slices.IndexFunc(path, func(p Point) bool { return p.GUID == newest.GUID })
	if at < 0 {
		return nil, fmt.Errorf("%w: its newest, %s, is not one that leads to the point: choose a dataset that does not exist", ErrDiverged, newest)
	}
	return path[at+1:], nil
}

// look compares the sizes of all parts with their indexes, by listing.
func (a *Archive) look(ctx context.Context, points []Point) error {
	for _, p := range points {
		sizes := map[string]int64{}
		for object, err := range a.store.List(ctx, bucket.ListOptions{Prefix: uploadOf(p.partKey(0))}) {
			if err != nil {
				return fmt.Errorf("list the parts of %s: %w", p.Name(), err)
			}
			sizes[object.Key] = object.Size
		}
		for i, part := range p.Parts {
			switch size, ok := sizes[p.partKey(i)]; {
			case !ok:
				return partError(p, i, fmt.Errorf("%w: %w", ErrCorrupt, bucket.ErrNotFound))
			case size != part.Size:
				return partError(p, i, fmt.Errorf("%w: it has %d bytes and not %d", ErrCorrupt, size, part.Size))
			}
		}
	}
	return nil
}

// receive restores one point on top of those before it.
func (a *Archive) receive(ctx context.Context, h *Host, dataset string, p Point, bytesPerSecond int64, watch func(int64)) (Snapshot, error) {
	err := h.retry(ctx, func() error {
		return a.open(ctx, p, func(stream io.Reader) error {
			r, w, err := widePipe()
			if err != nil {
				return err
			}
			var copier sync.WaitGroup
			copier.Go(func() {
				// What breaks off here is named by what the stream is read from.
				_, _ = io.CopyBuffer(newMeter(ctx, w, bytesPerSecond, watch), onlyReader{stream}, make([]byte, copySize))
				_ = w.Close()
			})
			err = h.run(ctx, r, nil, receiveArgv(dataset, p.Snapshot)...)
			_ = r.Close()
			copier.Wait()
			return err
		})
	})
	if err != nil {
		return Snapshot{}, err
	}
	return h.verify(ctx, dataset, Snapshot{Dataset: p.Dataset, Name: p.Snapshot, GUID: p.GUID})
}

// discard destroys a dataset that a restore made, if all it has is what that
// received.
func (h *Host) discard(ctx context.Context, dataset string, received []Snapshot) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	for _, s := range received {
		if err := h.Destroy(ctx, s); err != nil {
			return err
		}
	}
	if err := h.destroy(ctx, dataset); err != nil {
		return fmt.Errorf("destroy the incomplete %s: %w", dataset, err)
	}
	return nil
}
