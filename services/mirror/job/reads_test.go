package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// reader remembers which contents of a place were read, and when.
type reader struct {
	place.Place
	mu   *sync.Mutex
	now  func() time.Time
	last map[string]time.Time
	// bytes is what was read.
	bytes *int64
}

func (r reader) Open(ctx context.Context, e entry.Entry, off, n int64) (place.Content, error) {
	r.mu.Lock()
	r.last[e.Key()] = r.now()
	*r.bytes += e.Size
	r.mu.Unlock()
	return r.Place.Open(ctx, e, off, n)
}

// rolled is a mirror whose clock stands still, and that tells what is read.
type rolled struct {
	*world
	now   time.Time
	last  [2]map[string]time.Time
	bytes [2]int64
	mu    sync.Mutex
}

func rolledBetween(t testing.TB, mode string, intoBucket bool, files int) *rolled {
	t.Helper()
	r := &rolled{world: between(t, mode, intoBucket), now: time.Now().Add(time.Hour)}
	r.env.Now = func() time.Time { return r.now }
	for i := range files {
		r.write(fmt.Sprintf("d%d/%02d", i%3, i), strings.Repeat("x", 100+37*(i%11))+fmt.Sprint(i))
	}
	for side := range r.last {
		r.last[side] = map[string]time.Time{}
	}
	r.whole()
	return r
}

var bothSides = [...]plan.Side{plan.Source, plan.Dest}

// look verifies both sides, and sees to it that no more is said than what was read.
func (r *rolled) look(o VerifyOptions) (all [2]Verified) {
	r.Helper()
	r.with(func(j *Job) {
		for side := range j.places {
			j.places[side] = reader{j.places[side], &r.mu, r.env.Now, r.last[side], &r.bytes[side]}
		}
		got, err := j.VerifySides(r.Context(), bothSides[:], o)
		must(r, err)
		copy(all[:], got)
	})
	return all
}

// honest fails unless the verdict says of exactly the files that were not read within
// the period that they were not.
func (r *rolled) honest(v Verified, side plan.Side, files int) {
	r.Helper()
	fresh := 0
	for _, at := range r.last[side] {
		if r.now.Sub(at) <= DefaultPeriod {
			fresh++
		}
	}
	if low := v.Verdict.Low.Count; low != int64(files-fresh) || v.Verified() != (fresh == files) || (v.Verdict.Level == proof.L3) != (fresh == files) {
		r.Errorf("at %v, %v: %v: %d of %d were read within the period", r.now, side, v.Result, fresh, files)
	}
}

// Called once a day, each content is read about once in the period, and from the end
// of the first period on everything is always at L3.
func TestEverythingIsReadOncePerPeriod(t *testing.T) {
	const files = 60
	for _, c := range []struct {
		mode     string
		bucket   bool
		every    time.Duration
		most     float64 // of all, that is read in a period
		complete int     // calls
	}{
		{drill.MirrorMirror, false, 24 * time.Hour, 1.25, 30},
		{drill.MirrorMirror, true, 24 * time.Hour, 1.25, 30},
		{drill.MirrorTwoWay, true, 7 * 24 * time.Hour, 1.6, 5},
	} {
		r := rolledBetween(t, c.mode, c.bucket, files)
		start := r.now
		for call := range 3*c.complete + 1 {
			all := r.look(VerifyOptions{Level: proof.L3})
			for side, v := range all {
				r.honest(v, plan.Side(side), files)
				if call >= c.complete && !v.Verified() {
					t.Errorf("%v after %d calls: %v", plan.Side(side), call+1, v.Result)
				}
				if call == 0 && (v.Read == 0 || v.Read > files/10 || !strings.Contains(v.Verdict.Low.First[0].Detail, "never read")) {
					t.Errorf("the first call: %v: %+v", v.Result, v.Verdict.Low.First)
				}
			}
			r.now = r.now.Add(c.every + time.Minute)
		}
		var total int64
		for i := range files {
			total += int64(100 + 37*(i%11) + len(fmt.Sprint(i)))
		}
		periods := float64(r.now.Sub(start)) / float64(DefaultPeriod)
		for side, n := range r.bytes {
			if share := float64(n) / float64(total) / periods; share > c.most {
				t.Errorf("%+v: %v was read %.2f times in a period", c, plan.Side(side), share)
			}
		}
		// Two months later nothing counts, and everything is due.
		r.now = r.now.Add(2 * DefaultPeriod)
		for side, v := range r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}}) {
			r.honest(v, plan.Side(side), files)
			if v.Read != 1 || !strings.Contains(v.Verdict.Low.First[0].Detail, " days ago") {
				t.Errorf("after a pause: %v: %+v", v.Result, v.Verdict.Low.First)
			}
		}
		for _, v := range r.look(VerifyOptions{Level: proof.L3}) {
			if !v.Verified() || v.Read != files-1 {
				t.Errorf("after a pause: %v", v.Result)
			}
		}
	}
}

// A content that is most of what there is is read once in the period as well, and does
// not keep the others waiting.
func TestALargeContentIsNotReadEachTime(t *testing.T) {
	const period = 48 * time.Hour
	r := rolledBetween(t, drill.MirrorMirror, false, 20)
	r.write("a large one", strings.Repeat("large", 100_000))
	r.whole()
	times := map[plan.Side]int{}
	var before [2]int64
	for hour := range 120 {
		for side, v := range r.look(VerifyOptions{Level: proof.L3, Period: period}) {
			if r.bytes[side]-before[side] >= 500_000 {
				times[plan.Side(side)]++
			}
			before[side] = r.bytes[side]
			if hour > 48 && !v.Verified() {
				t.Errorf("after %d h: %v", hour, v.Result)
			}
		}
		r.now = r.now.Add(time.Hour)
	}
	if n := times[plan.Source]; n < 3 || n > 4 || times[plan.Dest] != n {
		t.Errorf("in 120 h, with a period of %v, the large one was read %v times", period, times)
	}
}

// What was read counts no more once it was touched or replaced, even by its like.
func TestWhatIsReplacedHasToBeReadAgain(t *testing.T) {
	const files = 9
	for _, c := range []struct {
		mode   string
		bucket bool
	}{{drill.MirrorMirror, false}, {drill.MirrorMirror, true}, {drill.MirrorTwoWay, true}} {
		r := rolledBetween(t, c.mode, c.bucket, files)
		if v := r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Percent: 100}}); !v[0].Verified() || !v[1].Verified() || v[1].Read != files {
			t.Fatalf("all: %v, %v", v[0].Result, v[1].Result)
		}
		r.now = r.now.Add(time.Hour)
		if v := r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}}); !v[1].Verified() || v[1].Read != 1 {
			t.Fatalf("untouched: %v", v[1].Result)
		}
		// The oldest one is read, and one that was touched; in a directory all of them,
		// as at any level.
		meant, low := int64(2), int64(1)
		for _, key := range []string{"d0/00", "d1/01"} {
			if c.bucket {
				client := enginetest.Client(t, r.bucket)
				raw, err := os.ReadFile(filepath.Join(r.from, key))
				must(t, err)
				was, err := client.StatObject(t.Context(), r.bucket.Bucket, key, minio.StatObjectOptions{})
				must(t, err)
				_, err = client.PutObject(t.Context(), r.bucket.Bucket, key, strings.NewReader(string(raw)), int64(len(raw)), minio.PutObjectOptions{UserMetadata: was.UserMetadata})
				must(t, err)
				continue
			}
			path := filepath.Join(r.to, key)
			st, err := os.Stat(path)
			must(t, err)
			raw, err := os.ReadFile(path)
			must(t, err)
			must(t, errors.Join(os.WriteFile(path, raw, 0o644), os.Chtimes(path, time.Time{}, st.ModTime())))
			meant, low = 3, 0
		}
		r.now = r.now.Add(time.Hour)
		v := r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}})[plan.Dest]
		if v.Read != meant || v.Verdict.Low.Count != low || v.Verified() != (low == 0) || v.Verdict.Different.Count > 0 {
			t.Errorf("%+v: replaced: %v: %+v", c, v.Result, v.Verdict.Low)
		}
		if low > 0 && v.Verdict.Low.First[0].Detail != "touched or replaced since it was read 2 hours ago" {
			t.Errorf("%+v: got %+v", c, v.Verdict.Low)
		}
		if v := r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}})[plan.Dest]; !v.Verified() {
			t.Errorf("%+v: read again: %v", c, v.Result)
		}
	}
}

// What was touched a moment before it was read may be touched again without a trace.
func TestWhatIsYoungDoesNotCountLater(t *testing.T) {
	const files = 4
	r := rolledBetween(t, drill.MirrorMirror, false, files)
	r.now = time.Time{}
	for i := range files {
		st, err := os.Stat(filepath.Join(r.to, fmt.Sprintf("d%d/%02d", i%3, i)))
		must(t, err)
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && time.Unix(sys.Ctim.Unix()).After(r.now) {
			r.now = time.Unix(sys.Ctim.Unix())
		}
	}
	all, little := VerifyOptions{Level: proof.L3, Read: verify.Amount{Percent: 100}}, VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}}
	if v := r.look(all)[plan.Dest]; !v.Verified() || v.Read != files {
		t.Errorf("all: %v", v.Result)
	}
	r.now = r.now.Add(time.Hour)
	v := r.look(little)[plan.Dest]
	if v.Verdict.Low.Count != files-1 || v.Read != 1 {
		t.Errorf("later: %v", v.Result)
	}
	for _, f := range v.Verdict.Low.First {
		if !strings.HasPrefix(f.Detail, "read 60 minutes ago, which does not count: it was written so shortly before") {
			t.Errorf("%q: %s", f.Key, f.Detail)
		}
	}
	if r.look(all); !r.look(little)[plan.Dest].Verified() {
		t.Error("what is young no more does not count either")
	}
	// A clock that was set back tells nothing, and is named.
	r.now = r.now.Add(-30 * time.Minute)
	v = r.look(little)[plan.Dest]
	if v.Verdict.Low.Count != files-1 || !strings.Contains(v.Verdict.Low.First[0].Detail, "the clock was set back") {
		t.Errorf("set back: %v: %+v", v.Result, v.Verdict.Low)
	}
}

// What was read and found rotten was read: nobody says that it was not.
func TestWhatWasReadInVainIsNotCalledUnread(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		r := rolledBetween(t, drill.MirrorMirror, intoBucket, 4)
		r.with(func(j *Job) {
			bad := &enginetest.Rotten{Place: j.places[plan.Dest]}
			bad.Rot("d0/00")
			bad.Rot("d1/01")
			j.places[plan.Dest] = bad
			_, err := j.Verify(t.Context(), plan.Dest, VerifyOptions{Level: proof.L4})
			must(t, err)
		})
		r.now = r.now.Add(3 * time.Hour)
		v := r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}})[plan.Dest]
		if v.Read != 1 || v.Verdict.Low.Count != 1 || v.Verdict.Low.First[0].Detail != "read 3 hours ago, which does not count: it was not what the manifest says, or could not be read" {
			t.Errorf("got %v: %+v", v.Result, v.Verdict.Low)
		}
	}
}

// What an L4 verify and an audit have read counts, and rot does not.
func TestOtherReadingsCountForL3(t *testing.T) {
	const files = 5
	for _, intoBucket := range []bool{false, true} {
		for _, how := range []string{"verify", "audit"} {
			r := rolledBetween(t, drill.MirrorMirror, intoBucket, files)
			r.with(func(j *Job) {
				bad := &enginetest.Rotten{Place: j.places[plan.Dest]}
				bad.Rot("d1/01")
				j.places[plan.Dest] = bad
				var err error
				if how == "audit" {
					_, err = j.Audit(t.Context(), AuditOptions{})
				} else {
					_, err = j.VerifySides(t.Context(), bothSides[:], VerifyOptions{Level: proof.L4})
				}
				must(t, err)
			})
			r.now = r.now.Add(DefaultPeriod / 2)
			all := r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}})
			for side, v := range all {
				if !v.Verified() || v.Read != 1 {
					t.Errorf("%s, %v: %v: %+v", how, plan.Side(side), v.Result, v.Verdict.Low)
				}
			}
			if len(r.last[plan.Dest]) != 1 || r.last[plan.Dest]["d1/01"].IsZero() {
				t.Errorf("%s: it did not read what had been found rotten, but %v", how, r.last[plan.Dest])
			}
		}
	}
}

// A call that is broken off keeps what it read; damaged readings are as good as none.
func TestReadingsOutliveTheCall(t *testing.T) {
	const files = 40
	r := rolledBetween(t, drill.MirrorMirror, false, files)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := 0
	all := VerifyOptions{Level: proof.L3, Read: verify.Amount{Percent: 100}, Parallel: 1}
	r.with(func(j *Job) {
		all := all
		all.Seen = func(_ plan.Side, e entry.Entry) {
			if seen++; seen == files/2 {
				cancel()
			}
		}
		if v, err := j.Verify(ctx, plan.Dest, all); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", v.Result, err)
		}
	})
	v := r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}})[plan.Dest]
	if n := v.Verdict.Low.Count; n > files/2+10 || n < files/4 {
		t.Errorf("%d are low after a call that was broken off in the middle: %v", n, v.Result)
	}
	if v := r.look(all)[plan.Dest]; !v.Verified() {
		t.Errorf("got %v", v.Result)
	}
	path := filepath.Join(r.env.StateDir, "m", "read-destination", "past")
	raw, err := os.ReadFile(path)
	must(t, err)
	raw[len(raw)/2] ^= 1
	must(t, os.WriteFile(path, raw, 0o600))
	v = r.look(VerifyOptions{Level: proof.L3, Read: verify.Amount{Bytes: 1}})[plan.Dest]
	if v.Read != 1 || v.Verdict.Low.Count != files-1 {
		t.Errorf("with damaged readings: %v", v.Result)
	}
}

// What is gone from the manifest is remembered no more, and what another place held
// under the same name never was.
func TestReadingsAreOfWhatIsThere(t *testing.T) {
	const files = 6
	r := rolledBetween(t, drill.MirrorMirror, false, files)
	all := VerifyOptions{Level: proof.L3, Read: verify.Amount{Percent: 100}}
	r.look(all)
	must(t, os.Remove(filepath.Join(r.from, "d0/00")))
	r.whole()
	r.look(all)
	count := func() (n int) {
		r.with(func(j *Job) {
			m, err := j.openReadings(plan.Dest)
			must(t, err)
			for _, err := range m.All() {
				must(t, err)
				n++
			}
			must(t, m.Close())
		})
		return n
	}
	if n := count(); n != files-1 {
		t.Errorf("%d are remembered", n)
	}
	r.with(func(j *Job) {
		m, err := j.openReadings(plan.Dest)
		must(t, err)
		m.facts.Place = "another"
		must(t, errors.Join(m.Save(readFactsName, m.facts), m.Close()))
	})
	if n := count(); n != 0 {
		t.Errorf("%d are remembered of another place", n)
	}
}
