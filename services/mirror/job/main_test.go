package job

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

var server enginetest.Server

func TestMain(m *testing.M) { server.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	enginetest.Must(t, err)
}

// signer signs with a key of its own.
type signer struct{ nkeys.KeyPair }

func newSigner(t testing.TB) signer {
	t.Helper()
	k, err := nkeys.CreateUser()
	must(t, err)
	return signer{k}
}

func (s signer) Public() string {
	public, err := s.PublicKey()
	if err != nil {
		return ""
	}
	return public
}

func (s signer) Sign(data []byte) ([]byte, error) {
	sig, err := s.KeyPair.Sign(data)
	if err == nil && len(sig) != ed25519.SignatureSize {
		err = errors.New("no signature")
	}
	return sig, err
}

// newEnv is an environment with the tests' server as the store "lab".
func newEnv(t testing.TB) Env {
	t.Helper()
	// Nothing that a test just wrote is young by this clock.
	e := Env{StateDir: t.TempDir(), Now: func() time.Time { return time.Now().Add(time.Hour) }}
	s := newSigner(t)
	e.Signer = func() (proof.Signer, error) { return s, nil }
	return e
}

// withStore adds the tests' server to an environment.
func withStore(t testing.TB, e Env) Env {
	t.Helper()
	m := server.Start(t)
	secrets := t.TempDir()
	file := func(name, content string) *drill.SecretSource {
		path := filepath.Join(secrets, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return &drill.SecretSource{File: path}
	}
	e.Stores = []drill.Store{{Name: "lab", Endpoint: m.Endpoint, AccessKey: file("id", m.AccessKey), SecretKey: file("key", m.SecretKey)}}
	return e
}

// world is a mirror between two locations.
type world struct {
	testing.TB
	env    Env
	mirror drill.Mirror
	// from and to are the directories that the locations are, or "".
	from, to string
	bucket   bucket.Config
}

// between makes a mirror from a directory into another one, or into a bucket.
func between(t testing.TB, mode string, intoBucket bool) *world {
	t.Helper()
	w := &world{TB: t, env: newEnv(t), from: t.TempDir()}
	w.mirror = drill.Mirror{Name: "m", Mode: mode, From: "dir:" + w.from, Deletes: drill.MirrorDeletes{Scans: 1, MostPercent: 100}}
	if intoBucket {
		w.env = withStore(t, w.env)
		w.bucket = server.Bucket(t, mode == drill.MirrorTwoWay)
		w.mirror.To = "s3:lab/" + w.bucket.Bucket
	} else {
		w.to = t.TempDir()
		w.mirror.To = "dir:" + w.to
	}
	return w
}

func (w *world) open(write bool) *Job {
	w.Helper()
	use := Looks
	if write {
		use = Repairs
	}
	j, err := w.env.openJob(w.Context(), w.mirror, use)
	must(w, err)
	return j
}

// with opens the mirror, and closes it after do.
func (w *world) with(do func(*Job)) {
	w.Helper()
	j := w.open(true)
	defer func() { must(w, j.Close(w.Context())) }()
	do(j)
}

func (w *world) sync(o SyncOptions) Result {
	w.Helper()
	j, err := w.env.OpenRun(w.Context(), w.mirror, o.DryRun)
	must(w, err)
	res, err := j.Sync(w.Context(), o)
	must(w, errors.Join(err, j.Close(w.Context())))
	return res
}

// whole makes a run that must leave nothing undone.
func (w *world) whole() Result {
	w.Helper()
	res := w.sync(SyncOptions{})
	if !res.Whole() {
		w.Fatalf("not whole: %+v", res)
	}
	return res
}

// verified checks a side at a level.
func (w *world) verified(side plan.Side, l proof.Level) Verified {
	w.Helper()
	var v Verified
	w.with(func(j *Job) {
		var err error
		v, err = j.Verify(w.Context(), side, VerifyOptions{Level: l})
		must(w, err)
	})
	return v
}

func (w *world) write(path, content string) {
	w.Helper()
	enginetest.Write(w, w.from, path, content)
}
