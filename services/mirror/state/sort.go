package state

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/firedrill/firedrill/services/mirror/wire"
)

// note is the body of a record of the journal, in which the key is body[from:to].
type note struct {
	body     []byte
	from, to int
}

func (n note) key() []byte { return n.body[n.from:n.to] }

func parseNote(body []byte) (note, error) {
	switch body[0] {
	case recordForget:
		return note{body, 1, len(body)}, nil
	case recordNote:
		key, rest, err := wire.PastKey(body[1:])
		to := len(body) - len(rest)
		return note{body, to - len(key), to}, err
	}
	return note{}, fmt.Errorf("a record of the unknown kind %q", body[0])
}

// notes gives notes sorted strictly by key, each valid until the call after; io.EOF
// after the last.
type notes interface{ next() (note, error) }

// sorter sorts any number of notes in bounded memory; of equal keys the last note
// stays. It is used by one goroutine.
type sorter struct {
	dir string
	// most is the memory of a run, in bytes; fan is how many runs of one level are
	// merged into one of the next, so that few of them are open at once.
	most, fan int
	arena     []byte
	spans     []span
	runs      []*run // the oldest first, levels never rising
}

// span is where a note lies in the arena, and its key.
type span struct{ at, end, from, to uint32 }

const spanSize = 16

func (s *sorter) key(x span) []byte { return s.arena[x.from:x.to] }

// add takes a copy of a note. total is how many bytes of notes there are, at most.
func (s *sorter) add(n note, total int64) error {
	if len(s.spans) > 0 && len(s.arena)+len(n.body)+spanSize*(len(s.spans)+1) > s.most {
		if err := s.spill(); err != nil {
			return err
		}
	}
	if s.arena == nil {
		s.arena = make([]byte, 0, min(int64(s.most), total))
	}
	at := len(s.arena)
	s.arena = append(s.arena, n.body...)
	s.spans = append(s.spans, span{uint32(at), uint32(len(s.arena)), uint32(at + n.from), uint32(at + n.to)})
	return nil
}

// sort sorts the notes in memory.
func (s *sorter) sort() {
	slices.SortFunc(s.spans, func(a, b span) int {
		return cmp.Or(bytes.Compare(s.key(a), s.key(b)), cmp.Compare(a.at, b.at))
	})
}

// spill writes the notes in memory to a run.
func (s *sorter) spill() error {
	s.sort()
	if err := s.write(&inMemory{s: s}, 0); err != nil {
		return err
	}
	s.arena, s.spans = s.arena[:0], s.spans[:0]
	for {
		level := s.runs[len(s.runs)-1].level
		first := len(s.runs) - s.fan
		if first < 0 || s.runs[first].level != level {
			return nil
		}
		old := slices.Clone(s.runs[first:])
		s.runs = s.runs[:first]
		err := s.write(newMerger(readers(old)), level+1)
		if err = errors.Join(err, closeRuns(old)); err != nil {
			return err
		}
	}
}

func (s *sorter) write(from notes, level int) error {
	r, err := writeRun(s.dir, from, level)
	if err != nil {
		return fmt.Errorf("sort the notes: %w", err)
	}
	s.runs = append(s.runs, r)
	return nil
}

// all gives everything that was added.
func (s *sorter) all() notes {
	s.sort()
	return newMerger(append(readers(s.runs), &inMemory{s: s}))
}

func (s *sorter) close() error { return closeRuns(s.runs) }

// inMemory is the sorted notes of a sorter's memory.
type inMemory struct {
	s *sorter
	i int
}

func (m *inMemory) next() (note, error) {
	spans := m.s.spans
	if m.i == len(spans) {
		return note{}, io.EOF
	}
	x := spans[m.i]
	for m.i++; m.i < len(spans) && bytes.Equal(m.s.key(spans[m.i]), m.s.key(x)); m.i++ {
		x = spans[m.i] // the later one
	}
	return note{m.s.arena[x.at:x.end], int(x.from - x.at), int(x.to - x.at)}, nil
}

// run is notes that were sorted into a file.
type run struct {
	f     *os.File
	size  int64
	level int
}

// runBlock is how many bytes of a run are read at once.
const runBlock = 64 << 10

func writeRun(dir string, from notes, level int) (*run, error) {
	f, err := scratch(dir, "run")
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriterSize(f, runBlock)
	blocks := blockWriter{w: out}
	if err := writeNotes(&blocks, from); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := out.Flush(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &run{f: f, size: blocks.size, level: level}, nil
}

func writeNotes(w *blockWriter, from notes) error {
	var buf []byte
	for {
		n, err := from.next()
		if errors.Is(err, io.EOF) {
			return w.write(blockData, buf)
		}
		if err != nil {
			return err
		}
		buf = binary.AppendUvarint(buf, uint64(len(n.body)))
		buf = append(buf, n.body...)
		if len(buf) >= runBlock {
			if err := w.write(blockData, buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
}

func readers(runs []*run) (all []notes) {
	for _, r := range runs {
		all = append(all, &runReader{blocks: newBlockReader(r.f, r.f.Name(), 0, r.size)})
	}
	return all
}

func closeRuns(runs []*run) (err error) {
	for _, r := range runs {
		err = errors.Join(err, r.f.Close())
	}
	return err
}

type runReader struct {
	blocks *blockReader
	rest   []byte
}

func (r *runReader) next() (n note, err error) {
	for len(r.rest) == 0 {
		if _, r.rest, err = r.blocks.next(); err != nil {
			return note{}, err
		}
	}
	size, k := binary.Uvarint(r.rest)
	if k <= 0 || size == 0 || size > uint64(len(r.rest)-k) {
		return note{}, r.blocks.corrupt("a note in the block before is cut off", nil)
	}
	body := r.rest[k:][:size]
	r.rest = r.rest[k+int(size):]
	if n, err = parseNote(body); err != nil {
		return note{}, r.blocks.corrupt("a note in the block before", err)
	}
	return n, nil
}

// merger merges sorted notes; of equal keys the last source's stays.
type merger struct {
	heads heads
	err   error
	// last is the key that was given last; began says that one was.
	last  []byte
	began bool
}

// head is a source and its next note. Sources that are later are younger.
type head struct {
	note
	from notes
	age  int
}

type heads []*head

func (h heads) Len() int      { return len(h) }
func (h heads) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h heads) Less(i, j int) bool {
	c := bytes.Compare(h[i].key(), h[j].key())
	return c < 0 || c == 0 && h[i].age > h[j].age
}

// Push and Pop are what [heap.Interface] asks for.
func (h *heads) Push(x any) { *h = append(*h, x.(*head)) }
func (h *heads) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func newMerger(sources []notes) *merger {
	m := &merger{}
	for i, from := range sources {
		h := &head{from: from, age: i}
		if m.fill(h) {
			m.heads = append(m.heads, h)
		}
	}
	heap.Init(&m.heads)
	return m
}

// fill reads a source's next note; false at its end.
func (m *merger) fill(h *head) bool {
	n, err := h.from.next()
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = errors.Join(m.err, err)
	}
	h.note = n
	return err == nil
}

func (m *merger) next() (note, error) {
	for m.began && len(m.heads) > 0 && bytes.Equal(m.heads[0].key(), m.last) {
		if m.fill(m.heads[0]) {
			heap.Fix(&m.heads, 0)
		} else {
			heap.Pop(&m.heads)
		}
	}
	switch {
	case m.err != nil:
		return note{}, m.err
	case len(m.heads) == 0:
		return note{}, io.EOF
	}
	n := m.heads[0].note
	m.last, m.began = append(m.last[:0], n.key()...), true
	return n, nil
}
