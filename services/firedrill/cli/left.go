package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

// refuseLeft refuses to start a firedrill of the command's own where an earlier one
// was ended in the midst of a drill. Its services would take that drill up and leave
// it again as soon as the new one, which cannot have the same systems, was refused. So
// the event store is looked at before they are started. msgID is the idempotency key:
// whoever repeats a request goes on with its own drill.
func (a *app) refuseLeft(ctx context.Context, log *slog.Logger, msgID string) error {
	drills, err := a.stored(ctx, log)
	if errors.Is(err, bus.ErrStoreLocked) {
		return fmt.Errorf("another `firedrill run` is under way here, and one runs at a time: wait for its end, or take another --state-dir (%w)", err)
	}
	if err != nil {
		return failure(fmt.Errorf("looking for drills that were left: %w", err))
	}
	for _, d := range drills {
		if p, ok := d.Accepted.Payload.(*event.DrillAccepted); d.Finished != nil || ok && msgID != "" && p.Request.MsgID == msgID {
			continue
		}
		return fmt.Errorf("drill %s was left before everything was put back, so nothing else is started: start %s, which brings it to its end; when %s says that it is published, end that and try again",
			d.Drill, a.command("up"), a.command("list"))
	}
	return nil
}

// stored lists the drills of the state directory's event store, of which no firedrill
// runs; none where there is no store yet.
func (a *app) stored(ctx context.Context, log *slog.Logger) ([]bus.Summary, error) {
	store := filepath.Join(a.stateDir, "nats")
	if _, err := os.Stat(store); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	ring, err := keys.LoadOrCreate(filepath.Join(a.stateDir, "keys"))
	if err != nil {
		return nil, err
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: store, Log: log})
	if err != nil {
		return nil, err
	}
	defer server.Shutdown()
	b, err := bus.Connect(ctx, bus.Options{Embedded: server, Keyring: ring.Keyring, Log: log,
		Identity: bus.Identity{Service: "cli", Instance: "cli", Clock: clock.System()}})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	// A firedrill that was killed as it started has left a store without streams.
	if err := b.Bootstrap(ctx, bus.BootstrapOptions{Replicas: 1}); err != nil {
		return nil, err
	}
	return b.List(ctx)
}
