package render_test

import (
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// rows are the lines of a phase's Markdown that hold a text.
func rows(p fold.Phase, text string) []string {
	p.State = fold.StateFinished
	var out []string
	for _, line := range strings.Split(string(render.Markdown(fold.Report{ID: "d-1", Phases: []fold.Phase{p}})), "\n") {
		if strings.HasPrefix(line, "|") && strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

// TestDetailsAreLines: what a failback did step by step is read step by step.
func TestDetailsAreLines(t *testing.T) {
	p := fold.Phase{Actions: []fold.ActionRun{{Stage: "restore", Name: "failback", Status: "done", Details: map[string]string{
		"node": "a", "step.01": "node b leads", "step.02": "rewound node a to b", "step.03": "switched over from b to a in 267.5ms; a is\n ahead"}}}}
	want := "1. node b leads<br>2. rewound node a to b<br>3. switched over from b to a in 267.5 ms; a is ahead<br>node: a |"
	if got := rows(p, "restore: failback"); len(got) != 1 || !strings.HasSuffix(got[0], want) {
		t.Errorf("got %q\nwant one that ends in %q", got, want)
	}
}

// TestUndosThatFoundNothing: what all of them say is said once, and only where it
// is the same.
func TestUndosThatFoundNothing(t *testing.T) {
	undo := func(step, status, said string) fold.UndoRun {
		return fold.UndoRun{Step: step, Status: status, Tries: 1, Took: int64(100 * time.Millisecond), Details: map[string]string{"step.01": said}}
	}
	const nothing = "nothing was to be done"
	p := fold.Phase{Undos: []fold.UndoRun{undo("p/restore/failback", "done", nothing), undo("p/recovery/promote", "done", nothing), undo("p/fault/kill", "done", nothing), undo("p/fault/last", "done", "started a")}}
	got := rows(p, nothing)
	if len(got) != 1 || !strings.Contains(got[0], "undo: p/restore/failback<br>undo: p/recovery/promote<br>undo: p/fault/kill |") || !strings.Contains(got[0], "300 ms in all") {
		t.Errorf("alike: %q", got)
	}
	if got := rows(p, "started a"); len(got) != 1 || !strings.Contains(got[0], "| undo: p/fault/last |") {
		t.Errorf("another: %q", got)
	}
	p.Undos[1].Reasons, p.Undos[1].Tries = []string{"busy"}, 2
	if got := rows(p, nothing); len(got) != 3 {
		t.Errorf("one of them took two tries: %q", got)
	}
}

func TestCauseOfAnOutage(t *testing.T) {
	long := "service 127.0.0.1:1 as app: connect to 127.0.0.1:1, database app: failed to connect to `user=app`: "
	for _, x := range []struct {
		errors []string
		want   string
	}{
		{nil, "–"},
		{[]string{"connection refused"}, "connection refused"},
		{[]string{long + "dial error: dial tcp 127.0.0.1:1: connect: connection refused"}, "connection refused"},
		{[]string{long + "failed to receive message: read tcp 127.0.0.1:39…", "read canaries: unexpected EOF"}, "unexpected EOF"},
		{[]string{long + "failed to receive message: read tcp 127.0.0.1:39…"}, "failed to receive message …"},
		{[]string{long + "dial error: dial tcp 127.0.0.1:1: connect: conn…"}, "dial tcp 127.0.0.1:1: connect …"},
		{[]string{long + "failed to receive message: read tcp 127.0.0.1:39…", "other errors"}, "failed to receive message …"},
		{[]string{"other errors"}, "other errors"},
		{[]string{"read canaries: EOF"}, "read canaries: EOF"},
		{[]string{"EOF"}, "EOF"},
		{[]string{"write: " + strings.Repeat("words and ", 20)}, strings.TrimSpace(strings.Repeat("words and ", 8)) + " …"},
	} {
		p := fold.Phase{Outages: []fold.Outage{{Outage: verdict.Outage{Probe: "w", Lane: "fresh"}, Errors: x.errors}}}
		if got := rows(p, "| window |"); len(got) != 1 || !strings.HasSuffix(got[0], "| "+x.want+" |") {
			t.Errorf("%q:\n got %q\nwant %q", x.errors, got, x.want)
		}
	}
}

// TestErrorsAreShownInFull: once each, with the lanes that met them, and only where
// the outage's line does not say all of it.
func TestErrorsAreShownInFull(t *testing.T) {
	const long = "connect to 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"
	outage := func(lane string, errors ...string) fold.Outage {
		return fold.Outage{Outage: verdict.Outage{Probe: "w", Lane: lane}, Errors: errors}
	}
	p := fold.Phase{Outages: []fold.Outage{outage("fresh", long, "other errors"), outage("pooled", "too slow", long), outage("fresh", long)}}
	if got := rows(p, long); len(got) != 1 || got[0] != "| w/fresh<br>w/pooled | "+long+" |" {
		t.Errorf("%q", got)
	}
	if got := rows(p, "too slow"); len(got) != 1 {
		t.Errorf("what its line says is said again: %q", got)
	}
	from := func(port string) string {
		return "read tcp 127.0.0.1:" + port + "->127.0.0.1:1: read: connection reset"
	}
	ports := fold.Phase{Outages: []fold.Outage{outage("fresh", from("37446"), from("37492")), outage("pooled", from("9"), from("9"))}}
	if got := rows(ports, "connection reset<br>"); len(got) != 1 || got[0] != "| w/fresh<br>w/pooled | "+from("37446")+"<br>and 2 others that differ only in numbers |" {
		t.Errorf("%q", got)
	}
	p.State = fold.StateFinished
	page, err := render.HTML(fold.Report{ID: "d-1", Phases: []fold.Phase{p}})
	if err != nil || strings.Count(string(page), long) != 1 {
		t.Errorf("the page has the text %d times, %v", strings.Count(string(page), long), err)
	}
}
