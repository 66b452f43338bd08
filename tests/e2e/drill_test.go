package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
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
	stack, rec, _ := startAllInOne(t, p)
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
}

// TestSeparateProcesses: the same drill by five programs.
func TestSeparateProcesses(t *testing.T) {
	p := startLab(t, lab.PostgresOptions{Synchronous: true})
	f := startFleet(t, p)
	history, r := validDrill(f.ctx, t, f.bus, f.keyring, f.url, "fleet", quickDrill(t, "fleet", nil))
	atHome(t, p)
	if r.Verdict != verdict.Pass {
		t.Fatalf("verdict %s: %+v\n%s", r.Verdict, r.Issues, outline(history))
	}
}

// TestInjectorKilledAtEveryBoundary: the injector is killed with SIGKILL as soon
// as each of its events is stored. Each time another one ends the drill clean.
func TestInjectorKilledAtEveryBoundary(t *testing.T) {
	afresh := func(name string, run func(f *fleet, p *lab.Postgres)) bool {
		return t.Run(name, func(t *testing.T) {
			p := startLab(t, lab.PostgresOptions{Synchronous: true})
			run(startFleet(t, p), p)
		})
	}
	// One undisturbed drill tells how many boundaries there are.
	boundaries := 0
	if !afresh("count", func(f *fleet, p *lab.Postgres) { boundaries = f.drillKilledAt(p, "count", -1) }) {
		return
	}
	if boundaries < 15 {
		t.Fatalf("only %d events by the injector", boundaries)
	}
	// Going back takes longer with each drill that a pair has behind it.
	const perLab = 8
	for from := 0; from < boundaries; from += perLab {
		afresh(fmt.Sprintf("from %d", from), func(f *fleet, p *lab.Postgres) {
			for k := from; k < min(from+perLab, boundaries); k++ {
				f.drillKilledAt(p, "kill-at", k)
			}
		})
	}
}

// drillKilledAt runs a drill and kills the injector after its k-th event (never
// for -1). It returns how many events injectors wrote.
func (f *fleet) drillKilledAt(p *lab.Postgres, name string, k int) int {
	f.t.Helper()
	publish(f.t, f.url, name, quickDrill(f.t, name, hurried))
	f.requests++
	id := newest(f.t, f.bus, name, uint64(f.requests))
	n, reports, faults := 0, 0, 0
	history := await(f.ctx, f.t, f.bus, id, func(s bus.Stored) {
		switch s.Event.Type {
		case event.TypeReportPublished:
			reports++
		case event.TypeFaultInjected:
			faults++
		}
		if s.Event.Service() != event.Injector || s.Event.Type == event.TypeLeaseRenewed {
			return
		}
		if n == k {
			f.kill(event.Injector)
			f.generation++
			f.start(event.Injector, f.instance())
		}
		n++
	})
	wholeHistory(f.t, history, f.keyring)
	atHome(f.t, p)
	fin := finished(history)
	if reports != 1 || faults > 1 || fin == nil || len(fin.Outstanding) > 0 {
		f.t.Fatalf("killed at %d: %d reports, %d faults, %+v\n%s", k, reports, faults, fin, outline(history))
	}
	f.t.Logf("killed at event %d: complete=%v, %s", k, fin.Complete, foldReport(f.t, history, f.keyring).Verdict)
	return n
}

func finished(history []bus.Stored) *event.DrillFinished {
	for _, h := range history {
		if p, ok := h.Payload.(*event.DrillFinished); ok {
			return p
		}
	}
	return nil
}
