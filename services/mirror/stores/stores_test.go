package stores_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/stores"
)

func at(t *testing.T, text string) location.Location {
	t.Helper()
	l, err := location.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const password = "never-to-be-shown"

func TestKeysComeFromWhereTheStoreSays(t *testing.T) {
	t.Setenv("THE_KEY", "me")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inventory := []drill.Store{{
		Name: "lab", Endpoint: "https://lab:9000", Region: "here",
		AccessKey: &drill.SecretSource{Env: "THE_KEY"}, SecretKey: &drill.SecretSource{File: file},
	}}
	c, err := stores.Config(at(t, "s3:lab/bucket/p"), inventory, false)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Credentials.GetWithContext(nil)
	if err != nil || v.AccessKeyID != "me" || v.SecretAccessKey != password {
		t.Errorf("keys of %q, %v", v.AccessKeyID, err)
	}
	if c.Endpoint != "https://lab:9000" || c.Region != "here" || c.Bucket != "bucket" || c.Prefix != "p/" {
		t.Errorf("%s %s %s %s", c.Endpoint, c.Region, c.Bucket, c.Prefix)
	}
}

func TestOwnKeysReachWhatNamesItsServer(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "own")
	t.Setenv("AWS_SECRET_ACCESS_KEY", password)
	l := at(t, "s3+https://lab:9000/bucket")
	c, err := stores.Config(l, nil, true)
	if err != nil || c.Credentials == nil || c.Endpoint != "https://lab:9000" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := stores.Config(l, nil, false); !errors.Is(err, stores.ErrLocation) {
		t.Errorf("without leave: %v", err)
	}
}

func TestWhatIsWrongWithAStoreIsSaid(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for name, x := range map[string]struct {
		store    drill.Store
		want     string
		location bool
	}{
		"another name":       {drill.Store{Name: "other"}, `the inventory has no store "lab": add it`, true},
		"no certificates":    {drill.Store{Name: "lab", CAFile: missing}, "store lab: caFile: open", false},
		"empty certificates": {drill.Store{Name: "lab", CAFile: empty}, "store lab: caFile: " + empty + " holds no certificate in PEM", false},
		"no secret": {drill.Store{Name: "lab", AccessKey: &drill.SecretSource{Env: "NOT_SET"}, SecretKey: &drill.SecretSource{File: missing}},
			`store lab: accessKey: env: "NOT_SET": the environment variable is not set in this process; secretKey: secret file: open`, false},
	} {
		_, err := stores.Config(at(t, "s3:lab/bucket"), []drill.Store{x.store}, true)
		if err == nil || !strings.Contains(err.Error(), x.want) || errors.Is(err, stores.ErrLocation) != x.location || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestThatThereWereNoKeysIsSaidOnlyWhereThereWereNone(t *testing.T) {
	refused := errors.New("access denied")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	for text, want := range map[string]string{"s3:lab/bucket": "no accessKey and secretKey", "s3+http://lab/bucket": "AWS_ACCESS_KEY_ID is not set"} {
		l := at(t, text)
		c, err := stores.Config(l, []drill.Store{{Name: "lab"}}, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := stores.Explain(l, c, refused); !errors.Is(got, refused) || !strings.Contains(got.Error(), want) {
			t.Errorf("%s: %v", text, got)
		}
		if err := stores.Explain(l, c, nil); err != nil {
			t.Errorf("of no error: %v", err)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "own")
	l := at(t, "s3+http://lab/bucket")
	if _, err := stores.Config(l, nil, true); err == nil || !strings.Contains(err.Error(), "AWS_SECRET_ACCESS_KEY is not") {
		t.Errorf("with half of the keys: %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "key")
	c, err := stores.Config(l, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := stores.Explain(l, c, refused); got.Error() != refused.Error() {
		t.Errorf("with keys: %v", got)
	}
}

// TestTheOtherSchemeIsWrittenOut: whoever gives https where the server speaks http, or the
// reverse, is told what to write.
func TestTheOtherSchemeIsWrittenOut(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	hosts := map[string]string{"http": strings.TrimPrefix(plain.URL, "http://"), "https": strings.TrimPrefix(secure.URL, "https://")}
	for right, wrong := range map[string]string{"http": "https", "https": "http"} {
		inventory := []drill.Store{{Name: "lab", Endpoint: wrong + "://" + hosts[right]}}
		for text, want := range map[string]string{
			"s3+" + wrong + "://" + hosts[right] + "/bucket/p": "s3+" + right + "://" + hosts[right] + "/bucket/p",
			"s3:lab/bucket/p": "endpoint: " + right + "://" + hosts[right] + ", of the store lab in the inventory",
		} {
			l := at(t, text)
			c, err := stores.Config(l, inventory, true)
			if err != nil {
				t.Fatal(err)
			}
			c.Limits.Attempts = 1
			_, refused := bucket.Open(t.Context(), c)
			if got := stores.Explain(l, c, refused); got == nil || !errors.Is(got, refused) || !strings.Contains(got.Error(), want) {
				t.Errorf("%s: %v, want it to say %s", text, got, want)
			}
		}
	}
}
