package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/firedrill/firedrill/pkg/run"
)

// pseudoTerminal opens one: what a terminal's window holds, and what its
// programs read and write.
func pseudoTerminal(t *testing.T) (window, programs *os.File) {
	t.Helper()
	window, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = window.Close() }) // the test may have closed it
	var locked, number int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &locked, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, window.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	programs, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return window, programs
}

// TestClosingTheTerminal: who closes it in the midst of a drill has left nothing broken,
// and finds the report, though nothing could be said any more.
func TestClosingTheTerminal(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	window, programs := pseudoTerminal(t)
	cmd := exec.Command(os.Args[0], "--state-dir", dir, "run", "--out", out, simDrill(t, "{}", "1m", "[]"))
	cmd.Env = append(os.Environ(), envCommand+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = programs, programs, programs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	// Under nohup the signal is ignored, and would be by the command, which is right: what
	// is caught here is not ignored there.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the code is in its state
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended
		<-ended
	})
	if err := programs.Close(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(window)
	for line := ""; !strings.Contains(line, "fault took effect"); {
		var err error
		if line, err = said.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if err := window.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	if code := cmd.ProcessState.ExitCode(); code != run.Inconclusive {
		t.Errorf("it ended with %s", cmd.ProcessState)
	}
	raw, err := os.ReadFile(filepath.Join(out, lone, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct{ Complete bool }
	if err := json.Unmarshal(raw, &report); err != nil || report.Complete || !bytes.Contains(raw, []byte("interrupted at the command line")) {
		t.Errorf("the report: %v\n%s", err, raw)
	}
	events, err := os.ReadFile(filepath.Join(out, lone, "events.jsonl"))
	if err != nil || !bytes.Contains(events, []byte(`"undo.done"`)) {
		t.Errorf("the fault is not undone: %v\n%s", err, events)
	}
}
