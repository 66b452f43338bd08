package event

import "encoding/json"

// FaultIntended is stored before a fault: whoever takes over can undo it.
type FaultIntended struct {
	Effect
	// Hold is how long the fault is to last; 0 means until it is undone.
	Hold Duration `json:"hold,omitempty"`
	// DeadMan is when the target undoes it by itself; 0 means it cannot.
	DeadMan Duration `json:"dead_man,omitempty"`
}

// Effect is what an intent says about a fault, an action or an undo.
type Effect struct {
	Step      string `json:"step"`
	Target    string `json:"target"`
	Operation string `json:"operation"`
	// Epoch is the lease under which the effect may be carried out.
	Epoch int64  `json:"epoch"`
	Parts []Part `json:"parts,omitempty"`
	// Undo is the driver's undo record: enough for a fresh process to put things
	// back, and free of secrets. Empty when there is nothing to undo.
	Undo json.RawMessage `json:"undo,omitempty"`
}

// FaultInjected says that the fault took effect, and when.
type FaultInjected struct {
	Step string `json:"step"`
	// F0 was read before the first action, F1 after the last (facts: "Fault [f0,f1]").
	F0    Reading `json:"f0"`
	F1    Reading `json:"f1"`
	Proof Proof   `json:"proof"`
}

// Proof is the evidence that a fault really took effect. Without it the
// measurement is INVALID.
type Proof struct {
	Proven       bool     `json:"proven"`
	How          string   `json:"how"`
	Observations []string `json:"observations,omitempty"`
}

// FaultFailed says that the fault could not be carried out, or that nobody
// knows whether it was.
type FaultFailed struct {
	Step   string `json:"step"`
	Reason string `json:"reason"`
	// Unknown is true when the injector that intended it died meanwhile.
	Unknown bool `json:"unknown,omitempty"`
}

// ActionIntended is stored before a recovery or restore action. Actions are
// idempotent: whoever takes over repeats one without an outcome.
type ActionIntended struct {
	Effect
}

// ActionDone says that an action succeeded.
type ActionDone struct {
	Step    string            `json:"step"`
	Began   Reading           `json:"began"`
	Ended   Reading           `json:"ended"`
	Details map[string]string `json:"details,omitempty"`
}

// ActionFailed says that an action failed.
type ActionFailed struct {
	Step   string `json:"step"`
	Reason string `json:"reason"`
}

// UndoIntended is stored before the undo of a step.
type UndoIntended struct {
	Step  string `json:"step"`
	Epoch int64  `json:"epoch"`
	// Try counts the undo's tries from 1.
	Try int `json:"try"`
}

// UndoDone says that a step's effect is gone.
type UndoDone struct {
	Step    string            `json:"step"`
	Began   Reading           `json:"began"`
	Ended   Reading           `json:"ended"`
	Details map[string]string `json:"details,omitempty"`
}

// UndoFailed says that one try to undo failed.
type UndoFailed struct {
	Step   string `json:"step"`
	Try    int    `json:"try"`
	Reason string `json:"reason"`
	// Permanent is true when another try could do no better as things stand: a program
	// that is missing, a permission that is denied. There is none then.
	Permanent bool `json:"permanent,omitempty"`
}

// UndoWaived says that a step is not going to be undone: somebody says that it was seen
// to by hand. Nothing has shown that its effect is gone.
type UndoWaived struct {
	Step string `json:"step"`
	// By and Reason are whose word that is, and what for.
	By     string `json:"by"`
	Reason string `json:"reason"`
}
