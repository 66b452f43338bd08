package job

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// Whatever becomes of two places, what the mirror says of them is what others see who
// know nothing of it: diff, a plain client that reads every object, and rclone.
func TestWhatWeSayIsWhatOthersSee(t *testing.T) {
	// Much is made and thrown away in it, and little is kept.
	before := debug.SetGCPercent(800)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	rclone := startChecker(t)
	for _, c := range []struct {
		name      string
		histories int
		// buckets says, by side, that a bucket lies there.
		buckets [2]bool
		mode    string
		// plain says that the bucket's server has no more than S3.
		plain bool
	}{
		{"directory to directory", 130, [2]bool{}, drill.MirrorMirror, false},
		{"directory to bucket", 90, [2]bool{plan.Dest: true}, drill.MirrorMirror, false},
		{"bucket to directory", 50, [2]bool{plan.Source: true}, drill.MirrorMirror, false},
		{"plain bucket to directory", 20, [2]bool{plan.Source: true}, drill.MirrorMirror, true},
		{"bucket to bucket", 40, [2]bool{true, true}, drill.MirrorMirror, false},
		{"two-way", 50, [2]bool{plan.Dest: true}, drill.MirrorTwoWay, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			env := newEnv(t)
			if c.buckets != [2]bool{} {
				env = withStore(t, env)
			}
			b := &pair{TB: t, env: env, buckets: c.buckets, mode: c.mode, checker: rclone}
			if c.buckets != [2]bool{} {
				b.bucket = server.Bucket(t, c.mode == drill.MirrorTwoWay)
				if c.plain {
					b.bucket, _ = enginetest.Plain(t, b.bucket)
					b.env.Stores[0].Endpoint = b.bucket.Endpoint
				}
				b.client = enginetest.Client(t, b.bucket)
			}
			for seed := range c.histories {
				b.history(seed)
			}
		})
	}
}

// pair is the two places whose histories are tried.
type pair struct {
	testing.TB
	env     Env
	buckets [2]bool
	mode    string
	bucket  bucket.Config
	client  *minio.Client
	checker *checker

	// What follows is one history's.
	seed int
	rand *rand.Rand
	dirs [2]string
	// prefixes are those of the sides that are in the bucket.
	prefixes [2]string
	editors  [2]*enginetest.Editor
	mirror   drill.Mirror
}

func (p *pair) history(seed int) {
	p.Helper()
	p.seed, p.rand = seed, rand.New(rand.NewPCG(uint64(seed), 7))
	root, err := os.MkdirTemp(enginetest.Memory(p), "")
	must(p, err)
	p.env.StateDir = filepath.Join(root, "state")
	p.mirror = drill.Mirror{Name: "m", Mode: p.mode, Deletes: drill.MirrorDeletes{Scans: 1}}
	at := [2]string{}
	for side := range p.dirs {
		p.dirs[side] = filepath.Join(root, fmt.Sprint(side))
		at[side] = "dir:" + p.dirs[side]
		if p.buckets[side] {
			p.prefixes[side] = fmt.Sprintf("h%d-%d/", seed, side)
			at[side] = "s3:lab/" + p.bucket.Bucket + "/" + p.prefixes[side]
			continue
		}
		must(p, os.Mkdir(p.dirs[side], 0o755))
		p.editors[side] = &enginetest.Editor{TB: p, Dir: p.dirs[side], Rand: p.rand}
	}
	p.mirror.From, p.mirror.To = at[0], at[1]
	for round := range 3 + p.rand.IntN(4) {
		for side := range p.dirs {
			switch {
			case plan.Side(side) == plan.Dest && p.mode != drill.MirrorTwoWay && p.rand.IntN(4) > 0:
			case p.buckets[side]:
				p.editBucket(p.prefixes[side], 1+p.rand.IntN(4))
			default:
				p.editors[side].Edit(1 + p.rand.IntN(5))
			}
		}
		p.round(round)
	}
	if p.buckets != [2]bool{} {
		p.restoreBothWays()
	}
	must(p, os.RemoveAll(root))
}

// round makes a run, and compares what is said of its end with what there is.
func (p *pair) round(round int) {
	p.Helper()
	where := fmt.Sprintf("history %d, round %d", p.seed, round)
	j, err := p.env.openJob(p.Context(), p.mirror, Repairs)
	must(p, err)
	defer func() { must(p, j.Close(p.Context())) }()
	check := []engine.Check{engine.CheckListing, engine.CheckAudit}[p.rand.IntN(2)]
	res, err := j.Sync(p.Context(), SyncOptions{MayDelete: -1, Check: check})
	if err != nil {
		p.Fatalf("%s: %v", where, err)
	}
	verified, nothing := true, true
	said := ""
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		v, err := j.Verify(p.Context(), side, VerifyOptions{Level: proof.L4})
		if err != nil {
			p.Fatalf("%s: verify: %v", where, err)
		}
		verified, nothing = verified && v.Verified(), nothing && v.Inconclusive()
		said += fmt.Sprintf("\n%s: %v %+v", side, v.Verdict, v.Verdict.Extra)
	}
	sides := p.contents()
	differences := p.compare(sides)
	told := p.told(&res, where)
	p.rclone(where, sides)
	switch {
	case verified && len(differences) > 0:
		p.Fatalf("%s: verified, and there are differences: %q", where, differences)
	case !told && (len(differences) > 0 || !verified && !nothing):
		p.Fatalf("%s: nothing was told, and there are differences: %q, %s\n%+v", where, differences, said, res.Report)
	}
}

// told reports whether a run said why the places may differ. What may go wrong at all
// in these histories is few things.
func (p *pair) told(res *Result, where string) bool {
	p.Helper()
	told := len(res.Refusals) > 0 || res.HeldBack > 0
	for _, c := range res.Conflicts {
		told = told || c.Reason != plan.ConflictUnicode
	}
	for _, r := range res.Refusals {
		// What is no file is nothing that anybody would mirror.
		if r.Guard != plan.GuardEmpty {
			p.Fatalf("%s: refused: %v", where, r)
		}
	}
	for _, f := range res.Failures {
		// A directory in place of what has old versions is nothing that MinIO lists.
		if told = true; p.mode != drill.MirrorTwoWay || !errors.Is(f.Err, bucket.ErrHidden) {
			p.Fatalf("%s: %s %q failed: %v", where, f.Op, f.Key, f.Err)
		}
	}
	if res.Faults > 0 || res.Done[plan.Unholdable] > 0 {
		p.Fatalf("%s: %v %+v", where, res.Errors, res.Unholdable)
	}
	return told
}

// compare tells in what the places differ, as others see it.
func (p *pair) compare(sides [2]map[string]content) []string {
	p.Helper()
	if p.buckets == [2]bool{} {
		out, err := exec.CommandContext(p.Context(), "diff", "-r", "--no-dereference", p.dirs[0], p.dirs[1]).CombinedOutput()
		if e, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || e.ExitCode() != 1) {
			p.Fatalf("diff: %v: %s", err, out)
		}
		if err == nil {
			return nil
		}
		return []string{string(out)}
	}
	return differences(sides)
}

// contents reads both sides.
func (p *pair) contents() (sides [2]map[string]content) {
	p.Helper()
	for side := range sides {
		if p.buckets[side] {
			sides[side] = p.readBucket(p.prefixes[side])
		} else {
			sides[side] = p.readDir(p.dirs[side])
		}
	}
	return sides
}

// content is what lies at a path.
type content struct {
	text string
	// file says that it is a file's, and no link's.
	file bool
}

// differences names all that is not the same on both sides.
func differences(sides [2]map[string]content) []string {
	var all []string
	for key, content := range sides[0] {
		switch other, ok := sides[1][key]; {
		case !ok:
			all = append(all, fmt.Sprintf("%q: %q and nothing", key, content.text))
		case other.text != content.text:
			all = append(all, fmt.Sprintf("%q: %q and %q", key, content.text, other.text))
		}
	}
	for key, content := range sides[1] {
		if _, ok := sides[0][key]; !ok {
			all = append(all, fmt.Sprintf("%q: nothing and %q", key, content.text))
		}
	}
	slices.Sort(all)
	return all
}

// readDir reads all that has content.
func (p *pair) readDir(dir string) map[string]content {
	p.Helper()
	all := map[string]content{}
	must(p, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			all[name] = content{text: target}
			return err
		}
		raw, err := os.ReadFile(path)
		all[name] = content{string(raw), true}
		return err
	}))
	return all
}

// readBucket reads all objects with a plain client.
func (p *pair) readBucket(prefix string) map[string]content {
	p.Helper()
	all := map[string]content{}
	for _, key := range p.keys(prefix) {
		if strings.HasSuffix(key, "/") {
			continue // a directory, which has no content
		}
		o, err := p.client.GetObject(p.Context(), p.bucket.Bucket, prefix+key, minio.GetObjectOptions{})
		must(p, err)
		raw, err := io.ReadAll(o)
		must(p, err)
		info, err := o.Stat()
		must(p, errors.Join(err, o.Close()))
		path, _, err := entry.UnescapeKey(key)
		must(p, err)
		all[path] = content{string(raw), fileMeta(info.UserMetadata)}
	}
	return all
}

func (p *pair) keys(prefix string) []string {
	p.Helper()
	var all []string
	for o := range p.client.ListObjects(p.Context(), p.bucket.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		must(p, o.Err)
		all = append(all, strings.TrimPrefix(o.Key, prefix))
	}
	return all
}

// editBucket changes objects as somebody does who does not know what they stand for.
func (p *pair) editBucket(prefix string, n int) {
	p.Helper()
	for range n {
		dir := []string{"", "k/", "k/l/"}[p.rand.IntN(3)]
		key := dir + []string{"p", "q", "é", "e\u0301", "x y", "p.q"}[p.rand.IntN(6)]
		content := fmt.Appendf(nil, "%.*s", p.rand.IntN(20), fmt.Sprintf("%020d", p.rand.Uint64()))
		var meta map[string]string
		there := slices.DeleteFunc(p.keys(prefix), func(key string) bool { return strings.HasSuffix(key, "/") })
		switch what := p.rand.IntN(4); {
		case what == 0 && len(there) > 0:
			must(p, p.client.RemoveObject(p.Context(), p.bucket.Bucket, prefix+there[p.rand.IntN(len(there))], minio.RemoveObjectOptions{}))
			continue
		case what == 1 && len(there) > 0: // another content of the same size
			key = there[p.rand.IntN(len(there))]
			o, err := p.client.StatObject(p.Context(), p.bucket.Bucket, prefix+key, minio.StatObjectOptions{})
			must(p, err)
			content = bytes.Repeat([]byte{byte('a' + p.rand.IntN(26))}, int(o.Size))
			if p.rand.IntN(2) == 0 && fileMeta(o.UserMetadata) {
				meta = o.UserMetadata // as tools do that change what an object holds in place
			}
		}
		_, err := p.client.PutObject(p.Context(), p.bucket.Bucket, prefix+key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{UserMetadata: meta})
		must(p, err)
	}
}

// fileMeta reports whether an object's metadata says that it is a file: of others the
// content says nothing.
func fileMeta(meta map[string]string) bool {
	e, err := entry.FromMeta("a", 0, meta)
	return err == nil && e.Kind == entry.File
}

// lastBucket is the side that is in the bucket, or the destination where both are.
func (p *pair) lastBucket() plan.Side {
	if p.buckets[plan.Dest] {
		return plan.Dest
	}
	return plan.Source
}
