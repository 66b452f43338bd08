package job

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
)

func TestWrongDescriptions(t *testing.T) {
	good := drill.Mirror{Name: "m", From: "dir:/a", To: "dir:/b"}
	for field, c := range map[string]struct {
		value string
		spoil func(*drill.Mirror)
	}{
		"from":       {"gopher", func(m *drill.Mirror) { m.From = "gopher://x" }},
		"to":         {"nowhere", func(m *drill.Mirror) { m.To = "nowhere" }},
		"mode":       {`"merge"`, func(m *drill.Mirror) { m.Mode = "merge" }},
		"overwrite":  {`"never"`, func(m *drill.Mirror) { m.Overwrite = "never" }},
		"overwrite ": {"only a copy", func(m *drill.Mirror) { m.Mode, m.Overwrite = drill.MirrorMirror, drill.OverwriteUnedited }},
		"permissions  ": {"edited", func(m *drill.Mirror) {
			m.Overwrite, m.Permissions = drill.OverwriteUnedited, []drill.Permission{{Match: "a"}}
		}},
		"filter":              {"*.tmp", func(m *drill.Mirror) { m.Filter = []string{"*.tmp"} }},
		"bytesPerSecond":      {"-1", func(m *drill.Mirror) { m.BytesPerSecond = -1 }},
		"deletes.most":        {"-5", func(m *drill.Mirror) { m.Deletes.Most = -5 }},
		"deletes.mostPercent": {"101", func(m *drill.Mirror) { m.Deletes.MostPercent = 101 }},
		"deletes.scans":       {"300", func(m *drill.Mirror) { m.Deletes.Scans = 300 }},
		"permissions[0].match": {"[x", func(m *drill.Mirror) {
			m.Permissions = []drill.Permission{{Match: "[x", Files: "0640"}}
		}},
		"permissions[1].files": {`"rw"`, func(m *drill.Mirror) {
			m.Permissions = []drill.Permission{{Match: "a"}, {Match: "b", Files: "rw"}}
		}},
		"permissions[0].dirs":  {`"99"`, func(m *drill.Mirror) { m.Permissions = []drill.Permission{{Match: "a", Dirs: "99"}} }},
		"permissions[0].owner": {"nobody-has-this", func(m *drill.Mirror) { m.Permissions = []drill.Permission{{Match: "a", Owner: "nobody-has-this"}} }},
		"permissions[0].group": {"no-such-group", func(m *drill.Mirror) { m.Permissions = []drill.Permission{{Match: "a", Group: "no-such-group"}} }},
		"to ":                  {"/a/b", func(m *drill.Mirror) { m.To = "dir:/a/b" }},
		"to  ":                 {"dataset", func(m *drill.Mirror) { m.To = "zfs:tank/x" }},
		"from ":                {"snapshot", func(m *drill.Mirror) { m.From, m.Mode = "zfs:tank/x", drill.MirrorTwoWay }},
		"permissions":          {"a bucket", func(m *drill.Mirror) { m.To, m.Permissions = "s3:lab/a-bucket", []drill.Permission{{Match: "a"}} }},
		"permissions[0].side":  {`"both"`, func(m *drill.Mirror) { m.Permissions = []drill.Permission{{Side: "both", Match: "a"}} }},
		"permissions[1].side": {"a bucket", func(m *drill.Mirror) {
			m.From, m.Permissions = "s3:lab/a-bucket", []drill.Permission{{Match: "a"}, {Side: drill.SideSource, Match: "a"}}
		}},
		"permissions[0].side ": {"a snapshot cannot be written to", func(m *drill.Mirror) {
			m.From, m.Permissions = "zfs:tank/a", []drill.Permission{{Side: drill.SideSource, Match: "a"}}
		}},
		"permissions[0].side  ": {"a two-way mirror carries", func(m *drill.Mirror) {
			m.Mode, m.Permissions = drill.MirrorTwoWay, []drill.Permission{{Side: drill.SideSource, Match: "a"}}
		}},
		"permissions ": {"a two-way mirror carries", func(m *drill.Mirror) { m.Mode, m.Permissions = drill.MirrorTwoWay, []drill.Permission{{Match: "a"}} }},
	} {
		m := good
		c.spoil(&m)
		_, err := newEnv(t).openJob(t.Context(), m, Looks)
		e, ok := errors.AsType[*SpecError](err)
		if !ok || !errors.Is(err, ErrSpec) || e.Field != strings.TrimSpace(field) || e.Mirror != "m" || !strings.Contains(e.Problem, c.value) || e.Fix == "" {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestPlacesMustBeApart(t *testing.T) {
	dir := t.TempDir()
	must(t, errors.Join(os.Mkdir(filepath.Join(dir, "in"), 0o755), os.Symlink(filepath.Join(dir, "in"), filepath.Join(dir, "link"))))
	other := t.TempDir()
	must(t, os.Symlink(dir, filepath.Join(other, "link")))
	env := withStore(t, newEnv(t))
	b := server.Bucket(t, false)
	again := env.Stores[0]
	again.Name = "alias"
	env.Stores = append(env.Stores, again)
	for _, m := range []drill.Mirror{
		{From: "dir:" + dir, To: "dir:" + other + "/link/in"},
		{From: "dir:" + dir + "/in", To: "dir:" + dir + "/link"},
		{From: "s3:lab/" + b.Bucket, To: "s3:alias/" + b.Bucket},
	} {
		if _, err := env.openJob(t.Context(), m, Runs); !errors.Is(err, ErrSpec) {
			t.Errorf("%s to %s: %v", m.From, m.To, err)
		}
	}
}

// The mirror's own state changes while it runs, and must not be deleted by it.
func TestTheStateIsNoPartOfWhatIsMirrored(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	for _, root := range []string{w.from, w.to} {
		w.env.StateDir = filepath.Join(root, "var", "state")
		w.mirror.Filter = nil
		_, err := w.env.openJob(t.Context(), w.mirror, Runs)
		if e, ok := errors.AsType[*SpecError](err); !ok || e.Field != "filter" || !strings.Contains(e.Fix, "- /var/state/m/") {
			t.Errorf("in %s: %v", root, err)
		}
		w.mirror.Filter = []string{"- /var/state/m/"}
		w.write("a", "x")
		w.whole()
	}
}

func TestWhoMayNameABucket(t *testing.T) {
	m := drill.Mirror{From: "dir:" + t.TempDir(), To: "s3+http://127.0.0.1:1/bucket"}
	if _, err := newEnv(t).openJob(t.Context(), m, Runs); err == nil || !strings.Contains(err.Error(), "add its store to the inventory") {
		t.Errorf("got %v", err)
	}
	m.To = "s3:unknown/bucket"
	if _, err := newEnv(t).openJob(t.Context(), m, Runs); err == nil || !strings.Contains(err.Error(), `no store "unknown"`) {
		t.Errorf("got %v", err)
	}
}

func TestOneAtATime(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.with(func(*Job) {
		_, err := w.env.openJob(t.Context(), w.mirror, Runs)
		if _, ok := errors.AsType[*state.LockedError](err); !ok {
			t.Errorf("a second one: %v", err)
		}
	})
}

func TestNothingIsKnownBeforeTheFirstRun(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.with(func(j *Job) {
		if _, err := j.Verify(t.Context(), plan.Dest, VerifyOptions{Level: proof.L4}); !errors.Is(err, ErrNothingKnown) {
			t.Errorf("verified before: %v", err)
		}
	})
}

func TestAMirrorWithoutANameHasOneOfItsOwn(t *testing.T) {
	m := between(t, drill.MirrorCopy, false).mirror
	m.Name = ""
	if a, b := AdHoc(m), AdHoc(drill.Mirror{From: m.To, To: m.From}); a == b || a != AdHoc(m) {
		t.Errorf("names %s and %s", a, b)
	}
}

func TestAnAlteredRootOrManifestIsRefused(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.write("a", "x")
	w.write("b", "y")
	w.whole()
	manifest, root := filepath.Join(w.env.StateDir, "m", manifestName), filepath.Join(w.env.StateDir, "m", rootName)
	other := between(t, drill.MirrorCopy, false)
	other.env.Signer = w.env.Signer
	other.write("z", "z")
	other.whole()
	read := func(path string) []byte {
		raw, err := os.ReadFile(path)
		must(t, err)
		return raw
	}
	otherDir := filepath.Join(other.env.StateDir, "m")
	goodManifest, goodRoot := read(manifest), read(root)
	var signed map[string]any
	must(t, json.Unmarshal(goodRoot, &signed))
	signed["subject"] = "mirror m: " + w.mirror.From + " to " + w.mirror.To + " at 2000-01-01T00:00:00Z"
	backdated, err := json.Marshal(signed)
	must(t, err)
	flipped := append([]byte(nil), goodManifest...)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		manifest, root []byte
		want           error
	}{
		"another time":                       {goodManifest, backdated, proof.ErrSignature},
		"a flipped bit":                      {flipped, goodRoot, proof.ErrCorrupt},
		"half a manifest":                    {goodManifest[:len(goodManifest)/2], goodRoot, proof.ErrCorrupt},
		"another manifest":                   {read(filepath.Join(otherDir, manifestName)), goodRoot, proof.ErrCorrupt},
		"another mirror's manifest and root": {read(filepath.Join(otherDir, manifestName)), read(filepath.Join(otherDir, rootName)), proof.ErrSignature},
	} {
		must(t, errors.Join(os.WriteFile(manifest, c.manifest, 0o600), os.WriteFile(root, c.root, 0o600)))
		w.with(func(j *Job) {
			v, err := j.Verify(t.Context(), plan.Dest, VerifyOptions{Level: proof.L4})
			if !errors.Is(err, c.want) || v.Verified() {
				t.Errorf("%s: %v, %v", name, v.Verdict, err)
			}
			if _, err := j.Root(); !errors.Is(err, c.want) && name != "a flipped bit" {
				t.Errorf("%s: its root: %v", name, err)
			}
		})
	}
	must(t, errors.Join(os.WriteFile(manifest, goodManifest, 0o600), os.WriteFile(root, goodRoot, 0o600)))
	if v := w.verified(plan.Dest, proof.L4); !v.Verified() {
		t.Errorf("put back: %v", v.Verdict)
	}
	// Somebody else's key vouches for nothing here, until a run signs anew.
	s := newSigner(t)
	w.env.Signer = func() (proof.Signer, error) { return s, nil }
	w.with(func(j *Job) {
		if _, err := j.Root(); !errors.Is(err, proof.ErrSignature) {
			t.Errorf("another key: %v", err)
		}
	})
	w.whole()
	if v := w.verified(plan.Dest, proof.L4); !v.Verified() {
		t.Errorf("signed anew: %v", v.Verdict)
	}
}

// What was committed and not sealed, as after a crash, is sealed by the next run
// although that has nothing to do.
func TestTheManifestIsNeverOlderThanTheRun(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.write("a", "x")
	first := w.whole().Root
	w.write("b", "y")
	broken := errors.New("the key is locked away")
	good := w.env.Signer
	w.env.Signer = func() (proof.Signer, error) { return nil, broken }
	w.with(func(j *Job) {
		if _, err := j.Sync(t.Context(), SyncOptions{}); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
	w.env.Signer = good
	res := w.whole()
	if res.Changed || res.Root == first || res.Root.Root.Entries != 2 {
		t.Errorf("got %+v", res)
	}
	if again := w.whole().Root; again != res.Root {
		t.Errorf("a run that changed nothing signed anew: %+v", again)
	}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if v := w.verified(side, proof.L4); !v.Verified() {
			t.Errorf("%s: %v", side, v.Verdict)
		}
	}
}

// decaying is a mirror whose places can be made to lie.
type decaying struct {
	*world
	rot [2]*enginetest.Rotten
}

// with opens the mirror with such places.
func (d *decaying) with(do func(*Job)) {
	d.Helper()
	d.world.with(func(j *Job) {
		for side := range j.places {
			if d.rot[side] == nil {
				d.rot[side] = &enginetest.Rotten{}
			}
			d.rot[side].Place = j.places[side]
			j.places[side] = d.rot[side]
		}
		do(j)
	})
}

// audit makes an audit, and gives, by side and key, what has rotted and whether it was
// repaired.
func (d *decaying) audit(o AuditOptions) (a Audited, rotten map[string]bool) {
	d.Helper()
	d.with(func(j *Job) {
		var err error
		a, err = j.Audit(d.Context(), o)
		must(d, err)
	})
	rotten = map[string]bool{}
	for _, r := range a.Rotten {
		rotten[r.Side.String()+" "+r.Key] = r.Repaired
	}
	return a, rotten
}

// rotLarge rots the large content of the destination.
func (d *decaying) rotLarge() {
	d.Helper()
	if d.bucket.Bucket != "" {
		server.Rot(d, d.bucket.Bucket, "d/large", "MARK")
	} else {
		d.rot[plan.Dest].Rot("d/large")
	}
}

// decayed is a mirror of four files: one has rotted in the source, one in the
// destination and one in both, and one was edited.
func decayed(t testing.TB, intoBucket bool) *decaying {
	t.Helper()
	d := &decaying{world: between(t, drill.MirrorMirror, intoBucket)}
	d.write("small", "a small content with a MARK in it")
	d.write("d/large", strings.Repeat("0123456789abcdef", 1<<15)+"MARK")
	d.write("edited", "before")
	d.write("both", "both MARK")
	must(t, os.Chmod(filepath.Join(d.from, "small"), 0o640))
	d.whole()
	d.write("edited", "after!")
	d.with(func(*Job) {})
	d.rot[plan.Source].Rot("small")
	d.rot[plan.Source].Rot("both")
	d.rot[plan.Dest].Rot("both")
	d.rotLarge()
	return d
}

func TestAuditFindsRot(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		a, rotten := decayed(t, intoBucket).audit(AuditOptions{})
		if len(rotten) != 4 || a.Clean() || rotten["source small"] || a.Contents != 4 || a.Checked != 0 {
			t.Errorf("found %v, and checked %d of %d", rotten, a.Checked, a.Contents)
		}
	}
}

// Without leave nothing is written into the source.
func TestAuditRepairsRotInTheDestination(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		a, rotten := decayed(t, intoBucket).audit(AuditOptions{Repair: true})
		if len(rotten) != 4 || rotten["source small"] || !rotten["destination d/large"] || a.Checked != 1 {
			t.Errorf("repaired %v: %+v", rotten, a.Rotten)
		}
		for _, r := range a.Rotten {
			if r.Key == "small" && !errors.Is(r.Err, ErrSourceKept) {
				t.Errorf("the source's: %v", r.Err)
			}
		}
	}
}

func TestAuditRepairsRotOnBothSides(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		d := decayed(t, intoBucket)
		a, rotten := d.audit(AuditOptions{Repair: true, RepairSource: true})
		if len(rotten) != 4 || !rotten["source small"] || !rotten["destination d/large"] || rotten["source both"] || rotten["destination both"] || a.Clean() {
			t.Fatalf("repaired %v: %+v", rotten, a.Rotten)
		}
		holds(t, d.from, "edited", "after!")
		if st, err := os.Stat(filepath.Join(d.from, "small")); err != nil || st.Mode().Perm() != 0o640 {
			t.Errorf("what was repaired: %v, %v", st, err)
		}
		if _, rotten := d.audit(AuditOptions{}); len(rotten) != 2 {
			t.Errorf("then found %v", rotten)
		}
		d.rot = [2]*enginetest.Rotten{}
		if res := d.whole(); res.Done[plan.Put] != 1 {
			t.Errorf("the run after it: %+v", res)
		}
		if a, rotten := d.audit(AuditOptions{}); !a.Clean() || len(rotten) != 0 || a.Contents != 4 || a.Checked != 4 {
			t.Errorf("at the end: %+v", a)
		}
	}
}

// An edit between the look and the repair is for a run to carry, not for a repair.
func TestRepairCopiesNoEdit(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("a", "the content")
	w.whole()
	w.with(func(j *Job) {
		r := &enginetest.Rotten{Place: j.places[plan.Source]}
		r.Rot("a")
		j.places[plan.Source] = r
		j.places[plan.Dest] = &meddler{Place: j.places[plan.Dest], do: func() { enginetest.Write(t, w.to, "a", "an edit, there") }}
		a, err := j.Audit(t.Context(), AuditOptions{Repair: true, RepairSource: true})
		must(t, err)
		if len(a.Rotten) != 1 || a.Rotten[0].Repaired || !errors.Is(a.Rotten[0].Err, place.ErrChanged) {
			t.Errorf("got %+v", a.Rotten)
		}
	})
	if raw, err := os.ReadFile(filepath.Join(w.from, "a")); err != nil || string(raw) != "the content" {
		t.Errorf("the source has %q, %v", raw, err)
	}
}

// meddler changes something when the place was looked through.
type meddler struct {
	place.Place
	do    func()
	opens int
}

func (m *meddler) Open(ctx context.Context, e entry.Entry, off, n int64) (place.Content, error) {
	if m.opens++; m.opens == 2 {
		m.do()
	}
	return m.Place.Open(ctx, e, off, n)
}

func TestPermissionRules(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.mirror.Permissions = []drill.Permission{
		{Match: "**", Files: "0640", Owner: "12345"},
		{Match: "/bin/**", Files: "0755"},
		{Match: "*/", Dirs: "2750", Group: "54321"},
	}
	w.write("a", "x")
	w.write("bin/tool", "x")
	must(t, os.Symlink("a", filepath.Join(w.from, "link")))
	enginetest.Write(t, w.to, "extra", "was there before")
	res := w.whole()
	if res.Mended[plan.Dest] == 0 {
		t.Error("what was there before was left as it was")
	}
	check := func() {
		t.Helper()
		tree := enginetest.Tree(t, w.to)
		for path, want := range map[string]string{
			"a": "100640 12345:0", "bin": "42750 12345:54321", "bin/tool": "100755 12345:", "extra": "100640 12345:0", "link": "link a",
		} {
			if !strings.HasPrefix(tree[path], want) {
				t.Errorf("%s is %q, want %q", path, tree[path], want)
			}
		}
	}
	check()
	if st, err := os.Stat(filepath.Join(w.from, "a")); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("the source: %v, %v", st, err)
	}
	for _, c := range []engine.Check{engine.CheckAuto, engine.CheckListing} {
		if res := w.sync(SyncOptions{Check: c}); res.Mended != [2]int64{} || res.Done[plan.Meta]+res.Done[plan.Put]+res.Done[plan.MakeDir] != 0 {
			t.Errorf("a run with nothing to do: %+v", res)
		}
	}
	must(t, os.Chmod(filepath.Join(w.to, "a"), 0o600))
	if res := w.whole(); res.Mended != [2]int64{plan.Dest: 1} {
		t.Errorf("somebody's chmod: %+v", res)
	}
	check()
	w.mirror.Permissions[0].Files = "0600" // another rule is enforced on what is there
	w.whole()
	if st, err := os.Stat(filepath.Join(w.to, "a")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("after another rule: %v, %v", st, err)
	}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		v := w.verified(side, proof.L4)
		if v.Verdict.Different.Count+v.Verdict.MetadataOnly.Count+v.Verdict.Missing.Count != 0 {
			t.Errorf("%s: %v", side, v.Verdict)
		}
	}
}

// A repair of the source leaves it the rights that it has, not those of the copy.
func TestRepairUnderPermissionRules(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.mirror.Permissions = []drill.Permission{{Match: "**", Files: "0640", Owner: "12345"}}
	w.write("a", "the content")
	w.whole()
	w.with(func(j *Job) {
		r := &enginetest.Rotten{Place: plainly(j.places[plan.Source])}
		r.Rot("a")
		j.places[plan.Source] = j.ruledBy(plan.Dest, r, nil)
		a, err := j.Audit(t.Context(), AuditOptions{Repair: true, RepairSource: true})
		must(t, err)
		if !a.Clean() || len(a.Rotten) != 1 {
			t.Errorf("got %+v", a)
		}
	})
	if got := enginetest.Tree(t, w.from)["a"]; !strings.HasPrefix(got, "100644 0:0") {
		t.Errorf("the source is %q", got)
	}
	if res := w.whole(); res.Done[plan.Equal] != 1 || len(res.Done) != 1 {
		t.Errorf("the next run: %+v", res)
	}
}

func TestADryRunLeavesTheManifest(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("a", "x")
	w.whole()
	w.write("b", "y")
	if res := w.sync(SyncOptions{DryRun: true}); res.Done[plan.Put] != 1 || res.Root.Root.Entries != 0 {
		t.Errorf("got %+v", res)
	}
	if v := w.verified(plan.Dest, proof.L4); !v.Verified() {
		t.Errorf("got %v", v.Verdict)
	}
}
