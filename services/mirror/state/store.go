// Package state keeps what the runs of one mirror job leave behind, in one
// directory, for the next run: what both sides held at each key, and a few documents
// about the job.
//
// What is noted goes to a journal first. A Commit sorts it and merges it into the
// state, which is one file, sorted by key, and is replaced atomically. Whenever the
// process or the machine stops, the directory holds the last committed state and a
// beginning of the notes since, in the order in which they were made, with at least
// those that were synced; the next Open merges them. Damage is found, not read: every
// byte is under a checksum.
//
// Memory does not grow with the number of notes nor with that of the entries.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"sync"
	"sync/atomic"

	"github.com/firedrill/firedrill/pkg/filelock"
	"github.com/firedrill/firedrill/pkg/inherit"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Store is the state of one job, held by this process alone. Its methods may be
// used concurrently.
type Store struct {
	dir   string
	sizes sizes
	lock  *os.File

	closed    atomic.Bool
	committed atomic.Bool

	// syncing is held by whatever needs the journal's file to stay open while mu is
	// free. It is taken before mu.
	syncing sync.Mutex
	// mu guards what follows.
	mu sync.Mutex
	// journal is nil if nothing was noted since the last Commit.
	journal *journal
	// failed is why the journal can no longer be written.
	failed error
}

// Open opens the state in the directory, which it makes if it is missing, and merges
// what an interrupted run noted. The error is a [*LockedError] while another Store
// has it open, and a [*CorruptError] where something is damaged.
func Open(dir string) (*Store, error) { return open(dir, defaultSizes()) }

func open(dir string, z sizes) (*Store, error) {
	if err := MakeDir(dir); err != nil {
		return nil, fmt.Errorf("make the directory of the state: %w", err)
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, fmt.Errorf("open the state: %w", inherit.Explain(dir, err))
	}
	s := &Store{dir: dir, sizes: z, lock: lock}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the state: %w", inherit.Explain(dir, err)), filelock.LetGo(lock))
	}
	return s, nil
}

// recover tidies up after an interrupted run.
func (s *Store) recover() error {
	if err := sweep(s.dir); err != nil {
		return err
	}
	if err := s.finish(); err != nil {
		return err
	}
	past, err := openPast(s.Path(pastName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.committed.Store(true)
	return past.close()
}

// finish merges the journal that an interrupted run left.
func (s *Store) finish() error {
	_, err := os.Lstat(s.Path(journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = absorb(s.dir, s.sizes, -1, nil)
	}
	if err != nil {
		return err
	}
	return removeJournal(s.dir)
}

// Empty reports whether nothing was ever committed, so that there is no past. A past
// without an entry is one, too.
func (s *Store) Empty() bool { return !s.committed.Load() }

// Past yields what the last Commit, or Open, left, sorted strictly by key, as often
// as it is iterated; each iteration shows the state as it is at its beginning, even
// if it is committed to meanwhile. An error, a [*CorruptError] where the file is
// damaged, ends it. The extended attributes of what it yields must not be changed.
func (s *Store) Past() iter.Seq2[plan.Past, error] {
	return func(yield func(plan.Past, error) bool) {
		if err := s.each(func(p *plan.Past) bool { return yield(*p, nil) }); err != nil {
			yield(plan.Past{}, err)
		}
	}
}

func (s *Store) each(yield func(*plan.Past) bool) (err error) {
	if s.closed.Load() {
		return fmt.Errorf("read the state %s: %w", s.dir, ErrClosed)
	}
	past, err := openPast(s.Path(pastName))
	if errors.Is(err, fs.ErrNotExist) && s.Empty() {
		return nil
	}
	if err != nil {
		return err
	}
	stopped := false
	err = past.each(func(p *plan.Past) bool {
		stopped = !yield(p)
		return !stopped
	})
	if closing := past.close(); !stopped {
		err = errors.Join(err, closing)
	}
	return err
}

// Note remembers p instead of all that was remembered of its key, from the next
// Commit on. It returns before p is durable; see Sync. It waits for a Commit that is
// under way. The error is ErrNote for what cannot be remembered. Once the journal
// could not be written, nothing can be noted until the state is opened again.
func (s *Store) Note(p plan.Past) error {
	return s.write(p.Key, func(j *journal) error { return j.note(p) })
}

// Forget remembers nothing of a key any more; see Note.
func (s *Store) Forget(key string) error {
	return s.write(key, func(j *journal) error { return j.forget(key) })
}

func (s *Store) write(key string, record func(*journal) error) error {
	if key == "" {
		return fmt.Errorf("%w: it has no key", ErrNote)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return fmt.Errorf("note %.100q: %w", key, err)
	}
	if s.journal == nil {
		j, err := createJournal(s.dir)
		if err != nil {
			return err
		}
		s.journal = j
	}
	return s.kept(record(s.journal))
}

// usable tells why the store cannot be written to. mu is held.
func (s *Store) usable() error {
	if s.closed.Load() {
		return ErrClosed
	}
	return s.failed
}

// kept remembers an error after which the journal's end is not known. mu is held.
func (s *Store) kept(err error) error {
	if err != nil && !errors.Is(err, ErrNote) && s.failed == nil {
		s.failed = fmt.Errorf("the journal could not be written before: mend that, and run again: %w", err)
	}
	return err
}

// Sync makes all notes durable that were made before. Notes go on being taken
// meanwhile.
func (s *Store) Sync() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	return s.sync()
}

// sync is Sync while syncing is held.
func (s *Store) sync() error {
	s.mu.Lock()
	j, err := s.journal, s.usable()
	if err != nil || j == nil || j.notes == j.synced {
		s.mu.Unlock()
		return err
	}
	err = s.kept(j.flush())
	size, notes := j.size, j.notes
	s.mu.Unlock()
	if err != nil {
		return err
	}
	err = j.f.Sync()

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return s.kept(fmt.Errorf("sync the journal: %w", err))
	}
	return s.kept(j.durable(size, notes))
}

// Commit merges the notes into the state, atomically and durably. Where nothing was
// noted it does nothing. After an error nothing is lost, and it may be tried again.
// Its time grows with the state's size, little where nothing changes, and
// with the number of notes.
func (s *Store) Commit() error { return s.CommitRead(nil) }

// CommitRead is Commit, and has read given what the state holds then, sorted by key, as
// it is written, in a goroutine that has ended when it returns. read must not note,
// sync, commit or close, which would wait for it. An error of read is one of the commit. Where nothing was noted read is not called.
func (s *Store) CommitRead(read func(iter.Seq2[plan.Past, error]) error) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.usable()
	if err == nil && s.journal != nil {
		err = s.commit(read)
	}
	if err != nil {
		return fmt.Errorf("commit the state %s: %w", s.dir, err)
	}
	return nil
}

func (s *Store) commit(read reader) error {
	j := s.journal
	if err := s.kept(j.flush()); err != nil {
		return err
	}
	if _, err := absorb(s.dir, s.sizes, j.size, read); err != nil {
		return err
	}
	s.committed.Store(true)
	if err := removeJournal(s.dir); err != nil {
		return err
	}
	s.journal = nil
	return j.f.Close()
}

// Close makes the notes durable, so that the next Open finds them, and lets others
// open the state. What was made by the store and is still open can no longer be
// committed safely.
func (s *Store) Close() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if s.closed.Load() {
		return nil
	}
	err := s.sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed.Store(true)
	if s.journal != nil {
		err = errors.Join(err, s.journal.f.Close())
	}
	if err = errors.Join(err, filelock.LetGo(s.lock)); err != nil {
		return fmt.Errorf("close the state %s: %w", s.dir, err)
	}
	return nil
}
