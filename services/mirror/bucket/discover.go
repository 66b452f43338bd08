package bucket

import (
	"context"
	"errors"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
)

// discover asks the server what it is and what it can do, all at once: each question
// alone is a round trip that every run would wait for.
func (b *Bucket) discover(ctx context.Context) error {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	var refused error
	g.Go(func() error {
		if refused = b.discoverServer(asking); refused != nil {
			cancel() // the other questions have no better answer
		}
		return nil
	})
	var unversioned bool
	// Each has fields of its own.
	g.Go(func() (err error) {
		unversioned, err = b.discoverVersions(asking)
		return err
	})
	g.Go(func() error { return b.discoverAge(asking) })
	err := g.Wait()
	if refused != nil {
		return refused
	}
	if err != nil {
		return err
	}
	isMinIO := b.caps.Server == MinIO
	b.caps.ListMetadata, b.caps.SetMTime = isMinIO, isMinIO && unversioned
	b.caps.Snowball = isMinIO && !b.readOnly
	return nil
}

// discoverServer lists, which tells who answers, and whether there is a bucket that
// these credentials may use.
func (b *Bucket) discoverServer(ctx context.Context) error {
	var p page
	return b.do(ctx, "list", "", repeatable, func(ctx context.Context, x *exchange) error {
		defer func() { b.caps.Server = x.header.Get("Server") }()
		return b.fetchPage(ctx, pageRequest{max: 1}, &p)
	})
}

// discoverAge asks when the bucket was made. It stays zero where these credentials are
// not shown the list of buckets.
func (b *Bucket) discoverAge(ctx context.Context) error {
	return cannotSay(b.do(ctx, "ask for the age of", "", repeatable, func(ctx context.Context, _ *exchange) error {
		buckets, err := b.core.ListBuckets(ctx)
		for _, one := range buckets {
			if one.Name == b.name {
				b.created = one.CreationDate
			}
		}
		return err
	}))
}

// Created is when the bucket was made; zero where these credentials are not shown it.
func (b *Bucket) Created() time.Time { return b.created }

// discoverVersions gives whether the bucket never had versions.
func (b *Bucket) discoverVersions(ctx context.Context) (unversioned bool, err error) {
	var versions minio.BucketVersioningConfiguration
	err = b.do(ctx, "ask for the versioning of", "", repeatable, func(ctx context.Context, _ *exchange) (err error) {
		versions, err = b.core.GetBucketVersioning(ctx, b.name)
		return err
	})
	if err != nil {
		return false, cannotSay(err)
	}
	b.caps.Versioning = versions.Status == minio.Enabled
	return versions.Status == "", nil
}

// cannotSay drops the errors of a server that does not do what it was asked, or does not let
// these credentials: what was asked for is then not there. Others stay, those that may pass and
// those that speak of something else, since whatever is found is believed from then on.
func cannotSay(err error) error {
	e, ok := errors.AsType[*RequestError](err)
	if !ok || e.Status < 400 || e.passing() || e.Reason != nil && e.Reason != ErrDenied {
		return err
	}
	return nil
}
