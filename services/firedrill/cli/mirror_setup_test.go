package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
)

// mirrored runs firedrill mirror with a state directory, and gives all that it printed.
func mirrored(t *testing.T, state string, want int, args ...string) string {
	t.Helper()
	code, out, errs := invoke(t, "", append([]string{"mirror", "--state-dir", state}, args...)...)
	if code != want {
		t.Fatalf("firedrill mirror %q: exit code %d, want %d\n%s%s", args, code, want, out, errs)
	}
	return out + errs
}

// told fails the test unless a text has all the parts.
func told(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in\n%s", p, text)
		}
	}
}

// source is a directory with one file.
func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	enginetest.Must(t, os.WriteFile(filepath.Join(dir, "a"), []byte("text"), 0o644))
	return dir
}

// minioServer is a server that is there until the test ends.
func minioServer(t *testing.T) (*enginetest.Server, *lab.MinIO) {
	t.Helper()
	server := &enginetest.Server{}
	m := server.Start(t)
	t.Cleanup(func() {
		m.Stop()
		if err := os.RemoveAll(filepath.Dir(server.Drive())); err != nil {
			t.Error(err)
		}
	})
	return server, m
}

// TestABucketWithoutKeys: a key that was named and is not there ends a run, also where the
// bucket takes everybody; where nobody named one the bucket is used as by anybody, and the
// run and validate say so.
func TestABucketWithoutKeys(t *testing.T) {
	server, m := minioServer(t)
	c := server.Bucket(t, false)
	enginetest.Must(t, enginetest.Client(t, c).SetBucketPolicy(t.Context(), c.Bucket, fmt.Sprintf(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:*"],"Resource":["arn:aws:s3:::%[1]s","arn:aws:s3:::%[1]s/*"]}]}`, c.Bucket)))
	from, state := "dir:"+source(t), t.TempDir()
	inventory := write(t, "inventory.yaml", fmt.Sprintf(`apiVersion: firedrill/v1
kind: Inventory
spec:
  stores:
    - {name: lab, endpoint: %[1]q, accessKey: {env: SETUP_TEST_ID}, secretKey: {env: SETUP_TEST_KEY}}
    - {name: public, endpoint: %[1]q}
  mirrors:
    - {name: keyed, from: %[2]q, to: "s3:lab/%[3]s/keyed"}
    - {name: free, from: %[2]q, to: "s3:public/%[3]s/free"}
    - {name: owned, from: %[2]q, to: %[4]q, permissions: [{match: "**", files: "2770", owner: no-such-user, group: no-such-group}]}
`, c.Endpoint, from, c.Bucket, "dir:"+t.TempDir()))
	at := "s3+" + c.Endpoint + "/" + c.Bucket + "/address"
	const secret = "never-to-be-shown"

	t.Setenv("SETUP_TEST_ID", m.AccessKey) // so that it is there no more after the test
	t.Setenv("SETUP_TEST_KEY", secret)
	enginetest.Must(t, os.Unsetenv("SETUP_TEST_ID"))
	t.Setenv("SETUP_TEST_KEY", "")
	text := mirrored(t, state, run.Crash, "sync", "--inventory", inventory, "keyed")
	told(t, text, "inventory "+inventory, "store lab: accessKey.env: \"SETUP_TEST_ID\": this environment variable is not set: set it where firedrill is started",
		`secretKey.env: "SETUP_TEST_KEY": this environment variable is empty`, "for a public bucket leave out accessKey and secretKey")
	code, out, errs := invoke(t, "", "validate", inventory)
	told(t, out, "valid, an inventory", `but not from here: spec.stores[0].accessKey.env: "SETUP_TEST_ID": this environment variable is not set`,
		`but not from here: spec.stores[0].secretKey.env: "SETUP_TEST_KEY": this environment variable is empty`,
		`but spec.mirrors[2].permissions[0].files: "2770": who runs a file that "**" names`,
		`but spec.stores[1]: "public" has no accessKey and secretKey: its buckets are used without keys`,
		`but not from here: spec.mirrors[2].permissions[0].owner: "no-such-user": user: unknown user no-such-user on this machine: make that user`,
		`but not from here: spec.mirrors[2].permissions[0].group: "no-such-group": group: unknown group no-such-group on this machine: make that group`)
	if code != run.OK {
		t.Errorf("validate: exit code %d: %s", code, errs)
	}
	t.Setenv("SETUP_TEST_ID", m.AccessKey)
	t.Setenv("SETUP_TEST_KEY", secret)
	if text := mirrored(t, state, run.Crash, "sync", "--inventory", inventory, "keyed"); strings.Contains(text, secret) || !strings.Contains(text, "check the access key and the secret key") {
		t.Errorf("with a wrong key:\n%s", text)
	}
	t.Setenv("SETUP_TEST_KEY", m.SecretKey)
	if text := mirrored(t, state, run.OK, "sync", "--inventory", inventory, "keyed"); strings.Contains(text, "without keys") {
		t.Errorf("with keys:\n%s", text)
	}
	if _, out, _ := invoke(t, "", "validate", inventory); strings.Contains(out, "SETUP_TEST") {
		t.Errorf("validate with keys:\n%s", out)
	}
	told(t, mirrored(t, state, run.OK, "sync", "--inventory", inventory, "free"), "note: s3:public/"+c.Bucket+"/free is used without keys, as anybody may: the store has no accessKey", "1 copied")

	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	text = mirrored(t, state, run.Crash, "sync", from, at)
	if told(t, text, at+": AWS_ACCESS_KEY_ID: this environment variable is empty: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "unset both"); strings.Contains(text, secret) {
		t.Errorf("the secret is in\n%s", text)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		t.Setenv(name, "")
		enginetest.Must(t, os.Unsetenv(name))
	}
	told(t, mirrored(t, state, run.OK, "sync", from, at), "note: "+at+" is used without keys, as anybody may: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set", "1 copied")
}

// TestTheModeIsSaid where nobody chose it, and where something stays because of it.
func TestTheModeIsSaid(t *testing.T) {
	from, to, state := source(t), filepath.Join(t.TempDir(), "to"), t.TempDir()
	const said = "  mode       copy: what the source holds no more is not deleted at the destination (--mode mirror does, guarded)\n"
	sync := func(args ...string) string {
		t.Helper()
		return mirrored(t, state, run.OK, append(append([]string{"sync"}, args...), "dir:"+from, "dir:"+to)...)
	}
	told(t, sync("--dry-run"), said)
	told(t, sync(), said)
	if text := sync(); strings.Contains(text, "mode ") {
		t.Errorf("nothing was left there:\n%s", text)
	}
	enginetest.Must(t, os.WriteFile(filepath.Join(from, "b"), nil, 0o644))
	sync()
	enginetest.Must(t, os.Remove(filepath.Join(from, "b")))
	told(t, sync(), said)
	told(t, sync("--json"), `"mode": "copy"`)
	if text := mirrored(t, t.TempDir(), run.OK, "sync", "--mode", "mirror", "dir:"+from, "dir:"+to); strings.Contains(text, "  mode ") {
		t.Errorf("of another mode:\n%s", text)
	}
}

// TestAFlagsValueIsExplained: in no library's words.
func TestAFlagsValueIsExplained(t *testing.T) {
	for args, want := range map[string]string{
		"mirror sync --may-delete x a b":                    `--may-delete: "x": this is no whole number: write one such as 100 (how many entries this run may delete`,
		"mirror sync --may-delete 99999999999999999999 a b": `--may-delete: "99999999999999999999": this number is too large`,
		"mirror sync --transfers=x a b":                     `--transfers: "x": this is no whole number`,
		"mirror sync --timeout 3 a b":                       `--timeout: "3": this is no length of time: write one with its unit, such as 90s, 30m or 2h`,
		"mirror sync --dry-run=maybe a b":                   `--dry-run: "maybe": this is neither true nor false: write --dry-run alone, or --dry-run=false`,
		"mirror sync --bwlimit x a b":                       `--bwlimit: "x": write bytes per second, such as 500K`,
		"mirror sync --json --may-delete x a b":             `"error": "--may-delete: \"x\": this is no whole number`,
	} {
		code, out, errs := invoke(t, "", strings.Fields(args)...)
		if code != run.BadArguments || !strings.Contains(out+errs, want) || strings.Contains(out+errs, "strconv") || strings.Contains(out+errs, "invalid") {
			t.Errorf("%s: exit code %d\n%s%s", args, code, out, errs)
		}
	}
}

// TestAPlaceThatIsNotThere is mounted first, as somebody else's empty directory in its place
// would be taken for it; a destination that cannot be made says what to do.
func TestAPlaceThatIsNotThere(t *testing.T) {
	from, state := source(t), t.TempDir()
	to := filepath.Join(t.TempDir(), "to")
	file := filepath.Join(source(t), "a")
	sync := func(want int, from, to string) string {
		t.Helper()
		return mirrored(t, state, want, "sync", "dir:"+from, "dir:"+to)
	}
	told(t, sync(run.Crash, from+"-missing", to), "cannot open \""+from+"-missing\": no such file or directory: mount what should be there, or see whether the name is right; else make it")
	told(t, sync(run.Crash, file, to), fmt.Sprintf("open the source: %q is no directory, and only whole directories are mirrored: name the one that it lies in, %q, and leave the rest out by a filter, %q and %q", file, filepath.Dir(file), "+ /a", "- **"))
	told(t, sync(run.Crash, from, file), fmt.Sprintf("open the destination: %q is no directory, and only whole directories are mirrored: name another directory", file))
	told(t, sync(run.Crash, from, file+"/x/y"), "not a directory: what lies at \""+file+"/x/y\", or above it, is no directory: name another destination")
	told(t, sync(run.Crash, from, "/proc/x/y"), `cannot make the directory "/proc/x/y": no such file or directory: mount what should be at /proc, make the directory by hand, or name one elsewhere`)
	sync(run.OK, from, to)
	for _, gone := range []string{from, to} {
		enginetest.Must(t, os.Rename(gone, gone+"-away"))
		told(t, sync(run.Crash, from, to), "it was there when the mirror last ran: mount it; if it was replaced on purpose, make it and run once with --accept-places")
		enginetest.Must(t, os.Rename(gone+"-away", gone))
	}
	// An empty directory in its place: that it may be mounted comes before how to take it for
	// the right one.
	enginetest.Must(t, os.Rename(from, from+"-away"))
	enginetest.Must(t, os.Mkdir(from, 0o755))
	text := mirrored(t, state, run.Fail, "sync", "--mode", "mirror", "dir:"+from, "dir:"+to)
	told(t, text, "see whether the right one is mounted", "run once with --accept-places")
	if strings.Index(text, "see whether the right one is mounted") > strings.Index(text, "run once with --accept-places") {
		t.Errorf("the other way round:\n%s", text)
	}
}

const somebody = 65534

// as runs firedrill as a user, and gives its exit code and all that it printed.
func as(t *testing.T, uid uint32, args ...string) (int, string) {
	t.Helper()
	self, err := os.Open(os.Args[0]) // its directory is closed to others
	enginetest.Must(t, err)
	defer self.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", args...)
	cmd.ExtraFiles, cmd.Dir = []*os.File{self}, "/"
	cmd.Env = append(os.Environ(), envCommand+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// ownedBy fails the test unless all below a directory belongs to a user.
func ownedBy(t *testing.T, dir string, uid uint32) {
	t.Helper()
	n := 0
	enginetest.Must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			n, err = n+1, unix.Lstat(path, &st)
		}
		if err == nil && st.Uid != uid {
			t.Errorf("%s belongs to %d", path, st.Uid)
		}
		return err
	}))
	if n < 10 {
		t.Errorf("only %d are there", n)
	}
}

// TestRootLeavesAUsersMirrorToThatUser: what root's run makes in somebody's state directory
// belongs to that one, whose next run goes on with it.
func TestRootLeavesAUsersMirrorToThatUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can run for somebody else: run the tests as root")
	}
	dir, err := os.MkdirTemp("", "firedrill-setup-")
	enginetest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	src, state := filepath.Join(dir, "src"), filepath.Join(dir, "state")
	enginetest.Must(t, os.Mkdir(src, 0o755))
	enginetest.Must(t, os.WriteFile(filepath.Join(src, "a"), []byte("text"), 0o644))
	for _, path := range []string{dir, src, filepath.Join(src, "a")} {
		enginetest.Must(t, os.Chown(path, somebody, somebody))
	}
	sync := []string{"mirror", "--state-dir", state, "sync", "--quiet", "dir:" + src, "dir:" + filepath.Join(dir, "dst")}
	step := func(uid uint32, want int, args ...string) string {
		t.Helper()
		code, text := as(t, uid, args...)
		if code != want {
			t.Fatalf("%q as %d: exit code %d, want %d\n%s", args, uid, code, want, text)
		}
		return text
	}
	verify := append([]string{"mirror", "--state-dir", state, "verify", "--level", "L3", "--read", "100%", "--quiet"}, sync[len(sync)-2:]...)
	step(0, run.OK, sync...)
	step(0, run.OK, verify...)
	ownedBy(t, state, somebody)
	enginetest.Must(t, os.Chown(filepath.Join(dir, "dst"), somebody, somebody)) // The source's, as is.
	step(somebody, run.OK, sync...)
	step(somebody, run.OK, verify...)
	enginetest.Must(t, os.WriteFile(filepath.Join(src, "b"), []byte("text"), 0o644))
	enginetest.Must(t, os.Chown(filepath.Join(src, "b"), somebody, somebody))
	step(0, run.OK, sync...)
	ownedBy(t, state, somebody)
	step(somebody, run.OK, sync...)

	// What earlier versions left, or what could not be given away.
	lock, err := filepath.Glob(filepath.Join(state, "mirrors", "*", "lock"))
	if err != nil || len(lock) != 1 {
		t.Fatalf("%q, %v", lock, err)
	}
	enginetest.Must(t, os.Chown(lock[0], 0, 0))
	mend := "chown -R 65534:65534 " + filepath.Dir(lock[0])
	told(t, step(0, run.OK, sync...), "warning: "+lock[0]+" belongs to root, and "+filepath.Dir(lock[0])+" to nobody (uid 65534)", "chown -h 65534:65534 "+lock[0])
	text := step(somebody, run.Crash, sync...)
	if told(t, text, lock[0]+" belongs to root (uid 0), and this process is nobody (uid 65534): run it as that user, or sudo "+mend); strings.Count(text, "\n") > 2 {
		t.Errorf("more than one message:\n%s", text)
	}
}

// TestMirrorDeletedNamesWhatIsNoName: in a bucket with versions others may have deleted what
// is no name of a file; that is named, and all else is listed and comes back.
func TestMirrorDeletedNamesWhatIsNoName(t *testing.T) {
	server, m := minioServer(t)
	c := server.Bucket(t, true)
	t.Setenv("AWS_ACCESS_KEY_ID", m.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", m.SecretKey)
	from, to, state := source(t), "s3+"+c.Endpoint+"/"+c.Bucket, t.TempDir()
	for _, name := range []string{"1", "2", "3", "4", "5"} {
		enginetest.Write(t, from, name, name)
	}
	sync := []string{"sync", "--mode", "mirror", "--keep-deleted", "1h", "dir:" + from, to}
	mirrored(t, state, run.OK, sync...)
	enginetest.Must(t, os.Remove(filepath.Join(from, "a")))
	mirrored(t, state, run.OK, sync...)
	mirrored(t, state, run.OK, sync...)
	client, bad := enginetest.Client(t, c), "b/%2E"+strings.Repeat("x", 250)
	_, err := client.PutObject(t.Context(), c.Bucket, bad, strings.NewReader("x"), 1, minio.PutObjectOptions{})
	enginetest.Must(t, errors.Join(err, client.RemoveObject(t.Context(), c.Bucket, bad, minio.RemoveObjectOptions{})))
	named := fmt.Sprintf("cannot: what is kept of the key %q is no entry of a mirror", bad)
	told(t, mirrored(t, state, run.Fail, "deleted", "dir:"+from, to), named, `destination  "a"`, "1 entry, 4 B")
	told(t, mirrored(t, state, run.Fail, "deleted", "--json", "dir:"+from, to), `"error": "what is kept of the key`, `"path": "a"`)
	mirrored(t, state, run.OK, "deleted", "--path", "a", "dir:"+from, to)
	told(t, mirrored(t, state, run.Fail, "restore", "--all", "dir:"+from, to), `cannot     `+fmt.Sprintf("%q", bad), `restored   "a"`, "1 entry (4 B) restored on both sides, 0 on one only, 1 not")
}
