// Package control runs commands and sends signals where a target lives: on this
// machine, or behind a command such as ssh. Both kinds run the same scripts, so
// that what was tested on one machine holds on another.
package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The kinds of a Config.
const (
	KindLocal = "local"
	KindExec  = "exec"
)

// Config says how to reach the machine that a target lives on.
type Config struct {
	// Kind is local (the default) or exec.
	Kind string `json:"kind,omitempty"`
	// Argv, for exec, is the command that reaches the machine's shell, such as
	// ["ssh", "root@db1", "--"] or ["kubectl", "exec", "-i", "db-0", "--"].
	// "sh -s" is appended to it, and it must pass its standard input on. It stands in a
	// drill's history and in errors, so it must hold no secret: name a file that has it.
	Argv []string `json:"argv,omitempty"`
}

// ConfigError is a mistake in a Config.
type ConfigError struct {
	// Field is the mistaken field: kind or argv.
	Field string
	Value string
	Fix   string
}

// Error names the field and the fix.
func (e *ConfigError) Error() string { return "control." + e.Field + ": " + e.Fix }

// Validate reports the first mistake as a *ConfigError.
func (c Config) Validate() error {
	switch c.Kind {
	case "", KindLocal:
		if len(c.Argv) > 0 {
			return &ConfigError{Field: "argv", Value: strings.Join(c.Argv, " "), Fix: "leave it out for kind local, or set kind to exec"}
		}
	case KindExec:
		if len(c.Argv) == 0 || c.Argv[0] == "" {
			return &ConfigError{Field: "argv", Fix: `name the command that reaches the machine, such as ["ssh", "root@db1", "--"]`}
		}
	default:
		return &ConfigError{Field: "kind", Value: c.Kind, Fix: "use local or exec"}
	}
	return nil
}

// Host is a machine on which commands can be run. It is safe for concurrent
// use, holds no connection and needs no Close.
type Host struct {
	prefix []string
}

// New returns the host that c describes. It does not connect.
func New(c Config) (*Host, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Host{prefix: slices.Clone(c.Argv)}, nil
}

// Local reports whether the host is this machine, reached without a command.
func (h *Host) Local() bool { return len(h.prefix) == 0 }

// Command is a shell script to run.
type Command struct {
	// What says in a few words what the script does, for errors; its first line
	// if empty.
	What string
	// Script is run by sh; Args are its $1, $2, ...: they need no quoting.
	Script string
	Args   []string
	// User is the OS user to run as; empty means the one that firedrill has there.
	User string
	// Stdin is the script's standard input; nil means /dev/null.
	Stdin []byte
	// Env is exported to the script. Values never show in a process list, so
	// secrets may travel here.
	Env map[string]string
}

// stderrTail is how much of a failed command's standard error an error keeps.
const stderrTail = 2048

// CommandError is a command that could not be run or failed.
type CommandError struct {
	// Where is the command that reaches the machine; empty for this one.
	Where string
	// What is the command's, or the start of its script.
	What string
	// Code is the exit status, -1 if the command did not exit by itself.
	Code int
	// Stderr is the end of its standard error.
	Stderr string
	Err    error
}

// Error says what was run, where, and how it failed.
func (e *CommandError) Error() string {
	where := "on this machine"
	if e.Where != "" {
		where = "through " + e.Where
	}
	msg := fmt.Sprintf("%s, %s: %v", e.What, where, e.Err)
	if e.Stderr != "" {
		msg += ": " + e.Stderr
	}
	return msg
}

// Permanent reports whether the command would fail again however often it is tried: a
// shell found a program missing (127), or what reaches the machine is not there or not to
// be run. That a shell could not run a program (126) may pass: it is being written, its
// disk does not answer, or the container that it is in restarts.
func (e *CommandError) Permanent() bool {
	return e.Code == 127 || e.Code == -1 && (errors.Is(e.Err, exec.ErrNotFound) || errors.Is(e.Err, os.ErrNotExist) || errors.Is(e.Err, os.ErrPermission))
}

// Unwrap returns the cause.
func (e *CommandError) Unwrap() error { return e.Err }

// Run runs the command and returns its standard output, also when it failed;
// the error is then a *CommandError. When ctx ends, the local process group is
// killed; a remote script may run on, so scripts must be safe to repeat.
func (h *Host) Run(ctx context.Context, c Command) ([]byte, error) {
	cmd := h.prepare(ctx, c)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	failed := &CommandError{
		Where: strings.Join(h.prefix, " "), What: what(c), Code: exitCode(err),
		Stderr: strings.TrimSpace(tail(errs.String(), stderrTail)), Err: err,
	}
	if f, ok := asFenced(failed.Code, failed.Stderr); ok {
		failed.Err, failed.Stderr = f, ""
	}
	return out.Bytes(), failed
}

// Output is Run with the output as a trimmed string.
func (h *Host) Output(ctx context.Context, c Command) (string, error) {
	b, err := h.Run(ctx, c)
	return strings.TrimSpace(string(b)), err
}

func exitCode(err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	return -1
}

func what(c Command) string {
	if c.What != "" {
		return c.What
	}
	s, rest, _ := strings.Cut(strings.TrimSpace(c.Script), "\n")
	if len(s) > 120 {
		s = s[:120]
	}
	if rest != "" {
		s += " …"
	}
	return fmt.Sprintf("run %q", s)
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

// ErrNotExist is returned for a file that is not there.
var ErrNotExist = os.ErrNotExist
