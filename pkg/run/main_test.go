package run

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// play makes the test program be a firedrill program of the named kind.
const play = "FIREDRILL_TEST_PLAY"

func TestMain(m *testing.M) {
	switch os.Getenv(play) {
	case "":
		goleak.VerifyTestMain(m)
	case "polite": // ends when asked to
		Main(func(ctx context.Context, _ []string, _ io.Reader, out, _ io.Writer) int {
			fmt.Fprintln(out, "ready")
			<-ctx.Done()
			fmt.Fprintln(out, context.Cause(ctx))
			return Inconclusive
		})
	case "deaf": // never ends by itself
		Main(func(ctx context.Context, _ []string, _ io.Reader, out, _ io.Writer) int {
			LastWords(context.WithoutCancel(ctx), func() string { return "something is left\n" })
			fmt.Fprintln(out, "ready")
			<-ctx.Done()
			fmt.Fprintln(out, "no")
			select {}
		})
	case "crash":
		Main(func(_ context.Context, args []string, _ io.Reader, _, _ io.Writer) int {
			return len(args[len(args)])
		})
	}
}

// program starts this test program in another role, through another one if that is named.
func program(t *testing.T, role string, through ...string) (*exec.Cmd, *bufio.Reader, *bytes.Buffer) {
	t.Helper()
	argv := append(through, os.Args[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), play+"="+role)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// What is ignored here, as under nohup, would be there; what is caught is not.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, bufio.NewReader(out), &errs
}

func expect(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	if got, err := r.ReadString('\n'); got != want+"\n" {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	var e *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

func TestSignalEndsTheContext(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		cmd, out, errs := program(t, "polite")
		expect(t, out, "ready")
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		expect(t, out, "stopped by signal: "+s.String())
		if code := exitCode(t, cmd); code != Inconclusive || errs.Len() > 0 {
			t.Fatalf("exit code %d, %s", code, errs)
		}
	}
}

// TestSecondSignalEndsAtOnce: not one that comes with the first, but a later one,
// with what the program has to say last.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	cmd, out, errs := program(t, "deaf")
	expect(t, out, "ready")
	began := time.Now()
	for range 2 {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, out, "no")
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case <-ended: // with an exit code that is an error to exec
			if code := cmd.ProcessState.ExitCode(); code != Interrupted || errs.String() != "something is left\n" {
				t.Fatalf("exit code %d, said %q", code, errs)
			}
			if took := time.Since(began); took < onePress {
				t.Fatalf("ended %v after the first signal", took)
			}
			return
		case <-again.C:
			_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		}
	}
}

// TestNohup: a SIGHUP that is ignored stays ignored.
func TestNohup(t *testing.T) {
	cmd, out, _ := program(t, "polite", "sh", "-c", `trap "" HUP; exec "$0"`)
	expect(t, out, "ready")
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, out, "stopped by signal: terminated")
	exitCode(t, cmd)
}

// TestNobodyAsksTwiceByHangingUp: a terminal that is closed sends several SIGHUP, and
// what is put back goes on being put back; a SIGINT still ends it.
func TestNobodyAsksTwiceByHangingUp(t *testing.T) {
	signals, ended := make(chan os.Signal), make(chan int, 1)
	var early bool
	execute(func(ctx context.Context, _ []string, _ io.Reader, _, _ io.Writer) int {
		signals <- syscall.SIGHUP
		<-ctx.Done()
		<-time.After(onePress)
		signals <- syscall.SIGHUP
		signals <- syscall.SIGHUP // taken once the one before was seen to
		early = len(ended) > 0
		signals <- os.Interrupt
		<-ended
		return OK
	}, nil, nil, io.Discard, io.Discard, signals, func(code int) { ended <- code })
	if early {
		t.Error("a second SIGHUP has ended it")
	}
}

func TestCrashIsOneLine(t *testing.T) {
	cmd, _, errs := program(t, "crash")
	code := exitCode(t, cmd)
	text := errs.String()
	if code != Crash || strings.Count(text, "\n") != 1 || !strings.Contains(text, "index out of range") ||
		!strings.Contains(text, "(at main_test.go:") || !strings.Contains(text, EnvStack+"=1") {
		t.Fatalf("exit code %d, %q", code, text)
	}
}

func TestCrashShowsItsStackWhenAsked(t *testing.T) {
	t.Setenv(EnvStack, "1")
	cmd, _, errs := program(t, "crash")
	if code := exitCode(t, cmd); code != Crash || !strings.Contains(errs.String(), "goroutine 1") {
		t.Fatalf("exit code %d, %q", code, errs)
	}
}

// TestCodesNeverChange: scripts and pipelines rely on them.
func TestCodesNeverChange(t *testing.T) {
	if got := []int{OK, Fail, Inconclusive, Interrupted, BadArguments, Crash}; fmt.Sprint(got) != "[0 1 2 130 254 255]" {
		t.Fatal(got)
	}
}

func TestExecutePassesEverythingOn(t *testing.T) {
	var out, errs bytes.Buffer
	code := execute(func(_ context.Context, args []string, in io.Reader, out, errs io.Writer) int {
		text, err := io.ReadAll(in)
		if err != nil {
			return Crash
		}
		fmt.Fprint(out, args, string(text))
		fmt.Fprint(errs, "e")
		return 7
	}, []string{"a", "b"}, strings.NewReader("in"), &out, &errs, nil, nil)
	if code != 7 || out.String() != "[a b]in" || errs.String() != "e" {
		t.Fatal(code, out.String(), errs.String())
	}
}

func TestCrashHidesSecrets(t *testing.T) {
	var errs bytes.Buffer
	code := execute(func(context.Context, []string, io.Reader, io.Writer, io.Writer) int {
		panic(errors.New("cannot reach nats://me:hunter2@127.0.0.1\nsecond line"))
	}, nil, nil, nil, &errs, nil, nil)
	if text := errs.String(); code != Crash || strings.Contains(text, "hunter2") || strings.Count(text, "\n") != 1 {
		t.Fatalf("%d, %q", code, text)
	}
}
