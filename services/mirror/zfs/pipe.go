package zfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Streams go through pipes of the kernel, which is asked for wider ones than its
// 64 KiB, and are copied in large pieces: each end waits for the other less often.
const (
	pipeSize = 1 << 20
	copySize = 256 << 10
)

// widePipe is os.Pipe with more room, if the kernel grants it.
func widePipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	if c, err := w.SyscallConn(); err == nil {
		// Beyond a limit of the user's it is refused; the pipe is good all the same.
		_ = c.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	return r, w, nil
}

// runPiped runs a command with its input and output, and waits for the end of the
// command and of its output. An input that is a file is the command's own; of
// another one a Read may still be under way at the return, which exec would wait
// for. What an input fails with is its owner's to tell: the command sees that it
// breaks off.
func runPiped(cmd *exec.Cmd, stdin io.Reader, stdout io.Writer) error {
	if stdout == nil {
		if err := startFed(cmd, stdin); err != nil {
			return err
		}
		return cmd.Wait()
	}
	r, w, err := widePipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	cmd.Stdout = w
	err = startFed(cmd, stdin)
	_ = w.Close() // the command has it
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() {
		err := copyOut(stdout, r)
		// The command must not wait for somebody to read on.
		_ = r.Close()
		copied <- err
	}()
	err = cmd.Wait()
	// The pipe may hold much that is not copied yet, and what the command started may
	// hold the pipe: only that of a killed command is given up.
	if cmd.ProcessState == nil || !cmd.ProcessState.Exited() {
		_ = r.SetReadDeadline(time.Now().Add(cmd.WaitDelay))
	}
	failed := <-copied
	if failed == nil || errors.Is(failed, os.ErrDeadlineExceeded) {
		return err
	}
	if err == nil {
		return failed
	}
	return fmt.Errorf("%w (%w)", failed, err)
}

// copyOut copies what a command puts out. A buffer takes a few lines, and grows to
// what they need; everything else takes a stream.
func copyOut(stdout io.Writer, r io.Reader) error {
	if lines, ok := stdout.(*bytes.Buffer); ok {
		_, err := lines.ReadFrom(r)
		return err
	}
	_, err := io.CopyBuffer(onlyWriter{stdout}, onlyReader{r}, make([]byte, copySize))
	return err
}

// startFed starts a command and feeds it its input.
func startFed(cmd *exec.Cmd, stdin io.Reader) error {
	file, ok := stdin.(*os.File)
	if ok || stdin == nil {
		if ok {
			cmd.Stdin = file
		}
		return cmd.Start()
	}
	w, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		_, _ = io.CopyBuffer(onlyWriter{w}, onlyReader{stdin}, make([]byte, copySize))
		_ = w.Close()
	}()
	return nil
}

// onlyReader and onlyWriter hide what io.CopyBuffer would use instead of its buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
