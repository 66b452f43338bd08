package canary_test

import (
	"cmp"
	"errors"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/target/canary"
)

const tree = canary.Tree("firedrill")

func TestLaterCanariesSortBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seq := rapid.Int64Range(0, math.MaxInt64)
		a, b := seq.Draw(t, "a"), seq.Draw(t, "b")
		x, y := tree.Name(ledger, a), tree.Name(ledger, b)
		if strings.Compare(x, y) != cmp.Compare(b, a) {
			t.Fatalf("%d lies at %s, %d at %s", a, x, b, y)
		}
		if got, ok := tree.Seq(ledger, x); !ok || got != a || !canary.CleanName(x) {
			t.Fatalf("%s is canary %d, %t", x, got, ok)
		}
		if !strings.HasPrefix(x, tree.Ledger(ledger)+"/") || !strings.HasPrefix(x, tree.Drill("drill")+"/") {
			t.Fatalf("%s lies elsewhere", x)
		}
		for _, other := range []string{"drill/probe/pooled/11", "drill/probe/pooled", "drill/probe/pooled/1/2"} {
			if _, ok := tree.Seq(other, x); ok {
				t.Fatalf("%s is one of %s", x, other)
			}
		}
		for _, name := range []string{x + ".new", x[1:], x + "/", "x/" + x} {
			if got, ok := tree.Seq(ledger, name); ok && got == a {
				t.Fatalf("%s is canary %d", name, got)
			}
		}
	})
}

func TestVerifyKnowsWhatBelongsUnderAName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seq := rapid.Int64Range(0, math.MaxInt64)
		a, b := seq.Draw(t, "a"), seq.Draw(t, "b")
		name, body := tree.Name(ledger, a), canary.Body(ledger, b, 100)
		got, err := tree.Verify(name, body)
		switch {
		case a == b && (err != nil || got != a):
			t.Fatalf("%d, %v", got, err)
		case a != b && (got != 0 || !errors.Is(err, canary.ErrDamaged)):
			t.Fatalf("canary %d in the place of %d: %d, %v", b, a, got, err)
		}
	})
	body := canary.Body(ledger, 7, 100)
	for _, name := range []string{"", "/", "firedrill", "stray", tree.Name("drill/probe/pooled/2", 7), tree.Name(ledger, 7) + ".new", "x" + tree.Name(ledger, 7)} {
		if _, err := tree.Verify(name, body); !errors.Is(err, canary.ErrDamaged) {
			t.Errorf("under %q: %v", name, err)
		}
	}
}

func TestCleanNamesLeadNowhereElse(t *testing.T) {
	for _, name := range []string{"", ".", "..", "/", "/a", "a/", "a//b", "a/../b", "../a", "a/./b", "a\\b", "a\x00b", "a\nb", "a\rb"} {
		if canary.CleanName(name) || canary.CleanPart(name) {
			t.Errorf("%q is taken", name)
		}
	}
	for _, name := range []string{"a", "a/b", "a/..b", "a b", "ä/ö"} {
		if !canary.CleanName(name) {
			t.Errorf("%q is refused", name)
		}
		if canary.CleanPart(name) == strings.Contains(name, "/") {
			t.Errorf("%q as one part", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("firedrill/l/9223372036854775/800", canary.Body("l", 7, 100))
	f.Add("", []byte(nil))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		seq, err := tree.Verify(name, body)
		if err != nil {
			if seq != 0 || !errors.Is(err, canary.ErrDamaged) {
				t.Fatalf("%d, %v", seq, err)
			}
			return
		}
		ledger := strings.TrimPrefix(name[:max(0, len(name)-len("/9223372036854775/800"))], "firedrill/")
		if tree.Name(ledger, seq) != name {
			t.Fatalf("%q is no name of canary %d", name, seq)
		}
	})
}
