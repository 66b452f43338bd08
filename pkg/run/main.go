// Package run is the shell around every firedrill process: signals, panics,
// exit codes, logging without secrets, and, for a service, its flags, its
// connection to NATS and its tracing. It is the one place, besides tests, that
// makes a context from nothing.
package run

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Exit codes of every firedrill program.
const (
	// OK is a pass, or a thing done.
	OK = 0
	// Fail is a drill that failed, or a thing that could not be done.
	Fail = 1
	// Inconclusive is a drill that cannot be judged, or was not valid.
	Inconclusive = 2
	// BadArguments is a mistake on the command line or in the configuration.
	BadArguments = 254
	// Crash is a bug.
	Crash = 255
	// Interrupted is an end by a second signal, without cleaning up.
	Interrupted = 130
)

// EnvStack, set to anything, makes a crash print its stack too.
const EnvStack = "FIREDRILL_STACK"

// Func is a program: it returns the exit code. ctx ends with SIGINT, SIGTERM or SIGHUP,
// its cause a *Signal. After the last the terminal may be gone: writing to the streams
// then fails, as it does when whoever reads them is.
type Func func(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int

// Signal is the cause of a context that a signal ended.
type Signal struct{ os.Signal }

// Error names the signal.
func (s *Signal) Error() string { return "stopped by signal: " + s.String() }

// onePress is how long after the first signal others belong to it: timeout(1) and
// terminals signal a process by itself and with its group, and nobody asks twice so
// soon.
const onePress = 300 * time.Millisecond

// lastWords says something when a second signal ends the process.
type lastWords struct {
	mu  sync.Mutex
	say func() string
}

type lastWordsKey struct{}

// LastWords sets what Main prints on standard error when a second signal ends the
// process: what is left behind. ctx is Main's or made from it.
func LastWords(ctx context.Context, say func() string) {
	if l, ok := ctx.Value(lastWordsKey{}).(*lastWords); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.say = say
	}
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.say == nil {
		return ""
	}
	return l.say()
}

// Main runs f with the process's arguments and streams, and exits with its
// code. The first SIGINT, SIGTERM or SIGHUP ends f's context; a second one, somewhat
// later, exits at once with Interrupted, unless it is a SIGHUP: a terminal that is closed
// sends several, and nobody asks by them. Under nohup there is none. A panic of f is one
// line on standard error and Crash. A panic of another goroutine is the runtime's to
// report, with status 2: start goroutines through something that hands panics on, such
// as errgroup.
func Main(f Func) {
	// A reader that goes away, as in `firedrill run … | head`, must not end a
	// drill in the middle: its writes fail, and nothing else.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	os.Exit(execute(f, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, signals, os.Exit))
}

func execute(f Func, args []string, in io.Reader, out, errs io.Writer, signals <-chan os.Signal, exit func(int)) (code int) {
	words := &lastWords{}
	ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), lastWordsKey{}, words))
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		var first time.Time
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				switch {
				case first.IsZero():
					first = time.Now()
					cancel(&Signal{s})
				case s != syscall.SIGHUP && time.Since(first) >= onePress:
					fmt.Fprint(errs, words)
					exit(Interrupted)
					return
				}
			}
		}
	}()
	defer func() {
		cancel(nil)
		close(done)
		<-watched
	}()
	defer func() {
		if p := recover(); p != nil {
			code = Crash
			newCrash(p).report(errs)
		}
	}()
	return f(ctx, args, in, out, errs)
}

// crash is a panic, with what is known only in the goroutine that panicked.
type crash struct {
	value any
	at    string
	stack []byte
}

// newCrash must be called by the deferred function that recovered.
func newCrash(value any) *crash {
	if c, ok := value.(*crash); ok { // handed on by another goroutine
		return c
	}
	return &crash{value: value, at: culprit(), stack: debug.Stack()}
}

// report writes a crash as one line: what, where, and what to do.
func (c *crash) report(w io.Writer) {
	what := strings.Join(strings.Fields(scrub(fmt.Sprint(c.value))), " ")
	fmt.Fprintf(w, "%s: crash: %s (at %s): this is a bug; please report it with the output of a run with %s=1\n",
		filepath.Base(os.Args[0]), what, c.at, EnvStack)
	if os.Getenv(EnvStack) != "" {
		fmt.Fprintf(w, "%s", c.stack)
	}
}

// culprit is the source line that panicked: the first frame, below the
// runtime's, after the panic itself.
func culprit() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for panicked := false; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic" || f.Function == "runtime.sigpanic" || strings.HasPrefix(f.Function, "runtime.panic"):
			panicked = true
		case panicked && !strings.HasPrefix(f.Function, "runtime."):
			return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}
