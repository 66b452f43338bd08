package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// sizes are the bounds of memory. Tests make them small.
type sizes struct {
	// sort is the memory in which notes are sorted, in bytes; fan is how many
	// sorted runs become one; block is how many records a block of the state holds.
	sort, fan, block int
}

// defaultSizes keep a Commit within about 16 MiB, and as much garbage. A reader of
// the state needs one block, packed and unpacked.
func defaultSizes() sizes { return sizes{sort: 8 << 20, fan: 32, block: 4096} }

// absorb merges the journal's notes into the state. whole is the size that the
// journal must have; less than 0 if an interrupted run left it. It gives the number
// of notes: with none, nothing is written, and read, which may be nil, is not called.
func absorb(dir string, z sizes, whole int64, read reader) (count int64, err error) {
	journal, err := openJournal(dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, journal.close()) }()
	sorted := &sorter{dir: dir, most: z.sort, fan: z.fan}
	defer func() { err = errors.Join(err, sorted.close()) }()
	if count, err = sortJournal(journal, sorted); err != nil {
		return 0, err
	}
	if whole >= 0 && journal.at != whole {
		return 0, corrupt(journal.f.Name(), journal.at, "it is not as it was written a moment ago", nil)
	}
	if count == 0 {
		return 0, nil
	}
	return count, rewrite(dir, z, sorted.all(), read)
}

// reader reads what is written into the state; see [Store.CommitRead].
type reader = func(iter.Seq2[plan.Past, error]) error

// removeJournal ends a merge. If a crash undoes it, the same notes are merged once
// more, to no effect.
func removeJournal(dir string) error {
	if err := os.Remove(filepath.Join(dir, journalName)); err != nil {
		return fmt.Errorf("remove the journal: %w", err)
	}
	return nil
}

func sortJournal(journal *journalReader, into *sorter) (count int64, err error) {
	for {
		at := journal.at
		body, err := journal.next()
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		n, err := parseNote(body)
		if err != nil {
			return count, corrupt(journal.f.Name(), at, "a record", err)
		}
		if err := into.add(n, journal.size); err != nil {
			return count, err
		}
		count++
	}
}

// rewrite writes the state anew, with the notes.
func rewrite(dir string, s sizes, changes notes, read reader) (err error) {
	old, err := openPast(filepath.Join(dir, pastName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return err
	default:
		defer func() { err = errors.Join(err, old.close()) }()
	}
	file, err := create(dir, pastName)
	if err != nil {
		return err
	}
	out, err := newPastWriter(file, s.block)
	if err == nil {
		m := merging{out: out, changes: changes, journal: filepath.Join(dir, journalName), beside: newBeside(read)}
		err = m.beside.end(m.all(old))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file.path, err), file.Close())
	}
	return file.Commit()
}

// merging is the state and the notes on their way into the new state.
type merging struct {
	out     *pastWriter
	changes notes
	// head is the next note; more is false where there is none.
	head note
	more bool
	// journal is where the notes come from, for errors.
	journal string
	// beside is handed all that is written.
	beside *beside
}

// all writes what old holds, which may be nil, changed by the notes.
func (m *merging) all(old *pastReader) error {
	if err := m.advance(); err != nil {
		return err
	}
	for old != nil {
		block, err := old.nextBlock()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := m.block(old, block); err != nil {
			return err
		}
	}
	for m.more {
		if err := m.apply(); err != nil {
			return err
		}
	}
	return m.out.end()
}

func (m *merging) advance() (err error) {
	m.head, err = m.changes.next()
	m.more = err == nil
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// apply writes the next note.
func (m *merging) apply() error {
	if m.head.body[0] == recordNote {
		p, rest, err := wire.ReadPast(m.head.body[1:])
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("%d bytes follow it", len(rest))
		}
		if err != nil {
			return corrupt(m.journal, -1, fmt.Sprintf("the note of %.100q", m.head.key()), err)
		}
		if err := m.add(&p); err != nil {
			return err
		}
	}
	return m.advance()
}

// block writes one block of the state before. One without changes needs not be
// unpacked.
func (m *merging) block(old *pastReader, block *dataBlock) error {
	if !m.more || string(m.head.key()) > block.last {
		if done, err := m.out.carry(block); err != nil {
			return err
		} else if done {
			return m.show(old)
		}
	}
	if err := old.open(); err != nil {
		return err
	}
	var p plan.Past
	for {
		ok, err := old.next(&p)
		if err != nil {
			return err
		}
		if !ok {
			return m.out.endBlock()
		}
		if err := m.record(&p); err != nil {
			return err
		}
	}
}

// show hands on what was carried over as it was packed.
func (m *merging) show(old *pastReader) error {
	if m.beside == nil {
		return nil
	}
	if err := old.open(); err != nil {
		return err
	}
	var p plan.Past
	for {
		ok, err := old.next(&p)
		if err != nil || !ok {
			return err
		}
		m.beside.add(&p)
	}
}

// record writes one record of the state before, and the notes that come before it;
// a note of its own key replaces it.
func (m *merging) record(p *plan.Past) error {
	for m.more {
		c := bytes.Compare(m.head.key(), []byte(p.Key))
		if c > 0 {
			break
		}
		if err := m.apply(); err != nil || c == 0 {
			return err
		}
	}
	return m.add(p)
}

func (m *merging) add(p *plan.Past) error {
	m.beside.add(p)
	return m.out.add(p)
}
