package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// TestASingleRunEndsWithWhoWaitsForIt: nobody else goes on with it, so that it was called
// off, and says so to all and in the log.
func TestASingleRunEndsWithWhoWaitsForIt(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1})
	w.heavy()
	env := job.Env{StateDir: filepath.Join(w.dir, "state"), Now: time.Now}
	single := fleet.NewSingle(fleet.Config{Bus: w.connect(event.Mirror), Log: quiet(), Inventory: w.inv, Env: env})
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("the drill is over")
	done := make(chan error, 1)
	go func() {
		_, err := single.Do(ctx, bus.MirrorRequest{Who: "drill", Mirror: "slow"}, fleet.Request{})
		done <- err
	}()
	began, _ := w.await("slow", 0, fleet.KindProgress) // which it tells of once the log says that it began
	cancel(over)
	if err := <-done; err == nil {
		t.Error("a run that was called off came to an end")
	}
	var ended fleet.Event
	told, cancelled, err := w.me.LastMirrorEvent(t.Context(), "slow", fleet.KindCancelled)
	if must(t, err); !cancelled || json.Unmarshal(told.Data, &ended) != nil {
		t.Fatalf("others are not told: %s", told.Data)
	}
	l, known, err := runlog.Read(runlog.Dir(env, w.inv.Spec.Mirrors[0]))
	if err != nil || !known || l.Last == nil || l.Last.Ended.IsZero() || !l.Last.Failed || l.Failure == nil {
		t.Fatalf("the log: %+v, %v, %v", l, known, err)
	}
	if !strings.Contains(l.Last.Problem, fleet.ErrCancelled.Error()) || !strings.Contains(l.Last.Problem, over.Error()) {
		t.Errorf("it says why: %s", l.Last.Problem)
	}
	if ended.Run != began.Run || ended.Log == nil || ended.Log.Last == nil || ended.Log.Last.Ended.IsZero() {
		t.Errorf("what others are told: %+v", ended)
	}
}
