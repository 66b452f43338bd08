package local

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// What is not yet, or no longer, in its place has a name that nothing else has,
// so that a crash leaves what can be told from the user's files.
const (
	tempPrefix = ".firedrill-mirror."
	tempRandom = 26
)

// staleAfter is how long a temporary file that nobody holds is left alone: its
// writer locks it a moment after making it.
const staleAfter = 10 * time.Second

// ownerSize and writerSize are how much of the random part of a name stands for the owner
// of a place, and for the process that writes to it. sumSize is how much ends it that follows
// from the rest: what somebody else named so by chance is not taken for the mirror's.
const (
	ownerSize  = 8
	writerSize = 6
	sumSize    = 5
)

// writer is whose temporary files a place makes. The zero value makes nobody's.
type writer struct {
	// owner begins, after the prefix, the names of all that the owner ever wrote, and own
	// those of what is written now.
	owner, own string
}

// newWriter is a writer for an owner; see [Options.Owner].
func newWriter(owner string) writer {
	if owner == "" {
		return writer{}
	}
	w := writer{owner: digest(owner, ownerSize)}
	w.own = w.owner + rand.Text()[:writerSize]
	return w
}

func (w writer) newTemp() string {
	random := w.own + rand.Text()[len(w.own):tempRandom-sumSize]
	return tempPrefix + random + digest(random, sumSize)
}

// digest is the first letters of a hash, of those that names have.
func digest(text string, size int) string {
	sum := sha256.Sum256([]byte(text))
	return base32.StdEncoding.EncodeToString(sum[:])[:size]
}

// made reports whether a temporary name was certainly given by a mirror. What an older
// version wrote has no sum, and is told only by the owner that it shares.
func (w writer) made(name string) bool {
	random, _ := strings.CutPrefix(name, tempPrefix)
	rest := random[:max(len(random)-sumSize, 0)]
	return isTemp(name) && (rest+digest(rest, sumSize) == random || w.orphaned(name))
}

// orphaned reports whether whoever made a temporary file is known to have ended: it was
// the same owner's writer before this one.
func (w writer) orphaned(name string) bool {
	random := strings.TrimPrefix(name, tempPrefix)
	return w.owner != "" && strings.HasPrefix(random, w.owner) && !strings.HasPrefix(random, w.own)
}

// isTemp reports whether a name looks like one that a writer has given. Nothing else is
// written under such a name, or listed.
func isTemp(name string) bool {
	random, ok := strings.CutPrefix(name, tempPrefix)
	return ok && len(random) == tempRandom && strings.Trim(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// temporary reports whether an entry has a temporary name, and whether a mirror made it.
func (p *Place) temporary(path string, kind entry.Kind) (is, made bool) {
	_, name := split(path)
	is = kind != entry.Dir && isTemp(name)
	return is, is && p.writer.made(name)
}

// isTrash reports whether a path ends with the name of a trash.
func isTrash(path string) bool {
	above, ok := strings.CutSuffix(path, place.Trash)
	return ok && (above == "" || above[len(above)-1] == '/')
}

// sweep removes a temporary file that a crashed run left. Places are swept where
// they are walked: a walk of its own would cost more than the litter does.
func (p *Place) sweep(path string) {
	if p.o.ReadOnly {
		return
	}
	d, name, err := p.parent(path, false)
	if err != nil {
		return
	}
	defer d.close()
	if p.isStale(d, name) {
		_ = d.unlink(name) // If not now, then the next time.
		return
	}
	p.left.add(path)
}

// leftovers are the first temporary files that a walk has left alone: of another owner's
// run that was killed a moment ago nobody can tell that it does not go on. They are looked
// at again when a run that wrote something ends, as the next one may not walk at all; what
// is too young even then the next listing finds. It may be used concurrently.
type leftovers struct {
	mu    sync.Mutex
	paths []string
}

// mostLeftovers bounds the memory of leftovers.
const mostLeftovers = 1000

func (l *leftovers) add(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.paths) < mostLeftovers {
		l.paths = append(l.paths, path)
	}
}

// take gives all, and keeps none.
func (l *leftovers) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	paths := l.paths
	l.paths = nil
	return paths
}

// isStale reports whether nobody is at work on a temporary file.
func (p *Place) isStale(d dir, name string) bool {
	orphaned := p.writer.orphaned(name)
	st, err := d.lstat(name)
	if err != nil || !orphaned && time.Since(time.Unix(0, st.Ctim.Nano())) < p.stale {
		return false
	}
	if kindOf(st.Mode) != entry.File {
		return true // These are renamed as soon as they are made.
	}
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return orphaned
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	return err == nil || orphaned && err != unix.EWOULDBLOCK
}
