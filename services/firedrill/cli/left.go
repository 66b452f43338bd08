package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

// unfinished lists the drills that are not at their end: under way, or left there.
func unfinished(ctx context.Context, b *bus.Bus) ([]bus.Summary, error) {
	all, err := b.List(ctx)
	return slices.DeleteFunc(all, func(d bus.Summary) bool { return d.Finished != nil }), err
}

// accepted is a drill's opening event; the zero value where this build cannot read it.
func accepted(d bus.Summary) event.DrillAccepted {
	if p, ok := d.Accepted.Payload.(*event.DrillAccepted); ok {
		return *p
	}
	return event.DrillAccepted{}
}

// refuseLeft refuses to start a firedrill of the command's own where an earlier one
// was ended in the midst of a drill. Its services would take that drill up and leave
// it again as soon as the new one, which cannot have the same systems, was refused. So
// the event store is looked at before they are started. msgID is the idempotency key:
// whoever repeats a request goes on with its own drill.
func (a *app) refuseLeft(ctx context.Context, msgID string) error {
	var left []bus.Summary
	err := a.withStore(ctx, func(b *bus.Bus) (err error) {
		left, err = unfinished(ctx, b)
		return err
	})
	switch {
	case errors.Is(err, errNoStore):
		return nil
	case errors.Is(err, bus.ErrStoreLocked):
		return fmt.Errorf("%w (%w)", errOneRun, err)
	case err != nil:
		return failure(fmt.Errorf("looking for drills that were left: %w", err))
	}
	for _, d := range left {
		if msgID == "" || accepted(d).Request.MsgID != msgID {
			return fmt.Errorf("drill %s was left before everything was put back, so nothing else is started: start %s, which brings it to its end; when %s says that it is published, end that and try again",
				d.Drill, a.command("up"), a.command("list"))
		}
	}
	return nil
}

// errNoStore says that no firedrill ever ran in the state directory.
var errNoStore = errors.New("there is no event store")

// withStore calls f with the event store of the state directory, of which no firedrill
// runs. It starts no services.
func (a *app) withStore(ctx context.Context, f func(*bus.Bus) error) error {
	store := filepath.Join(a.stateDir, "nats")
	if _, err := os.Stat(store); errors.Is(err, fs.ErrNotExist) {
		return errNoStore
	}
	log, err := a.log()
	if err != nil {
		return err
	}
	ring, err := keys.LoadOrCreate(filepath.Join(a.stateDir, "keys"))
	if err != nil {
		return err
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: store, Log: log})
	if err != nil {
		return err
	}
	defer server.Shutdown()
	b, err := bus.Connect(ctx, bus.Options{Embedded: server, Keyring: ring.Keyring, Log: log,
		Identity: bus.Identity{Service: "cli", Instance: "cli", Clock: clock.System()}})
	if err != nil {
		return err
	}
	defer b.Close()
	// A firedrill that was killed as it started has left a store without streams.
	if err := b.Bootstrap(ctx, bus.BootstrapOptions{Replicas: 1}); err != nil {
		return err
	}
	return f(b)
}

// withRunningOrStore calls f with the firedrill that runs, or else with the event store
// of the one that ran last in the state directory.
func (a *app) withRunningOrStore(ctx context.Context, f func(b *bus.Bus, running bool) error) error {
	s, err := a.connect(ctx)
	if err == nil {
		defer s.close()
		return f(s.bus, true)
	}
	if !errors.Is(err, errNoServer) {
		return err
	}
	return a.withStore(ctx, func(b *bus.Bus) error { return f(b, false) })
}
