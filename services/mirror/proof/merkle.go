package proof

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/blake3"
)

func appendInt(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

func node(left, right Hash) Hash {
	var b [65]byte
	b[0] = 0x01
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return blake3.Sum256(b[:])
}

func shardHash(lines int64, tree Hash) Hash {
	return blake3.Sum256(append(appendInt([]byte{0x02}, lines), tree[:]...))
}

// startsShard reports whether a shard begins at the key.
func startsShard(key string) bool {
	sum := blake3.Sum256([]byte(key))
	return binary.BigEndian.Uint16(sum[:])&0xfff == 0
}

// merkle is a Merkle tree that grows leaf by leaf and keeps no more than one hash
// for each of its levels.
type merkle struct {
	leaves int64
	// full are the hashes of perfect subtrees, the largest first: one for each
	// bit that is set in leaves.
	full []Hash
}

func (m *merkle) add(leaf Hash) {
	for n := m.leaves; n&1 == 1; n >>= 1 {
		last := len(m.full) - 1
		leaf = node(m.full[last], leaf)
		m.full = m.full[:last]
	}
	m.full = append(m.full, leaf)
	m.leaves++
}

func (m *merkle) hash() (h Hash) {
	for i := len(m.full) - 1; i >= 0; i-- {
		if i == len(m.full)-1 {
			h = m.full[i]
		} else {
			h = node(m.full[i], h)
		}
	}
	return h
}

func (m *merkle) reset() { m.leaves, m.full = 0, m.full[:0] }

// split is how many of n leaves lie to the left: the largest power of two below n.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// path is the hashes that lead from leaf i up to the root, the lowest first.
func path(leaves []Hash, i int) []Hash {
	if len(leaves) <= 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		return append(path(leaves[:k], i), treeOf(leaves[k:]))
	}
	return append(path(leaves[k:], i-k), treeOf(leaves[:k]))
}

func treeOf(leaves []Hash) Hash {
	var m merkle
	for _, l := range leaves {
		m.add(l)
	}
	return m.hash()
}

// climb is the root to which a path leads from leaf i of n; false if its length
// is not that of such a path.
func climb(leaf Hash, i, n int64, path []Hash) (Hash, bool) {
	if i < 0 || i >= n {
		return Hash{}, false
	}
	last := n - 1
	for _, sibling := range path {
		if last == 0 {
			return Hash{}, false
		}
		if i&1 == 1 || i == last {
			leaf = node(sibling, leaf)
			for i&1 == 0 && i != 0 {
				i, last = i>>1, last>>1
			}
		} else {
			leaf = node(leaf, sibling)
		}
		i, last = i>>1, last>>1
	}
	return leaf, last == 0
}
