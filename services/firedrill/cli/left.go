package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
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
// the event store is looked at before they are started. Whoever repeats a request goes
// on with its own drill.
func (a *app) refuseLeft(ctx context.Context, r asked) error {
	if !a.hasStore() {
		return nil
	}
	var others []string
	err := a.withStore(ctx, func(b *bus.Bus) error {
		left, err := unfinished(ctx, b)
		for _, d := range left {
			own, err := askedBy(ctx, b, d, r)
			if err != nil {
				return err
			}
			if !own {
				others = append(others, d.Drill)
			}
		}
		return err
	})
	switch {
	case errors.Is(err, bus.ErrStoreLocked):
		if rec, ok := allinone.ReadRecord(a.stateDir); ok && rec.Private() {
			return errOneRun
		}
		return failure(err)
	case err != nil:
		return failure(fmt.Errorf("looking for drills that were left: %w", err))
	case len(others) > 0:
		return errors.New(a.wasLeft(others[0]))
	}
	return nil
}

// askedBy reports whether a drill is what became of a request. One whose request is not
// stored any more is not: neither would its idempotency key hold.
func askedBy(ctx context.Context, b *bus.Bus, d bus.Summary, r asked) (bool, error) {
	seq := accepted(d).Request.Sequence
	if seq == 0 {
		return false, nil
	}
	before, err := b.RequestAt(ctx, seq)
	if errors.Is(err, bus.ErrNoRequest) {
		return false, nil
	}
	return err == nil && r.is(before.Subject, before.Data, before.MsgID), err
}

// wasLeft says why nothing is run beside a drill that was left, and how to end it.
func (a *app) wasLeft(drill string) string {
	return fmt.Sprintf("drill %s was left before everything was put back, so nothing else is started: start %s, which brings it to its end; when %s says that it is published, end that and try again",
		drill, a.command("up"), a.command("list"))
}

// hasStore reports whether a firedrill ever ran, or was halted, in the state directory.
func (a *app) hasStore() bool {
	_, err := os.Stat(allinone.StoreDir(a.stateDir))
	return !errors.Is(err, fs.ErrNotExist)
}

// withStore calls f with the event store of the state directory, of which no firedrill
// runs, and makes it where there is none. It starts no services.
func (a *app) withStore(ctx context.Context, f func(*bus.Bus) error) error {
	s, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	return f(s.bus)
}

// openStore is a session with the event store of the state directory alone.
func (a *app) openStore(ctx context.Context) (*session, error) {
	log, err := a.log()
	if err != nil {
		return nil, err
	}
	if err := a.ownStore(os.Geteuid()); err != nil {
		return nil, err
	}
	// Nothing is signed here, so no keys are made: without any, nothing can be verified.
	ring, err := keys.ReadKeyring(filepath.Join(a.stateDir, "keys", keys.KeyringFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: allinone.StoreDir(a.stateDir), Log: log})
	if err != nil {
		return nil, err
	}
	b, err := bus.Connect(ctx, bus.Options{Embedded: server, Keyring: ring, Log: log,
		Identity: bus.Identity{Service: "cli", Instance: "cli", Clock: clock.System()}})
	if err != nil {
		server.Shutdown()
		return nil, err
	}
	s := &session{bus: b, keyring: ring, store: server}
	// A firedrill that was killed as it started has left a store without streams.
	if err := b.Bootstrap(ctx, bus.BootstrapOptions{Replicas: 1}); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// ownStore refuses to open an event store that another user's firedrill made: also who
// only reads from it leaves files in it, which that user could not open any more.
func (a *app) ownStore(user int) error {
	dir := allinone.StoreDir(a.stateDir)
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if of, ok := info.Sys().(*syscall.Stat_t); ok && int(of.Uid) != user {
		return fmt.Errorf("%s belongs to the user with id %d, whose firedrill could not open what another user writes there: run this as that user, such as by `sudo -u '#%d' firedrill …`", dir, of.Uid, of.Uid)
	}
	return nil
}

// look is connect for who only reads: where no firedrill runs, what the last one has
// left is read from its store. One that is just starting or ending is waited for.
func (a *app) look(ctx context.Context) (*session, error) {
	return a.settled(ctx, func() (*session, error) {
		s, err := a.connect(ctx)
		if !errors.Is(err, errNoServer) || !a.hasStore() {
			return s, err
		}
		s, err = a.openStore(ctx)
		return s, failure(err)
	})
}

// reach is connect that waits for a firedrill which is just starting or ending.
func (a *app) reach(ctx context.Context) (*session, error) {
	return a.settled(ctx, func() (*session, error) { return a.connect(ctx) })
}

// settled opens a session, and waits for a firedrill that is just starting or ending: after
// a crash those are the seconds in which people most want to know, and end, what goes on.
func (a *app) settled(ctx context.Context, open func() (*session, error)) (s *session, err error) {
	err = whileChanging(ctx, func() error {
		s, err = open()
		return a.orChanging(err)
	}, func() {
		fmt.Fprintf(a.Err, "firedrill: %v: waiting for that, up to %s\n", errChanging, changeWait)
	})
	if errors.Is(err, errChanging) {
		err = failure(fmt.Errorf("waited for up to %s: %w", changeWait, err))
	}
	return s, err
}

// orChanging is an error, or errChanging where it says that somebody has the store, who
// cannot be asked.
func (a *app) orChanging(err error) error {
	if errors.Is(err, errNoServer) {
		if held := bus.StoreHolder(allinone.StoreDir(a.stateDir)); errors.Is(held, bus.ErrStoreLocked) {
			err = held
		}
	}
	if errors.Is(err, bus.ErrStoreLocked) {
		return fmt.Errorf("%w: %w", errChanging, err)
	}
	return err
}

// errChanging says that a firedrill can neither be asked nor its store be opened.
var errChanging = errors.New("a firedrill is just starting or ending here")

// withRunningOrStore calls f with the firedrill that runs, or else with the event store
// of the state directory. The error is errChanging where neither can be reached, and
// where the one that runs ends meanwhile, when f may have been called.
func (a *app) withRunningOrStore(ctx context.Context, f func(ctx context.Context, b *bus.Bus, running bool) error) error {
	rec, err := a.running()
	if err == nil {
		return a.withRunning(ctx, rec, func(ctx context.Context, b *bus.Bus) error { return f(ctx, b, true) })
	}
	if err = a.orChanging(err); errors.Is(err, errChanging) {
		return err
	}
	return a.orChanging(a.withStore(ctx, func(b *bus.Bus) error { return f(ctx, b, false) }))
}

// changeWait is how long a firedrill that is starting or ending is waited for.
const changeWait = 15 * time.Second

// patiently is withRunningOrStore that waits for a firedrill which is starting or ending;
// it calls waits before it does so. f is called again only if it failed.
func (a *app) patiently(ctx context.Context, f func(ctx context.Context, b *bus.Bus, running bool) error, waits func()) error {
	return whileChanging(ctx, func() error { return a.withRunningOrStore(ctx, f) }, waits)
}

// whileChanging calls try again and again while its error is errChanging, for up to
// changeWait; it calls waits before it does so.
func whileChanging(ctx context.Context, try func() error, waits func()) error {
	err := try()
	if !errors.Is(err, errChanging) {
		return err
	}
	waits()
	limit, tick := time.NewTimer(changeWait), time.NewTicker(lookPause)
	defer limit.Stop()
	defer tick.Stop()
	for errors.Is(err, errChanging) {
		select {
		case <-ctx.Done():
			return err
		case <-limit.C:
			return err
		case <-tick.C:
			err = try()
		}
	}
	return err
}

// lookPause is how often it is looked whether a firedrill still runs.
const lookPause = 100 * time.Millisecond

// withRunning calls f with the firedrill of a record, for as long as that runs: what is
// tried with one that has ended would only fail after a long time.
func (a *app) withRunning(ctx context.Context, rec allinone.Record, f func(context.Context, *bus.Bus) error) error {
	alive, cancel := context.WithCancel(ctx)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		tick := time.NewTicker(lookPause)
		defer tick.Stop()
		for a.runsStill(rec) {
			select {
			case <-alive.Done():
				return
			case <-tick.C:
			}
		}
		cancel()
	}()
	defer func() { cancel(); <-looked }()
	s, err := a.dial(alive, rec)
	if err == nil {
		defer s.close()
		err = f(alive, s.bus)
	}
	if err != nil && ctx.Err() == nil && !a.runsStill(rec) {
		return fmt.Errorf("%w: %w", errChanging, err)
	}
	return err
}
