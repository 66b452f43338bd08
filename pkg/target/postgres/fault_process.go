package postgres

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// realPath resolves links on this machine, or returns the path as it is.
func realPath(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}

func (s *servers) planRunning(o *operation, views []view, p *target.Plan) error {
	if err := s.choose(o, views); err != nil {
		return err
	}
	v := viewOf(views, o.node)
	p.Parts = []event.Part{part(o.node, v.role())}
	if !v.Running() {
		return fmt.Errorf("node %s does not run; there is nothing to break", o.node.Name)
	}
	return nil
}

// planMendable is planRunning for faults that stop the server.
func (s *servers) planMendable(o *operation, views []view, p *target.Plan) error {
	if err := s.planRunning(o, views, p); err != nil {
		return err
	}
	return o.mendable(viewOf(views, o.node))
}

func (s *servers) planKill(_ context.Context, o *operation, views []view, p *target.Plan) error {
	if err := s.planMendable(o, views, p); err != nil {
		return err
	}
	p.Does = []string{fmt.Sprintf("stop every process of node %s (%d now) with SIGSTOP, the postmaster first, and send them all SIGKILL", o.node.Name, len(viewOf(views, o.node).Procs))}
	return nil
}

func (s *servers) planFreeze(_ context.Context, o *operation, views []view, p *target.Plan) error {
	if err := s.planMendable(o, views, p); err != nil {
		return err
	}
	o.rec.Undo, o.rec.Opens = undoThaw, viewOf(views, o.node).primary()
	p.DeadMan = undo.DeadMan(o.Operation)
	p.Does = []string{
		fmt.Sprintf("set a timer on the node's machine that sends SIGCONT after %v", p.DeadMan),
		fmt.Sprintf("send SIGSTOP to every process of node %s (%d now), the postmaster first", o.node.Name, len(viewOf(views, o.node).Procs)),
	}
	p.Undoes = fmt.Sprintf("send SIGCONT to node %s; if another node is the primary by then, %s", o.node.Name, s.homeSentence())
	return nil
}

func (s *servers) planStop(_ context.Context, o *operation, views []view, p *target.Plan) error {
	if err := s.planMendable(o, views, p); err != nil {
		return err
	}
	p.Does = []string{fmt.Sprintf("stop node %s with pg_ctl, mode %s", o.node.Name, stopMode(o.params))}
	return nil
}

func stopMode(p params) string {
	if p.Mode == "" {
		return "fast"
	}
	return p.Mode
}

// maxRounds bounds how often new children are looked for while a server is
// being killed or frozen. The postmaster goes first, so one more is rare.
const maxRounds = 20

// kill ends the whole server at one moment, see control.KillFenced: the fault has
// ended when the last signal was sent to processes that were all stopped by then,
// or, should one not stop at once, when all are gone.
func (s *servers) kill(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	procs, err := s.processes(ctx, o.node)
	if err != nil {
		return e, err
	}
	if len(procs) == 0 {
		return e, fmt.Errorf("node %s does not run any more", o.node.Name)
	}
	hit := 0
	begin := func() {
		if hit == 0 {
			e.Began = s.clock.Now()
		}
	}
	for round := 0; len(procs) > 0; round++ {
		if round == maxRounds {
			return e, fmt.Errorf("node %s still has processes %v after %d rounds of SIGKILL", o.node.Name, pidsOf(procs), round)
		}
		together, err := o.node.host.KillFenced(ctx, conductor(ctx), begin, pidsOf(procs)...)
		if err != nil {
			return e, fmt.Errorf("node %s: %w", o.node.Name, err)
		}
		e.Ended = s.clock.Now()
		if err := s.until(ctx, o.node, "the killed processes to be gone", procs, control.Process.Gone); err != nil {
			return e, err
		}
		if !together {
			e.Ended = s.clock.Now()
		}
		hit += len(procs)
		// The postmaster may have had a child while it was being hit.
		if procs, err = s.processes(ctx, o.node); err != nil {
			return e, err
		}
	}
	e.Proof = s.proveDown(ctx, o.node, fmt.Sprintf("%d processes got SIGKILL and are gone", hit))
	return e, nil
}

// proveDown shows that no process is left and that nobody answers.
func (s *servers) proveDown(ctx context.Context, n *node, seen string) event.Proof {
	p := event.Proof{How: "no process of the server is left, and a connection is not answered", Observations: []string{seen}}
	procs, err := s.processes(ctx, n)
	if err != nil || len(procs) > 0 {
		p.Observations = append(p.Observations, fmt.Sprintf("processes left: %v %v", pidsOf(procs), err))
		return p
	}
	refusal, silent := s.silent(ctx, n)
	p.Proven = silent
	p.Observations = append(p.Observations, refusal)
	return p
}

// silent tries to connect to a node, and reports whether that failed, and how.
func (s *servers) silent(ctx context.Context, n *node) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	c, err := connect(ctx, n.Address(), s.admin, s.cfg.Database, s.cfg.SSLMode)
	if err == nil {
		c.close()
		return fmt.Sprintf("%s answers", n.Address()), false
	}
	return s.scrubText(err.Error()), sqlCode(err) == "" || sqlCode(err) == "57P03"
}

// signalUntil signals processes, and waits until each is as the signal makes it:
// the fault has not ended before.
func (s *servers) signalUntil(ctx context.Context, n *node, sig syscall.Signal, procs []control.Process, done func(control.Process) bool) error {
	if err := s.signal(ctx, n, sig, procs); err != nil {
		return err
	}
	return s.until(ctx, n, fmt.Sprintf("%v to take effect", sig), procs, done)
}

// until waits for each of a node's processes to be done.
func (s *servers) until(ctx context.Context, n *node, what string, procs []control.Process, done func(control.Process) bool) error {
	pids := pidsOf(procs)
	return target.Poll(ctx, 10*time.Second, 100*time.Microsecond, fmt.Sprintf("%s on node %s", what, n.Name), func(ctx context.Context) (bool, string, error) {
		now, err := n.host.Look(ctx, pids...)
		for _, p := range now {
			if !done(p) {
				return false, fmt.Sprintf("process %d is in state %c", p.PID, p.State), err
			}
		}
		return err == nil, "", err
	})
}

const thawScript = `for p in /proc/[0-9]*; do
  [ "$(readlink "$p/cwd" 2>/dev/null)" = "$1" ] && kill -CONT "${p#/proc/}" 2>/dev/null
done; :`

func (s *servers) freeze(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	procs, err := s.processes(ctx, o.node)
	if err != nil {
		return e, err
	}
	if len(procs) == 0 {
		return e, fmt.Errorf("node %s does not run any more", o.node.Name)
	}
	err = s.arm(ctx, o, control.Timer{Script: thawScript, Args: []string{procs[0].Dir}})
	if err != nil {
		return e, err
	}
	e.Began = s.clock.Now()
	for round := 0; ; round++ {
		if round == maxRounds {
			return e, fmt.Errorf("node %s: not every process stopped after %d rounds of SIGSTOP", o.node.Name, round)
		}
		stopped := func(p control.Process) bool { return p.Stopped() || p.Gone() }
		if err := s.signalUntil(ctx, o.node, syscall.SIGSTOP, procs, stopped); err != nil {
			return e, err
		}
		e.Ended = s.clock.Now()
		if procs, err = s.processes(ctx, o.node); err != nil {
			return e, err
		}
		if allStopped(procs) {
			break
		}
	}
	e.Proof = event.Proof{How: "every process is in state T, and a new connection gets no answer",
		Observations: []string{fmt.Sprintf("%d processes in state T", len(procs))}}
	refusal, silent := s.silent(ctx, o.node)
	e.Proof.Proven = silent && len(procs) > 0
	e.Proof.Observations = append(e.Proof.Observations, refusal)
	return e, nil
}

func allStopped(ps []control.Process) bool {
	for _, p := range ps {
		if !p.Stopped() {
			return false
		}
	}
	return true
}

// arm sets the dead-man timer of an operation.
func (s *servers) arm(ctx context.Context, o *operation, t control.Timer) error {
	if conductor(ctx).Name == "" { // a claim has made it
		if err := s.makeEvidenceDir(ctx, o.node); err != nil {
			return err
		}
	}
	t.Token, t.After = s.timerToken(o.rec), undo.DeadMan(o.Operation)
	if err := o.node.host.Arm(ctx, t); err != nil {
		return fmt.Errorf("node %s: dead-man timer: %w", o.node.Name, err)
	}
	return nil
}

// disarm cancels the dead-man timer of a record.
func (s *servers) disarm(ctx context.Context, n *node, r record) error {
	if err := n.host.Disarm(ctx, s.timerToken(r)); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

// thaw undoes a freeze.
func (s *servers) thaw(ctx context.Context, r record, j *undo.Journal) error {
	n, err := s.node(r.Node)
	if err != nil {
		return err
	}
	views, err := s.lookAmong(ctx, s.duty(r), lookLimit)
	if err != nil {
		return err
	}
	if err := fence(views, r.SystemID); err != nil {
		return err
	}
	if split(views, n) {
		// Thawing it would make two primaries; converge does not let it run.
		err = s.converge(ctx, r, j)
	} else {
		err = s.resumeProcesses(ctx, n, j)
	}
	if err != nil {
		return err // the timer stays armed: it is what is left
	}
	return s.disarm(ctx, n, r)
}

// split reports whether n is, or would go on as, a primary while another node is
// one, or would start as one: after a promotion, also if the promoted node is
// down by now.
func split(views []view, n *node) bool {
	if !viewOf(views, n).primary() {
		return false
	}
	for _, v := range views {
		if v.node != n && v.primary() {
			return true
		}
	}
	return false
}

// resumeProcesses sends SIGCONT until no process is stopped.
func (s *servers) resumeProcesses(ctx context.Context, n *node, j *undo.Journal) error {
	return target.Poll(ctx, 10*time.Second, 10*time.Millisecond, "node "+n.Name+" to run again", func(ctx context.Context) (bool, string, error) {
		procs, err := s.processes(ctx, n)
		if err != nil {
			return false, "", err
		}
		var stopped []control.Process
		for _, p := range procs {
			if p.Stopped() {
				stopped = append(stopped, p)
			}
		}
		if len(stopped) == 0 {
			return true, "", nil
		}
		j.Add("sent SIGCONT to %d processes of node %s", len(stopped), n.Name)
		return false, fmt.Sprintf("%d processes are stopped", len(stopped)), s.signal(ctx, n, syscall.SIGCONT, stopped)
	})
}

func (s *servers) stop(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	e.Began = s.clock.Now()
	err := s.stopNode(ctx, o.node, stopMode(o.params))
	e.Ended = s.clock.Now()
	if err != nil {
		return e, err
	}
	e.Proof = s.proveDown(ctx, o.node, "pg_ctl stop succeeded")
	return e, nil
}

// stopNode stops a running server in order and waits until it is gone.
func (s *servers) stopNode(ctx context.Context, n *node, mode string) error {
	_, err := s.change(ctx, n, login{}, "pg_ctl stop", `"$1/pg_ctl" stop -s -w -t 60 -D "$2" -m "$3"`, n.BinDir, n.DataDir, mode)
	if err != nil {
		return err
	}
	// pg_ctl waits for the postmaster only; its logger may last a little longer.
	return target.Poll(ctx, 20*time.Second, 5*time.Millisecond, "the last process of node "+n.Name+" to end", func(ctx context.Context) (bool, string, error) {
		procs, err := s.processes(ctx, n)
		return len(procs) == 0, fmt.Sprintf("processes %v are left", pidsOf(procs)), err
	})
}

// killNode ends every process of a server at once.
func (s *servers) killNode(ctx context.Context, n *node) error {
	return target.Poll(ctx, 10*time.Second, 10*time.Millisecond, "node "+n.Name+" to be gone", func(ctx context.Context) (bool, string, error) {
		procs, err := s.processes(ctx, n)
		if err != nil || len(procs) == 0 {
			return err == nil, "", err
		}
		return false, fmt.Sprintf("processes %v are left", pidsOf(procs)), s.signal(ctx, n, syscall.SIGKILL, procs)
	})
}

// startScript starts a stopped server with the options it last had. A process id
// file that a kill left is removed first: its number may be another process's by
// now, which pg_ctl would take for the server.
const startScript = `bin=$1 d=$2 log=$3
if [ -e "$d/postmaster.pid" ]; then
  p=$(head -n 1 "$d/postmaster.pid")
  if [ "$(readlink -f "/proc/$p/cwd" 2>/dev/null)" = "$(readlink -f "$d")" ]; then exit 0; fi
  rm -f "$d/postmaster.pid"
fi
how=start; [ -s "$d/postmaster.opts" ] && how=restart
"$bin/pg_ctl" $how -s -w -t 120 -D "$d" -l "$log" >&2 9>&- || { tail -n 5 "$log" >&2; exit 1; }`

// startNode starts a stopped server and waits until it takes connections.
func (s *servers) startNode(ctx context.Context, n *node) error {
	_, err := s.change(ctx, n, login{}, "pg_ctl start", startScript, n.BinDir, n.DataDir, n.LogFile)
	if err != nil {
		return err
	}
	return target.Poll(ctx, 2*time.Minute, 20*time.Millisecond, "node "+n.Name+" to take connections", func(ctx context.Context) (bool, string, error) {
		_, err := s.ask(ctx, n, "SELECT 1")
		if err != nil {
			return false, err.Error(), nil
		}
		return true, "", nil
	})
}
