package cli_test

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
)

// thinning lets points of an archive go, and never one that another builds on.
func (w *zfsWorld) thinning() {
	_, where := w.bucket()
	w.do("create", "tank/thin")
	var p points
	last := func(again ...string) (guid string, whole bool) {
		w.write("tank/thin", "file", fmt.Sprint(len(p.Points)))
		w.run(0, append([]string{"archive", "zfs:tank/thin", where}, again...)...)
		w.into(&p, 0, "points", where)
		newest := p.Points[len(p.Points)-1]
		w.keep("tank/thin", newest.GUID)
		return newest.GUID, newest.Whole
	}
	for range 3 {
		last()
	}
	w.has(first(w.run(0, "prune", where, "--keep", "monthly=1")), ": 0 points pruned")
	// ZFS knows seconds only: a snapshot of the same one is not taken later.
	for whole := false; !whole; {
		_, whole = last("--whole-every", "1ns")
	}
	all := len(p.Points)
	w.has(first(w.run(0, "prune", where, "--keep", "monthly=1", "--dry-run")), fmt.Sprintf("%d points would be pruned", all-1))
	w.has(first(w.run(0, "check", where)), fmt.Sprintf("whole: %d points", all))
	var done struct {
		Pruned, Needed []struct{ Name string }
		FreedBytes     int64
	}
	w.into(&done, 0, "prune", where, "--keep", "monthly=1", "--read")
	if len(done.Pruned) != all-1 || len(done.Needed) != 0 || done.FreedBytes == 0 {
		w.Errorf("%+v", done)
	}
	w.has(first(w.run(0, "check", where)), "whole: 1 point in 1 part")
	// And in one go with archiving.
	guid, whole := "", false
	for !whole {
		guid, whole = last("--whole-every", "1ns", "--keep-points", "monthly=1")
	}
	if len(p.Points) != 1 {
		w.Errorf("left: %+v", p)
	}
	w.has(first(w.run(0, "restore", where, "zfs:vault/thin")), "restored to "+p.Points[0].Name)
	_, name, _ := strings.Cut(p.Points[0].Name, "@")
	w.same("vault/thin@"+name, guid)
}

// recursive brings all datasets below one over, whatever becomes of one of them.
func (w *zfsWorld) recursive() {
	for _, dataset := range []string{"tank/tree", "tank/tree/a", "tank/tree/a/b", "tank/tree-top"} {
		w.do("create", dataset)
		w.write(dataset, "file", dataset)
	}
	planned := first(w.run(0, "replicate", "zfs:tank/tree", "zfs:vault/tree", "--recursive", "--dry-run"))
	w.has(planned, "tank/tree -> vault/tree: nothing is done", "tank/tree/a/b -> vault/tree/a/b: nothing")
	type results struct {
		Datasets []replicated
		Error    string
	}
	var r results
	send := func(want int) {
		w.Helper()
		r = results{}
		w.into(&r, want, "replicate", "zfs:tank/tree", "zfs:vault/tree", "--recursive")
		for _, one := range r.Datasets {
			// Those above hold the places where those below are mounted.
			from, _, _ := strings.Cut(one.Common.Snapshot, "@")
			if len(one.Sent) > 0 && (from == "tank/tree/a/b" || from == "tank/tree/c") {
				w.keep(from, one.Common.GUID)
				w.same(one.Sent[len(one.Sent)-1].Snapshot, one.Common.GUID)
			}
		}
	}
	send(0)
	if len(r.Datasets) != 3 || strings.Contains(w.do("list", "-H", "-o", "name"), "vault/tree-top") {
		w.Fatalf("%+v", r)
	}
	// One that cannot go on keeps no other from it, and one that is new is sent whole.
	w.do("set", "readonly=off", "vault/tree/a")
	w.do("mount", "vault/tree/a")
	w.write("vault/tree/a", "mine", "precious")
	w.do("create", "tank/tree/c")
	w.write("tank/tree/c", "file", "new")
	w.write("tank/tree/a/b", "file", "changed")
	send(1)
	w.has(r.Error, "replicate tank/tree/a", "the target was changed", "--rollback")
	if len(r.Datasets) != 4 || len(r.Datasets[1].Sent) != 0 || len(r.Datasets[2].Sent) != 1 || r.Datasets[2].Sent[0].Since == "" || r.Datasets[3].Sent[0].Since != "" {
		w.Fatalf("%+v", r)
	}
	_, errs := w.run(254, "replicate", "zfs:tank/tree", "zfs:tank/tree/a/copy", "--recursive")
	w.has(errs, "tank/tree/a/copy lies in tank/tree")
	_, errs = w.run(255, "replicate", "zfs:tank/nothing", "zfs:vault/nothing", "--recursive")
	w.has(errs, "no such dataset")

	c, where := w.bucket()
	for _, archived := range []string{"3 snapshots archived", "1 snapshot archived"} {
		w.has(first(w.run(0, "archive", "zfs:tank/tree", where, "--recursive")),
			"tank/tree -> "+where+"/tank=tree: "+archived, "tank/tree/a/b -> "+where+"/tank=tree=a=b: "+archived)
	}
	w.has(first(w.run(0, "check", where+"/tank=tree=c")), "whole: 3 points")
	w.has(first(w.run(0, "restore", where+"/tank=tree=a=b", "zfs:vault/b")), "restored to tank/tree/a/b@")
	w.folder(c, where)
	_, errs = w.run(254, "archive", "zfs:tank/tree", where+"/tank=tree=c", "--recursive")
	w.has(errs, "is the archive of tank/tree/c")
	// What was not printed is said as every error is.
	var failed struct {
		Error    string
		ExitCode int
	}
	w.into(&failed, 255, "archive", "zfs:tank/tree", "s3+http://127.0.0.1:1/bucket")
	w.has(failed.Error, "the server does not answer")
}

// folder is a place at which there is an archive for each dataset of tank/tree.
func (w *zfsWorld) folder(c bucket.Config, where string) {
	out, _ := w.run(0, "points", where)
	w.has(out, where+"/tank=tree:\nPOINT", where+"/tank=tree=a=b:\nPOINT")
	var listed struct {
		Datasets []struct {
			Where  string
			Points []struct{ Name string }
		}
	}
	w.into(&listed, 0, "points", where)
	if len(listed.Datasets) != 4 || listed.Datasets[1].Where != where+"/tank=tree=a" || len(listed.Datasets[1].Points) == 0 {
		w.Errorf("%+v", listed)
	}
	out, _ = w.run(0, "check", where)
	w.has(out, where+"/tank=tree: whole: ", where+"/tank=tree=a=b: whole: ", where+"/tank=tree=c: whole: 3 points")
	_, errs := w.run(254, "restore", where, "zfs:vault/all")
	w.has(errs, "it has one for each dataset, such as "+where+"/tank=tree:", "--recursive")
	_, errs = w.run(254, "restore", where+"/tank=tree=a", "zfs:vault/all", "--recursive")
	w.has(errs, "no place at which there are archives of several datasets")
	_, errs = w.run(254, "restore", where, "zfs:vault/all", "--recursive", "--point", "x")
	w.has(errs, "--point: ")
	out, _ = w.run(0, "restore", where, "zfs:vault/all", "--recursive")
	w.has(out, "vault/all: restored to tank/tree@", "vault/all/a/b: restored to tank/tree/a/b@", "vault/all/c: restored to tank/tree/c@")
	w.has(w.do("list", "-H", "-o", "name", "-r", "vault/all"), "vault/all\nvault/all/a\nvault/all/a/b\nvault/all/c\n")
	// Another dataset's archive beside them lies in none of theirs.
	w.run(0, "archive", "zfs:tank/tree-top", where, "--recursive")
	_, errs = w.run(254, "restore", where, "zfs:vault/more", "--recursive")
	w.has(errs, "tank/tree and tank/tree-top lie in no dataset that is archived there")
	// What is damaged in one of them keeps nobody from seeing the others.
	c.Prefix += "tank=tree=c/"
	b, err := bucket.Open(w.Context(), c)
	w.must(err)
	defer b.Close()
	for o, err := range b.List(w.Context(), bucket.ListOptions{Prefix: "parts/"}) {
		w.must(err)
		w.must(b.Delete(w.Context(), []string{o.Key}))
	}
	out, errs = w.run(1, "check", where)
	w.has(out, "DAMAGED tank/tree/c@", where+"/tank=tree-top: whole: 1 point")
	w.has(errs, where+"/tank=tree=c: NOT whole")
}

// scheduled are mirrors of the inventory that bring over snapshots: when they are asked
// for, and by themselves.
func (w *zfsWorld) scheduled() {
	for _, dataset := range []string{"tank/s", "tank/s/below"} {
		w.do("create", dataset)
		w.write(dataset, "file", dataset)
	}
	c, _ := w.bucket()
	via := fmt.Sprintf("fromVia: %q", strings.Join(w.zfs.Argv(), " "))
	inventory := filepath.Join(w.dir, "scheduled.yaml")
	write := func(more string) {
		enginetest.Write(w.T, w.dir, "scheduled.yaml", fmt.Sprintf(`apiVersion: firedrill/v1
kind: Inventory
spec:
  stores:
    - {name: lab, endpoint: %q, accessKey: {env: AWS_ACCESS_KEY_ID}, secretKey: {env: AWS_SECRET_ACCESS_KEY}}
  mirrors:
    - name: offsite
      from: zfs:tank/s
      to: zfs:vault/s
      snapshots: {%s, toVia: %q, recursive: true, keep: daily=1}
    - name: vaulted
      from: zfs:tank/s
      to: s3:lab/%s/vaulted
      snapshots: {%s, wholeEvery: 168h, keepPoints: daily=1}
%s`, c.Endpoint, via, strings.Join(w.zfs.Argv(), " "), c.Bucket, via, more))
	}
	write("")
	flags := []string{"--inventory", inventory, "--state-dir", filepath.Join(w.dir, "scheduled")}
	mirror := func(want int, args ...string) (out, errs string) {
		return w.plain(want, append(append([]string{"mirror"}, args...), flags...)...)
	}
	w.has(first(mirror(0, "sync", "--dry-run", "offsite")), "offsite: would have: 2 copied")
	w.has(first(mirror(0, "sync", "offsite")), "offsite: 2 copied (")
	w.has(first(mirror(0, "sync", "offsite")), "offsite: 2 copied (", "4 deleted")
	w.has(first(mirror(0, "status", "offsite")), "2 copied, 4 deleted")
	if got := w.snapshots("vault/s"); len(got) != 2 {
		w.Errorf("the target and what is below it have %v", got)
	}
	w.has(first(mirror(0, "sync", "vaulted")), "vaulted: 2 copied (")
	// What arrived otherwise is in the way of one dataset, and of no other.
	w.do("set", "readonly=off", "vault/s")
	w.do("snapshot", "vault/s@mine")
	w.has(first(mirror(1, "sync", "offsite")), "1 copied", `failed     put "tank/s"`, "vault/s@mine, which the source does not have")
	w.do("destroy", "vault/s@mine")
	_, errs := mirror(254, "verify", "offsite")
	w.has(errs, "it brings over snapshots")
	_, errs = mirror(254, "sync", "--check", "audit", "offsite")
	w.has(errs, "--check: mirror offsite brings over snapshots")

	write("      every: 1s\n")
	m := &mirrorWorld{t: w.T, dir: w.dir}
	up, stop, ended := m.begin(append([]string{"up", "--listen", "127.0.0.1:0", "--http", ""}, flags...)...)
	m.until("it has run by itself", func() bool {
		out, _ := mirror(0, "status", "vaulted")
		return strings.Contains(out, "by schedule") && strings.Contains(out, "1 copied, ")
	})
	stop()
	if code := <-ended; code != 0 {
		w.Errorf("up: exit code %d: %s", code, up)
	}
	w.has(first(w.plain(0, append([]string{"zfs", "check", "s3:lab/" + c.Bucket + "/vaulted"}, flags...)...)), "each point leads back to a whole one")
}

func (w *zfsWorld) refusals() {
	_, where := w.bucket()
	before := len(w.snapshots("tank/a"))
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"replicate", "tank/a", "zfs:vault/a"}, 254, "write scheme:path"},
		{[]string{"replicate", "zfs:tank/a", "dir:/x"}, 254, "write zfs:pool/dataset"},
		{[]string{"replicate", "zfs:tank/a", "zfs:tank/a"}, 254, "name another dataset"},
		{[]string{"replicate", "zfs:tank/a", "zfs:vault/a", "--keep", "yearly=1"}, 254, "write hourly, daily, weekly or monthly"},
		{[]string{"replicate", "zfs:tank/nothing", "zfs:vault/a"}, 255, "no such dataset"},
		{[]string{"replicate", "zfs:tank/a", "zfs:nopool/a"}, 255, "name a dataset in a pool that is there"},
		{[]string{"replicate", "zfs:tank/a", "zfs:nopool/a", "--dry-run"}, 255, "name a dataset in a pool that is there"},
		{[]string{"replicate", "zfs:tank/a", "zfs:vault/none/a"}, 255, "zfs create -p vault/none"},
		{[]string{"replicate", "zfs:tank/a", "zfs:vault/none/a", "--recursive"}, 255, "zfs create -p vault/none"},
		{[]string{"replicate", "zfs:tank/a", "zfs:vault/a", "--bwlimit", "x"}, 254, "10M (10,000,000)"},
		{[]string{"prune", "zfs:vault/a"}, 254, "--keep is missing"},
		{[]string{"prune", "zfs:vault/a", "--keep", "hourly=0"}, 254, "keeps nothing"},
		{[]string{"prune", where, "--keep", "daily=1", "--via", "ssh b --"}, 254, "--via: "},
		{[]string{"prune", "zfs:vault/a", "--keep", "daily=1", "--read"}, 254, "--read: "},
		{[]string{"archive", "zfs:tank/a", where, "--keep-points", "daily=1"}, 254, "--whole-every 168h"},
		{[]string{"archive", "zfs:tank/a", where, "--keep-points", "daily=x", "--whole-every", "1h"}, 254, "--keep-points: "},
		{[]string{"archive", "zfs:tank/a", "zfs:vault/a"}, 254, "an archive lies in a bucket"},
		{[]string{"archive", "zfs:tank/a", "s3:backup/bucket"}, 254, `the inventory has no store "backup"`},
		{[]string{"points", "s3+http://127.0.0.1:1/bucket"}, 255, "the server does not answer"},
		{[]string{"points", where + "x/../y"}, 254, "the prefix must be clean"},
		{[]string{"restore", where, "zfs:vault/new"}, 1, "no point that can be restored"},
	} {
		_, errs := w.run(c.code, c.args...)
		w.has(errs, c.want)
	}
	if after := w.snapshots("tank/a"); len(after) != before {
		w.Errorf("runs that were refused took %v", after[before:])
	}
	far := strings.Join(w.zfs.Argv(), " ")
	for via, want := range map[string]string{
		"env -i PATH=/nonexistent": "install zfsutils-linux",
		"false":                    "no ZFS answers",
		"/does/not/exist":          "see that `/does/not/exist true` works",
		far + " setpriv --reuid=65534 --regid=65534 --clear-groups --": "run it as root",
	} {
		_, errs := w.plain(255, "zfs", "prune", "zfs:tank/a", "--keep", "daily=1", "--via", via)
		w.has(errs, want)
	}
}
