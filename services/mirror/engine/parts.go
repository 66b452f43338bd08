package engine

import (
	"context"
	"errors"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"golang.org/x/sync/errgroup"
)

// ErrNoParts says that a place claims to write in parts and does not.
var ErrNoParts = errors.New("the place cannot write in parts")

// putParts copies a large file in parts, several at once. Its BLAKE3 stays
// unknown, as parts are not read in order; the CRC32C of the whole, which the
// destination confirms, is known.
func (w *Worker) putParts(ctx context.Context, a *plan.Action, write place.Write) error {
	to, ok := w.Places[a.To].(place.Parts)
	if !ok {
		return ErrNoParts
	}
	size := w.partSize(write.Entry.Size)
	token, err := to.StartParts(ctx, write, size)
	if err != nil {
		return err
	}
	parts, err := w.sendParts(ctx, a, write, to, token, size)
	if err != nil {
		return errors.Join(err, to.AbortParts(context.WithoutCancel(ctx), token))
	}
	now, err := to.FinishParts(ctx, write, token, parts)
	if err != nil {
		return errors.Join(err, to.AbortParts(context.WithoutCancel(ctx), token))
	}
	e := write.Entry
	e.Sum = MergeSums(e.Sum, ofContent(now.Sum))
	set(a, a.To.Other(), e)
	set(a, a.To, now)
	return nil
}

// partSize is the size of the parts of a file.
func (w *Worker) partSize(size int64) int64 {
	n := w.PartSize
	if n == 0 {
		n = DefaultPartSize
	}
	const mib = 1 << 20
	return max(n, (size/maxParts/mib+1)*mib)
}

func (w *Worker) sendParts(ctx context.Context, a *plan.Action, write place.Write, to place.Parts, token []byte, size int64) ([][]byte, error) {
	total := write.Entry.Size
	parts := make([][]byte, (total+size-1)/size)
	g, group := errgroup.WithContext(ctx)
	if g.SetLimit(defaultPartsAtOnce); w.PartsAtOnce > 0 {
		g.SetLimit(w.PartsAtOnce)
	}
	for i := range parts {
		if group.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := w.acquire(group); err != nil {
				return err
			}
			defer w.release()
			off := int64(i) * size
			n := min(size, total-off)
			r, err := w.open(group, a.To.Other(), write.Entry, off, n)
			if err != nil {
				return err
			}
			r.hash = nil // the destination's CRC32C is enough, and hashes of parts are none
			parts[i], err = to.PutPart(group, token, i+1, r, n)
			return errors.Join(err, r.Close())
		})
	}
	// Of the group's own context nothing is asked: it has ended by then.
	return parts, g.Wait()
}
