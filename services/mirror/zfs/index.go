package zfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// Point is one snapshot in an archive: what its index object says.
type Point struct {
	// Version is that of the index; 1.
	Version int `json:"version"`
	// Dataset and Snapshot are what it was named where it came from.
	Dataset  string `json:"dataset"`
	Snapshot string `json:"snapshot"`
	// Created is when the snapshot was taken.
	Created time.Time `json:"created"`
	// GUID is the snapshot's; From is that of the one it is an increment to, or 0
	// if it is whole. JSON has them as strings, as they exceed what many readers
	// of JSON can hold in a number.
	GUID uint64 `json:"guid,string"`
	From uint64 `json:"from,string"`
	// Stream is what zfs send gave.
	Stream Stream `json:"stream"`
	// Compression is how the parts, put together, become the stream: "zstd".
	Compression string `json:"compression"`
	// Upload tells the parts of one upload from those of another.
	Upload string `json:"upload"`
	Parts  []Part `json:"parts"`
}

// Part is one object of a point's compressed stream.
type Part struct {
	Size   int64  `json:"size"`
	CRC32C uint32 `json:"crc32c"`
	BLAKE3 Hash   `json:"blake3"`
}

// Name is the dataset's and the snapshot's.
func (p Point) Name() string { return p.Dataset + "@" + p.Snapshot }

// Stored is how many bytes its parts have together.
func (p Point) Stored() int64 {
	var n int64
	for _, part := range p.Parts {
		n += part.Size
	}
	return n
}

// What a point is made of.
const (
	indexVersion = 1
	compression  = "zstd"
	// partSize is that of every part but the last: a bucket takes it in one request,
	// and a few fit into memory.
	partSize = 16 << 20
	// maxIndex bounds what is read as an index: enough for a stream of 2.5 TB.
	maxIndex = 32 << 20
)

// Keys. Points sort by when their snapshots were taken.
const (
	pointPrefix = "points/"
	partPrefix  = "parts/"
)

// IsArchiveDir reports whether what lies right in an archive may have the name, which ends
// with '/': where such a thing is, an archive is, or its parts are.
func IsArchiveDir(name string) bool { return slices.Contains(ArchiveDirs(), name) }

// ArchiveDirs are the names of all that lies right in an archive, ending with '/'.
func ArchiveDirs() []string { return []string{pointPrefix, partPrefix} }

// InArchive reports whether a key is that of an object of an archive, wherever in a bucket
// the archive lies: no other names look like that.
func InArchive(key string) bool {
	name := key[strings.LastIndexByte(key, '/')+1:]
	if !strings.HasSuffix(name, ".json") && strings.Trim(name, "0123456789") != "" {
		return false // as nearly all are
	}
	return archiveKey().MatchString(key)
}

func (p Point) key() string {
	return fmt.Sprintf("%s%s-%016x.json", pointPrefix, p.Created.UTC().Format("20060102T150405Z"), p.GUID)
}

func (p Point) partKey(number int) string {
	return fmt.Sprintf("%s%016x-%s/%06d", partPrefix, p.GUID, p.Upload, number)
}

var (
	pointKey   = lazy.Regexp(`^points/[0-9]{8}T[0-9]{6}Z-([0-9a-f]{16})\.json$`)
	uploadName = lazy.Regexp(`^[0-9a-z]{8,32}$`)
	archiveKey = lazy.Regexp(`(^|/)(points/[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}\.json|parts/[0-9a-f]{16}-[0-9a-z]{8,32}/[0-9]{6,})$`)
)

// encode is the index object.
func (p Point) encode() ([]byte, error) {
	raw, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("index of %s: %w", p.Name(), err)
	}
	if len(raw) > maxIndex {
		return nil, fmt.Errorf("index of %s: it has %d parts, more than one index takes", p.Name(), len(p.Parts))
	}
	return append(raw, '\n'), nil
}

// decodePoint reads an index object and checks all that can be checked of it alone.
func decodePoint(raw []byte) (Point, error) {
	var p Point
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Point{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Point{}, fmt.Errorf("%w: something follows the index", ErrCorrupt)
	}
	wrong := func(format string, args ...any) (Point, error) {
		return Point{}, fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
	}
	switch {
	case p.Version != indexVersion || p.Compression != compression:
		return Point{}, fmt.Errorf("%w: version %d with compression %q: a newer firedrill wrote it", ErrUnsupported, p.Version, p.Compression)
	case p.GUID == 0 || p.GUID == p.From:
		return wrong("guid %d, from guid %d", p.GUID, p.From)
	case checkDataset(p.Dataset) != nil || checkSnapshot(p.Snapshot) != nil:
		return wrong("it is of %q", p.Name())
	case !uploadName().MatchString(p.Upload):
		return wrong("upload %q", p.Upload)
	case p.Stream.Bytes <= 0 || len(p.Parts) == 0:
		return wrong("a stream of %d bytes in %d parts", p.Stream.Bytes, len(p.Parts))
	}
	for i, part := range p.Parts {
		if last := i == len(p.Parts)-1; part.Size <= 0 || part.Size > partSize || !last && part.Size != partSize {
			return wrong("part %d of %d has %d bytes", i, len(p.Parts), part.Size)
		}
	}
	return p, nil
}
