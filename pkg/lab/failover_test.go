package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/internal/await"
	"github.com/firedrill/firedrill/pkg/lab/relay"
)

// TestFailoverAndRewind walks the way of a drill with PostgreSQL's own
// programs: kill the primary, promote the standby, move the service, rewind the
// dead primary and let it follow. It keeps the lab fit for that: a data
// directory copied from the other node must not make a node the other one.
func TestFailoverAndRewind(t *testing.T) {
	p := startLab(t, PostgresOptions{Rows: 1000})
	ctx := within(t, time.Minute)
	a, b := p.Nodes[0], p.Nodes[1]
	app, err := p.ConnectService(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(ctx)
	if _, err := app.Exec(ctx, `CREATE TABLE kept AS SELECT 1 AS n`); err != nil {
		t.Fatal(err)
	}
	await.Until(t, patience, "b has it", func() bool {
		return count(t, ctx, p, "b", `SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'`) == 1
	})
	killAll(t, a)
	must(t, p.account.run(ctx, p.Dir, filepath.Join(p.BinDir, "pg_ctl"), "-D", b.DataDir, "-w", "-s", "promote"))
	if _, err := p.Service().Switch(fmt.Sprintf("%s:%d", b.Host, b.Port)); err != nil {
		t.Fatal(err)
	}
	fresh, err := p.ConnectService(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close(ctx)
	if _, err := fresh.Exec(ctx, `INSERT INTO kept VALUES (2)`); err != nil {
		t.Fatal(err)
	}
	rewind(t, ctx, p, a, b)
	await.Until(t, patience, "a follows b", func() bool {
		return count(t, ctx, p, "b", `SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'a'`) == 1
	})
	if got := count(t, ctx, p, "a", `SELECT setting::int FROM pg_settings WHERE name = 'port'`); got != a.Port {
		t.Fatalf("a listens on %d", got)
	}
	log, err := os.ReadFile(a.LogFile)
	if err != nil || !strings.Contains(string(log), "entering standby mode") {
		t.Fatalf("a's log is not in %s: %v", a.LogFile, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// killAll kills a node and waits until init has collected its processes, which
// takes some init programs seconds: to PostgreSQL a postmaster that is a zombie
// still holds its lock file.
func killAll(t *testing.T, n Node) {
	t.Helper()
	pids := serversUnder(n.DataDir)
	for _, pid := range pids {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	began := time.Now()
	await.Until(t, patience, "the killed processes are collected", func() bool {
		for _, pid := range pids {
			if syscall.Kill(pid, 0) == nil {
				return false
			}
		}
		return true
	})
	t.Logf("%d processes were collected after %v", len(pids), time.Since(began).Round(time.Millisecond))
}

func rewind(t *testing.T, ctx context.Context, p *Postgres, dead, source Node) {
	t.Helper()
	admin, err := os.ReadFile(p.Secrets.Admin)
	must(t, err)
	pass := filepath.Join(p.Dir, "adminpass")
	must(t, p.account.write(pass, "*:*:*:postgres:"+string(admin)+"\n"))
	must(t, p.account.run(ctx, p.Dir, filepath.Join(p.BinDir, "pg_rewind"), "-D", dead.DataDir, "--no-sync",
		"--source-server", fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres passfile=%s", source.Host, source.Port, pass)))
	must(t, p.account.write(filepath.Join(dead.DataDir, "standby.signal"), ""))
	must(t, p.account.run(ctx, p.Dir, filepath.Join(p.BinDir, "pg_ctl"), "-D", dead.DataDir, "-w", "-s", "-l", dead.LogFile, "start"))
}

// TestAReplacedDataDirectoryLeavesNoSharedMemory: a rebuild throws away the
// file that names the killed postmaster's segment.
func TestAReplacedDataDirectoryLeavesNoSharedMemory(t *testing.T) {
	p := startLab(t, PostgresOptions{Rows: 10})
	ids := sharedMemory(p.Dir)
	killAll(t, p.Nodes[0])
	must(t, os.RemoveAll(p.Nodes[0].DataDir))
	must(t, p.Stop())
	if len(ids) != 2 {
		t.Fatalf("shared memory %v, want a segment for each node", ids)
	}
	for _, id := range ids {
		if segmentExists(id) {
			t.Errorf("shared memory segment %d is left", id)
		}
	}
}

// TestASlowedLinkLosesWhatWasUnderWay: the loss that an asynchronous drill is
// to find is really there, and a synchronous commit feels the link.
func TestASlowedLinkLosesWhatWasUnderWay(t *testing.T) {
	const delay = 300 * time.Millisecond
	p := startLab(t, PostgresOptions{Rows: 10, LinkDelay: delay})
	ctx := within(t, time.Minute)
	a, b := p.Nodes[0], p.Nodes[1]
	app, err := p.ConnectService(ctx)
	must(t, err)
	defer app.Close(ctx)
	_, err = app.Exec(ctx, `CREATE TABLE ledger (n int)`)
	must(t, err)
	await.Until(t, patience, "the table has arrived", func() bool {
		c, err := p.Record.connect(ctx, b.Port, p.User, p.Secrets.App, p.Database)
		must(t, err)
		defer c.Close(ctx)
		var n int
		return c.QueryRow(ctx, `SELECT count(*) FROM ledger`).Scan(&n) == nil
	})
	acknowledged := 0
	for end := time.Now().Add(2 * delay); time.Now().Before(end); acknowledged++ {
		_, err := app.Exec(ctx, `INSERT INTO ledger VALUES ($1)`, acknowledged)
		must(t, err)
	}
	killAll(t, a)
	await.Until(t, patience, "b notices", func() bool {
		return count(t, ctx, p, "b", `SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'`) == 0
	})
	must(t, p.account.run(ctx, p.Dir, filepath.Join(p.BinDir, "pg_ctl"), "-D", b.DataDir, "-w", "-s", "promote"))
	_, err = relay.Client{URL: p.ServiceControl}.Switch(ctx, fmt.Sprintf("%s:%d", b.Host, b.Port))
	must(t, err)
	fresh, err := p.ConnectService(ctx)
	must(t, err)
	defer fresh.Close(ctx)
	var present int
	must(t, fresh.QueryRow(ctx, `SELECT count(*) FROM ledger`).Scan(&present))
	if present == 0 || present >= acknowledged {
		t.Fatalf("%d of %d acknowledged rows are there; want some, and not all", present, acknowledged)
	}
	t.Logf("%d of %d acknowledged rows lost at %v", acknowledged-present, acknowledged, delay)
}
