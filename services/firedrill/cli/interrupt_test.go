package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// TestAnInterruptAborts: and a second one would say what is left, and how to settle it.
func TestAnInterruptAborts(t *testing.T) {
	dir := serve(t)
	var errs bytes.Buffer
	a := &app{Streams: Streams{Out: &bytes.Buffer{}, Err: &errs}, stateDir: dir, logLevel: "error"}
	s, err := a.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.bus.Close()
	var state atomic.Pointer[drill.State]
	state.Store(&drill.State{ID: somebodysDrill, Debts: []drill.Debt{{Step: "p/fault/kill", Operation: "kill", Target: "orders"}}})
	a.interrupted(t.Context(), s, &state)
	if !strings.Contains(errs.String(), "interrupted: aborting the drill") {
		t.Errorf("said %q", &errs)
	}
	err = s.bus.FollowCommands(t.Context(), somebodysDrill, func(verb string, _ []byte) error {
		if verb != "abort" {
			t.Errorf("command %q", verb)
		}
		return bus.Stop
	})
	if err != nil {
		t.Error(err)
	}
	if said := a.lastWords(s, *state.Load()); !strings.Contains(said, "goes on aborting it: `firedrill --state-dir "+dir+" watch "+somebodysDrill+"`") {
		t.Errorf("of another process's drill: %q", said)
	}
	s.own = &allinone.Stack{} // as if it conducted the drill itself
	said := a.lastWords(s, *state.Load())
	for _, want := range []string{
		"this of " + somebodysDrill + " is not put back:\n  p/fault/kill: kill on orders\n",
		"`firedrill --state-dir " + dir + " up`", "`firedrill --state-dir " + dir + " undo " + somebodysDrill + "`",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in:\n%s", want, said)
		}
	}
}

func TestWhatIsLeftOfADrill(t *testing.T) {
	a := &app{stateDir: defaultStateDir}
	for want, st := range map[string]drill.State{
		"d-1 is not over; nothing that is known of it has to be put back":                                          {ID: "d-1"},
		"everything that d-1 did is put back, but it has no report yet":                                            {ID: "d-1", Finished: &event.DrillFinished{}},
		"u-1 was let go on ada's word: NOT undone by firedrill, and it has no report yet":                          {ID: "u-1", Requester: "ada", Waives: "by hand", Finished: &event.DrillFinished{Complete: true}},
		"this of d-1 is not put back:\n  a/fault/f: kill on s\n  a/recovery/r: promote on s\n`firedrill up` takes": {ID: "d-1", Debts: []drill.Debt{{Step: "a/fault/f", Operation: "kill", Target: "s"}, {Step: "a/recovery/r", Operation: "promote", Target: "s"}}},
		"try again with `firedrill undo d-1`":                                                                      {ID: "d-1", Finished: &event.DrillFinished{}, Debts: []drill.Debt{{Step: "a/fault/f"}}},
	} {
		if got := a.leftUndone(st); !strings.Contains(got, want) || !strings.HasSuffix(got, "\n") {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
}

// TestWhatWasSeenCounts: a drill whose end was seen has its verdict, though what
// conducted it has ended at that moment.
func TestWhatWasSeenCounts(t *testing.T) {
	a, s := &app{stateDir: "/s"}, &session{}
	if err := a.unseen(s, "d-1", true, nil); err != nil {
		t.Errorf("its end was seen: %v", err)
	}
	err := a.unseen(s, "d-1", true, context.Canceled)
	if err == nil || !strings.Contains(err.Error(), "`firedrill --state-dir /s up`") || !strings.Contains(err.Error(), "watch d-1`") || errors.Is(err, context.Canceled) {
		t.Errorf("its firedrill has ended: %v", err)
	}
	if err := a.unseen(s, "d-1", false, context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("it was left: %v", err)
	}
}

// TestAnotherFiredrillIsAnother: that one runs in the state directory says nothing of
// the one that was connected to.
func TestAnotherFiredrillIsAnother(t *testing.T) {
	a := &app{stateDir: serve(t), logLevel: "error"}
	s, err := a.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.bus.Close()
	if !a.runsStill(s.record) {
		t.Error("it runs")
	}
	for name, other := range map[string]allinone.Record{
		"with another login":   {PID: os.Getpid(), NATSURL: s.record.NATSURL, Seed: "SU"},
		"with another address": {PID: os.Getpid(), NATSURL: "nats://127.0.0.1:1"},
		"of another process":   {PID: os.Getpid() + 1, NATSURL: s.record.NATSURL},
	} {
		record(t, a.stateDir, other)
		if a.runsStill(s.record) {
			t.Errorf("one %s is taken for it", name)
		}
	}
	if !a.runsStill(allinone.Record{}) {
		t.Error("of servers that were named nothing is known")
	}
}

// TestWhatWasLetGoIsNotSaidToBePutBack, wherever the end of a settlement is told.
func TestWhatWasLetGoIsNotSaidToBePutBack(t *testing.T) {
	a := &app{stateDir: defaultStateDir}
	st := drill.State{ID: "u-1", Requester: "ada", Waives: "by hand", Finished: &event.DrillFinished{Complete: true}}
	reported := st
	reported.Published = true
	said := map[string]string{
		"summary":   a.summary(&session{}, st),
		"published": a.summary(&session{}, reported),
		"dead":      a.withoutReport(&session{}, st, bus.DeadLetter{}, runOptions{}),
		"left":      a.leftUndone(st),
	}
	for where, text := range said {
		if !strings.Contains(text, "let go on ada's word: NOT undone by firedrill") || strings.Contains(text, "put back") {
			t.Errorf("%s: %q", where, text)
		}
	}
}

// TestAnotherUsersStoreIsNotOpened, nor are keys made to read one.
func TestAnotherUsersStoreIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	server, b := openStore(t, dir, "")
	b.Close()
	server.Shutdown()
	a := &app{stateDir: dir}
	if err := a.ownStore(os.Geteuid()); err != nil {
		t.Error(err)
	}
	if err := a.ownStore(os.Geteuid() + 1); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("sudo -u '#%d' firedrill", os.Geteuid())) {
		t.Errorf("another user: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	if did := command(t, dir, "list"); did.code != run.OK {
		t.Errorf("%+v", did)
	}
	if _, err := os.Stat(filepath.Join(dir, "keys")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looking made keys: %v", err)
	}
}
