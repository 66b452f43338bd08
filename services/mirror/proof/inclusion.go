package proof

import (
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// ErrNotIncluded means that a proof does not lead to the root.
var ErrNotIncluded = errors.New("the proof does not lead to the root")

// VerifyInclusion gives the entry that the proof shows to be in the manifest of
// the root. The error is ErrNotIncluded.
func VerifyInclusion(root Root, p Inclusion) (entry.Entry, error) {
	refuse := func(why string) (entry.Entry, error) {
		return entry.Entry{}, fmt.Errorf("verify inclusion: %w: %s", ErrNotIncluded, why)
	}
	e, err := parseLine([]byte(p.Line))
	if err != nil {
		return refuse("its line is no entry: " + err.Error())
	}
	leaf := blake3.Sum256(append([]byte{0x00}, p.Line...))
	lines, ok := climb(leaf, p.Index, p.Lines, p.InShard)
	if !ok {
		return refuse("its way through the shard has not the length it should have")
	}
	shards, ok := climb(shardHash(p.Lines, lines), p.Shard, root.Shards, p.InRoot)
	if !ok {
		return refuse("its way from the shard has not the length it should have")
	}
	if root.seal(shards) != root {
		return refuse(fmt.Sprintf("the line of %q is not in this manifest", e.Key()))
	}
	return e, nil
}
