package undo_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

func TestTokens(t *testing.T) {
	// A newer version must find what an older one left.
	if got := undo.Token("drill", "step"); got != "firedrill-e5756854156720cf" || !undo.IsToken(got) {
		t.Errorf("another token than in older versions: %s", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		drill, step := rapid.String().Draw(t, "drill"), rapid.String().Draw(t, "step")
		got := undo.Token(drill, step)
		if !undo.IsToken(got) || got != undo.Token(drill, step) || got == undo.Token(drill, step+"x") || got == undo.Token(drill+"x", step) {
			t.Fatalf("%q", got)
		}
	})
	for _, text := range []string{"", "firedrill-", "firedrill-e5756854156720c", "firedrill-e5756854156720cf0", "firedrill-e5756854156720cg", "firedrill-../../etc/passwd", "x firedrill-e5756854156720cf", "firedrill-e5756854156720cf\n"} {
		if undo.IsToken(text) {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestUnknownKindsAreNamed(t *testing.T) {
	if err := undo.UnknownKind("rewind"); !errors.Is(err, target.ErrUnsupported) || err.Error() != `kind "rewind": not supported by this driver; was it written by a newer firedrill?` {
		t.Error(err)
	}
}

func TestDeadMan(t *testing.T) {
	for _, c := range []struct{ hold, limit, want time.Duration }{
		{0, 0, 15 * time.Minute},
		{0, time.Hour, time.Hour},
		{5 * time.Second, 0, 6 * time.Second},
		{time.Minute, 0, 66 * time.Second},
		{time.Minute, 65 * time.Second, 65 * time.Second},
		{time.Minute, time.Hour, 66 * time.Second},
	} {
		if got := undo.DeadMan(target.Operation{Hold: c.hold, Limit: c.limit}); got != c.want {
			t.Errorf("hold %v, limit %v: %v, want %v", c.hold, c.limit, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		span := rapid.Int64Range(0, int64(24*time.Hour))
		op := target.Operation{Hold: time.Duration(span.Draw(t, "hold")), Limit: time.Duration(span.Draw(t, "limit"))}
		switch d := undo.DeadMan(op); {
		case d <= 0:
			t.Fatalf("after %v", d)
		case op.Limit > 0 && d > op.Limit:
			t.Fatalf("after %v, beyond the limit", d)
		case d < op.Hold+time.Second && d != op.Limit:
			t.Fatalf("after %v, amid the hold", d)
		}
	})
}

func TestJournalKeepsTheOrder(t *testing.T) {
	var j undo.Journal
	if got := j.Details(); !maps.Equal(got, map[string]string{"step.01": "nothing was to be done"}) {
		t.Errorf("%v", got)
	}
	j.Add("started node %s", "a")
	j.Add("waited")
	if got := j.Details(); !maps.Equal(got, map[string]string{"step.01": "started node a", "step.02": "waited"}) {
		t.Errorf("%v", got)
	}
}
