package location_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/location"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]location.Location{
		"dir:/srv/data":                      {Scheme: "dir", Path: "/srv/data"},
		"dir:/srv//data/":                    {Scheme: "dir", Path: "/srv/data"},
		"dir:/srv/with space and:colon":      {Scheme: "dir", Path: "/srv/with space and:colon"},
		"zfs:tank/data":                      {Scheme: "zfs", Path: "tank/data"},
		"s3:backup/photos":                   {Scheme: "s3", Store: "backup", Bucket: "photos"},
		"s3:backup/photos/2026/":             {Scheme: "s3", Store: "backup", Bucket: "photos", Prefix: "2026/"},
		"s3+https://minio.example:9000/b-1":  {Scheme: "s3+https", Endpoint: "https://minio.example:9000", Bucket: "b-1"},
		"s3+http://127.0.0.1:9000/b-1/a%3Fb": {Scheme: "s3+http", Endpoint: "http://127.0.0.1:9000", Bucket: "b-1", Prefix: "a?b/"},
	} {
		got, err := location.Parse(in)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", "x", "ftp:/x", "dir:", "dir:relative", "dir:/", "dir:/..", "dir:/a\x00b",
		"zfs:", "zfs:/tank", "zfs:tank@snap", "zfs:tank//a",
		"s3:", "s3:store", "s3:Store/bucket", "s3:store/b", "s3:store/bucket//x", "s3:store/bucket/../x",
		"s3+https://", "s3+https:///bucket", "s3+https://host/bucket?x=1", "s3+https://host/bucket#x", "s3+http://host:port/bucket",
	} {
		if got, err := location.Parse(in); !errors.Is(err, location.ErrLocation) {
			t.Errorf("Parse(%q) = %+v, %v", in, got, err)
		}
	}
}

// The cause comes first.
func TestParseSaysWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		"s3:store/b":                           `the bucket's name "b" is too short: it must have 3 to 255 characters`,
		"s3:store/" + strings.Repeat("b", 256): `the bucket's name has 256 characters`,
		"s3:store":                             `the bucket is missing; write s3:store/bucket/prefix`,
		"s3:Store/bucket":                      `"Store" is no name of a store: write s3:store/bucket/prefix`,
		"s3:store/-bucket":                     `the bucket's name "-bucket" has other characters than letters`,
		"s3:store/my bucket/x":                 `the bucket's name "my bucket" has other characters`,
		"s3+https://h:9000/":                   `the bucket is missing`,
		"s3+https://h:9000/ab":                 `the bucket's name "ab" is too short`,
		"s3+https://h:9000/?x=y":               `it must hold no ? and no #`,
	} {
		var e *location.SyntaxError
		if _, err := location.Parse(in); !errors.As(err, &e) || !strings.HasPrefix(e.Fix, want) {
			t.Errorf("Parse(%q): %v", in, err)
		}
	}
}

func TestErrorsHoldNoPassword(t *testing.T) {
	for _, in := range []string{"s3+https://user:hunter2@host/bucket", "s3+https://user:hunter2@host:x/bucket"} {
		if _, err := location.Parse(in); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Parse: %v", err)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"dir:/a", "dir:/a/b", true}, {"dir:/a", "dir:/ab", false}, {"dir:/a", "dir:/a", true},
		{"s3:x/bucket", "s3:x/bucket/p", true}, {"s3:x/bucket/p", "s3:x/bucket/pq", false},
		{"s3:x/bucket", "s3:y/bucket", false}, {"dir:/a", "zfs:a", false},
		{"s3+http://H:80/bucket", "s3+http://h/bucket", true}, {"s3+https://h:80/bucket", "s3+https://h/bucket", false},
		{"s3+https://[::1]:443/bucket", "s3+https://[::1]/bucket/p", true},
	} {
		a, err := location.Parse(c.a)
		b, err2 := location.Parse(c.b)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if location.Overlap(a, b) != c.want || location.Overlap(b, a) != c.want {
			t.Errorf("Overlap(%s, %s) is not %v", a, b, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"dir:/srv/data", "zfs:tank/data", "s3:backup/photos/2026", "s3+http://127.0.0.1:9000/b-1/a%3Fb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		l, err := location.Parse(in)
		if err != nil {
			return
		}
		if again, err := location.Parse(l.String()); err != nil || again != l {
			t.Errorf("%q reads as %+v, and again as %+v, %v", in, l, again, err)
		}
	})
}
