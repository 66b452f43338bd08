package proof

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// ErrEntry means that an entry cannot be written into a manifest.
var ErrEntry = errors.New("the entry has no line in a manifest")

// maxLine is how many bytes a line may have, so that a reader need not take what
// never ends.
const maxLine = 1 << 20

// loneMarks are what the line of an entry that only one side holds ends with. No other
// line has one, so that manifests without such an entry are what they ever were; who does
// not know a mark refuses the line, and does not take the entry for one of both sides.
var loneMarks = [...]string{entry.Kept: `,"kept":true`, entry.GoneSource: `,"gone":"source"`, entry.GoneDest: `,"gone":"destination"`}

// appendLine appends the canonical line of an entry, without a line feed. It is
// written by hand, as a signed format must not change with a library's taste.
//
// The path is not written where the key gives it back; text that is no UTF-8 is
// written in base64. What tells only whether a file was touched ([entry.Change])
// is no part of what a location holds.
func appendLine(b []byte, e entry.Entry) ([]byte, error) {
	key := e.Key()
	if err := writable(e); err != nil {
		return b, fmt.Errorf("%w: %q: %w", ErrEntry, key, err)
	}
	b = append(b, `{"key":`...)
	b = appendString(b, key)
	if path, _, err := entry.UnescapeKey(key); err != nil || path != e.Path {
		b = append(b, `,"path64":`...)
		b = appendBase64(b, e.Path)
	}
	b = append(b, `,"kind":"`...)
	b = append(b, e.Kind.String()...)
	b = append(b, `","size":`...)
	b = strconv.AppendInt(b, e.Size, 10)
	b = append(b, `,"mode":"`...)
	b = strconv.AppendUint(b, uint64(e.Mode), 8)
	b = append(b, `","uid":`...)
	b = strconv.AppendUint(b, uint64(e.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendUint(b, uint64(e.GID), 10)
	b = append(b, `,"mtime":"`...)
	b = time.Unix(0, e.MTime).UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if e.Target != "" {
		if utf8.ValidString(e.Target) {
			b = append(b, `,"target":`...)
			b = appendString(b, e.Target)
		} else {
			b = append(b, `,"target64":`...)
			b = appendBase64(b, e.Target)
		}
	}
	if e.Device != 0 {
		b = append(b, `,"device":`...)
		b = strconv.AppendUint(b, e.Device, 10)
	}
	if len(e.Xattrs) > 0 {
		b = append(b, `,"xattrs":`...)
		for i, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			b = append(b, "{,"[min(i, 1)])
			b = appendString(b, name)
			b = append(b, ':')
			b = appendBase64(b, string(e.Xattrs[name]))
		}
		b = append(b, '}')
	}
	b = appendSum(b, e.Sum)
	b = append(b, loneMarks[e.Lone]...)
	return append(b, '}'), nil
}

// writable reports why an entry has no line.
func writable(e entry.Entry) error {
	switch {
	case e.Kind > entry.BlockDevice:
		return fmt.Errorf("%d is no kind of entry", e.Kind)
	case int(e.Lone) >= len(loneMarks):
		return fmt.Errorf("%d is no reason to be on one side only", e.Lone)
	case e.Size < 0:
		return fmt.Errorf("%d is no size", e.Size)
	case e.Sum.Contains(entry.HasETag) && !utf8.ValidString(e.Sum.ETag):
		return fmt.Errorf("the ETag %q is no UTF-8", e.Sum.ETag)
	}
	for name := range e.Xattrs {
		if !utf8.ValidString(name) {
			return fmt.Errorf("the name of the extended attribute %q is no UTF-8; rename it", name)
		}
	}
	return nil
}

func appendSum(b []byte, s entry.Sum) []byte {
	if s.Contains(entry.HasBLAKE3) {
		b = append(b, `,"blake3":"`...)
		b = hex.AppendEncode(b, s.BLAKE3[:])
		b = append(b, '"')
	}
	if s.Contains(entry.HasCRC32C) {
		b = append(b, `,"crc32c":"`...)
		b = hex.AppendEncode(b, binary.BigEndian.AppendUint32(nil, s.CRC32C))
		b = append(b, '"')
	}
	if s.Contains(entry.HasETag) {
		b = append(b, `,"etag":`...)
		b = appendString(b, s.ETag)
	}
	if s.Contains(entry.HasPartSize) {
		b = append(b, `,"part":`...)
		b = strconv.AppendInt(b, s.PartSize, 10)
	}
	return b
}

// appendString appends JSON of text. Only what must be escaped is.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	if !strings.ContainsFunc(s, escaped) {
		return append(append(b, s...), '"')
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func escaped(c rune) bool { return c < 0x20 || c == '"' || c == '\\' }

func appendBase64(b []byte, s string) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, []byte(s))
	return append(b, '"')
}
