package job

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A pair of mirrors as users have them: local files go out often, and come back nightly.
// What was changed locally and has not gone out yet is not written over on the way back.
func TestTheWayBackOverwritesNoNewerWork(t *testing.T) {
	out := between(t, drill.MirrorMirror, true)
	for _, p := range []string{"d/edited", "d/chmod", "d/theirs", "d/lost"} {
		out.write(p, "as it was")
	}
	out.whole()
	back := &world{TB: t, env: out.env, to: out.from, bucket: out.bucket}
	back.mirror = drill.Mirror{Name: "back", From: out.mirror.To, To: out.mirror.From, Overwrite: drill.OverwriteUnedited}
	back.whole()

	out.write("d/edited", "newer, and longer")
	out.write("d/mine", "new")
	must(t, errors.Join(os.Chmod(filepath.Join(out.from, "d/chmod"), 0o600), os.Remove(filepath.Join(out.from, "d/lost"))))
	client := enginetest.Client(t, out.bucket)
	for key, content := range map[string]string{"d/theirs": "changed there", "d/mine": "theirs"} {
		_, err := client.PutObject(t.Context(), out.bucket.Bucket, key, strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
		must(t, err)
	}
	for _, dry := range []bool{true, false} {
		res := back.sync(SyncOptions{Check: engine.CheckListing, DryRun: dry})
		var keys []string
		for _, c := range res.Conflicts {
			if c.Reason != plan.ConflictEdited {
				t.Errorf("%s: %s", c.Key, c.Reason)
			}
			keys = append(keys, c.Key)
		}
		slices.Sort(keys)
		if got := strings.Join(keys, " "); res.Whole() || got != "d/chmod d/edited d/mine" || res.Done[plan.Put] != 2 {
			t.Errorf("dry %v: conflicts %q, %+v", dry, got, res.Done)
		}
	}
	for p, want := range map[string]string{"edited": "newer, and longer", "mine": "new", "theirs": "changed there", "lost": "as it was", "chmod": "as it was"} {
		if got, err := os.ReadFile(filepath.Join(out.from, "d", p)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, not %q: %v", p, got, want, err)
		}
	}
	if st, err := os.Stat(filepath.Join(out.from, "d/chmod")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the mode is %v, %v", st.Mode(), err)
	}
	// Once it has gone out, both hold the same, and the way back has nothing to say.
	out.sync(SyncOptions{Check: engine.CheckListing})
	back.sync(SyncOptions{Check: engine.CheckListing})
	back.whole()
}

// Directories have no content that a write's condition could keep: they are looked at,
// whatever the run was told to believe, and so is the root.
func TestAnUneditedCopyKeepsTheModesOfDirectories(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.mirror.Overwrite = drill.OverwriteUnedited
	mode := func(path string) os.FileMode {
		st, err := os.Stat(filepath.Join(w.to, path))
		must(t, err)
		return st.Mode().Perm()
	}
	w.write("private/a", "a")
	must(t, errors.Join(os.Chmod(w.from, 0o755), os.Chmod(w.to, 0o700)))
	if res := w.sync(SyncOptions{}); res.Whole() || len(res.Conflicts) != 1 || res.Conflicts[0].Key != rootKey || mode(".") != 0o700 {
		t.Errorf("a root that was there before: %+v, mode %v", res.Conflicts, mode("."))
	}
	must(t, os.Chmod(w.to, 0o755))
	w.whole()
	must(t, errors.Join(os.Chmod(filepath.Join(w.to, "private"), 0o700), os.Chmod(filepath.Join(w.from, "private"), 0o775), os.Mkdir(filepath.Join(w.to, "new"), 0o700)))
	w.write("new/b", "b")
	res := w.sync(SyncOptions{Check: engine.CheckState})
	var keys []string
	for _, c := range res.Conflicts {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	if got := strings.Join(keys, " "); got != "new/ private/" || mode("private") != 0o700 || mode("new") != 0o700 || res.Done[plan.Put] != 1 {
		t.Errorf("conflicts %q, modes %v and %v, %+v", got, mode("private"), mode("new"), res.Done)
	}
	must(t, os.Chmod(w.to, 0o711))
	if res := w.sync(SyncOptions{}); len(res.Conflicts) != 3 || mode(".") != 0o711 {
		t.Errorf("an edited root: %+v, mode %v", res.Conflicts, mode("."))
	}
}
