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
				r.StatusCode = want.status
				_, err := rewrite(r, func([]byte) []byte { return []byte("<Error><Code>" + code + "</Code></Error>") })
				return err
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
