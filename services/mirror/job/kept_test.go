package job

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// keeping is a copy of a few entries, of which two were deleted at the source since.
func keeping(t testing.TB, intoBucket bool) *world {
	t.Helper()
	w := between(t, drill.MirrorCopy, intoBucket)
	w.write("a", "goes")
	w.write("b", "stays")
	w.write("c", "goes, too")
	w.whole()
	must(t, errors.Join(os.Remove(filepath.Join(w.from, "a")), os.Remove(filepath.Join(w.from, "c"))))
	return w
}

// What a copy keeps is no difference once a run has seen it; before, it is.
func TestWhatACopyKeepsIsVerifiedWhereItIs(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		w := keeping(t, intoBucket)
		if v := w.verified(plan.Source, proof.L1); v.Verified() || v.Verdict.Missing.Count != 2 || v.Elsewhere != 0 {
			t.Errorf("deleted after the last run: %v", v.Result)
		}
		for range 2 {
			w.whole()
			for _, l := range []proof.Level{proof.L1, proof.L2, proof.L4} {
				from, to := w.verified(plan.Source, l), w.verified(plan.Dest, l)
				if !from.Verified() || from.Elsewhere != 2 || from.Verdict.Checked != 1 || from.Verdict.Kept.Count != 0 {
					t.Errorf("the source at %v: %v", l, from.Result)
				}
				if !to.Verified() || to.Elsewhere != 0 || to.Verdict.Checked != 3 || to.Verdict.Kept.Count != 2 || to.Verdict.Level != l {
					t.Errorf("the destination at %v: %v: %+v", l, to.Result, to.Verdict.Kept)
				}
			}
			w.with(func(j *Job) {
				all, err := j.VerifySides(t.Context(), bothSides[:], VerifyOptions{Level: proof.L3, Read: verify.Amount{Percent: 100}})
				must(t, err)
				for side, v := range all {
					if want := int64(1 + 2*side); !v.Verified() || v.Verdict.At[proof.L3] != want {
						t.Errorf("%v at L3: %v", bothSides[side], v.Result)
					}
				}
			})
			if a := w.audit(AuditOptions{}); !a.Clean() || a.Contents != 1 || a.Checked != 1 {
				t.Errorf("audited: %+v", a)
			}
		}
		w.write("a", "goes")
		if v := w.verified(plan.Source, proof.L1); v.Verified() || v.Verdict.Extra.Count != 1 || v.Elsewhere != 2 {
			t.Errorf("back, and nobody has compared it yet: %v", v.Result)
		}
		w.whole()
		if v := w.verified(plan.Source, proof.L1); !v.Verified() || v.Verdict.Checked != 2 || v.Elsewhere != 1 {
			t.Errorf("back: %v", v.Result)
		}
	}
}

// What is kept is checked: it must be there, with its content.
func TestWhatIsKeptMustBeThere(t *testing.T) {
	w := keeping(t, false)
	w.whole()
	enginetest.Write(t, w.to, "a", "evil")
	must(t, os.Remove(filepath.Join(w.to, "c")))
	v := w.verified(plan.Dest, proof.L1)
	if v.Verified() || v.Verdict.Different.Count != 1 || v.Verdict.Missing.Count != 1 || v.Verdict.Kept.Count != 0 {
		t.Errorf("edited and lost: %v", v.Result)
	}
	// What is gone from both is forgotten.
	w.whole()
	if v := w.verified(plan.Dest, proof.L1); v.Verdict.Missing.Count != 0 || v.Verdict.Different.Count != 1 {
		t.Errorf("forgotten: %v", v.Result)
	}
}

// Rot in what is kept is found, and nothing is there that could repair it.
func TestWhatIsKeptCannotBeRepaired(t *testing.T) {
	w := keeping(t, false)
	w.whole()
	w.unrepaired("c", "take it from a backup")
}

// A mirror that begins to remove counts the runs in which something was missing anew.
func TestAMirrorDeletesNothingForWhatACopySaw(t *testing.T) {
	w := keeping(t, false)
	w.whole()
	w.mirror.Mode, w.mirror.Deletes.Scans = drill.MirrorMirror, 2
	if res := w.sync(SyncOptions{}); res.Done[plan.Delete] != 0 || res.Done[plan.Keep] != 2 {
		t.Errorf("the first run: %+v", res.Done)
	}
	if v := w.verified(plan.Source, proof.L1); !v.Verified() || v.Gone != 2 || v.Elsewhere != 0 {
		t.Errorf("what is about to go: %v", v.Result)
	}
	if res := w.sync(SyncOptions{}); res.Done[plan.Delete] != 2 {
		t.Errorf("the second run: %+v", res.Done)
	}
	if v := w.verified(plan.Dest, proof.L1); !v.Verified() || v.Verdict.Checked != 1 {
		t.Errorf("removed: %v", v.Result)
	}
}

// What came back and is gone once more was missing once, whatever a copy saw before.
func TestWhatACopySawDoesNotCountLater(t *testing.T) {
	w := keeping(t, false)
	w.whole()
	w.mirror.Mode, w.mirror.Deletes = drill.MirrorMirror, drill.MirrorDeletes{Scans: 2, MostPercent: 100}
	w.write("a", "goes")
	w.sync(SyncOptions{})
	must(t, os.Remove(filepath.Join(w.from, "a")))
	if res := w.sync(SyncOptions{}); res.Done[plan.Delete] != 1 || res.Done[plan.Keep] != 1 {
		t.Errorf("gone for the first time: %+v", res.Done)
	}
	for name, want := range map[string]bool{"a": true, "c": false} {
		if _, err := os.Stat(filepath.Join(w.to, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A manifest of before it was counted what no run has read is made anew, also where there is
// nothing to do.
func TestAnOlderManifestCountsWhatIsUnread(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.write("a", "the same")
	st, err := os.Stat(filepath.Join(w.from, "a"))
	must(t, err)
	enginetest.Write(t, w.to, "a", "the same")
	must(t, os.Chtimes(filepath.Join(w.to, "a"), st.ModTime(), st.ModTime()))
	w.whole()
	root := filepath.Join(w.env.StateDir, "m", rootName)
	raw, err := os.ReadFile(root)
	must(t, err)
	var before map[string]any
	must(t, json.Unmarshal(raw, &before))
	before["form"] = 2
	delete(before, "unread")
	raw, err = json.Marshal(before)
	must(t, errors.Join(err, os.WriteFile(root, raw, 0o600)))
	if res := w.whole(); res.Unread != 1 {
		t.Errorf("%d are unread", res.Unread)
	}
}

// A manifest that was made before there were kept entries is read as it is, and the next
// run makes it anew, whatever else it finds to do.
func TestAManifestOfBeforeIsMadeAnew(t *testing.T) {
	w := keeping(t, false)
	w.mirror.Mode, w.mirror.Deletes.Scans = drill.MirrorMirror, 3
	w.sync(SyncOptions{}) // which remembers what is missing, and marks it otherwise
	if v := w.verified(plan.Source, proof.L1); v.Gone != 2 {
		t.Fatalf("before: %v", v.Result)
	}
	root := filepath.Join(w.env.StateDir, "m", rootName)
	raw, err := os.ReadFile(root)
	must(t, err)
	var before map[string]any
	if must(t, json.Unmarshal(raw, &before)); before["keeps"] != nil {
		t.Fatalf("got %s", raw)
	}
	w.mirror.Mode = drill.MirrorCopy
	if v := w.verified(plan.Source, proof.L1); v.Gone != 2 || v.Elsewhere != 0 {
		t.Errorf("read as a copy's: %v", v.Result)
	}
	w.whole()
	if v := w.verified(plan.Source, proof.L1); !v.Verified() || v.Elsewhere != 2 || v.Gone != 0 {
		t.Errorf("made anew: %v", v.Result)
	}
}

// Of an object that was there before the mirror, and that no run has read, its ETag is known:
// that is enough to see that it is still the same.
func TestWhatIsKnownOfADestinationAloneIsEnoughToKeepIt(t *testing.T) {
	w := between(t, drill.MirrorCopy, true)
	w.write("a", "old")
	w.write("b", "old as well")
	client := enginetest.Client(t, w.bucket)
	w.whole()
	must(t, os.RemoveAll(w.env.StateDir))
	w.whole() // equal by size and time
	must(t, os.Remove(filepath.Join(w.from, "a")))
	if res := w.whole(); res.Unread != 1 {
		t.Errorf("%d that another run could read", res.Unread)
	}
	if v := w.verified(plan.Dest, proof.L1); v.Verdict.Kept.Count != 1 || v.Verdict.Unchecked.Count != 1 || v.Verdict.Unchecked.First[0].Key != "b" || v.Verdict.Problems() != 1 {
		t.Errorf("kept: %v", v.Result)
	}
	_, err := client.PutObject(t.Context(), w.bucket.Bucket, "a", strings.NewReader("new"), 3, minio.PutObjectOptions{})
	must(t, err)
	if v := w.verified(plan.Dest, proof.L1); v.Verdict.Kept.Count != 0 || v.Verdict.Different.Count != 1 {
		t.Errorf("replaced: %v", v.Result)
	}
}

// Where nothing takes part nothing is shown, and what the filter left out is counted.
func TestWhereNothingTakesPartNothingIsShown(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.whole()
	for _, side := range bothSides {
		if v := w.verified(side, proof.L4); v.Verified() || !v.Inconclusive() || v.Entries != 0 {
			t.Errorf("empty %v: %v", side, v.Result)
		}
	}
	if a := w.audit(AuditOptions{}); a.Clean() {
		t.Errorf("an audit of nothing: %+v", a)
	}
	w.write("a.tmp", "x")
	w.write("d/b.tmp", "y")
	w.whole()
	w.mirror.Filter = []string{"- *.tmp", "- /d/"}
	for _, side := range bothSides {
		v := w.verified(side, proof.L4)
		if v.Verified() || !v.Inconclusive() || v.Entries != 3 || v.LeftOut.Entries != 3 || v.LeftOut.Names != 2 || len(v.Filter) != 2 {
			t.Errorf("all is left out of the %v: %+v", side, v)
		}
	}
}

// Before a first run there is nothing to compare with, and to find that out makes nothing.
func TestToKnowNothingMakesNothing(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	if err := w.env.Known(w.mirror); !errors.Is(err, ErrNothingKnown) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(w.env.StateDir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	w.with(func(*Job) { // Who has it open may be about to make it.
		must(t, w.env.Known(w.mirror))
	})
	if err := w.env.Known(w.mirror); !errors.Is(err, ErrNothingKnown) {
		t.Errorf("opened and never run: %v", err)
	}
	w.write("a", "x")
	w.whole()
	must(t, w.env.Known(w.mirror))
}
