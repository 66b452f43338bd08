package plan

import (
	"bytes"
	"maps"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// verdict is what can be said of two contents without reading them.
type verdict uint8

const (
	same verdict = iota
	doubtful
	changed
)

// since compares what a side holds with what it held after the last run.
func (r *Rules) since(now, past entry.Entry, s Side, dirty bool) verdict {
	if v, ok := shape(now, past, r.Lists[s]); ok {
		return v
	}
	if known, equal := now.Sum.SameAs(past.Sum); known {
		return choose(equal, same, changed)
	}
	if now.Sum.Contains(entry.HasETag) && past.Sum.Contains(entry.HasETag) && now.Sum.ETag != past.Sum.ETag {
		return changed // in parts of another size, maybe; but written again
	}
	switch {
	case r.Audit:
		return doubtful
	case r.Lists[s]&AttrMTime == 0:
		return doubtful
	case !r.sameTime(now.MTime, past.MTime):
		return changed
	case dirty:
		return doubtful
	case now.Change == entry.Change{} && past.Change == entry.Change{}:
		return same
	case now.Change != past.Change:
		// Size and time can be put back after an edit; this cannot.
		return doubtful
	}
	return same
}

// between compares what the two sides hold.
func (r *Rules) between(source, dest entry.Entry) verdict {
	attrs := r.Lists[Source] & r.Lists[Dest]
	if v, ok := shape(source, dest, attrs); ok {
		return v
	}
	if known, equal := source.Sum.SameAs(dest.Sum); known {
		return choose(equal, same, changed)
	}
	switch {
	case r.Audit || r.Trust == TrustHashes:
		return doubtful
	case r.Trust == TrustSize:
		return same
	case attrs&AttrMTime == 0:
		return doubtful
	}
	return choose(r.sameTime(source.MTime, dest.MTime), same, changed)
}

// rotten reports whether a side's content, which was read, is not what both sides were
// left with, although nothing has touched it since: nobody means that to be copied.
func rotten(f *found, s Side) bool {
	now, past := f.at(s), f.past.At(s)
	if !f.read[s] || f.past.Dirty[s] || now.Kind != entry.File || past.Kind != entry.File || now.Size != past.Size ||
		now.MTime != past.MTime || now.Change != past.Change || now.Change == (entry.Change{}) {
		return false
	}
	if known, equal := past.Sum.SameAs(f.past.At(s.Other()).Sum); !known || !equal {
		return false // It was never read on both sides.
	}
	known, equal := now.Sum.SameAs(past.Sum)
	return known && !equal
}

// shape compares what needs no hash; false where a hash has to tell.
func shape(a, b entry.Entry, known Attr) (v verdict, ok bool) {
	if (a.Kind == entry.Dir) != (b.Kind == entry.Dir) {
		return changed, true
	}
	if a.Kind == entry.Dir {
		return same, true
	}
	if known&AttrKind != 0 {
		if a.Kind != b.Kind {
			return changed, true
		}
		switch a.Kind {
		case entry.Symlink:
			if a.Target != "" && b.Target != "" {
				return choose(a.Target == b.Target, same, changed), true
			}
		case entry.CharDevice, entry.BlockDevice:
			return choose(a.Device == b.Device, same, changed), true
		case entry.Fifo, entry.Socket:
			return same, true
		}
	}
	return changed, a.Size != b.Size
}

func choose(cond bool, yes, no verdict) verdict {
	if cond {
		return yes
	}
	return no
}

func (r *Rules) sameTime(a, b int64) bool {
	low, high := min(a, b), max(a, b)
	// Unsigned, as the distance of two int64 may not fit into one.
	gap := uint64(high) - uint64(low)
	return gap == 0 || gap < uint64(max(r.Grain, 0))
}

// proven gives what may be believed of the hashes that an object was listed with. All
// but its ETag are its metadata's: whoever writes another content may leave them as
// they were. past is what was known of it after the last run, other what was then known
// of the other side.
func (r *Rules) proven(now, past, other entry.Sum) entry.Sum {
	if !now.Contains(entry.HasETag) {
		return now
	}
	again := past.Contains(entry.HasETag) && past.ETag != now.ETag && now.ETagTells(past)
	stale := again && (now.Contains(entry.HasBLAKE3) && past.Contains(entry.HasBLAKE3) && now.BLAKE3 == past.BLAKE3 ||
		now.Contains(entry.HasCRC32C) && past.Contains(entry.HasCRC32C) && now.CRC32C == past.CRC32C)
	if !r.Audit && !stale {
		return now
	}
	now.Has &^= entry.HasBLAKE3 | entry.HasCRC32C
	now.BLAKE3, now.CRC32C = [32]byte{}, 0
	// An ETag need not be an MD5, so that nothing could be compared with it but itself.
	if now.ETag == past.ETag && past.Has&other.Has&entry.HasBLAKE3 != 0 && past.BLAKE3 == other.BLAKE3 {
		now = now.Merge(past) // which was read on one side, and compared
	}
	return now
}

// hashless reports whether nothing is known of a content that the hashes of another
// one could be compared with: an ETag of parts of an unknown size cannot be made again.
func hashless(s entry.Sum) bool {
	parts := strings.Contains(s.ETag, "-") && !s.Contains(entry.HasPartSize)
	return s.Has&(entry.HasBLAKE3|entry.HasCRC32C) == 0 && (!s.Contains(entry.HasETag) || parts)
}

// differ reports whether any of the attributes differs. A directory's time is no
// attribute: it says that its list of names changed, and the plan sees that for
// itself.
func (r *Rules) differ(a, b *entry.Entry, attrs Attr) bool {
	switch {
	case attrs&AttrMTime != 0 && a.Kind != entry.Dir && !r.sameTime(a.MTime, b.MTime):
	case attrs&AttrMode != 0 && a.Kind != entry.Symlink && a.Mode != b.Mode:
	case attrs&AttrOwner != 0 && (a.UID != b.UID || a.GID != b.GID):
	case attrs&AttrXattrs != 0 && !maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal):
	default:
		return false
	}
	return true
}
