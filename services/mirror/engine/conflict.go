package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Two machines may mirror one source into one place, or one machine with two states. What
// one of them finds written by the other is no failure if it is just what it was about to
// write itself.

// collided is called when a side is not what it was planned to be when it was about to be
// written, as err says: it looks there once. If what is to be there is there already the
// action becomes an Equal. read says that the hashes of what was to be written come from
// reading it now.
func (w *Worker) collided(ctx context.Context, a *plan.Action, read bool, err error) error {
	if aerr := w.acquire(ctx); aerr != nil {
		return errors.Join(err, aerr)
	}
	defer w.release()
	now, there, lerr := w.Places[a.To].Look(ctx, a.At(a.To.Other()))
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	have := a.At(a.To)
	if there == plan.Present(have) && (!there || untouched(&now, &have)) {
		return err // Nobody else was there: it says itself what is wrong.
	}
	if there {
		switch same, serr := w.writtenAlready(ctx, a, now, read); {
		case serr != nil:
			return errors.Join(err, serr)
		case same:
			a.Op = plan.Equal
			return nil
		}
	}
	return fmt.Errorf("%w; something else writes there, maybe another mirror: the next run looks at the place again", err)
}

// writtenAlready reports whether a side now holds what the action was to write, and notes
// in it what was found out about both sides.
func (w *Worker) writtenAlready(ctx context.Context, a *plan.Action, now entry.Entry, read bool) (bool, error) {
	if !w.alike(a.To, a.At(a.To.Other()), now) {
		return false, nil
	}
	return w.holds(ctx, a, now, read)
}

// Arrived looks whether a side that was not as planned when a Put or a Meta came to it
// holds what that was to leave there, but maybe for attributes that can be set: a worker
// may have been killed before it could say so. Then it notes in the action what both
// sides hold, for whoever made the plan to settle. An error says that this cannot be
// known, as when the source is no longer what was to be copied.
func (w *Worker) Arrived(ctx context.Context, a *plan.Action) (bool, error) {
	if err := w.acquire(ctx); err != nil {
		return false, err
	}
	defer w.release()
	want := a.At(a.To.Other())
	now, there, err := w.Places[a.To].Look(ctx, want)
	if err != nil || !there || now.Kind != want.Kind || now.Size != want.Size || now.Target != want.Target || now.Device != want.Device {
		return false, err
	}
	if now.Kind == entry.File {
		// Another content may have been put under what an object's metadata says of it,
		// and nothing tells whether its store has looked at that.
		now.Sum = now.Sum.Without(entry.HasBLAKE3 | entry.HasCRC32C)
	}
	same, err := w.holds(ctx, a, now, false)
	if err != nil || !same {
		return false, err
	}
	now = a.At(a.To)
	now.Sum = now.Sum.Merge(a.At(a.To.Other()).Sum.Without(entry.HasETag | entry.HasPartSize))
	set(a, a.To, now)
	return true, nil
}

// holds reports whether what a side now holds has the content that the action was to
// write, and notes in it what was found out about both sides.
func (w *Worker) holds(ctx context.Context, a *plan.Action, now entry.Entry, read bool) (bool, error) {
	mine := a.At(a.To.Other())
	if mine.Kind == entry.File {
		same, err := w.sameContent(ctx, a.To, &mine, &now, read)
		if err != nil || !same {
			return false, err
		}
	}
	set(a, a.To.Other(), mine)
	set(a, a.To, now)
	return true, nil
}

// alike reports whether an entry of a side, but for its content, is what the other side
// has.
func (w *Worker) alike(to plan.Side, mine, now entry.Entry) bool {
	mine.Sum, now.Sum = entry.Sum{}, entry.Sum{}
	rules := plan.Rules{
		Mode: plan.Mirror, Trust: plan.TrustSize,
		Lists: [2]plan.Attr{plan.Source: w.Places[to.Other()].Traits().Lists, plan.Dest: w.Places[to].Traits().Lists},
	}
	return rules.Settle(plan.Action{Op: plan.Rehash, Key: mine.Key(), To: plan.Dest, Source: mine, Dest: now}).Op == plan.Equal
}

// sameContent compares contents by their hashes, and adds to them what had to be read.
func (w *Worker) sameContent(ctx context.Context, to plan.Side, mine, now *entry.Entry, read bool) (bool, error) {
	// What an object's writer says of its content proves nothing yet.
	theirs := unread(*now).Sum
	ours := mine.Sum
	if !read {
		ours = entry.Sum{}
	}
	known, same := ours.SameAs(theirs)
	if !known && !checkable(theirs) {
		sum, err := Hash(ctx, w.Places[to], *now, entry.Sum{}, w.Limit, w.Read)
		if err != nil {
			return false, err
		}
		theirs = sum.Merge(theirs)
		known, same = ours.SameAs(theirs)
	}
	if !known {
		like := theirs
		if like.Contains(entry.HasCRC32C) {
			like = like.Without(entry.HasETag) // which costs an MD5
		}
		sum, err := Hash(ctx, w.Places[to.Other()], *mine, like, w.Limit, w.Read)
		if err != nil {
			return false, err
		}
		ours = sum
		_, same = ours.SameAs(theirs)
	}
	if said := now.Sum; same && said.Contains(entry.HasBLAKE3) && ours.Contains(entry.HasBLAKE3) {
		same = said.BLAKE3 == ours.BLAKE3
	}
	mine.Sum, now.Sum = ours.Merge(mine.Sum), theirs.Merge(now.Sum)
	return same, nil
}

// checkable reports whether a content that is read can be compared with these hashes: an
// ETag of parts of an unknown size cannot be made again.
func checkable(s entry.Sum) bool {
	return s.Has&(entry.HasBLAKE3|entry.HasCRC32C) != 0 || s.Contains(entry.HasETag) && (s.Contains(entry.HasPartSize) || !strings.Contains(s.ETag, "-"))
}
