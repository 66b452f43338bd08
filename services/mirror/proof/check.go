package proof

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/zeebo/blake3"
)

// Evidence says how what a location holds was learned.
type Evidence struct {
	// Level is what the hashes in the stream are worth: L1 for the ETags of a
	// listing, L2 for checksums that the location keeps, L3 for hashes of content
	// read within the rolling period, L4 for hashes of content read now: in these
	// two the stream's sums hold no hash that was not computed from what was read.
	// An entry whose hash is worth less is counted for less.
	Level Level
	// Metadata says that the stream carries kinds and attributes, so that they
	// can be compared.
	Metadata bool
	// Vouched says that the stream's sums are those of contents that were read, now
	// or at a time since which nothing touched them: then a BLAKE3, or an ETag that
	// was computed, is worth Level, whatever that is.
	Vouched bool
	// Less, if not nil, is asked by [Check] about each entry that it compares, once and
	// in their order, when the location's stream has yielded the entry last. If why is
	// not "", what is known of that entry is worth level only, and vouched stands in
	// place of Vouched.
	Less func(key string) (level Level, vouched bool, why string)
	// Claimed, if not nil, reports whether what the location holds at a key, and the manifest
	// does not know, is somebody else's: then it is not extra.
	Claimed func(key string) bool
	// Unread, if not nil, is asked like Less why the content could not be learnt; "" where
	// it could, or nobody tried.
	Unread func(key string) (why string)
}

// Check compares what a location holds with its manifest; both streams are sorted
// by key. The listing must be complete: an error in either stream is returned, and
// the verdict then has no level. Modification times of directories are not
// compared. A directory that is there only because something that should be there
// lies in it is not extra: a bucket that was the source has nothing that stands for
// it.
func Check(want, got iter.Seq2[entry.Entry, error], how Evidence) (Verdict, error) {
	c := check{how: how}
	if how.Level < L1 || how.Level > L4 {
		return Verdict{}, fmt.Errorf("check against the manifest: %v is no evidence; give L1 to L4", how.Level)
	}
	w, g := newSide("manifest", want), newSide("location", got)
	defer w.stop()
	defer g.stop()
	for {
		if w.err != nil || g.err != nil {
			return c.v, firstError(w.err, g.err) // without a level
		}
		switch {
		case !w.ok && !g.ok:
			return c.verdict(), nil
		case !g.ok || w.ok && w.key < g.key:
			c.v.Missing.Add(w.key, loneWords[w.head.Lone].missing)
			w.advance()
		case !w.ok || g.key < w.key:
			switch {
			case how.Claimed != nil && how.Claimed(g.key):
				c.v.Claimed++
			case g.head.Kind != entry.Dir || !w.ok || !strings.HasPrefix(w.key, g.key):
				c.v.Extra.Add(g.key, "")
			}
			g.advance()
		default:
			c.compare(w.key, w.head, g.head)
			w.advance()
			g.advance()
		}
	}
}

// loneWords say what an entry is found to be whose manifest has it on one side only, or on
// both.
var loneWords = [...]struct{ there, missing, unread string }{
	entry.NotLone: {
		unread: "no run has read it, so that no hash is known to compare with: `firedrill mirror sync --check audit` reads it",
	},
	entry.Kept: {
		there:   "the source had it no more, and this mirror removes nothing",
		missing: "it was kept at the destination only: the source had it no more",
		unread:  "it went from the source before any run read it, so that no hash is known to compare with: remove it from the destination, or copy it back to the source",
	},
	entry.GoneSource: waiting("source", "destination"),
	entry.GoneDest:   waiting("destination", "source"),
}

// waiting are the words for what is gone from one side, and waits for deletion on the other.
func waiting(gone, holds string) struct{ there, missing, unread string } {
	return struct{ there, missing, unread string }{
		there:   fmt.Sprintf("gone from the %s, and kept in the %s until a run deletes it, which the guards may hold back", gone, holds),
		missing: fmt.Sprintf("the %s had it no more, and a run was to delete it here: somebody else has removed it", gone),
		unread:  fmt.Sprintf("it went from the %s before any run read it, so that no hash is known to compare with, until a run deletes it here", gone),
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("check against the manifest: %w", err)
		}
	}
	return nil
}

// side is one of the streams with its next entry.
type side struct {
	name string
	next func() (entry.Entry, error, bool)
	stop func()
	head entry.Entry
	key  string
	any  bool
	ok   bool
	err  error
}

func newSide(name string, seq iter.Seq2[entry.Entry, error]) *side {
	s := &side{name: name}
	s.next, s.stop = iter.Pull2(seq)
	s.advance()
	return s
}

func (s *side) advance() {
	s.head, s.err, s.ok = s.next()
	if !s.ok || s.err != nil {
		return
	}
	key := s.head.Key()
	if s.any && key <= s.key {
		s.err = fmt.Errorf("%s: %w: %q behind %q", s.name, ErrOrder, key, s.key)
	}
	s.key, s.any = key, true
}

type check struct {
	how Evidence
	v   Verdict
	any bool
}

// verdict ends the check. Where there was nothing to compare, nothing was checked: that
// both are empty is what a lost manifest and a lost disk look like.
func (c *check) verdict() Verdict {
	v := c.v
	v.Level, v.Asked = c.how.Level, c.how.Level
	if !c.any {
		v.Level = LevelNone
	}
	for l := LevelNone; l < v.Level; l++ {
		if v.At[l] > 0 {
			v.Level = l
		}
	}
	return v
}

func (c *check) compare(key string, want, got entry.Entry) {
	c.any = true
	how, low := c.how, ""
	if how.Less != nil {
		if level, vouched, why := how.Less(key); why != "" {
			how.Level, how.Vouched, low = level, vouched, why
		}
	}
	unread := ""
	if how.Unread != nil {
		unread = how.Unread(key)
	}
	level, detail := Compare(want, got, how)
	words := loneWords[want.Lone]
	switch {
	case detail != "" || want.Lone == entry.NotLone:
	case want.Lone == entry.Kept:
		c.v.Kept.Add(key, words.there)
	default:
		c.v.Waiting.Add(key, words.there)
	}
	if detail == "" && level == LevelNone && unread != "" {
		c.v.Unread++
	}
	switch {
	case detail != "":
		c.v.Different.Add(key, detail)
	case level == LevelNone && want.Sum.Has == 0:
		c.v.Unchecked.Add(key, words.unread)
	case level == LevelNone && unread != "":
		c.v.Unchecked.Add(key, "it could not be read: "+unread)
	case level == LevelNone:
		c.v.Unchecked.Add(key, "no hash is known on both sides")
	case level < c.how.Level && low != "":
		c.v.Low.Add(key, low)
	case level < c.how.Level:
		c.v.Low.Add(key, fmt.Sprintf("what is known of it on both sides is worth %v", level))
	}
	c.v.At[level]++
	if level == LevelNone {
		return
	}
	c.v.Checked++
	if detail == "" && c.how.Metadata {
		if detail := attributes(want, got); detail != "" {
			c.v.MetadataOnly.Add(key, detail)
			if got.UID, got.GID = want.UID, want.GID; attributes(want, got) == "" {
				c.v.Owners++
			}
		}
	}
}

// Compare compares what a location holds at a key with the manifest's entry of it, as
// [Check] does. It gives the level that the comparison is worth, and what of the
// content differs; "" for nothing.
func Compare(want, got entry.Entry, how Evidence) (Level, string) {
	most := how.Level
	if (want.Kind == entry.Dir) != (got.Kind == entry.Dir) || how.Metadata && want.Kind != got.Kind {
		return most, fmt.Sprintf("is a %v, not a %v", got.Kind, want.Kind)
	}
	if want.Kind == entry.Dir {
		return most, ""
	}
	if want.Size != got.Size {
		return most, fmt.Sprintf("has %d bytes, not %d", got.Size, want.Size)
	}
	if want.Kind != entry.File && how.Metadata {
		if want.Device != got.Device {
			return most, "is another device"
		}
		if want.Kind != entry.Symlink {
			return most, ""
		}
		if got.Target != "" {
			if got.Target != want.Target {
				return most, "points elsewhere"
			}
			return most, ""
		}
	}
	if want.Kind != entry.File && !want.Sum.Contains(entry.HasETag) {
		// Its object's body is known from the manifest.
		body := want.Body()
		sum := md5.Sum(body)
		want.Sum = entry.Sum{Has: entry.HasETag | entry.HasBLAKE3, ETag: hex.EncodeToString(sum[:]), BLAKE3: blake3.Sum256(body)}
	}
	return hashes(want.Sum, got.Sum, how)
}

// hashes compares by all hashes that both know. A hash that does not come with the
// evidence, such as the BLAKE3 in an object's metadata, can show that contents
// differ, and not that they are equal. Of a content that was read, a CRC32C alone
// is too short to show that; an ETag, which is made of MD5s, is enough against all
// but somebody who forges contents.
func hashes(want, got entry.Sum, how Evidence) (Level, string) {
	most := how.Level
	both := want.Has & got.Has
	level := LevelNone
	if both&entry.HasETag != 0 && (want.ETag == got.ETag || want.ETagTells(got)) {
		if want.ETag != got.ETag {
			return most, fmt.Sprintf("has the ETag %q, not %q", got.ETag, want.ETag)
		}
		if level = L1; most >= L3 || how.Vouched {
			level = most
		}
	}
	if both&entry.HasCRC32C != 0 {
		if want.CRC32C != got.CRC32C {
			return most, fmt.Sprintf("has the CRC32C %08x, not %08x", got.CRC32C, want.CRC32C)
		}
		if most >= L2 {
			level = max(level, L2)
		}
	}
	if both&entry.HasBLAKE3 != 0 {
		if want.BLAKE3 != got.BLAKE3 {
			return most, fmt.Sprintf("has the BLAKE3 %v, not %v", Hash(got.BLAKE3), Hash(want.BLAKE3))
		}
		if most >= L3 || how.Vouched {
			level = most
		}
	}
	return level, ""
}

// attributes says what differs besides the content.
func attributes(want, got entry.Entry) string {
	switch {
	case want.Kind != entry.Symlink && want.Mode != got.Mode:
		return fmt.Sprintf("has the mode %04o, not %04o", got.Mode, want.Mode)
	case want.UID != got.UID || want.GID != got.GID:
		return fmt.Sprintf("belongs to %d:%d, not %d:%d", got.UID, got.GID, want.UID, want.GID)
	case want.Kind != entry.Dir && want.MTime != got.MTime:
		return "has another modification time"
	case !maps.EqualFunc(want.Xattrs, got.Xattrs, bytes.Equal):
		return "has other extended attributes"
	}
	return ""
}
