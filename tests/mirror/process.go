package mirror

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// process is a program that is killed and started again. Its methods may be used
// concurrently.
type process struct {
	name    string
	program string
	args    []string
	log     string
	// lost is told when the program ends and nobody killed it.
	lost func(error)

	mu     sync.Mutex
	cmd    *exec.Cmd
	ended  chan struct{}
	wanted bool
}

// start starts the program, unless it runs. It dies with this process.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer out.Close()
	cmd := exec.Command(p.program, p.args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = filepath.Dir(p.log)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended, p.wanted = cmd, ended, false
	go func() {
		defer close(ended)
		err := cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cmd = nil
		if !p.wanted {
			p.lost(fmt.Errorf("%s ended by itself: %w; its log is %s", p.name, errors.Join(err, errors.New("nobody killed it")), p.log))
		}
	}()
	return nil
}

// kill ends the program with SIGKILL and waits until it is gone.
func (p *process) kill() {
	p.mu.Lock()
	cmd, ended := p.cmd, p.ended
	p.wanted = true
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // an error means that it is gone already
	<-ended
}
