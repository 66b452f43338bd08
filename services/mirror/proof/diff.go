package proof

import (
	"errors"
	"iter"

	"github.com/klauspost/compress/zstd"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// Difference is one key at which two manifests differ.
type Difference struct {
	Key string
	// InA and InB say which of them has the key; A and B are its entries there.
	InA, InB bool
	A, B     entry.Entry
}

// Diff yields what differs between two manifests, in the order of the keys. Shards
// that are equal are not read. An error ends the sequence.
func Diff(a, b *Manifest) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		if a.root == b.root {
			return
		}
		x, y := &cursor{m: a}, &cursor{m: b}
		defer x.close()
		defer y.close()
		if err := diff(x, y, yield); err != nil && !errors.Is(err, errStopped) {
			yield(Difference{}, err)
		}
	}
}

func diff(x, y *cursor, yield func(Difference, error) bool) error {
	for {
		if x.skipEqual(y) {
			continue
		}
		kx, okx := x.key()
		ky, oky := y.key()
		if !okx && !oky {
			return nil
		}
		d := Difference{Key: kx, InA: okx && (!oky || kx <= ky), InB: oky && (!okx || ky <= kx)}
		if d.InB {
			d.Key = ky
		}
		var la, lb string
		var err error
		if d.InA {
			if d.A, la, err = x.take(); err != nil {
				return err
			}
		}
		if d.InB {
			if d.B, lb, err = y.take(); err != nil {
				return err
			}
		}
		if la != lb && !yield(d, nil) {
			return errStopped
		}
	}
}

// cursor walks a manifest, and opens a shard only when its first entry is taken.
type cursor struct {
	m     *Manifest
	dec   *zstd.Decoder
	shard int // the one at hand, or the next where none is open
	next  func() (item, error, bool)
	stop  func()
	head  item
	err   error // of reading the head
}

type item struct {
	e    entry.Entry
	line string
}

// skipEqual passes over the shards at which both stand, if they are equal. Equal
// shards begin at the same key, so that none is missed by looking there only.
func (c *cursor) skipEqual(o *cursor) bool {
	if c.next != nil || o.next != nil || c.shard >= len(c.m.shards) || o.shard >= len(o.m.shards) ||
		c.m.shards[c.shard].Hash != o.m.shards[o.shard].Hash {
		return false
	}
	c.shard++
	o.shard++
	return true
}

// key is that of the entry at hand, which for a closed shard the index knows.
func (c *cursor) key() (string, bool) {
	switch {
	case c.next != nil:
		return c.head.e.Key(), true
	case c.shard < len(c.m.shards):
		return *c.m.shards[c.shard].First, true
	}
	return "", false
}

// take gives the entry at hand and moves on.
func (c *cursor) take() (entry.Entry, string, error) {
	if c.next == nil {
		if err := c.open(); err != nil {
			return entry.Entry{}, "", err
		}
	}
	got, err := c.head, c.err
	if err == nil {
		c.advance()
	}
	return got.e, got.line, err
}

func (c *cursor) open() error {
	if c.dec == nil {
		var err error
		if c.dec, err = newDecoder(); err != nil {
			return err
		}
	}
	c.next, c.stop = iter.Pull2(func(yield func(item, error) bool) {
		_, err := c.m.readShard(c.dec, c.shard, false, func(e entry.Entry, raw []byte) bool {
			return yield(item{e, string(raw)}, nil)
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(item{}, err)
		}
	})
	c.advance()
	return nil
}

// advance moves to the next entry of the open shard, or closes it. An error stays
// at hand with the key of the entry before, so that it is the next that is taken.
func (c *cursor) advance() {
	got, err, ok := c.next()
	switch {
	case !ok:
		c.stop()
		c.next, c.head = nil, item{}
		c.shard++
	case err != nil:
		c.err = err
	default:
		c.head = got
	}
}

func (c *cursor) close() {
	if c.next != nil {
		c.stop()
	}
	if c.dec != nil {
		c.dec.Close()
	}
}
