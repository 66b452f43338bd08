package job

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
)

// A copy of a copy is as good as the first: what a bucket of a bucket gives back has all
// that the directory had.
func TestABucketOfABucketGivesBackAll(t *testing.T) {
	for name, c := range map[string]struct{ plain, versions bool }{"MinIO": {false, false}, "plain S3": {true, false}, "versions": {false, true}} {
		t.Run(name, func(t *testing.T) { givesBackAll(t, c.plain, c.versions) })
	}
}

func givesBackAll(t *testing.T, plain, versions bool) {
	w := between(t, drill.MirrorMirror, true)
	w.bucket = server.Bucket(t, versions)
	w.mirror.To = "s3:lab/" + w.bucket.Bucket
	if plain {
		c, _ := enginetest.Plain(t, w.bucket)
		w.env.Stores[0].Endpoint = c.Endpoint
	}
	w.write("d/e/f", "content")
	must(t, os.Mkdir(filepath.Join(w.from, "empty"), 0o750))
	must(t, os.Symlink("d/e", filepath.Join(w.from, "link")))
	then := time.Unix(1_000_000_000, 123_456_789)
	for _, path := range []string{"d/e/f", "d/e", "d", "empty"} {
		must(t, os.Chtimes(filepath.Join(w.from, path), then, then))
	}
	w.mirror.To += "/first"
	w.whole()
	second := &world{TB: t, env: w.env, mirror: drill.Mirror{Name: "second", From: w.mirror.To, To: "s3:lab/" + w.bucket.Bucket + "/second"}}
	second.whole()
	to := filepath.Join(t.TempDir(), "back")
	back := &world{TB: t, env: w.env, mirror: drill.Mirror{Name: "back", From: second.mirror.To, To: "dir:" + to}}
	back.whole()
	want, got := enginetest.Tree(t, w.from), enginetest.Tree(t, to)
	for path, w := range want {
		if got[path] != w {
			t.Errorf("%s: %q, not %q", path, got[path], w)
		}
	}
	for _, path := range []string{"d/e", "d", "empty"} {
		st, err := os.Stat(filepath.Join(to, path))
		must(t, err)
		if !st.ModTime().Equal(then) {
			t.Errorf("%s: %v, not %v", path, st.ModTime(), then)
		}
	}
}
