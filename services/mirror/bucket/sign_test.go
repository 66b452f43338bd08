package bucket

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// TestSignedKeys reads and lists, by requests of our own, keys with everything that
// someone along the way may write in two ways.
func TestSignedKeys(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	whole := open(t, c)
	keys := []string{
		"a b", "a  b ", "a+b", "a%b", "a%20b", "a%2Fb", "a%252Fb", "a?b=c&d", "a#b", "a=b", "a&b", "a:b@c", "a;b,c", "$&'()*!~", `"quoted"`, "<a>",
		"[::1]", "{a}|^`", "a\tb", "a\nb", "a\u007fb", "ü", "u\u0308", "日本/語", "🔥", "\u00a0", "a/b.c/d", "..a", "-", "_", "X-Amz-Date", strings.Repeat("ü", 120),
	}
	slices.Sort(keys)
	for _, key := range keys {
		put(t, whole, "p/"+key, "content of "+key, PutOptions{})
		if got := content(t, whole, "p/"+key); got != "content of "+key {
			t.Errorf("%q holds %q", key, got)
		}
		if got := keysOf(list(t, whole, ListOptions{Prefix: "p/" + key, PageSize: 1})); got[0] != "p/"+key {
			t.Errorf("listed below %q: %q", key, got)
		}
	}
	c.Prefix = "p"
	if got := keysOf(list(t, open(t, c), ListOptions{})); !slices.Equal(got, keys) {
		t.Errorf("it lists %q", got)
	}
	// MinIO has no such keys, and says so of one that is signed as it is sent.
	for _, key := range []string{"a//b", "/a", "a/./b", "a/../b", `a\b`} {
		if _, _, err := whole.Get(t.Context(), key, 0, -1); err == nil || strings.Contains(err.Error(), ErrCredentials.Error()) {
			t.Errorf("get %q: %v", key, err)
		}
	}
}

// changing are keys that are asked for anew each time.
type changing struct{ now *credentials.Value }

func (c changing) Retrieve() (credentials.Value, error) { return *c.now, nil }
func (c changing) IsExpired() bool                      { return true }
func (c changing) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return *c.now, nil
}

// TestKeysRotate gives an access key another secret, and then takes another access key.
func TestKeysRotate(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	put(t, open(t, c), "key", "text", PutOptions{})
	right, err := c.Credentials.GetWithContext(nil)
	must(t, err)
	now := right
	c.Credentials = credentials.New(changing{&now})
	b := open(t, c)
	now.SecretAccessKey = "another one"
	_, _, err = b.Get(t.Context(), "key", 0, -1)
	wants(t, err, ErrCredentials)
	noSecrets(t, err, now.SecretAccessKey)
	now = right
	if content(t, b, "key") != "text" {
		t.Error("it cannot be read")
	}
	assume(t, Config{Endpoint: c.Endpoint, Bucket: c.Bucket, Credentials: credentials.NewStaticV4(right.AccessKeyID, right.SecretAccessKey, "")}, &now,
		`{"Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::BUCKET/*"]}`)
	if content(t, b, "key") != "text" || now.SessionToken == "" {
		t.Error("it cannot be read with a session's keys")
	}
	now.SessionToken += "x"
	_, _, err = b.Get(t.Context(), "key", 0, -1)
	wants(t, err, ErrCredentials)
	noSecrets(t, err, now.SecretAccessKey, now.SessionToken)
}

func TestAnonymous(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	put(t, open(t, c), "public/key", "text", PutOptions{})
	must(t, admin(t, c).SetBucketPolicy(t.Context(), c.Bucket, strings.ReplaceAll(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:ListBucket"],"Resource":["arn:aws:s3:::BUCKET"]},
		{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::BUCKET/public/*"]}]}`, "BUCKET", c.Bucket)))
	put(t, open(t, c), "secret", "text", PutOptions{})
	c.Credentials, c.ReadOnly = nil, true
	b := open(t, c)
	if content(t, b, "public/key") != "text" || len(list(t, b, ListOptions{})) != 2 {
		t.Error("it cannot be read")
	}
	_, _, err := b.Get(t.Context(), "secret", 0, -1)
	wants(t, err, ErrDenied)
}

// wire is a transport that keeps what was to be sent.
type wire struct{ sent *http.Request }

func (w *wire) RoundTrip(q *http.Request) (*http.Response, error) {
	w.sent = q
	return answerOf(http.StatusOK, ""), nil
}

// TestHost looks at what the signature is for: the host as the request names it.
func TestHost(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://[::1]:80": "[::1]", "http://[::1]:9000": "[::1]:9000", "http://[::1]": "[::1]", "http://host:80": "host", "http://host:443": "host:443",
		"https://host:443": "host", "https://[fe80::443]": "[fe80::443]", "https://s3.amazonaws.com:443": "bucket.s3.amazonaws.com",
	} {
		b, err := newBucket(Config{Endpoint: endpoint, Bucket: "bucket", Credentials: credentials.NewStaticV4("access", "secret", "")})
		must(t, err)
		var w wire
		b.observed.next = &w
		answer, err := b.get(t.Context(), b.base.String(), nil)
		must(t, err)
		must(t, answer.Body.Close())
		got := w.sent.Host
		if got == "" {
			got = w.sent.URL.Host
		}
		if got != want || !strings.Contains(w.sent.Header.Get("Authorization"), "SignedHeaders=host;") {
			t.Errorf("%s: sent to %q, signed as %q", endpoint, got, w.sent.Header.Get("Authorization"))
		}
	}
}
