package postgres_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// playUndo makes the test program undo a record, to be killed meanwhile.
const playUndo = "play-undo"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == playUndo {
		if err := undoFromStdin(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

type undoJob struct{ Config, Record json.RawMessage }

func undoFromStdin() error {
	var j undoJob
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	tg, err := postgres.Driver{}.Open(context.Background(), target.Config{Name: "db", Raw: j.Config, Clock: clock.System()})
	if err != nil {
		return err
	}
	fmt.Println("begins")
	_, err = tg.Injector.Undo(context.Background(), target.Operation{}, j.Record)
	return err
}

// undoKilled starts an undo in a process of its own and kills it after a while.
func (r *rig) undoKilled(t *testing.T, record json.RawMessage, after time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], playUndo)
	cmd.Stdin = bytes.NewReader(raw(t, undoJob{r.config, record}))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "begins\n" {
		t.Fatalf("the undo did not begin: %q, %v, %s", line, err, stderr.String())
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	t.Logf("undo killed after %v: %v %s", after, err, stderr.String())
}

// TestUndoKilledAnywhere kills the process that fails back at one moment after
// another; a fresh one must finish, and lose nothing that was acknowledged.
func TestUndoKilledAnywhere(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{Synchronous: true})
	r.synchronous = true
	for i, after := range []time.Duration{150, 300, 500, 900} {
		after *= time.Millisecond
		t.Run(after.String(), func(t *testing.T) {
			tg := r.open(t)
			w := startWriter(t, tg, "cut"+after.String())
			w.okSince(t, 20)
			do(t, tg, postgres.FaultKill, nil)
			_, op, record := do(t, tg, postgres.ActionPromote, nil)
			do(t, tg, postgres.ActionRedirect, nil)
			w.okSince(t, 20)
			if i == 2 {
				record = withMethod(t, record, postgres.MethodBaseBackup)
			}
			r.undoKilled(t, record, after)
			undo(t, r.open(t), op, record)
			eventually(t, "home", r.healthy)
			w.okSince(t, 20)
			lost, phantom := w.stop(t, tg)
			if lost.Len() > 0 || phantom.Len() > 0 {
				t.Errorf("lost %v, phantom %v", lost, phantom)
			}
			r.nothingLeft(t)
		})
	}
}

func withMethod(t *testing.T, record json.RawMessage, method string) json.RawMessage {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(record, &m); err != nil {
		t.Fatal(err)
	}
	m["method"] = method
	return raw(t, m)
}

func TestSplitBrain(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	t.Run("clients stay with the old primary", func(t *testing.T) {
		tg := r.open(t)
		w := startWriter(t, tg, "stay")
		w.okSince(t, 20)
		_, op, record := do(t, tg, postgres.ActionPromote, nil)
		w.okSince(t, 20)
		undo(t, r.open(t), op, record)
		eventually(t, "home", r.healthy)
		w.okSince(t, 20)
		if lost, _ := w.stop(t, tg); lost.Len() > 0 {
			t.Errorf("lost %v: the primary that clients were on was given up", lost)
		}
	})
	t.Run("clients move to the new primary", func(t *testing.T) {
		tg := r.open(t)
		_, op, record := do(t, tg, postgres.ActionPromote, nil)
		do(t, tg, postgres.ActionRedirect, map[string]any{"node": "b"})
		w := startWriter(t, tg, "move")
		w.okSince(t, 20)
		// A client that never noticed writes to the old primary.
		c, err := r.Connect(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		if _, err := c.Exec(t.Context(), "CREATE TABLE only_on_a AS SELECT 1 AS x"); err != nil {
			t.Fatal(err)
		}
		wantResult(t, check(t, tg, postgres.CheckForensics, nil, nil), "commits that did not survive", event.ResultInconclusive)
		undo(t, r.open(t), op, record)
		eventually(t, "home", r.healthy)
		w.okSince(t, 20)
		if lost, _ := w.stop(t, tg); lost.Len() > 0 {
			t.Errorf("lost %v", lost)
		}
		r.evidenceKept(t)
	})
	t.Run("another cluster is refused", func(t *testing.T) {
		tg := r.open(t)
		for _, name := range []string{postgres.FaultKill, postgres.FaultFreeze, postgres.FaultRefuse, postgres.FaultCutReplication} {
			op := target.Operation{Drill: "test-0", Step: name, Name: name}
			p, err := tg.Injector.Plan(t.Context(), op)
			if err != nil {
				t.Fatal(err)
			}
			p.Undo = bytes.Replace(p.Undo, []byte(`"system_id":"`), []byte(`"system_id":"9`), 1)
			if _, err := tg.Injector.Do(t.Context(), op, p); !errors.Is(err, postgres.ErrFence) {
				t.Errorf("do %s on another cluster: %v", name, err)
			}
			if _, err := tg.Injector.Undo(t.Context(), op, p.Undo); !errors.Is(err, postgres.ErrFence) {
				t.Errorf("undo %s on another cluster: %v", name, err)
			}
		}
		eventually(t, "home", r.healthy)
	})
}

// TestRewindFallsBack gives node a a pg_rewind that fails.
func TestRewindFallsBack(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{Synchronous: true, ScratchDisk: true})
	r.synchronous = true
	bin := filepath.Join(r.Dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob(filepath.Join(r.BinDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		to := filepath.Join(bin, filepath.Base(p))
		if filepath.Base(p) == "pg_rewind" {
			err = os.WriteFile(to, []byte("#!/bin/sh\necho it will not >&2\nexit 1\n"), 0o755)
		} else {
			err = os.Symlink(p, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r.config = r.edit(t, func(c map[string]any) { nodeOf(c, 0)["binDir"] = bin })
	tg := r.open(t)
	do(t, tg, postgres.FaultKill, nil)
	do(t, tg, postgres.ActionPromote, nil)
	do(t, tg, postgres.ActionRedirect, nil)
	e, _, _ := do(t, tg, postgres.ActionFailback, nil)
	if d := sorted(e.Details); !strings.Contains(d, "pg_rewind of node a failed, so a base backup is taken") || !strings.Contains(d, "it will not") {
		t.Errorf("no clear word about the fallback: %s", d)
	}
	eventually(t, "home", r.healthy)
	r.evidenceKept(t)
	r.nothingLeft(t)
}

// TestChecksFind breaks things past the driver; each check must notice.
func TestChecksFind(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	tg := r.open(t)
	exec := func(sql string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := r.service(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("CREATE TABLE doc (id int, d json); INSERT INTO doc VALUES (1, '{\"a\": 1}'); CREATE TABLE gone (x int); CREATE TABLE num (n numeric); INSERT INTO num VALUES (1.0)")
	tables := map[string]any{"tables": []string{"accounts", "branches", "doc", "gone", "num"}}
	strict := map[string]any{"tables": []string{"num"}, "strict": "text"}
	before, beforeStrict := baseline(t, tg, postgres.CheckTables, tables), baseline(t, tg, postgres.CheckTables, strict)
	timeline := baseline(t, tg, postgres.CheckTimeline, nil)
	exec("UPDATE accounts SET balance = balance + 1 WHERE id = 7; DROP TABLE gone; UPDATE num SET n = 1.00; UPDATE doc SET d = '{\"a\": 2}'")
	props := check(t, tg, postgres.CheckTables, tables, before)
	for name, want := range map[string]string{"accounts": event.ResultFail, "branches": event.ResultPass, "doc": event.ResultFail, "gone": event.ResultFail, "num": event.ResultPass} {
		wantResult(t, props, "table "+name, want)
	}
	wantResult(t, check(t, tg, postgres.CheckTables, strict, beforeStrict), "table num", event.ResultFail)
	wantResult(t, check(t, tg, postgres.CheckTimeline, map[string]any{"advance": 1}, timeline), "timeline", event.ResultFail)
	wantResult(t, check(t, tg, postgres.CheckForensics, nil, nil), "commits that did not survive", event.ResultInconclusive)
	wantResult(t, check(t, tg, postgres.CheckReplication, map[string]any{"syncState": "sync", "settleSeconds": 1}, nil), "sync state of b", event.ResultFail)

	_, op, record := do(t, tg, postgres.FaultCutReplication, nil)
	wantResult(t, check(t, tg, postgres.CheckReplication, map[string]any{"settleSeconds": 1}, nil), "standby b", event.ResultFail)
	undo(t, tg, op, record)

	var path string
	c, err := r.service(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.QueryRow(t.Context(), "SELECT pg_relation_filepath('accounts_pkey')").Scan(&path); err != nil {
		t.Fatal(err)
	}
	_ = c.Close(t.Context())
	_, op, record = do(t, tg, postgres.FaultStop, nil)
	f, err := os.OpenFile(filepath.Join(r.Nodes[0].DataDir, path), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 512), 2*8192-512); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	undo(t, tg, op, record)
	wantResult(t, check(t, tg, postgres.CheckAmcheck, nil, nil), "heaps and indexes", event.ResultFail)
}
