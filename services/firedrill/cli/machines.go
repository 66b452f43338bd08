package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/services/injector"
)

// A plan's problems come as texts, from wherever it was made, and every step that
// needs a machine repeats what is wrong with it. What follows finds the machines
// in them again.
var (
	ofNode = lazy.Regexp(`(?:data directory \S+ of node \S+: )?node ([A-Za-z0-9][-_.A-Za-z0-9]*)(?: as \S+)?: `)
	// commandFailed is how pkg/control words a command that failed elsewhere.
	commandFailed = lazy.Regexp(`(?s), through (.+?): (exit status \d+|context deadline exceeded \(signal: killed\)|(?:fork/)?exec\b.*)(?:: (.*))?$`)
	connectFailed = lazy.Regexp(`(?s)^connect to (\S+), database .*: (.+)$`)
)

// nodeFailure is what a problem says of one node.
type nodeFailure struct {
	node, text string
	// through is the command that should have reached its machine, cause how that
	// ended, and why its last words.
	through, cause, why string
	// address is where its server could not be reached instead.
	address string
}

// machine reports whether it is about reaching the machine.
func (f nodeFailure) machine() bool { return f.through != "" || f.address != "" }

// splitProblem takes a problem apart: what was tried, and how each node failed. A
// node's text may have several lines, as ssh's have.
func splitProblem(text string) (lead string, out []nodeFailure) {
	for i, line := range strings.Split(text, "\n") {
		at := ofNode().FindStringSubmatchIndex(line)
		switch {
		case at != nil:
			if i == 0 {
				lead = strings.TrimSuffix(line[:at[0]], ": ")
			}
			out = append(out, nodeFailure{node: line[at[2]:at[3]], text: line[at[1]:]})
		case len(out) > 0:
			out[len(out)-1].text += "\n" + line
		default:
			lead = strings.TrimPrefix(lead+"\n"+line, "\n")
		}
	}
	for i := range out {
		out[i].read()
	}
	return lead, out
}

func (f *nodeFailure) read() {
	if m := commandFailed().FindStringSubmatch(f.text); m != nil {
		lines := strings.Split(strings.TrimSpace(m[3]), "\n")
		f.through, f.cause, f.why = m[1], m[2], lines[len(lines)-1]
	} else if m := connectFailed().FindStringSubmatch(f.text); m != nil {
		f.address, f.why = m[1], m[2]
	}
}

// need is a machine that a plan needs and could not use.
type need struct {
	nodeFailure
	// database is how its server could not be reached either.
	database string
}

// machinesIn lists the machines in a plan's problems, each once.
func machinesIn(c injector.Checked) []need {
	texts := []string{c.Problem}
	for _, s := range c.Steps {
		texts = append(texts, s.Problem)
	}
	var out []need
	for _, text := range texts {
		_, failures := splitProblem(text)
		for _, f := range failures {
			same := slices.IndexFunc(out, func(m need) bool {
				return m.node == f.node && (f.through == "" || m.through == f.through)
			})
			switch {
			case f.through != "" && same < 0:
				out = append(out, need{nodeFailure: f})
			case f.address != "" && same >= 0:
				out[same].database = fmt.Sprintf("; nor its server at %s: %s", f.address, f.why)
			case f.address != "":
				out = append(out, need{nodeFailure: f})
			}
		}
	}
	return out
}

// reached reports whether the machine did something, if not what it was told. 255
// is how ssh says that it did not get there.
func (m need) reached() bool {
	return strings.HasPrefix(m.cause, "exit status ") && m.cause != "exit status 255"
}

// String says what is wrong with a machine, on one line.
func (m need) String() string {
	switch {
	case m.through == "":
		return fmt.Sprintf("node %s: its server at %s cannot be reached: %s", m.node, m.address, m.why)
	case m.reached():
		return fmt.Sprintf("node %s: a command through `%s` fails there (%s): %s%s", m.node, m.through, m.cause, m.why, m.database)
	case m.why == "":
		m.why = m.cause
	}
	return fmt.Sprintf("node %s cannot be reached through `%s`: %s%s", m.node, m.through, m.why, m.database)
}

// fix says what to do about it.
func (m need) fix() string {
	switch {
	case m.through == "":
		return "make " + m.address + " answer where firedrill runs"
	case m.reached():
		return "mend what the target's configuration says of this node"
	}
	return fmt.Sprintf("make `%s true` work where firedrill runs, as its user", m.through)
}
