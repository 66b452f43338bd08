package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// awaitAny is await, and takes failures for what they are.
func (w *world) awaitAny(mirror string, after uint64, kinds ...string) (kind string, e fleet.Event, seq uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	err := w.me.FollowMirror(ctx, mirror, after, func(r bus.Record) error {
		if !slices.Contains(kinds, r.Kind) {
			return nil
		}
		kind, seq = r.Kind, r.Seq
		return errors.Join(json.Unmarshal(r.Data, &e), bus.Stop)
	})
	if err != nil && !errors.Is(err, bus.Stop) {
		w.t.Fatalf("await %v of %s: %v", kinds, mirror, err)
	}
	return kind, e, seq
}

// logged has a process write its log, from a level on, where it can be read.
func logged(log *lines, level slog.Level) func(*fleet.Config) {
	return func(c *fleet.Config) { c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})) }
}

// TestAMirrorIsVerifiedWhereItIsAskedFor: against a real bucket, to the level that is asked
// for; what has drifted has an event of its own, and a line in the log.
func TestAMirrorIsVerifiedWhereItIsAskedFor(t *testing.T) {
	s := newSpread(t, 0)
	var log lines
	s.start(logged(&log, slog.LevelInfo))
	s.ask("big", "")
	_, seq := s.await("big", 0, fleet.KindFinished)
	s.ask("big", `{"do": "verify", "level": "L2"}`)
	e, seq := s.await("big", seq, fleet.KindFinished, fleet.KindDrift)
	o := e.Outcome
	if o == nil || !o.Good || o.Differs || o.Asked != proof.L2 || o.Level != proof.L2 || len(o.Sides) != 2 || o.Counts.Checked != 4 || o.Root == "" || o.Entries != 2 {
		t.Fatalf("verified: %+v", o)
	}
	if e.Do != drill.MirrorVerify || e.Result != nil || e.Log == nil || e.Log.Check == nil || !e.Log.Check.Good || e.Log.Check.Reached != "L2" || e.Log.Check.By != "test" {
		t.Errorf("the event: %+v, %+v", e, e.Log)
	}
	contains(t, log.String(), "level=INFO", "a mirror's run begins", "a mirror's run ended well", "copied=1", "permissionsSet=0 sourcePermissionsSet=0", "a mirror's comparison ended well", "verify at L2: source: 2 checked; destination: 2 checked")
	s.file("d/strange\x1b[31m", "nobody has copied it")
	s.large(2)()
	s.ask("big", `{"do": "drift"}`)
	drift, at := s.await("big", seq, fleet.KindDrift)
	if d := drift.Outcome; d == nil || d.Good || !d.Differs || d.Counts.Extra != 1 || d.Counts.Different != 1 || !strings.Contains(drift.Reason, "1 extra") {
		t.Fatalf("drift: %q, %+v", drift.Reason, d)
	}
	if text := strings.Join(drift.Outcome.Problems, "\n"); !strings.Contains(text, `extra "d/strange\x1b[31m" at dir:`) || !strings.Contains(text, `different "d/large"`) {
		t.Errorf("its problems: %s", text)
	}
	e, _ = s.await("big", at, fleet.KindFinished)
	if e.Run != drift.Run || e.Outcome == nil || e.Outcome.Good || e.Log == nil || !e.Log.Check.Differs {
		t.Errorf("and then it has finished: %+v", e)
	}
	contains(t, log.String(), "level=ERROR", "a mirror is not what its last run left", "mirror=big", "do=drift", "1 different")
}

func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no word on %q in:\n%s", w, text)
		}
	}
}

// TestAnAuditRepairsWhereItIsAskedFor, and what it finds is told although it is mended.
func TestAnAuditRepairsWhereItIsAskedFor(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.file("f", "content")
	w.start()
	w.ask("out", `{"check": "audit"}`)
	_, seq := w.await("out", 0, fleet.KindFinished)
	rotten := filepath.Join(w.dir, "dst", "f")
	st, err := os.Stat(rotten)
	must(t, err)
	// Rot leaves no trace in an inode's times, which a write does: what the last run knows of
	// the inode is made to be that of the damaged file.
	must(t, errors.Join(os.WriteFile(rotten, []byte("cOntent"), 0o640), os.Chtimes(rotten, st.ModTime(), st.ModTime())))
	w.ask("out", `{"do": "audit", "repair": true}`)
	drift, seq := w.await("out", seq, fleet.KindDrift)
	if o := drift.Outcome; o == nil || o.Audit == nil || o.Level != proof.L4 || o.Counts.Different != 1 || o.Audit.Edited+int64(o.Audit.RottenSum) == 0 {
		t.Fatalf("audited: %+v", o)
	}
	w.await("out", seq, fleet.KindFinished)
}

// TestAMirrorVerifiesByItself: on a schedule of its own, beside that of its runs, and each
// kind of request waits for itself only.
func TestAMirrorVerifiesByItself(t *testing.T) {
	often := event.Duration(time.Second)
	w := newWorld(t, drill.Mirror{Name: "often", From: "dir:DIR/src", To: "dir:DIR/dst", Every: often, Check: "listing",
		Verify: &drill.MirrorVerification{Level: "L2", Every: often}})
	w.tree("src", 20)
	w.start()
	var synced, verified bool
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, w.me.FollowMirror(ctx, "often", 0, func(r bus.Record) error {
		var e fleet.Event
		must(t, json.Unmarshal(r.Data, &e))
		switch {
		case r.Kind == fleet.KindFinished && e.Result != nil && e.Result.Done["put"] == 0:
			if synced = e.By == fleet.Scheduler; e.Result.Believed != 0 {
				t.Errorf("a run that lists believed: %+v", e.Result)
			}
		case r.Kind == fleet.KindFinished && e.Outcome != nil:
			if verified = e.By == fleet.VerifyScheduler; !e.Outcome.Good || e.Outcome.Asked != proof.L2 {
				t.Errorf("verified: %+v", e.Outcome)
			}
		}
		if synced && verified {
			return bus.Stop
		}
		return nil
	}))
}

// TestTicksOfOneKindDoNotHideTheOther: a later verification's end tells nothing of a run that
// still waits.
func TestTicksOfOneKindDoNotHideTheOther(t *testing.T) {
	w := newWorld(t)
	ask := func(who string) uint64 {
		subject, err := bus.MirrorRequest{Who: who, Mirror: "m"}.Subject()
		must(t, err)
		ack, err := w.me.Publish(t.Context(), subject, nil, "")
		must(t, err)
		return ack.Seq
	}
	end := func(request uint64) {
		must(t, w.me.PublishMirrorEvent(t.Context(), "m", fleet.KindFinished, "", fleet.Event{Mirror: "m", Run: fmt.Sprintf("%d-x", request)}))
	}
	sync, verify := ask(fleet.Scheduler), ask(fleet.VerifyScheduler)
	pending := func(who string, want bool) {
		t.Helper()
		if got, err := fleet.Pending(t.Context(), fleet.Config{Bus: w.me}, who, "m"); err != nil || got != want {
			t.Errorf("%s is pending: %v, %v", who, got, err)
		}
	}
	pending(fleet.Scheduler, true)
	end(verify)
	pending(fleet.Scheduler, true)
	pending(fleet.VerifyScheduler, false)
	end(sync)
	end(999)
	pending(fleet.Scheduler, false)
	pending(fleet.VerifyScheduler, false)
}

func TestWhatDoesNotFitTogetherIsRejected(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"},
		drill.Mirror{Name: "snaps", From: "zfs:a/b", To: "zfs:c/d", Snapshots: &drill.MirrorSnapshots{}})
	w.start()
	var after uint64
	for _, c := range []struct{ mirror, body, want string }{
		{"out", `{"do": "vrify"}`, `do: "vrify" is unknown: use sync, verify, drift or audit`},
		{"out", `{"level": "L2"}`, `level: "L2" is for "do": "verify", and this asks for "sync": leave it out, or ask for that`},
		{"out", `{"do": "verify", "level": "L9"}`, `level: "L9" is no level: use L1, L2, L3 or L4`},
		{"out", `{"do": "verify", "check": "audit"}`, `check: "audit" is for "do": "sync"`},
		{"out", `{"do": "drift", "dryRun": true}`, `dryRun: true is for "do": "sync"`},
		{"out", `{"do": "verify", "repair": true}`, `repair: true is for "do": "audit"`},
		{"out", `{"do": "audit", "repairSource": true}`, `repairSource: it says how far repair may go`},
		{"out", `{"do": "audit", "level": "L4"}`, `level: "L4" is for "do": "verify"`},
		{"out", `{"do": "verify", "side": "left"}`, `side: "left" is no side: use source, destination or both`},
		{"out", `{"do": "verify", "read": "5%"}`, `read: it is for level L3 only`},
		{"out", `{"do": "verify", "period": "48h"}`, `period: it is for level L3 only`},
		{"out", `{"do": "verify", "level": "L3", "read": "lots"}`, `read: "lots": write a share such as 5%, or bytes such as 500M or 10Gi`},
		{"snaps", `{"do": "verify"}`, `do: "verify": it brings over snapshots`},
	} {
		if c.mirror == "snaps" {
			after = 0
		}
		w.ask(c.mirror, c.body)
		e, seq := w.await(c.mirror, after, fleet.KindRejected)
		if after = seq; !strings.Contains(e.Reason, c.want) {
			t.Errorf("%s: rejected because %q, want %q", c.body, e.Reason, c.want)
		}
	}
	// Nothing is known yet, and something is not as it should be; the place is wrong, and the
	// caller told it so.
	r, _, err := w.me.LastMirror(t.Context(), "out")
	must(t, err)
	w.ask("out", `{"do": "verify"}`)
	if e, _ := w.await("out", r.Seq, fleet.KindFailed); e.Fault != job.FaultRefused || !strings.Contains(e.Reason, "run it first") {
		t.Errorf("before the first run: %+v", e)
	}
}

// TestAComparisonIsCalledOffAndStandsStill: as a run is and does.
func TestAComparisonIsCalledOffAndStandsStill(t *testing.T) {
	t.Parallel() // it waits for most of its time
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", Stalled: event.Duration(time.Second)})
	w.heavy()
	stop := w.start()
	w.ask("slow", "")
	_, seq := w.await("slow", 0, fleet.KindFinished)
	stop()
	w.inv.Spec.Mirrors[0].BytesPerSecond = 1
	var log lines
	w.start(logged(&log, slog.LevelWarn))
	w.ask("slow", `{"do": "verify", "level": "L4"}`)
	e, seq := w.await("slow", seq, fleet.KindStalled)
	if e.Do != drill.MirrorVerify || e.Progress == nil || !strings.Contains(e.Reason, "no progress for") {
		t.Errorf("the alarm says %+v", e)
	}
	if e, seq = w.await("slow", seq, fleet.KindProgress); e.Progress.StillSeconds < 1 {
		t.Errorf("and then it still stands still: %+v", e.Progress)
	}
	must(t, w.me.PublishMirrorCommand(t.Context(), "slow", "cancel", nil))
	e, _ = w.await("slow", seq, fleet.KindCancelled)
	if e.Log == nil || e.Log.Success == nil || e.Log.Check != nil || e.Log.Last.Cancelled {
		t.Errorf("a comparison that was called off is no run: %+v", e.Log)
	}
	contains(t, log.String(), "a mirror stands still")
}

// TestARunThatWaitsSaysSo, for whom it waits, again and again, and can be called off.
func TestARunThatWaitsSaysSo(t *testing.T) {
	t.Parallel() // it waits for most of its time
	w := newWorld(t,
		drill.Mirror{Name: "one", From: "dir:DIR/src", To: "dir:DIR/mid", BytesPerSecond: 1},
		drill.Mirror{Name: "two", From: "dir:DIR/mid", To: "dir:DIR/dst"},
		drill.Mirror{Name: "held", From: "dir:DIR/src2", To: "dir:DIR/dst2"},
		drill.Mirror{Name: "open", From: "dir:DIR/src2", To: "dir:DIR/dst3"})
	w.heavy()
	must(t, errors.Join(os.MkdirAll(filepath.Join(w.dir, "mid"), 0o755), os.MkdirAll(filepath.Join(w.dir, "src2"), 0o755)))
	lease := w.lease("held", "elsewhere")
	locked, err := state.Open(filepath.Join(w.dir, "state", "open"))
	must(t, err)
	w.start(func(c *fleet.Config) { c.Lease = time.Hour })
	w.ask("one", "")
	w.await("one", 0, fleet.KindStarted)
	w.ask("two", "")
	e, seq := w.await("two", 0, fleet.KindWaiting)
	if e.Since == nil || e.By != "test" || e.Do != drill.MirrorSync || !strings.Contains(e.Reason, "a location in common") {
		t.Errorf("it waits: %+v", e)
	}
	must(t, w.me.PublishMirrorCommand(t.Context(), "two", "cancel", fleet.Cancel{Run: e.Run}))
	if ended, _ := w.await("two", seq, fleet.KindCancelled, fleet.KindStarted); ended.Run != e.Run || ended.Since != nil {
		t.Errorf("it ended as %+v", ended)
	}
	w.ask("held", "")
	if e, _ := w.await("held", 0, fleet.KindWaiting); !strings.Contains(e.Reason, "run elsewhere has the mirror, planned by cli") {
		t.Errorf("it waits: %+v", e)
	}
	_, err = w.me.TakeMirrorLease(t.Context(), lease, "")
	must(t, err)
	w.await("held", 0, fleet.KindFinished)
	w.ask("open", "")
	if e, _ := w.await("open", 0, fleet.KindWaiting); !strings.Contains(e.Reason, "somebody has the mirror open") {
		t.Errorf("it waits: %+v", e)
	}
	must(t, locked.Close())
	w.await("open", 0, fleet.KindFinished)
}

// TestNobodyComparesWithAnOlderRun: whoever ran the mirror last remembers what is there.
func TestNobodyComparesWithAnOlderRun(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.file("f", "content")
	var seq uint64
	for _, name := range []string{"a", "b"} {
		stop := w.machine(name)
		w.ask("out", "")
		_, seq = w.await("out", seq, fleet.KindFinished)
		stop()
		w.file("g", "another")
	}
	w.machine("a")
	w.ask("out", `{"do": "verify"}`)
	kind, e, _ := w.awaitAny("out", seq, fleet.KindFailed, fleet.KindFinished, fleet.KindDrift)
	if kind != fleet.KindFailed || !strings.Contains(e.Reason, "would compare with an older run: give all mirror processes the same --mirror-state-dir") {
		t.Errorf("%s: %+v", kind, e)
	}
}
