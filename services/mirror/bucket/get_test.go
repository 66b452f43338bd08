package bucket

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

func answerOf(status int, body string, headers ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Header: h,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

func TestGotReadsWhatTheServerSays(t *testing.T) {
	answer := answerOf(http.StatusOK, "content", "ETag", `"abc-2"`, "Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT",
		"X-Amz-Version-Id", "v1", "X-Amz-Checksum-Crc32c", "AAAAAQ==", "X-Amz-Meta-Plain", "p", "X-Amz-Meta-Word", "=?UTF-8?q?=C3=BC?=", "Content-Type", "text/x")
	o, err := got("k", true, answer, &exchange{header: answer.Header, status: answer.StatusCode})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	if o.Size != 7 || o.ETag != "abc-2" || !o.LastModified.Equal(at) || o.VersionID != "v1" || o.CRC32C == nil || *o.CRC32C != 1 {
		t.Errorf("got %+v", o)
	}
	if o.Meta["Plain"] != "p" || o.Meta["Word"] != "ü" || len(o.Meta) != 2 || o.Headers["Content-Type"] != "text/x" {
		t.Errorf("metadata %v, headers %v", o.Meta, o.Headers)
	}
}

func TestGotTakesTheTimeThatMinIOKept(t *testing.T) {
	answer := answerOf(http.StatusOK, "", "Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT", "X-Minio-Source-Mtime", "2020-01-02T03:04:05.000000006Z")
	o, err := got("k", true, answer, &exchange{header: answer.Header})
	if err != nil || o.LastModified.UnixNano() != time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC).UnixNano() {
		t.Errorf("%v, %v", o.LastModified, err)
	}
	answer = answerOf(http.StatusOK, "", "Last-Modified", "yesterday")
	if _, err := got("k", true, answer, &exchange{header: answer.Header}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a time that is none: %v", err)
	}
}

func TestGotOfARange(t *testing.T) {
	const modified = "Sat, 21 Nov 2026 10:00:00 GMT"
	answer := answerOf(http.StatusPartialContent, "part", "Last-Modified", modified, "Content-Range", "bytes 0-3/100", "X-Amz-Checksum-Crc32c", "AAAAAQ==")
	o, err := got("k", false, answer, &exchange{header: answer.Header})
	if err != nil || o.Size != 100 || o.CRC32C != nil {
		t.Errorf("%+v, %v", o, err)
	}
	answer = answerOf(http.StatusOK, "all of it", "Last-Modified", modified)
	if _, err := got("k", false, answer, &exchange{header: answer.Header}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("the whole instead of a range: %v", err)
	}
}

func TestGotExplainsErrorsWithoutABody(t *testing.T) {
	const xml = `<?xml version="1.0"?><Error><Code>InvalidRange</Code><Message>m</Message></Error>`
	for want, answer := range map[string]*http.Response{
		"NoSuchKey":    answerOf(http.StatusNotFound, ""),
		"AccessDenied": answerOf(http.StatusForbidden, "<html>"),
		"InvalidRange": answerOf(http.StatusRequestedRangeNotSatisfiable, xml),
		"Bad Gateway":  answerOf(http.StatusBadGateway, ""),
	} {
		_, err := got("k", true, answer, &exchange{header: answer.Header})
		if e, ok := errors.AsType[minio.ErrorResponse](err); !ok || e.Code != want || e.StatusCode != answer.StatusCode {
			t.Errorf("%d: %v, want %s", answer.StatusCode, err, want)
		}
	}
}
