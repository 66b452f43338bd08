package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/lab/relay"
)

// RecordFile is the name of a detached lab's record in its directory.
const RecordFile = "lab.json"

var (
	// ErrNoLab says that a directory holds no detached lab.
	ErrNoLab = errors.New("no lab")
	// ErrLabExists says that a directory holds one already.
	ErrLabExists = errors.New("there is a lab already")
)

// Process is a process that a detached lab consists of.
type Process struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Started is the kernel's start time of the process, in ticks since boot; it
	// tells the process from a later one with the same number.
	Started string `json:"started"`
}

// UpOptions describe a detached lab.
type UpOptions struct {
	// Postgres is the lab; its Dir is not used.
	Postgres PostgresOptions
	// RelayCommand is the program, with arguments, that serves relays: it gets
	// the name of a relay file as one more argument and must hand it to
	// relay.ServeFile, such as ["/usr/bin/firedrill", "lab", "relay"].
	RelayCommand []string
}

// Up starts a lab that outlives this process, in dir, which must be empty or
// not exist. Down stops it, from any process. On error nothing is left running.
func Up(ctx context.Context, dir string, o UpOptions) (Record, error) {
	if len(o.RelayCommand) == 0 || dir == "" {
		return Record{}, errors.New("detached lab: a directory and the command that serves relays are needed")
	}
	if _, err := os.Stat(filepath.Join(dir, RecordFile)); err == nil {
		return Record{}, fmt.Errorf("%w in %s: use it, or stop it with `firedrill lab down`", ErrLabExists, dir)
	}
	o.Postgres.Dir = dir
	b, err := newBuilder(o.Postgres)
	if err != nil {
		return Record{}, fmt.Errorf("PostgreSQL lab: %w", err)
	}
	b.detached = true
	// The record is written before anything runs, so that a lab whose start was
	// killed can be stopped like any other.
	b.started = func([]string) error { return b.rec.save() }
	b.relays = func(ctx context.Context, all []relay.Options) ([]relay.Announcement, error) {
		return b.startRelayProcess(ctx, all, o.RelayCommand)
	}
	b.bounce = func(*server) {}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("the lab did not start in "+startTimeout.String()))
	defer cancel()
	err = b.build(ctx)
	if err == nil {
		err = b.rec.save()
	}
	if err != nil {
		return Record{}, errors.Join(fmt.Errorf("PostgreSQL lab in %s: %w", b.rec.Dir, err), b.rec.down(context.WithoutCancel(ctx)))
	}
	return b.rec, nil
}

// Down stops the detached lab in dir and removes its files unless they are to
// be kept. A directory without a lab is ErrNoLab.
func Down(ctx context.Context, dir string) error {
	r, err := Read(dir)
	if err != nil {
		return err
	}
	return r.down(ctx)
}

// Read returns the record of the detached lab in dir, or ErrNoLab.
func Read(dir string) (Record, error) {
	raw, err := os.ReadFile(filepath.Join(dir, RecordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, fmt.Errorf("%w in %s: start one with `firedrill lab up`", ErrNoLab, dir)
	}
	if err != nil {
		return Record{}, fmt.Errorf("lab record: %w", err)
	}
	var r Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return Record{}, fmt.Errorf("lab record in %s: %w", dir, err)
	}
	real, err := filepath.Abs(dir)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return Record{}, fmt.Errorf("lab directory: %w", err)
	}
	if real != r.Dir {
		// Stopping removes r.Dir: it must be the one that was asked for.
		return Record{}, fmt.Errorf("the lab record in %s speaks of %s: the directory was moved; move it back", real, r.Dir)
	}
	return r, nil
}

// Running lists what of the lab still runs: the names of its processes, and
// "postgres" if any of its servers do.
func (r Record) Running() []string {
	var out []string
	for _, p := range r.Processes {
		if p.alive() {
			out = append(out, p.Name)
		}
	}
	if len(serversUnder(r.Dir)) > 0 {
		out = append(out, "postgres")
	}
	return out
}

func (r Record) save() error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("lab record: %w", err)
	}
	part := filepath.Join(r.Dir, "."+RecordFile+".part")
	if err := os.WriteFile(part, raw, 0o600); err != nil {
		return fmt.Errorf("lab record: %w", err)
	}
	if err := os.Rename(part, filepath.Join(r.Dir, RecordFile)); err != nil {
		return fmt.Errorf("lab record: %w", err)
	}
	return nil
}

func (r Record) down(ctx context.Context) error {
	errs := []error{stopServers(ctx, r)}
	for _, p := range r.Processes {
		errs = append(errs, p.end(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		// The record stays, so that stopping can be tried again.
		return err
	}
	if r.Keep {
		if err := os.Remove(filepath.Join(r.Dir, RecordFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("lab record: %w", err)
		}
	}
	return removeFiles(r)
}

// startRelayProcess runs the lab's relays in one process of their own.
func (b *builder) startRelayProcess(ctx context.Context, all []relay.Options, command []string) ([]relay.Announcement, error) {
	dir := b.path("relays")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Announce = filepath.Join(dir, all[i].Name+".json")
	}
	raw, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "relays.conf.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return nil, err
	}
	log := filepath.Join(dir, "relays.log")
	s, err := account{home: "/"}.start(command[0], "/", log, true, append(command[1:len(command):len(command)], file)...)
	if err != nil {
		return nil, err
	}
	p := Process{Name: "relays", PID: s.cmd.Process.Pid, Started: startOf(s.cmd.Process.Pid)}
	b.rec.Processes = append(b.rec.Processes, p)
	if err := b.rec.save(); err != nil {
		return nil, err
	}
	out := make([]relay.Announcement, len(all))
	err = poll(ctx, "wait for the relays", 10*time.Millisecond, func() error {
		if s.over() {
			return &giveUp{fmt.Errorf("%s ended at once", strings.Join(command, " "))}
		}
		for i, o := range all {
			raw, err := os.ReadFile(o.Announce)
			if err != nil {
				return err
			}
			if err := json.Unmarshal(raw, &out[i]); err != nil {
				return &giveUp{fmt.Errorf("announcement %s: %w", o.Announce, err)}
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, logTail(log))
	}
	return out, nil
}

// alive reports whether the very process that was recorded still runs.
func (p Process) alive() bool { return p.Started != "" && startOf(p.PID) == p.Started }

// end kills the process and waits until it is gone. One that has ended, and
// whose number may be another's now, is left alone.
func (p Process) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return poll(ctx, fmt.Sprintf("end %s, process %d", p.Name, p.PID), 10*time.Millisecond, func() error {
		if !p.alive() {
			return nil
		}
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return &giveUp{err}
		}
		return errors.New("it still runs")
	})
}

// startOf reads the start time of a process that is no zombie; "" if there is none.
func startOf(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in parentheses, may hold anything; fields count from after it.
	at := strings.LastIndexByte(string(raw), ')')
	f := strings.Fields(string(raw[at+1:]))
	if at < 0 || len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return ""
	}
	return f[19]
}
