package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// ruled is a mirror with rules for what it copies.
func ruled(m drill.Mirror) drill.Mirror {
	m.From, m.To = "dir:DIR/src", "dir:DIR/dst"
	m.Permissions = []drill.Permission{{Side: drill.SideSource, Match: "**", Files: "0604", Dirs: "0711", Owner: "12345"}}
	return m
}

// rights are the modes and owners below a directory.
func (w *world) rights(name string) map[string]string {
	w.t.Helper()
	all := map[string]string{}
	dir := filepath.Join(w.dir, name)
	must(w.t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		all[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%04o %d", st.Mode&0o7777, st.Uid)
		return err
	}))
	return all
}

// byRules checks that both sides are as the rules want them, to the last entry.
func (w *world) byRules(entries int) {
	w.t.Helper()
	source := w.rights("src")
	for path, is := range source {
		if is != "0604 12345" && is != "0711 12345" {
			w.t.Errorf("%s is %s", path, is)
		}
	}
	if copied := w.rights("dst"); len(source) != entries || !maps.Equal(source, copied) {
		w.t.Errorf("the source has %d entries, not %d, and the copy looks like\n%v, not\n%v", len(source), entries, copied, source)
	}
	w.same("src", "dst")
}

// A schedule follows the rules for the source as a lone run does, and says what it has set.
func TestAScheduleFollowsTheRulesForTheSource(t *testing.T) {
	w := newWorld(t, ruled(drill.Mirror{Name: "out", Every: event.Duration(time.Second)}))
	w.tree("src", 100)
	h := hear("a mirror's run ended well")
	for range 2 {
		w.start(func(c *fleet.Config) { c.Log = slog.New(h) })
	}
	e, seq := w.await("out", 0, fleet.KindFinished)
	if e.By != fleet.Scheduler || !e.Result.Whole || e.Result.SourcePermissionsSet != 117 || e.Result.PermissionsSet != 117 || e.Result.Done["put"] != 100 {
		t.Errorf("the first run, by %s: %+v", e.By, e.Result)
	}
	if said := h.await(t); !strings.Contains(said, "sourcePermissionsSet=117") {
		t.Errorf("the log says %s", said)
	}
	w.byRules(117)
	// The next ones have nothing to set, nor to copy for that: the first may read once more
	// what was young.
	for range 2 {
		if e, seq = w.await("out", seq, fleet.KindFinished); e.Result.SourcePermissionsSet != 0 || e.Result.Done["equal"] != 117 {
			t.Errorf("the next run: %+v", e.Result)
		}
	}
}

// However many processes copy, and whichever of them dies, the rules for the source wait for
// all to be copied, and are then followed once.
func TestRulesForTheSourceComeLastThoughAProcessIsKilled(t *testing.T) {
	const files = 24
	for _, planner := range []bool{false, true} {
		t.Run(fmt.Sprintf("the planner: %t", planner), func(t *testing.T) {
			t.Parallel() // they wait for most of their time
			w := newWorld(t, ruled(drill.Mirror{Name: "out", BytesPerSecond: 4 << 20}))
			for i := range files {
				w.zeroes(fmt.Sprintf("src/d/%02d", i), 1<<20)
			}
			before := w.rights("src")
			kills := map[string]func(){"a": w.process("a")}
			w.ask("out", "")
			begun, seq := w.await("out", 0, fleet.KindStarted)
			dies, goesOn := "b", "c"
			if planner {
				dies = "a"
			} else {
				kills["b"] = w.process("b")
			}
			if n := w.awaitItem(begun.Run, dies); n > files-4 {
				t.Fatalf("%d files were there when it was killed: that is not in the middle", n)
			}
			if now := w.rights("src"); !maps.Equal(now, before) {
				t.Errorf("in mid-copy the source is\n%v, not\n%v", now, before)
			}
			kills[dies]()
			w.process(goesOn)
			if planner { // else its request would wait for half a minute to be handed out again
				w.ask("out", "")
			}
			e, seq := w.await("out", seq, fleet.KindFinished)
			if !e.Result.Whole || (e.Run != begun.Run) != planner || e.Result.SourcePermissionsSet != files+1 {
				t.Errorf("run %s, not %s, finished with %+v", e.Run, begun.Run, e.Result)
			}
			w.byRules(files + 1)
			w.ask("out", "")
			if e, _ = w.await("out", seq, fleet.KindFinished); e.Result.SourcePermissionsSet != 0 || e.Result.Done["equal"] != files+1 {
				t.Errorf("the next run: %+v", e.Result)
			}
		})
	}
}

// awaitItem waits until an instance has carried out an item of a run, and gives how many were.
func (w *world) awaitItem(run, instance string) (n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	err := w.me.FollowMirrorDone(ctx, "out", run, func(r bus.Record) error {
		if n++; r.Instance == instance {
			return bus.Stop
		}
		return nil
	})
	if err != nil && !errors.Is(err, bus.Stop) {
		w.t.Fatalf("%s carried out nothing, others %d items: %v", instance, n, err)
	}
	return n
}

// A planner that dies while it follows the rules leaves to the next one what is missing, and
// nothing that would have to be copied or read again.
func TestRulesForTheSourceGoOnWhereAPlannerWasKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ruled(drill.Mirror{Name: "out"}))
	w.tree("src", 3000)
	kill := w.process("a")
	w.ask("out", "")
	_, seq := w.await("out", 0, fleet.KindStarted)
	amid := filepath.Join(w.dir, "src", "d08", "f0008")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(time.Minute); ; <-tick.C {
		st, err := os.Stat(amid)
		must(t, err)
		if st.Mode().Perm() == 0o604 {
			break
		}
		if time.Now().After(until) {
			t.Fatal("no rule is followed")
		}
	}
	kill()
	t.Logf("killed with %d of 3017 entries as they were", unruled(w.rights("src")))
	w.process("b")
	w.ask("out", "")
	e, seq := w.await("out", seq, fleet.KindFinished)
	if !e.Result.Whole {
		t.Errorf("%+v", e.Result)
	}
	w.byRules(3017)
	w.ask("out", "")
	if e, _ := w.await("out", seq, fleet.KindFinished); e.Result.SourcePermissionsSet != 0 || e.Result.Done["equal"] != 3017 {
		t.Errorf("the next run: %+v", e.Result)
	}
}

// unruled counts what no rule was followed for yet.
func unruled(rights map[string]string) (n int) {
	for _, is := range rights {
		if !strings.HasSuffix(is, " 12345") {
			n++
		}
	}
	return n
}
