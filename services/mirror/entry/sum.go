package entry

import "strings"

// Without gives s as if the hashes named by h were not known.
func (s Sum) Without(h Has) Sum {
	s.Has &^= h
	if h&HasBLAKE3 != 0 {
		s.BLAKE3 = [32]byte{}
	}
	if h&HasCRC32C != 0 {
		s.CRC32C = 0
	}
	if h&HasETag != 0 {
		s.ETag = ""
	}
	if h&HasPartSize != 0 {
		s.PartSize = 0
	}
	return s
}

// SameAs compares two contents of one size by the best hash that is known of both:
// known is false where there is none. It takes each hash for one that was computed
// of the content. Of an object that is so for its ETag only, and for its CRC32C
// where the server keeps one: whatever else is known of it until it is read is what
// its writer says, and is taken away with [Sum.Without] before it decides anything.
func (s Sum) SameAs(other Sum) (known, same bool) {
	switch both := s.Has & other.Has; {
	case both&HasBLAKE3 != 0:
		return true, s.BLAKE3 == other.BLAKE3
	case both&HasETag != 0 && (s.ETag == other.ETag || s.ETagTells(other)):
		return true, s.ETag == other.ETag
	case both&HasCRC32C != 0:
		return true, s.CRC32C == other.CRC32C
	}
	return false, false
}

// ETagTells reports whether an unequal ETag of the other means unequal content: those of
// objects in parts depend on the parts' size too.
func (s Sum) ETagTells(other Sum) bool {
	parts := strings.Contains(s.ETag, "-") || strings.Contains(other.ETag, "-")
	return !parts || s.Contains(HasPartSize) && other.Contains(HasPartSize) && s.PartSize == other.PartSize
}

// Shared gives what both sides know of the content that they hold at one key. That
// they were taken for equal, by their times or sizes, does not make the hash of one
// that of the other: without an equal hash of both nothing is known of them together.
// A CRC32C is too short to make the BLAKE3 of one side that of both: it may be one
// that nobody has computed.
func (s Sum) Shared(other Sum) Sum {
	both := s.Has & other.Has
	blake, crc := both&HasBLAKE3 != 0, both&HasCRC32C != 0
	switch {
	case blake && s.BLAKE3 != other.BLAKE3, crc && s.CRC32C != other.CRC32C:
		return Sum{}
	case blake, both&HasETag != 0 && s.ETag == other.ETag:
		return s.Merge(other)
	case crc: // whatever the ETags are: not every store's are MD5s
		return s.Without(HasBLAKE3).Merge(other.Without(HasBLAKE3))
	}
	return Sum{}
}

// Merge gives what is known of one content from two memories of it. Where both know a
// hash, s has the word. Memories of two sides are of one content only if that was
// shown; see [Sum.Shared].
func (s Sum) Merge(other Sum) Sum {
	if !s.Contains(HasBLAKE3) && other.Contains(HasBLAKE3) {
		s.BLAKE3, s.Has = other.BLAKE3, s.Has|HasBLAKE3
	}
	if !s.Contains(HasCRC32C) && other.Contains(HasCRC32C) {
		s.CRC32C, s.Has = other.CRC32C, s.Has|HasCRC32C
	}
	if !s.Contains(HasETag) && other.Contains(HasETag) {
		s.ETag, s.Has = other.ETag, s.Has|HasETag
		if other.Contains(HasPartSize) {
			s.PartSize, s.Has = other.PartSize, s.Has|HasPartSize
		}
	}
	if !s.Contains(HasPartSize) && other.Contains(HasPartSize|HasETag) && s.ETag == other.ETag {
		s.PartSize, s.Has = other.PartSize, s.Has|HasPartSize
	}
	return s
}
