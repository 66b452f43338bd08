package bucket

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/minio/minio-go/v7"
)

// Limits of S3 for uploads in parts.
const (
	// MinPart is the smallest part size, in bytes; the last part may be smaller.
	MinPart = 5 << 20
	// MaxParts is how many parts an object can have.
	MaxParts = 10_000
)

// PartsOptions say what is written beside the content of an upload in parts.
type PartsOptions struct {
	// PartSize is the size of each part but the last, in bytes, at least MinPart.
	// The caller records it in Meta: without it nobody can compute the ETag again.
	PartSize int64
	// Meta is as in PutOptions.
	Meta map[string]string
	// MTime is as in PutOptions.
	MTime time.Time
}

// Upload is an upload in parts that was started. It can be stored and sent to
// other processes, which may put its parts.
type Upload struct {
	Key      string    `json:"key"`
	ID       string    `json:"id"`
	PartSize int64     `json:"partSize"`
	MTime    time.Time `json:"mtime,omitzero"`
}

// Part is a part that was put.
type Part struct {
	// Number counts from 1.
	Number int    `json:"number"`
	Size   int64  `json:"size"`
	ETag   string `json:"etag"`
	CRC32C uint32 `json:"crc32c"`
}

// StartParts starts an upload in parts. It costs space on the server until
// FinishParts or AbortParts.
func (b *Bucket) StartParts(ctx context.Context, key string, o PartsOptions) (Upload, error) {
	full, opts, err := b.prepare("start the parts of", key, o.Meta)
	if err != nil {
		return Upload{}, err
	}
	if o.PartSize < MinPart {
		return Upload{}, &RequestError{Op: "start the parts of", Where: b.String(), Key: key, Err: fmt.Errorf("a part size of %d bytes: S3 wants %d at least", o.PartSize, MinPart)}
	}
	keeps, err := b.KeepsCRC32C(ctx)
	if err != nil {
		return Upload{}, err
	}
	if keeps {
		for name, value := range wholeCRC32C() {
			opts.UserMetadata[name] = value
		}
	}
	u := Upload{Key: key, PartSize: o.PartSize}
	u.MTime = b.LastModified(o.MTime)
	// Repeated after a lost answer it leaves an upload behind, which servers drop
	// after a day, and no object.
	err = b.do(ctx, "start the parts of", key, repeatable, func(ctx context.Context, _ *exchange) (err error) {
		u.ID, err = b.core.NewMultipartUpload(ctx, b.name, full, opts)
		return err
	})
	return u, err
}

// PutPart writes part number, which counts from 1, of size bytes from r, as Put
// does; crc is its CRC32C, or nil if not known. Writing a part again replaces it.
// Parts may be put in any order and at the same time.
func (b *Bucket) PutPart(ctx context.Context, u Upload, number int, r io.Reader, size int64, crc *uint32) (Part, error) {
	op := "put part " + strconv.Itoa(number) + " of"
	full, err := b.writable(op, u.Key)
	if err != nil {
		return Part{}, err
	}
	if number < 1 || number > MaxParts || size > u.PartSize {
		return Part{}, &RequestError{Op: op, Where: b.String(), Key: u.Key, Err: fmt.Errorf("%d bytes: parts have the numbers 1 to %d, and here up to %d bytes", size, MaxParts, u.PartSize)}
	}
	keeps, err := b.KeepsCRC32C(ctx)
	if err != nil {
		return Part{}, err
	}
	src, err := newSource(r, size, crc)
	if err != nil {
		return Part{}, b.explain(op, u.Key, &exchange{}, err)
	}
	part := Part{Number: number, Size: size}
	err = b.do(ctx, op, u.Key, src.again(), func(ctx context.Context, _ *exchange) error {
		body, err := src.open()
		if err != nil {
			return err
		}
		part.ETag, err = b.sendPart(ctx, keeps, full, u.ID, number, body, src.crc)
		part.CRC32C = body.crc
		return err
	})
	return part, err
}

// sendPart sends one part, and ends its body.
func (b *Bucket) sendPart(ctx context.Context, keeps bool, full, id string, number int, body *body, crc *uint32) (etag string, err error) {
	var told string
	if keeps {
		header := http.Header{}
		if crc != nil {
			header.Set(crcHeader, encodeCRC(*crc))
		}
		query := url.Values{"partNumber": {strconv.Itoa(number)}, "uploadId": {id}}
		var got minio.UploadInfo
		got, err = b.send(ctx, b.urlOf(full)+"?"+query.Encode(), header, body)
		etag, told = got.ETag, got.ChecksumCRC32C
	} else {
		// An upload that was started without checksums takes none.
		var got minio.ObjectPart
		got, err = b.core.PutObjectPart(ctx, b.name, full, id, number, body, body.left, minio.PutObjectPartOptions{})
		etag, told = got.ETag, got.ChecksumCRC32C
	}
	body.stop()
	if err != nil {
		return "", body.blame(err)
	}
	_, err = body.compare(told)
	return etag, err
}

// FinishOptions say under which conditions parts are joined.
type FinishOptions struct {
	// IfNoneMatch and IfMatch are as in PutOptions.
	IfNoneMatch bool
	IfMatch     string
	// CRC32C is that of the whole content, if known. Other parts are refused.
	CRC32C *uint32
}

// FinishParts joins the parts, which must be all of them in the order of their
// numbers, into the object. The server checks the CRC32C of the whole, which is
// combined from those of the parts. If the answer is lost, or the condition does
// not hold, the object is looked at, so that finishing what is finished succeeds:
// what is returned then says that it was found.
func (b *Bucket) FinishParts(ctx context.Context, u Upload, parts []Part, o FinishOptions) (Written, error) {
	const op = "finish the parts of"
	full, err := b.writable(op, u.Key)
	if err != nil {
		return Written{}, err
	}
	want, complete, err := u.join(parts)
	if err == nil && o.CRC32C != nil && *o.CRC32C != want.CRC32C {
		err = fmt.Errorf("%w: CRC32C %08x was expected of the content, and that of its parts is %08x: it changed while they were read", ErrChecksum, *o.CRC32C, want.CRC32C)
	}
	if err != nil {
		return Written{}, &RequestError{Op: op, Where: b.String(), Key: u.Key, Err: err}
	}
	opts := minio.PutObjectOptions{UserMetadata: map[string]string{}}
	opts.Internal.SourceMTime = b.LastModified(u.MTime)
	if o.IfNoneMatch {
		opts.SetMatchETagExcept("*")
	} else if o.IfMatch != "" {
		opts.SetMatchETag(o.IfMatch)
	}
	keeps, err := b.KeepsCRC32C(ctx)
	if err != nil {
		return Written{}, err
	}
	if keeps {
		opts.UserMetadata[crcHeader] = encodeCRC(want.CRC32C)
		opts.UserMetadata["X-Amz-Checksum-Type"] = "FULL_OBJECT"
	} else {
		for i := range complete {
			complete[i].ChecksumCRC32C = ""
		}
	}
	w := want
	err = b.do(ctx, op, u.Key, refused, func(ctx context.Context, _ *exchange) error {
		info, err := b.core.CompleteMultipartUpload(ctx, b.name, full, u.ID, complete, opts)
		if err != nil {
			return err
		}
		w.ETag, w.VersionID = info.ETag, info.VersionID
		w.Confirmed, err = (&body{crc: want.CRC32C}).compare(info.ChecksumCRC32C)
		return err
	})
	if e, ok := errors.AsType[*RequestError](err); ok && (e.passing() || e.Code == "NoSuchUpload" || e.Reason == ErrPrecondition) && ctx.Err() == nil {
		if o, lost := b.Stat(ctx, u.Key); lost == nil && want.ETag != "" && o.ETag == want.ETag && o.Size == want.Size {
			confirmed := o.CRC32C != nil && *o.CRC32C == want.CRC32C
			return Written{ETag: o.ETag, Size: o.Size, CRC32C: want.CRC32C, Confirmed: confirmed, VersionID: o.VersionID, Found: true}, nil
		}
	}
	if err != nil {
		return Written{}, err
	}
	return w, nil
}

// join checks the parts and computes what the object will be; its ETag is "" if
// that cannot be known.
func (u Upload) join(parts []Part) (Written, []minio.CompletePart, error) {
	if len(parts) == 0 {
		return Written{}, nil, errors.New("there are no parts")
	}
	var w Written
	complete := make([]minio.CompletePart, len(parts))
	sums := make([]minio.ObjectPart, len(parts))
	etags, known := md5.New(), true
	for i, p := range parts {
		if p.Number != i+1 {
			return Written{}, nil, fmt.Errorf("part %d is missing or not in its place", i+1)
		}
		if p.Size != u.PartSize && i < len(parts)-1 {
			return Written{}, nil, fmt.Errorf("part %d has %d bytes: all but the last must have %d", p.Number, p.Size, u.PartSize)
		}
		w.Size += p.Size
		sum := encodeCRC(p.CRC32C)
		complete[i] = minio.CompletePart{PartNumber: p.Number, ETag: p.ETag, ChecksumCRC32C: sum}
		sums[i] = minio.ObjectPart{PartNumber: p.Number, Size: p.Size, ChecksumCRC32C: sum}
		raw, err := hex.DecodeString(p.ETag)
		known = known && err == nil && len(raw) == md5.Size
		etags.Write(raw)
	}
	// Where the server encrypts, an ETag is no MD5, and that of the whole not known.
	if known {
		w.ETag = hex.EncodeToString(etags.Sum(nil)) + "-" + strconv.Itoa(len(parts))
	}
	whole, err := minio.ChecksumFullObjectCRC32C.FullObjectChecksum(sums)
	if err != nil {
		return Written{}, nil, fmt.Errorf("checksum of the whole: %w", err)
	}
	w.CRC32C = *decodeCRC(whole.Encoded())
	return w, complete, nil
}

// AbortParts gives an upload up and frees its space. One that is gone is fine.
func (b *Bucket) AbortParts(ctx context.Context, u Upload) error {
	const op = "abort the parts of"
	full, err := b.writable(op, u.Key)
	if err != nil {
		return err
	}
	err = b.do(ctx, op, u.Key, repeatable, func(ctx context.Context, _ *exchange) error {
		return b.core.AbortMultipartUpload(ctx, b.name, full, u.ID)
	})
	if e, ok := errors.AsType[*RequestError](err); ok && e.Code == "NoSuchUpload" {
		return nil
	}
	return err
}
