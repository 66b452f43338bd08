package zfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// Store is where an archive is kept; *bucket.Bucket is one. It may be used
// concurrently.
type Store interface {
	// Put writes an object of size bytes wholly or not at all, and with IfNoneMatch
	// only if there is none: else the error is bucket.ErrPrecondition.
	Put(ctx context.Context, key string, r io.Reader, size int64, o bucket.PutOptions) (bucket.Written, error)
	// Get opens an object, or n bytes from off on unless n is negative. If there is
	// none the error is bucket.ErrNotFound.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Object, error)
	// List lists all objects in the order of their keys, or ends with an error.
	List(ctx context.Context, o bucket.ListOptions) iter.Seq2[bucket.Object, error]
	// Delete deletes objects; those that are not there are fine.
	Delete(ctx context.Context, keys []string) error
}

// Archive is one dataset's snapshots in a bucket. Each point is a stream of zfs
// send, compressed and cut into parts, and an index object, which is written last:
// without it the point is not there. Its methods may be used concurrently.
type Archive struct {
	store Store
}

// NewArchive is the archive in a store that holds nothing else, such as a bucket
// opened with a prefix of its own.
func NewArchive(store Store) *Archive { return &Archive{store: store} }

// Points lists what is archived, oldest first, and in the order of increments where
// snapshots were taken in one second. One index that cannot be read makes
// the error wrap ErrCorrupt, and the others are returned with it: they may still be
// restored.
func (a *Archive) Points(ctx context.Context) ([]Point, error) {
	points, damaged, err := a.points(ctx)
	return points, errors.Join(append(damaged, err)...)
}

// points tells the indexes that cannot be read from what kept it from listing.
func (a *Archive) points(ctx context.Context) (points []Point, damaged []error, err error) {
	for object, err := range a.store.List(ctx, bucket.ListOptions{Prefix: pointPrefix}) {
		if err != nil {
			return nil, nil, fmt.Errorf("list the archive: %w", err)
		}
		p, err := a.point(ctx, object.Key)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				return nil, nil, err
			}
			damaged = append(damaged, err)
			continue
		}
		points = append(points, p)
	}
	depth := depths(points)
	slices.SortStableFunc(points, func(x, y Point) int {
		return cmp.Or(x.Created.Compare(y.Created), byName(x, y), cmp.Compare(depth[x.GUID], depth[y.GUID]))
	})
	return points, damaged, nil
}

// byName orders points of one second, which is all that ZFS tells of their time, by the
// milliseconds in the names that firedrill gives.
func byName(x, y Point) int {
	if !takenName().MatchString(x.Snapshot) || !takenName().MatchString(y.Snapshot) {
		return 0
	}
	return strings.Compare(x.Snapshot, y.Snapshot)
}

// depths tells, of each point that can be restored, how many have to be for it.
func depths(points []Point) map[uint64]int {
	from := make(map[uint64]uint64, len(points))
	for _, p := range points {
		from[p.GUID] = p.From
	}
	depth := map[uint64]int{0: 0} // nothing is below a whole one
	for guid := range from {
		var above []uint64
		at, ok := guid, true
		for ok && len(above) <= len(points) {
			if _, known := depth[at]; known {
				break
			}
			above = append(above, at)
			at, ok = from[at]
		}
		base, known := depth[at]
		if !ok || !known {
			continue
		}
		for i, g := range slices.Backward(above) {
			depth[g] = base + len(above) - i
		}
	}
	delete(depth, 0)
	return depth
}

// point reads one index.
func (a *Archive) point(ctx context.Context, key string) (Point, error) {
	named := pointKey().FindStringSubmatch(key)
	if named == nil {
		return Point{}, fmt.Errorf("archive index %s: %w: it is not named like one", key, ErrCorrupt)
	}
	var raw bytes.Buffer
	if err := a.read(ctx, key, maxIndex, &raw); err != nil {
		return Point{}, fmt.Errorf("archive index %s: %w", key, err)
	}
	p, err := decodePoint(raw.Bytes())
	if err == nil && p.key() != key {
		err = fmt.Errorf("%w: it says that it is %s", ErrCorrupt, p.key())
	}
	if err != nil {
		return Point{}, fmt.Errorf("archive index %s: %w", key, err)
	}
	return p, nil
}

// read reads a whole object of at most limit bytes into an empty buffer.
func (a *Archive) read(ctx context.Context, key string, limit int64, into *bytes.Buffer) error {
	content, o, err := a.store.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }() // it was only read
	if o.Size > 0 && o.Size <= limit {
		into.Grow(int(o.Size) + bytes.MinRead)
	}
	n, err := into.ReadFrom(io.LimitReader(content, limit+1))
	if err != nil {
		return err
	}
	if n > limit {
		return fmt.Errorf("%w: it is larger than %d bytes", ErrCorrupt, limit)
	}
	return nil
}

// Path is the points that together make the one with the guid: a whole one first,
// then the increments up to it. The error wraps ErrNotExist where one is missing.
func Path(points []Point, guid uint64) ([]Point, error) {
	byGUID := make(map[uint64]Point, len(points))
	for _, p := range points {
		byGUID[p.GUID] = p
	}
	var path []Point
	for next := guid; next != 0; {
		p, ok := byGUID[next]
		if !ok {
			if len(path) == 0 {
				return nil, fmt.Errorf("archive: %w: no point has guid %d", ErrNotExist, guid)
			}
			last := path[len(path)-1]
			return nil, fmt.Errorf("archive: %w: %s is an increment to guid %d, which is not in it: choose another point", ErrNotExist, last.Name(), next)
		}
		if len(path) == len(points) {
			return nil, fmt.Errorf("archive: %w: the increments up to %s run in a circle", ErrCorrupt, p.Name())
		}
		path, next = append(path, p), p.From
	}
	slices.Reverse(path)
	return path, nil
}

// Restorable are the guids of the points whose increments all lead back to a whole
// one that is there too.
func Restorable(points []Point) map[uint64]bool {
	out := map[uint64]bool{}
	for guid := range depths(points) {
		out[guid] = true
	}
	return out
}

// Choose finds a point by the name of its snapshot, with its dataset's or without, or
// by its guid; "" is the last in the order of Points that can be restored. The error
// wraps ErrNotExist, or ErrName where several have the name.
func Choose(points []Point, name string) (Point, error) {
	if name == "" {
		good := Restorable(points)
		for _, p := range slices.Backward(points) {
			if good[p.GUID] {
				return p, nil
			}
		}
		return Point{}, fmt.Errorf("archive: %w: it holds no point that can be restored", ErrNotExist)
	}
	var found []Point
	for _, p := range points {
		if name == p.Snapshot || name == p.Name() || name == strconv.FormatUint(p.GUID, 10) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return Point{}, fmt.Errorf("archive: %w: none of its %d points is named %q", ErrNotExist, len(points), name)
	case 1:
		return found[0], nil
	}
	return Point{}, fmt.Errorf("archive: %w: %d points are named %q: choose one by its guid, such as %d", ErrName, len(found), name, found[0].GUID)
}

// Sweep deletes the parts of uploads that were never finished, because they
// crashed, and began before a time: those of a Save that is under way have no index
// either. It returns how many parts it deleted.
func (a *Archive) Sweep(ctx context.Context, before time.Time) (int, error) {
	// Looked at before the indexes: an upload that finishes in between keeps its parts.
	var parts []bucket.Object
	newest := map[string]time.Time{}
	for object, err := range a.store.List(ctx, bucket.ListOptions{Prefix: partPrefix}) {
		if err != nil {
			return 0, fmt.Errorf("sweep the archive: %w", err)
		}
		parts = append(parts, object)
		if upload := uploadOf(object.Key); newest[upload].Before(object.LastModified) {
			newest[upload] = object.LastModified
		}
	}
	points, err := a.Points(ctx)
	if err != nil {
		// The parts of an index that cannot be read might be all that is left of it.
		return 0, fmt.Errorf("sweep the archive: %w", err)
	}
	used := map[string]bool{}
	for _, p := range points {
		used[uploadOf(p.partKey(0))] = true
	}
	var dead []string
	for _, object := range parts {
		if upload := uploadOf(object.Key); !used[upload] && newest[upload].Before(before) {
			dead = append(dead, object.Key)
		}
	}
	if len(dead) == 0 {
		return 0, nil
	}
	if err := a.store.Delete(ctx, dead); err != nil {
		return 0, fmt.Errorf("sweep the archive: %w", err)
	}
	return len(dead), nil
}

// uploadOf is what the keys of one upload begin with.
func uploadOf(key string) string { return key[:strings.LastIndexByte(key, '/')+1] }

// PartError is a part of an archive that is missing or damaged.
type PartError struct {
	// Point is the snapshot it belongs to, Number its place, from 0, of Of parts.
	Point      Point
	Number, Of int
	// Key is the object's in the archive's store.
	Key string
	Err error
}

// Error names the part.
func (e *PartError) Error() string {
	return "archive of " + e.Point.Name() + ": part " + strconv.Itoa(e.Number) + " of " + strconv.Itoa(e.Of) + " (" + e.Key + "): " + e.Err.Error()
}

// Unwrap returns the cause, which wraps ErrCorrupt or bucket.ErrNotFound.
func (e *PartError) Unwrap() error { return e.Err }

func partError(p Point, number int, err error) error {
	return &PartError{Point: p, Number: number, Of: len(p.Parts), Key: p.partKey(number), Err: err}
}
