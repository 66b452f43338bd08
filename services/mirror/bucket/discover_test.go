package bucket

import (
	"errors"
	"net/http"
	"testing"

	"github.com/minio/minio-go/v7"
)

// TestWhatIsBelievedOfABucket: whether it has versions decides which times objects are given,
// and so only an answer to that question is believed.
func TestWhatIsBelievedOfABucket(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	c.Limits.Attempts = 1
	for code, want := range map[string]struct {
		status int
		err    error // nil: it is opened, and taken for one that had versions
	}{
		"":                 {http.StatusNotFound, nil},
		"NoSuchBucket":     {http.StatusNotFound, ErrNoBucket},
		"NotImplemented":   {http.StatusNotImplemented, nil},
		"MethodNotAllowed": {http.StatusMethodNotAllowed, nil},
		"AccessDenied":     {http.StatusForbidden, nil},
		"InternalError":    {http.StatusInternalServerError, errAny},
		"SlowDown":         {http.StatusServiceUnavailable, ErrThrottled},
		"ExpiredToken":     {http.StatusBadRequest, ErrCredentials},
	} {
		t.Run(code, func(t *testing.T) {
			b, err := Open(t.Context(), proxy(t, c, nil, func(r *http.Response) error {
				if !r.Request.URL.Query().Has("versioning") {
					return nil
				}
				return answerWith(r, want.status, code)
			}))
			if err == nil {
				defer b.Close()
			}
			switch {
			case want.err == nil && (err != nil || b.Capabilities().SetMTime):
				t.Errorf("%v: %+v", err, b)
			case want.err != nil && err == nil, want.err != nil && want.err != errAny && !errors.Is(err, want.err):
				t.Errorf("got %v, want %v", err, want.err)
			}
		})
	}
}

// answerWith makes an answer one of an error of S3; without a code one of another server.
func answerWith(r *http.Response, status int, code string) error {
	r.StatusCode = status
	text := "<html><body>not here</body></html>"
	if code != "" {
		text = "<Error><Code>" + code + "</Code></Error>"
	}
	_, err := rewrite(r, func([]byte) []byte { return []byte(text) })
	return err
}

// TestAnAgeThatIsNotTold: a bucket is used without it, whatever the list of buckets comes to.
func TestAnAgeThatIsNotTold(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	c.Limits.Attempts = 1
	if b := open(t, c); b.Created().IsZero() || !b.Capabilities().SetMTime {
		t.Error("the age of a bucket of this server is not known")
	}
	for code, status := range map[string]int{
		"": http.StatusNotFound, "InternalError": http.StatusInternalServerError, "SlowDown": http.StatusServiceUnavailable,
		"AuthorizationHeaderMalformed": http.StatusBadRequest, "PermanentRedirect": http.StatusMovedPermanently,
		"AccessDenied": http.StatusForbidden,
	} {
		t.Run(code, func(t *testing.T) {
			b := open(t, proxy(t, c, nil, func(r *http.Response) error {
				if r.Request.URL.Path != "/" {
					return nil
				}
				return answerWith(r, status, code)
			}))
			// Then only times that the server gives tell it from another of its name.
			if !b.Created().IsZero() || b.Capabilities().SetMTime {
				t.Errorf("it was made %v, with %+v", b.Created(), b.Capabilities())
			}
		})
	}
}
