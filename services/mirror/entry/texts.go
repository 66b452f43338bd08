package entry

import "strings"

// Texts makes strings that lie one behind the other in larger pieces of memory: to
// whoever reads entries by the million, an allocation for each name costs as much as
// the reading. A string keeps the piece that it lies in, so that pieces are small. The
// zero value is ready. It is not copied, and is used by one goroutine.
type Texts struct {
	piece strings.Builder
	size  int
}

// Each piece has twice the bytes of the one before, up to the most; longer texts get
// memory of their own.
const (
	firstPiece = 64
	mostPiece  = 512
)

// Join gives the string of both.
func (t *Texts) Join(begin string, rest []byte) string {
	n := len(begin) + len(rest)
	if n > mostPiece/4 {
		return begin + string(rest)
	}
	at := t.room(n)
	t.piece.WriteString(begin)
	t.piece.Write(rest)
	return t.piece.String()[at:]
}

// Path gives the path of a name in a directory, whose path is "" for the root.
func (t *Texts) Path(dir, name string) string {
	n := len(dir) + 1 + len(name)
	switch {
	case dir == "":
		return name
	case n > mostPiece/4:
		return dir + "/" + name
	}
	at := t.room(n)
	t.piece.WriteString(dir)
	t.piece.WriteByte('/')
	t.piece.WriteString(name)
	return t.piece.String()[at:]
}

// room makes sure that n bytes fit into the piece, and gives where they begin.
func (t *Texts) room(n int) (at int) {
	if t.piece.Cap()-t.piece.Len() < n {
		t.size = min(max(2*t.size, firstPiece), mostPiece)
		t.piece.Reset() // which leaves the piece to its strings
		t.piece.Grow(max(t.size, n))
	}
	return t.piece.Len()
}
