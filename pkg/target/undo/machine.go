package undo

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
)

// Machine is one on which faults are injected and undone. Its methods are safe for
// concurrent use.
type Machine struct {
	Host *control.Host
	// Name is what errors call it, such as "node a".
	Name string
	// StateDir is the directory there for firedrill's own small state: who acts, and
	// timers. It is made when missing.
	StateDir string
	// Field is where the target's configuration says how the machine is reached, such
	// as "nodes[].control".
	Field string
}

// Fence is for what the operation's conductor does there: scripts and signals that are
// refused once a newer one has acted.
func (m Machine) Fence(op target.Operation) control.Fence {
	return control.Fence{Dir: m.StateDir, Name: op.Whose(), Epoch: op.Fence}
}

// Claim records there that the operation's conductor acts, or refuses, with a
// *control.FencedError, if a newer one has: one that was suspended and goes on must not
// break what its successor has mended. A caller without a drill claims nothing.
func (m Machine) Claim(ctx context.Context, op target.Operation) error {
	if op.Drill == "" && op.Fence == 0 {
		return nil
	}
	err := m.Host.Fence(ctx, m.Fence(op))
	if err == nil {
		return nil
	}
	if !errors.As(err, new(*control.FencedError)) {
		err = fmt.Errorf("%w; make its machine reachable (%s), and let firedrill write to %s there", err, m.Field, m.StateDir)
	}
	return fmt.Errorf("%s: %w", m.Name, err)
}

// ClaimToMend is Claim for what puts things back: a machine that cannot record the
// claim, because its disk is full, is mended all the same, as long as no newer conductor
// is known there.
func (m Machine) ClaimToMend(ctx context.Context, op target.Operation) error {
	err := m.Claim(ctx, op)
	if err == nil || errors.As(err, new(*control.FencedError)) {
		return err
	}
	if known := m.Host.FenceCheck(ctx, m.Fence(op)); known != nil {
		return errors.Join(err, fmt.Errorf("%s: %w", m.Name, known))
	}
	return nil
}

const surveyScript = `s=$1; shift
for p; do command -v -- "$p" >/dev/null 2>&1 || echo "lacks $p"; done
e=$s; while [ ! -e "$e" ] && [ "$e" != / ]; do e=$(dirname -- "$e"); done
[ -d "$e" ] && [ -w "$e" ] || echo shut
:`

// Survey looks, and only reads, for what undoing will need there: which of the programs
// cannot be run, and whether StateDir can be written or made. prelude comes before the
// script, for a PATH.
func (m Machine) Survey(ctx context.Context, prelude string, programs ...string) (lacking []string, writable bool, err error) {
	out, err := m.Host.Output(ctx, control.Command{What: "look for what undoing needs", Script: prelude + surveyScript, Args: append([]string{m.StateDir}, programs...)})
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", m.Name, err)
	}
	writable = true
	for line := range strings.Lines(out) {
		word, program, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "shut" {
			writable = false
		} else {
			lacking = append(lacking, program)
		}
	}
	return lacking, writable, nil
}

// Arm sets the operation's dead-man timer, right before its effect: after DeadMan the
// machine runs the script by itself. A driver's own undo must bear it before, beside
// and after itself. t's Token and After are set here.
func (m Machine) Arm(ctx context.Context, op target.Operation, token string, t control.Timer) error {
	t.Token, t.After = m.timer(token), DeadMan(op)
	if err := m.Host.Arm(ctx, t); err != nil {
		return fmt.Errorf("%s: dead-man timer: %w", m.Name, err)
	}
	return nil
}

// Disarm cancels the dead-man timer of a token; without one it does nothing. When it
// returns, the timer's script has run to its end or will never begin. It comes after
// the undo: a timer of an undo that failed stays, for it is what is left.
func (m Machine) Disarm(ctx context.Context, token string) error {
	if err := m.Host.Disarm(ctx, m.timer(token)); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return nil
}

// timer is the file whose presence keeps a token's timer alive.
func (m Machine) timer(token string) string { return path.Join(m.StateDir, token+".timer") }
