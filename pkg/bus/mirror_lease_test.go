package bus_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestOneOfManyTakesAMirror(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Mirror)
	free, err := b.MirrorLease(t.Context(), "out")
	if err != nil || free != (bus.MirrorLease{Mirror: "out"}) {
		t.Fatalf("%+v, %v", free, err)
	}
	const many = 8
	got := make([]bus.MirrorLease, many)
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() { got[i], errs[i] = b.TakeMirrorLease(t.Context(), free, fmt.Sprintf("run-%d", i)) })
	}
	wg.Wait()
	now, err := b.MirrorLease(t.Context(), "out")
	if err != nil || now.Instance == "" {
		t.Fatalf("%+v, %v", now, err)
	}
	for i := range many {
		won := now.Run == fmt.Sprintf("run-%d", i)
		if won && (errs[i] != nil || got[i] != now) || !won && !errors.Is(errs[i], bus.ErrConflict) {
			t.Errorf("run-%d: %+v, %v, and the mirror is %s's", i, got[i], errs[i], now.Run)
		}
	}
}

func TestAMirrorIsRenewedAndGivenBack(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Mirror)
	free, err := b.MirrorLease(t.Context(), "out")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := b.TakeMirrorLease(t.Context(), free, "one")
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := b.TakeMirrorLease(t.Context(), mine, "one")
	if err != nil || renewed.Seq <= mine.Seq || renewed.Run != "one" {
		t.Fatalf("renewed %+v to %+v, %v", mine, renewed, err)
	}
	if _, err := b.TakeMirrorLease(t.Context(), mine, "two"); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("with what was read before the renewal: %v", err)
	}
	back, err := b.TakeMirrorLease(t.Context(), renewed, "")
	if err != nil || back.Run != "" || back.Instance != "" {
		t.Fatalf("gave back %+v, %v", back, err)
	}
	if _, err := b.TakeMirrorLease(t.Context(), renewed, "one"); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("renewed what was given back: %v", err)
	}
	if other, err := b.MirrorLease(t.Context(), "in"); err != nil || other.Seq != 0 {
		t.Errorf("another mirror: %+v, %v", other, err)
	}
}

// A process that starts while the server restarts must not end because of it.
func TestASchedulesRemovalOutlastsARestart(t *testing.T) {
	w := newWorld(t)
	w.server.Shutdown()
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir, Listen: "127.0.0.1:0"})
	address := strings.TrimPrefix(w.server.URL(), "nats://")
	b := connect(t, bus.Options{URL: w.server.URL(), Identity: w.identity(event.Mirror, "mirror-1"), Keyring: w.ring})
	sync := bus.MirrorSchedule{Mirror: "out", What: "sync"}
	if err := b.ScheduleMirror(t.Context(), sync, "@every 1h", ""); err != nil {
		t.Fatal(err)
	}
	w.server.Shutdown()
	gone := make(chan error, 1)
	go func() { gone <- b.ScheduleMirror(t.Context(), sync, "", "") }()
	// It must have found nobody there, which it tells nobody: a try takes far less.
	select {
	case err := <-gone:
		t.Fatalf("without a server: %v", err)
	case <-time.After(time.Second):
	}
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: w.dir, Listen: address})
	if err := await(t, gone, 15*time.Second, "removal of the schedule"); err != nil {
		t.Error(err)
	}
	if at, err := b.MirrorTimes(t.Context(), sync); err != nil || at.Spec != "" {
		t.Errorf("it is still scheduled: %+v, %v", at, err)
	}
}
