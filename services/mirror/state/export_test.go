package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
)

// OpenSmall is Open with bounds so small that a few notes make many runs and blocks.
func OpenSmall(dir string) (*Store, error) {
	return open(dir, sizes{sort: 700, fan: 3, block: 8})
}

// BlockSizes are the numbers of records in the blocks of the state.
func (s *Store) BlockSizes() (sizes []int, err error) {
	past, err := openPast(s.Path(pastName))
	if err != nil {
		return nil, err
	}
	for {
		block, err := past.nextBlock()
		if err != nil {
			return sizes, past.close()
		}
		sizes = append(sizes, block.count)
	}
}

// BreakJournal makes every write to the journal fail, as a full disk does.
func (s *Store) BreakJournal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = s.journal.f.Close()
	s.journal.f = full
	return err
}

// FlushJournal hands to the system what waits in memory, without making it durable.
func (s *Store) FlushJournal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.flush()
}

// WritePast writes a file of the state of which the checksums are right, and the
// data blocks whatever they are.
func WritePast(path string, total uint64, payloads ...[]byte) error {
	raw := bytes.NewBufferString(pastMark)
	w := blockWriter{w: raw}
	for _, p := range payloads {
		if err := w.write(blockData, p); err != nil {
			return err
		}
	}
	if err := w.write(blockEnd, binary.LittleEndian.AppendUint64(nil, total)); err != nil {
		return err
	}
	return os.WriteFile(path, raw.Bytes(), 0o600)
}

// Blocks gives what is in the data blocks of a file of the state.
func Blocks(path string) (payloads [][]byte, err error) {
	past, err := openPast(path)
	if err != nil {
		return nil, err
	}
	for {
		block, err := past.nextBlock()
		if err != nil {
			return payloads, past.close()
		}
		payloads = append(payloads, bytes.Clone(block.payload))
	}
}

// WriteJournal writes a journal of which the checksums are right, with one record.
func WriteJournal(dir string, body []byte) error {
	j, err := createJournal(dir)
	if err != nil {
		return err
	}
	start := j.begin(0)
	j.buf = append(j.buf[:start+recordHead], body...)
	if err := j.end(start, ""); err != nil {
		return errors.Join(err, j.f.Close())
	}
	return errors.Join(j.flush(), j.f.Close())
}
