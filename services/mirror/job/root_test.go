package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// A root that stays more open than the other one is told of, whoever it belongs to.
func TestARootThatStaysOpenIsReported(t *testing.T) {
	const fixed = "/proc/self" // whose mode nobody may change: r-xr-xr-x
	j := &Job{roots: [2]string{plan.Dest: fixed}}
	have, err := lookAtRoot(fixed)
	must(t, err)
	for mode, failed := range map[uint32]int64{0o700: 1, 0o550: 1, 0o755: 0, 0o555: 0} {
		report := engine.Report{Done: map[plan.Op]int64{}}
		want := have
		want.Mode = mode
		if set := j.setRoot(plan.Dest, [2]rootAttrs{plan.Source: want, plan.Dest: have}, &report); set != (mode == have.Mode) {
			t.Errorf("%o: it says that it was set: %v", mode, set)
		}
		if report.Failed != failed || len(report.Failures) != int(failed) {
			t.Errorf("%o: got %+v", mode, report)
		}
	}
}

// What a two-way mirror has just made is not what somebody made of it.
func TestARootThatWasJustMadeLooksLikeTheSource(t *testing.T) {
	w := between(t, drill.MirrorTwoWay, false)
	w.to = filepath.Join(w.to, "made")
	w.mirror.To = "dir:" + w.to
	w.write("a", "x")
	must(t, errors.Join(os.Chown(w.from, 12345, 54321), os.Chmod(w.from, 0o750|os.ModeSetgid)))
	w.with(func(*Job) {}) // a run that never came to its end
	w.whole()
	for range 2 {
		if got, want := owner(t, w.to), owner(t, w.from); got != want || got[0] != 12345 {
			t.Errorf("it belongs to %v, not %v", got, want)
		}
		if st, err := os.Stat(w.to); err != nil || st.Mode() != 0o750|os.ModeSetgid|os.ModeDir {
			t.Errorf("got %v, %v", st.Mode(), err)
		}
		w.whole()
	}
}

// Whoever changes the root of a side after a run is told by the next check, until a run
// has settled it.
func TestAChangedRootIsFound(t *testing.T) {
	for _, mode := range []string{drill.MirrorMirror, drill.MirrorTwoWay} {
		w := between(t, mode, false)
		w.write("a", "x")
		w.whole()
		found := func(side plan.Side) string {
			v := w.verified(side, proof.L1)
			if !v.Verified() || v.Verdict.MetadataOnly.Count > 1 {
				t.Errorf("%s, %v: %v", mode, side, v.Result)
			}
			for _, f := range v.Verdict.MetadataOnly.First {
				return f.Key + " " + f.Detail
			}
			return ""
		}
		st, err := os.Stat(w.to)
		must(t, err)
		for _, c := range []struct {
			side plan.Side
			dir  string
		}{{plan.Dest, w.to}, {plan.Source, w.from}} {
			must(t, os.Chmod(c.dir, 0o711))
			want := fmt.Sprintf("./ has the mode 0711, not %04o", st.Mode().Perm())
			if got := found(c.side); got != want || found(c.side.Other()) != "" {
				t.Errorf("%s, %v: got %q, want %q", mode, c.side, got, want)
			}
			if mode == drill.MirrorTwoWay {
				must(t, os.Chmod(c.dir, st.Mode().Perm()))
			}
			w.whole()
			if got := found(plan.Source) + found(plan.Dest); got != "" {
				t.Errorf("%s, %v: after a run: %q", mode, c.side, got)
			}
		}
		must(t, os.Chown(w.from, 12345, 54321))
		if got := found(plan.Source); !strings.HasPrefix(got, "./ belongs to 12345:54321, not ") {
			t.Errorf("%s: got %q", mode, got)
		}
	}
}
