// Package target is what firedrill needs of a system under drill: four small
// roles, of which a driver plays those it can. The zero value of every
// capability is "cannot", and "cannot say" is never a pass.
package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/joined"
)

// Driver opens targets of one kind. It is stateless and safe for concurrent use.
type Driver interface {
	// Name is the driver's name in a drill, such as "postgres".
	Name() string
	// Check reads a target's configuration without touching anything. Its
	// errors are *FieldError or joined ones.
	Check(config json.RawMessage) error
	// Describe lists what targets of this kind can do, without opening one.
	Describe() Description
	// Open resolves secrets and returns the target; it need not connect.
	Open(ctx context.Context, c Config) (*Target, error)
}

// Description is a driver's catalogue, used to check drills and to document it.
type Description struct {
	Faults  []OperationInfo
	Actions []OperationInfo
	Probes  []OperationInfo
	Checks  []OperationInfo
	// Sample is a complete configuration with comments, in YAML.
	Sample string
}

// OperationInfo describes one fault, action, probe or check.
type OperationInfo struct {
	Name string
	Doc  string
	// CheckParams reads the operation's parameters without touching anything;
	// nil means that it takes none.
	CheckParams func(json.RawMessage) error
	// NeedsBaseline is for checks that compare with the state before the fault.
	NeedsBaseline bool
	// Writes is for probes whose attempts are canary writes with a ledger.
	Writes bool
}

// Find finds an operation by name.
func Find(ops []OperationInfo, name string) (OperationInfo, bool) {
	i := slices.IndexFunc(ops, func(o OperationInfo) bool { return o.Name == name })
	if i < 0 {
		return OperationInfo{}, false
	}
	return ops[i], true
}

// Config is what Open gets.
type Config struct {
	// Name is the target's name in the drill.
	Name string
	// Raw is the driver's own configuration.
	Raw json.RawMessage
	// Clock stamps effects; it is the process's system clock.
	Clock Clock
	Log   *slog.Logger
}

// Clock reads the machine's clocks.
type Clock interface {
	Now() event.Reading
}

// Target is an open target: its roles, nil where it cannot play one. Roles are
// safe for concurrent use. Close waits for nothing and may be called once.
type Target struct {
	// Driver opened the target; Registry.Open sets it.
	Driver   Driver
	Injector Injector
	Observer Observer
	Checker  Checker
	Evidence Evidence
	Identity Identity
	Close    func() error
}

// Identity tells which system a target is, however it is called and reached: two
// configurations of one PostgreSQL cluster have one identity. Two drills must not
// run on one system, so every driver that injects has it.
type Identity interface {
	// Identify returns a short text that is the same for every configuration of
	// this system, and of no other one. It only reads, and answers as long as any
	// part of the system, running or not, can be asked. An error means that it
	// cannot be said now; a guess is never returned.
	Identify(ctx context.Context) (string, error)
}

// Operation is one fault or action as the drill asks for it.
type Operation struct {
	// Drill and Step say on whose behalf, for names that must be found again.
	Drill string
	Step  string
	// Run tells drills of one id apart: each event store counts its own, and a store may
	// be made anew. One word; the same for all of a drill's operations.
	Run string
	// Name is the driver's name of the fault or action.
	Name   string
	Params json.RawMessage
	// Hold is how long a fault is to last at most; 0 means until undone. The
	// dead-man timer of a fault is set from it.
	Hold time.Duration
	// Limit is the latest time after which the target must have undone the
	// fault by itself, where it can: the rest of the drill's deadline.
	Limit time.Duration
	// Seed feeds random choices.
	Seed int64
	// Fence is the lease's epoch; it rises with each takeover.
	Fence int64
	// CanariesToCome says, to Plan alone, that the drill's canaries are not there yet and
	// will be: the whole drill is planned before its probes begin, and each fault once more
	// when it is its turn.
	CanariesToCome bool
}

// Whose is what the operation's drill is called where those of other event stores may have
// acted before.
func (o Operation) Whose() string {
	if o.Run == "" {
		return o.Drill
	}
	return o.Drill + "." + o.Run
}

// Injector injects faults, takes recovery actions and undoes both.
type Injector interface {
	// Survey looks at the whole target before a drill breaks anything there, and only
	// reads. Its error, of *FieldError and other ones joined, is all that would keep the
	// operations, or undoing them, from being done: programs that are missing, passwords
	// that do not let in, a service that does not answer. It may take seconds, so it is
	// made while the drill is planned or its steady state watched, never right before
	// a fault. What it found is returned along with an error.
	Survey(ctx context.Context, ops []Operation) (Survey, error)
	// Plan resolves what the operation would hit and how it would be undone. It
	// only reads. The plan is stored before Do is called.
	Plan(ctx context.Context, op Operation) (Plan, error)
	// Do carries out the operation as planned and proves it. Faults are never
	// repeated; actions are idempotent. An error means that the effect may be
	// there in part: the caller undoes it.
	Do(ctx context.Context, op Operation, p Plan) (Effect, error)
	// Undo puts back what the record describes. It is idempotent, may be called
	// by another process than Do, in any state the target may be in, and after a
	// dead-man timer has already fired. It returns what it did, for people.
	Undo(ctx context.Context, op Operation, undo json.RawMessage) (map[string]string, error)
}

// Plan is a resolved operation.
type Plan struct {
	Parts []event.Part
	// Does are sentences, in order, of what Do will do.
	Does []string
	// Undo is the undo record, nil when there is nothing to undo; no secrets.
	Undo json.RawMessage
	// Undoes says in a sentence what undoing will do.
	Undoes string
	// DeadMan is when the target undoes the fault by itself; 0 means that it cannot.
	DeadMan time.Duration
}

// Effect is what an operation did.
type Effect struct {
	// Began was read before the first action, Ended after the last.
	Began   event.Reading
	Ended   event.Reading
	Proof   event.Proof
	Details map[string]string
}

// Lanes of a probe.
const (
	LanePooled = "pooled"
	LaneFresh  = "fresh"
)

// ProbeSpec asks for one lane of a probe.
type ProbeSpec struct {
	Drill string
	// Probe is the driver's name of the probe; Name the drill's.
	Probe  string
	Name   string
	Lane   string
	Params json.RawMessage
	// Epoch keeps the canaries of one observer claim apart from the next one's.
	Epoch int64
	// Deadline is the longest an attempt may take.
	Deadline time.Duration
}

// Ledger names the canaries of this lane in the target: unique to drill, probe,
// lane and epoch.
func (s ProbeSpec) Ledger() string {
	return fmt.Sprintf("%s/%s/%s/%d", s.Drill, s.Name, s.Lane, s.Epoch)
}

// Observer makes attempts at the service as its users would.
type Observer interface {
	// OpenProbe prepares a lane (its canary table, say); idempotent. With an Epoch above
	// 1 it must not need the service, which may be down in the middle of a drill: that is
	// for the attempts to say.
	OpenProbe(ctx context.Context, s ProbeSpec) (Probe, error)
	// ReadLedger returns the canaries numbered up to upTo that the target holds.
	// It must read what a client would read after recovery, not a cache.
	ReadLedger(ctx context.Context, s ProbeSpec, upTo int64) (Held, error)
	// DropLedgers removes every canary of the drills; idempotent.
	DropLedgers(ctx context.Context, drills ...string) error
}

// Held is what a target holds of a ledger.
type Held struct {
	Present event.Ranges
	// Duplicates maps a number to how often it was found, where more than once.
	Duplicates map[int64]int64
}

// Outcome letters of an attempt, as in event.ProbeBatch.
const (
	OK      byte = 'k'
	Failed  byte = 'f'
	Unknown byte = 'u'
	Skipped byte = 's'
	// Unsent is an attempt that the probe itself held back, with nothing sent, so as not to
	// ask more of a service that owes answers. It is as bad to its users as one that
	// failed, and says nothing of when the service was back.
	Unsent byte = 'n'
)

// Probe is one lane. Attempt is called concurrently, with rising numbers.
type Probe interface {
	// Attempt makes one attempt, never retried, over by the context's deadline.
	// A write whose fate is not known is Unknown, not Failed. After one that was not OK
	// those that begin later make new connections: what a pooled lane kept may lead to
	// a server that is gone.
	Attempt(ctx context.Context, seq int64) Outcome
	Close() error
}

// Outcome is what an attempt came to.
type Outcome struct {
	Result byte
	// Observed is, for reads, the highest canary seen.
	Observed int64
	// Connected says that it asked by a connection that was begun no earlier than the
	// attempt was, or got none: it then speaks for the server that clients were led to in
	// its own time. What does not say so may have met an old one.
	Connected bool
	// Asked is how long after the attempt's start it asked: sent its statement or request,
	// once it had a connection. 0 where it asked at once, or only for a connection.
	Asked time.Duration
	// Err says why it was not OK; its text is cleaned of secrets by the driver.
	Err error
}

// CheckSpec asks for one check.
type CheckSpec struct {
	Drill  string
	Step   string
	Check  string
	Name   string
	Params json.RawMessage
}

// Checker checks the target's data and state.
type Checker interface {
	// Baseline records what the check compares with later, before the fault.
	Baseline(ctx context.Context, s CheckSpec) (json.RawMessage, error)
	// Check gives one result for each property. What cannot be decided is
	// inconclusive; an error means that the check itself could not be made.
	Check(ctx context.Context, s CheckSpec, baseline json.RawMessage) ([]event.Property, error)
}

// Evidence collects what a person would look at after a failure: states, log
// tails, settings. It returns what it could get, along with the error.
type Evidence interface {
	Collect(ctx context.Context) ([]event.Artifact, error)
}

// ErrUnsupported is returned for an operation that the driver does not know.
var ErrUnsupported = errors.New("not supported by this driver")

// FieldError is a mistake in a configuration: which field, what value, what to do.
type FieldError struct {
	// Field is a path such as "nodes[1].port".
	Field string
	Value string
	Fix   string
}

// Error names the field, the value and the fix.
func (e *FieldError) Error() string {
	if e.Value == "" {
		return e.Field + ": " + e.Fix
	}
	return fmt.Sprintf("%s: %q: %s", e.Field, e.Value, e.Fix)
}

// FieldProblem gives the parts, so that a drill's check can put the field where
// it stands in the drill.
func (e *FieldError) FieldProblem() (field, value, fix string) { return e.Field, e.Value, e.Fix }

// SecretRef points at a secret. Exactly one field is set.
type SecretRef struct {
	Env  string `json:"env,omitempty"`
	File string `json:"file,omitempty"`
}

// IsZero reports whether no secret is referred to.
func (r SecretRef) IsZero() bool { return r.Env == "" && r.File == "" }

// Resolve reads the secret. Errors name the reference, never the value.
func (r SecretRef) Resolve() (string, error) {
	switch {
	case r.Env != "" && r.File != "":
		return "", &FieldError{Field: "secret", Fix: "set either env or file, not both"}
	case r.Env != "":
		v, ok := os.LookupEnv(r.Env)
		if !ok {
			return "", &FieldError{Field: "env", Value: r.Env, Fix: "the environment variable is not set in this process"}
		}
		return v, nil
	case r.File != "":
		b, err := os.ReadFile(r.File)
		if err != nil {
			return "", fmt.Errorf("secret file: %w", err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	return "", nil
}

// IsPermanent reports whether trying again what ended with an error can do no better as
// things stand. The error, or one in it, says so by a method Permanent; all others may be
// transient. Of several that were joined, each must say so: where one of several ways may
// open, trying again can do better. Of several that one error puts into words of its own,
// such as its kind and its cause, those must that say anything.
func IsPermanent(err error) bool {
	says, permanent := permanence(err)
	return says && permanent
}

func permanence(err error) (says, permanent bool) {
	permanent = true
	for leaf := range joined.Leaves(err) {
		s, p := permanenceOfOne(leaf)
		says, permanent = says || s, permanent && s && p
	}
	return says, permanent
}

// permanenceOfOne is permanence of an error that is no join.
func permanenceOfOne(err error) (says, permanent bool) {
	permanent = true
	switch e := err.(type) {
	case interface{ Permanent() bool }:
		return true, e.Permanent()
	case interface{ Unwrap() error }:
		return permanence(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			if s, p := permanence(part); s {
				says, permanent = true, permanent && p
			}
		}
	}
	return says, permanent
}
