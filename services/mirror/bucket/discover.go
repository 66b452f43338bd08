package bucket

import (
	"context"
	"errors"
	"net/http"
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
	b.caps.ListMetadata, b.caps.SetMTime = isMinIO, isMinIO && unversioned && !b.created.IsZero()
	b.caps.Snowball = isMinIO && !b.readOnly
	return nil
}

// discoverServer lists, which tells who answers, and whether there is a bucket that
// these credentials may use: they may be allowed to list no more than what is used.
func (b *Bucket) discoverServer(ctx context.Context) error {
	var p page
	return b.do(ctx, "list", "", repeatable, func(ctx context.Context, x *exchange) error {
		defer func() { b.caps.Server = x.header.Get("Server") }()
		return b.fetchPage(ctx, pageRequest{prefix: b.prefix, max: 1}, &p)
	})
}

// discoverAge asks when the bucket was made. It stays zero where any answer does not tell,
// of whatever kind: the bucket is used without it, and the question is not one about it alone.
func (b *Bucket) discoverAge(ctx context.Context) error {
	err := b.do(ctx, "ask for the age of", "", repeatable, func(ctx context.Context, _ *exchange) error {
		buckets, err := b.core.ListBuckets(ctx)
		for _, one := range buckets {
			if one.Name == b.name {
				b.created = one.CreationDate
			}
		}
		return err
	})
	if e, ok := errors.AsType[*RequestError](err); ok && e.Status >= 300 {
		return nil
	}
	return err
}

// Created is when the bucket was made; zero where the server does not tell.
func (b *Bucket) Created() time.Time { return b.created }

// discoverVersions gives whether the bucket never had versions.
func (b *Bucket) discoverVersions(ctx context.Context) (unversioned bool, err error) {
	var versions minio.BucketVersioningConfiguration
	err = b.do(ctx, "ask for the versioning of", "", repeatable, func(ctx context.Context, _ *exchange) (err error) {
		versions, err = b.core.GetBucketVersioning(ctx, b.name)
		return err
	})
	switch {
	case unknownHere(err):
		return false, nil
	case err != nil:
		return false, cannotSay(err)
	}
	// Below the prefixes that MinIO can leave out nothing has versions.
	b.caps.Versioning = versions.Status == minio.Enabled && len(versions.ExcludedPrefixes) == 0
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

// unknownHere reports whether a server has nothing at all where it was asked. minio-go takes a
// 404 without a word of S3 for a bucket that is not there; but that this one is there was asked
// beside it.
func unknownHere(err error) bool {
	answer, ok := errors.AsType[minio.ErrorResponse](err)
	return ok && answer.StatusCode == http.StatusNotFound && answer.XMLName.Local == ""
}
