package minio

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// findScript defines find, which prints the ids of the server's processes: those
// with its name that listen on its port, or were started with one of its drives as
// an argument and so will. Only what has the name is looked into.
const findScript = `find() {
  name=$1 port=$(printf '%04X' "$2"); shift 2
  sockets=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r _ at _ state _ _ _ _ _ inode _; do
    [ "$state:${at##*:}" = "0A:$port" ] && printf 'socket:[%s]\n' "$inode"; done)
  for p in /proc/[0-9]*; do
    { read -r is <"$p/comm"; } 2>/dev/null || continue
    [ "$is" = "$name" ] || continue
    if [ -n "$sockets" ] && ls -l "$p/fd" 2>/dev/null | grep -qF "$sockets"; then echo "${p#/proc/}"; continue; fi
    for drive; do
      if tr '\0' '\n' 2>/dev/null <"$p/cmdline" | grep -qxF -e "$drive" -e "$drive/"; then echo "${p#/proc/}"; break; fi
    done
  done
}
`

// findArgs are the arguments of find for a node.
func (n *node) findArgs() []string {
	return append([]string{n.Process, strconv.Itoa(int(n.Port))}, n.Drives...)
}

// processes lists a node's live server processes.
func (s *store) processes(ctx context.Context, n *node) ([]control.Process, error) {
	out, err := s.run(ctx, n, control.Command{What: "look for the server", Script: findScript + `find "$@"`, Args: n.findArgs()})
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(out) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("node %s: look for the server: %q is no process id", n.Name, f)
		}
		pids = append(pids, pid)
	}
	ps, err := n.host.Look(ctx, pids...)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return slices.DeleteFunc(ps, control.Process.Gone), nil
}

// running is processes for a fault, which needs some.
func (s *store) running(ctx context.Context, n *node) ([]control.Process, error) {
	ps, err := s.processes(ctx, n)
	if err == nil && len(ps) == 0 {
		err = fmt.Errorf("node %s does not run (no process %s listens on port %d or was started with %s); there is nothing to break",
			n.Name, n.Process, n.Port, strings.Join(n.Drives, ", "))
	}
	return ps, err
}

func pidsOf(ps []control.Process) []int {
	out := make([]int, len(ps))
	for i, p := range ps {
		out[i] = p.PID
	}
	return out
}

func pidList(ps []control.Process) string { return strings.Trim(fmt.Sprint(pidsOf(ps)), "[]") }

// planProcess is the part of a plan that faults of processes share.
func (s *store) planProcess(ctx context.Context, o *operation, p *target.Plan) (pids string, err error) {
	ps, err := s.running(ctx, o.node)
	if err != nil {
		return "", err
	}
	pids = pidList(ps)
	p.Parts = []event.Part{s.part(o.node, "pid", pids, "drives", strings.Join(o.node.Drives, " "))}
	p.DeadMan = undo.DeadMan(o.Operation)
	return pids, nil
}

func (s *store) startSentence(n *node) string {
	return fmt.Sprintf("start node %s with %q unless it runs, and wait until it is healthy", n.Name, strings.Join(n.Start, " "))
}

func (s *store) planKill(ctx context.Context, o *operation, p *target.Plan) error {
	pids, err := s.planProcess(ctx, o, p)
	p.Does = []string{
		fmt.Sprintf("set a timer on the node's machine that starts the server after %v, unless it runs", p.DeadMan),
		fmt.Sprintf("send SIGKILL to the server of node %s at %s (process %s now)", o.node.Name, o.node.Address(), pids),
	}
	p.Undoes = s.startSentence(o.node)
	return err
}

func (s *store) planStop(ctx context.Context, o *operation, p *target.Plan) error {
	pids, err := s.planProcess(ctx, o, p)
	how := fmt.Sprintf("send SIGTERM to the server of node %s", o.node.Name)
	if len(o.node.Stop) > 0 {
		how = fmt.Sprintf("stop node %s with %q", o.node.Name, strings.Join(o.node.Stop, " "))
	}
	p.Does = []string{
		fmt.Sprintf("set a timer on the node's machine that starts the server after %v, unless it runs", p.DeadMan),
		fmt.Sprintf("%s at %s (process %s now)", how, o.node.Address(), pids),
	}
	p.Undoes = s.startSentence(o.node)
	return err
}

func (s *store) planFreeze(ctx context.Context, o *operation, p *target.Plan) error {
	pids, err := s.planProcess(ctx, o, p)
	o.rec.Undo = undoThaw
	p.Does = []string{
		fmt.Sprintf("set a timer on the node's machine that sends SIGCONT after %v", p.DeadMan),
		fmt.Sprintf("send SIGSTOP to the server of node %s at %s (process %s now)", o.node.Name, o.node.Address(), pids),
	}
	p.Undoes = "send SIGCONT to node " + o.node.Name
	return err
}

func (s *store) planStart(ctx context.Context, o *operation, p *target.Plan) error {
	ps, err := s.processes(ctx, o.node)
	p.Parts = []event.Part{s.part(o.node, "pid", pidList(ps))}
	p.Does = []string{s.startSentence(o.node)}
	p.Undoes = "nothing: a server that runs is as it should be"
	return err
}

// startCommand is a script, with its arguments, that starts the node unless it runs.
// It prints "started" when it had to. It holds a lock while it looks and starts, so
// that a timer, an undo and an action do not start two; the server does not get it.
func (s *store) startCommand(n *node) (script string, args []string) {
	words := make([]string, len(n.Start))
	for i, w := range n.Start {
		words[i] = control.Quote(w)
	}
	script = findScript + `mkdir -p -- "$1" && exec 9>>"$1/start.lock" && flock -w 60 9 || { echo "another start did not end within 60 s" >&2; exit 1; }
shift; [ -z "$(find "$@")" ] || exit 0
` + strings.Join(words, " ") + ` </dev/null >&2 9>&- && echo started`
	return script, append([]string{s.cfg.StateDir}, n.findArgs()...)
}

// startTime bounds a start until the server is healthy.
const startTime = 2 * time.Minute

// start starts a node unless it runs, waits until it and the store are healthy, and
// reports whether it had to be started.
func (s *store) start(ctx context.Context, o *operation) (bool, error) {
	script, args := s.startCommand(o.node)
	out, err := s.run(ctx, o.node, control.Command{What: "start the server", Script: o.fence.Guard(script), Args: args})
	if err != nil {
		return false, err
	}
	return out == "started", s.awaitHealth(ctx, o.node, startTime)
}

func (s *store) awaitHealth(ctx context.Context, n *node, limit time.Duration) error {
	return target.Poll(ctx, limit, 20*time.Millisecond, "node "+n.Name+" to be healthy", func(ctx context.Context) (bool, string, error) {
		// ready says yes before the server knows its buckets and users.
		for _, path := range []string{healthReady, healthCluster} {
			if err := s.health(ctx, n, path); err != nil {
				return false, err.Error(), nil
			}
		}
		return true, "", nil
	})
}

// ensureRunning undoes a kill or a stop.
func (s *store) ensureRunning(ctx context.Context, o *operation, j *undo.Journal) error {
	started, err := s.start(ctx, o)
	if started {
		j.Add("started node %s with %q", o.node.Name, strings.Join(o.node.Start, " "))
	}
	return err
}

func (s *store) startAction(ctx context.Context, o *operation) (target.Effect, error) {
	e := target.Effect{Began: s.clock.Now()}
	started, err := s.start(ctx, o)
	e.Ended = s.clock.Now()
	e.Details = map[string]string{"node": o.node.Name, "already": strconv.FormatBool(!started)}
	if err != nil {
		return e, err
	}
	ps, err := s.processes(ctx, o.node)
	if err != nil {
		return e, err
	}
	e.Proof = event.Proof{Proven: true, How: "the node's health endpoints say that it and the store are well",
		Observations: []string{fmt.Sprintf("process %s answers at %s", pidList(ps), o.node.Address())}}
	return e, nil
}

// armStart sets the timer that starts the server.
func (s *store) armStart(ctx context.Context, o *operation) error {
	script, args := s.startCommand(o.node)
	return o.machine.Arm(ctx, o.Operation, o.rec.Token, control.Timer{Script: script, Args: args})
}

func (s *store) kill(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	ps, err := s.running(ctx, o.node)
	if err != nil {
		return e, err
	}
	if err := s.armStart(ctx, o); err != nil {
		return e, err
	}
	together, err := o.node.host.KillFenced(ctx, o.fence, func() { e.Began = s.clock.Now() }, pidsOf(ps)...)
	e.Ended = s.clock.Now()
	if err != nil {
		return e, fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	if err := s.until(ctx, o.node, "the killed processes to be gone", ps, control.Process.Gone); err != nil {
		return e, err
	}
	if !together {
		e.Ended = s.clock.Now()
	}
	e.Proof = s.proveGone(ctx, o.node, fmt.Sprintf("process %s got SIGKILL and is gone", pidList(ps)))
	return e, nil
}

// proveGone is for processes that were seen to be gone. Another one may run by now:
// a supervisor's start is the recovery to be measured, and no flaw of the fault.
func (s *store) proveGone(ctx context.Context, n *node, seen string) event.Proof {
	p := event.Proof{Proven: true, How: "the server's process is gone", Observations: []string{seen}}
	if err := s.health(ctx, n, healthLive); err != nil {
		p.Observations = append(p.Observations, err.Error())
	} else {
		p.Observations = append(p.Observations, "another process answers already")
	}
	return p
}

func (s *store) stop(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	ps, err := s.running(ctx, o.node)
	if err != nil {
		return e, err
	}
	if err := s.armStart(ctx, o); err != nil {
		return e, err
	}
	e.Began = s.clock.Now()
	if len(o.node.Stop) > 0 {
		_, err = s.run(ctx, o.node, control.Command{What: "stop the server", Script: o.fence.Guard(`"$@"`), Args: o.node.Stop})
	} else {
		err = s.signal(ctx, o, syscall.SIGTERM, ps)
	}
	if err == nil {
		err = s.until(ctx, o.node, "the server to end", ps, control.Process.Gone)
	}
	e.Ended = s.clock.Now()
	if err != nil {
		return e, err
	}
	e.Proof = s.proveGone(ctx, o.node, fmt.Sprintf("process %s has ended", pidList(ps)))
	return e, nil
}

// thawScript wakes every stopped process of the server.
const thawScript = findScript + `for p in $(find "$@"); do kill -CONT "$p"; done`

func (s *store) freeze(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	ps, err := s.running(ctx, o.node)
	if err != nil {
		return e, err
	}
	if err := o.machine.Arm(ctx, o.Operation, o.rec.Token, control.Timer{Script: thawScript, Args: o.node.findArgs()}); err != nil {
		return e, err
	}
	e.Began = s.clock.Now()
	if err := s.signal(ctx, o, syscall.SIGSTOP, ps); err != nil {
		return e, err
	}
	stopped := func(p control.Process) bool { return p.Stopped() || p.Gone() }
	if err := s.until(ctx, o.node, "SIGSTOP to take effect", ps, stopped); err != nil {
		return e, err
	}
	e.Ended = s.clock.Now()
	e.Proof = event.Proof{How: "the process is in state T, and a request gets no answer",
		Observations: []string{fmt.Sprintf("process %s in state T", pidList(ps))}}
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := s.health(ctx, o.node, healthLive); err != nil {
		e.Proof.Proven = true
		e.Proof.Observations = append(e.Proof.Observations, err.Error())
	} else {
		e.Proof.Observations = append(e.Proof.Observations, "a request was answered")
	}
	return e, nil
}

// thaw undoes a freeze.
func (s *store) thaw(ctx context.Context, o *operation, j *undo.Journal) error {
	// A server that something else has ended meanwhile is not this undo's to start.
	return target.Poll(ctx, 10*time.Second, 10*time.Millisecond, "node "+o.node.Name+" to run again", func(ctx context.Context) (bool, string, error) {
		ps, err := s.processes(ctx, o.node)
		if err != nil {
			return false, "", err
		}
		ps = slices.DeleteFunc(ps, func(p control.Process) bool { return !p.Stopped() })
		if len(ps) == 0 {
			return true, "", nil
		}
		j.Add("sent SIGCONT to process %s of node %s", pidList(ps), o.node.Name)
		return false, "it is stopped", s.signal(ctx, o, syscall.SIGCONT, ps)
	})
}

// signal sends a signal unless a newer conductor has acted.
func (s *store) signal(ctx context.Context, o *operation, sig syscall.Signal, ps []control.Process) error {
	if err := o.node.host.SignalFenced(ctx, o.fence, sig, pidsOf(ps)...); err != nil {
		return fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	return nil
}

// until waits for each of a node's processes to be done; one that is not there any
// more is.
func (s *store) until(ctx context.Context, n *node, what string, ps []control.Process, done func(control.Process) bool) error {
	return target.Poll(ctx, time.Minute, time.Millisecond, what+" on node "+n.Name, func(ctx context.Context) (bool, string, error) {
		now, err := n.host.Look(ctx, pidsOf(ps)...)
		for _, p := range now {
			if !done(p) {
				return false, fmt.Sprintf("process %d is in state %c", p.PID, p.State), err
			}
		}
		return err == nil, "", err
	})
}
