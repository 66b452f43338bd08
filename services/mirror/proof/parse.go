package proof

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

var errCanonical = errors.New("not the canonical form of an entry")

// parseLine reads a line, which must be in canonical form to the byte: each entry has
// one line, so that what makes this line again is the entry that it was made of. What
// reads the line may therefore take the one form for granted, at a fifth of what
// encoding/json costs.
func parseLine(raw []byte) (entry.Entry, error) {
	p := parser{rest: string(raw)}
	e := p.entry()
	if p.bad || p.rest != "" {
		return entry.Entry{}, errCanonical
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

// parser reads a line from its beginning. After something unexpected it is bad, and
// what it gives is of no meaning.
type parser struct {
	rest string
	bad  bool
}

func (p *parser) entry() (e entry.Entry) {
	p.must(`{"key":`)
	key := p.text()
	if p.is(`,"path64":`) {
		e.Path = p.base64()
	} else {
		var err error
		e.Path, _, err = entry.UnescapeKey(key)
		p.bad = p.bad || err != nil
	}
	p.must(`,"kind":`)
	e.Kind = p.kind()
	p.must(`,"size":`)
	e.Size = p.number()
	p.must(`,"mode":"`)
	e.Mode = uint32(p.unsigned(p.until('"'), 8, 32))
	p.must(`,"uid":`)
	e.UID = uint32(p.unsigned(p.digits(), 10, 32))
	p.must(`,"gid":`)
	e.GID = uint32(p.unsigned(p.digits(), 10, 32))
	p.must(`,"mtime":"`)
	at, err := time.Parse(time.RFC3339Nano, p.until('"'))
	p.bad = p.bad || err != nil
	e.MTime = at.UnixNano() // of a year that this cannot count another line is made again
	if p.is(`,"target":`) {
		e.Target = p.text()
	} else if p.is(`,"target64":`) {
		e.Target = p.base64()
	}
	if p.is(`,"device":`) {
		e.Device = p.unsigned(p.digits(), 10, 64)
	}
	if p.is(`,"xattrs":{`) {
		e.Xattrs = p.xattrs()
	}
	e.Sum = p.sum()
	e.Lone = p.lone()
	p.must("}")
	return e
}

func (p *parser) lone() entry.Lone {
	for l := entry.Kept; int(l) < len(loneMarks); l++ {
		if p.is(loneMarks[l]) {
			return l
		}
	}
	return entry.NotLone
}

func (p *parser) kind() entry.Kind {
	kinds := [...]entry.Kind{entry.File, entry.Dir, entry.Symlink, entry.Fifo, entry.Socket, entry.CharDevice, entry.BlockDevice}
	name := p.text()
	i := slices.IndexFunc(kinds[:], func(k entry.Kind) bool { return k.String() == name })
	if i < 0 {
		p.bad = true
		return entry.File
	}
	return kinds[i]
}

func (p *parser) xattrs() map[string][]byte {
	m := map[string][]byte{}
	for more := true; more && !p.bad; more = p.is(",") {
		name := p.text()
		p.must(":")
		m[name] = []byte(p.base64())
	}
	p.must("}")
	return m
}

func (p *parser) sum() (s entry.Sum) {
	if p.is(`,"blake3":"`) {
		text := p.until('"')
		n, err := hex.Decode(s.BLAKE3[:], []byte(text[:min(len(text), 2*len(s.BLAKE3))]))
		p.bad = p.bad || err != nil || n != len(s.BLAKE3)
		s.Has |= entry.HasBLAKE3
	}
	if p.is(`,"crc32c":"`) {
		s.CRC32C = uint32(p.unsigned(p.until('"'), 16, 32))
		s.Has |= entry.HasCRC32C
	}
	if p.is(`,"etag":`) {
		s.ETag = p.text()
		s.Has |= entry.HasETag
	}
	if p.is(`,"part":`) {
		s.PartSize = p.number()
		s.Has |= entry.HasPartSize
	}
	return s
}

// is reads something if it comes next.
func (p *parser) is(next string) (ok bool) {
	p.rest, ok = strings.CutPrefix(p.rest, next)
	return ok
}

func (p *parser) must(next string) { p.bad = !p.is(next) || p.bad }

// until reads up to, and over, a byte.
func (p *parser) until(end byte) string {
	text, rest, ok := strings.Cut(p.rest, string(rune(end)))
	p.rest, p.bad = rest, p.bad || !ok
	return text
}

// digits reads a number's text.
func (p *parser) digits() string {
	n := 0
	for n < len(p.rest) && (p.rest[n] >= '0' && p.rest[n] <= '9' || p.rest[n] == '-') {
		n++
	}
	text := p.rest[:n]
	p.rest = p.rest[n:]
	return text
}

func (p *parser) unsigned(text string, base, bits int) uint64 {
	n, err := strconv.ParseUint(text, base, bits)
	p.bad = p.bad || err != nil
	return n
}

func (p *parser) number() int64 {
	n, err := strconv.ParseInt(p.digits(), 10, 64)
	p.bad = p.bad || err != nil
	return n
}

// text reads a string as appendString writes it.
func (p *parser) text() string {
	p.must(`"`)
	if end := strings.IndexAny(p.rest, `"\`); end >= 0 && p.rest[end] == '"' {
		text := p.rest[:end] // as nearly all are
		p.rest = p.rest[end+1:]
		return text
	}
	var b strings.Builder
	for !p.bad {
		end := strings.IndexAny(p.rest, `"\`)
		if end < 0 {
			break
		}
		b.WriteString(p.rest[:end])
		escaped := p.rest[end] == '\\'
		if p.rest = p.rest[end+1:]; !escaped {
			return b.String()
		}
		if p.is("u00") && len(p.rest) >= 2 {
			b.WriteByte(byte(p.unsigned(p.rest[:2], 16, 8)))
			p.rest = p.rest[2:]
		} else if p.rest != "" {
			b.WriteByte(p.rest[0])
			p.rest = p.rest[1:]
		}
	}
	p.bad = true
	return ""
}

func (p *parser) base64() string {
	p.must(`"`)
	text, err := base64.StdEncoding.DecodeString(p.until('"'))
	if err != nil {
		p.bad = true
	}
	return string(text)
}
