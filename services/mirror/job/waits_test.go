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
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// deleting is a mirror of a few entries that deletes what was missing twice, and of which
// two were deleted at the source since.
func deleting(t testing.TB, intoBucket bool) *world {
	t.Helper()
	w := between(t, drill.MirrorMirror, intoBucket)
	w.mirror.Deletes.Scans = 2
	w.write("a", "goes")
	w.write("b", "stays")
	w.write("c", "goes, too")
	w.write("e", "is lost")
	w.whole()
	must(t, errors.Join(os.Remove(filepath.Join(w.from, "a")), os.Remove(filepath.Join(w.from, "c"))))
	return w
}

// What a limit of deletes holds back waits, too, however few scans a deletion takes. Where
// a guard doubts that the source is what it should be, what it lacks is missing.
func TestWhatALimitHoldsBackIsNoLoss(t *testing.T) {
	for _, mounted := range []bool{true, false} {
		w := deleting(t, false)
		w.mirror.Deletes = drill.MirrorDeletes{Scans: 1, Most: 1, MostPercent: 100}
		if !mounted {
			empty(t, w.from)
		}
		for range 2 {
			if res := w.sync(SyncOptions{}); len(res.Refusals) == 0 || res.Done[plan.Delete] > 0 {
				t.Fatalf("%+v", res.Report)
			}
			from, to := w.verified(plan.Source, proof.L4), w.verified(plan.Dest, proof.L4)
			if !to.Verified() || from.Verified() != mounted || mounted && (from.Gone != 2 || to.Verdict.Waiting.Count != 2) || !mounted && from.Verdict.Missing.Count != 4 {
				t.Errorf("mounted %t: the source %v, the destination %v", mounted, from.Result, to.Result)
			}
		}
		if !mounted {
			continue
		}
		if res := w.sync(SyncOptions{MayDelete: 2}); res.Done[plan.Delete] != 2 {
			t.Errorf("allowed: %+v", res.Report)
		}
		if v := w.verified(plan.Source, proof.L4); !v.Verified() || v.Gone != 0 {
			t.Errorf("deleted: %v", v.Result)
		}
	}
}

// What was deleted at the source is no loss once a run has seen it: it waits for the next
// one. Before, it is a difference, and so is what was deleted since.
func TestWhatWaitsForDeletionIsNoLoss(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		w := deleting(t, intoBucket)
		if v := w.verified(plan.Source, proof.L1); v.Verified() || v.Verdict.Missing.Count != 2 || v.Gone != 0 {
			t.Errorf("deleted after the last run: %v", v.Result)
		}
		w.whole()
		for _, l := range []proof.Level{proof.L1, proof.L2, proof.L4} {
			from, to := w.verified(plan.Source, l), w.verified(plan.Dest, l)
			if !from.Verified() || from.Gone != 2 || from.Elsewhere != 0 || from.Verdict.Checked != 2 || from.Verdict.Waiting.Count != 0 {
				t.Errorf("the source at %v: %v", l, from.Result)
			}
			if !to.Verified() || to.Gone != 0 || to.Verdict.Checked != 4 || to.Verdict.Waiting.Count != 2 || to.Verdict.Kept.Count != 0 || to.Verdict.Level != l {
				t.Errorf("the destination at %v: %v: %+v", l, to.Result, to.Verdict.Waiting)
			}
		}
		w.with(func(j *Job) {
			all, err := j.VerifySides(t.Context(), bothSides[:], VerifyOptions{Level: proof.L3, Read: verify.Amount{Percent: 100}})
			must(t, err)
			for side, v := range all {
				if want := int64(2 + 2*side); !v.Verified() || v.Verdict.At[proof.L3] != want {
					t.Errorf("%v at L3: %v", bothSides[side], v.Result)
				}
			}
		})
		if a := w.audit(AuditOptions{}); !a.Clean() || a.Contents != 2 || a.Checked != 2 {
			t.Errorf("audited: %+v", a)
		}
		must(t, os.Remove(filepath.Join(w.from, "e")))
		if v := w.verified(plan.Source, proof.L1); v.Verified() || v.Verdict.Missing.Count != 1 || v.Verdict.Missing.First[0].Key != "e" || v.Gone != 2 {
			t.Errorf("deleted since: %v", v.Result)
		}
		if res := w.whole(); res.Done[plan.Delete] != 2 {
			t.Errorf("the second run: %+v", res.Done)
		}
		if from, to := w.verified(plan.Source, proof.L1), w.verified(plan.Dest, proof.L1); !from.Verified() || from.Gone != 1 || !to.Verified() || to.Verdict.Waiting.Count != 1 {
			t.Errorf("deleted: %v, %v", from.Result, to.Result)
		}
		w.write("e", "back")
		w.whole()
		if v := w.verified(plan.Source, proof.L1); !v.Verified() || v.Gone != 0 || v.Verdict.Checked != 2 {
			t.Errorf("back: %v", v.Result)
		}
	}
}

// In a two-way mirror either side can hold what waits.
func TestWhatWaitsForDeletionAtTheSource(t *testing.T) {
	w := between(t, drill.MirrorTwoWay, true)
	w.mirror.Deletes.Scans = 2
	w.write("a", "goes")
	w.write("b", "stays")
	w.whole()
	must(t, enginetest.Client(t, w.bucket).RemoveObject(t.Context(), w.bucket.Bucket, "a", minio.RemoveObjectOptions{}))
	if v := w.verified(plan.Dest, proof.L1); v.Verified() || v.Verdict.Missing.Count != 1 {
		t.Errorf("deleted after the last run: %v", v.Result)
	}
	w.whole()
	from, to := w.verified(plan.Source, proof.L4), w.verified(plan.Dest, proof.L4)
	if !from.Verified() || from.Verdict.Waiting.Count != 1 || !to.Verified() || to.Gone != 1 || to.Verdict.Checked != 1 {
		t.Errorf("missed once: %v, %v", from.Result, to.Result)
	}
	if res := w.whole(); res.Done[plan.Delete] != 1 {
		t.Errorf("missed twice: %+v", res.Done)
	}
	if v := w.verified(plan.Source, proof.L1); !v.Verified() || v.Verdict.Checked != 1 || v.Verdict.Waiting.Count != 0 {
		t.Errorf("deleted: %v", v.Result)
	}
}

// What waits for deletion must be there until then, as it was; nothing is left to mend it from.
func TestWhatWaitsForDeletionIsLookedFor(t *testing.T) {
	w := deleting(t, false)
	w.whole()
	w.unrepaired("c", "a run is to delete it here")
	must(t, os.Remove(filepath.Join(w.to, "a")))
	if v := w.verified(plan.Dest, proof.L1); v.Verified() || v.Verdict.Missing.Count != 1 || v.Verdict.Waiting.Count != 1 || !strings.Contains(v.Verdict.Missing.First[0].Detail, "somebody else") {
		t.Errorf("removed by others: %v", v.Result)
	}
}

// A manifest that was made before anything waited in it is made anew, also where there is
// nothing to do.
func TestAManifestInWhichNothingWaitsIsMadeAnew(t *testing.T) {
	w := deleting(t, false)
	w.whole()
	root := filepath.Join(w.env.StateDir, "m", rootName)
	raw, err := os.ReadFile(root)
	must(t, err)
	var before map[string]any
	if must(t, json.Unmarshal(raw, &before)); before["form"] != float64(manifestForm) {
		t.Fatalf("got %s", raw)
	}
	w.with(func(j *Job) {
		before["form"] = 3
		raw, err = json.Marshal(before)
		must(t, errors.Join(err, os.WriteFile(root, raw, 0o600)))
		must(t, os.Remove(j.store.Path(manifestName)))
		_, _, err := j.seal(j.sealing())
		must(t, err)
	})
	if v := w.verified(plan.Source, proof.L1); !v.Verified() || v.Gone != 2 {
		t.Errorf("made anew: %v", v.Result)
	}
}

// A run that audits tells of each side how much it read to compare it: of a bucket that keeps
// hashes, nothing.
func TestWhatAnAuditingRunReadsIsCounted(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		w := between(t, drill.MirrorMirror, intoBucket)
		w.write("a", "one")
		w.write("b", "two")
		if res := w.whole(); res.Compared != [2]int64{} {
			t.Errorf("what was copied counts: %v", res.Compared)
		}
		want := [2]int64{2, 2}
		if intoBucket {
			want[plan.Dest] = 0
		}
		if res := w.sync(SyncOptions{Check: engine.CheckAudit}); res.Compared != want || res.Done[plan.Equal] != 2 {
			t.Errorf("into a bucket %v: read %v, want %v", intoBucket, res.Compared, want)
		}
	}
}

// What could not be read hides nothing that was edited.
func TestEditedIsCountedBesideWhatIsLost(t *testing.T) {
	a := Audited{Rotten: []Rot{{Key: "a", Lost: true}, {Key: "b"}}}
	a.Sides[plan.Dest].Verdict.Different.Count = 2
	if got := a.Edited(); got != 1 {
		t.Errorf("%d were edited", got)
	}
}
