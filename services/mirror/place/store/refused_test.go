package store

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// Where it is the batch only that is not allowed, each file is put alone.
func TestWhereBatchesAreNotAllowed(t *testing.T) {
	c, _ := fresh(t, minio.MakeBucketOptions{}, Options{})
	var puts atomic.Int64
	counted := proxy(t, c, func(r *http.Request) {
		switch {
		case r.Header.Get("X-Amz-Meta-Snowball-Auto-Extract") != "":
			r.Header.Del("Authorization") // Nobody may write without.
		case r.Method == http.MethodPut:
			puts.Add(1)
		}
	}, nil)
	p := opened(t, counted, Options{})
	puts.Store(0)
	var ws []place.Write
	want := map[string]string{}
	for i := range 50 {
		path := fmt.Sprintf("new/%03d", i)
		ws, want[path] = append(ws, file(path, "text")), "text"
	}
	for _, o := range p.PutBatch(t.Context(), ws) {
		must(t, o.Err)
	}
	holds(t, p, want)
	if n := puts.Load(); n != 50 {
		t.Errorf("%d files were put alone", n)
	}
}

func TestWhatIsRefusedForGood(t *testing.T) {
	for want, all := range map[bool][]*bucket.RequestError{
		true: {
			{Reason: bucket.ErrDenied}, {Reason: bucket.ErrNoBucket}, {Reason: bucket.ErrCredentials}, {Code: "XMinioStorageFull", Status: 507},
			{Code: "XMinioAdminBucketQuotaExceeded", Status: 400}, {Status: http.StatusInsufficientStorage},
		},
		false: {{Reason: bucket.ErrUnreachable}, {Reason: bucket.ErrThrottled}, {Reason: bucket.ErrPrecondition}, {Status: 500}, {Code: "NoSuchUpload", Reason: bucket.ErrNotFound}},
	} {
		for _, e := range all {
			e.Err = errors.New("why")
			if err := explain(e); errors.Is(err, place.ErrRefused) != want || want && err.Error() != e.Error() {
				t.Errorf("%+v: %v", e, err)
			}
		}
	}
}
