package wire

import (
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// ReadEntry reads a single entry from the beginning of b, and gives what follows
// it. The error is an [*Error]. Nothing that was read refers to b.
func ReadEntry(b []byte) (e entry.Entry, rest []byte, err error) { return new(Decoder).ReadEntry(b) }

// ReadPast reads what [AppendPast] wrote; see [ReadEntry].
func ReadPast(b []byte) (p plan.Past, rest []byte, err error) { return new(Decoder).ReadPast(b) }

// ReadAction reads what [AppendAction] wrote; see [ReadEntry]. An Err has the text
// it had, and is no other error.
func ReadAction(b []byte) (a plan.Action, rest []byte, err error) { return new(Decoder).ReadAction(b) }

// PastKey gives the key of what [AppendPast] wrote and what follows the key, both as
// parts of b, so that many can be sorted without being read.
func PastKey(b []byte) (key, rest []byte, err error) {
	c := cursor{b: b, item: itemPast}
	c.begin(false)
	c.field = "key"
	if c.uvarint() != 0 {
		c.fail("it has something in common with a text before, and there is none")
	}
	key = c.bytes(c.uvarint())
	if c.err != nil {
		return nil, nil, c.err
	}
	return key, c.b, nil
}

// Decoder reads the sequence of items that an [Encoder] wrote. The zero value
// begins a sequence. What it gives shares strings and extended attributes between
// the items: the maps must not be changed. After an error it reads nothing more.
// It is used by one goroutine.
type Decoder struct {
	m     memory
	texts entry.Texts
	err   error
}

// ReadEntry reads an entry from the beginning of b, and gives what follows it. The
// error is an [*Error]. Nothing that was read refers to b.
func (r *Decoder) ReadEntry(b []byte) (e entry.Entry, rest []byte, err error) {
	c, err := r.begin(b, itemEntry)
	if err != nil {
		return e, nil, err
	}
	r.m.before(&e, plan.Source, r.m.sides[plan.Source].Path)
	c.entry("entry", &e, &r.texts)
	if rest, err = r.end(&c); err != nil {
		return entry.Entry{}, nil, err
	}
	r.m.keep(plan.Source, &e)
	return e, rest, nil
}

// ReadPast reads what [Encoder.AppendPast] wrote; see ReadEntry.
func (r *Decoder) ReadPast(b []byte) (p plan.Past, rest []byte, err error) {
	rest, err = r.PastInto(&p, b)
	return p, rest, err
}

// PastInto is ReadPast into p, whatever that held: it is large, and a run reads one for
// each entry.
func (r *Decoder) PastInto(p *plan.Past, b []byte) (rest []byte, err error) {
	c, err := r.begin(b, itemPast)
	if err != nil {
		*p = plan.Past{}
		return nil, err
	}
	p.Key = r.key(&c)
	p.Missing = [2]uint8{}
	c.counts(p, 0)
	r.sides(&c, p.Key, &p.Source, &p.Dest)
	if rest, err = r.end(&c); err != nil {
		*p = plan.Past{}
		return nil, err
	}
	return rest, nil
}

// ReadAction reads what [Encoder.AppendAction] wrote; see ReadEntry. An Err has the
// text it had, and is no other error.
func (r *Decoder) ReadAction(b []byte) (a plan.Action, rest []byte, err error) {
	c, err := r.begin(b, itemAction)
	if err != nil {
		return a, nil, err
	}
	a.Key = r.key(&c)
	c.field = "operation"
	a.Op, a.To = plan.Op(c.byte()), plan.Side(c.byte())
	flags := c.flags(actionFlags)
	a.Doubt = [2]bool{flags&doubtSource != 0, flags&doubtDest != 0}
	r.sides(&c, a.Key, &a.Source, &a.Dest)
	c.then(&a, &r.texts)
	if flags&withReason != 0 {
		c.field = "reason"
		r.m.reason = c.text(r.m.reason, &r.texts)
		a.Reason = plan.Reason(r.m.reason)
	}
	if flags&withTwin != 0 {
		c.field = "twin"
		a.Twin = c.text(a.Key, &r.texts)
	}
	if flags&withErr != 0 {
		c.field = "error"
		a.Err = errors.New(string(c.bytes(c.uvarint())))
	}
	if rest, err = r.end(&c); err != nil {
		return plan.Action{}, nil, err
	}
	return a, rest, nil
}

func (r *Decoder) begin(b []byte, i item) (cursor, error) {
	c := cursor{b: b, item: i}
	if r.err != nil {
		return c, r.err
	}
	c.begin(r.m.began)
	r.m.began = true
	if c.err != nil {
		r.err = c.err
	}
	return c, r.err
}

func (r *Decoder) end(c *cursor) (rest []byte, err error) {
	if c.err != nil {
		r.err = c.err
		return nil, r.err
	}
	return c.b, nil
}

func (r *Decoder) key(c *cursor) string {
	c.field = "key"
	r.m.key = c.text(r.m.key, &r.texts)
	return r.m.key
}

func (r *Decoder) sides(c *cursor, key string, source, dest *entry.Entry) {
	path := pathOf(key)
	r.m.before(source, plan.Source, path)
	c.entry("source", source, &r.texts)
	r.m.beside(dest, source, path)
	c.entry("destination", dest, &r.texts)
	r.m.keep(plan.Source, source)
	r.m.keep(plan.Dest, dest)
}

// begin reads the leading byte.
func (c *cursor) begin(began bool) {
	c.field = "leading byte"
	b := c.byte()
	switch want := lead(c.item, began); {
	case c.err != nil || b == want:
	case b&0xf != version:
		c.fail(fmt.Sprintf("the form is %d, not %d", b&0xf, version))
		c.err.Err = ErrVersion
	case b == want^follows:
		c.fail(fmt.Sprintf("whether something is before it: it says %t", b&follows != 0))
	default:
		c.fail(fmt.Sprintf("it begins an %v", item(b>>4&7)))
	}
}

func (c *cursor) flags(known byte) byte {
	f := c.byte()
	if f > known {
		c.fail("it has flags that are not known")
	}
	return f
}

func (c *cursor) counts(p *plan.Past, known byte) (flags byte) {
	c.field = "counts"
	flags = c.flags(missingDest<<1 - 1 | known)
	for s := range p.Missing {
		p.Dirty[s] = flags&(dirtySource<<s) != 0
		if flags&(missingSource<<s) != 0 {
			p.Missing[s] = c.byte()
		}
	}
	return flags
}

func (c *cursor) then(a *plan.Action, t *entry.Texts) {
	p := &a.Past
	if c.counts(p, sameKey)&sameKey != 0 {
		p.Key = a.Key
	} else {
		c.field = "key of the past"
		p.Key = c.text(a.Key, t)
	}
	path := pathOf(a.Key)
	p.Source = then(&a.Source, &a.Dest, path)
	c.entry("past of the source", &p.Source, t)
	p.Dest = then(&a.Dest, &a.Source, path)
	c.entry("past of the destination", &p.Dest, t)
}
