package bucket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func TestCapabilities(t *testing.T) {
	m := server(t, false)
	plain := Capabilities{Server: "MinIO", Snowball: true, ListMetadata: true, SetMTime: true}
	versioned, reading := plain, plain
	versioned.Versioning, versioned.SetMTime = true, false
	suspended := plain
	suspended.SetMTime = false
	reading = Capabilities{Server: "MinIO", ListMetadata: true, SetMTime: true}
	for name, c := range map[string]struct {
		make  minio.MakeBucketOptions
		setUp func(Config, *minio.Client) error
		read  bool
		want  Capabilities
	}{
		"plain":     {want: plain},
		"read only": {read: true, want: reading},
		"locked":    {make: minio.MakeBucketOptions{ObjectLocking: true}, want: versioned},
		"versioned": {want: versioned, setUp: func(c Config, a *minio.Client) error {
			return a.EnableVersioning(t.Context(), c.Bucket)
		}},
		"suspended": {want: suspended, setUp: func(c Config, a *minio.Client) error {
			return errors.Join(a.EnableVersioning(t.Context(), c.Bucket), a.SuspendVersioning(t.Context(), c.Bucket))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			config := makeBucket(t, m, c.make)
			if c.setUp != nil {
				must(t, c.setUp(config, admin(t, config)))
			}
			config.ReadOnly = c.read
			b := open(t, config)
			if got := b.Capabilities(); got != c.want {
				t.Errorf("\n got %+v\nwant %+v", got, c.want)
			}
			if keeps, err := b.KeepsCRC32C(t.Context()); err != nil || keeps == c.read {
				t.Errorf("it keeps checksums: %v, %v", keeps, err)
			}
			for u := range admin(t, config).ListIncompleteUploads(t.Context(), config.Bucket, "", true) {
				t.Errorf("asking left the upload %v behind", u)
			}
		})
	}
}

// TestOpenExplains opens what cannot be opened, and looks at the reasons and for
// secrets in the texts.
func TestOpenExplains(t *testing.T) {
	m, secure := server(t, false), server(t, true)
	good := makeBucket(t, m, minio.MakeBucketOptions{})
	with := func(change func(*Config)) Config {
		c := good
		change(&c)
		return c
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	const wrong = "a-wrong-secret-key"
	for name, c := range map[string]struct {
		config Config
		want   error
		says   string
	}{
		"secret":      {with(func(c *Config) { c.Credentials = credentials.NewStaticV4(m.AccessKey, wrong, "") }), ErrCredentials, "secret key"},
		"access key":  {with(func(c *Config) { c.Credentials = credentials.NewStaticV4("nobody", m.SecretKey, "") }), ErrCredentials, "access key"},
		"token":       {with(func(c *Config) { c.Credentials = credentials.NewStaticV4("nobody", m.SecretKey, wrong) }), ErrCredentials, "access key"},
		"nobody":      {with(func(c *Config) { c.Credentials = nil }), ErrDenied, "AccessDenied"},
		"bucket":      {with(func(c *Config) { c.Bucket = "nowhere" }), ErrNoBucket, "create it"},
		"nothing":     {with(func(c *Config) { c.Endpoint = "http://" + closed.Addr().String() }), ErrUnreachable, "refused"},
		"TLS missing": {with(func(c *Config) { c.Endpoint = strings.Replace(m.Endpoint, "http:", "https:", 1) }), ErrUnreachable, "write http://"},
		"untrusted":   {with(func(c *Config) { c.Endpoint = secure.Endpoint }), ErrUnreachable, "trust its certificate"},
		"region":      {with(func(c *Config) { c.Endpoint = elsewhere(t) }), ErrCredentials, "set the region to eu-moon-1"},
		"page":        {with(func(c *Config) { c.Endpoint = webSite(t) }), ErrListing, "ListBucketResult"},
		"keys":        {with(func(c *Config) { c.Credentials = credentials.New(noKeys{}) }), ErrCredentials, "the vault is locked"},
		"not S3":      {with(func(c *Config) { c.Endpoint = notS3(t) }), nil, "is this an S3 server?"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := Open(soon(t, 20*time.Second), c.config)
			if err == nil {
				b.Close()
				t.Fatal("it opened")
			}
			if c.want != nil {
				wants(t, err, c.want)
			}
			e, ok := errors.AsType[*RequestError](err)
			if !ok || e.Op == "" || !strings.Contains(e.Where, c.config.Bucket) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want it to say %q", err, c.says)
			}
			noSecrets(t, err, m.SecretKey, wrong)
		})
	}
}

func serve(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func notS3(t *testing.T) string { return serve(t, http.NotFound) }

func webSite(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<html><body>Hello</body></html>")
	})
}

func elsewhere(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message><Region>eu-moon-1</Region></Error>")
	})
}

// noKeys is a provider of credentials that has none.
type noKeys struct{}

func (noKeys) Retrieve() (credentials.Value, error) {
	return credentials.Value{}, errors.New("the vault is locked")
}

func (k noKeys) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return k.Retrieve()
}

func (noKeys) IsExpired() bool { return true }

// noSecrets looks in the texts that an error can be printed as.
func noSecrets(t *testing.T, err error, secrets ...string) {
	t.Helper()
	for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		for _, s := range append(secrets, "Signature=") {
			if strings.Contains(text, s) {
				t.Errorf("%q is in %s", s, text)
			}
		}
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	for _, c := range []Config{
		{Endpoint: "http://me:hunter22@127.0.0.1:1", Bucket: "bucket"},
		{Endpoint: "ftp://hunter22", Bucket: "bucket"},
		{Endpoint: "://hunter22\x7f", Bucket: "bucket"},
		{Endpoint: "http://127.0.0.1:1/hunter22", Bucket: "bucket"},
		{Endpoint: "127.0.0.1:9000", Bucket: "bucket"},
		{Endpoint: "http://127.0.0.1:1", Bucket: "No Bucket"},
		{Endpoint: "http://127.0.0.1:1", Bucket: "bucket", Prefix: "/a"},
		{Endpoint: "http://127.0.0.1:1", Bucket: "bucket", Prefix: "a/../b/"},
		{Endpoint: "http://127.0.0.1:1", Bucket: "bucket", Prefix: "a//b"},
	} {
		b, err := Open(t.Context(), c)
		if err == nil {
			b.Close()
			t.Errorf("%+v: it opened", c)
			continue
		}
		noSecrets(t, err, "hunter22")
	}
}

// TestClockSkew puts an hour between the two clocks: the server sees a later
// request, and the client an earlier answer.
func TestClockSkew(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	const format = "20060102T150405Z"
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		p := proxy(t, c, func(q *http.Request) {
			sent, err := time.Parse(format, q.Header.Get("X-Amz-Date"))
			if err == nil {
				q.Header.Set("X-Amz-Date", sent.Add(ahead).Format(format))
			}
		}, func(a *http.Response) error {
			told, err := http.ParseTime(a.Header.Get("Date"))
			a.Header.Set("Date", told.Add(-ahead).Format(http.TimeFormat))
			return err
		})
		_, err := Open(t.Context(), p)
		e, ok := errors.AsType[*ClockSkewError](err)
		if !ok || (e.Skew-ahead).Abs() > time.Minute {
			t.Fatalf("%v: got %v", ahead, err)
		}
		if says := map[bool]string{true: "ahead of", false: "behind"}[ahead > 0]; !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}

func TestTLS(t *testing.T) {
	b := open(t, makeBucket(t, server(t, true), minio.MakeBucketOptions{}))
	long := strings.Repeat("0123456789abcdef", 20<<10)
	for key, text := range map[string]string{"small": "text", "long": long, "none": ""} {
		if w := put(t, b, key, text, PutOptions{}); !w.Confirmed {
			t.Errorf("%s: %+v", key, w)
		}
		if content(t, b, key) != text {
			t.Errorf("%s: another content", key)
		}
	}
	_, err := b.PutBatch(t.Context(), []BatchItem{item("batched", "text", nil)})
	must(t, err)
	if got := len(list(t, b, ListOptions{})); got != 4 {
		t.Errorf("%d objects", got)
	}
}

// assume returns passing credentials that a policy restricts.
func assume(t *testing.T, c Config, secret *credentials.Value, statements string) Config {
	t.Helper()
	policy := `{"Version":"2012-10-17","Statement":[` + strings.ReplaceAll(statements, "BUCKET", c.Bucket) + `]}`
	root, err := c.Credentials.GetWithContext(nil)
	must(t, err)
	role, err := credentials.NewSTSAssumeRole(c.Endpoint, credentials.STSAssumeRoleOptions{
		AccessKey: root.AccessKeyID, SecretKey: root.SecretAccessKey, Policy: policy, DurationSeconds: 3600,
	})
	must(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	keys, err := role.GetWithContext(&credentials.CredContext{Client: &http.Client{Transport: transport}})
	must(t, err)
	if secret != nil {
		*secret = keys
	}
	c.Credentials = role
	return c
}

func TestReadOnlyCredentials(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	put(t, open(t, c), "a", "text", PutOptions{Meta: map[string]string{"Name": "x"}})
	var keys credentials.Value
	c = assume(t, c, &keys, `{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],"Resource":["arn:aws:s3:::BUCKET","arn:aws:s3:::BUCKET/*"]}`)
	b := open(t, c)
	if got := b.Capabilities(); got.SetMTime || got.Versioning {
		t.Errorf("what could not be asked is taken for granted: %+v", got)
	}
	if keeps, err := b.KeepsCRC32C(t.Context()); keeps || err != nil {
		t.Errorf("checksums that cannot be asked for are kept: %v, %v", keeps, err)
	}
	if content(t, b, "a") != "text" || len(list(t, b, ListOptions{Metadata: true})[0].Meta) != 1 {
		t.Error("it cannot be read")
	}
	check := func(err error) {
		t.Helper()
		wants(t, err, ErrDenied)
		noSecrets(t, err, keys.SecretAccessKey, keys.SessionToken)
	}
	_, err := b.Put(t.Context(), "b", strings.NewReader("text"), 4, PutOptions{})
	check(err)
	_, err = b.StartParts(t.Context(), "b", PartsOptions{PartSize: MinPart})
	check(err)
	check(b.Delete(t.Context(), []string{"a"}))
	_, err = b.PutBatch(t.Context(), []BatchItem{item("b", "text", nil), item("c", "text", nil)})
	check(err)
	if got := failedKeys(t, err); len(got) != 2 {
		t.Errorf("failed: %q", got)
	}

	c.ReadOnly = true
	b = open(t, c)
	_, err = b.Put(t.Context(), "b", strings.NewReader("text"), 4, PutOptions{})
	wants(t, err, ErrUnsupported)
	wants(t, b.Delete(t.Context(), []string{"a"}), ErrUnsupported)
	_, err = b.PutBatch(t.Context(), []BatchItem{item("b", "text", nil)})
	wants(t, err, ErrUnsupported)
	if content(t, b, "a") != "text" {
		t.Error("it was changed")
	}
}

// TestCredentialsForAPrefix writes with keys that allow only what is below it.
func TestCredentialsForAPrefix(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	var keys credentials.Value
	c = assume(t, c, &keys, `{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::BUCKET/mine/*"]},
		{"Effect":"Allow","Action":["s3:ListBucket"],"Resource":["arn:aws:s3:::BUCKET"]}`)
	_, err := open(t, c).Put(t.Context(), "yours/a", strings.NewReader("text"), 4, PutOptions{})
	wants(t, err, ErrDenied)
	c.Prefix = "mine"
	b := open(t, c)
	put(t, b, "a", "text", PutOptions{})
	_, err = b.PutBatch(t.Context(), []BatchItem{item("b", "text", nil), item("d/", "", nil)})
	must(t, err)
	must(t, b.Delete(t.Context(), []string{"a"}))
	if got := fmt.Sprint(keysOf(list(t, b, ListOptions{}))); got != "[b d/]" {
		t.Errorf("got %s", got)
	}
}

func TestPressure(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	var busy atomic.Int32
	var calls, throttled atomic.Int32
	c = proxy(t, c, nil, func(a *http.Response) error {
		if busy.Load() > 0 && busy.Add(-1) >= 0 {
			a.StatusCode, a.Status = http.StatusServiceUnavailable, "503 Slow Down"
		}
		return nil
	})
	c.Limits.Attempts = 3
	c.Pressure = func(latency time.Duration, slow bool) {
		calls.Add(1)
		if slow {
			throttled.Add(1)
		}
		if latency <= 0 {
			t.Errorf("latency %v", latency)
		}
	}
	b := open(t, c)
	if calls.Load() == 0 || throttled.Load() != 0 {
		t.Errorf("%d calls, %d throttled", calls.Load(), throttled.Load())
	}
	busy.Store(2)
	put(t, b, "a", "text", PutOptions{})
	if throttled.Load() != 2 {
		t.Errorf("%d throttled, want 2", throttled.Load())
	}
	busy.Store(3)
	_, err := b.Put(t.Context(), "a", strings.NewReader("text"), 4, PutOptions{})
	wants(t, err, ErrThrottled)
}

func TestFrozenServer(t *testing.T) {
	m := server(t, false)
	c := makeBucket(t, m, minio.MakeBucketOptions{})
	c.Limits = Limits{Answer: 200 * time.Millisecond, Attempts: 1}
	b := open(t, c)
	must(t, m.Freeze(t.Context()))
	defer func() { must(t, m.Thaw()) }()
	_, err := b.Stat(t.Context(), "a")
	wants(t, err, ErrUnreachable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Stat(ctx, "a")
	wants(t, err, context.Canceled)
	wants(t, b.Delete(ctx, []string{"a"}), context.Canceled)
	_, err = b.PutBatch(ctx, []BatchItem{item("a", "text", nil)})
	wants(t, err, context.Canceled)
	if _, err = b.Stat(soon(t, 50*time.Millisecond), "a"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want that the caller gave up", err)
	}
}

// TestOtherServers stands before a server that does less: no batches, no metadata
// in listings, no checksums of whole objects.
func TestOtherServers(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	b := open(t, proxy(t, c, nil, func(a *http.Response) error {
		a.Header.Set("Server", "Other")
		for name := range a.Header {
			if strings.HasPrefix(name, "X-Amz-Checksum-") {
				a.Header.Del(name)
			}
		}
		return nil
	}))
	if got, want := b.Capabilities(), (Capabilities{Server: "Other"}); got != want {
		t.Fatalf("got %+v", got)
	}
	raw := randomBytes(MinPart + smallBody + 1)
	for _, n := range []int{4, len(raw)} {
		w := put(t, b, "key", string(raw[:n]), PutOptions{})
		if w.Confirmed || w.CRC32C != crcOf(raw[:n]) || content(t, b, "key") != string(raw[:n]) {
			t.Errorf("%d bytes: %+v", n, w)
		}
	}
	u, parts := upload(t, b, "parts", raw, MinPart)
	w, err := b.FinishParts(t.Context(), u, parts, FinishOptions{})
	must(t, err)
	if w.Confirmed || w.CRC32C != crcOf(raw) || content(t, b, "parts") != string(raw) {
		t.Errorf("in parts: %+v", w)
	}
	_, err = b.PutBatch(t.Context(), []BatchItem{item("a", "text", nil)})
	wants(t, err, ErrUnsupported)
	for _, err := range b.List(t.Context(), ListOptions{Metadata: true}) {
		wants(t, err, ErrUnsupported)
	}
	must(t, b.Verify(t.Context(), []Expected{{Key: "key", Size: int64(len(raw)), ETag: put(t, b, "key", string(raw), PutOptions{}).ETag}}))
}

func TestTLSConfigIsNotKept(t *testing.T) {
	config := &tls.Config{}
	b, err := newBucket(Config{Endpoint: "https://127.0.0.1:1", Bucket: "bucket", TLS: config})
	must(t, err)
	if b.transport.TLSClientConfig == config {
		t.Error("a later change of it would race")
	}
}
