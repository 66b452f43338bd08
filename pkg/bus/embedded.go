package bus

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/firedrill/firedrill/pkg/filelock"
	"github.com/firedrill/firedrill/pkg/lazy"
)

// startWait bounds the start of the embedded server, which reads its store.
const startWait = 30 * time.Second

// lockFile lies in the store directory, locked while a server has it open.
const lockFile = "firedrill.lock"

const (
	// lockWait is how long a locked store is waited for: who only looks whether it is in
	// use, or switches something in it, has it for less.
	lockWait = 2 * time.Second
	// lockPause is the time between two tries.
	lockPause = 20 * time.Millisecond
)

// EmbeddedOptions configure StartEmbedded.
type EmbeddedOptions struct {
	// StoreDir holds the streams. It is made if it is missing.
	StoreDir string
	// Listen is host:port for clients of other processes; port 0 picks a free
	// one. Empty means that only this process can connect.
	Listen string
	// ConfigFile is a nats-server configuration, for accounts, TLS or a cluster.
	// StoreDir and Listen, where given, have precedence over it.
	ConfigFile string
	// Private lets in only who has the server's Seed. It does not go with ConfigFile,
	// which says itself who is let in.
	Private bool
	// Log receives the server's warnings and errors; nil means slog.Default.
	Log *slog.Logger
}

// Embedded is a NATS server inside this process. Every acknowledged message is
// on disk: the store is synchronised on each write.
type Embedded struct {
	server *server.Server
	lock   *os.File
	seed   Seed
	once   sync.Once
}

// StartEmbedded starts a server and returns once it is ready. ErrStoreLocked
// says that another process has the store directory open, and did not let go of it
// within 2 s, and which; a *ListenError that clients cannot be listened for.
func StartEmbedded(o EmbeddedOptions) (*Embedded, error) {
	opts, err := serverOptions(o)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	var seed Seed
	if o.Private {
		if seed, err = onlyWith(opts); err != nil {
			return nil, fmt.Errorf("embedded NATS server: %w", err)
		}
	}
	lock, err := lockStore(opts.StoreDir)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	if err := tryListen(opts); err != nil {
		return nil, errors.Join(err, filelock.LetGo(lock))
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded NATS server: %w", err), filelock.LetGo(lock))
	}
	log := o.Log
	if log == nil {
		log = slog.Default()
	}
	s.SetLogger(serverLog{log}, false, false)
	e := &Embedded{server: s, lock: lock, seed: seed}
	s.Start()
	if !s.ReadyForConnections(startWait) || !s.JetStreamEnabled() {
		e.Shutdown()
		return nil, fmt.Errorf("embedded NATS server: not ready within %s; see the log for what it says about %s", startWait, opts.StoreDir)
	}
	return e, nil
}

func serverOptions(o EmbeddedOptions) (*server.Options, error) {
	if o.Private && o.ConfigFile != "" {
		return nil, fmt.Errorf("configuration %s: it says who is let in, which a private server does itself: give only one", o.ConfigFile)
	}
	opts := &server.Options{}
	if o.ConfigFile != "" {
		var err error
		if opts, err = server.ProcessConfigFile(o.ConfigFile); err != nil {
			return nil, fmt.Errorf("configuration %s: %w", o.ConfigFile, err)
		}
	}
	if o.StoreDir != "" {
		opts.StoreDir = o.StoreDir
	}
	if opts.StoreDir == "" {
		return nil, errors.New("no store directory given")
	}
	if opts.ServerName == "" {
		opts.ServerName = "firedrill"
	}
	opts.JetStream = true
	// "Loses no data" is not true with the default of a sync every two minutes.
	opts.SyncAlways = true
	opts.NoSigs = true
	opts.NoLog = true
	opts.DontListen = o.Listen == "" && o.ConfigFile == ""
	if o.Listen != "" {
		host, port, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: want host:port: %w", o.Listen, err)
		}
		n, err := strconv.Atoi(port)
		if err != nil || n < 0 || n > 65535 {
			return nil, fmt.Errorf("listen address %q: the port is no number from 0 to 65535", o.Listen)
		}
		opts.Host, opts.Port = host, n
		if n == 0 {
			opts.Port = server.RANDOM_PORT
		}
	}
	return opts, nil
}

// ListenError is that the server cannot listen for clients.
type ListenError struct {
	// Addr is host:port.
	Addr string
	Err  error
}

// Error says what to do.
func (e *ListenError) Error() string {
	fix := "give an address of this machine, as 127.0.0.1:4222"
	if errors.Is(e.Err, syscall.EADDRINUSE) {
		fix = "another process has it, as a NATS server or another firedrill: end that, or give another address"
	}
	return fmt.Sprintf("%s: %v: %s", e.Addr, e.Err, fix)
}

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }

// tryListen says at once what the server, which listens by itself, would only log.
func tryListen(o *server.Options) error {
	if o.DontListen || o.Port == server.RANDOM_PORT {
		return nil
	}
	host, port := o.Host, o.Port
	if host == "" {
		host = server.DEFAULT_HOST
	}
	if port == 0 {
		port = server.DEFAULT_PORT
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l.Close()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = errno // it repeats the address
	}
	return &ListenError{Addr: addr, Err: err}
}

// lockStore takes the store directory for this process. The server itself does
// not, and two servers on one directory destroy it.
func lockStore(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store directory: %w", err)
	}
	err = filelock.Try(f)
	for give := time.Now().Add(lockWait); errors.Is(err, filelock.ErrHeld) && time.Now().Before(give); err = filelock.Try(f) {
		time.Sleep(lockPause)
	}
	if errors.Is(err, filelock.ErrHeld) {
		locked := lockedBy(dir, f)
		_ = f.Close()
		return nil, locked
	}
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the store directory %s: %w", dir, err), filelock.LetGo(f))
	}
	return f, nil
}

// lockedBy is the error of who finds the store directory locked, by its lock file.
func lockedBy(dir string, f *os.File) *StoreLockedError {
	holder, _ := io.ReadAll(io.LimitReader(f, 32)) // Without the pid the message is still right.
	return &StoreLockedError{Dir: dir, PID: strings.TrimSpace(string(holder))}
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// StoreLockedError says who holds the store directory. It is an ErrStoreLocked.
type StoreLockedError struct {
	Dir string
	// PID is the holder's process id, or "" if it could not be read.
	PID string
}

// Error names the directory and the holder.
func (e *StoreLockedError) Error() string {
	who := "another process"
	if e.PID != "" {
		who = "process " + e.PID
	}
	return fmt.Sprintf("store directory %s: %v: %s has it; stop that process, connect to its server, or use another directory", e.Dir, ErrStoreLocked, who)
}

// Unwrap returns ErrStoreLocked.
func (e *StoreLockedError) Unwrap() error { return ErrStoreLocked }

// URL is where clients of other processes connect; without Listen it is only a
// name, and Options.Embedded is the way in.
func (e *Embedded) URL() string { return e.server.ClientURL() }

// Seed is the login that clients of a private server need; "" of any other one. A Bus
// that is given the Embedded itself needs none.
func (e *Embedded) Seed() Seed { return e.seed }

// Shutdown stops the server and gives the store directory free. Close every Bus
// first. Calling it again does nothing.
func (e *Embedded) Shutdown() {
	e.once.Do(func() {
		e.server.Shutdown()
		e.server.WaitForShutdown()
		_ = filelock.LetGo(e.lock) // there is nothing to do about an error
	})
}

// serverLog passes the server's log on, without its chatter.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(line(format, v)) }
func (l serverLog) Warnf(format string, v ...any) {
	if text := line(format, v); rebuilds().MatchString(text) {
		l.log.Debug(text)
	} else {
		l.log.Warn(text)
	}
}
func (l serverLog) Fatalf(format string, v ...any) { l.log.Error(line(format, v)) }
func (l serverLog) Errorf(format string, v ...any) { l.log.Error(line(format, v)) }
func (l serverLog) Debugf(string, ...any)          {}
func (l serverLog) Tracef(string, ...any)          {}

// rebuilds fits what the server warns of at each start after a kill: that an index
// is older than the messages, which are all there, and is made anew from them. It
// looks like an error to whoever starts firedrill, and is none.
var rebuilds = lazy.Regexp(`Recovering stream state from index errored: prior state file|Stream state outdated, .* will rebuild|state is outdated; attempting to recover`)

func line(format string, v []any) string { return "nats-server: " + fmt.Sprintf(format, v...) }
