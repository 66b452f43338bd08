package zfs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// uploads is how many parts travel at once. Each takes partSize bytes of memory, and
// so does the one that is being filled.
const uploads = 3

// SaveOptions say what is archived and how.
type SaveOptions struct {
	// Job names the hold on the newest archived snapshot. It belongs to this dataset
	// and this archive alone.
	Job string
	// BytesPerSecond bounds the streams before their compression; 0 does not.
	BytesPerSecond int64
	// WholeEvery makes a point whole, and no increment, whose snapshot was taken so long
	// after that of the newest whole one that it builds on; 0 makes none. An increment
	// needs all before it, so that without whole ones no point can ever be let go.
	WholeEvery time.Duration
	// Watch, if not nil, is told how far it is, often and from another goroutine.
	Watch func(Progress)
}

// Save archives the snapshots of a dataset that came after the newest archived one,
// each as an increment to the one before it, and the first whole if the archive has
// none of the dataset's. It returns the points that are there now and were not
// before, with an error too. One that is there and damaged is written again. A
// broken-off Save leaves nothing of the point that was under way, or, after a crash,
// what Sweep deletes. The archive of another dataset is ErrOther.
func (a *Archive) Save(ctx context.Context, h *Host, dataset string, o SaveOptions) ([]Point, error) {
	if err := errors.Join(checkDataset(dataset), checkJob(o.Job)); err != nil {
		return nil, err
	}
	behind, damaged, err := a.behind(ctx, h, dataset)
	if err != nil {
		return nil, err
	}
	common, send := behind.common, behind.send
	taken := held(behind.snapshots)
	if common != nil {
		taken = append(taken, *common)
		if err := h.Hold(ctx, *common, o.Job); err != nil {
			return nil, err
		}
	}
	var done []Point
	whole := behind.whole
	for i, next := range send {
		if err := h.Hold(ctx, next, o.Job); err != nil {
			return done, err
		}
		at := Progress{Snapshot: next.String(), Number: i + 1, Of: len(send)}
		from := common
		if from == nil || o.WholeEvery > 0 && next.Created.Sub(whole) >= o.WholeEvery {
			from, whole = nil, next.Created
		}
		p, err := a.save(ctx, h, from, next, o.BytesPerSecond, at.watch(o.Watch))
		if err != nil {
			return done, fmt.Errorf("archive %s: %w", next, err)
		}
		done, common = append(done, p), &next
	}
	err = holdOnly(ctx, h, append(taken, send...), *common, o.Job)
	return done, errors.Join(err, damaged)
}

// Lacks lists what Save would archive, oldest first, and changes nothing. The error is
// what Save would fail with, as far as that can be known: where it wraps ErrCorrupt, all
// that is listed would be archived all the same.
func (a *Archive) Lacks(ctx context.Context, h *Host, dataset string) ([]Snapshot, error) {
	if err := checkDataset(dataset); err != nil {
		return nil, err
	}
	l, damaged, err := a.behind(ctx, h, dataset)
	return l.send, errors.Join(err, damaged)
}

// lag is what an archive lacks of a dataset.
type lag struct {
	snapshots []Snapshot
	// common is the newest snapshot that can be restored from it; send are those after.
	common *Snapshot
	send   []Snapshot
	// whole is when the whole point that common builds on was taken.
	whole time.Time
}

// behind sees what an archive lacks. damaged is what is wrong with its indexes, which
// keeps nobody from adding to it.
func (a *Archive) behind(ctx context.Context, h *Host, dataset string) (l lag, damaged, err error) {
	if l.snapshots, err = h.Snapshots(ctx, dataset); err != nil {
		return lag{}, nil, err
	}
	archived, damaged := a.Points(ctx)
	if damaged != nil && !errors.Is(damaged, ErrCorrupt) {
		return lag{}, nil, fmt.Errorf("archive %s: %w", dataset, damaged)
	}
	l.common, l.send = unsaved(l.snapshots, archived)
	switch {
	case l.common != nil:
		path, err := Path(archived, l.common.GUID)
		if err != nil {
			return lag{}, nil, err
		}
		l.whole = path[0].Created
	case len(archived) > 0 && !slices.ContainsFunc(archived, func(p Point) bool { return p.Dataset == dataset }):
		return l, nil, fmt.Errorf("archive %s: %w, %s: give each dataset a prefix of its own", dataset, ErrOther, archived[0].Dataset)
	case len(l.send) == 0:
		return l, damaged, fmt.Errorf("archive %s: %w: take one first", dataset, ErrNoSnapshots)
	}
	return l, damaged, nil
}

// unsaved finds the newest snapshot that can be restored from the archive, and
// those after it.
func unsaved(snapshots []Snapshot, archived []Point) (common *Snapshot, send []Snapshot) {
	var target []Snapshot
	for guid := range depths(archived) {
		target = append(target, Snapshot{GUID: guid})
	}
	c := Compare(snapshots, target)
	return c.Common, c.Send
}

// save archives one snapshot.
func (a *Archive) save(ctx context.Context, h *Host, from *Snapshot, to Snapshot, bytesPerSecond int64, watch func(int64)) (p Point, err error) {
	p = Point{
		Version: indexVersion, Compression: compression, Dataset: to.Dataset, Snapshot: to.Name,
		Created: to.Created, GUID: to.GUID, Upload: strings.ToLower(rand.Text()[:16]),
	}
	if from != nil {
		p.From = from.GUID
	}
	w := newPartWriter(ctx, a.store, p)
	there := p
	defer func() {
		if err != nil || there.Upload != p.Upload {
			err = errors.Join(err, w.abandon(ctx))
		}
		w.cancel(nil)
	}()
	p.Stream, err = compressed(ctx, h, sendArgv(from, to), w, bytesPerSecond, watch)
	if p.Parts, err = w.finish(err); err != nil {
		return Point{}, err
	}
	there, err = a.publish(ctx, p)
	return there, err
}

// publish writes the index, by which the point is there, and returns what is there:
// a good one that was there before stays.
func (a *Archive) publish(ctx context.Context, p Point) (Point, error) {
	raw, err := p.encode()
	if err != nil {
		return Point{}, err
	}
	put := func(o bucket.PutOptions) error {
		_, err := a.store.Put(ctx, p.key(), bytes.NewReader(raw), int64(len(raw)), o)
		return err
	}
	if err = put(bucket.PutOptions{IfNoneMatch: true}); errors.Is(err, bucket.ErrPrecondition) {
		there, why := a.point(ctx, p.key())
		if why == nil {
			return there, nil
		}
		// A damaged one is why this point was made again.
		if err = why; errors.Is(why, ErrCorrupt) {
			err = put(bucket.PutOptions{})
		}
	}
	if err != nil {
		return Point{}, fmt.Errorf("write its index: %w", err)
	}
	return p, nil
}

// compressed runs a send and writes its compressed stream to w.
func compressed(ctx context.Context, h *Host, send []string, w *partWriter, bytesPerSecond int64, watch func(int64)) (Stream, error) {
	// Compressing has a core to itself, and sending goes on meanwhile.
	packer, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return Stream{}, err
	}
	m := newMeter(ctx, packer, bytesPerSecond, watch)
	err = h.run(ctx, nil, m, send...)
	// Closed after an error as well: it has goroutines.
	if closed := packer.Close(); err == nil {
		err = closed
	}
	return m.stream(), err
}

// partWriter cuts what is written to it into parts and uploads them.
type partWriter struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	store   Store
	point   Point
	filling []byte
	parts   []Part
	// empty are buffers that may be filled.
	empty   chan []byte
	uploads sync.WaitGroup
}

func newPartWriter(ctx context.Context, store Store, p Point) *partWriter {
	w := &partWriter{store: store, point: p, empty: make(chan []byte, uploads+1)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	for range uploads + 1 {
		w.empty <- nil
	}
	return w
}

// Write implements io.Writer. It waits while all buffers travel.
func (w *partWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		if w.filling == nil {
			select {
			case w.filling = <-w.empty:
			case <-w.ctx.Done():
				return done, context.Cause(w.ctx)
			}
		}
		n := min(len(p)-done, partSize-len(w.filling))
		if need := len(w.filling) + n; need > cap(w.filling) {
			// Most increments are small: a buffer grows to what it has to hold.
			grown := make([]byte, len(w.filling), min(partSize, max(2*cap(w.filling), need)))
			copy(grown, w.filling)
			w.filling = grown
		}
		w.filling = append(w.filling, p[done:done+n]...)
		if done += n; len(w.filling) == partSize {
			w.upload()
		}
	}
	return len(p), nil
}

// upload sends the filled buffer on its way.
func (w *partWriter) upload() {
	full, number := w.filling, len(w.parts)
	w.filling = nil
	part := Part{Size: int64(len(full)), CRC32C: crc32.Checksum(full, castagnoli()), BLAKE3: blake3.Sum256(full)}
	w.parts = append(w.parts, part)
	w.uploads.Go(func() {
		_, err := w.store.Put(w.ctx, w.point.partKey(number), bytes.NewReader(full), part.Size, bucket.PutOptions{CRC32C: &part.CRC32C})
		if err != nil {
			w.cancel(err)
		}
		w.empty <- full[:0]
	})
}

// castagnoli is the table of CRC32C, of which the standard library keeps one.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// finish uploads what is left, unless there was an error, and waits for all.
func (w *partWriter) finish(err error) ([]Part, error) {
	if err == nil && len(w.filling) > 0 {
		w.upload()
	}
	w.uploads.Wait()
	// An upload that failed is why the rest did.
	if cause := context.Cause(w.ctx); cause != nil {
		err = cause
	}
	return w.parts, err
}

// abandon deletes what was uploaded, also when the context has ended.
func (w *partWriter) abandon(ctx context.Context) error {
	if len(w.parts) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	keys := make([]string, len(w.parts))
	for i := range keys {
		keys[i] = w.point.partKey(i)
	}
	if err := w.store.Delete(ctx, keys); err != nil {
		return fmt.Errorf("delete the parts of a broken-off upload: %w", err)
	}
	return nil
}
