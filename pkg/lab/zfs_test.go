package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/internal/await"
)

func startZFS(t *testing.T, pools ...ZFSPool) *ZFS {
	t.Helper()
	z, err := StartZFS(within(t, 2*time.Minute), ZFSOptions{Dir: filepath.Join(t.TempDir(), "lab"), Pools: pools})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := z.Stop(); err != nil {
			t.Error(err)
		}
		gone(t, z.Dir)
	})
	return z
}

// gone checks that nothing of a lab is left.
func gone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left (%v)", dir, err)
	}
	if m, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(m), dir) {
		t.Errorf("a mount below %s is left (%v)", dir, err)
	}
}

// in runs a command where the lab's ZFS is.
func in(t *testing.T, z *ZFS, words string) string {
	t.Helper()
	argv := append(z.Argv(), strings.Fields(words)...)
	out, err := exec.CommandContext(within(t, time.Minute), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", words, err, out)
	}
	return string(out)
}

func TestZFSPoolsAreSeenFromOutside(t *testing.T) {
	z := startZFS(t, ZFSPool{Name: "one"}, ZFSPool{Name: "two", Mirror: true, Size: 64 << 20})
	in(t, z, "zfs create one/data")
	file := filepath.Join(z.Mountpoint("one"), "data", "file")
	must(t, os.WriteFile(file, []byte("content"), 0o600))
	if out := in(t, z, "cat "+file); out != "content" {
		t.Errorf("inside: %q", out)
	}
	if out := in(t, z, "zpool status two"); strings.Count(out, "/vdevs/two-") != 2 || !strings.Contains(out, "mirror") {
		t.Errorf("no mirror of two files:\n%s", out)
	}
	if _, err := os.Stat("/run/zfs"); err == nil {
		t.Error("its socket is the machine's")
	}
}

// TestZFSLabsDoNotMeet: test processes run side by side, with pools of one name.
func TestZFSLabsDoNotMeet(t *testing.T) {
	a, b := startZFS(t, ZFSPool{Name: "tank"}), startZFS(t, ZFSPool{Name: "tank"})
	in(t, a, "zfs create tank/of-a")
	if out := in(t, b, "zfs list -H -o name"); strings.Contains(out, "of-a") {
		t.Errorf("b has a's dataset:\n%s", out)
	}
	must(t, b.Stop())
	if out := in(t, a, "zfs list -H -o name"); !strings.Contains(out, "tank/of-a") {
		t.Errorf("a lost its dataset:\n%s", out)
	}
	must(t, os.WriteFile(filepath.Join(a.Mountpoint("tank"), "of-a", "f"), nil, 0o600))
}

func TestZFSScrubFindsDamage(t *testing.T) {
	z := startZFS(t, ZFSPool{Name: "single", Size: 64 << 20}, ZFSPool{Name: "double", Size: 64 << 20, Mirror: true})
	for _, pool := range []string{"single", "double"} {
		must(t, os.WriteFile(filepath.Join(z.Mountpoint(pool), "f"), make8(16<<20), 0o600))
	}
	// What is in memory only could not be damaged.
	must(t, z.Restart(within(t, time.Minute)))
	must(t, z.Damage("single", 0, 0, 24<<20))
	must(t, z.Damage("double", 1, 0, 24<<20))
	for pool, want := range map[string]string{"single": "data errors, use '-v'", "double": "with 0 errors"} {
		in(t, z, "zpool scrub "+pool)
		await.Until(t, patience, "the scrub of "+pool+" finds the damage", func() bool {
			out := in(t, z, "zpool status "+pool)
			return strings.Contains(out, "scrub completed") && strings.Contains(out, want) && strings.Contains(out, "experienced")
		})
	}
}

// make8 is n bytes that do not compress to nothing.
func make8(n int) []byte {
	b, state := make([]byte, n), uint64(1)
	for i := range b {
		state = state*6364136223846793005 + 1442695040888963407
		b[i] = byte(state >> 56)
	}
	return b
}

func TestZFSDamageStaysBetweenTheLabels(t *testing.T) {
	z := startZFS(t, ZFSPool{Name: "p", Size: 64 << 20})
	for _, bad := range []struct {
		pool   string
		file   int
		off, n int64
	}{{"q", 0, 0, 1}, {"p", 1, 0, 1}, {"p", -1, 0, 1}, {"p", 0, -1, 1}, {"p", 0, 0, 60 << 20}} {
		if err := z.Damage(bad.pool, bad.file, bad.off, bad.n); err == nil {
			t.Errorf("%+v was done", bad)
		}
	}
	in(t, z, "zpool scrub p")
	if out := in(t, z, "zpool status -x"); !strings.Contains(out, "all pools are healthy") {
		t.Error(out)
	}
}

func TestZFSRestartsWithItsData(t *testing.T) {
	z := startZFS(t, ZFSPool{Name: "tank"})
	file := filepath.Join(z.Mountpoint("tank"), "f")
	must(t, os.WriteFile(file, []byte("kept"), 0o600))
	in(t, z, "zfs snapshot tank@synced") // which is on the disk when it returns
	before := z.PID()
	must(t, syscall.Kill(before, syscall.SIGSTOP))
	must(t, z.Restart(within(t, time.Minute)))
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "kept" || z.PID() == before {
		t.Errorf("%q, %v, process %d then %d", raw, err, before, z.PID())
	}
}

func TestZFSThatCannotStartLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	_, err := StartZFS(within(t, time.Minute), ZFSOptions{Dir: dir, Pools: []ZFSPool{{Name: "good"}, {Name: "mirror"}}})
	if err == nil || !strings.Contains(err.Error(), "reserved") {
		t.Errorf("got %v", err)
	}
	gone(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartZFS(ctx, ZFSOptions{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	gone(t, dir)
}

func TestZFSStopsOnceForAll(t *testing.T) {
	z := startZFS(t, ZFSPool{Name: "tank"})
	in(t, z, "zfs create tank/a")
	// Somebody still works there.
	f, err := os.Create(filepath.Join(z.Mountpoint("tank"), "a", "open"))
	must(t, err)
	defer f.Close()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := z.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	gone(t, z.Dir)
}

// playZFS makes the test below start a lab and wait to be killed.
const playZFS = "FIREDRILL_TEST_PLAY_ZFS"

// TestKilledZFSStarterLeavesNothing kills -9 a program that runs a lab.
func TestKilledZFSStarterLeavesNothing(t *testing.T) {
	if dir := os.Getenv(playZFS); dir != "" {
		_, err := StartZFS(t.Context(), ZFSOptions{Dir: dir, Pools: []ZFSPool{{Name: "tank"}}})
		fmt.Println("started", err)
		select {}
	}
	dir := filepath.Join(t.TempDir(), "lab")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), playZFS+"="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if text, err := bufio.NewReader(out).ReadString('\n'); err != nil || text != "started <nil>\n" {
		t.Fatalf("%q, %v", text, err)
	}
	if m, err := os.ReadFile("/proc/self/mountinfo"); err != nil || !strings.Contains(string(m), dir+"/mnt/tank") {
		t.Fatalf("the pool is not mounted (%v)", err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	await.Until(t, patience, "no file is left", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	})
	gone(t, dir)
	await.Until(t, patience, "no zfs-fuse is left", func() bool { return !namesDir(dir) })
}

// namesDir tells whether a process has the directory mounted for itself.
func namesDir(dir string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, m := range all {
		if raw, err := os.ReadFile(m); err == nil && strings.Contains(string(raw), dir) {
			return true
		}
	}
	return false
}
