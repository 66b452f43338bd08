package job

import (
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// swapped is a mirror that reaches its bucket with the policy of the README, so that it is not
// told when the bucket was made.
type swapped struct {
	*world
	account
	t *testing.T
	// root is the bucket as who may do everything reaches it.
	root *minio.Client
}

func newSwapped(t *testing.T, mode, user string, versions bool) *swapped {
	t.Helper()
	s := &swapped{world: between(t, mode, true), account: newAccount(t, user), t: t}
	s.bucket = server.Bucket(t, versions)
	s.mirror.To = "s3:lab/" + s.bucket.Bucket + "/p"
	s.root = enginetest.Client(t, s.bucket)
	p := leastPolicy(t, s.bucket.Bucket)
	p.Statement = append(p.Statement, statement{Effect: "Allow", Action: []string{"s3:GetBucketVersioning"}, Resource: []string{"arn:aws:s3:::" + s.bucket.Bucket}})
	s.allow(user, p)
	t.Setenv("SWAPPED_TEST_ID", user)
	t.Setenv("SWAPPED_TEST_SECRET", userSecret)
	keys := &s.env.Stores[0]
	keys.AccessKey, keys.SecretKey = &drill.SecretSource{Env: "SWAPPED_TEST_ID"}, &drill.SecretSource{Env: "SWAPPED_TEST_SECRET"}
	for i := range 40 {
		s.write(fmt.Sprintf("d%d/%02d", i%4, i), fmt.Sprint("content ", i))
	}
	return s
}

// swap puts another bucket in the place of the mirror's, with the first n files of it, as a
// copy brings them back.
func (s *swapped) swap(n int, versions bool) {
	s.t.Helper()
	ctx, c := s.t.Context(), s.bucket
	type object struct {
		key, content string
		meta         map[string]string
	}
	var all []object
	for o := range s.root.ListObjects(ctx, c.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(s.t, o.Err)
		r, err := s.root.GetObject(ctx, c.Bucket, o.Key, minio.GetObjectOptions{})
		must(s.t, err)
		st, err := r.Stat()
		must(s.t, err)
		raw, err := io.ReadAll(r)
		must(s.t, err)
		must(s.t, r.Close())
		all = append(all, object{o.Key, string(raw), st.UserMetadata})
	}
	must(s.t, s.root.RemoveBucketWithOptions(ctx, c.Bucket, minio.RemoveBucketOptions{ForceDelete: true}))
	must(s.t, s.root.MakeBucket(ctx, c.Bucket, minio.MakeBucketOptions{}))
	if versions {
		must(s.t, s.root.EnableVersioning(ctx, c.Bucket))
	}
	for i, o := range all {
		if i >= n && !strings.HasSuffix(o.key, "/") {
			continue
		}
		_, err := s.root.PutObject(ctx, c.Bucket, o.key, strings.NewReader(o.content), int64(len(o.content)), minio.PutObjectOptions{UserMetadata: o.meta})
		must(s.t, err)
	}
}

// objects are the bucket's, by key, with the times that it gave them.
func (s *swapped) objects() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for o := range s.root.ListObjects(s.t.Context(), s.bucket.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(s.t, o.Err)
		all[o.Key] = fmt.Sprint(o.ETag, o.LastModified)
	}
	return all
}

// refused makes a run that must refuse the bucket, and change nothing on either side.
func (s *swapped) refused(o SyncOptions) {
	s.t.Helper()
	source, dest := enginetest.Tree(s.t, s.from), s.objects()
	j, err := s.env.OpenRun(s.t.Context(), s.mirror, o.DryRun)
	must(s.t, err)
	res, err := j.Sync(s.t.Context(), o)
	must(s.t, j.Close(s.t.Context()))
	if err == nil {
		s.t.Fatalf("it is not refused: %+v", res.Report)
	}
	for _, word := range []string{"is not the place that the mirror was set up with", "--accept-places", "s3:ListAllMyBuckets"} {
		if !strings.Contains(err.Error(), word) {
			s.t.Errorf("it does not say %q: %v", word, err)
		}
	}
	if now := enginetest.Tree(s.t, s.from); !maps.Equal(now, source) {
		s.t.Errorf("the source holds %d, of %d", len(now), len(source))
	}
	if now := s.objects(); !maps.Equal(now, dest) {
		s.t.Errorf("the bucket was written to: %v", now)
	}
}

// Whoever may not list buckets is not told that another one was made under a name: it is told
// by what it holds before anything is believed, written or deleted.
func TestASwappedBucketIsNoticedWithTheLeastPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		mode     string
		versions bool
		left     int
		check    engine.Check
		runs     int
	}{
		"two-way, as an older copy restores it":      {drill.MirrorTwoWay, true, 33, engine.CheckAuto, 1},
		"two-way, long in use":                       {drill.MirrorTwoWay, true, 33, engine.CheckAuto, 3},
		"two-way, without versions":                  {drill.MirrorTwoWay, false, 33, engine.CheckAuto, 2},
		"one-way and empty, by what is remembered":   {drill.MirrorMirror, false, 0, engine.CheckState, 1},
		"one-way and empty, listed":                  {drill.MirrorMirror, false, 0, engine.CheckListing, 2},
		"a copy, restored, by what is remembered":    {drill.MirrorCopy, true, 33, engine.CheckState, 1},
		"one-way, audited, without a recent listing": {drill.MirrorMirror, false, 33, engine.CheckAudit, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwapped(t, c.mode, fmt.Sprintf("swapped-%d-%d-%d-%t", len(name), c.runs, c.check, c.versions), c.versions)
			if !c.versions {
				s.mirror.KeepDeleted = 3600e9
			}
			for range c.runs {
				s.whole()
			}
			s.swap(c.left, c.versions)
			s.refused(SyncOptions{Check: c.check})
			s.refused(SyncOptions{Check: c.check, DryRun: true})
			s.refused(SyncOptions{Check: c.check})
			// The same way out as with other places.
			if res := s.sync(SyncOptions{AcceptPlaces: true}); res.Failed > 0 {
				t.Errorf("accepted: %+v", res.Report)
			}
			s.sync(SyncOptions{Check: c.check})
			s.swap(c.left, c.versions)
			s.refused(SyncOptions{Check: c.check})
		})
	}
}

// What is remembered of the bucket is no hindrance to who goes on using it: it may be edited
// on both sides, cut off, and its age may come to be told.
func TestTheSameBucketIsKnownAgainWithTheLeastPolicy(t *testing.T) {
	s := newSwapped(t, drill.MirrorTwoWay, "known-again", true)
	s.whole()
	edit := func(i int) {
		for n := range 40 {
			s.write(fmt.Sprintf("d%d/%02d", n%4, n), fmt.Sprint("edit ", i, " of ", n))
		}
	}
	for i := range 3 { // each time all that is known is overwritten
		edit(i)
		s.whole()
	}
	// Others overwrite most of it.
	for n := range 39 {
		key, content := fmt.Sprintf("p/d%d/%02d", n%4, n), fmt.Sprint("theirs ", n)
		_, err := s.root.PutObject(t.Context(), s.bucket.Bucket, key, strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
		must(t, err)
	}
	s.whole()
	// A run that was cut off may have overwritten all that is known.
	edit(4)
	s.with(func(j *Job) {
		f, _, err := j.Facts()
		must(t, err)
		f.Unfinished = true
		must(t, j.store.Save(engine.FactsName, f))
	})
	for n := range 40 {
		key, content := fmt.Sprintf("p/d%d/%02d", n%4, n), fmt.Sprint("edit ", 4, " of ", n)
		_, err := s.root.PutObject(t.Context(), s.bucket.Bucket, key, strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
		must(t, err)
	}
	s.whole()
	// With the right that helps its age is known from then on.
	p := leastPolicy(t, s.bucket.Bucket)
	p.Statement = append(p.Statement, statement{Effect: "Allow", Action: []string{"s3:ListAllMyBuckets", "s3:GetBucketVersioning"}, Resource: []string{"arn:aws:s3:::*"}})
	s.allow("known-again-2", p)
	s.whole()
	s.with(func(j *Job) {
		f, _, err := j.Facts()
		must(t, err)
		if !strings.Contains(f.Identities[plan.Dest], "@") {
			t.Errorf("it is known as %q", f.Identities[plan.Dest])
		}
	})
}

// Where two ways nothing vouches for the bucket nothing is deleted at the source, and it is
// said why; the next run can tell.
func TestWithoutEvidenceNothingIsDeletedAtTheSource(t *testing.T) {
	s := newSwapped(t, drill.MirrorTwoWay, "no-evidence", true)
	s.whole()
	s.with(func(j *Job) { must(t, j.store.Remove(engine.WitnessesName)) }) // as after an upgrade
	must(t, s.root.RemoveObject(t.Context(), s.bucket.Bucket, "p/d0/00", minio.RemoveObjectOptions{}))
	before := enginetest.Tree(t, s.from)
	res := s.sync(SyncOptions{})
	if len(res.Refusals) != 1 || res.Refusals[0].Guard != plan.GuardIdentity || !strings.Contains(res.Refusals[0].String(), "s3:ListAllMyBuckets") {
		t.Errorf("got %v", res.Refusals)
	}
	if !maps.Equal(before, enginetest.Tree(t, s.from)) {
		t.Error("the source was changed")
	}
	if res := s.whole(); res.Done[plan.Delete] != 1 {
		t.Errorf("then: %+v", res.Report)
	}
}

// Who is told the bucket's age asks nothing more.
func TestTheAgeOfABucketNeedsNoEvidence(t *testing.T) {
	w := between(t, drill.MirrorTwoWay, true)
	w.write("a", "one")
	w.whole()
	var all [2]engine.Witnesses
	w.with(func(j *Job) {
		if known, err := j.store.Load(engine.WitnessesName, &all); known || err != nil {
			t.Errorf("it remembers %v: %v", all, err)
		}
	})
}
