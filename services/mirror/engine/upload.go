package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// UploadsName is the document in the Store that holds the uploads under way of files
// that are split, so that the next run goes on with them, or frees what they hold. The
// parts of each are in a document of their own: they change all the time, the rest does
// not, and there may be many uploads with thousands of parts.
const UploadsName = "uploads"

// upload is an upload in parts as it is remembered.
type upload struct {
	To plan.Side `json:"to"`
	// Place is the identity of the place that it is in; "" if that has none.
	Place string `json:"place,omitempty"`
	// Entry is the file, with its identity, in the form of package wire.
	Entry []byte `json:"entry"`
	Token []byte `json:"token"`
	// Size is that of the parts, in bytes; Began is when the first may have been read.
	Size  int64     `json:"size"`
	Began time.Time `json:"began"`
	// Parts are what the place said of each part; nil of those that are missing. In
	// the document of all uploads only earlier versions have them.
	Parts [][]byte `json:"parts,omitempty"`

	// old says that an earlier run began it, and this one has not gone on with it.
	old bool
}

// missing gives the parts that are not there yet, in ranges of about so many bytes.
func (u *upload) missing(bytes int64) []PartRange {
	most := int(max(1, bytes/u.Size))
	var out []PartRange
	for i, part := range u.Parts {
		if part != nil {
			continue
		}
		if n := len(out); n > 0 && out[n-1].First+out[n-1].Count == i+1 && out[n-1].Count < most {
			out[n-1].Count++
			continue
		}
		out = append(out, PartRange{Token: u.Token, Size: u.Size, First: i + 1, Count: 1})
	}
	return out
}

// is reports whether the upload is of a file as it is now. Of what was young when its
// first part was read, nothing tells whether it was touched since.
func (u *upload) is(e entry.Entry) bool {
	then, _, err := wire.ReadEntry(u.Entry)
	if err != nil || !sameEntry(&then, &e) || u.Size <= 0 || len(u.Parts) != partCount(e.Size, u.Size) {
		return false
	}
	if e.Change.FS == (entry.FSID{}) {
		return !e.Change.OfInode() && e.Sum.Contains(entry.HasETag)
	}
	return e.Change.CTime < u.Began.Add(-young).UnixNano()
}

// young is the coarsest step of file times.
const young = 2 * time.Second

// uploads are those of a run, kept in the Store. They may be used concurrently.
type uploads struct {
	store Store

	mu  sync.Mutex
	all []*upload
}

// load reads what earlier runs left.
func (s *uploads) load() error {
	if _, err := s.store.Load(UploadsName, &s.all); err != nil {
		return fmt.Errorf("read which uploads are under way: %w", err)
	}
	s.all = slices.DeleteFunc(s.all, func(u *upload) bool { return u == nil || u.To > plan.Dest })
	for _, u := range s.all {
		u.old = true
		var parts [][]byte
		switch known, err := s.store.Load(u.partsName(), &parts); {
		case err != nil:
			return fmt.Errorf("read which parts of an upload are there: %w", err)
		case known:
			u.Parts = parts
		case u.Parts == nil:
			u.Parts = u.none()
		default: // of an earlier version
			if err := s.saveParts(u); err != nil {
				return err
			}
		}
	}
	return nil
}

// none are the parts of an upload of which no part was put. There is none of what no
// upload could be of.
func (u *upload) none() [][]byte {
	e, _, err := wire.ReadEntry(u.Entry)
	if err != nil || u.Size <= 0 || e.Size <= 0 || (e.Size-1)/u.Size >= maxParts {
		return nil
	}
	return make([][]byte, partCount(e.Size, u.Size))
}

// partsName is the document that holds an upload's parts.
func (u *upload) partsName() string {
	sum := blake3.Sum256(u.Token)
	return "upload-" + hex.EncodeToString(sum[:16])
}

// save remembers which uploads there are. It is called with the lock held.
func (s *uploads) save() error {
	all := make([]upload, len(s.all))
	for i, u := range s.all {
		all[i] = *u
		all[i].Parts = nil
	}
	if err := s.store.Save(UploadsName, all); err != nil {
		return fmt.Errorf("remember which uploads are under way: %w", err)
	}
	return nil
}

// saveParts remembers the parts of one upload. It is called with the lock held.
func (s *uploads) saveParts(u *upload) error {
	if err := s.store.Save(u.partsName(), u.Parts); err != nil {
		return fmt.Errorf("remember which parts of an upload are there: %w", err)
	}
	return nil
}

// resume gives the upload that an earlier run left of a file in a place of that identity;
// nil if none fits.
func (s *uploads) resume(to plan.Side, identity string, e entry.Entry) *upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.all {
		if u.old && u.To == to && !u.elsewhere(identity) && u.is(e) {
			u.old = false
			return u
		}
	}
	return nil
}

// elsewhere reports whether the upload is in another place than the one with an identity.
func (u *upload) elsewhere(identity string) bool { return u.Place != "" && u.Place != identity }

// begin remembers an upload, in a place of that identity, before its first part is put.
func (s *uploads) begin(to plan.Side, identity string, e entry.Entry, token []byte, size int64, at time.Time) (*upload, error) {
	u := &upload{To: to, Place: identity, Entry: wire.AppendEntry(nil, e), Token: token, Size: size, Began: at, Parts: make([][]byte, partCount(e.Size, size))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, u)
	return u, s.save()
}

// put remembers parts, from a number on.
func (s *uploads) put(u *upload, first int, parts [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(u.Parts[first-1:], parts)
	return s.saveParts(u)
}

// end forgets an upload.
func (s *uploads) end(u *upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Its parts first: as long as the upload is remembered somebody finds them.
	if err := s.store.Remove(u.partsName()); err != nil {
		return fmt.Errorf("forget the parts of an upload: %w", err)
	}
	s.all = slices.DeleteFunc(s.all, func(one *upload) bool { return one == u })
	return s.save()
}

// abort frees what an upload holds. If that fails the next run tries again.
func (s *uploads) abort(ctx context.Context, to place.Parts, u *upload) error {
	if err := to.AbortParts(ctx, u.Token); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		u.old = true
		return err
	}
	return s.end(u)
}

// abandon frees what earlier runs left that nobody goes on with. It gives the uploads
// that it forgets although they remain, as they are in a place that is no longer the
// mirror's: its name leads to another one now.
func (s *uploads) abandon(ctx context.Context, places [2]place.Place) (remain []LeftUpload, err error) {
	s.mu.Lock()
	left := slices.DeleteFunc(slices.Clone(s.all), func(u *upload) bool { return !u.old })
	s.mu.Unlock()
	var errs []error
	for _, u := range left {
		to, ok := places[u.To].(place.Parts)
		if ok && !u.elsewhere(places[u.To].Traits().Identity) {
			errs = append(errs, s.abort(ctx, to, u))
			continue
		}
		one := LeftUpload{Place: u.Place, Began: u.Began}
		if e, _, err := wire.ReadEntry(u.Entry); err == nil {
			one.Key = e.Key()
		}
		remain = append(remain, one)
		errs = append(errs, s.end(u))
	}
	return remain, errors.Join(errs...)
}

// freeUploads ends a run that came to its end.
func (r *run) freeUploads() (err error) {
	r.report.LeftUploads, err = r.uploads.abandon(r.ctx, r.Places)
	return err
}
