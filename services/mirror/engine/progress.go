package engine

import (
	"sync"
	"time"

	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Progress is how far a run is.
type Progress struct {
	// At is when it was so, Began when the run began.
	At, Began time.Time
	// Planned says that all is planned: until then Actions and Bytes are what is
	// known so far.
	Planned bool
	// Seen counts the entries that were decided about, those included of which nothing is
	// to be done.
	Seen int64
	// Actions and Bytes are what has to be done, DoneActions and DoneBytes what of
	// it is done, Failed what failed.
	Actions, Bytes         int64
	DoneActions, DoneBytes int64
	Failed                 int64
}

// ETA is how long what is planned will still take at the mean speed so far; false
// while there is nothing to tell it from.
func (p Progress) ETA() (time.Duration, bool) {
	spent := p.At.Sub(p.Began)
	if !p.Planned || spent <= 0 || p.Actions == 0 || p.Actions < p.DoneActions {
		return 0, false
	}
	// Many small files are slow by number, few large ones by size alone, as several
	// of them are under way at once: between them, the slower of both is nearer to
	// the truth.
	share := float64(p.DoneActions) / float64(p.Actions)
	if p.Bytes > 0 {
		bySize := float64(p.DoneBytes) / float64(p.Bytes)
		if share = min(share, bySize); p.Bytes/p.Actions >= largeMean {
			share = bySize
		}
	}
	if share <= 0 {
		return 0, false
	}
	return time.Duration(float64(spent) * (1 - share) / share), true
}

// largeMean is the mean size, in bytes, from which on files are large.
const largeMean = 1 << 20

// WithRead is the progress when n bytes of content were read so far: what was read
// for actions that are not done yet counts as done, too.
func (p Progress) WithRead(n int64) Progress {
	p.DoneBytes = max(p.DoneBytes, min(n, p.Bytes))
	return p
}

// watchEvery is how often a run says how far it is.
const watchEvery = 250 * time.Millisecond

// watcher counts, and tells whoever watches. A nil Watch costs only the counting.
type watcher struct {
	tell func(Progress)
	now  func() time.Time

	mu   sync.Mutex
	last time.Time
	p    Progress
}

func (r *run) startWatch() *watcher {
	return &watcher{tell: r.Watch, now: r.Now, last: r.report.Began, p: Progress{Began: r.report.Began}}
}

func (w *watcher) planned(a *plan.Action) {
	w.update(func() {
		w.p.Seen++
		if a.Op.Changes() {
			w.p.Actions++
			w.p.Bytes += weight(a)
		}
	})
}

// passed counts n entries that were seen to need no action.
func (w *watcher) passed(n int64) { w.update(func() { w.p.Seen += n }) }

// allPlanned tells at once: there may be nothing more to tell until a large file is
// done.
func (w *watcher) allPlanned() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.p.Planned = true
	if w.tell != nil {
		w.last = w.now()
		w.send(w.last)
	}
}

func (w *watcher) done(before *plan.Action, err error) {
	w.update(func() {
		w.p.DoneActions++
		w.p.DoneBytes += weight(before)
		if err != nil {
			w.p.Failed++
		}
	})
}

// update counts, and tells when it is time. Telling is under the lock, so that
// what is told never goes back.
func (w *watcher) update(count func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	count()
	if w.tell == nil {
		return
	}
	if at := w.now(); at.Sub(w.last) >= watchEvery {
		w.last = at
		w.send(at)
	}
}

func (w *watcher) send(at time.Time) {
	w.p.At = at
	w.tell(w.p)
}

// stop tells the end.
func (w *watcher) stop() {
	if w.tell == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.send(w.now())
}
