package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// fewest is how many files are worth a batch.
const fewest = 8

// PutBatch writes many small entries. Where the server unpacks batches they travel
// in few requests, which carry no conditions: unless the bucket is
// [Options.Exclusive], what is about to be overwritten is looked at right before,
// and what somebody writes in that moment is overwritten. In a bucket with versions
// it stays as a version; two writers should use Put.
func (p *Place) PutBatch(ctx context.Context, ws []place.Write) []place.Outcome {
	out := make([]place.Outcome, len(ws))
	var alone, chunk []int
	var bytes int64
	flush := func() {
		if len(chunk) < fewest {
			alone = append(alone, chunk...)
		} else {
			alone = append(alone, p.batch(ctx, ws, chunk, out)...)
		}
		chunk, bytes = nil, 0
	}
	apart := scattered(ws)
	for i := range ws {
		size := stored(ws[i].Entry).Size
		if !p.caps.Snowball || size > bucket.MaxBatchItem || ws[i].Entry.Kind == entry.Dir || apart && plan.Present(ws[i].Have) {
			alone = append(alone, i)
			continue
		}
		if len(chunk) == bucket.MaxBatchItems || bytes+size > bucket.MaxBatchBytes {
			flush()
		}
		chunk, bytes = append(chunk, i), bytes+size
	}
	flush()
	each(len(alone), func(n int) { i := alone[n]; out[i].Entry, out[i].Err = p.Put(ctx, ws[i]) })
	return out
}

// scattered reports whether what is overwritten lies so far apart that no listing tells
// of it: to look at each before and after a batch would cost two requests, where one
// that has a condition costs one.
func scattered(ws []place.Write) bool {
	n, dirs := 0, map[string]bool{}
	for _, w := range ws {
		if plan.Present(w.Have) {
			n++
			dirs[bucket.Parent(w.Entry.Key())] = true
		}
	}
	return n < sparse*len(dirs)
}

// batch writes the chosen entries with one request. It returns those that have to
// be put alone: a batch cannot hold their keys, or does not tell what was wrong.
func (p *Place) batch(ctx context.Context, ws []place.Write, chosen []int, out []place.Outcome) (alone []int) {
	if !p.o.Exclusive {
		chosen = p.unseen(ctx, ws, chosen, out)
	}
	items := make([]bucket.BatchItem, 0, len(chosen))
	at := make(map[string]int, len(chosen))
	for _, i := range chosen {
		e := stored(ws[i].Entry)
		key := e.Key()
		if err := p.holds(e); err != nil {
			out[i].Err = fmt.Errorf("put into %s: %w", p, err)
			continue
		}
		if _, twice := at[key]; twice {
			alone = append(alone, i)
			continue
		}
		at[key], out[i].Entry = i, e
		p.visible.forget(key)
		items = append(items, bucket.BatchItem{
			Key: key, Size: e.Size, Meta: e.Meta(), MTime: p.timeOf(e, ws[i].Have), New: !plan.Present(ws[i].Have),
			Open: func() (io.ReadCloser, error) { return openWrite(ctx, ws[i]) },
		})
	}
	written, err := p.b.PutBatch(ctx, items)
	many, ok := errors.AsType[*bucket.KeysError](err)
	if err != nil && !ok {
		for _, i := range at {
			out[i].Err = explain(err)
		}
		return alone
	}
	if ok {
		alone = append(alone, p.failed(ctx, ws, many, at, out)...)
	}
	for n, item := range items {
		if o := &out[at[item.Key]]; o.Err == nil && written[n].Confirmed {
			note(&o.Entry, written[n])
			p.visible.saw(item.Key)
		}
	}
	return alone
}

// failed notes what became of the keys that were not stored, and returns those
// that have to be put alone.
func (p *Place) failed(ctx context.Context, ws []place.Write, many *bucket.KeysError, at map[string]int, out []place.Outcome) (alone []int) {
	for _, f := range many.Failed {
		i := at[f.Key]
		switch {
		case errors.Is(f.Err, bucket.ErrHidden):
			out[i].Err = p.hidden(f.Key, "that has the name of one of its directories")
			if !plan.Present(ws[i].Have) { // What was there before is not to go with it.
				out[i].Err = errors.Join(out[i].Err, p.takeBack(ctx, f.Key, ""))
			}
		case ctx.Err() == nil && (errors.Is(f.Err, bucket.ErrKey) || errors.Is(f.Err, bucket.ErrNotStored)):
			alone = append(alone, i)
		default:
			out[i].Err = fmt.Errorf("put %q into %s: %w", f.Key, p, explain(f.Err))
		}
	}
	return alone
}

// unseen notes those of the chosen that would overwrite, or hide, what was not
// seen, and returns the others.
func (p *Place) unseen(ctx context.Context, ws []place.Write, chosen []int, out []place.Outcome) (good []int) {
	keys := make([]wanted, len(chosen))
	conditions := make([]condition, len(chosen))
	for n, i := range chosen {
		conditions[n], out[i].Err = p.conditionOf(ctx, ws[i])
		keys[n] = wanted{ws[i].Entry.Key(), conditions[n].absent}
	}
	for n, f := range p.survey(ctx, keys) {
		i, key, c := chosen[n], keys[n].key, conditions[n]
		switch {
		case out[i].Err != nil:
		case f.err != nil:
			out[i].Err = f.err
		case c.absent && f.there:
			out[i].Err = p.changed("put", key, "there is something now")
		case c.absent && f.below != "":
			out[i].Err = p.changed("put", key, fmt.Sprintf("there is %q, which it would hide", f.below))
		case !c.absent && !f.there:
			out[i].Err = p.changed("put", key, "it is gone")
		case !c.absent && f.object.ETag != c.etag:
			out[i].Err = p.changed("put", key, fmt.Sprintf("its ETag was %q and is %q", c.etag, f.object.ETag))
		default:
			good = append(good, i)
		}
	}
	return good
}
