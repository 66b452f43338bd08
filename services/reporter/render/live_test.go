package render_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// asOf is the report of a scenario when its first event of a type was stored.
func asOf(t *testing.T, name string, last event.Type) fold.Report {
	t.Helper()
	_, ring := synthetic.Keys()
	raws := synthetic.Variants()[name].History()
	for i, raw := range raws {
		if !strings.Contains(string(raw), `"type":"`+string(last)+`"`) {
			continue
		}
		r, err := fold.Fold(raws[:i+1], ring)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Fatalf("no %s in %s", last, name)
	return fold.Report{}
}

// TestTheLivePage keeps up with its drill, and does not speak of its end.
func TestTheLivePage(t *testing.T) {
	const refresh, ended = `<meta http-equiv="refresh" content="5">`, "<dt>Ended</dt>"
	for state, x := range map[string]struct {
		name string
		last event.Type
	}{"RUNNING": {"pass", event.TypeOutageStarted}, "ABORTING": {"aborted", event.TypeAbortRequested}} {
		r := asOf(t, x.name, x.last)
		b, err := render.HTML(r)
		if err != nil {
			t.Fatal(err)
		}
		page := string(b)
		for _, want := range []string{refresh, "<dt>Last event</dt>", " so far</dd>", state + ": DR drill report", "Nothing of it is judged yet."} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q", state, want)
			}
		}
		for _, bad := range []string{ended, "<tbody></tbody>", "did not begin", "No ledger was read"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s: the page has %q", state, bad)
			}
		}
		text := string(render.Markdown(r))
		if !strings.Contains(text, "**Verdict**: "+strings.ToLower(state)) || !strings.Contains(text, " so far (since ") || strings.Contains(text, "did not begin") {
			t.Errorf("%s: %.700s", state, text)
		}
	}
	b, err := render.HTML(folded(t, "pass"))
	if page := string(b); err != nil || strings.Contains(page, refresh) || !strings.Contains(page, ended) {
		t.Errorf("the page of a finished drill goes on loading itself, %v", err)
	}
}

// TestEachCardHasItsOwnVerdict: what was lost does not make a recovery red that was
// quick enough.
func TestEachCardHasItsOwnVerdict(t *testing.T) {
	_, ring := synthetic.Keys()
	p := synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond, Lost: 24, CheckFails: true}
	r, err := fold.Fold(synthetic.Build("d", "A drill", p).History(), ring)
	if err != nil {
		t.Fatal(err)
	}
	b, err := render.HTML(r)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"Kill: achieved recovery": "pass", "Kill: lost writes": "fail", "Kill: data checks": "fail"}
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`<div class="card (\w+)"><span class="badge (\w+)">\w+</span>\s*<div class="small">([^<]*)</div>`).FindAllStringSubmatch(string(b), -1) {
		if got[m[3]] = m[1]; m[1] != m[2] {
			t.Errorf("a card with a badge of another colour: %q", m)
		}
	}
	for title, class := range want {
		if got[title] != class {
			t.Errorf("%s is %q, want %s; the cards are %v", title, got[title], class, got)
		}
	}
}
