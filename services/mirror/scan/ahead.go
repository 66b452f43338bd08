package scan

import (
	"math"
	"runtime"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// How many directories are read ahead: of each one on the path, so that those
// further up do not starve the innermost, and in all.
const (
	aheadOfEach = 4
	aheadInAll  = 64
)

// ahead is a directory that is being read before the walk comes to it.
type ahead struct {
	done  chan struct{} // closed when the rest is set
	dir   *dir
	entry entry.Entry
	err   error
}

// reader is what reads for a walk.
type reader struct {
	running sync.WaitGroup
	ahead   int       // directories that are read ahead and not yet taken
	buffers sync.Pool // of *[]byte, for names
	looks   sync.Pool // of *[]seen, of directories of which everything was taken
}

// bufferSize is what one call lists names into: about a thousand names.
const bufferSize = 32 << 10

// list reads the names of a directory, at most about most of them or all for -1,
// and once it has all, sorts them and looks at the first.
func (w *walker) list(d *dir, most int) error {
	if d.sorted {
		return nil
	}
	if most < 0 {
		most = math.MaxInt
	}
	buf, ok := w.buffers.Get().(*[]byte)
	if !ok {
		b := make([]byte, bufferSize)
		buf = &b
	}
	defer w.buffers.Put(buf)
	done, err := d.read(*buf, most)
	if err != nil {
		return &Error{"list", d.path, err}
	}
	if done {
		d.sort(w.o.Filter)
		w.lookAll(d)
	}
	return nil
}

// lookAll looks at the next window of items.
func (w *walker) lookAll(d *dir) {
	d.base = d.next
	n := min(len(d.items)-d.base, window)
	d.seen = w.room(d.seen, n)
	look := func(from, to int) {
		var paths entry.Texts
		for i := from; i < to; i++ {
			s, it := &d.seen[i], &d.items[d.base+i]
			*s = seen{entry: entry.Entry{Path: paths.Path(d.path, it.name), Kind: it.kind}}
			s.err = d.look(&s.entry, it, w.o.Xattrs)
		}
	}
	workers := min(runtime.GOMAXPROCS(0), aheadOfEach, n/worthSharing)
	if workers < 2 {
		look(0, n)
		return
	}
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() { look(n*i/workers, n*(i+1)/workers) })
	}
	all.Wait()
}

// room gives room for n looks, as had has it or another directory had it.
func (r *reader) room(had []seen, n int) []seen {
	if cap(had) < n {
		if used, ok := r.looks.Get().(*[]seen); ok {
			had = *used
		}
	}
	if cap(had) < n {
		had = make([]seen, n)
	}
	return had[:n]
}

// worthSharing is how many looks are worth a goroutine.
const worthSharing = 128

// child gives the directory that an item is, read ahead or read now.
func (w *walker) child(d *dir, s *seen) (*dir, entry.Entry, error) {
	a := s.ahead
	if a == nil {
		a = &ahead{}
		w.readDir(a, d, d.items[d.next-1].name, s.entry)
	} else {
		<-a.done
		w.ahead--
		s.ahead = nil
	}
	return a.dir, a.entry, a.err
}

// readAhead begins to read the next directories in d.
func (w *walker) readAhead(d *dir) {
	most := aheadOfEach
	for i := d.next; i < d.base+len(d.seen) && most > 0 && w.ahead < aheadInAll; i++ {
		s := &d.seen[i-d.base]
		if s.err != nil || s.entry.Kind != entry.Dir {
			continue
		}
		most--
		if s.ahead != nil {
			continue
		}
		a := &ahead{done: make(chan struct{})}
		s.ahead = a
		w.ahead++
		name, e := d.items[i].name, s.entry
		w.running.Go(func() {
			defer close(a.done)
			w.readDir(a, d, name, e)
		})
	}
}

// readDir opens and lists a directory in d. Of a wide one it reads only the
// beginning: the rest waits until the walk is there.
func (w *walker) readDir(a *ahead, d *dir, name string, e entry.Entry) {
	a.dir, a.entry, a.err = w.open(d, d.fd, name, e.Path)
	if a.dir == nil {
		a.entry = e // What the look at the name told.
	}
	if a.err == nil {
		a.err = w.list(a.dir, window)
	}
}
