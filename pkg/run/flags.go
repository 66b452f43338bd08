package run

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// EnvPrefix starts the environment variable of every flag: --nats-url is
// FIREDRILL_NATS_URL.
const EnvPrefix = "FIREDRILL_"

// Flags are what every service takes.
type Flags struct {
	NATSURL         string
	Creds           string
	NKeySeedFile    string
	CAFile          string
	ClientCertFile  string
	ClientKeyFile   string
	SigningSeedFile string
	Keyring         string
	Instance        string
	LogLevel        string
	LogFormat       string
	version         bool
}

func (f *Flags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.NATSURL, "nats-url", "nats://127.0.0.1:4222", "NATS servers, separated by commas")
	fs.StringVar(&f.Creds, "creds", "", "NATS credentials file")
	fs.StringVar(&f.NKeySeedFile, "nkey-seed-file", "", "file with the NATS nkey seed")
	fs.StringVar(&f.CAFile, "ca-file", "", "file with the certificate authority of the NATS servers")
	fs.StringVar(&f.ClientCertFile, "client-cert-file", "", "file with the certificate to show to NATS servers that ask for one")
	fs.StringVar(&f.ClientKeyFile, "client-key-file", "", "file with the private key of --client-cert-file")
	fs.StringVar(&f.SigningSeedFile, "signing-seed-file", "", "file with the nkey seed (SU...) that signs this service's events")
	fs.StringVar(&f.Keyring, "keyring", "", "JSON file with the public keys of all services")
	fs.StringVar(&f.Instance, "instance", hostInstance(), "name of this process; the same after a restart, unlike any other of this service")
	fs.StringVar(&f.LogLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&f.LogFormat, "log-format", "text", "text or json")
	fs.BoolVar(&f.version, "version", false, "print the version and exit")
}

// parse reads flags, and for those not given the environment.
func parse(fs *flag.FlagSet, args []string) error {
	// Usage and mistakes are printed by the caller, once.
	fs.SetOutput(io.Discard)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("argument %q: only flags are taken", fs.Arg(0))
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		value, ok := os.LookupEnv(envName(f.Name))
		if !ok || given[f.Name] {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s=%q: %w", envName(f.Name), value, err))
		}
	})
	return errors.Join(errs...)
}

func envName(name string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func usage(w io.Writer, name string, fs *flag.FlagSet) {
	fmt.Fprintf(w, "Usage: firedrill-%s [flags]\n\nEvery flag may stand in the environment, as %s.\n\n", name, envName("nats-url"))
	fs.SetOutput(w)
	fs.PrintDefaults()
}

// notInName is what an instance's name may not have: it becomes part of
// subjects and of events' sources.
var notInName = lazy.Regexp(`[^A-Za-z0-9_-]+`)

// hostInstance is the host's name, which a restart does not change.
func hostInstance() string {
	host, err := os.Hostname()
	if err != nil {
		return "local"
	}
	if host = strings.Trim(notInName().ReplaceAllString(host, "-"), "-"); host == "" {
		return "local"
	}
	return host
}

// checkInstance refuses names that would not fit where they are used.
func checkInstance(name string) error {
	if name == "" || len(name) > 64 || notInName().MatchString(name) {
		return fmt.Errorf("--instance %q: use 1 to 64 letters, digits, dashes or underscores", name)
	}
	return nil
}
