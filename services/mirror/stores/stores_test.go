package stores_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
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
		"no certificates":    {drill.Store{Name: "lab", CAFile: missing}, "store lab: its certificates: open", false},
		"empty certificates": {drill.Store{Name: "lab", CAFile: empty}, empty + " holds none in PEM", false},
		"no secret": {drill.Store{Name: "lab", AccessKey: &drill.SecretSource{Env: "NOT_SET"}, SecretKey: &drill.SecretSource{File: missing}},
			"store lab: its keys: ", false},
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
		if got := stores.NoKeys(l, c, refused); !errors.Is(got, refused) || !strings.Contains(got.Error(), want) {
			t.Errorf("%s: %v", text, got)
		}
		if err := stores.NoKeys(l, c, nil); err != nil {
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
	if got := stores.NoKeys(l, c, refused); got.Error() != refused.Error() {
		t.Errorf("with keys: %v", got)
	}
}
