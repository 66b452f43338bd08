// Package supervisor plays the supervisor of a machine, which starts a server for whoever
// asks: a command, such as a drill's, asks through a pipe, and the process that keeps the lab
// starts it, so that the server dies with that process and not with the command.
package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Supervisor starts one server. Its methods are safe for concurrent use.
type Supervisor struct {
	pipe *os.File
	path string
	// cancel ends a start that is under way; done is closed when no other begins.
	cancel context.CancelFunc
	done   chan struct{}

	mu  sync.Mutex
	err error
}

// Begin begins to supervise, with a pipe in an existing directory. start is called for each
// time that the command is run, one at a time; its context has the values of ctx, and ends
// with End.
func Begin(ctx context.Context, dir string, start func(context.Context) error) (*Supervisor, error) {
	s := &Supervisor{path: filepath.Join(dir, "supervisor"), done: make(chan struct{})}
	if err := syscall.Mkfifo(s.path, 0o600); err != nil {
		return nil, fmt.Errorf("make the supervisor's pipe %s: %w", s.path, err)
	}
	var err error
	// Both ends: no end of file between two writers.
	if s.pipe, err = os.OpenFile(s.path, os.O_RDWR, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("open the supervisor's pipe: %w", err), os.Remove(s.path))
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	go func() {
		defer close(s.done)
		for lines := bufio.NewScanner(s.pipe); lines.Scan() && lines.Text() == "start" && ctx.Err() == nil; {
			if err := start(ctx); err != nil && ctx.Err() == nil {
				s.mu.Lock()
				s.err = errors.Join(s.err, err)
				s.mu.Unlock()
			}
		}
	}()
	return s, nil
}

// Command is the command that asks for a start. It returns at once.
func (s *Supervisor) Command() []string { return []string{"sh", "-c", `echo start >"$0"`, s.path} }

// End ends the supervisor and returns the errors of the starts that failed before. The
// server is not stopped.
func (s *Supervisor) End() error {
	s.cancel()
	_, err := s.pipe.WriteString("end\n")
	<-s.done
	return errors.Join(s.err, err, s.pipe.Close(), os.Remove(s.path))
}
