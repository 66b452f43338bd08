package state

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// The journal: a mark, a random number, a CRC-32C of both, and records.
//
// A record is the length of its body, a CRC-32C and the body, which begins with the
// record's kind. The checksum includes the random number and the record's place, so
// that what an older file left on the disk is not taken for one of this.
//
// After each fsync a record is appended that says how far it reached. A record that
// is damaged, and lies behind all of these, was being written when the process or
// the machine stopped: nobody was promised that it is there. One that lies before
// one of them is damage.
const (
	journalMark = "fdjourn1"
	journalHead = journalSums + 4
	journalSums = len(journalMark) + 8
	recordHead  = 4 + 4

	recordNote   = 'n' // and what is to be remembered
	recordForget = 'f' // and the key
	recordSynced = 's' // and how many bytes are durable

	syncedSize = 1 + 8
)

const (
	// maxRecord bounds a note, in bytes, and what a reader takes memory for.
	maxRecord = 16 << 20
	// journalBuffer is how many bytes of notes wait to be written.
	journalBuffer = 64 << 10
)

// journal is the notes since the last Commit. It is used by one goroutine at a time.
type journal struct {
	f    *os.File
	path string
	id   uint64
	// size is what is in the file, to which buf is to be appended.
	size int64
	buf  []byte
	// notes counts the records, synced those that are durable.
	notes, synced int64
}

// createJournal makes an empty journal, durably, in place of any other.
func createJournal(dir string) (*journal, error) {
	var head [journalHead]byte
	copy(head[:], journalMark)
	_, _ = rand.Read(head[len(journalMark):journalSums]) // it never fails
	binary.LittleEndian.PutUint32(head[journalSums:], crc32.Checksum(head[:journalSums], castagnoli()))
	file, err := create(dir, journalName)
	if err != nil {
		return nil, err
	}
	if _, err := file.Write(head[:]); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", file.path, err), file.Close())
	}
	if err := file.Commit(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("write the journal: %w", err)
	}
	return &journal{f: f, path: file.path, id: binary.LittleEndian.Uint64(head[len(journalMark):]), size: int64(len(head))}, nil
}

func (j *journal) note(p plan.Past) error {
	start := j.begin(recordNote)
	j.buf = wire.AppendPast(j.buf, p)
	j.notes++
	return j.end(start, p.Key)
}

func (j *journal) forget(key string) error {
	start := j.begin(recordForget)
	j.buf = append(j.buf, key...)
	j.notes++
	return j.end(start, key)
}

// durable says that the first n bytes are, and with them that many notes.
func (j *journal) durable(n, notes int64) error {
	start := j.begin(recordSynced)
	j.buf = binary.LittleEndian.AppendUint64(j.buf, uint64(n))
	j.synced = notes
	if err := j.end(start, ""); err != nil {
		return err
	}
	return j.flush()
}

func (j *journal) begin(kind byte) (start int) {
	start = len(j.buf)
	j.buf = append(j.buf, make([]byte, recordHead)...)
	j.buf = append(j.buf, kind)
	return start
}

// end completes the record that begins at start of the buffer.
func (j *journal) end(start int, key string) error {
	record := j.buf[start:]
	body := record[recordHead:]
	if len(body) > maxRecord {
		j.buf = j.buf[:start]
		j.notes--
		return fmt.Errorf("note %.100q: %w: it has %d bytes, and at most %d are read: remove extended attributes", key, ErrNote, len(body), maxRecord)
	}
	binary.LittleEndian.PutUint32(record, uint32(len(body)))
	binary.LittleEndian.PutUint32(record[4:], recordSum(j.id, j.size+int64(start), body))
	if len(j.buf) < journalBuffer {
		return nil
	}
	return j.flush()
}

// flush writes the buffer. After an error the file may end in the middle of a
// record, and nothing must be written behind it.
func (j *journal) flush() error {
	n, err := j.f.Write(j.buf)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	j.size += int64(n)
	j.buf = j.buf[:0]
	return nil
}

// recordSum is the checksum of a record whose length is that of its body.
func recordSum(id uint64, at int64, body []byte) uint32 {
	var head [8 + 8 + 4]byte
	binary.LittleEndian.PutUint64(head[:], id)
	binary.LittleEndian.PutUint64(head[8:], uint64(at))
	binary.LittleEndian.PutUint32(head[16:], uint32(len(body)))
	return crc32.Update(crc32.Checksum(head[:], castagnoli()), castagnoli(), body)
}

// journalReader reads a journal from beginning to end.
type journalReader struct {
	f    *os.File
	in   *bufio.Reader
	id   uint64
	at   int64 // where the next record begins
	size int64
	head [recordHead]byte
	buf  []byte
}

func openJournal(dir string) (*journalReader, error) {
	path := filepath.Join(dir, journalName)
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	r := &journalReader{f: f, in: bufio.NewReaderSize(f, 256<<10), at: int64(journalHead)}
	var head [journalHead]byte
	info, err := f.Stat()
	if err == nil {
		r.size = info.Size()
		_, err = io.ReadFull(r.in, head[:])
	}
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		// The beginning was durable before the file had its name.
		return nil, errors.Join(corrupt(path, r.size, "its beginning is cut off", nil), f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("read the journal: %w", err), f.Close())
	case string(head[:len(journalMark)]) != journalMark:
		return nil, errors.Join(corrupt(path, 0, "it is no journal, or one of another version", nil), f.Close())
	case crc32.Checksum(head[:journalSums], castagnoli()) != binary.LittleEndian.Uint32(head[journalSums:]):
		// With another number no record could be told from garbage.
		return nil, errors.Join(corrupt(path, 0, "the checksum of its beginning does not match", nil), f.Close())
	}
	r.id = binary.LittleEndian.Uint64(head[len(journalMark):])
	return r, nil
}

func (r *journalReader) close() error { return r.f.Close() }

// next gives the body of the next note, valid until the call after; io.EOF at the
// end of what can be read, which is at, and a [*CorruptError] where something that
// was durable cannot be read.
func (r *journalReader) next() ([]byte, error) {
	for {
		if r.at == r.size {
			return nil, io.EOF
		}
		body, problem, err := r.record()
		if err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		if problem != "" {
			return nil, r.damaged(problem)
		}
		r.at += recordHead + int64(len(body))
		if body[0] != recordSynced {
			return body, nil
		}
	}
}

// record reads the next record, or says what is wrong with it.
func (r *journalReader) record() (body []byte, problem string, err error) {
	left := r.size - r.at - recordHead
	if left < 0 {
		return nil, "a record is cut off", nil
	}
	if _, err := io.ReadFull(r.in, r.head[:]); err != nil {
		return nil, "", err
	}
	n := binary.LittleEndian.Uint32(r.head[:])
	if n == 0 || n > maxRecord || int64(n) > left {
		return nil, "a record is cut off, or its length is damaged", nil
	}
	if uint32(cap(r.buf)) < n {
		r.buf = make([]byte, n+n/4)
	}
	body = r.buf[:n]
	if _, err := io.ReadFull(r.in, body); err != nil {
		return nil, "", err
	}
	if recordSum(r.id, r.at, body) != binary.LittleEndian.Uint32(r.head[4:]) {
		return nil, "the checksum of a record does not match", nil
	}
	return body, "", nil
}

// damaged tells damage from what was not written to its end.
func (r *journalReader) damaged(problem string) error {
	promised, err := r.promised()
	switch {
	case err != nil:
		return fmt.Errorf("read the journal: %w", err)
	case promised:
		return corrupt(r.f.Name(), r.at, problem, nil)
	}
	return io.EOF
}

// promised reports whether any record behind the place at hand says that it was
// durable. Where records begin is not known there.
func (r *journalReader) promised() (bool, error) {
	const size = recordHead + syncedSize
	length := binary.LittleEndian.AppendUint32(nil, syncedSize)
	buf := make([]byte, 256<<10)
	for from := r.at; r.size-from >= size; from += int64(len(buf) - size + 1) {
		n, err := r.f.ReadAt(buf, from)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		for i := 0; ; i++ {
			next := bytes.Index(buf[i:n], length)
			if next < 0 || i+next+size > n {
				break
			}
			i += next
			record := buf[i:][:size]
			body := record[recordHead:]
			if body[0] == recordSynced && recordSum(r.id, from+int64(i), body) == binary.LittleEndian.Uint32(record[4:]) &&
				binary.LittleEndian.Uint64(body[1:]) > uint64(r.at) {
				return true, nil
			}
		}
	}
	return false, nil
}
