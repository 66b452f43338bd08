package job

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// plain makes a bucket on a server that has no more than S3, as the store "plain".
func plain(t testing.TB, e *Env) (bucket.Config, *enginetest.Proxy) {
	t.Helper()
	if len(e.Stores) == 0 {
		*e = withStore(t, *e)
	}
	c, p := enginetest.Plain(t, server.Bucket(t, false))
	s := e.Stores[0]
	s.Name, s.Endpoint = "plain", c.Endpoint
	e.Stores = append(e.Stores[:1:1], s)
	return c, p
}

// kinds makes one of all that a directory can hold.
func kinds(t testing.TB, dir string) {
	t.Helper()
	for _, path := range []string{"a", "d/e/f", "d/f", "not utf8 \xff", "a line\nbreak"} {
		enginetest.Write(t, dir, path, "content of "+path)
	}
	enginetest.Write(t, dir, "empty", "")
	enginetest.Write(t, dir, "large", strings.Repeat("0123456789abcdef", 1<<16))
	at := func(path string) string { return filepath.Join(dir, path) }
	must(t, errors.Join(
		os.Mkdir(at("nothing"), 0o710), os.Symlink("d/f", at("link")), os.Symlink(strings.Repeat("é/", 1000), at("far")),
		unix.Mkfifo(at("fifo"), 0o640), unix.Mknod(at("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
		os.Chmod(at("d"), 0o750), os.Chown(at("d/e/f"), 12345, 54321), unix.Chmod(at("d/e/f"), 0o4711),
		unix.Setxattr(at("a"), "user.x", []byte("\xff\x00y"), 0),
		unix.UtimesNanoAt(unix.AT_FDCWD, at("a"), []unix.Timespec{{Sec: 1, Nsec: 5}, {Sec: 1_000_000_000, Nsec: 123_456_789}}, 0),
	))
}

// vary changes, of what kinds made, one of each.
func vary(t testing.TB, dir string) {
	t.Helper()
	at := func(path string) string { return filepath.Join(dir, path) }
	must(t, errors.Join(
		os.Chmod(at("d/f"), 0o600), os.Remove(at("link")), os.Symlink("a", at("link")), os.Remove(at("null")),
		unix.Setxattr(at("a"), "user.x", []byte("other"), 0), os.Chown(at("d/e"), 12345, 54321),
		os.Remove(at("fifo")), os.WriteFile(at("fifo"), []byte("a file"), 0o644), os.WriteFile(at("empty"), []byte("no more"), 0o644),
	))
}

// looks is all that others see of a tree, extended attributes included.
func looks(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := enginetest.Tree(t, dir)
	for path := range all {
		buf := make([]byte, 100)
		if n, err := unix.Lgetxattr(filepath.Join(dir, path), "user.x", buf); err == nil {
			all[path] += " " + string(buf[:n])
		}
	}
	return all
}

// through makes a mirror into a bucket and one out of it, with directories at both ends.
func through(t testing.TB, env Env, bucket string) (in, out *world) {
	in = &world{TB: t, env: env, from: t.TempDir()}
	in.mirror = drill.Mirror{Name: "in", Mode: drill.MirrorMirror, From: "dir:" + in.from, To: "s3:plain/" + bucket, Xattrs: true, Deletes: drill.MirrorDeletes{Scans: 1}}
	out = &world{TB: t, env: env, to: t.TempDir()}
	out.mirror = drill.Mirror{Name: "out", Mode: drill.MirrorMirror, From: in.mirror.To, To: "dir:" + out.to, Xattrs: true, Privileged: true, Deletes: drill.MirrorDeletes{Scans: 1}}
	return in, out
}

// alikeNow checks that two trees look alike.
func alikeNow(t testing.TB, a, b string) {
	t.Helper()
	if got, want := looks(t, b), looks(t, a); !maps.Equal(got, want) {
		t.Errorf("one looks like\n%.3000q\nand the other\n%.3000q", want, got)
	}
}

// What was brought into a bucket comes out of it as it was, also where the server's
// listing tells neither kinds nor attributes; and all that is said of it was looked at.
func TestAllComesBackFromAPlainServer(t *testing.T) {
	env := newEnv(t)
	c, proxy := plain(t, &env)
	in, out := through(t, env, c.Bucket)
	kinds(t, in.from)
	for round, change := range []func(){func() {}, func() { vary(t, in.from) }} {
		change()
		in.whole()
		dry := out.sync(SyncOptions{DryRun: true})
		res := out.whole()
		if !maps.Equal(dry.Done, res.Done) {
			t.Errorf("round %d: the dry run said %v and the run did %v", round, dry.Done, res.Done)
		}
		alikeNow(t, in.from, out.to)
		for _, w := range []*world{in, out} {
			proxy.Took()
			if res := w.sync(SyncOptions{}); res.Done[plan.Equal] != res.Seen[plan.Source] || res.Changed {
				t.Errorf("round %d, %s once more: %+v", round, w.mirror.Name, res)
			}
			if took := proxy.Took(); took["GET object"]+took["HEAD object"] > 0 {
				t.Errorf("round %d, %s once more: it asked %v", round, w.mirror.Name, took)
			}
			for _, l := range []proof.Level{proof.L1, proof.L2, proof.L4, proof.L3} { // what was read counts
				for _, side := range []plan.Side{plan.Source, plan.Dest} {
					if v := w.verified(side, l); !v.Verified() || v.Verdict.Level != l {
						t.Errorf("round %d, %s of %s at %v: %v", round, side, w.mirror.Name, l, v)
					}
				}
			}
			if a := w.audit(AuditOptions{}); !a.Clean() {
				t.Errorf("round %d, %s: %+v", round, w.mirror.Name, a)
			}
		}
	}
}

// What others do to an object shows in its kind and attributes, which are asked for and
// not taken for what they were, whatever its content is.
func TestAPlainServerIsAskedForAttributes(t *testing.T) {
	env := newEnv(t)
	c, proxy := plain(t, &env)
	in, out := through(t, env, c.Bucket)
	kinds(t, in.from)
	in.whole()
	out.whole()
	client := enginetest.Client(t, c)
	for key, content := range map[string]string{"d/f": "content of d/f", "link": "d/f"} {
		_, err := client.PutObject(t.Context(), c.Bucket, key, strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
		must(t, err)
	}
	for _, of := range []struct {
		w    *world
		side plan.Side
	}{{in, plan.Dest}, {out, plan.Source}} {
		proxy.Took()
		d := of.w.verified(of.side, proof.L1).Verdict
		took := proxy.Took()
		if d.MetadataOnly.Count != 1 || d.MetadataOnly.First[0].Key != "d/f" || d.Different.Count != 1 || d.Different.First[0].Key != "link" ||
			d.Missing.Count+d.Extra.Count > 0 || took["HEAD object"] < len(looks(t, in.from)) {
			t.Errorf("the %s of %s: %+v, which asked %v", of.side, of.w.mirror.Name, d, took)
		}
	}
	res := in.sync(SyncOptions{Check: engine.CheckListing})
	if !res.Whole() || res.Done[plan.Meta] != 1 || res.Done[plan.Put] != 1 {
		t.Errorf("mended with %+v", res)
	}
	if res := out.whole(); res.Done[plan.Equal] != res.Seen[plan.Source] {
		t.Errorf("nothing was to be done: %+v", res)
	}
	alikeNow(t, in.from, out.to)
}

// A source whose content has rotted is not mistaken for one that somebody has written: its
// copy is not overwritten, and may mend it.
func TestRotOnAPlainServerIsRot(t *testing.T) {
	env := newEnv(t)
	c, _ := plain(t, &env)
	in, out := through(t, env, c.Bucket)
	kinds(t, in.from)
	in.whole()
	out.whole()
	out.with(func(j *Job) {
		r := &enginetest.Rotten{Place: j.places[plan.Source]}
		r.Rot("d/f")
		j.places[plan.Source] = r
		a, err := j.Audit(t.Context(), AuditOptions{Repair: true, RepairSource: true})
		must(t, err)
		if len(a.Rotten) != 1 || a.Rotten[0].Key != "d/f" || a.Rotten[0].Side != plan.Source || !a.Rotten[0].Repaired {
			t.Errorf("got %+v", a.Rotten)
		}
	})
	out.whole()
	alikeNow(t, in.from, out.to)
	if a := out.audit(AuditOptions{}); !a.Clean() {
		t.Errorf("then: %+v", a)
	}
}

// What rules made of a copy is not taken for what the source holds once they are gone.
func TestRulesThatAreGoneLeaveNothing(t *testing.T) {
	env := newEnv(t)
	c, _ := plain(t, &env)
	in, out := through(t, env, c.Bucket)
	kinds(t, in.from)
	in.whole()
	out.mirror.Permissions = []drill.Permission{{Match: "**", Files: "0604", Owner: "777"}}
	out.whole()
	out.mirror.Permissions = nil
	out.whole()
	alikeNow(t, in.from, out.to)
}

// Changes go both ways through such a server, those of attributes alone too, and what is
// known of it is not asked for again.
func TestTwoWayThroughAPlainServer(t *testing.T) {
	env := newEnv(t)
	c, proxy := plain(t, &env)
	must(t, enginetest.Client(t, c).EnableVersioning(t.Context(), c.Bucket))
	var worlds [2]*world
	for i := range worlds {
		w := &world{TB: t, env: env, from: t.TempDir()}
		w.mirror = drill.Mirror{Name: []string{"one", "other"}[i], Mode: drill.MirrorTwoWay, From: "dir:" + w.from, To: "s3:plain/" + c.Bucket, Xattrs: true, Privileged: true, Deletes: drill.MirrorDeletes{Scans: 1}}
		worlds[i] = w
	}
	one, other := worlds[0], worlds[1]
	kinds(t, one.from)
	meet := func(what string) {
		t.Helper()
		for _, w := range []*world{one, other, one} {
			dry := w.sync(SyncOptions{DryRun: true})
			if res := w.whole(); !maps.Equal(dry.Done, res.Done) {
				t.Errorf("%s: the dry run of %s said %v and the run did %v", what, w.mirror.Name, dry.Done, res.Done)
			}
		}
		alikeNow(t, one.from, other.from)
	}
	meet("first")
	must(t, errors.Join(
		os.Chmod(filepath.Join(one.from, "d/f"), 0o4711), os.Remove(filepath.Join(one.from, "a line\nbreak")),
		os.Chown(filepath.Join(other.from, "d/e/f"), 5, 6), os.WriteFile(filepath.Join(other.from, "empty"), []byte("no more"), 0o644),
		os.Remove(filepath.Join(other.from, "link")), os.Symlink("elsewhere", filepath.Join(other.from, "link")),
		unix.Setxattr(filepath.Join(other.from, "a"), "user.x", []byte("other"), 0),
	))
	meet("changed on both sides")
	for _, w := range worlds {
		w.whole() // sees when what it has written was written
		proxy.Took()
		if res := w.whole(); res.Done[plan.Equal] != res.Seen[plan.Source] || res.Changed {
			t.Errorf("once more: %+v", res)
		}
		if took := proxy.Took(); took["GET object"]+took["HEAD object"] > 0 {
			t.Errorf("%s once more: it asked %v", w.mirror.Name, took)
		}
	}
}
