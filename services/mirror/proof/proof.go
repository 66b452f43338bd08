// Package proof says what a location held, in a form that can be compared, signed
// and checked line by line: the manifest. And it says what a comparison of a
// location with its manifest has shown, and no more than that.
//
// # Manifests
//
// A manifest is JSON lines, one for each entry, sorted by key and compressed with
// zstd; "zstdcat file | jq -c 'select(.key)'" shows the entries. Lines have one
// canonical form, so that one tree of entries has one manifest and one root. The line of
// an entry that the source holds no more, and that a mirror which removes nothing has left
// at the destination, says "kept": that it is there is all that is said of it. The line of
// one that waits to be deleted says "gone", and from which side it is.
//
// The lines are cut into shards of about 4,096. Where a shard begins is decided by
// its first key alone: by 12 bits of the key's BLAKE3. So a line that is added,
// taken away or changed changes its own shard, or splits or joins two, and all
// others keep their hashes, wherever they lie; shards of a fixed number of lines
// would all move behind the first insert. Nor does a cut depend on what comes
// before it, as it would with bounds on a shard's size: parts of a tree that were
// hashed by different workers have the shards that the whole has. The price is
// that sizes vary, as those of a geometric distribution do. Nothing here keeps a
// shard in memory.
//
// A line's hash is BLAKE3 over 0x00 and the line without its line feed. The lines
// of a shard, and again the shards of the manifest, are the leaves of a Merkle tree
// of RFC 9162's shape, with BLAKE3 over 0x01 and both children as inner nodes. A
// shard's hash is BLAKE3 over 0x02, the number of its lines (8 bytes, big endian)
// and its tree's hash; the root is BLAKE3 over 0x03, the format's name, the numbers
// of shards, entries and bytes and the tree of the shards' hashes. An empty tree's
// hash is 32 zero bytes.
//
// The file is a sequence of zstd frames: a header; a frame for each shard, which
// ends with a line that seals it; the index of the shards and the root; and a
// skippable frame with the place of the index, for those who need not read all.
// What is hashed is the lines: another compression gives the same root.
package proof

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// format is the name of the format, in the header and in the root's hash.
const format = "firedrill-manifest/1"

// Hash is a BLAKE3 hash. Its text form is 64 hex digits.
type Hash [32]byte

// String is the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText gives the hash in hex.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads lower-case hex.
func (h *Hash) UnmarshalText(text []byte) error {
	var got Hash
	if len(text) != 2*len(got) {
		return fmt.Errorf("a hash has %d hex digits, not %d", 2*len(got), len(text))
	}
	if _, err := hex.Decode(got[:], text); err != nil || got.String() != string(text) {
		return errors.New("a hash is written in lower-case hex digits")
	}
	*h = got
	return nil
}

// Root stands for everything that a manifest says. Roots are compared with ==.
type Root struct {
	Hash    Hash  `json:"hash"`
	Shards  int64 `json:"shards"`
	Entries int64 `json:"entries"`
	// Bytes is the sum of the entries' sizes.
	Bytes int64 `json:"bytes"`
}

// seal gives the totals their hash.
func (r Root) seal(tree Hash) Root {
	b := append([]byte{0x03}, format...)
	for _, n := range []int64{r.Shards, r.Entries, r.Bytes} {
		b = appendInt(b, n)
	}
	r.Hash = blake3.Sum256(append(b, tree[:]...))
	return r
}

// ErrCorrupt is what every [*CorruptError] is.
var ErrCorrupt = errors.New("the manifest is corrupt")

// CorruptError says where a manifest is not what its writer wrote.
type CorruptError struct {
	// Shard counts from 0; -1 means the header, the index or the trailer.
	Shard int64
	// Line counts from 1 within the shard, or the index; 0 means no line of it.
	Line int64
	// Problem says what is wrong.
	Problem string
	// Err is the cause, or nil.
	Err error
}

// Error says where and what.
func (e *CorruptError) Error() string {
	where := fmt.Sprintf("shard %d", e.Shard)
	if e.Shard < 0 {
		where = "header, index or trailer"
	}
	if e.Line > 0 {
		where += fmt.Sprintf(", line %d", e.Line)
	}
	text := fmt.Sprintf("read manifest: %s: %s", where, e.Problem)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + "; use another copy of it, or make a new one"
}

// Unwrap returns ErrCorrupt and the cause.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }
