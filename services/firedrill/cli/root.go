// Package cli is firedrill's command line.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
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
	// they are those of the `up` of the state directory.
	nats bus.Options
	// inventory is the file with the systems that may be drilled.
	inventory string
	keyring   string
	logLevel  string
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
		return run.OK
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
	f.StringVar(&a.stateDir, "state-dir", envOr("FIREDRILL_STATE_DIR", defaultStateDir), "event store, signing keys and the record of a running firedrill up")
	f.StringVar(&a.nats.URL, "nats-url", os.Getenv("FIREDRILL_NATS_URL"), "NATS servers; default: those of the firedrill up of the state directory")
	f.StringVar(&a.nats.CredentialsFile, "creds", os.Getenv("FIREDRILL_CREDS"), "NATS credentials file")
	f.StringVar(&a.nats.NKeySeedFile, "nkey-seed-file", os.Getenv("FIREDRILL_NKEY_SEED_FILE"), "file with the NATS nkey seed")
	f.StringVar(&a.nats.CAFile, "ca-file", os.Getenv("FIREDRILL_CA_FILE"), "file with the certificate authority of the NATS servers")
	f.StringVar(&a.nats.ClientCertFile, "client-cert-file", os.Getenv("FIREDRILL_CLIENT_CERT_FILE"), "file with the certificate to show to NATS servers that ask for one")
	f.StringVar(&a.nats.ClientKeyFile, "client-key-file", os.Getenv("FIREDRILL_CLIENT_KEY_FILE"), "file with the private key of --client-cert-file")
	f.StringVar(&a.keyring, "keyring", os.Getenv("FIREDRILL_KEYRING"), "public keys of the services; default: keys/keyring.json in the state directory")
	f.StringVar(&a.logLevel, "log-level", envOr("FIREDRILL_LOG_LEVEL", "warn"), "debug, info, warn or error")
	c.AddCommand(a.upCmd(), a.validateCmd(), a.planCmd(), a.runCmd(), a.statusCmd(), a.watchCmd(), a.abortCmd(), a.undoCmd(), a.approveCmd(),
		a.haltCmd(), a.listCmd(), a.reportCmd(), a.verifyCmd(), a.schemaCmd(), a.deadCmd(), a.keysCmd(), a.bootstrapCmd(), a.labCmd(), a.mirrorCmd(), a.zfsCmd())
	explainArguments(c)
	return c
}

// explainArguments has every command say how it is used when it is called with
// too few or too many arguments, or with a command that it does not have.
func explainArguments(c *cobra.Command) {
	for _, sub := range c.Commands() {
		explainArguments(sub)
	}
	if c.HasParent() && c.HasSubCommands() && !c.Runnable() {
		c.RunE = onlyCommands
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w\nusage: %s", err, c.UseLine())
			}
			return nil
		}
	}
}

// onlyCommands is what a command does that only has commands of its own: cobra would
// take an unknown one for an argument, and print the help as if that were what was
// asked for.
func onlyCommands(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var have []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			have = append(have, sub.Name())
		}
	}
	return fmt.Errorf("%s %s: there is no such command: use %s", c.CommandPath(), args[0], strings.Join(have, ", "))
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

// session is a connection to firedrill: to the servers named, to the `up` of
// the state directory, or to an all-in-one of this invocation's own.
type session struct {
	bus     *bus.Bus
	keyring event.Keyring
	own     *allinone.Stack
	outDir  string
}

func (s *session) close() {
	if s.own != nil {
		s.own.Close()
		return
	}
	s.bus.Close()
}

// errNoServer tells the caller how to get one.
var errNoServer = errors.New("no firedrill is running here: start one with `firedrill up`, or name the NATS servers with --nats-url")

// connect joins a running firedrill.
func (a *app) connect(ctx context.Context) (*session, error) {
	o, out := a.nats, ""
	if o.URL == "" {
		rec, ok := allinone.ReadRecord(a.stateDir)
		if !ok {
			return nil, errNoServer
		}
		// Its server knows neither logins nor TLS: what is set for others is not for it.
		o, out = bus.Options{URL: rec.NATSURL}, rec.OutDir
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
	return &session{bus: b, keyring: ring, outDir: out}, nil
}

// connectOrStart joins a running firedrill, or starts one that ends with this
// invocation.
func (a *app) connectOrStart(ctx context.Context, o runOptions) (*session, error) {
	s, err := a.connect(ctx)
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
	if err := a.refuseLeft(ctx, log, o.msgID); err != nil {
		return nil, err
	}
	stack, err := allinone.Start(ctx, allinone.Options{StateDir: a.stateDir, OutDir: o.out, Registry: a.registry, Inventory: inv, Log: log})
	if err != nil {
		return nil, failure(err)
	}
	return &session{bus: stack.Bus, keyring: stack.Keyring, own: stack, outDir: o.out}, nil
}

func (a *app) keyringPath() string {
	if a.keyring != "" {
		return a.keyring
	}
	return filepath.Join(a.stateDir, "keys", "keyring.json")
}
