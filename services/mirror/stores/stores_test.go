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

// unset takes away a user's own keys until the test ends.
func unset(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		t.Setenv(name, "") // which has it put back
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
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
	missing, nothing := filepath.Join(dir, "missing"), filepath.Join(dir, "nothing")
	if err := os.WriteFile(nothing, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("IS_SET", password)
	t.Setenv("IS_EMPTY", "")
	for name, x := range map[string]struct {
		store    drill.Store
		want     string
		location bool
	}{
		"another name":       {drill.Store{Name: "other"}, `the inventory has no store "lab": add it`, true},
		"no certificates":    {drill.Store{Name: "lab", CAFile: missing}, "store lab: caFile: open", false},
		"empty certificates": {drill.Store{Name: "lab", CAFile: empty}, "store lab: caFile: " + empty + " holds no certificate in PEM", false},
		"no secret": {drill.Store{Name: "lab", AccessKey: &drill.SecretSource{Env: "NOT_SET"}, SecretKey: &drill.SecretSource{File: missing}},
			`store lab: accessKey.env: "NOT_SET": this environment variable is not set: set it where`, false},
		"no file of a secret": {drill.Store{Name: "lab", AccessKey: &drill.SecretSource{Env: "IS_SET"}, SecretKey: &drill.SecretSource{File: missing}},
			`store lab: secretKey.file: "` + missing + `": no such file or directory: write the key into it`, false},
		"nothing in a variable": {drill.Store{Name: "lab", AccessKey: &drill.SecretSource{File: empty}, SecretKey: &drill.SecretSource{Env: "IS_EMPTY"}},
			`store lab: secretKey.env: "IS_EMPTY": this environment variable is empty: set it where`, false},
		"nothing in a file": {drill.Store{Name: "lab", AccessKey: &drill.SecretSource{Env: "IS_SET"}, SecretKey: &drill.SecretSource{File: nothing}},
			`store lab: secretKey.file: "` + nothing + `": this file is empty: write the key into it`, false},
		"half of the keys": {drill.Store{Name: "lab", AccessKey: &drill.SecretSource{Env: "IS_SET"}}, `store lab: secretKey: it is missing`, false},
		"both of a reference": {drill.Store{Name: "lab", AccessKey: &drill.SecretSource{Env: "IS_SET", File: empty}, SecretKey: &drill.SecretSource{Env: "IS_SET"}},
			`store lab: accessKey: say where it is found`, false},
	} {
		_, err := stores.Config(at(t, "s3:lab/bucket"), []drill.Store{x.store}, true)
		if err == nil || !strings.Contains(err.Error(), x.want) || errors.Is(err, stores.ErrLocation) != x.location || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestThatThereWereNoKeysIsSaidOnlyWhereThereWereNone(t *testing.T) {
	refused := errors.New("access denied")
	unset(t)
	for text, want := range map[string]string{"s3:lab/bucket": "no accessKey and secretKey", "s3+http://lab/bucket": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"} {
		l := at(t, text)
		if why := stores.Keyless(l, []drill.Store{{Name: "lab"}}); !strings.Contains(why, want) {
			t.Errorf("%s has no keys: %q", text, why)
		}
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
	l := at(t, "s3+http://lab/bucket")
	for _, half := range []struct{ id, key, token, want string }{
		{"own", "", "", "AWS_SECRET_ACCESS_KEY: this environment variable is empty"},
		{"", password, "", "AWS_ACCESS_KEY_ID: this environment variable is empty"},
		{"", "", "", "AWS_ACCESS_KEY_ID: this environment variable is empty"},
	} {
		t.Setenv("AWS_ACCESS_KEY_ID", half.id)
		t.Setenv("AWS_SECRET_ACCESS_KEY", half.key)
		if _, err := stores.Config(l, nil, true); err == nil || !strings.Contains(err.Error(), l.String()+": "+half.want) || strings.Contains(err.Error(), password) {
			t.Errorf("with half of the keys: %v", err)
		}
	}
	unset(t)
	t.Setenv("AWS_SESSION_TOKEN", password)
	if _, err := stores.Config(l, nil, true); err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID: this environment variable is not set") || strings.Contains(err.Error(), password) {
		t.Errorf("with a token alone: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "own")
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
	unset(t)
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

// TestWhatIsNotFoundHereIsListed, with where it stands in the inventory, and no secret.
func TestWhatIsNotFoundHereIsListed(t *testing.T) {
	t.Setenv("IS_SET", password)
	missing := filepath.Join(t.TempDir(), "missing")
	got := stores.Unresolved([]drill.Store{
		{Name: "whole", AccessKey: &drill.SecretSource{Env: "IS_SET"}, SecretKey: &drill.SecretSource{Env: "IS_SET"}}, {Name: "public"},
		{Name: "lab", CAFile: missing, AccessKey: &drill.SecretSource{Env: "NOT_SET"}, SecretKey: &drill.SecretSource{File: missing}},
	})
	want := []drill.Problem{{Field: "spec.stores[2].caFile", Value: missing}, {Field: "spec.stores[2].accessKey.env", Value: "NOT_SET"}, {Field: "spec.stores[2].secretKey.file", Value: missing}}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i, p := range got {
		if p.Field != want[i].Field || p.Value != want[i].Value || p.Fix == "" {
			t.Errorf("got %+v, want %+v", p, want[i])
		}
	}
}
