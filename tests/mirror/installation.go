// Package mirror runs the mirror as an installation runs it: a NATS server, a MinIO
// and workers, each a process of its own. It kills them while they work, slows the
// way to the store, and looks at what is left with programs that know nothing of
// firedrill.
package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/lab/relay"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// Options say what an installation consists of.
type Options struct {
	// Bin has the programs firedrill-mirror, minio and rclone.
	Bin string
	// Self is a program that calls [ServeNATS] when its first argument is ServeFlag.
	Self string
	// Dir gets everything; it must exist, and whoever made it removes it.
	Dir string
	// Data is where MinIO's data lies; "" is below Dir.
	Data string
	// Mirrors are the inventory's; DIR in their locations stands for Dir, and s3:lab
	// is the MinIO.
	Mirrors []drill.Mirror
	// Items is how many items a worker carries out at once; 0 lets it choose.
	Items int
	// Link is how the way to MinIO behaves.
	Link relay.Link
	// AckWait is how long a worker may be silent before its work is given to another
	// one; 0 leaves it as installations have it.
	AckWait time.Duration
}

// Installation is a running one. Stop ends it.
type Installation struct {
	Options
	Bus   *bus.Bus
	MinIO *lab.MinIO
	S3    *minio.Client
	Nats  *process

	keys     *keys.Set
	url      string
	relay    *relay.Relay
	workers  []*process
	accident chan error
}

// storeName is the MinIO in the inventory.
const storeName = "lab"

// startLimit bounds the start of everything.
const startLimit = 2 * time.Minute

// Start starts everything but workers.
func Start(ctx context.Context, o Options) (_ *Installation, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("the installation did not start within %s", startLimit))
	defer cancel()
	in := &Installation{Options: o, accident: make(chan error, 64)}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Stop())
		}
	}()
	if in.Data == "" {
		in.Data = filepath.Join(o.Dir, "minio")
	}
	if in.keys, err = keys.LoadOrCreate(filepath.Join(o.Dir, "keys")); err != nil {
		return nil, err
	}
	if err := in.startStore(ctx); err != nil {
		return nil, err
	}
	if err := in.startNATS(ctx); err != nil {
		return nil, err
	}
	return in, in.writeInventory()
}

func (in *Installation) startStore(ctx context.Context) (err error) {
	in.MinIO, err = lab.StartMinIO(ctx, lab.MinIOOptions{
		Binary: filepath.Join(in.Bin, "minio"), Dir: in.Data, Env: []string{"MINIO_SCANNER_SPEED=slowest"},
	})
	if err != nil {
		return err
	}
	u, err := url.Parse(in.MinIO.Endpoint)
	if err != nil {
		return err
	}
	if in.relay, err = relay.Start(context.WithoutCancel(ctx), relay.Options{Name: "store", Upstream: u.Host, Link: in.Link}); err != nil {
		return err
	}
	in.S3, err = minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(in.MinIO.AccessKey, in.MinIO.SecretKey, ""), Region: "us-east-1",
	})
	return err
}

// ServeFlag is the first argument of the process that serves NATS.
const ServeFlag = "-serve-nats"

// ServeNATS serves NATS from args: a folder, an address, and a file for its URL. It
// never returns without an error: its end is to be killed.
func ServeNATS(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: name a folder, an address and a file for the URL", ServeFlag)
	}
	s, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: args[0], Listen: args[1], Log: slog.Default()})
	if err != nil {
		return err
	}
	defer s.Shutdown()
	part := args[2] + ".part"
	if err := os.WriteFile(part, []byte(s.URL()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(part, args[2]); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// startNATS starts the server on a free port, which it keeps.
func (in *Installation) startNATS(ctx context.Context) error {
	said := filepath.Join(in.Dir, "nats.url")
	in.Nats = in.process("nats", in.Self, ServeFlag, filepath.Join(in.Dir, "nats"), "127.0.0.1:0", said)
	if err := in.Nats.start(); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for in.url == "" {
		raw, err := os.ReadFile(said)
		if err == nil {
			in.url = string(raw)
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the NATS server: %w", context.Cause(ctx))
		case err := <-in.accident:
			return err
		case <-tick.C:
		}
	}
	in.Nats.args[2] = strings.TrimPrefix(in.url, "nats://")
	b, err := bus.Connect(ctx, bus.Options{
		URL: in.url, Keyring: in.keys.Keyring, Log: slog.New(slog.DiscardHandler),
		Identity: bus.Identity{Service: "cli", Instance: "test", Clock: clock.System()},
	})
	if err != nil {
		return err
	}
	in.Bus = b
	if err := b.Bootstrap(ctx, bus.BootstrapOptions{}); err != nil {
		return err
	}
	if in.AckWait == 0 {
		return nil
	}
	return in.hurry(ctx)
}

// hurry shortens the time after which a dead worker's messages are handed out again.
func (in *Installation) hurry(ctx context.Context) error {
	nc, err := nats.Connect(in.url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	quick := func(stream string, cfg jetstream.ConsumerConfig) error {
		cfg.AckWait = in.AckWait
		_, err := js.CreateOrUpdateConsumer(ctx, stream, cfg)
		return err
	}
	for _, d := range bus.Durables() {
		switch d.Name {
		case bus.MirrorRequests:
			c, err := js.Consumer(ctx, d.Stream, d.Name)
			if err == nil {
				err = quick(d.Stream, c.CachedInfo().Config)
			}
			if err != nil {
				return err
			}
		case bus.MirrorWork:
			for _, m := range in.Mirrors {
				if err := quick(d.Stream, d.Lane(m.Name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// inventoryFile has the mirrors for the workers.
func (in *Installation) inventoryFile() string { return filepath.Join(in.Dir, "inventory.json") }

// inventory is what the workers read.
func (in *Installation) inventory() drill.Inventory {
	secret := func(name string) *drill.SecretSource {
		return &drill.SecretSource{File: filepath.Join(in.Dir, name)}
	}
	inv := drill.Inventory{APIVersion: drill.APIVersion, Kind: drill.InventoryKind}
	inv.Spec.Stores = []drill.Store{{
		Name: storeName, Endpoint: "http://" + in.relay.Addr().String(), AccessKey: secret("access"), SecretKey: secret("secret"),
	}}
	for _, m := range in.Mirrors {
		m.From, m.To = strings.ReplaceAll(m.From, "DIR", in.Dir), strings.ReplaceAll(m.To, "DIR", in.Dir)
		inv.Spec.Mirrors = append(inv.Spec.Mirrors, m)
	}
	return inv
}

func (in *Installation) writeInventory() error {
	for name, text := range map[string]string{"access": in.MinIO.AccessKey, "secret": in.MinIO.SecretKey} {
		if err := os.WriteFile(filepath.Join(in.Dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(in.inventory())
	if err != nil {
		return err
	}
	return os.WriteFile(in.inventoryFile(), raw, 0o600)
}

func (in *Installation) stateDir() string { return filepath.Join(in.Dir, "state") }

func (in *Installation) process(name, program string, args ...string) *process {
	return &process{
		name: name, program: program, args: args, log: filepath.Join(in.Dir, name+".log"),
		lost: func(err error) {
			select {
			case in.accident <- err:
			default: // one of them is enough
			}
		},
	}
}

// AddWorker starts one more worker.
func (in *Installation) AddWorker() error {
	name := fmt.Sprintf("worker-%d", len(in.workers)+1)
	p := in.process(name, filepath.Join(in.Bin, "firedrill-mirror"),
		"--nats-url", in.url, "--instance", name, "--inventory", in.inventoryFile(), "--mirror-state-dir", in.stateDir(),
		"--signing-seed-file", keys.SeedFile(filepath.Join(in.Dir, "keys"), event.Mirror),
		"--keyring", filepath.Join(in.Dir, "keys", "keyring.json"), "--items", fmt.Sprint(in.Items))
	in.workers = append(in.workers, p)
	return p.start()
}

// Stop kills everything and waits until it is gone.
func (in *Installation) Stop() error {
	for _, w := range in.workers {
		w.kill()
	}
	if in.Bus != nil {
		in.Bus.Close()
	}
	if in.Nats != nil {
		in.Nats.kill()
	}
	if in.relay != nil {
		in.relay.Close()
	}
	if in.MinIO != nil {
		in.MinIO.Stop()
	}
	select {
	case err := <-in.accident:
		return err
	default:
		return nil
	}
}

// Ask asks for a run of a mirror, and gives the request's number.
func (in *Installation) Ask(ctx context.Context, mirror string, r fleet.Request) (uint64, error) {
	subject, err := bus.MirrorRequest{Who: "test", Mirror: mirror}.Subject()
	if err != nil {
		return 0, err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	ack, err := in.Bus.Publish(ctx, subject, body, "")
	return ack.Seq, err
}

// ErrRun says that a run ended otherwise than with a result.
var ErrRun = errors.New("the run came to no result")

// Await waits until the request with that number has ended.
func (in *Installation) Await(ctx context.Context, mirror string, asked uint64) (fleet.Event, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer func() { <-over }()
	defer cancel(nil)
	go func() {
		defer close(over)
		select {
		case err := <-in.accident:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	var e fleet.Event
	err := in.Bus.FollowMirror(ctx, mirror, asked, func(r bus.Record) error {
		var got fleet.Event
		if err := json.Unmarshal(r.Data, &got); err != nil {
			return err
		}
		if !strings.HasPrefix(got.Run, fmt.Sprint(asked)+"-") {
			return nil
		}
		switch r.Kind {
		case fleet.KindFinished:
			e = got
			return bus.Stop
		case fleet.KindFailed, fleet.KindRejected, fleet.KindCancelled:
			return fmt.Errorf("%w: %s: %s", ErrRun, r.Kind, got.Reason)
		}
		return nil
	})
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return e, fmt.Errorf("await the run of mirror %s: %w", mirror, err)
	}
	return e, nil
}

// logTail is how much of a process's log an error shows, in bytes.
const logTail = 6000

// logs is the end of what each process said, as an error; nil if there is nothing.
func (in *Installation) logs() error {
	var errs []error
	for _, p := range append([]*process{in.Nats}, in.workers...) {
		raw, err := os.ReadFile(p.log)
		if err == nil {
			err = fmt.Errorf("--- %s\n%s", p.name, raw[max(0, len(raw)-logTail):])
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
