package job

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// listed is a place whose attributes are listed: as what is opened tells nothing.
type listed struct{ place.Place }

// restored is what a bucket was copied to.
type restored struct {
	dir  string
	past map[string]plan.Past
	res  Result
}

// restore copies what the mirror's bucket holds into a new directory.
func (p *pair) restore(name string, change func(*Job)) restored {
	p.Helper()
	r := restored{dir: filepath.Join(filepath.Dir(p.dirs[0]), name), past: map[string]plan.Past{}}
	env := p.env
	env.StateDir = r.dir + "-state"
	m := drill.Mirror{Name: "r", Mode: drill.MirrorCopy, From: "s3:lab/" + p.bucket.Bucket + "/" + p.prefixes[p.lastBucket()], To: "dir:" + r.dir, Xattrs: true, Privileged: true, Permissions: p.mirror.Permissions}
	j, err := env.openJob(p.Context(), m, Runs)
	must(p, err)
	defer func() { must(p, j.Close(p.Context())) }()
	change(j)
	r.res, err = j.Sync(p.Context(), SyncOptions{})
	must(p, err)
	for past, err := range j.store.Past() {
		must(p, err)
		past.Source.Change, past.Dest.Change = entry.Change{}, entry.Change{} // which no two files, nor looks, have in common
		r.past[past.Key] = past
	}
	return r
}

// restoreBothWays copies the bucket with its attributes listed, and with names listed and
// attributes told by what is opened: nobody can see which was which.
func (p *pair) restoreBothWays() {
	p.Helper()
	told := p.restore("told", func(*Job) {})
	full := p.restore("full", func(j *Job) { j.places[plan.Source] = listed{j.places[plan.Source]} })
	where := fmt.Sprintf("history %d", p.seed)
	out, err := exec.CommandContext(p.Context(), "diff", "-r", "--no-dereference", told.dir, full.dir).CombinedOutput()
	// What diff cannot compare has no content.
	if out = alike.ReplaceAll(out, nil); err != nil && len(out) > 0 {
		p.Fatalf("%s: diff: %v: %s", where, err, out)
	}
	if a, b := p.looks(told), p.looks(full); !maps.Equal(a, b) {
		p.Fatalf("%s: they look like\n%q\nand\n%q", where, a, b)
	}
	if !reflect.DeepEqual(told.past, full.past) || told.res.Root.Root != full.res.Root.Root {
		p.Fatalf("%s: what is remembered is\n%+v\nand\n%+v", where, told.past, full.past)
	}
	if !maps.Equal(told.res.Done, full.res.Done) || !maps.Equal(told.res.Bytes, full.res.Bytes) ||
		told.res.Whole() != full.res.Whole() || told.res.Seen != full.res.Seen || fmt.Sprint(told.res.Failures) != fmt.Sprint(full.res.Failures) {
		p.Fatalf("%s: the runs say\n%+v\nand\n%+v", where, told.res.Report, full.res.Report)
	}
}

// alike is what diff says of two pipes, or the like, of one name.
var alike = regexp.MustCompile(`(?m)^File \S+ is a (fifo|socket|character special file) while file \S+ is a (fifo|socket|character special file)\n`)

// looks is all that others see of a copy but contents. The time of a directory that the
// bucket only implies is that at which it was made.
func (p *pair) looks(r restored) map[string]string {
	p.Helper()
	all := map[string]string{}
	must(p, filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == r.dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, r.dir+"/")
		target := ""
		if d.Type()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		when := st.Mtim.Nano()
		if _, own := r.past[entry.Entry{Path: name, Kind: entry.Dir}.Key()]; d.IsDir() && !own {
			when = 0
		}
		all[name] = fmt.Sprintf("%o %d:%d %d %d %s", st.Mode, st.Uid, st.Gid, st.Rdev, when, target)
		return nil
	}))
	return all
}

var mayday = time.Unix(1_000_000_000, 123_456_789)

// All that a bucket can hold and the histories do not make: devices, pipes, sockets,
// links that are too long for metadata, attributes, and what rclone and others wrote.
func TestARestoreGivesBackWhatIsAwkward(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain S3: %t", plain), func(t *testing.T) { restoreWhatIsAwkward(t, plain) })
	}
}

func restoreWhatIsAwkward(t *testing.T, plain bool) {
	p := &pair{TB: t, env: withStore(t, newEnv(t)), bucket: server.Bucket(t, false), prefixes: [2]string{"x/", "x/"}}
	if plain {
		p.bucket, _ = enginetest.Plain(t, p.bucket)
		p.env.Stores[0].Endpoint = p.bucket.Endpoint
	}
	p.client = enginetest.Client(t, p.bucket)
	root := t.TempDir()
	from := filepath.Join(root, "from")
	p.dirs = [2]string{from, ""}
	in := func(name string) string { return filepath.Join(from, name) }
	enginetest.Write(t, from, "dir/file", "content")
	enginetest.Write(t, from, "dir/none", "")
	enginetest.Write(t, from, "suid", "x")
	enginetest.Write(t, from, "large", strings.Repeat("0123456789abcdef", 1<<16))
	must(t, errors.Join(
		unix.Mkfifo(in("fifo"), 0o640), unix.Mknod(in("socket"), unix.S_IFSOCK|0o600, 0),
		unix.Mknod(in("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
		os.Symlink("dir/file", in("link")), os.Symlink(strings.Repeat("é/", 1300), in("far")), os.Symlink("nowhere", in("dir/dangling")),
		os.MkdirAll(in("empty/er"), 0o755), unix.Chmod(in("empty"), 0o1711), os.Chown(in("dir/file"), 1234, 4321),
		unix.Chmod(in("suid"), 0o4755), os.Lchown(in("link"), 77, 78), unix.Setxattr(in("dir/file"), "user.x", []byte("\xff\x00y"), 0),
		os.Chtimes(in("dir"), mayday, mayday),
	))
	up := drill.Mirror{Name: "up", Mode: drill.MirrorCopy, From: "dir:" + from, To: "s3:lab/" + p.bucket.Bucket + "/x", Xattrs: true}
	p.env.StateDir = filepath.Join(root, "state")
	j, err := p.env.openJob(t.Context(), up, Runs)
	must(t, err)
	if res, err := j.Sync(t.Context(), SyncOptions{}); err != nil || !res.Whole() {
		t.Fatalf("up: %+v, %v", res, err)
	}
	must(t, j.Close(t.Context()))
	for key, meta := range map[string]map[string]string{
		"foreign/f": nil, "foreign/dir/": nil, "rclone": {"Mtime": "1234567890.123456789"}, "others": {"Mtime": "nonsense", "Note": "ä"},
	} {
		content := []byte("by others")
		if strings.HasSuffix(key, "/") {
			content = nil
		}
		_, err := p.client.PutObject(t.Context(), p.bucket.Bucket, p.prefixes[0]+key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{UserMetadata: meta})
		must(t, err)
	}
	p.restoreBothWays()
	told := p.looks(restored{dir: filepath.Join(root, "told")})
	want := p.looks(restored{dir: from})
	for name := range want {
		if told[name] != want[name] {
			t.Errorf("%q: got %q, want %q", name, told[name], want[name])
		}
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(root, "told/dir/file"), "user.x", value); err != nil || string(value[:n]) != "\xff\x00y" {
		t.Errorf("the extended attribute is %q, %v", value, err)
	}
	if len(told) != len(want)+5 {
		t.Errorf("got %q", told)
	}
}

// What the rules want of a copy it has from its first moment: what is opened tells nothing
// of them, so that attributes are listed.
func TestARestoreByRulesHasTheirPermissionsAtOnce(t *testing.T) {
	p := &pair{TB: t, env: withStore(t, newEnv(t)), bucket: server.Bucket(t, false), prefixes: [2]string{"x/", "x/"}}
	p.dirs[0] = filepath.Join(t.TempDir(), "from")
	client := enginetest.Client(t, p.bucket)
	_, err := client.PutObject(t.Context(), p.bucket.Bucket, "x/f", strings.NewReader("x"), 1, minio.PutObjectOptions{})
	must(t, err)
	p.mirror.Permissions = []drill.Permission{{Match: "**", Files: "0604", Owner: "12345"}}
	r := p.restore("ruled", func(*Job) {})
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(r.dir, "f"), &st))
	if past := r.past["f"]; st.Mode&0o7777 != 0o604 || st.Uid != 12345 || r.res.Mended != [2]int64{} || past.Dest.Mode != 0o604 {
		t.Errorf("mode %o of %d, %d were mended, and %+v is remembered", st.Mode, st.Uid, r.res.Mended, past)
	}
}
