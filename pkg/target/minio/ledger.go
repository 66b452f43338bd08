package minio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
)

// readers is how many canaries are read at a time.
const readers = 8

// found is a canary that a listing names.
type found struct {
	seq  int64
	key  string
	size int64
	// versions is how often it was stored.
	versions int64
	// damaged says why its content is not what was written.
	damaged error
}

// listCanaries lists the canaries under a prefix with their versions. Those whose
// latest version is a deletion are not there for a client.
func (s *store) listCanaries(ctx context.Context, prefix string, each func(key string, size, versions int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key, size, versions, deleted := "", int64(0), int64(0), false
	flush := func() {
		if versions > 0 && !deleted {
			each(key, size, versions)
		}
	}
	for i := range s.users.client().ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, WithVersions: true}) {
		if i.Err != nil {
			return fmt.Errorf("list %s in bucket %s: %w", prefix, s.cfg.Bucket, i.Err)
		}
		if i.Key != key {
			flush()
			key, size, versions, deleted = i.Key, i.Size, 0, false
		}
		if i.IsLatest && i.IsDeleteMarker {
			deleted = true
		}
		if !i.IsDeleteMarker {
			versions++
		}
	}
	flush()
	return ctx.Err()
}

// ReadLedger lists the canaries through the service, and reads each in full, as a
// client would: one that is named and cannot be read whole is not there.
func (s *store) ReadLedger(ctx context.Context, spec target.ProbeSpec, upTo int64) (target.Held, error) {
	ledger := spec.Ledger()
	if !canary.CleanName(ledger) {
		return target.Held{}, fmt.Errorf("read ledger %q: it cannot be the prefix of a key", ledger)
	}
	var all []found
	err := s.listCanaries(ctx, s.tree().Ledger(ledger)+"/", func(key string, size, versions int64) {
		if seq, ok := s.tree().Seq(ledger, key); ok && seq <= upTo {
			all = append(all, found{seq: seq, key: key, size: size, versions: versions})
		}
	})
	if err == nil {
		err = s.readAll(ctx, all)
	}
	if err != nil {
		return target.Held{}, s.scrub(fmt.Errorf("read ledger %s: %w", ledger, err))
	}
	whole := map[int64]int64{}
	for _, f := range all {
		if f.damaged != nil {
			s.log.Warn("a canary cannot be read whole", "key", f.key, "reason", s.scrub(f.damaged))
			continue
		}
		whole[f.seq] = f.versions
	}
	return canary.Held(whole), nil
}

// readAll reads canaries, and marks those that are damaged. Its error says that it
// cannot be told for one of them.
func (s *store) readAll(ctx context.Context, all []found) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *found)
	var wg sync.WaitGroup
	for range min(readers, len(all)) {
		wg.Go(func() {
			for f := range next {
				var err error
				if f.damaged, err = s.readOne(ctx, f.key); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := 0; i < len(all) && ctx.Err() == nil; i++ {
		select {
		case next <- &all[i]:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// tries is how often an object is read before the server's word on it counts, and
// retryAfter the wait before the second; each further one is twice as long.
const (
	tries      = 5
	retryAfter = 100 * time.Millisecond
)

// readOne reads one canary. That it is missing, or differs, is the server's word; so
// is an error of the server's that stays while the store is well: MinIO says 503
// SlowDownRead of an object that it finds damaged, as it does when it is busy.
// Anything else is an error.
func (s *store) readOne(ctx context.Context, key string) (damaged, err error) {
	for try := range tries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(retryAfter << (try - 1)):
			}
		}
		body, err := get(ctx, s.users.client(), s.cfg.Bucket, key)
		if err == nil {
			_, damaged = s.tree().Verify(key, body)
			return damaged, nil
		}
		if isMissing(err) {
			return err, nil
		}
		damaged = err
	}
	for _, n := range s.nodes {
		if herr := s.health(ctx, n, healthCluster); herr != nil {
			return nil, fmt.Errorf("read %s: %w, and the store is not well: %w", key, damaged, herr)
		}
	}
	// Of damage that it finds on the way it tells by breaking off.
	if status, _ := refused(damaged); status/100 != 5 && !errors.Is(damaged, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read %s: %w", key, damaged)
	}
	return damaged, nil
}

// DropLedgers removes the drills' canaries with all their versions.
func (s *store) DropLedgers(ctx context.Context, drills ...string) error {
	for _, drill := range drills {
		if !canary.CleanPart(drill) {
			return fmt.Errorf("drop the ledgers of %q: it is no drill's name", drill)
		}
		if err := s.drop(ctx, s.tree().Drill(drill)+"/"); err != nil {
			return s.scrub(fmt.Errorf("drop the ledgers of %s: %w", drill, err))
		}
	}
	return nil
}

func (s *store) drop(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := s.users.client()
	var listing error
	versions := func(yield func(minio.ObjectInfo) bool) {
		for i := range c.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, WithVersions: true}) {
			if i.Err != nil {
				listing = fmt.Errorf("list %s: %w", prefix, i.Err)
				return
			}
			if !yield(i) {
				return
			}
		}
	}
	results, err := c.RemoveObjectsWithIter(ctx, s.cfg.Bucket, versions, minio.RemoveObjectsOptions{})
	if err != nil {
		return fmt.Errorf("delete below %s: %w", prefix, err)
	}
	var errs []error
	for r := range results {
		if r.Err != nil && len(errs) < 5 {
			errs = append(errs, fmt.Errorf("delete %s: %w", r.ObjectName, r.Err))
		}
	}
	if _, code := refused(listing); code == "NoSuchBucket" {
		return nil
	}
	return errors.Join(append(errs, listing)...)
}
