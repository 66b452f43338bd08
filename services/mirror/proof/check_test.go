package proof_test

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

func seq(list ...entry.Entry) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// file is an entry with the hashes that has names, of content that is its name.
func file(path string, has entry.Has) entry.Entry {
	e := entry.Entry{Path: path, Size: 9, Mode: 0o644, MTime: 1, Sum: entry.Sum{Has: has, CRC32C: uint32(path[0])}}
	e.Sum.BLAKE3[0] = path[0]
	e.Sum.ETag = "etag of " + path
	return e
}

const allSums = entry.HasBLAKE3 | entry.HasCRC32C | entry.HasETag

func check(t *testing.T, want, got iter.Seq2[entry.Entry, error], how proof.Evidence) proof.Verdict {
	t.Helper()
	v, err := proof.Check(want, got, how)
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return v
}

// Pain 7's cousin: a level that was not reached must not be shown to an auditor.
func TestTheLevelIsNeverMoreThanWhatWasChecked(t *testing.T) {
	order := []proof.Level{proof.LevelNone, proof.L1, proof.L2, proof.L3, proof.L4}
	worth := func(has entry.Has, most proof.Level) proof.Level {
		switch {
		case has&entry.HasBLAKE3 != 0 && most >= proof.L3:
			return most
		case has&entry.HasETag != 0 && most >= proof.L3:
			return most
		case has&entry.HasCRC32C != 0 && most >= proof.L2:
			return proof.L2
		case has&entry.HasETag != 0:
			return proof.L1
		}
		return proof.LevelNone
	}
	rapid.Check(t, func(t *rapid.T) {
		how := proof.Evidence{Level: rapid.SampledFrom(order[1:]).Draw(t, "evidence"), Metadata: rapid.Bool().Draw(t, "metadata")}
		var want, got []entry.Entry
		lowest := how.Level
		for _, name := range []string{"a", "b", "c"} {
			has := entry.Has(rapid.IntRange(0, 7).Draw(t, "has"))
			want = append(want, file(name, allSums))
			got = append(got, file(name, has))
			lowest = min(lowest, worth(has, how.Level))
		}
		v, err := proof.Check(seq(want...), seq(got...), how)
		if err != nil || v.Level != lowest {
			t.Fatalf("level %v, want %v: %v, %v", v.Level, lowest, v, err)
		}
		if v.Verified() != (lowest == how.Level) {
			t.Fatalf("verified %v at %v", v.Verified(), v.Level)
		}
	})
}

// What was asked for and not reached is no success, and is named.
func TestALowerLevelIsNoSuccess(t *testing.T) {
	want, got := file("a", allSums), file("a", entry.HasETag)
	v := check(t, seq(want), seq(got), proof.Evidence{Level: proof.L2})
	if v.Verified() || v.Level != proof.L1 || v.Low.Count != 1 || !strings.Contains(v.Low.First[0].Detail, "worth L1") ||
		!strings.Contains(v.String(), "NOT verified (L1 where L2 was asked for)") {
		t.Errorf("got %v: %+v", v, v.Low)
	}
	if l, detail := proof.Compare(want, got, proof.Evidence{Level: proof.L2, Vouched: true}); l != proof.L2 || detail != "" {
		t.Errorf("read here: %v, %s", l, detail)
	}
	v = check(t, seq(file("a", 0)), seq(got), proof.Evidence{Level: proof.L1})
	if v.Verified() || v.Unchecked.Count != 1 || !strings.Contains(v.Unchecked.First[0].Detail, "no run has read it") {
		t.Errorf("never read: %v: %+v", v, v.Unchecked)
	}
}

func TestEqualRootsAloneAreNotCalledVerified(t *testing.T) {
	_, root := write(t, []entry.Entry{file("a", allSums)})
	v := proof.CheckRoots(root, root)
	if v.Level != proof.L0 || v.Verified() || !strings.Contains(v.String(), "NOT verified (L0)") {
		t.Errorf("got %v", v)
	}
	if v := proof.CheckRoots(root, proof.Root{}); v.Level != proof.LevelNone || v.Verified() {
		t.Errorf("unequal roots: %v", v)
	}
	if (proof.Verdict{}).Verified() {
		t.Error("a verdict of nothing is verified")
	}
}

func TestCheckFindsWhatDiffers(t *testing.T) {
	altered := func(path string, alter func(*entry.Entry)) entry.Entry {
		e := file(path, allSums)
		alter(&e)
		return e
	}
	dir := entry.Entry{Path: "d", Kind: entry.Dir, Mode: 0o755, MTime: 1}
	later := dir
	later.MTime = 2
	link := entry.Entry{Path: "l", Kind: entry.Symlink, Target: "target", Size: 6}
	want := []entry.Entry{file("a", allSums), file("b", allSums), dir, link}
	type counts struct{ missing, extra, different, metadata, unchecked int64 }
	for name, c := range map[string]struct {
		got      []entry.Entry
		want     counts
		verified bool
	}{
		"nothing":    {[]entry.Entry{want[0], want[1], later, want[3]}, counts{}, true},
		"missing":    {[]entry.Entry{want[0], want[2], want[3]}, counts{missing: 1}, false},
		"all":        {nil, counts{missing: 4}, false},
		"extra":      {[]entry.Entry{want[0], want[1], file("c", 0), want[2], want[3], file("z", 0)}, counts{extra: 2}, false},
		"size":       {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.Size = 8 }), want[2], want[3]}, counts{different: 1}, false},
		"content":    {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.Sum.BLAKE3[9] = 1 }), want[2], want[3]}, counts{different: 1}, false},
		"crc":        {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.Sum.CRC32C++ }), want[2], want[3]}, counts{different: 1}, false},
		"etag":       {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.Sum.ETag = "x" }), want[2], want[3]}, counts{different: 1}, false},
		"kind":       {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.Kind = entry.Fifo }), want[2], want[3]}, counts{different: 1}, false},
		"target":     {[]entry.Entry{want[0], want[1], want[2], {Path: "l", Kind: entry.Symlink, Target: "terget", Size: 6}}, counts{different: 1}, false},
		"mode":       {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.Mode = 0 }), want[2], want[3]}, counts{metadata: 1}, true},
		"owner":      {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.GID = 5 }), want[2], want[3]}, counts{metadata: 1}, true},
		"time":       {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.MTime = 5 }), want[2], want[3]}, counts{metadata: 1}, true},
		"attributes": {[]entry.Entry{want[0], altered("b", func(e *entry.Entry) { e.Xattrs = map[string][]byte{"x": nil} }), want[2], want[3]}, counts{metadata: 1}, true},
		"no hash":    {[]entry.Entry{want[0], file("b", 0), want[2], want[3]}, counts{unchecked: 1}, false},
	} {
		v := check(t, seq(want...), seq(c.got...), proof.Evidence{Level: proof.L4, Metadata: true})
		got := counts{v.Missing.Count, v.Extra.Count, v.Different.Count, v.MetadataOnly.Count, v.Unchecked.Count}
		if got != c.want || v.Verified() != c.verified {
			t.Errorf("%s: got %+v (%v), want %+v", name, got, v, c.want)
		}
		for _, f := range []proof.Findings{v.Missing, v.Extra, v.Different, v.MetadataOnly} {
			if f.Count != int64(len(f.First)) {
				t.Errorf("%s: %d findings, %d kept", name, f.Count, len(f.First))
			}
		}
	}
}

// A listing knows neither kinds nor targets, and its ETags are enough for L1.
func TestAListingWithoutMetadataReachesL1(t *testing.T) {
	link := entry.Entry{Path: "l", Kind: entry.Symlink, Target: "target", Size: 6}
	listed := func(body string) entry.Entry {
		sum := md5.Sum([]byte(body))
		return entry.Entry{Path: "l", Size: int64(len(body)), Sum: entry.Sum{Has: entry.HasETag, ETag: hex.EncodeToString(sum[:])}}
	}
	v := check(t, seq(link), seq(listed("target")), proof.Evidence{Level: proof.L1})
	if !v.Verified() || v.Level != proof.L1 {
		t.Errorf("got %v", v)
	}
	if v := check(t, seq(link), seq(listed("terget")), proof.Evidence{Level: proof.L1}); v.Verified() || v.Different.Count != 1 {
		t.Errorf("another target: %v", v)
	}
}

// Pain 5 (rclone#523): ETags of parts.
func TestETagsOfPartsSayNothingWithoutThePartSizePain5(t *testing.T) {
	parts := func(etag string, size int64) entry.Entry {
		e := entry.Entry{Path: "a", Sum: entry.Sum{Has: entry.HasETag, ETag: etag}}
		if size > 0 {
			e.Sum.Has, e.Sum.PartSize = e.Sum.Has|entry.HasPartSize, size
		}
		return e
	}
	for _, c := range []struct {
		want, got            entry.Entry
		different, unchecked int64
	}{
		{parts("x-2", 16), parts("x-2", 0), 0, 0},
		{parts("x-2", 16), parts("y-2", 0), 0, 1},
		{parts("x-2", 16), parts("y-3", 8), 0, 1},
		{parts("x-2", 16), parts("y-2", 16), 1, 0},
		{parts("x", 0), parts("y", 0), 1, 0},
	} {
		v := check(t, seq(c.want), seq(c.got), proof.Evidence{Level: proof.L1})
		if v.Different.Count != c.different || v.Unchecked.Count != c.unchecked || v.Verified() != (c.different+c.unchecked == 0) {
			t.Errorf("%+v, %+v: %v", c.want.Sum, c.got.Sum, v)
		}
	}
}

// An incomplete listing proves nothing, whatever it showed before it broke off.
func TestAnErrorLeavesNoLevel(t *testing.T) {
	broken := func(yield func(entry.Entry, error) bool) {
		if yield(file("a", allSums), nil) {
			yield(entry.Entry{}, errors.New("connection reset"))
		}
	}
	a := file("a", allSums)
	for name, c := range map[string][2]iter.Seq2[entry.Entry, error]{
		"manifest": {broken, seq(a)}, "location": {seq(a), broken}, "order": {seq(a, file("b", 0)), seq(file("b", 0), a)},
	} {
		v, err := proof.Check(c[0], c[1], proof.Evidence{Level: proof.L4})
		if err == nil || v.Level != proof.LevelNone || v.Verified() {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	for _, l := range []proof.Level{proof.LevelNone, proof.L0, 99} {
		if _, err := proof.Check(seq(a), seq(a), proof.Evidence{Level: l}); err == nil {
			t.Errorf("%v passes for evidence", l)
		}
	}
}

// That there was nothing to compare proves nothing, and is said.
func TestOfAnEmptyManifestNothingIsChecked(t *testing.T) {
	v := check(t, seq(), seq(), proof.Evidence{Level: proof.L4})
	if v.Level != proof.LevelNone || v.Verified() || !v.Nothing() || v.String() != "INCONCLUSIVE: nothing was checked" {
		t.Errorf("got %v", v)
	}
	if v := check(t, seq(), seq(file("a", 0)), proof.Evidence{Level: proof.L1}); v.Nothing() || v.Extra.Count != 1 {
		t.Errorf("with something extra: %v", v)
	}
	if v := check(t, seq(file("a", 0)), seq(), proof.Evidence{Level: proof.L1}); v.Nothing() || v.Missing.Count != 1 || v.Verified() {
		t.Errorf("with everything missing: %v", v)
	}
}

func TestVerdictsNameTheirLevelInJSON(t *testing.T) {
	raw, err := json.Marshal(proof.Verdict{Level: proof.L2})
	if err != nil || !strings.Contains(string(raw), `"level":"L2"`) {
		t.Errorf("got %s, %v", raw, err)
	}
}

func TestFindingsAreCountedBeyondThoseThatAreKept(t *testing.T) {
	v := check(t, seq(bigTree(3000)...), seq(), proof.Evidence{Level: proof.L1})
	if v.Missing.Count != 3000 || len(v.Missing.First) != 1000 {
		t.Errorf("%d counted, %d kept", v.Missing.Count, len(v.Missing.First))
	}
}

var _ proof.Signer = event.Signer(nil)

func TestRootsAreSigned(t *testing.T) {
	_, root := write(t, []entry.Entry{file("a", allSums)})
	signer, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := proof.Sign(root, "bucket x, drill 7", signer)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	var back proof.Signed
	if err := json.Unmarshal(raw, &back); err != nil || back != signed {
		t.Fatalf("through JSON: %+v, %v", back, err)
	}
	trusted := func(public string) bool { return public == signer.Public() }
	if err := back.Verify(root, "bucket x, drill 7", trusted); err != nil {
		t.Errorf("the good one: %v", err)
	}
	other, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	otherRoot := root
	otherRoot.Entries++
	for name, forge := range map[string]func(s *proof.Signed) (proof.Root, string, func(string) bool){
		"root": func(s *proof.Signed) (proof.Root, string, func(string) bool) {
			s.Root = otherRoot
			return otherRoot, s.Subject, trusted
		},
		"replayed": func(s *proof.Signed) (proof.Root, string, func(string) bool) { return otherRoot, s.Subject, trusted },
		"subject": func(s *proof.Signed) (proof.Root, string, func(string) bool) {
			s.Subject = "y"
			return root, "y", trusted
		},
		"elsewhere": func(s *proof.Signed) (proof.Root, string, func(string) bool) { return root, "y", trusted },
		"nobody": func(s *proof.Signed) (proof.Root, string, func(string) bool) {
			return root, s.Subject, func(string) bool { return false }
		},
		"signer": func(s *proof.Signed) (proof.Root, string, func(string) bool) {
			s.Signer = other.Public()
			return root, s.Subject, func(string) bool { return true }
		},
		"no key": func(s *proof.Signed) (proof.Root, string, func(string) bool) {
			s.Signer = ""
			return root, s.Subject, func(string) bool { return true }
		},
		"signature": func(s *proof.Signed) (proof.Root, string, func(string) bool) {
			s.Signature = strings.Repeat("A", len(s.Signature))
			return root, s.Subject, trusted
		},
		"short": func(s *proof.Signed) (proof.Root, string, func(string) bool) {
			s.Signature = s.Signature[:40]
			return root, s.Subject, trusted
		},
	} {
		bad := signed
		root, subject, may := forge(&bad)
		if err := bad.Verify(root, subject, may); !errors.Is(err, proof.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type broken struct{ proof.Signer }

func (broken) Sign([]byte) ([]byte, error) { return []byte("short"), nil }

func TestASignerThatSignsNothingIsFound(t *testing.T) {
	signer, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proof.Sign(proof.Root{}, "x", broken{signer}); err == nil {
		t.Error("a short signature is accepted")
	}
	if _, err := proof.Sign(proof.Root{}, "\xff", signer); !errors.Is(err, proof.ErrSignature) {
		t.Errorf("a subject that JSON would change: %v", err)
	}
}

// An entry of which less is known than of the others holds the level of all down, and
// says why.
func TestLessIsKnownOfSome(t *testing.T) {
	all := []entry.Entry{file("a", allSums), file("b", allSums), file("c", allSums)}
	less := map[string]string{"b": "read 40 days ago"}
	how := proof.Evidence{Level: proof.L3, Vouched: true, Less: func(key string) (proof.Level, bool, string) {
		return proof.L1, false, less[key]
	}}
	v := check(t, seq(all...), seq(all...), how)
	if v.Verified() || v.Level != proof.L1 || v.At[proof.L3] != 2 || v.At[proof.L1] != 1 || v.Low.Count != 1 || v.Low.First[0] != (proof.Finding{Key: "b", Detail: "read 40 days ago"}) {
		t.Errorf("got %+v", v)
	}
	// A BLAKE3 that nobody vouches for shows nothing.
	some := []entry.Entry{all[0], file("b", entry.HasBLAKE3), all[2]}
	if v := check(t, seq(all...), seq(some...), how); v.Unchecked.Count != 1 || v.Low.Count != 0 || v.Level != proof.LevelNone {
		t.Errorf("unvouched: got %+v", v)
	}
	delete(less, "b")
	if v := check(t, seq(all...), seq(all...), how); !v.Verified() || v.Level != proof.L3 {
		t.Errorf("all at L3: got %+v", v)
	}
}
