package cli_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/firedrill/cli"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
)

// zfsWorld is a machine with the pools tank and vault, and a MinIO.
type zfsWorld struct {
	*testing.T
	dir   string
	zfs   *lab.ZFS
	minio *enginetest.Server
	// copies are what snapshots hold, by their guids.
	copies map[string]string
}

// TestZFS runs the commands against one real ZFS, one after the other: one zfs-fuse
// that is used for much at once hangs for good.
func TestZFS(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "firedrill-cli-zfs-")
	if err != nil {
		dir = t.TempDir()
	}
	z, err := lab.StartZFS(t.Context(), lab.ZFSOptions{
		Dir: filepath.Join(dir, "zfs"), Pools: []lab.ZFSPool{{Name: "tank"}, {Name: "vault"}},
	})
	enginetest.Must(t, err)
	server := &enginetest.Server{}
	t.Cleanup(func() {
		if err := errors.Join(z.Stop(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	m := server.Start(t)
	t.Cleanup(func() {
		m.Stop()
		if err := os.RemoveAll(filepath.Dir(server.Drive())); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("AWS_ACCESS_KEY_ID", m.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", m.SecretKey)
	for _, c := range []struct {
		name string
		test func(*zfsWorld)
	}{
		{"replicate", (*zfsWorld).replicate}, {"retention", (*zfsWorld).retention}, {"estranged", (*zfsWorld).estranged},
		{"killed", (*zfsWorld).killed}, {"interrupted", (*zfsWorld).interrupted}, {"archive", (*zfsWorld).archive}, {"damage", (*zfsWorld).damage}, {"thinning", (*zfsWorld).thinning}, {"refusals", (*zfsWorld).refusals}, {"recursive", (*zfsWorld).recursive}, {"scheduled", (*zfsWorld).scheduled},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(&zfsWorld{t, dir, z, server, map[string]string{}}) })
	}
}

// TestZFSCommand is no test: it is the process that TestZFS kills.
func TestZFSCommand(t *testing.T) {
	text := os.Getenv("FIREDRILL_TEST_ZFS_COMMAND")
	if text == "" {
		return
	}
	var args []string
	enginetest.Must(t, json.Unmarshal([]byte(text), &args))
	os.Exit(cli.Run(t.Context(), args, cli.Streams{In: strings.NewReader(""), Out: os.Stdout, Err: os.Stderr}, target.NewRegistry()))
}

func (w *zfsWorld) must(err error) {
	w.Helper()
	enginetest.Must(w.T, err)
}

// via is the flag that reaches the machine.
func (w *zfsWorld) via(names ...string) []string {
	var out []string
	for _, name := range names {
		out = append(out, "--"+name, strings.Join(w.zfs.Argv(), " "))
	}
	return out
}

// args are those of firedrill for a zfs command.
func (w *zfsWorld) args(args ...string) []string {
	args = append([]string{"zfs"}, args...)
	switch args[1] {
	case "replicate":
		args = append(args, w.via("from-via", "to-via")...)
	case "archive", "restore":
		args = append(args, w.via("via")...)
	case "prune":
		if strings.HasPrefix(args[2], "zfs:") {
			args = append(args, w.via("via")...)
		}
	}
	return append(args, "--state-dir", filepath.Join(w.dir, "state"))
}

// run runs a command and gives what it printed, errors apart; its exit code must be want.
func (w *zfsWorld) run(want int, args ...string) (out, errs string) {
	w.Helper()
	return w.plain(want, w.args(args...)...)
}

// plain is run with all arguments as they are.
func (w *zfsWorld) plain(want int, args ...string) (string, string) {
	w.Helper()
	var out, errs bytes.Buffer
	code := cli.Run(w.Context(), args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, target.NewRegistry())
	if code != want {
		w.Fatalf("firedrill %v: exit code %d, want %d\n%s%s", args, code, want, &out, &errs)
	}
	return out.String(), errs.String()
}

// into runs a command with --json and decodes what it printed.
func (w *zfsWorld) into(v any, want int, args ...string) {
	w.Helper()
	out, _ := w.run(want, append(args, "--json")...)
	w.must(json.Unmarshal([]byte(out), v))
}

func (w *zfsWorld) has(text string, parts ...string) {
	w.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			w.Errorf("%q is not in\n%s", p, text)
		}
	}
}

// do does what an administrator would, past firedrill.
func (w *zfsWorld) do(args ...string) string {
	w.Helper()
	argv := append(w.zfs.Argv(), append([]string{"zfs"}, args...)...)
	for tries := 0; ; tries++ {
		out, err := exec.CommandContext(w.Context(), argv[0], argv[1:]...).CombinedOutput()
		if err == nil {
			return string(out)
		}
		// What was just used is busy for a moment; each try takes some of it.
		if tries == 100 || !strings.Contains(string(out), "busy") {
			w.Fatalf("zfs %v: %v: %s", args, err, out)
		}
	}
}

// snapshots are the names of a dataset's snapshots, oldest first.
func (w *zfsWorld) snapshots(dataset string) []string {
	w.Helper()
	return strings.Fields(strings.ReplaceAll(w.do("list", "-H", "-r", "-t", "snapshot", "-o", "name", "-s", "createtxg", dataset), dataset+"@", ""))
}

// write changes a dataset.
func (w *zfsWorld) write(dataset, name, content string) {
	w.Helper()
	enginetest.Write(w.T, filepath.Join(w.zfs.Dir, "mnt", dataset), name, content)
}

// keep remembers what a dataset holds as that of a snapshot with a guid.
func (w *zfsWorld) keep(dataset, guid string) {
	w.Helper()
	to := filepath.Join(w.TempDir(), guid)
	w.must(exec.CommandContext(w.Context(), "cp", "-a", filepath.Join(w.zfs.Dir, "mnt", dataset), to).Run())
	w.copies[guid] = to
}

// same compares a snapshot with what its source held when it was taken.
func (w *zfsWorld) same(snapshot, guid string) {
	w.Helper()
	dataset, _, _ := strings.Cut(snapshot, "@")
	if got := strings.TrimSpace(w.do("get", "-Hp", "-o", "value", "guid", snapshot)); got != guid {
		w.Errorf("%s has guid %s, want %s", snapshot, got, guid)
	}
	clone := dataset + "/compare"
	w.do("clone", "-o", "readonly=on", "-o", "mountpoint="+filepath.Join(w.zfs.Dir, "compare"), snapshot, clone)
	out, err := exec.CommandContext(w.Context(), "diff", "-r", "--no-dereference", w.copies[guid], filepath.Join(w.zfs.Dir, "compare")).CombinedOutput()
	if err != nil || w.copies[guid] == "" {
		w.Errorf("%s: %v: %.2000s", snapshot, err, out)
	}
	w.do("destroy", clone)
}

// replicated is what replicate prints of itself.
type replicated struct {
	Sent []struct {
		Snapshot, GUID, Since string
		Stream                struct{ Bytes int64 }
	}
	Common                           struct{ Snapshot, GUID string }
	RolledBack                       bool
	Lost, PrunedSource, PrunedTarget []struct{ Snapshot string }
}

// send replicates, and remembers what was sent last.
func (w *zfsWorld) send(from, to string, args ...string) (r replicated) {
	w.Helper()
	w.into(&r, 0, append([]string{"replicate", "zfs:" + from, "zfs:" + to}, args...)...)
	w.keep(from, r.Common.GUID)
	return r
}

func (w *zfsWorld) replicate() {
	w.do("create", "tank/a")
	w.write("tank/a", "d/one", "1")
	out, _ := w.run(0, "replicate", "zfs:tank/a", "zfs:vault/a", "--dry-run")
	w.has(out, "taken      tank/a@firedrill-20")
	if left := w.do("list", "-H", "-t", "all", "-o", "name"); strings.Contains(left, "@") || strings.Contains(left, "vault/a") {
		w.Errorf("the dry run left:\n%s", left)
	}
	first := w.send("tank/a", "vault/a")
	w.write("tank/a", "d/two", "2")
	w.do("snapshot", "tank/a@by-hand")
	second := w.send("tank/a", "vault/a")
	if len(first.Sent) != 1 || first.Sent[0].Since != "" || len(second.Sent) != 2 || "tank/a@"+second.Sent[0].Since != first.Common.Snapshot || second.Sent[1].Since != "by-hand" {
		w.Fatalf("%+v, then %+v", first, second)
	}
	for _, r := range []replicated{first, second} {
		last := r.Sent[len(r.Sent)-1]
		w.same(last.Snapshot, r.Common.GUID)
		if last.GUID != r.Common.GUID || last.Stream.Bytes == 0 {
			w.Errorf("%+v", r)
		}
	}
	if got := w.do("get", "-H", "-o", "value", "readonly,mounted", "vault/a"); got != "on\nno\n" {
		w.Errorf("the target: %q", got)
	}
	out, _ = w.run(0, "replicate", "zfs:tank/a", "zfs:vault/a", "--no-snapshot")
	w.has(out, "tank/a -> vault/a: 0 snapshots sent", "both have  "+second.Common.Snapshot+", held as firedrill:vault-a-")
}

func (w *zfsWorld) retention() {
	w.do("create", "tank/r")
	w.do("snapshot", "tank/r@firedrill-by-hand")
	for i := range 3 {
		w.write("tank/r", "file", strings.Repeat("x", i+1))
		w.send("tank/r", "vault/r")
	}
	all := w.snapshots("tank/r")
	w.write("tank/r", "file", "last")
	var plan struct {
		Take                           string
		PruneSource, PruneTarget, Send []struct{ Snapshot string }
	}
	keep := []string{"replicate", "zfs:tank/r", "zfs:vault/r", "--keep", "monthly=1"}
	w.into(&plan, 0, append(keep, "--dry-run")...)
	if got := w.snapshots("tank/r"); len(got) != len(all) {
		w.Errorf("the dry run left %v of %v", got, all)
	}
	done := w.send("tank/r", "vault/r", keep[3:]...)
	if fmt.Sprint(plan.PruneSource, plan.PruneTarget) != fmt.Sprint(done.PrunedSource, done.PrunedTarget) || len(done.PrunedSource) != 3 || len(done.PrunedTarget) != 3 {
		w.Errorf("planned %+v, done %+v", plan, done)
	}
	want := fmt.Sprint([]string{"firedrill-by-hand", strings.TrimPrefix(done.Common.Snapshot, "tank/r@")})
	for _, dataset := range []string{"tank/r", "vault/r"} {
		if got := fmt.Sprint(w.snapshots(dataset)); got != want {
			w.Errorf("%s has %s, want %s", dataset, got, want)
		}
	}
	w.send("tank/r", "vault/r")
	w.write("tank/r", "file", "more")
	w.send("tank/r", "vault/r")

	// Not on its own account, what was taken otherwise, or is held.
	out, _ := w.run(0, "prune", "zfs:vault/r", "--keep", "daily=1", "--dry-run")
	w.has(out, "vault/r: 2 snapshots would be pruned")
	if got := w.snapshots("vault/r"); len(got) != 4 {
		w.Errorf("the dry run left %v", got)
	}
	w.do("hold", "mine", "vault/r@"+w.snapshots("vault/r")[1])
	cloned := "vault/r@" + w.snapshots("vault/r")[2]
	w.do("clone", cloned, "vault/clone")
	_, errs := w.run(1, "prune", "zfs:vault/r", "--keep", "daily=1", "--dry-run")
	w.has(errs, cloned, "the snapshot has clones")
	_, errs = w.run(1, "prune", "zfs:vault/r", "--keep", "daily=1")
	w.has(errs, cloned, "the snapshot has clones")
	w.do("destroy", "vault/clone")
	w.has(first(w.run(0, "prune", "zfs:vault/r", "--keep", "daily=1")), "vault/r: 1 snapshot pruned")
	w.do("release", "mine", "vault/r@"+w.snapshots("vault/r")[1])
	w.has(first(w.run(0, "prune", "zfs:vault/r", "--keep", "daily=1", "--prefix", "")), "vault/r: 2 snapshots pruned")
	last := w.send("tank/r", "vault/r")
	w.same(last.Sent[0].Snapshot, last.Common.GUID)
}

func first(a, _ string) string { return a }

// estranged is a target that was written to, or that has snapshots of its own.
func (w *zfsWorld) estranged() {
	w.do("create", "tank/e")
	w.write("tank/e", "file", "1")
	w.send("tank/e", "vault/e")
	w.do("set", "readonly=off", "vault/e")
	w.do("mount", "vault/e")
	w.write("vault/e", "mine", "precious")
	w.write("tank/e", "file", "2")
	_, errs := w.run(1, "replicate", "zfs:tank/e", "zfs:vault/e")
	w.has(errs, "the target was changed since its newest snapshot", "--rollback")
	w.do("snapshot", "vault/e@mine")
	before := len(w.snapshots("tank/e"))
	_, errs = w.run(1, "replicate", "zfs:tank/e", "zfs:vault/e")
	w.has(errs, "vault/e@mine, which the source does not have", "--rollback")
	if got := w.snapshots("tank/e"); len(got) != before {
		w.Errorf("what could not be sent was taken: %v", got)
	}
	if raw, err := os.ReadFile(filepath.Join(w.zfs.Dir, "mnt/vault/e/mine")); err != nil || string(raw) != "precious" {
		w.Fatalf("lost: %s, %v", raw, err)
	}
	out, _ := w.run(0, "replicate", "zfs:tank/e", "zfs:vault/e", "--rollback", "--dry-run")
	w.has(out, "destroyed  vault/e@mine")
	done := w.send("tank/e", "vault/e", "--rollback")
	if !done.RolledBack || len(done.Lost) != 1 || done.Lost[0].Snapshot != "vault/e@mine" {
		w.Errorf("%+v", done)
	}
	w.same(done.Sent[len(done.Sent)-1].Snapshot, done.Common.GUID)
	w.do("create", "tank/other")
	w.do("snapshot", "tank/other@s")
	_, errs = w.run(1, "replicate", "zfs:tank/other", "zfs:vault/e", "--rollback")
	w.has(errs, "no snapshot in common", "choose a target that does not exist yet")
}

// killed is a run that is killed in the middle, and the next one.
func (w *zfsWorld) killed() {
	w.do("create", "tank/k")
	noise := make([]byte, 4<<20)
	_, _ = rand.Read(noise)
	w.write("tank/k", "noise", string(noise))
	raw, err := json.Marshal(w.args("replicate", "zfs:tank/k", "zfs:vault/k", "--bwlimit", "100000"))
	w.must(err)
	self, err := os.Executable()
	w.must(err)
	cmd := exec.CommandContext(w.Context(), self, "-test.run=^TestZFSCommand$")
	cmd.Env = append(os.Environ(), "FIREDRILL_TEST_ZFS_COMMAND="+string(raw))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	w.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.receiving("vault/k", func() bool { return len(ended) > 0 })
	_, errs := w.run(255, "replicate", "zfs:tank/k", "zfs:vault/k")
	w.has(errs, "another run to the same place is under way")
	w.must(cmd.Process.Kill())
	<-ended
	done := w.send("tank/k", "vault/k")
	if len(done.Sent) != 2 {
		w.Errorf("%+v", done)
	}
	w.same(done.Sent[1].Snapshot, done.Common.GUID)
	if holds := w.do("get", "-H", "-o", "value", "-r", "userrefs", "tank/k"); strings.Count(holds, "1") != 1 {
		w.Errorf("holds are left:\n%s", holds)
	}
}

// receiving waits until a dataset is there, as it is while it is received.
func (w *zfsWorld) receiving(dataset string, ended func() bool) {
	w.Helper()
	for !strings.Contains(w.do("list", "-H", "-o", "name"), dataset+"\n") {
		if ended() {
			w.Fatal("it ended before it was killed")
		}
	}
}

// interrupted is a run that is told to end.
func (w *zfsWorld) interrupted() {
	w.do("create", "tank/i")
	w.write("tank/i", "file", strings.Repeat("text ", 1<<20))
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	ended := make(chan int, 1)
	var out, errs bytes.Buffer
	args := w.args("replicate", "zfs:tank/i", "zfs:vault/i", "--bwlimit", "100000")
	go func() {
		ended <- cli.Run(ctx, args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, target.NewRegistry())
	}()
	w.receiving("vault/i", func() bool { return len(ended) > 0 })
	cancel()
	if code := <-ended; code != run.Interrupted {
		w.Errorf("exit code %d: %s", code, &errs)
	}
	w.has(errs.String(), "the same command goes on from there")
	done := w.send("tank/i", "vault/i")
	w.same(done.Sent[1].Snapshot, done.Common.GUID)
}

// points is what points prints.
type points struct {
	Points []struct {
		Name, GUID, Since string
		Whole, Restorable bool
		StoredBytes       int64
	}
}

// bucket makes a bucket, and gives the location of an archive in it.
func (w *zfsWorld) bucket() (bucket.Config, string) {
	w.Helper()
	c := w.minio.Bucket(w.T, false)
	c.Prefix = "zfs/data/"
	return c, "s3+" + c.Endpoint + "/" + c.Bucket + "/zfs/data"
}

func (w *zfsWorld) archive() {
	c, where := w.bucket()
	w.do("create", "tank/data")
	_, errs := w.run(1, "check", where)
	w.has(errs, "nothing is archived there")
	_, errs = w.run(255, "archive", "zfs:tank/data", where, "--no-snapshot")
	w.has(errs, "the source has no snapshots")
	for i := range 3 {
		w.write("tank/data", fmt.Sprintf("d/file%d", i), strings.Repeat("text ", 1000*i))
		out, _ := w.run(0, "archive", "zfs:tank/data", where)
		w.has(out, "tank/data -> "+where+": 1 snapshot archived")
		var p points
		w.into(&p, 0, "points", where)
		w.keep("tank/data", p.Points[len(p.Points)-1].GUID)
	}
	var p points
	w.into(&p, 0, "points", where)
	if len(p.Points) != 3 || !p.Points[0].Whole || p.Points[2].Since != p.Points[1].Name {
		w.Fatalf("%+v", p)
	}
	out, _ := w.run(0, "points", where)
	w.has(out, "what changed since "+p.Points[0].Name, p.Points[2].GUID)
	out, _ = w.run(0, "check", where)
	w.has(out, "whole: 3 points in 3 parts")
	// The same by the name of its store, whose keys are where the inventory says.
	enginetest.Write(w.T, w.dir, "inventory.yaml", fmt.Sprintf("apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  stores:\n    - name: lab\n      endpoint: %s\n"+
		"      accessKey: {env: AWS_ACCESS_KEY_ID}\n      secretKey: {env: AWS_SECRET_ACCESS_KEY}\n", c.Endpoint))
	out, _ = w.run(0, "check", "s3:lab/"+c.Bucket+"/zfs/data", "--inventory", filepath.Join(w.dir, "inventory.yaml"))
	w.has(out, "whole: 3 points in 3 parts")
	for i, point := range p.Points {
		_, name, _ := strings.Cut(point.Name, "@")
		to := fmt.Sprintf("vault/restored%d", i)
		args := []string{"restore", where, "zfs:" + to}
		if i < 2 {
			args = append(args, "--point", name)
		}
		out, _ := w.run(0, args...)
		w.has(out, to+": restored to "+point.Name)
		w.same(to+"@"+name, point.GUID)
	}
	// The source keeps what the next increment begins at.
	w.run(0, "archive", "zfs:tank/data", where, "--keep", "monthly=1")
	if got := w.snapshots("tank/data"); len(got) != 1 {
		w.Errorf("%v are left", got)
	}
	w.do("create", "tank/stranger")
	_, errs = w.run(254, "archive", "zfs:tank/stranger", where)
	w.has(errs, "the archive is another dataset's, tank/data", "a prefix of its own")
	_, errs = w.run(254, "restore", where, "zfs:vault/none", "--point", "missing")
	w.has(errs, `none of its 4 points is named "missing"`)
	_, errs = w.run(1, "restore", where, "zfs:tank/stranger")
	w.has(errs, "choose a dataset that does not exist")
	// It is found among more than a listing of its directory shows at once.
	b, err := bucket.Open(w.Context(), c)
	w.must(err)
	defer b.Close()
	for i := range 1001 {
		_, err := b.Put(w.Context(), fmt.Sprintf("a%04d", i), strings.NewReader(""), 0, bucket.PutOptions{})
		w.must(err)
	}
	out, _ = w.run(0, "points", where)
	w.has(out, p.Points[2].GUID)
}

// damage is a part with a flipped bit, and then one that is gone.
func (w *zfsWorld) damage() {
	c, where := w.bucket()
	w.do("create", "tank/rot")
	for i := range 3 {
		w.write("tank/rot", "file", strings.Repeat("text ", 100+i))
		w.run(0, "archive", "zfs:tank/rot", where)
	}
	var p points
	w.into(&p, 0, "points", where)
	b, err := bucket.Open(w.Context(), c)
	w.must(err)
	defer b.Close()
	part := w.part(b, p.Points[1].GUID)
	r, _, err := b.Get(w.Context(), part, 0, -1)
	w.must(err)
	content, err := io.ReadAll(r)
	w.must(errors.Join(err, r.Close()))
	content[len(content)/2] ^= 1
	_, err = b.Put(w.Context(), part, bytes.NewReader(content), int64(len(content)), bucket.PutOptions{})
	w.must(err)

	out, errs := w.run(1, "check", where)
	w.has(out, "DAMAGED "+p.Points[1].Name, part, "it builds on "+p.Points[1].Name)
	w.has(errs, "NOT whole: 2 points of 3 cannot be restored")
	var checked struct {
		Whole   bool
		Damaged []struct{ Point string }
	}
	w.into(&checked, 1, "check", where)
	if checked.Whole || len(checked.Damaged) != 2 {
		w.Errorf("%+v", checked)
	}
	var failed struct {
		Error    string
		ExitCode int
	}
	w.into(&failed, 254, "check", "zfs:tank/rot")
	w.has(failed.Error, "an archive lies in a bucket")
	w.into(&failed, 1, "restore", where, "zfs:vault/rot3", "--whole")
	w.has(failed.Error, "the content is damaged")
	out, errs = w.run(1, "restore", where, "zfs:vault/rot")
	w.has(errs, "the content is damaged", part)
	w.has(out, "vault/rot: NOT restored to "+p.Points[2].Name, "as far as "+strings.TrimPrefix(p.Points[0].Name, "tank/rot@"))
	if got := w.snapshots("vault/rot"); len(got) != 1 {
		w.Errorf("it received %v", got)
	}
	w.run(1, "restore", where, "zfs:vault/rot2", "--whole")
	if list := w.do("list", "-H", "-o", "name"); strings.Contains(list, "vault/rot2") {
		w.Errorf("it left:\n%s", list)
	}
	w.must(b.Delete(w.Context(), []string{part}))
	out, _ = w.run(1, "check", where)
	w.has(out, part, "not found")
	for index, err := range b.List(w.Context(), bucket.ListOptions{Prefix: "points/"}) {
		w.must(err)
		if strings.Contains(index.Key, w.hex(p.Points[0].GUID)) {
			w.must(b.Delete(w.Context(), []string{index.Key}))
		}
	}
	out, errs = w.run(1, "points", where)
	w.has(out, "WHICH IS MISSING", "CANNOT BE RESTORED")
	w.has(errs, "2 points cannot be restored")
}

// hex is how keys have a guid.
func (w *zfsWorld) hex(guid string) string {
	w.Helper()
	number, err := strconv.ParseUint(guid, 10, 64)
	w.must(err)
	return fmt.Sprintf("%016x", number)
}

// part is the key of the only part of a point.
func (w *zfsWorld) part(b *bucket.Bucket, guid string) string {
	w.Helper()
	for o, err := range b.List(w.Context(), bucket.ListOptions{Prefix: "parts/" + w.hex(guid) + "-"}) {
		w.must(err)
		return o.Key
	}
	w.Fatalf("%s has no part", guid)
	return ""
}
