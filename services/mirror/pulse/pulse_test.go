package pulse_test

import (
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/pulse"
)

func at(s int) time.Time { return time.Unix(int64(1000+s), 0) }

// Each kind of progress ends a standstill, which is told once, and so is its end.
func TestWhatMovesIsNoStandstill(t *testing.T) {
	for name, move := range map[string]func(*pulse.Pulse){
		"an action":        func(p *pulse.Pulse) { p.Feel(engine.Progress{At: at(20), DoneActions: 1}) },
		"an entry seen":    func(p *pulse.Pulse) { p.Feel(engine.Progress{At: at(20), Seen: 1}) },
		"an entry checked": func(p *pulse.Pulse) { p.Looked(plan.Source, entry.Entry{}) },
		"bytes read here":  func(p *pulse.Pulse) { p.Read(1) },
		"a wait":           func(p *pulse.Pulse) { p.Wake(at(20)) },
	} {
		p := pulse.New(10*time.Second, at(0))
		if b := p.Look(at(9), 0); b.Stalled || b.Still != 0 {
			t.Errorf("%s: too early: %+v", name, b)
		}
		if b := p.Look(at(10), 0); !b.Stalled || b.Still != 10*time.Second || b.Reason() != "no progress for 10s" {
			t.Errorf("%s: in time: %+v", name, b)
		}
		if b := p.Look(at(15), 0); b.Stalled || b.Still != 15*time.Second {
			t.Errorf("%s: told twice: %+v", name, b)
		}
		move(p)
		if b := p.Look(at(21), 0); !b.Moves || b.Still != 0 {
			t.Errorf("%s does not count: %+v", name, b)
		}
		if b := p.Look(at(22), 0); b.Moves || b.Still != 0 {
			t.Errorf("%s: told twice that it goes on: %+v", name, b)
		}
		if b := p.Look(at(40), 0); !b.Stalled {
			t.Errorf("%s: and again: %+v", name, b)
		}
	}
	others := pulse.New(10*time.Second, at(0))
	if b := others.Look(at(10), 7); b.Stalled {
		t.Errorf("what others read does not count: %+v", b)
	}
	if b := others.Look(at(20), 7); !b.Stalled {
		t.Errorf("what others have read counts for ever: %+v", b)
	}
	// What tells nothing new is no progress.
	p := pulse.New(10*time.Second, at(0))
	p.Feel(engine.Progress{At: at(1), Seen: 5})
	p.Feel(engine.Progress{At: at(10), Seen: 5})
	if b := p.Look(at(11), 0); !b.Stalled {
		t.Errorf("the same again counts: %+v", b)
	}
	if p := pulse.New(0, at(0)); p.Look(at(0).Add(drill.DefaultStalled-1), 0).Stalled || !p.Look(at(0).Add(drill.DefaultStalled), 0).Stalled {
		t.Error("left out, it is not the default")
	}
}

// A comparison tells how far it is by what it has looked at.
func TestAComparisonIsCounted(t *testing.T) {
	p := pulse.New(time.Minute, at(0))
	p.Looks(4, 100)
	p.Looked(plan.Source, entry.Entry{})
	p.Looked(plan.Dest, entry.Entry{})
	p.Read(50)
	b := p.Look(at(10), 0)
	if !b.Planned || b.Seen != 2 || b.DoneActions != 2 || b.Actions != 4 || b.DoneBytes != 50 || b.Bytes != 100 {
		t.Errorf("half of it: %+v", b)
	}
	if left, ok := b.ETA(); !ok || left != 10*time.Second {
		t.Errorf("it takes another %v, %v", left, ok)
	}
	for range 5 {
		p.Looked(plan.Dest, entry.Entry{})
	}
	if b := p.Look(at(11), 0); b.Actions != 7 {
		t.Errorf("of what nobody knew of: %+v", b)
	}
}
