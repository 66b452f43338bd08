package state

import (
	"errors"
	"iter"

	"github.com/firedrill/firedrill/services/mirror/plan"
)

// beside hands the records of a state to a reader while the state is being written, so
// that nobody has to read them back from the file. A nil one hands nothing on.
type beside struct {
	full  chan []plan.Past
	free  chan []plan.Past // what was read, to be filled again
	ended chan struct{}    // closed when the reader reads no more
	err   error            // the reader's, once ended is closed
	batch []plan.Past
}

// besideBatch is how many records are handed over at once, and besideAhead how many times
// that the writer may be ahead: to hand over each alone would cost more than what is done with it.
const (
	besideBatch = 256
	besideAhead = 4
)

// errCutOff is what a reader gets instead of the rest where the writing failed.
var errCutOff = errors.New("the state could not be written to its end")

// newBeside starts read in a goroutine of its own; nil for none.
func newBeside(read func(iter.Seq2[plan.Past, error]) error) *beside {
	if read == nil {
		return nil
	}
	b := &beside{full: make(chan []plan.Past, besideAhead), free: make(chan []plan.Past, besideAhead+2), ended: make(chan struct{})}
	go func() {
		defer close(b.ended)
		b.err = read(b.records)
	}()
	return b
}

// records is what the reader sees. A nil batch says that the writing failed.
func (b *beside) records(yield func(plan.Past, error) bool) {
	for batch := range b.full {
		if batch == nil {
			yield(plan.Past{}, errCutOff)
			return
		}
		for i := range batch {
			if !yield(batch[i], nil) {
				return
			}
		}
		b.free <- batch[:0] // has room for all that there are
	}
}

// add hands one record on.
func (b *beside) add(p *plan.Past) {
	if b == nil {
		return
	}
	if b.batch == nil {
		b.batch = b.room()
	}
	if b.batch = append(b.batch, *p); len(b.batch) == besideBatch {
		b.flush()
	}
}

// room is a batch that was read, or a new one while there are few.
func (b *beside) room() []plan.Past {
	select {
	case batch := <-b.free:
		return batch
	default:
		return make([]plan.Past, 0, besideBatch)
	}
}

func (b *beside) flush() {
	if len(b.batch) == 0 {
		return
	}
	select {
	case b.full <- b.batch:
	case <-b.ended: // who reads no more needs no more
	}
	b.batch = nil
}

// end says how the writing ended, and waits for the reader. The error is that of the
// writing, or else the reader's.
func (b *beside) end(written error) error {
	if b == nil {
		return written
	}
	if written == nil {
		b.flush()
	} else {
		select {
		case b.full <- nil:
		case <-b.ended:
		}
	}
	close(b.full)
	<-b.ended
	return errors.Join(written, b.readError(written))
}

// readError is the reader's error, unless it is only that of the writing.
func (b *beside) readError(written error) error {
	if written != nil && errors.Is(b.err, errCutOff) {
		return nil
	}
	return b.err
}
