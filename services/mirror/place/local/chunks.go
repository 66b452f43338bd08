package local

import (
	"fmt"
	"io"
	"sync"
)

const (
	// readAhead is from which size on a content is read while what was read of it is
	// written: the one waits for the network and hashes, the other waits for the disk.
	// Smaller ones are copied several at once.
	readAhead = 32 << 20
	// aheadBuffers is how much of it is under way, in buffers.
	aheadBuffers = 4
)

// chunks is a content as it is read, a buffer at a time. It is used by one goroutine.
type chunks struct {
	p *Place
	r io.Reader
	// buf is the buffer, where nothing is read ahead.
	buf *[]byte
	// Else read are the buffers that were filled, and free those that can be.
	read chan chunk
	free chan *[]byte
	last chunk
	stop func()
}

type chunk struct {
	buf *[]byte
	n   int
	err error
}

// chunks begins to read a content of about a size. Whoever reads it ends it.
func (p *Place) chunks(r io.Reader, size int64) *chunks {
	c := &chunks{p: p, r: r}
	if size < readAhead {
		c.buf = p.buffer()
		return c
	}
	c.read, c.free = make(chan chunk, aheadBuffers), make(chan *[]byte, aheadBuffers)
	for range aheadBuffers {
		c.free <- p.buffer()
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { c.readAll(stop) })
	c.stop = func() {
		close(stop)
		reader.Wait()
	}
	return c
}

// readAll fills buffers until the content ends.
func (c *chunks) readAll(stop <-chan struct{}) {
	for {
		var one chunk
		select {
		case <-stop:
			return
		case one.buf = <-c.free:
		}
		one.n, one.err = fillUp(*one.buf, c.r, stop)
		c.read <- one // has room for all
		if one.err != nil {
			return
		}
	}
}

// fillUp reads until a buffer is full, nothing comes or nobody waits for it any more. A
// panic is an error here: in this goroutine nobody else would make it one.
func fillUp(b []byte, r io.Reader, stop <-chan struct{}) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	for n < len(b) {
		select {
		case <-stop:
			return n, nil
		default:
		}
		got, err := r.Read(b[n:])
		n += got
		if err != nil || got == 0 {
			return n, err
		}
	}
	return n, nil
}

// next gives what is read next, which holds until it is called again, and how the
// content ended, as [io.Reader] does. It is not called after an error.
func (c *chunks) next() ([]byte, error) {
	if c.read == nil {
		n, err := c.r.Read(*c.buf)
		return (*c.buf)[:n], err
	}
	if c.last.buf != nil {
		c.free <- c.last.buf
	}
	c.last = <-c.read
	return (*c.last.buf)[:c.last.n], c.last.err
}

// end waits for a read that is under way: the content is its caller's again.
func (c *chunks) end() {
	if c.read == nil {
		c.p.buffers.Put(c.buf)
		return
	}
	c.stop()
	if c.last.buf != nil {
		c.p.buffers.Put(c.last.buf)
	}
	for len(c.read) > 0 {
		c.p.buffers.Put((<-c.read).buf)
	}
	for len(c.free) > 0 {
		c.p.buffers.Put(<-c.free)
	}
}

// buffer is memory for what is written with one call, which goes back to buffers.
func (p *Place) buffer() *[]byte {
	if pooled, ok := p.buffers.Get().(*[]byte); ok {
		return pooled
	}
	return new(make([]byte, bufferSize))
}
