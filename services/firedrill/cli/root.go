// Package cli is firedrill's command line.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
	"github.com/firedrill/firedrill/services/reporter"
)

// Streams are what a command reads and writes.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// app is one invocation: its flags and what commands share.
type app struct {
	Streams
	registry target.Registry
	stateDir string
	// nats says where the NATS servers are and how to log in to them; without a URL
	// they are those of the `up` or `run` of the state directory.
	nats bus.Options
	// inventory is the file with the systems that may be drilled.
	inventory string
	keyring   string
	logLevel  string
	// unhelped says why there is no help that was asked for.
	unhelped error
}

const defaultStateDir = ".firedrill"

// Run carries out one invocation and returns the process's exit code.
func Run(ctx context.Context, args []string, s Streams, r target.Registry) int {
	a := &app{Streams: s, registry: r}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = a.unhelped
	}
	if err == nil {
		return run.OK
	}
	if readerGone(err) {
		return brokenPipe
	}
	var code *exitError
	if errors.As(err, &code) {
		if code.err != nil {
			fmt.Fprintln(s.Err, "firedrill:", code.err)
		}
		return code.code
	}
	// What cobra itself refuses is the caller's mistake, like every error here
	// that was not given a code of its own.
	fmt.Fprintln(s.Err, "firedrill:", err)
	return run.BadArguments
}

// brokenPipe is the code that a shell gives a program which SIGPIPE has ended.
const brokenPipe = 128 + int(syscall.SIGPIPE)

// readerGone reports whether an error is that nobody reads standard output any more, as
// in `firedrill list | head -1`, which has nothing to be told. A connection that broke
// is another thing.
func readerGone(err error) bool {
	write, ok := errors.AsType[*fs.PathError](err)
	return ok && write.Path == os.Stdout.Name() && errors.Is(write, syscall.EPIPE)
}

// exitError carries an exit code; a nil err prints nothing more.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// failure marks an error as firedrill's or the environment's, not the caller's.
func failure(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: run.Crash, err: err}
}

func (a *app) root() *cobra.Command {
	c := &cobra.Command{
		Use:   "firedrill",
		Short: "Break a real system on purpose, measure how it recovers, prove that nothing was lost",
		Long: `firedrill runs disaster-recovery drills: it injects a fault inside guard rails,
measures the achieved recovery time and point as intervals, checks the data,
puts everything back and writes the evidence down.

Exit codes: 0 pass, 1 fail, 2 inconclusive or invalid, 254 bad arguments, 255 firedrill failed.`,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	f := c.PersistentFlags()
	f.StringVar(&a.stateDir, "state-dir", envOr("FIREDRILL_STATE_DIR", defaultStateDir), "event store, signing keys and the record of a running firedrill")
	f.StringVar(&a.nats.URL, "nats-url", os.Getenv("FIREDRILL_NATS_URL"), "NATS servers; default: those of the firedrill up or run of the state directory")
	f.StringVar(&a.nats.CredentialsFile, "creds", os.Getenv("FIREDRILL_CREDS"), "NATS credentials file")
	f.StringVar(&a.nats.NKeySeedFile, "nkey-seed-file", os.Getenv("FIREDRILL_NKEY_SEED_FILE"), "file with the NATS nkey seed")
	f.StringVar(&a.nats.CAFile, "ca-file", os.Getenv("FIREDRILL_CA_FILE"), "file with the certificate authority of the NATS servers")
	f.StringVar(&a.nats.ClientCertFile, "client-cert-file", os.Getenv("FIREDRILL_CLIENT_CERT_FILE"), "file with the certificate to show to NATS servers that ask for one")
	f.StringVar(&a.nats.ClientKeyFile, "client-key-file", os.Getenv("FIREDRILL_CLIENT_KEY_FILE"), "file with the private key of --client-cert-file")
	f.StringVar(&a.keyring, "keyring", os.Getenv("FIREDRILL_KEYRING"), "public keys of the services; default: keys/keyring.json in the state directory")
	f.StringVar(&a.logLevel, "log-level", envOr("FIREDRILL_LOG_LEVEL", "warn"), "debug, info, warn or error")
	c.AddCommand(a.upCmd(), a.validateCmd(), a.planCmd(), a.runCmd(), a.statusCmd(), a.watchCmd(), a.abortCmd(), a.undoCmd(), a.approveCmd(),
		a.haltCmd(), a.listCmd(), a.reportCmd(), a.verifyCmd(), a.schemaCmd(), a.deadCmd(), a.keysCmd(), a.bootstrapCmd(), a.labCmd(), a.mirrorCmd(), a.zfsCmd())
	c.SetFlagErrorFunc(explainFlag)
	explainArguments(c)
	a.explainHelp(c)
	return c
}

// inventoryFlag adds --inventory to a command.
func (a *app) inventoryFlag(f *pflag.FlagSet, usage string) {
	f.StringVar(&a.inventory, "inventory", os.Getenv("FIREDRILL_INVENTORY"), usage)
}

func envOr(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

func (a *app) log() (*slog.Logger, error) {
	return run.Logger(a.Err, "text", a.logLevel)
}

// session is a connection to firedrill: to the servers named, to what runs with
// the state directory, or to an all-in-one of this invocation's own.
type session struct {
	bus     *bus.Bus
	keyring event.Keyring
	own     *allinone.Stack
	// store is set where no firedrill runs, and only what the last one left is read.
	store *bus.Embedded
	// record is what was found in the state directory; zero for servers named and for
	// the invocation's own.
	record allinone.Record
	outDir string
}

func (s *session) close() {
	if s.own != nil {
		s.own.Close()
		return
	}
	s.bus.Close()
	if s.store != nil {
		s.store.Shutdown()
	}
}

// ask asks the reporter, or where none runs finds the answer in the store.
func (s *session) ask(ctx context.Context, endpoint string, question []byte) ([]byte, error) {
	if s.store == nil {
		return s.bus.Call(ctx, endpoint, question)
	}
	return reporter.Answer(ctx, reporter.Config{Bus: s.bus, Keyring: s.keyring, Log: slog.New(slog.DiscardHandler)}, endpoint, question)
}

// errNoServer says that there is no firedrill to be asked.
var errNoServer = errors.New("no firedrill is running here")

// noServer is an errNoServer that says where that is, and how to get or to find one.
func (a *app) noServer() error {
	return fmt.Errorf("%w, in %s: start one with `firedrill up`; if yours runs elsewhere, name its --state-dir, or its servers with --nats-url", errNoServer, a.where())
}

// where is the state directory as one looks for it from anywhere.
func (a *app) where() string {
	if abs, err := filepath.Abs(a.stateDir); err == nil {
		return abs
	}
	return a.stateDir
}

// errOneRun says why a second drill is not run beside that of a `firedrill run`: it
// would end with the first.
var errOneRun = errors.New("another `firedrill run` is under way here, and one runs at a time: wait for its end (`firedrill list` and `watch` show it), or take another --state-dir")

// join is connect for who wants work to be done: the firedrill of a `firedrill run` is
// not there for that, and the error is then errOneRun.
func (a *app) join(ctx context.Context) (*session, error) {
	rec, err := a.running()
	switch {
	case err != nil:
		return nil, err
	case rec.Private():
		return nil, errOneRun
	}
	return a.dial(ctx, rec)
}

// connect joins a running firedrill.
func (a *app) connect(ctx context.Context) (*session, error) {
	rec, err := a.running()
	if err != nil {
		return nil, err
	}
	return a.dial(ctx, rec)
}

// running is the record of the firedrill that runs with the state directory, zero where
// the servers are named; errNoServer where there is neither.
func (a *app) running() (allinone.Record, error) {
	if a.nats.URL != "" {
		return allinone.Record{}, nil
	}
	rec, ok := allinone.ReadRecord(a.stateDir)
	if !ok {
		return allinone.Record{}, a.noServer()
	}
	return rec, nil
}

// runsStill reports whether the firedrill of a record still runs, as far as can be seen
// from here: there is another one with another address or login. It is true for
// servers that were named.
func (a *app) runsStill(rec allinone.Record) bool {
	if rec.NATSURL == "" {
		return true
	}
	now, ok := allinone.ReadRecord(a.stateDir)
	return ok && now.NATSURL == rec.NATSURL && now.Seed == rec.Seed
}

// dial connects to the firedrill of a record, or to the servers named where that is zero.
func (a *app) dial(ctx context.Context, rec allinone.Record) (*session, error) {
	o := a.nats
	if rec.NATSURL != "" {
		// Its server knows neither logins nor TLS: what is set for others is not for it.
		o = bus.Options{URL: rec.NATSURL, Seed: rec.Seed}
	}
	log, err := a.log()
	if err != nil {
		return nil, err
	}
	ring, err := keys.ReadKeyring(a.keyringPath())
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	o.Keyring, o.Log = ring, log
	o.Identity = bus.Identity{Service: "cli", Instance: "cli", Clock: clock.System()}
	b, err := bus.Connect(ctx, o)
	if err != nil {
		return nil, failure(err)
	}
	return &session{bus: b, keyring: ring, record: rec, outDir: rec.OutDir}, nil
}

// connectOrStart joins a running firedrill, or starts one that takes this request alone
// and ends with this invocation.
func (a *app) connectOrStart(ctx context.Context, r asked, outDir string) (*session, error) {
	s, err := a.join(ctx)
	if !errors.Is(err, errNoServer) {
		return s, err
	}
	log, err := a.log()
	if err != nil {
		return nil, err
	}
	inv, err := a.ownInventory()
	if err != nil {
		return nil, err
	}
	if err := a.refuseLeft(ctx, r); err != nil {
		return nil, err
	}
	if err := tryOut("--out", outDir, outDir); err != nil {
		return nil, err
	}
	// Other commands reach the drill by the record in the state directory. It does what
	// a request says with the operator's rights, so it lets in nobody who cannot read
	// that, and leaves alone what others have left in the store.
	stack, err := allinone.Start(ctx, allinone.Options{StateDir: a.stateDir, Listen: "127.0.0.1:0", Private: true,
		OutDir: outDir, Registry: a.registry, Inventory: inv, Only: r.is, Locks: machine.Shared(), Log: log})
	if err != nil {
		return nil, failure(err)
	}
	return &session{bus: stack.Bus, keyring: stack.Keyring, own: stack, outDir: outDir}, nil
}

func (a *app) keyringPath() string {
	if a.keyring != "" {
		return a.keyring
	}
	return filepath.Join(a.stateDir, "keys", "keyring.json")
}
