package cli

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// A run that fails, too, takes nothing from a verification that has failed before it.
func TestAFailedVerificationIsNotForgotten(t *testing.T) {
	dir := t.TempDir()
	server, b := openStoreAs(t, event.Mirror, dir, "127.0.0.1:0")
	t.Cleanup(func() { b.Close(); server.Shutdown() })
	v, at := &fleetView{s: &session{bus: b}}, time.Now()
	tell := func(do, why string) {
		t.Helper()
		at = at.Add(time.Second)
		if err := b.PublishMirrorEvent(t.Context(), "out", fleet.KindFailed, "", fleet.Event{Do: do, At: at, Reason: why}); err != nil {
			t.Fatal(err)
		}
	}
	is := func(checked *runlog.Check, want string) {
		t.Helper()
		got, err := v.unchecked(t.Context(), &mirrorStatus{Name: "out", Check: checked})
		if err != nil || !strings.HasSuffix(got, want) || want == "" && got != "" {
			t.Errorf("it says %q, %v, want %q", got, err, want)
		}
	}
	is(nil, "")
	tell(drill.MirrorSync, "no space")
	is(nil, "")
	before := &runlog.Check{Ended: at}
	tell(drill.MirrorVerify, "no server")
	tell(drill.MirrorSync, "no space")
	is(nil, "verify failed: no server")
	is(before, "verify failed: no server")
	is(&runlog.Check{Ended: at}, "")
	tell(drill.MirrorAudit, "no keys")
	is(before, "audit failed: no keys")
}

// A server that died clears no alarm.
func TestWhatCouldNotBeAskedIsNotWell(t *testing.T) {
	inventory, _ := slowMirror(t)
	dir := t.TempDir()
	good := runlog.Log{}
	good.Last = &runlog.Run{Began: time.Now(), Ended: time.Now(), Whole: true}
	good.Success = good.Last
	var out bytes.Buffer
	a := &app{Streams: Streams{Out: &out, Err: &out}, stateDir: dir, inventory: inventory, logLevel: "error"}
	a.nats.URL = "nats://127.0.0.1:1"
	v, done := a.fleetView(t.Context())
	defer done()
	for _, named := range []bool{true, false} {
		s := &subject{Mirror: drill.Mirror{Name: "out", From: "dir:/a", To: "dir:/b"}, env: job.Env{StateDir: filepath.Join(dir, "mirrors"), Now: time.Now}, log: good, named: named}
		st, err := s.status(t.Context(), v, drill.Inventory{})
		if err != nil || st.Well == named || strings.Contains(fmt.Sprint(st.Problems), "could not be asked: ") != named {
			t.Errorf("named %v: well %v, %q, %v", named, st.Well, st.Problems, err)
		}
	}
	if got := wellExit(false); codeOf(got) != run.Fail || !errors.Is(wellExit(true), nil) {
		t.Errorf("it exits with %v", got)
	}
}
