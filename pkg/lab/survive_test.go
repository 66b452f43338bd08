package lab

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/internal/await"
	"github.com/firedrill/firedrill/pkg/lab/relay"
)

// patience is how long a test waits for what a server does by itself.
const patience = 30 * time.Second

// TestKilledStarterLeavesNothing kills -9 a program that runs a lab, after it
// froze the primary, as an aborted drill would.
func TestKilledStarterLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	cmd := exec.Command(os.Args[0], playStarter, dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if text, err := bufio.NewReader(out).ReadString('\n'); err != nil || text != "ready\n" {
		t.Fatalf("%q, %v", text, err)
	}
	frozen := serversUnder(filepath.Join(dir, "a", "data"))
	if len(frozen) < 3 {
		t.Fatalf("primary's processes: %v", frozen)
	}
	for _, pid := range frozen {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	ids := sharedMemory(dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	await.Until(t, patience, "no process and no file is left", func() bool {
		_, err := os.Stat(dir)
		return len(serversUnder(dir)) == 0 && errors.Is(err, os.ErrNotExist)
	})
	if m, err := os.ReadFile("/proc/mounts"); err != nil || strings.Contains(string(m), dir) {
		t.Errorf("a mount is left (%v)", err)
	}
	for _, id := range ids {
		if segmentExists(id) {
			t.Errorf("shared memory segment %d is left", id)
		}
	}
	if len(ids) != 2 {
		t.Errorf("shared memory %v, want a segment for each node", ids)
	}
}

func TestDetachedLab(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	ctx := within(t, 2*time.Minute)
	if _, err := Read(dir); !errors.Is(err, ErrNoLab) {
		t.Fatalf("before: %v", err)
	}
	o := UpOptions{
		Postgres:     PostgresOptions{Rows: 10, LinkDelay: 5 * time.Millisecond, PgBouncer: true},
		RelayCommand: []string{os.Args[0], playRelay},
	}
	r, err := Up(ctx, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Down(within(t, time.Minute), dir); err != nil && !errors.Is(err, ErrNoLab) {
			t.Error(err)
		}
	})
	if _, err := Up(ctx, dir, o); !errors.Is(err, ErrLabExists) {
		t.Fatalf("a second lab in the same place: %v", err)
	}
	read, err := Read(dir)
	if err != nil || read.ServicePort != r.ServicePort || len(read.Nodes) != 2 || string(read.Config) == "" {
		t.Fatalf("%+v, %v", read, err)
	}
	if got := strings.Join(read.Running(), " "); got != "relays postgres" {
		t.Fatalf("running: %s", got)
	}
	b, _ := read.Node("b")
	k := relay.Client{URL: read.ServiceControl}
	if _, err := k.Switch(ctx, net.JoinHostPort(b.Host, strconv.Itoa(b.Port))); err != nil {
		t.Fatal(err)
	}
	c, err := read.connect(ctx, read.ServicePort, read.User, read.Secrets.App, read.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	var standby bool
	if err := c.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby); err != nil || !standby {
		t.Fatalf("the service does not lead to b: %v", err)
	}
	link, err := relay.Client{URL: read.Nodes[0].ReplicationControl}.State(ctx)
	if err != nil || link.Link.DelayMS != 5 {
		t.Fatalf("%+v, %v", link, err)
	}
	if err := Down(ctx, dir); err != nil {
		t.Fatal(err)
	}
	if left := read.Running(); len(left) > 0 {
		t.Fatalf("after down: %v", left)
	}
	if err := Down(ctx, dir); !errors.Is(err, ErrNoLab) {
		t.Fatalf("again: %v", err)
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	_, err := Up(within(t, time.Minute), dir, UpOptions{RelayCommand: []string{"false"}})
	if err == nil || !strings.Contains(err.Error(), "relays: wait for the relays: false ended at once") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is left: %v", dir, err)
	}
}

// TestAnEndedStartLeavesNothing ends the start's context at several moments.
func TestAnEndedStartLeavesNothing(t *testing.T) {
	for _, after := range []time.Duration{0, 300 * time.Millisecond, 800 * time.Millisecond} {
		dir := filepath.Join(t.TempDir(), "lab")
		p, err := StartPostgres(within(t, after), PostgresOptions{Dir: dir, PgBouncer: true})
		if err == nil { // a fast machine: that is no failure of what is tested
			must(t, p.Stop())
		} else if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "signal: killed") {
			t.Errorf("after %v: %v", after, err)
		}
		if left := serversUnder(dir); len(left) > 0 {
			t.Errorf("after %v: processes %v are left", after, left)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after %v: %s is left", after, dir)
		}
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := StartPostgres(within(t, time.Minute), PostgresOptions{Dir: dir}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Fatal(err)
	}
}

// TestAMovedRecordIsNotFollowed: stopping removes the directory it speaks of.
func TestAMovedRecordIsNotFollowed(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if err := (Record{Dir: other}).save(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other, RecordFile), filepath.Join(dir, RecordFile)); err != nil {
		t.Fatal(err)
	}
	if err := Down(within(t, time.Minute), dir); err == nil || !strings.Contains(err.Error(), "moved") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Fatal(err)
	}
}
