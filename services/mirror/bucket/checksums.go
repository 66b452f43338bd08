package bucket

import (
	"context"
	"sync"

	"github.com/minio/minio-go/v7"
)

// checksums is what a bucket's server makes of checksums. That is found out by beginning to
// write: who does not write never has it done, and of all who do, one question serves.
type checksums struct {
	mu sync.Mutex
	// known is the answer, asking the question while there is none.
	known  *bool
	asking *question
}

type question struct {
	stop   context.CancelFunc
	done   chan struct{} // closed when the rest is set
	answer *bool
	err    error
}

// KeepsCRC32C reports whether the server checks and keeps the CRC32C of whole objects, also
// of those written in parts. Before the first write it finds that out: it starts an upload
// in parts below the prefix, and gives it up; whoever waits for the answer gets it, or the
// error, and only who comes later has it asked again. Of a bucket that was opened ReadOnly it
// is never found out.
func (b *Bucket) KeepsCRC32C(ctx context.Context) (bool, error) {
	if b.readOnly {
		return false, nil
	}
	if ctx.Err() != nil {
		return false, b.gaveUp(ctx, askChecksums, "")
	}
	c := &b.checksums
	c.mu.Lock()
	if c.known != nil {
		defer c.mu.Unlock()
		return *c.known, nil
	}
	q := c.asking
	if q == nil {
		// The first who asks may give up, and the others still want the answer.
		asking, stop := context.WithCancel(context.WithoutCancel(ctx))
		q = &question{stop: stop, done: make(chan struct{})}
		c.asking = q
		go b.ask(asking, q)
	}
	c.mu.Unlock()
	select {
	case <-q.done:
		return q.answer != nil && *q.answer, q.err
	case <-ctx.Done():
		return false, b.gaveUp(ctx, askChecksums, "")
	}
}

const askChecksums = "ask for the checksums of"

func (b *Bucket) ask(ctx context.Context, q *question) {
	defer close(q.done)
	defer q.stop()
	keeps, err := b.probeChecksums(ctx)
	if q.err = err; err == nil {
		q.answer = &keeps
	}
	b.checksums.mu.Lock()
	defer b.checksums.mu.Unlock()
	b.checksums.known, b.checksums.asking = q.answer, nil
}

// end ends a question under way.
func (c *checksums) end() {
	c.mu.Lock()
	q := c.asking
	c.mu.Unlock()
	if q != nil {
		q.stop()
		<-q.done
	}
}

// probeChecksums starts an upload in parts with a checksum of the whole object, looks
// whether the server takes it, and gives the upload up.
func (b *Bucket) probeChecksums(ctx context.Context) (bool, error) {
	key, id, ok := b.prefix+".firedrill-probe", "", false
	err := b.do(ctx, askChecksums, "", repeatable, func(ctx context.Context, x *exchange) (err error) {
		id, err = b.core.NewMultipartUpload(ctx, b.name, key, minio.PutObjectOptions{UserMetadata: wholeCRC32C()})
		ok = x.header.Get("X-Amz-Checksum-Algorithm") == "CRC32C" && x.header.Get("X-Amz-Checksum-Type") == "FULL_OBJECT"
		return err
	})
	if err != nil {
		return false, cannotSay(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	// The answer is known: where giving up fails, MinIO drops the upload after a day, and
	// others by their lifecycle rules.
	_ = b.AbortParts(ctx, Upload{Key: ".firedrill-probe", ID: id})
	return ok, nil
}
