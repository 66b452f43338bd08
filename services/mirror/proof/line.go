package proof

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// ErrEntry means that an entry cannot be written into a manifest.
var ErrEntry = errors.New("the entry has no line in a manifest")

// maxLine is how many bytes a line may have, so that a reader need not take what
// never ends.
const maxLine = 1 << 20

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
	return append(appendSum(b, e.Sum), '}'), nil
}

// writable reports why an entry has no line.
func writable(e entry.Entry) error {
	switch {
	case e.Kind > entry.BlockDevice:
		return fmt.Errorf("%d is no kind of entry", e.Kind)
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
		b = fmt.Appendf(b, `,"crc32c":"%08x"`, s.CRC32C)
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

func appendBase64(b []byte, s string) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, []byte(s))
	return append(b, '"')
}

// line is what JSON makes of a line.
type line struct {
	Key      string            `json:"key"`
	Path64   []byte            `json:"path64"`
	Kind     string            `json:"kind"`
	Size     int64             `json:"size"`
	Mode     string            `json:"mode"`
	UID      uint32            `json:"uid"`
	GID      uint32            `json:"gid"`
	MTime    string            `json:"mtime"`
	Target   string            `json:"target"`
	Target64 []byte            `json:"target64"`
	Device   uint64            `json:"device"`
	Xattrs   map[string][]byte `json:"xattrs"`
	BLAKE3   *Hash             `json:"blake3"`
	CRC32C   *string           `json:"crc32c"`
	ETag     *string           `json:"etag"`
	Part     *int64            `json:"part"`
}

var errCanonical = errors.New("not the canonical form of an entry")

// parseLine reads a line, which must be in canonical form to the byte.
func parseLine(raw []byte) (entry.Entry, error) {
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		return entry.Entry{}, err
	}
	e, err := l.entry()
	if err != nil {
		return entry.Entry{}, err
	}
	again, err := appendLine(make([]byte, 0, len(raw)), e)
	if err != nil {
		return entry.Entry{}, err
	}
	if !bytes.Equal(again, raw) {
		return entry.Entry{}, errCanonical
	}
	return e, nil
}

func (l *line) entry() (e entry.Entry, err error) {
	e = entry.Entry{Size: l.Size, UID: l.UID, GID: l.GID, Target: l.Target, Device: l.Device, Xattrs: l.Xattrs}
	if l.Path64 != nil {
		e.Path = string(l.Path64)
	} else if e.Path, _, err = entry.UnescapeKey(l.Key); err != nil {
		return e, err
	}
	if l.Target64 != nil {
		e.Target = string(l.Target64)
	}
	kinds := []entry.Kind{entry.File, entry.Dir, entry.Symlink, entry.Fifo, entry.Socket, entry.CharDevice, entry.BlockDevice}
	i := slices.IndexFunc(kinds, func(k entry.Kind) bool { return k.String() == l.Kind })
	if i < 0 {
		return e, fmt.Errorf("%q is no kind of entry", l.Kind)
	}
	e.Kind = kinds[i]
	mode, err := strconv.ParseUint(l.Mode, 8, 32)
	if err != nil {
		return e, fmt.Errorf("mode: %w", err)
	}
	e.Mode = uint32(mode)
	at, err := time.Parse(time.RFC3339Nano, l.MTime)
	if err != nil {
		return e, fmt.Errorf("mtime: %w", err)
	}
	if at.Before(time.Unix(0, math.MinInt64)) || at.After(time.Unix(0, math.MaxInt64)) {
		return e, fmt.Errorf("mtime: %q cannot be counted in nanoseconds", l.MTime)
	}
	e.MTime = at.UnixNano()
	e.Sum, err = l.sum()
	return e, err
}

func (l *line) sum() (s entry.Sum, err error) {
	if l.BLAKE3 != nil {
		s.Has, s.BLAKE3 = s.Has|entry.HasBLAKE3, *l.BLAKE3
	}
	if l.CRC32C != nil {
		crc, err := strconv.ParseUint(*l.CRC32C, 16, 32)
		if err != nil {
			return s, fmt.Errorf("crc32c: %w", err)
		}
		s.Has, s.CRC32C = s.Has|entry.HasCRC32C, uint32(crc)
	}
	if l.ETag != nil {
		s.Has, s.ETag = s.Has|entry.HasETag, *l.ETag
	}
	if l.Part != nil {
		s.Has, s.PartSize = s.Has|entry.HasPartSize, *l.Part
	}
	return s, nil
}
