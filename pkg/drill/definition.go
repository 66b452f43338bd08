// Package drill holds what a drill is: its definition, and the pure core that
// turns the drill's own events into the next step. Nothing here reads a clock,
// draws a random number, logs or talks to anything.
package drill

import (
	"encoding/json"
	"fmt"

	"github.com/firedrill/firedrill/pkg/event"
)

// APIVersion and Kind are the only ones this build reads.
const (
	APIVersion = "firedrill/v1"
	Kind       = "Drill"
)

// Drill is a drill's definition, as a user writes it in YAML or JSON.
type Drill struct {
	APIVersion string   `json:"apiVersion" jsonschema:"const=firedrill/v1"`
	Kind       string   `json:"kind" jsonschema:"const=Drill"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
}

// Metadata names a drill.
type Metadata struct {
	// Name is a DNS label; it becomes part of the drill's id.
	Name   string            `json:"name" jsonschema:"pattern=^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"`
	Title  string            `json:"title,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Spec is what the drill does.
type Spec struct {
	Description string `json:"description,omitempty"`
	// Participants are listed in the report.
	Participants []string `json:"participants,omitempty"`
	Targets      []Target `json:"targets" jsonschema:"minItems=1"`
	// Guards bind this drill. A pattern of its protect list that matches no part of the
	// drill's targets is refused: it would guard nothing.
	Guards Guards `json:"guards,omitempty"`
	// Seed makes the random choices repeatable; 0 lets firedrill draw one.
	Seed   int64   `json:"seed,omitempty"`
	Phases []Phase `json:"phases" jsonschema:"minItems=1"`
}

// Target is a system under drill: an entry of the operator's inventory, or a
// driver with a configuration of its own where the inventory allows that.
type Target struct {
	Name string `json:"name"`
	// Inventory names the entry of the inventory that has the driver and its
	// configuration.
	Inventory string `json:"inventory,omitempty"`
	Driver    string `json:"driver,omitempty"`
	// Config is the driver's own; it holds references to secrets, never secrets.
	Config json.RawMessage `json:"config,omitempty"`
}

// Target finds a target by its name in the drill.
func (d Drill) Target(name string) (Target, error) {
	for _, t := range d.Spec.Targets {
		if t.Name == name {
			return t, nil
		}
	}
	return Target{}, fmt.Errorf("target %q: the drill has none of this name", name)
}

// Guards are the guard rails.
type Guards struct {
	// Protect lists glob patterns of parts that no fault may hit: of IDs, or of labels
	// as key=value. In them * stands for any characters and ? for any one, slashes too.
	// Recovery and restore actions act on what they need: a protected standby can be
	// promoted.
	Protect []string `json:"protect,omitempty"`
	// MaxParts caps how many parts one fault may hit, 1 unless it says more.
	MaxParts int `json:"maxParts,omitempty"`
	// Deadline ends the drill and starts the clean-up; 0 means 1 h.
	Deadline event.Duration `json:"deadline,omitempty"`
	// Windows are the only times at which a fault may start; none means any time.
	Windows []Window `json:"windows,omitempty"`
	// Approval, if true, holds the drill after its plan until somebody approves.
	Approval bool `json:"approval,omitempty"`
}

// Window is a weekly maintenance window.
type Window struct {
	// Days are mon, tue, wed, thu, fri, sat, sun; none means every day.
	Days []string `json:"days,omitempty"`
	// From and To are "HH:MM"; To before From runs past midnight.
	From string `json:"from"`
	To   string `json:"to"`
	// Zone is an IANA time zone; empty means UTC.
	Zone string `json:"zone,omitempty"`
}

// Phase is one experiment: a steady state, faults, a recovery, checks, and the
// way back.
type Phase struct {
	Name      string    `json:"name"`
	Title     string    `json:"title,omitempty"`
	Objective Objective `json:"objective"`
	// Probes watch the targets from before the first fault to after the restore.
	Probes      []Probe     `json:"probes" jsonschema:"minItems=1"`
	SteadyState SteadyState `json:"steadyState,omitempty"`
	Faults      []Fault     `json:"faults" jsonschema:"minItems=1"`
	// Recovery are the actions that bring the system back; none means that it
	// recovers by itself.
	Recovery []Action        `json:"recovery,omitempty"`
	Stable   Stable          `json:"stable,omitempty"`
	Checks   []Check         `json:"checks,omitempty"`
	Keep     []Keep          `json:"keep,omitempty"`
	Restore  Restore         `json:"restore,omitempty"`
	Stop     []StopCondition `json:"stopConditions,omitempty"`
}

// Objective is what the phase is judged against.
type Objective struct {
	// RTO is the recovery time objective, compared with the achieved TTStable.
	RTO event.Duration `json:"rto"`
	RPO *RPO           `json:"rpo,omitempty"`
	// Availability is the least share of attempts in percent that must succeed
	// over the phase; 0 means that it is not judged.
	Availability float64 `json:"availability,omitempty" jsonschema:"minimum=0,maximum=100"`
}

// RPO is the recovery point objective. A missing part is not judged.
type RPO struct {
	// Records is how many acknowledged writes may be lost.
	Records *int64 `json:"records,omitempty" jsonschema:"minimum=0"`
	// Time is how far back the lost writes may reach.
	Time *event.Duration `json:"time,omitempty"`
}

// Probe is one kind of attempt made at a target, again and again.
type Probe struct {
	Name   string `json:"name"`
	Target string `json:"target"`
	// Probe is the driver's name for the kind of attempt, such as "write".
	Probe  string          `json:"probe"`
	Params json.RawMessage `json:"params,omitempty"`
	// Interval is the baseline distance between attempts; 0 means 100 ms.
	Interval event.Duration `json:"interval,omitempty"`
	// Burst is the distance from 3 s before the fault until stable; 0 means 10 ms.
	Burst event.Duration `json:"burst,omitempty"`
	// Fresh is the distance on the fresh-connection lane; 0 means 200 ms.
	Fresh event.Duration `json:"fresh,omitempty"`
	// Deadline is D at least; 0 means 250 ms. It is raised to 5 x the baseline's p99.
	Deadline event.Duration `json:"deadline,omitempty"`
}

// Of is params.of: in every driver the name of the write probe whose canaries a probe
// reads, at the same target. It is empty for a probe that reads none.
func (p Probe) Of() string {
	var params struct {
		Of string `json:"of"`
	}
	if json.Unmarshal(p.Params, &params) != nil {
		return ""
	}
	return params.Of
}

// SteadyState is what must hold before the first fault and after the restore.
type SteadyState struct {
	// Window is how long it must hold; 0 means 5 s.
	Window event.Duration `json:"window,omitempty"`
	// Timeout is how long firedrill waits for such a window; 0 means 1 m.
	Timeout event.Duration `json:"timeout,omitempty"`
	// MinAvailability is in percent; 0 means 100.
	MinAvailability float64 `json:"minAvailability,omitempty" jsonschema:"minimum=0,maximum=100"`
	// MaxP95 is the highest latency's 95th percentile; 0 means that it is not judged.
	MaxP95 event.Duration `json:"maxP95,omitempty"`
}

// Fault is something broken on purpose.
type Fault struct {
	Name   string `json:"name"`
	Target string `json:"target"`
	// Fault is the driver's name for it, such as "kill".
	Fault  string          `json:"fault"`
	Params json.RawMessage `json:"params,omitempty"`
	// After is the wait before it, from the end of the step before.
	After event.Duration `json:"after,omitempty"`
	// Hold is how long it lasts before it is undone; 0 means until the restore.
	// A fault with a hold is undone before the recovery actions begin.
	Hold event.Duration `json:"hold,omitempty"`
}

// Action is a recovery or restore action.
type Action struct {
	Name   string `json:"name"`
	Target string `json:"target"`
	// Action is the driver's name for it, such as "promote".
	Action string          `json:"action"`
	Params json.RawMessage `json:"params,omitempty"`
	// After is the wait before it, from the end of the step before.
	After event.Duration `json:"after,omitempty"`
}

// Stable is what counts as recovered.
type Stable struct {
	// Window is how long no attempt may be bad; 0 means 30 s.
	Window event.Duration `json:"window,omitempty"`
	// Timeout ends the wait; 0 means twice the RTO plus the window.
	Timeout event.Duration `json:"timeout,omitempty"`
}

// Check is one check of data or state.
type Check struct {
	Name   string `json:"name"`
	Target string `json:"target"`
	// Check is "ledger" or the driver's name for it.
	Check  string          `json:"check"`
	Params json.RawMessage `json:"params,omitempty"`
}

// Keep copies evidence away before the restore could destroy it, or brings a mirror
// up to date. It has From and To, or Mirror.
type Keep struct {
	Name string `json:"name"`
	// From and To are locations such as dir:/var/lib/x; {drill} in them stands
	// for the drill's id, so that one drill does not meet another one's copy.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Mirror names one of the inventory's mirrors, which is run and must leave
	// nothing undone.
	Mirror string `json:"mirror,omitempty"`
}

// Restore puts everything back. Whatever the actions leave is undone after them.
type Restore struct {
	Actions []Action `json:"actions,omitempty"`
	// Checks run when everything has been put back.
	Checks []Check `json:"checks,omitempty"`
}

// StopCondition cuts the drill short when a probe gets too bad for too long.
type StopCondition struct {
	Probe string `json:"probe"`
	// DownFor is the longest outage that is let pass.
	DownFor event.Duration `json:"downFor"`
}
