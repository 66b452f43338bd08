package job

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// uploads is a source as FTP and people leave it, and its rules.
func uploads(t *testing.T, intoBucket bool) *world {
	w := between(t, drill.MirrorMirror, intoBucket)
	for _, path := range []string{"a", "in/b", "in/deep/c", "keep/d.key"} {
		w.write(path, "the content of "+path)
	}
	must(t, errors.Join(os.Chmod(filepath.Join(w.from, "a"), 0o604), os.Chmod(filepath.Join(w.from, "in"), 0o700), os.Symlink("a", filepath.Join(w.from, "link"))))
	w.mirror.Permissions = []drill.Permission{
		{Side: drill.SideSource, Match: "**", Files: "0640", Dirs: "2750", Owner: "12345", Group: "54321"},
		{Side: drill.SideSource, Match: "*.key", Files: "0600"},
	}
	return w
}

// rights are the modes and owners of a directory's entries, but for links.
func rights(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		out[strings.TrimPrefix(path, dir+"/")] = fmt.Sprintf("%04o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
		return err
	}))
	return out
}

// ruledUploads is what the rules make of uploads.
var ruledUploads = map[string]string{
	"a": "0640 12345:54321", "in": "2750 12345:54321", "in/b": "0640 12345:54321", "in/deep": "2750 12345:54321",
	"in/deep/c": "0640 12345:54321", "keep": "2750 12345:54321", "keep/d.key": "0600 12345:54321",
}

// reread makes a run, and counts the bytes of content that it read.
func (w *world) reread(o SyncOptions) (res Result, n int64) {
	w.Helper()
	j, err := w.env.OpenRun(w.Context(), w.mirror, o.DryRun)
	must(w, err)
	var read atomic.Int64
	worker := j.Worker()
	worker.Read = func(n int) { read.Add(int64(n)) }
	o.Pool = engine.Local{Worker: worker}
	res, err = j.Sync(w.Context(), o)
	must(w, errors.Join(err, j.Close(w.Context())))
	return res, read.Load()
}

// nothing fails unless a run has nothing to do, and reads nothing to know that.
func (w *world) nothing(o SyncOptions) {
	w.Helper()
	res, n := w.reread(o)
	if !res.Whole() || n > 0 || res.Mended != [2]int64{} || res.Done[plan.Equal] != res.Seen[plan.Source] || len(res.Done) != 1 {
		w.Errorf("a run with nothing to do (%v) read %d bytes: %+v", o.Check, n, res)
	}
}

// asLeft fails if a side is not as the last run left it, its attributes included.
func (w *world) asLeft() {
	w.Helper()
	for _, side := range bothSides {
		for _, level := range []proof.Level{proof.L1, proof.L4} {
			if v := w.verified(side, level); !v.Verified() || v.Verdict.MetadataOnly.Count+v.Verdict.Missing.Count+v.Verdict.Extra.Count > 0 {
				w.Errorf("the %s at %v: %v", side, level, v.Verdict)
			}
		}
	}
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s:\n%v, want\n%v", what, got, want)
	}
}

// One run leaves both sides as the source's rules want the source, and the next ones find
// nothing to do: neither is anything copied anew nor read, and nothing has drifted.
func TestRulesForTheSource(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		w := uploads(t, intoBucket)
		if res := w.whole(); res.Mended != [2]int64{plan.Source: 7} || res.Done[plan.Meta] != 0 {
			t.Errorf("the first run: %+v", res)
		}
		same(t, "the source", rights(t, w.from), ruledUploads)
		if !intoBucket {
			same(t, "the copy", rights(t, w.to), ruledUploads)
		}
		w.asLeft()
		for _, check := range []engine.Check{engine.CheckAuto, engine.CheckState, engine.CheckListing} {
			w.nothing(SyncOptions{Check: check})
		}

		// What others set, and what is new.
		must(t, errors.Join(os.Chmod(filepath.Join(w.from, "a"), 0o777), os.Chown(filepath.Join(w.from, "keep/d.key"), 1, 2)))
		w.write("in/new", "x")
		if res := w.whole(); res.Mended != [2]int64{plan.Source: 3} || res.Done[plan.Put] != 1 || res.Done[plan.Meta] != 0 {
			t.Errorf("after a chmod: %+v", res)
		}
		want := maps.Clone(ruledUploads)
		want["in/new"] = "0640 12345:54321"
		same(t, "the source", rights(t, w.from), want)
		w.asLeft()
		w.nothing(SyncOptions{})

		// Other rules are attributes for the copy, and no content.
		w.mirror.Permissions[0].Files = "0644"
		if res, n := w.reread(SyncOptions{}); !res.Whole() || n > 0 || res.Mended != [2]int64{plan.Source: 4} || res.Done[plan.Put] != 0 || res.Done[plan.Meta] != 4 {
			t.Errorf("by other rules %d bytes were read: %+v", n, res)
		}
		w.asLeft()
		w.nothing(SyncOptions{Check: engine.CheckListing})

		// Without rules all stays, and is nobody's drift.
		w.mirror.Permissions = nil
		w.asLeft()
		w.nothing(SyncOptions{})
	}
}

// Rules for both sides go by the order of the work: the copy begins with what the source's
// make of it.
func TestRulesForBothSides(t *testing.T) {
	w := uploads(t, false)
	w.mirror.Permissions = append(w.mirror.Permissions, drill.Permission{Match: "*", Files: "0444"}, drill.Permission{Side: drill.SideDestination, Match: "/in/?", Owner: "7"})
	w.whole()
	same(t, "the source", rights(t, w.from), ruledUploads)
	same(t, "the copy", rights(t, w.to), map[string]string{
		"a": "0444 12345:54321", "in": "2750 12345:54321", "in/b": "0444 7:54321", "in/deep": "2750 12345:54321",
		"in/deep/c": "0444 12345:54321", "keep": "2750 12345:54321", "keep/d.key": "0444 12345:54321",
	})
	w.asLeft()
	w.nothing(SyncOptions{})
	w.nothing(SyncOptions{Check: engine.CheckListing})
}

// Files that are one have one mode, and cost one look more.
func TestRulesForFilesOfTwoNames(t *testing.T) {
	w := uploads(t, false)
	must(t, os.Link(filepath.Join(w.from, "a"), filepath.Join(w.from, "b")))
	if res := w.whole(); res.Mended[plan.Source] != 7 {
		t.Errorf("got %+v", res.Mended)
	}
	if got := rights(t, w.from); got["b"] != got["a"] || got["a"] != ruledUploads["a"] {
		t.Errorf("got %v", got)
	}
	w.asLeft()
	w.whole() // which reads it once more
	w.nothing(SyncOptions{})
}

// meddled is a source that somebody edits before, or while, permissions are set.
type meddled struct {
	place.Place
	walks  int
	before func() // the second walk, which is that of the rules
	amid   func(path string)
}

func (e *meddled) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	if e.walks++; e.walks == 2 && e.before != nil {
		e.before()
	}
	return e.Place.Entries(ctx, o)
}

// SetRights implements place.Righter.
func (e *meddled) SetRights(ctx context.Context, want, have entry.Entry) (entry.Entry, error) {
	if e.amid != nil {
		e.amid(have.Path)
	}
	return e.Place.(place.Righter).SetRights(ctx, want, have)
}

// MaySetRights implements place.Righter.
func (e *meddled) MaySetRights(want, have entry.Entry) error {
	return e.Place.(place.Righter).MaySetRights(want, have)
}

// An edit that the setting of permissions might hide, as it moves the file's times, too, is
// carried by the next run.
func TestNoEditIsLostToRules(t *testing.T) {
	for _, amid := range []bool{false, true} {
		w := uploads(t, false)
		path := filepath.Join(w.from, "a")
		st, err := os.Stat(path)
		must(t, err)
		edit := func() {
			enginetest.Write(t, w.from, "a", "the CONTENT of a")
			must(t, os.Chtimes(path, st.ModTime(), st.ModTime())) // as rsync -t does
		}
		j, err := w.env.OpenRun(t.Context(), w.mirror, false)
		must(t, err)
		e := &meddled{Place: j.places[plan.Source], before: edit}
		if amid {
			e.before, e.amid = nil, func(path string) {
				if path == "a" {
					edit()
					e.amid = nil
				}
			}
		}
		j.places[plan.Source] = e
		res, err := j.Sync(t.Context(), SyncOptions{})
		must(t, errors.Join(err, j.Close(t.Context())))
		if !res.Whole() || e.walks != 2 {
			t.Errorf("after %d walks: %+v", e.walks, res)
		}
		same(t, "the source", rights(t, w.from), ruledUploads)
		if res := w.whole(); res.Done[plan.Put] != 1 {
			t.Errorf("the edit (amid %t) was not carried: %+v", amid, res)
		}
		if got := enginetest.Tree(t, w.to)["a"]; got != enginetest.Tree(t, w.from)["a"] {
			t.Errorf("the copy is %q", got)
		}
	}
}

// Where nothing is to be set the source is walked once.
func TestRulesThatAreKeptCostNoWalk(t *testing.T) {
	w := uploads(t, false)
	w.whole()
	j, err := w.env.OpenRun(t.Context(), w.mirror, false)
	must(t, err)
	e := &meddled{Place: j.places[plan.Source]}
	j.places[plan.Source] = e
	_, err = j.Sync(t.Context(), SyncOptions{})
	must(t, errors.Join(err, j.Close(t.Context())))
	if e.walks != 1 {
		t.Errorf("it was walked %d times", e.walks)
	}
}

// A dry run names what would be set, and sets nothing.
func TestADryRunNamesWhatRulesWouldSet(t *testing.T) {
	w := uploads(t, true)
	before := rights(t, w.from)
	named := map[string]string{}
	res := w.sync(SyncOptions{DryRun: true, Each: func(d engine.Done) {
		if a := d.Action; a.To == plan.Source {
			named[a.Source.Path] = fmt.Sprintf("%v %04o %d:%d", a.Op, a.Dest.Mode, a.Dest.UID, a.Dest.GID)
		}
	}})
	want := map[string]string{}
	for path, r := range ruledUploads {
		want[path] = "meta " + r
	}
	same(t, "named", named, want)
	same(t, "the source", rights(t, w.from), before)
	if res.Mended != [2]int64{plan.Source: 7} || !res.Whole() {
		t.Errorf("got %+v", res)
	}
}

// Rules touch nothing where the source may not be what they were written for.
func TestRulesWaitForTheRightSource(t *testing.T) {
	fresh := func() (*world, string) {
		w := uploads(t, false)
		w.whole()
		must(t, os.Chmod(filepath.Join(w.from, "in"), 0o701))
		return w, filepath.Join(w.from, "in")
	}
	kept := func(what, path string) {
		t.Helper()
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o701 {
			t.Errorf("%s: %v, %v", what, st.Mode(), err)
		}
	}
	w, _ := fresh()
	must(t, os.Rename(w.from, w.from+"-away"))
	must(t, os.MkdirAll(filepath.Join(w.from, "theirs"), 0o755))
	must(t, os.Chmod(filepath.Join(w.from, "theirs"), 0o701))
	for _, dry := range []bool{false, true} {
		j, err := w.env.OpenRun(t.Context(), w.mirror, dry)
		must(t, err)
		_, err = j.Sync(t.Context(), SyncOptions{DryRun: dry})
		if must(t, j.Close(t.Context())); !errors.Is(err, engine.ErrJob) || !strings.Contains(err.Error(), "not the place that the mirror was set up with") {
			t.Errorf("another source: %v", err)
		}
	}
	kept("another source", filepath.Join(w.from, "theirs"))
	if res := w.sync(SyncOptions{AcceptPlaces: true}); res.Failed > 0 && !strings.Contains(res.Failures[0].Err.Error(), "holds no file") {
		t.Errorf("accepted: %+v", res)
	}

	w, in := fresh()
	for _, path := range []string{"a", "link", "in/b", "in/deep", "keep"} {
		must(t, os.RemoveAll(filepath.Join(w.from, path)))
	}
	res := w.sync(SyncOptions{})
	if res.Whole() || res.Failed != 1 || res.Failures[0].Key != rootKey || !errors.Is(res.Failures[0].Err, errEmpty) || res.Mended != [2]int64{} {
		t.Errorf("an empty source: %+v", res)
	}
	kept("an empty source", in)

	w, in = fresh()
	j, err := w.env.OpenRun(t.Context(), w.mirror, false)
	must(t, err)
	j.places[plan.Source] = faulty{j.places[plan.Source]}
	res, err = j.Sync(t.Context(), SyncOptions{})
	must(t, errors.Join(err, j.Close(t.Context())))
	if res.Failed != 1 || !errors.Is(res.Failures[0].Err, errUnseen) || res.Mended != [2]int64{} {
		t.Errorf("a source that is not seen in full: %+v", res)
	}
	kept("a source that is not seen in full", in)
}

// faulty is a place of which something cannot be listed.
type faulty struct{ place.Place }

func (f faulty) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for e, err := range f.Place.Entries(ctx, o) {
			if !yield(e, err) {
				return
			}
		}
		yield(entry.Entry{}, errors.New("a bad sector"))
	}
}

// What cannot be set is told each time, and hides nothing else.
func TestRulesThatCannotBeFollowed(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("theirs", "x")
	w.write("mine", "x")
	must(t, os.Chown(filepath.Join(w.from, "mine"), 65534, 65534))
	w.mirror.Permissions = []drill.Permission{{Side: drill.SideSource, Match: "*", Files: "0640"}}
	for i, dry := range []bool{true, false, false} {
		j, err := w.env.OpenRun(t.Context(), w.mirror, dry)
		must(t, err)
		j.places[plan.Source] = nobodys{j.places[plan.Source], t}
		told := map[string]error{}
		res, err := j.Sync(t.Context(), SyncOptions{DryRun: dry, Each: func(d engine.Done) {
			if d.Action.Op == plan.Meta {
				told[d.Action.Key] = d.Err
			}
		}})
		must(t, errors.Join(err, j.Close(t.Context())))
		if res.Whole() || res.Failed != 1 || res.Failures[0].Key != "theirs" || !errors.Is(res.Failures[0].Err, unix.EPERM) || !dry && !strings.Contains(res.Failures[0].Err.Error(), "as the owner or root") ||
			i < 2 && res.Mended != [2]int64{plan.Source: 1} {
			t.Errorf("got %+v", res)
		}
		if dry && (len(told) != 2 || told["mine"] != nil || !errors.Is(told["theirs"], unix.EPERM)) {
			t.Errorf("a dry run tells %v", told)
		}
	}
	same(t, "the source", rights(t, w.from), map[string]string{"theirs": "0644 0:0", "mine": "0640 65534:65534"})
	w.mirror.Permissions[0].Group = "12345"
	j, err := w.env.OpenRun(t.Context(), w.mirror, false)
	must(t, err)
	j.places[plan.Source] = owned{j.places[plan.Source]}
	e, ok := errors.AsType[*SpecError](j.settable())
	if must(t, j.Close(t.Context())); !ok || e.Field != "permissions[0].group" || !strings.Contains(e.Fix, "group: inherit") {
		t.Errorf("got %v", e)
	}
}

// A user gives what he owns to a group that he is in.
func TestRulesForOnesOwnGroup(t *testing.T) {
	const group = 777
	groups, err := syscall.Getgroups()
	must(t, err)
	must(t, syscall.Setgroups(append(slices.Clone(groups), group)))
	defer func() { must(t, syscall.Setgroups(groups)) }()
	w := between(t, drill.MirrorCopy, false)
	w.write("old", "x")
	w.whole()
	w.write("new", "x")
	for _, name := range []string{"old", "new"} {
		must(t, os.Chown(filepath.Join(w.from, name), os.Geteuid(), 12345))
	}
	must(t, os.Chown(filepath.Join(w.to, "old"), os.Geteuid(), 54321))
	w.mirror.Permissions = []drill.Permission{{Match: "**", Group: fmt.Sprint(group)}}
	run := func(dry bool) (res Result, told []string) {
		j, err := w.env.OpenRun(t.Context(), w.mirror, dry)
		must(t, err)
		must(t, j.places[plan.Dest].Close())
		j.places[plan.Dest], err = local.Open(t.Context(), w.to, local.Options{NoOwner: true, ReadOnly: dry})
		must(t, errors.Join(err, j.settable()))
		res, err = j.Sync(t.Context(), SyncOptions{DryRun: dry, Check: engine.CheckListing, Each: func(d engine.Done) {
			if d.Action.Op.Changes() {
				told = append(told, fmt.Sprint(d.Action.Op, " ", d.Action.Key))
			}
		}})
		must(t, errors.Join(err, j.Close(t.Context())))
		return res, told
	}
	if res, told := run(true); !res.Whole() || res.Disowned != 0 || res.Mended != [2]int64{plan.Dest: 2} || !slices.Contains(told, "meta old") {
		t.Errorf("a dry run tells %q: %+v", told, res)
	}
	if res, told := run(false); !res.Whole() || res.Disowned != 0 || res.Mended != [2]int64{plan.Dest: 2} {
		t.Errorf("a run tells %q: %+v", told, res)
	}
	own := fmt.Sprintf("0644 %d:%d", os.Geteuid(), group)
	same(t, "the copy", rights(t, w.to), map[string]string{"old": own, "new": own})
}

// nobodys is a place in which a user whom next to nothing belongs to sets permissions.
type nobodys struct {
	place.Place
	t *testing.T
}

// SetRights implements place.Righter.
func (n nobodys) SetRights(ctx context.Context, want, have entry.Entry) (e entry.Entry, err error) {
	asNobody(n.t, func() { e, err = n.Place.(place.Righter).SetRights(ctx, want, have) })
	return e, err
}

// MaySetRights implements place.Righter.
func (n nobodys) MaySetRights(want, have entry.Entry) error {
	if have.UID != 65534 {
		return fmt.Errorf("may not: %w", unix.EPERM)
	}
	return n.Place.(place.Righter).MaySetRights(want, have)
}

// owned is a place whose owners this process may not set.
type owned struct{ place.Place }

func (o owned) Traits() place.Traits {
	t := o.Place.Traits()
	t.Lists &^= plan.AttrOwner
	return t
}

// A group is inherited as the kernel gives it to what is made in a directory.
func TestInheritedGroups(t *testing.T) {
	for _, side := range bothSides {
		w := between(t, drill.MirrorMirror, false)
		for _, path := range []string{"a", "plain/b", "shared/c", "shared/deep/er/d", "shared/own/e"} {
			w.write(path, "x")
		}
		in := [2]string{w.from, w.to}[side]
		shared := filepath.Join(w.from, "shared")
		must(t, errors.Join(os.Chown(shared, -1, 12345), os.Chmod(shared, fs.ModeSetgid|0o770)))
		must(t, errors.Join(os.Chown(filepath.Join(shared, "own"), -1, 54321), os.Chown(filepath.Join(w.from, "a"), -1, 54321)))
		w.mirror.Permissions = []drill.Permission{
			{Side: side.String(), Match: "**", Group: drill.GroupInherit},
			{Side: side.String(), Match: "*.private", Group: "7"},
		}
		w.write("shared/deep/f.private", "x")
		want := map[string]string{
			"a": "0644 0:54321", "plain": "0755 0:0", "plain/b": "0644 0:0", "shared": "2770 0:12345", "shared/c": "0644 0:12345",
			"shared/deep": "2755 0:12345", "shared/deep/er": "2755 0:12345", "shared/deep/er/d": "0644 0:12345",
			"shared/deep/f.private": "0644 0:7", "shared/own": "2755 0:12345", "shared/own/e": "0644 0:12345",
		}
		w.whole()
		same(t, "the "+side.String(), rights(t, in), want)
		w.asLeft()
		w.nothing(SyncOptions{})
		w.nothing(SyncOptions{Check: engine.CheckListing})

		// The root gives it, too, and what is made there by others has it already.
		must(t, errors.Join(os.Chown(in, -1, 777), os.Chmod(in, fs.ModeSetgid|0o755)))
		enginetest.Write(t, in, "theirs/g", "x")
		kernel := rights(t, filepath.Join(in, "theirs"))["g"]
		w.write("mine/g", "x")
		if side == plan.Dest {
			w.mirror.Mode = drill.MirrorCopy // leaves theirs
		}
		w.whole()
		got := rights(t, in)
		if got["mine/g"] != kernel || got["mine"] != got["theirs"] || got["mine"] != "2755 0:777" || got["a"] != "0644 0:777" || got["shared/c"] != "0644 0:777" {
			t.Errorf("the %s by its root: %v, and the kernel gives %q", side, got, kernel)
		}
		w.nothing(SyncOptions{})
	}
}

// What a bucket only implies lies in the directories that are there.
func TestInheritedGroupsOfABucket(t *testing.T) {
	env := withStore(t, newEnv(t))
	c := server.Bucket(t, false)
	client := enginetest.Client(t, c)
	for _, key := range []string{"made/x", "there/y", "there/new/z"} {
		_, err := client.PutObject(t.Context(), c.Bucket, key, strings.NewReader("x"), 1, minio.PutObjectOptions{})
		must(t, err)
	}
	w := &world{TB: t, env: env, to: t.TempDir()}
	there := filepath.Join(w.to, "there")
	must(t, errors.Join(os.Mkdir(there, 0o755), os.Chown(there, -1, 12345), os.Chmod(there, fs.ModeSetgid|0o750)))
	w.mirror = drill.Mirror{Name: "m", From: "s3:lab/" + c.Bucket, To: "dir:" + w.to, Permissions: []drill.Permission{{Match: "*", Files: "0640", Group: drill.GroupInherit}}}
	w.whole()
	want := map[string]string{"made": "0755 0:0", "made/x": "0640 0:0", "there": "2750 0:12345", "there/y": "0640 0:12345", "there/new": "2755 0:12345", "there/new/z": "0640 0:12345"}
	same(t, "the copy", rights(t, w.to), want)
	for _, check := range []engine.Check{engine.CheckState, engine.CheckListing} {
		if res := w.sync(SyncOptions{Check: check}); !res.Whole() || res.Mended != [2]int64{} || res.Done[plan.Equal] != 3 {
			t.Errorf("with nothing to do: %+v", res)
		}
	}
	same(t, "the copy", rights(t, w.to), want)
}

// While rules may set something at a source nobody else reads or writes there.
func TestRulesHaveTheSourceAlone(t *testing.T) {
	w := uploads(t, false)
	w.env.Locks = machine.Locks(t.TempDir())
	other := drill.Mirror{Name: "other", From: w.mirror.From + "/in", To: "dir:" + t.TempDir()}
	open := func(m drill.Mirror, dry bool) (*Job, error) {
		use := Runs
		if dry {
			use = Looks
		}
		return w.env.InTurn(t.Context(), m, use, func() (*Job, error) { return w.env.OpenRun(t.Context(), m, dry) })
	}
	j, err := open(w.mirror, false)
	must(t, err)
	for _, dry := range []bool{false, true} {
		if _, err := open(other, dry); !errors.Is(err, state.ErrLocked) {
			t.Errorf("a reader beside the rules (dry %t): %v", dry, err)
		}
	}
	must(t, j.Close(t.Context()))
	reader, err := open(other, false)
	must(t, err)
	if _, err := open(w.mirror, false); !errors.Is(err, state.ErrLocked) {
		t.Errorf("rules beside a reader: %v", err)
	}
	j, err = open(w.mirror, true) // which sets nothing
	must(t, err)
	must(t, errors.Join(j.Close(t.Context()), reader.Close(t.Context())))
}

// What anybody may have made becomes no program that runs as the rules' owner or group.
func TestRulesLendNobodysRights(t *testing.T) {
	w := &world{TB: t, env: newEnv(t), from: t.TempDir(), to: t.TempDir()}
	must(t, errors.Join(os.Mkdir(filepath.Join(w.from, "shared"), 0o755), os.Chown(filepath.Join(w.from, "shared"), 1000, 12345), os.Chmod(filepath.Join(w.from, "shared"), fs.ModeSetgid|0o775)))
	for _, name := range []string{"theirs", "given", "shared/theirs"} {
		path := filepath.Join(w.from, name)
		must(t, errors.Join(os.WriteFile(path, []byte("#!/bin/sh"), 0o755), os.Chown(path, 1000, 1000), os.Chmod(path, fs.ModeSetuid|fs.ModeSetgid|0o755)))
	}
	w.mirror = drill.Mirror{Name: "m", From: "dir:" + w.from, To: "dir:" + w.to, Permissions: []drill.Permission{
		{Side: "source", Match: "/theirs", Owner: "0"}, {Side: "source", Match: "given", Owner: "0", Files: "4750"}, {Side: "source", Match: "shared/**", Group: drill.GroupInherit},
	}}
	w.whole()
	want := map[string]string{"theirs": "0755 0:1000", "given": "4750 0:1000", "shared": "2775 1000:12345", "shared/theirs": "0755 1000:12345"}
	same(t, "the source", rights(t, w.from), want)
	same(t, "the copy", rights(t, w.to), want)
	if res := w.sync(SyncOptions{}); !res.Whole() || res.Mended != [2]int64{} {
		t.Errorf("with nothing to do: %+v", res)
	}
}
