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

// Post puts a job on a board, unless one that is there keeps it off: against is asked
// about the note of each, and what it returns, if anything, is what Post returns. Two jobs
// that are posted at once see each other. A job is on the board until Remove, or until its
// process ends. Notes are read by all users of the machine, and may have been written by
// any of them. Another error says why nothing can be posted there.
func (l Locks) Post(ctx context.Context, board string, note []byte, against func(other []byte) error) (*Posted, error) {
	if l == "" {
		return nil, nil
	}
	if len(note) > maxNote {
		return nil, fmt.Errorf("a note of %d bytes: at most %d are read", len(note), maxNote)
	}
	alone, err := openLock(l.path("board " + board))
	if err != nil {
		return nil, err
	}
	defer func() { _ = filelock.LetGo(alone) }() // nothing was written to it
	// Any user may hold it for as long as it likes: then jobs go on without a board.
	looking, cancel := context.WithTimeout(ctx, boardWait)
	defer cancel()
	if err := filelock.Wait(looking, alone, boardPause); err != nil {
		return nil, fmt.Errorf("look at %s: %w", alone.Name(), err)
	}
	prefix := filepath.Join(string(l), "firedrill-"+board+"-")
	others, err := filepath.Glob(escaped(prefix) + "*")
	if err != nil {
		return nil, err
	}
	for _, path := range others {
		if other, there := look(path); there {
			if err := against(other); err != nil {
				return nil, err
			}
		}
	}
	return post(prefix+strings.ToLower(rand.Text()), note)
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
	f, err := tryOpen(path)
	if err != nil {
		return nil, err
	}
	err = filelock.Try(f)
	if err == nil {
		_, err = f.Write(note)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("post %s: %w", path, err), os.Remove(path), filelock.LetGo(f))
	}
	return &Posted{f}, nil
}

// Remove takes the job off its board.
func (p *Posted) Remove() error {
	if p == nil {
		return nil
	}
	return errors.Join(os.Remove(p.f.Name()), filelock.LetGo(p.f))
}
