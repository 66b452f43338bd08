package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

var (
	// ErrUnreachable says that no answer came from the server.
	ErrUnreachable = errors.New("the server does not answer")
	// ErrCredentials says that the server does not accept the credentials.
	ErrCredentials = errors.New("the credentials are not accepted")
	// ErrDenied says that the credentials do not allow the request.
	ErrDenied = errors.New("access denied")
	// ErrNoBucket says that there is no such bucket.
	ErrNoBucket = errors.New("no such bucket")
	// ErrNotFound says that there is no such object, version or upload.
	ErrNotFound = errors.New("not found")
	// ErrPrecondition says that a conditional write found another state.
	ErrPrecondition = errors.New("the condition does not hold")
	// ErrThrottled says that the server asked to slow down.
	ErrThrottled = errors.New("the server is busy")
	// ErrChecksum says that content changed or was damaged on its way.
	ErrChecksum = errors.New("checksums differ")
	// ErrListing says that a listing is incomplete or cannot be understood, so that
	// nothing may be concluded from a key that is not in it.
	ErrListing = errors.New("the listing is not complete")
	// ErrNotStored says that a server acknowledged a batch without storing an item
	// of it as it was sent.
	ErrNotStored = errors.New("not stored as sent")
	// ErrHidden says that an object is stored and listings leave it out: MinIO lists
	// nothing below a key that is an object itself, such as a/b if there is a. Delete
	// one before the other is written.
	ErrHidden = errors.New("stored, but hidden from listings")
	// ErrKey says that a key cannot be used, or not in a batch.
	ErrKey = errors.New("unusable key")
	// ErrMeta says that user metadata cannot travel in headers.
	ErrMeta = errors.New("unusable metadata")
	// ErrUnsupported says that the server or this way of opening cannot do it.
	ErrUnsupported = errors.New("not supported")
)

// RequestError says what was asked of which bucket and why it failed.
type RequestError struct {
	// Op is what was tried, such as "put".
	Op string
	// Where is the endpoint, bucket and prefix.
	Where string
	// Key is the object's, without the prefix; "" for requests about the bucket.
	Key string
	// Code and Status are the server's; "" and 0 if it did not answer.
	Code   string
	Status int
	// Reason is one of this package's errors, or nil.
	Reason error
	// Advice says what to do, or is "".
	Advice string
	// Err is the cause.
	Err error
}

// Error implements error. It holds no secret.
func (e *RequestError) Error() string {
	var s strings.Builder
	s.WriteString(e.Op)
	if e.Key != "" {
		fmt.Fprintf(&s, " %q in", e.Key)
	}
	fmt.Fprintf(&s, " %s: ", e.Where)
	if e.Reason != nil {
		fmt.Fprintf(&s, "%v: ", e.Reason)
	}
	if e.Code != "" {
		fmt.Fprintf(&s, "%s: ", e.Code)
	}
	fmt.Fprint(&s, e.Err)
	if e.Advice != "" {
		s.WriteString("; " + e.Advice)
	}
	return s.String()
}

// Unwrap returns the reason and the cause.
func (e *RequestError) Unwrap() []error {
	if e.Reason == nil {
		return []error{e.Err}
	}
	return []error{e.Reason, e.Err}
}

// passing reports whether the same request may succeed later.
func (e *RequestError) passing() bool {
	switch e.Status {
	case 0:
		return errors.Is(e.Reason, ErrUnreachable) && !untrusted(e.Err)
	case http.StatusNotImplemented:
		return false
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	// A body that broke off is an answer without an end.
	return e.Status >= 500 || e.Code == "RequestTimeout" || e.Reason == ErrUnreachable
}

// ClockSkewError says that this machine's clock differs too much from the
// server's for requests to be accepted.
type ClockSkewError struct {
	// Skew is how far this clock is ahead; negative if it is behind. The server
	// tells its time in seconds.
	Skew time.Duration
}

// Error implements error.
func (e *ClockSkewError) Error() string {
	if e.Skew < 0 {
		return fmt.Sprintf("this machine's clock is %v behind the server's", -e.Skew)
	}
	return fmt.Sprintf("this machine's clock is %v ahead of the server's", e.Skew)
}

// KeyError is what became of one key of many.
type KeyError struct {
	Key string
	Err error
}

// Error implements error.
func (e *KeyError) Error() string { return fmt.Sprintf("%q: %v", e.Key, e.Err) }

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// KeysError lists the keys of a request about many for which it failed; for the
// others it succeeded.
type KeysError struct {
	// Op is what was tried; Of is with how many keys.
	Op     string
	Of     int
	Failed []*KeyError
}

// Error implements error; it names the first few keys.
func (e *KeysError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %d of %d keys failed", e.Op, len(e.Failed), e.Of)
	for i, f := range e.Failed {
		if i == 3 {
			s.WriteString("; ...")
			break
		}
		s.WriteString("; " + f.Error())
	}
	return s.String()
}

// Unwrap returns the errors of the keys.
func (e *KeysError) Unwrap() []error {
	out := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		out[i] = f
	}
	return out
}

// add notes a key's error.
func (e *KeysError) add(key string, err error) {
	e.Failed = append(e.Failed, &KeyError{Key: key, Err: err})
}

// orNil is the error, or nil if no key failed.
func (e *KeysError) orNil() error {
	if len(e.Failed) == 0 {
		return nil
	}
	return e
}

// explain turns what came of a request into a RequestError. Causes that are
// RequestErrors already stay as they are.
func (b *Bucket) explain(op, key string, x *exchange, err error) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*RequestError](err); ok {
		return known
	}
	e := &RequestError{Op: op, Where: b.String(), Key: key, Status: x.status, Err: err}
	// Its text repeats the URL, with everything that was asked.
	if u, ok := errors.AsType[*url.Error](err); ok {
		e.Err = u.Err
	}
	if answer, ok := errors.AsType[minio.ErrorResponse](err); ok {
		e.Code = answer.Code
		if e.Advice, e.Reason = reasonOf(answer, x); e.Reason == ErrDenied && e.Advice == letThem {
			e.Advice += actions(op)
		}
		return e
	}
	switch {
	case errors.Is(err, context.Canceled):
	case slices.ContainsFunc([]error{ErrListing, ErrChecksum, ErrUnsupported, ErrCredentials, errSource}, func(known error) bool { return errors.Is(err, known) }):
		// It says why itself.
	case untrusted(e.Err):
		e.Reason, e.Advice = ErrUnreachable, "trust its certificate, or use the name that it was made for"
	case errors.Is(err, http.ErrSchemeMismatch):
		e.Reason, e.Advice = ErrUnreachable, "write http:// in the endpoint: the server does not speak TLS"
	default:
		e.Reason = ErrUnreachable
		if x.status == 0 {
			e.Advice = "check the endpoint and that the server runs"
		}
	}
	return e
}

// gaveUp is the error of a caller who did not wait for an answer.
func (b *Bucket) gaveUp(ctx context.Context, op, key string) error {
	return &RequestError{Op: op, Where: b.String(), Key: key, Err: ctx.Err()}
}

func untrusted(err error) bool {
	_, a := errors.AsType[x509.UnknownAuthorityError](err)
	_, b := errors.AsType[x509.HostnameError](err)
	_, c := errors.AsType[x509.CertificateInvalidError](err)
	_, d := errors.AsType[*tls.CertificateVerificationError](err)
	return a || b || c || d
}

// letThem is the advice where credentials may not do what was asked.
const letThem = "let these credentials do it"

// actions names what a policy has to allow for what was tried; "" where nothing is known.
func actions(op string) string {
	if strings.HasPrefix(op, "put part ") {
		return " (s3:PutObject)"
	}
	switch op {
	case "list":
		return " (s3:ListBucket)"
	case "get", "stat", "look for":
		return " (s3:GetObject)"
	case "put", "put a batch into", "start the parts of", "finish the parts of":
		return " (s3:PutObject)"
	case "list the versions of":
		return " (s3:ListBucketVersions)"
	case "set the metadata of", "copy the parts of", "copy to":
		return " (s3:GetObject and s3:PutObject)"
	case "abort the parts of":
		return " (s3:AbortMultipartUpload)"
	case "delete", "delete from":
		return " (s3:DeleteObject)"
	case "delete a version of":
		return " (s3:DeleteObjectVersion)"
	case "ask for the versioning of":
		return " (s3:GetBucketVersioning)"
	}
	return ""
}

// reasonOf reads an answer's S3 code.
func reasonOf(a minio.ErrorResponse, x *exchange) (advice string, reason error) {
	switch a.Code {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidTokenId", "InvalidToken", "ExpiredToken", "XMinioAdminNoSuchUser":
		return "check the access key and the secret key", ErrCredentials
	case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect":
		advice = "set the bucket's region"
		if a.Region != "" {
			advice = "set the region to " + a.Region
		}
		return advice, ErrCredentials
	case "AccessDenied", "AllAccessDisabled":
		return letThem, ErrDenied
	case "InvalidRequest":
		if strings.Contains(a.Message, "WORM") {
			return "it is locked: wait for the end of its retention", ErrDenied
		}
	case "NoSuchBucket":
		return "create it, or check its name", ErrNoBucket
	case "NoSuchKey", "NoSuchVersion", "NoSuchUpload":
		return "", ErrNotFound
	case "PreconditionFailed", "ConditionalRequestConflict":
		return "", ErrPrecondition
	case "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "IncompleteBody":
		return "the content changed while it was read, or was damaged on its way: read it again", ErrChecksum
	case "RequestTimeTooSkewed":
		return "set this machine's clock, or the server's", &ClockSkewError{Skew: skew(x)}
	case "SlowDownRead":
		return "or, where it stays so, MinIO cannot read the object from its drives: `firedrill mirror audit --repair` mends what the other side holds", ErrThrottled
	case "SlowDown", "SlowDownWrite", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests", "XMinioServerNotInitialized":
		return "", ErrThrottled
	}
	if x.status == http.StatusServiceUnavailable || x.status == http.StatusTooManyRequests {
		return "", ErrThrottled
	}
	return "", nil
}

// skew compares the clocks at the moment of the answer.
func skew(x *exchange) time.Duration {
	server, err := http.ParseTime(x.header.Get("Date"))
	if err != nil {
		return 0
	}
	return x.at.Sub(server).Truncate(time.Second)
}
