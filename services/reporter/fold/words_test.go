package fold_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

// TestAHaltIsNamedOnce: its cause says that it is one, and so does its reason, which
// is also read alone.
func TestAHaltIsNamedOnce(t *testing.T) {
	const sale = "the sale begins"
	p := synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond, AbortAt: 1400 * time.Millisecond}
	b := synthetic.Build("d", "A drill", p)
	b.Without(event.TypeAbortRequested)
	b.Add(p.AbortAt, event.TypeAbortRequested, event.AbortRequested{By: "root", Cause: "halt", Reason: "halted: " + sale})
	r := mustFold(t, b.History())
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); strings.Contains(text, "halted: "+sale) || !strings.Contains(text, "halt, by root: "+sale) {
		t.Errorf("issues %+v, conduct %+v", r.Issues, r.Conduct.Aborts)
	}
}

// TestOneIsNotMany: a lost record is none of several.
func TestOneIsNotMany(t *testing.T) {
	for lost, want := range map[int]string{1: "1 record", 24: "24 records"} {
		r := mustFold(t, kill(func(p *synthetic.Phase) { p.Lost = lost }))
		if got := result(t, r, "rpo-records"); got.Achieved != want || got.Objective != "≤ 0 records" {
			t.Errorf("%s: %+v", fmt.Sprint(lost), got)
		}
	}
}
