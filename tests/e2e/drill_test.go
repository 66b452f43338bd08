package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// validTries is how often: on two cores with others beside them, every other drill of a
// synchronous pair was INVALID.
const validTries = 8

// validDrill runs a drill whose measurement is valid. On a machine that is too
// busy for the observer's schedule firedrill rightly says INVALID: that one is
// asked for again.
func validDrill(ctx context.Context, t *testing.T, b *bus.Bus, ring event.Keyring, url, name string, raw []byte) ([]bus.Stored, fold.Report) {
	t.Helper()
	for try := 1; ; try++ {
		publish(t, url, name, raw)
		history := await(ctx, t, b, newest(t, b, name, uint64(try)), nil)
		wholeHistory(t, history, ring)
		r := foldReport(t, history, ring)
		if r.Verdict != verdict.Invalid || try == validTries {
			return history, r
		}
		t.Logf("try %d is INVALID: %+v", try, r.Phases[0].Results)
	}
}

// TestSynchronousFailoverLosesNothing: the whole path, from a plain publish to
// the report on disk.
func TestSynchronousFailoverLosesNothing(t *testing.T) {
	p := startLab(t, lab.PostgresOptions{Synchronous: true})
	stack, rec, out := startAllInOne(t, p)
	history, r := validDrill(t.Context(), t, stack.Bus, stack.Keyring, rec.NATSURL, "sync", quickDrill(t, "sync", nil))
	atHome(t, p)
	if r.Verdict != verdict.Pass {
		t.Fatalf("verdict %s: %+v\n%s", r.Verdict, r.Issues, outline(history))
	}
	for _, l := range r.Phases[0].Ledgers {
		if l.LostCount != 0 || l.Acked == 0 {
			t.Fatalf("a synchronous pair lost %d of %d acknowledged writes", l.LostCount, l.Acked)
		}
	}
	checkFiles(t, filepath.Join(out, r.ID), r, stack.Keyring)
	record(t, stack, filepath.Join(out, r.ID), "pass")
}

// checkFiles: the files on disk are what the events give.
func checkFiles(t *testing.T, dir string, r fold.Report, ring event.Keyring) {
	t.Helper()
	for _, f := range []string{"report.md", "report.html", "report.xml", "report.json", "events.jsonl"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Size() == 0 {
			t.Fatalf("%s: %v", f, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	exported, err := os.Open(filepath.Join(dir, "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer exported.Close()
	lines, err := fold.Import(exported)
	if err != nil {
		t.Fatal(err)
	}
	if v := event.VerifyHistory(lines, ring); !v.Complete || !v.Whole() {
		t.Fatalf("the exported history does not verify by itself: %+v", v)
	}
	again, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, again) {
		t.Fatal("report.json is not what its events give")
	}
}

// TestAsynchronousFailoverFindsTheLoss: behind a slowed link acknowledged writes
// are really lost, and the drill says so and fails.
func TestAsynchronousFailoverFindsTheLoss(t *testing.T) {
	p := startLab(t, lab.PostgresOptions{LinkDelay: 200 * time.Millisecond})
	// An autovacuum has commits too: without it only the drill's writes are in the log.
	configure(t, p, "autovacuum = off")
	stack, rec, out := startAllInOne(t, p)
	history, r := validDrill(t.Context(), t, stack.Bus, stack.Keyring, rec.NATSURL, "async", quickDrill(t, "async", func(phase map[string]any) {
		phase["checks"] = append(phase["checks"].([]any), map[string]any{"name": "wal", "target": "orders", "check": "wal-forensics"})
	}))
	atHome(t, p)
	var lost int64
	for _, l := range r.Phases[0].Ledgers {
		lost += l.LostCount
	}
	if lost == 0 || r.Verdict != verdict.Fail {
		t.Fatalf("verdict %s with %d lost writes behind a link of 200 ms\n%s", r.Verdict, lost, outline(history))
	}
	// Two counts that know nothing of each other: each lost write was a commit of its own,
	// and what else is in the dead primary's log was on its way as the primary died.
	most := lost + onTheWay(t, history)
	if commits := deadCommits(t, r); commits < lost || commits > most {
		t.Errorf("the dead primary's log has %d commits that did not survive: the ledgers have %d lost writes, %d with those that were on their way", commits, lost, most)
	}
	evidenceTells(t, p, r)
	record(t, stack, filepath.Join(out, r.ID), "fail")
}

// onTheWay counts the writes that were begun before the fault was over, whose fate the
// observer does not know, and that the target does not hold. Each may have been committed
// by the primary before it died; nothing that was begun later can have been.
func onTheWay(t *testing.T, history []bus.Stored) (n int64) {
	t.Helper()
	var batches []event.ProbeBatch
	var killed *event.FaultInjected
	var found []event.LedgerFound
	for _, h := range history {
		switch p := h.Payload.(type) {
		case *event.ProbeBatch:
			batches = append(batches, *p)
		case *event.FaultInjected:
			killed = p
		case *event.CheckCompleted:
			found = append(found, p.Ledgers...)
		}
	}
	lanes, err := verdict.LanesFromBatches(batches)
	if err != nil || killed == nil {
		t.Fatalf("fault %+v, %v", killed, err)
	}
	for _, f := range found {
		at := slices.IndexFunc(lanes, func(l verdict.Lane) bool {
			return l.Kind == "write" && l.Probe == f.Probe && l.Name == f.Lane && l.Epoch == f.Epoch
		})
		if at < 0 || lanes[at].Clock != killed.F1.Clock {
			t.Fatalf("no lane on the injector's clock has the ledger %s/%s", f.Probe, f.Lane)
		}
		for _, a := range lanes[at].Attempts {
			if a.Outcome == verdict.Unknown && a.Started <= killed.F1.Mono && !f.Present.Has(a.Seq) {
				n++
			}
		}
	}
	t.Logf("%d writes in %d ledgers were on their way", n, len(found))
	return n
}

// deadCommits is what the check of the dead primary's log counted.
func deadCommits(t *testing.T, r fold.Report) (commits int64) {
	t.Helper()
	for _, c := range r.Phases[0].Checks {
		if c.Kind != postgres.CheckForensics {
			continue
		}
		if len(c.Properties) != 1 || c.Properties[0].Result != event.ResultInfo {
			t.Fatalf("the dead primary's log was not read to its end: %+v", c.Properties)
		}
		if _, err := fmt.Sscanf(c.Properties[0].Found, "%d commits in the log of node a after the fork", &commits); err != nil {
			t.Fatalf("%q: %v", c.Properties[0].Found, err)
		}
		return commits
	}
	t.Fatal("the dead primary's log was not looked at")
	return 0
}

// evidenceTells: what was collected because the check failed shows, without anybody's
// doing, what the system was at that moment: a dead, b promoted and alone.
func evidenceTells(t *testing.T, p *lab.Postgres, r fold.Report) {
	t.Helper()
	found := map[string]string{}
	for _, set := range r.Phases[0].Evidence {
		if set.Cause != string(event.TypeChecksCompleted) || set.Target != "orders" {
			t.Errorf("evidence of %s because of %s", set.Target, set.Cause)
		}
		for _, item := range set.Items {
			found[item.Name] = item.Text
		}
	}
	for name, words := range map[string][]string{
		"a/state":                {"stopped", "0 processes"},
		"a/pg_controldata":       {"Database cluster state:", "in production"}, // as it was killed
		"a/log":                  {"database system is ready to accept connections"},
		"b/state":                {"primary", "timeline 2"},
		"b/log":                  {"received promote request", "selected new timeline ID: 2"},
		"b/pg_stat_replication":  {"no rows"},
		"b/pg_stat_wal_receiver": {"no rows"},
		"b/pg_replication_slots": {"no rows"},
		"b/settings":             {"name=wal_keep_size setting=64 source=configuration file unit=MB", "name=primary_conninfo"},
		"b/pg_stat_activity":     {"backend_type=checkpointer"},
		"endpoint":               {"service 127.0.0.1:" + strconv.Itoa(p.ServicePort)},
	} {
		for _, w := range words {
			if !strings.Contains(found[name], w) {
				t.Errorf("evidence %q does not say %q:\n%s", name, w, found[name])
			}
		}
	}
	all, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{p.Secrets.App, p.Secrets.Admin, p.Secrets.Replicator} {
		secret, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(secret) == 0 || bytes.Contains(all, bytes.TrimSpace(secret)) {
			t.Errorf("the report holds the password of %s", filepath.Base(file))
		}
	}
}

// TestSeparateProcesses: the same drill by five programs, each of which has a part in
// it, and in its trace.
func TestSeparateProcesses(t *testing.T) {
	j := startJaeger(t)
	p := startLab(t, lab.PostgresOptions{Synchronous: true})
	f := startFleet(t, p)
	history, r := validDrill(f.ctx, t, f.bus, f.keyring, f.url, "fleet", quickDrill(t, "fleet", keepOldWAL(p)))
	atHome(t, p)
	if r.Verdict != verdict.Pass {
		t.Fatalf("verdict %s: %+v\n%s", r.Verdict, r.Issues, outline(history))
	}
	if c := r.Phases[0].Copies; len(c) != 1 || c[0].Status != "done" || c[0].Files == 0 {
		t.Errorf("the old primary's log was not kept: %+v", c)
	}
	oneTrace(t, j.QueryURL, r.ID)
}

func finished(history []bus.Stored) *event.DrillFinished {
	for _, h := range history {
		if p, ok := h.Payload.(*event.DrillFinished); ok {
			return p
		}
	}
	return nil
}
