package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
)

// Only MinIO lists metadata. Elsewhere each object is asked for what it is, unless that is
// known: it is what it was as long as the listing shows the same content and the same time
// of writing, which goes on with each write, also one of metadata alone.

// look is one entry on its way through looked.
type look struct {
	e    entry.Entry
	gone bool
	err  error
	// done is closed when the look has ended; nil if there was nothing to look at.
	done chan struct{}
}

// looked makes of a listing of names one with attributes, which keeps the order: it looks
// at each object that is not known as it is listed, several at once.
func (p *Place) looked(ctx context.Context, listed, known iter.Seq2[entry.Entry, error]) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		defer all.Wait()
		defer cancel()
		// The order waits in one channel, the work in the other.
		order, work := make(chan *look, 2*parallel), make(chan *look)
		for range parallel {
			all.Go(func() {
				for l := range work {
					p.lookAt(ctx, l)
				}
			})
		}
		all.Go(func() {
			defer close(order)
			defer close(work)
			was := remember(known)
			defer was.stop()
			for e, err := range listed {
				l := &look{e: e, err: err}
				ask := err == nil && !was.tells(&l.e)
				if ask {
					l.done = make(chan struct{})
				}
				select {
				case order <- l:
				case <-ctx.Done():
					return
				}
				if ask {
					work <- l
				}
			}
		})
		for l := range order {
			if l.done != nil {
				<-l.done
			}
			if !l.gone && !yield(l.e, l.err) {
				return
			}
		}
		if err := context.Cause(ctx); err != nil {
			yield(entry.Entry{}, fmt.Errorf("list %s: %w", p, err))
		}
	}
}

// lookAt asks for what was listed, and for the target of a link that is too long for
// metadata.
func (p *Place) lookAt(ctx context.Context, l *look) {
	defer close(l.done)
	if p.o.Pace != nil {
		if l.err = p.o.Pace.Acquire(ctx); l.err != nil {
			return
		}
		defer p.o.Pace.Release()
	}
	listed := l.e
	l.e = entry.Entry{}
	o, err := p.b.Stat(ctx, listed.Key())
	if errors.Is(err, bucket.ErrNotFound) {
		l.gone = true
		return
	}
	if errors.Is(err, bucket.ErrDenied) {
		err = fmt.Errorf("%w: %w", p.keptBack(listed.Key()), err)
	}
	var e entry.Entry
	if err == nil {
		e, err = p.asListed(listed, o)
	}
	if err == nil {
		err = p.getTarget(ctx, &e)
	}
	if l.err = err; err == nil {
		l.e = e
	}
}

// asListed is the entry that an object stands for whose name was listed, as a listing with
// metadata would have shown it: with its time in milliseconds. Where there is no such
// listing it also notes that time as what tells changes, unless the object can still be
// written once more in the second, or the part of one, that the time names.
func (p *Place) asListed(listed entry.Entry, o bucket.Object) (entry.Entry, error) {
	same := o.ETag == listed.Sum.ETag
	if same {
		o.LastModified = time.Unix(0, listed.MTime)
	}
	e, err := p.entryOf(o)
	if err == nil && same && !p.caps.ListMetadata && o.LastModified.Before(o.Asked) {
		e.Change.CTime = listed.MTime
	}
	return e, err
}

// recall moves through what is known of a place, beside its listing.
type recall struct {
	next func() (entry.Entry, error, bool)
	stop func()
	head entry.Entry
	key  string
	ok   bool
}

func remember(known iter.Seq2[entry.Entry, error]) *recall {
	m := &recall{stop: func() {}}
	if known != nil {
		m.next, m.stop = iter.Pull2(known)
		m.advance()
	}
	return m
}

func (m *recall) advance() {
	var err error
	m.head, err, m.ok = m.next()
	m.ok = m.ok && err == nil
	m.key = m.head.Key()
}

// tells reports whether a listed entry is as it was known, and makes it that. It is asked
// for entries in their order.
func (m *recall) tells(listed *entry.Entry) bool {
	key := listed.Key()
	for m.ok && m.key < key {
		m.advance()
	}
	then := &m.head
	if !m.ok || m.key != key || then.Change != (entry.Change{CTime: listed.MTime}) || then.Sum.ETag != listed.Sum.ETag ||
		then.Kind == entry.File && then.Size != listed.Size {
		return false
	}
	*listed = *then
	return true
}
