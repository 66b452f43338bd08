package job

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
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
