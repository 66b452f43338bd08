package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/filelock"
)

// maxNote is how long a job's note may be, in bytes.
const maxNote = 16 << 10

// boardPause is between two tries to have a board for oneself, which takes milliseconds.
const boardPause = 2 * time.Millisecond

// boardWait is how long a board is waited for.
const boardWait = 10 * time.Second

// Posted is a job that is on a board; nil is one of no directory.
type Posted struct{ f *os.File }

// Post puts a job on a board. note is given the notes of all that are there, and gives this
// job's own, or why it is not to be there, which is what Post returns then. Two jobs that are
// posted at once see each other. A job is on the board until Remove, or until its process
// ends. Notes are read by all users of the machine, and may have been written by any of
// them. Another error says why nothing can be posted there.
func (l Locks) Post(ctx context.Context, board string, note func(others [][]byte) ([]byte, error)) (p *Posted, err error) {
	if l == "" {
		return nil, nil
	}
	err = l.atBoard(ctx, board, func(prefix string, others [][]byte) error {
		own, err := note(others)
		if err != nil {
			return err
		}
		p, err = post(prefix+strings.ToLower(rand.Text()), own)
		return err
	})
	return p, err
}

// atBoard has a board to itself while do looks at the notes of those that are there. prefix
// begins the paths of their files.
func (l Locks) atBoard(ctx context.Context, board string, do func(prefix string, notes [][]byte) error) error {
	// Any user may hold it for as long as it likes: then jobs go on without a board.
	looking, cancel := context.WithTimeout(ctx, boardWait)
	defer cancel()
	alone, err := l.lock("board "+board, func(f *os.File) error { return filelock.Wait(looking, f, boardPause) })
	if err != nil {
		return err
	}
	defer func() { _ = filelock.LetGo(alone) }() // nothing was written to it
	prefix := filepath.Join(string(l), "firedrill-"+board+"-")
	paths, err := filepath.Glob(escaped(prefix) + "*")
	if err != nil {
		return err
	}
	var notes [][]byte
	for _, path := range paths {
		if note, there := look(path); there {
			notes = append(notes, note)
		}
	}
	return do(prefix, notes)
}

// escaped is a path as a pattern that matches nothing else.
func escaped(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// look reads the note of a job that is still there. Of one that is not, the file is
// removed, if this user may do that. What is no job's is left alone.
func look(path string) (note []byte, there bool) {
	f, err := openPlain(path)
	if err != nil {
		return nil, false
	}
	defer func() { _ = filelock.LetGo(f) }() // it was read only
	err = filelock.TryShared(f)
	if err == nil {
		_ = os.Remove(path)
	}
	if !errors.Is(err, filelock.ErrHeld) {
		return nil, false
	}
	note, err = io.ReadAll(io.LimitReader(f, maxNote))
	return note, err == nil
}

func post(path string, note []byte) (*Posted, error) {
	if len(note) > maxNote {
		return nil, fmt.Errorf("a note of %d bytes: at most %d are read", len(note), maxNote)
	}
	f, err := tryOpen(path)
	if err != nil {
		return nil, err
	}
	p := &Posted{f}
	if err = filelock.Try(f); err == nil {
		err = p.write(note)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("post %s: %w", path, err), os.Remove(path), filelock.LetGo(f))
	}
	return p, nil
}

// write puts another note in the place of the job's. Others read it meanwhile only if the
// caller does not have the board.
func (p *Posted) write(note []byte) error {
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.WriteAt(note, 0)
	return err
}

// Remove takes the job off its board.
func (p *Posted) Remove() error {
	if p == nil {
		return nil
	}
	return errors.Join(os.Remove(p.f.Name()), filelock.LetGo(p.f))
}
