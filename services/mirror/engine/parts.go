package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"golang.org/x/sync/errgroup"
)

var (
	// ErrNoParts says that a place claims to write in parts and does not.
	ErrNoParts = errors.New("the place cannot write in parts")
	// ErrRange says that an item asks for parts that its file does not have.
	ErrRange = errors.New("the file has no such parts")
)

// PartRange is some of the parts of one upload, which follow each other.
type PartRange struct {
	// Token is the upload's; see [place.Parts].
	Token []byte
	// Size is how many bytes each part has, but for the file's last one.
	Size int64
	// First is the number of the first part, from 1, and Count how many there are.
	First, Count int
}

// partCount is how many parts of a size a file has.
func partCount(total, size int64) int { return int((total + size - 1) / size) }

// fits reports, as ErrRange, that a file has no such parts.
func (p *PartRange) fits(e *entry.Entry) error {
	if p.Size <= 0 || e.Kind != entry.File || e.Size <= 0 || (e.Size-1)/p.Size >= maxParts ||
		p.First < 1 || p.Count < 1 || p.Count > partCount(e.Size, p.Size)-(p.First-1) {
		return fmt.Errorf("put %d parts of %d bytes, from the %d. on, of the %s %q of %d bytes: %w", p.Count, p.Size, p.First, e.Kind, e.Key(), e.Size, ErrRange)
	}
	return nil
}

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
	all := PartRange{Token: token, Size: size, First: 1, Count: partCount(write.Entry.Size, size)}
	parts, err := w.sendParts(ctx, a, to, all)
	if err != nil {
		return errors.Join(err, to.AbortParts(context.WithoutCancel(ctx), token))
	}
	now, err := to.FinishParts(ctx, write, token, parts)
	if err != nil {
		return errors.Join(err, to.AbortParts(context.WithoutCancel(ctx), token))
	}
	joined(a, write.Entry, now)
	return nil
}

// joined leaves in an action what both sides hold once all parts are there.
func joined(a *plan.Action, from, now entry.Entry) {
	from.Sum = from.Sum.Merge(now.Sum.Without(entry.HasETag | entry.HasPartSize))
	set(a, a.To.Other(), from)
	set(a, a.To, now)
}

// unread forgets of an object that is copied in parts what only its writer says of
// it: nobody reads the whole in order, so that nobody would see that it is wrong.
func unread(e entry.Entry) entry.Entry {
	if !e.Change.OfInode() {
		e.Sum = e.Sum.Without(entry.HasBLAKE3)
	}
	return e
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

// putRange carries out an item that is some parts of a large file.
func (w *Worker) putRange(ctx context.Context, a *plan.Action, p PartRange) ([][]byte, error) {
	e := a.At(a.To.Other())
	if a.Op != plan.Put {
		return nil, fmt.Errorf("%s %q in parts: %w", a.Op, a.Key, ErrRange)
	}
	if err := p.fits(&e); err != nil {
		return nil, err
	}
	to, ok := w.Places[a.To].(place.Parts)
	if !ok {
		return nil, ErrNoParts
	}
	return w.sendParts(ctx, a, to, p)
}

// sendParts puts parts, several at once, and gives what the place says of each.
func (w *Worker) sendParts(ctx context.Context, a *plan.Action, to place.Parts, p PartRange) ([][]byte, error) {
	parts := make([][]byte, p.Count)
	g, group := errgroup.WithContext(ctx)
	if g.SetLimit(defaultPartsAtOnce); w.PartsAtOnce > 0 {
		g.SetLimit(w.PartsAtOnce)
	}
	for i := range parts {
		if group.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			parts[i], err = w.sendPart(group, a, to, p, p.First+i)
			return err
		})
	}
	// Of the group's own context nothing is asked: it has ended by then.
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return parts, ctx.Err()
}

// sendPart puts one part, again where that may help.
func (w *Worker) sendPart(ctx context.Context, a *plan.Action, to place.Parts, p PartRange, number int) (part []byte, err error) {
	err = w.again(ctx, partPasses, func() (err error) {
		part, err = w.sendPartOnce(ctx, a, to, p, number)
		return err
	})
	return part, err
}

// sendPartOnce puts one part. Each read sees for itself that the source still is what
// was planned to be copied.
func (w *Worker) sendPartOnce(ctx context.Context, a *plan.Action, to place.Parts, p PartRange, number int) ([]byte, error) {
	if err := w.acquire(ctx); err != nil {
		return nil, err
	}
	defer w.release()
	e := a.At(a.To.Other())
	off := int64(number-1) * p.Size
	n := min(p.Size, e.Size-off)
	r, err := w.open(ctx, a.To.Other(), e, off, n)
	if err != nil {
		return nil, err
	}
	// Not hashed: the destination's CRC32C is enough, and hashes of parts are none.
	part, err := to.PutPart(ctx, p.Token, number, r, n)
	return part, errors.Join(err, r.Close())
}
