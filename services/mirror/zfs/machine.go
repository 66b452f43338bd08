package zfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lazy"
)

// Machine is a Runner for this machine, or for one that a command such as ssh
// reaches. Unlike a control.Host it carries streams of any length. It is safe for
// concurrent use and holds no connection.
type Machine struct {
	prefix []string
}

// NewMachine returns the machine that c describes, without reaching for it. The
// command of kind exec must pass standard input and output on.
func NewMachine(c control.Config) (*Machine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Machine{prefix: slices.Clone(c.Argv)}, nil
}

// environment is all that programs get of one, here as there: firedrill's own holds
// secrets, and what zfs says is read in English. Its programs are where only root's
// PATH leads, if at all.
func environment() []string {
	return []string{"env", "-i", "LC_ALL=C", "TZ=UTC", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// plain are the words that mean the same to a program and to a shell. ssh joins its
// arguments and lets the far shell split them again; env and kubectl exec do not.
// Standard input, on which pkg/control sends its scripts, is the stream's here.
var plain = lazy.Regexp(`^[-A-Za-z0-9_.:,=@%+/]+$`)

// stderrTail is how much of a program's standard error is kept.
const stderrTail = 2048

// Run implements Runner.
func (m *Machine) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error {
	what := strings.Join(argv, " ")
	words := append(environment(), argv...)
	if len(m.prefix) > 0 {
		if at := slices.IndexFunc(words, func(w string) bool { return !plain().MatchString(w) }); at >= 0 {
			return &control.CommandError{Where: strings.Join(m.prefix, " "), What: what, Code: -1,
				Err: fmt.Errorf("%w: %q cannot be sent to another machine's shell: use letters, digits and -_.:,=@%%+/", ErrName, words[at])}
		}
		words = append(slices.Clone(m.prefix), words...)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir = "/"
	if len(m.prefix) == 0 {
		cmd.Env = []string{"LC_ALL=C"}
	}
	errs := &tail{limit: stderrTail}
	cmd.Stderr = errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := runPiped(cmd, stdin, stdout)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	code := -1
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	}
	return &control.CommandError{
		Where: strings.Join(m.prefix, " "), What: what, Code: code, Stderr: strings.TrimSpace(errs.String()), Err: err,
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	kept  []byte
	cut   bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept, t.cut = append(t.kept[:0], t.kept[over:]...), true
	}
	return len(p), nil
}

func (t *tail) String() string {
	if t.cut {
		return "…" + string(t.kept)
	}
	return string(t.kept)
}
