package bucket

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/minio/minio-go/v7"
)

// Limits of a batch.
const (
	// MaxBatchItem is the largest item, in bytes: MinIO unpacks larger ones one
	// after the other, which is no faster than Put.
	MaxBatchItem = 128 << 10
	// MaxBatchItems is how many items a batch can have.
	MaxBatchItems = 1000
	// MaxBatchBytes is how many bytes of content they can have together: a batch is
	// in memory until it is stored, compressed.
	MaxBatchBytes = 8 << 20
)

// BatchItem is an object to be written in a batch.
type BatchItem struct {
	// Key must have no empty, "." or ".." component, as the server cleans the names
	// in a tar. One that ends in '/' must be empty.
	Key string
	// Size is how many bytes Open's reader must give.
	Size int64
	// Open opens the content. It is called once, and its result is closed.
	Open func() (io.ReadCloser, error)
	// Meta and MTime are as in PutOptions.
	Meta  map[string]string
	MTime time.Time
	// New says that there was nothing under the key a moment ago. What is there
	// afterwards, with the item's content and the time that it was sent with, then is
	// this very object, and its metadata is believed to have come with it.
	New bool
}

// PutBatch writes many small objects with one request, which MinIO unpacks: it
// needs Capabilities.Snowball. Existing objects are replaced. Afterwards each key
// is looked at, in a listing or alone, and its size, MD5 and metadata compared,
// as the server acknowledges what it dropped: credentials that may not read what
// they write cannot use it, nor can a bucket that encrypts with keys of a KMS. Of the
// metadata of items that are all New, that of two is compared: to list metadata MinIO
// checks the request's signature once for each object, which costs as much as storing
// it.
//
// The result has one element for each item, in their order. The error is a
// *KeysError with the keys that were not stored; the other items are. Too many
// items, or too large together, are an error before anything is read.
func (b *Bucket) PutBatch(ctx context.Context, items []BatchItem) ([]Written, error) {
	if !b.caps.Snowball {
		return nil, fmt.Errorf("put a batch into %s: %w: only a MinIO that was opened for writing unpacks batches; put each object", b, ErrUnsupported)
	}
	if err := checkBatch(items); err != nil {
		return nil, fmt.Errorf("put a batch into %s: %w", b, err)
	}
	if len(items) == 0 {
		return nil, nil
	}
	failed := &KeysError{Op: "put a batch into " + b.String(), Of: len(items)}
	p := b.pack(ctx, items, failed)
	if len(p.expected) == 0 {
		return p.written, failed.orNil()
	}
	sent := b.sendBatch(ctx, p)
	if hopeless(sent) || ctx.Err() != nil {
		for _, e := range p.expected {
			failed.add(e.Key, errors.Join(sent, ctx.Err()))
		}
		return make([]Written, len(items)), failed.orNil()
	}
	// Also after an error: the server stores what comes before the item that it
	// does not like, and some of what comes after.
	for _, missing := range b.verify(ctx, p.expected) {
		p.written[p.place[missing.Key]] = Written{}
		failed.add(missing.Key, errors.Join(missing.Err, sent))
	}
	return p.written, failed.orNil()
}

// hopeless says that an error came before anything could be unpacked.
func hopeless(err error) bool {
	return errors.Is(err, ErrCredentials) || errors.Is(err, ErrNoBucket) || errors.Is(err, ErrUnreachable)
}

func checkBatch(items []BatchItem) error {
	total := int64(0)
	for i := range items {
		total += max(items[i].Size, 0)
	}
	if len(items) > MaxBatchItems || total > MaxBatchBytes {
		return fmt.Errorf("%d items of %d bytes together: a batch takes up to %d items and %d bytes", len(items), total, MaxBatchItems, MaxBatchBytes)
	}
	return nil
}

// packedHeader is about what is left of an item's headers when they are compressed.
const packedHeader = 512

// packed is a batch as it is sent, and what it should become.
type packed struct {
	tar      bytes.Buffer
	expected []Expected
	written  []Written
	// place is the index of each key that is sent.
	place map[string]int
}

// pack reads the items into a compressed tar. Those that cannot be sent are added
// to failed and left out.
func (b *Bucket) pack(ctx context.Context, items []BatchItem, failed *KeysError) *packed {
	p := &packed{written: make([]Written, len(items)), place: make(map[string]int, len(items))}
	size := int64(0)
	for i := range items {
		size += max(items[i].Size, 0) + packedHeader
	}
	p.tar.Grow(int(size))
	// One writer at a time: batches run beside each other anyway. Its blocks carry
	// checksums of their own, which the server verifies.
	compress, ok := b.compressors.Get().(*s2.Writer)
	if !ok {
		compress = s2.NewWriter(nil, s2.WriterConcurrency(1))
	}
	defer b.compressors.Put(compress)
	compress.Reset(&p.tar)
	archive := tar.NewWriter(compress)
	now := time.Now()
	content := make([]byte, MaxBatchItem)
	for i := range items {
		item := &items[i]
		err := b.checkItem(item, p.place)
		if err == nil {
			err = errors.Join(ctx.Err(), item.read(content))
		}
		if err == nil {
			err = b.write(archive, item, content[:item.Size], now)
		}
		if err != nil {
			failed.add(item.Key, err)
			continue
		}
		sum := md5.Sum(content[:item.Size])
		w := Written{ETag: hex.EncodeToString(sum[:]), Size: item.Size, CRC32C: crc32.Checksum(content[:item.Size], castagnoli()), Confirmed: true}
		p.written[i], p.place[item.Key] = w, i
		e := Expected{Key: item.Key, Size: w.Size, ETag: w.ETag, Meta: notNil(item.Meta)}
		if item.New {
			e.stamp = b.stamp(item, now)
		}
		p.expected = append(p.expected, e)
	}
	// Flushed, not closed: after the mark of its end the server would stop reading,
	// and not see whether the rest and the checksum are as they should be. Memory
	// does not fail to be written to.
	_ = archive.Flush()
	_ = compress.Close()
	compress.Reset(nil) // it need not keep the tar
	return p
}

// checkItem finds what the server would change or drop without a word.
func (b *Bucket) checkItem(item *BatchItem, sent map[string]int) error {
	if _, err := b.full(item.Key); err != nil {
		return err
	}
	_, twice := sent[item.Key]
	switch {
	case !isClean(item.Key):
		return fmt.Errorf("%w in a batch: it has an empty, '.' or '..' component", ErrKey)
	case strings.HasSuffix(item.Key, "/") && item.Size != 0:
		return fmt.Errorf("%w in a batch: a key that ends in '/' must have no content", ErrKey)
	case twice:
		return fmt.Errorf("%w in a batch: it is there twice, and either might win", ErrKey)
	case item.Size < 0 || item.Size > MaxBatchItem:
		return fmt.Errorf("%d bytes: an item of a batch can have %d", item.Size, MaxBatchItem)
	}
	return checkMeta(item.Meta)
}

func (item *BatchItem) read(into []byte) error {
	r, err := item.Open()
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	n, err := io.ReadFull(r, into[:item.Size])
	if closed := r.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("%w after %d of %d bytes: %w", errSource, n, item.Size, err)
	}
	return nil
}

// write adds an item to the tar.
func (b *Bucket) write(archive *tar.Writer, item *BatchItem, content []byte, now time.Time) error {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: item.Key, Size: item.Size, ModTime: now, Format: tar.FormatPAX,
		// Without any record the server would take the request's headers instead.
		PAXRecords: map[string]string{"minio.metadata.Content-Type": "application/octet-stream"},
	}
	if strings.HasSuffix(item.Key, "/") {
		h.Typeflag = tar.TypeDir
	}
	h.ModTime = b.stamp(item, now)
	for name, value := range item.Meta {
		h.PAXRecords["minio.metadata."+metaPrefix+name] = value
	}
	if err := archive.WriteHeader(h); err != nil {
		return fmt.Errorf("%w in a batch: %w", ErrKey, err)
	}
	_, err := archive.Write(content)
	return err
}

// stamp is the time of an item, in milliseconds as listings have it. The server takes
// it for the version's time: in a bucket with versions an old one would hide what is
// written behind what was there.
func (b *Bucket) stamp(item *BatchItem, now time.Time) time.Time {
	if mtime := b.LastModified(item.MTime); !mtime.IsZero() {
		return mtime
	}
	return now.Truncate(time.Millisecond)
}

// sendBatch sends the tar. It may be repeated: its effect is its content.
func (b *Bucket) sendBatch(ctx context.Context, p *packed) error {
	opts := minio.PutObjectOptions{UserMetadata: map[string]string{
		"X-Amz-Meta-Snowball-Auto-Extract": "true",
		// One item that cannot be stored must not keep back those after it.
		"X-Amz-Meta-Minio-Snowball-Ignore-Errors": "true",
		crcHeader: encodeCRC(crc32.Checksum(p.tar.Bytes(), castagnoli())),
	}}
	if b.prefix != "" {
		opts.UserMetadata["X-Amz-Meta-Minio-Snowball-Prefix"] = strings.TrimSuffix(b.prefix, "/")
	}
	return b.do(ctx, "put a batch into", "", repeatable, func(ctx context.Context, _ *exchange) error {
		body := &body{small: p.tar.Bytes(), left: int64(p.tar.Len()), table: castagnoli()}
		_, err := b.send(ctx, b.urlOf(b.prefix+".firedrill-batch.tar"), opts.Header(), body)
		body.stop() // Its memory is used again.
		return err
	})
}

func notNil(meta map[string]string) map[string]string {
	if meta == nil {
		return map[string]string{}
	}
	return meta
}
