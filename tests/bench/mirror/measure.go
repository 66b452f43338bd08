package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/run"
)

// measureFlag makes the command measure one program instead of racing. Linux lets
// a new program begin with the peak memory of the process that started it, and the
// harness is larger than some contestants: so it starts itself anew for each run,
// and this small process starts the contestant.
const measureFlag = "-measure-one"

// Usage is what one process took, with all processes that it started and awaited.
type Usage struct {
	// Wall is in seconds from the start of the program to its end.
	Wall float64 `json:"wall_s"`
	// CPU is in seconds, user and system.
	CPU float64 `json:"cpu_s"`
	// RSS is the peak resident memory in MiB.
	RSS float64 `json:"rss_mib"`
}

// usageOfExit is what the small process tells the harness.
type usageOfExit struct {
	Usage
	Exit int `json:"exit"`
}

// measureOne runs a program and prints what it took as JSON on out. What the
// program says goes to errs. Before the program there may be [normalFlag].
func measureOne(ctx context.Context, argv []string, out, errs io.Writer) int {
	normal := len(argv) > 0 && argv[0] == normalFlag
	if normal {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		fmt.Fprintf(errs, "bench-mirror: %s: name a program\n", measureFlag)
		return run.BadArguments
	}
	if normal {
		if err := refuseBatch(); err != nil {
			fmt.Fprintf(errs, "bench-mirror: %s: %v\n", normalFlag, err)
			return run.Fail
		}
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = errs, errs
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		fmt.Fprintf(errs, "bench-mirror: %v\n", err)
		return run.Fail
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		fmt.Fprintln(errs, "bench-mirror: this system does not say what a process took")
		return run.Fail
	}
	u := usageOfExit{Usage: Usage{
		Wall: wall.Seconds(),
		CPU:  (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
		RSS:  float64(usage.Maxrss) / 1024,
	}, Exit: cmd.ProcessState.ExitCode()}
	if err := json.NewEncoder(out).Encode(u); err != nil {
		fmt.Fprintf(errs, "bench-mirror: %v\n", err)
		return run.Fail
	}
	return run.OK
}

// ExitError says that a contestant ended with an error of its own.
type ExitError struct {
	Program string
	Code    int
	// Said is the end of what it said.
	Said string
}

// Error has the program's last words.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%s ended with %d: %s", e.Program, e.Code, e.Said)
}

// measurer starts processes that are measured. It may be used by one goroutine.
type measurer struct {
	// self is the program that measures: this one.
	self string
	// bin has the programs that are measured.
	bin string
	// env is what every contestant gets.
	env []string
	// limit bounds each program's run.
	limit time.Duration
	// hide takes secrets, and paths of this machine, from what programs say; nil
	// hides nothing.
	hide *strings.Replacer
}

// runAll runs programs one after the other, until one fails, and says what they took
// together: the sum of their times, and the memory of that with the most.
func (m measurer) runAll(ctx context.Context, steps []Step) (Usage, error) {
	var all Usage
	for _, s := range steps {
		u, err := m.run(ctx, s)
		all = Usage{Wall: all.Wall + u.Wall, CPU: all.CPU + u.CPU, RSS: max(all.RSS, u.RSS)}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// run runs a program and says what it took. The error has what the program said
// last, and is an *[ExitError] if the program failed.
func (m measurer) run(ctx context.Context, s Step) (Usage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.limit, fmt.Errorf("it took longer than %v", m.limit))
	defer cancel()
	args := []string{measureFlag}
	if s.Normal {
		args = append(args, normalFlag)
	}
	args = append(args, filepath.Join(m.bin, s.Program))
	cmd := exec.CommandContext(ctx, m.self, append(args, s.Args...)...)
	cmd.Env = slices.Concat(m.env, s.Env)
	var out bytes.Buffer
	said := &tail{limit: 2000}
	cmd.Stdout, cmd.Stderr = &out, said
	// Both processes end together, also when this run is given up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	name, words := s.Program, said.String()
	if m.hide != nil {
		words = m.hide.Replace(words)
	}
	if ctx.Err() != nil {
		return Usage{}, fmt.Errorf("%s: %w: %s", name, context.Cause(ctx), words)
	}
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w: %s", name, err, words)
	}
	var u usageOfExit
	if err := json.Unmarshal(out.Bytes(), &u); err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", name, err)
	}
	if u.Exit != 0 {
		return u.Usage, &ExitError{Program: name, Code: u.Exit, Said: words}
	}
	return u.Usage, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	kept  []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - t.limit; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.kept)) }

// environment is what every contestant gets: no settings of the user's, and a home
// of its own below dir.
func environment(dir, roots string) []string {
	env := []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	if roots != "" {
		env = append(env, "SSL_CERT_FILE="+roots)
	}
	return env
}
