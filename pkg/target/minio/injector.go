package minio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// The faults and actions.
const (
	FaultKill          = "kill"
	FaultFreeze        = "freeze"
	FaultStop          = "stop"
	FaultFillDisk      = "fill-disk"
	FaultReadOnly      = "read-only"
	FaultDeleteObject  = "delete-object"
	FaultCorruptObject = "corrupt-object"
	ActionStart        = "start"
)

// ErrFence is returned for a node that belongs to another deployment than planned.
var ErrFence = errors.New("not the store that was planned for")

// params are the parameters of any fault or action; each operation allows some.
type params struct {
	Node  string `json:"node"`
	Drive string `json:"drive"`
	Key   string `json:"key"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Leave int64  `json:"leave"`
	Max   int64  `json:"max"`
}

// record is an undo record. It tells a fresh process what to put back where.
type record struct {
	// Undo is start, thaw, file, policy or object.
	Undo string `json:"undo"`
	Node string `json:"node"`
	// Deployment fences the undo: another store is refused.
	Deployment string `json:"deployment"`
	// Token marks what the fault leaves: files, policies, timers.
	Token string `json:"token"`
	Path  string `json:"path,omitempty"`
	// Object is what a fault removes or damages.
	Object *object `json:"object,omitempty"`
	// User is who loses rights, Policies what it had: the text of the server.
	User     string  `json:"user,omitempty"`
	Policies *string `json:"policies,omitempty"`
}

// The kinds of undo.
const (
	undoStart  = "start"
	undoThaw   = "thaw"
	undoFile   = "file"
	undoPolicy = "policy"
	undoObject = "object"
	// undoNothing is of a fault that was planned before there was anything to break.
	undoNothing = "nothing"
)

// operation is a fault or action under way.
type operation struct {
	target.Operation
	params params
	rec    record
	node   *node
	// machine is the node's, and fence its conductor's there.
	machine undo.Machine
	fence   control.Fence
}

// operationKind is one row of the table of operations.
type operationKind struct {
	name   string
	action bool
	doc    string
	// allowed are the fields of params that it takes.
	allowed []string
	plan    func(*store, context.Context, *operation, *target.Plan) error
	do      func(*store, context.Context, *operation) (target.Effect, error)
}

func (k operationKind) title() string { return k.name }

func operations() []operationKind {
	return []operationKind{
		{name: FaultKill, allowed: []string{"node"}, plan: (*store).planKill, do: (*store).kill,
			doc: "SIGKILL the server. params: node (the first)."},
		{name: FaultFreeze, allowed: []string{"node"}, plan: (*store).planFreeze, do: (*store).freeze,
			doc: "SIGSTOP the server: connections stay open and nothing answers. params: node (the first)."},
		{name: FaultStop, allowed: []string{"node"}, plan: (*store).planStop, do: (*store).stop,
			doc: "Stop the server in order, by the node's stop command or SIGTERM. params: node (the first)."},
		{name: FaultFillDisk, allowed: []string{"node", "path", "bytes", "leave", "max"}, plan: (*store).planFill, do: (*store).fill,
			doc: "Fill a small file system, or put a file of some size there. params: path (a directory), bytes (needed on the system's file system), leave (bytes to leave free; this or bytes is needed on a drive's file system), max (refuse to write more; 4 GiB), node (the first)."},
		{name: FaultReadOnly, plan: (*store).planReadOnly, do: (*store).readOnly,
			doc: "Deny the probes' user to write to the bucket, by a policy of its own."},
		{name: FaultDeleteObject, allowed: []string{"node", "drive", "key"}, plan: (*store).planObject, do: (*store).deleteObject,
			doc: "Remove an object from a drive behind the server's back. params: key (a canary of the drill, chosen by the seed), node (the first), drive (its first)."},
		{name: FaultCorruptObject, allowed: []string{"node", "drive", "key"}, plan: (*store).planObject, do: (*store).corruptObject,
			doc: "Change bytes of an object on a drive behind the server's back. params: key (a canary of the drill, chosen by the seed), node (the first), drive (its first)."},
		{name: ActionStart, action: true, allowed: []string{"node"}, plan: (*store).planStart, do: (*store).startAction,
			doc: "Start the server if it does not run, and wait until it is healthy. params: node (the first)."},
	}
}

// readParams reads and checks an operation's parameters.
func (k operationKind) readParams(raw json.RawMessage) (params, error) {
	var p params
	if err := strict.DecodeAllowed(raw, &p, k.allowed); err != nil {
		return p, err
	}
	var ps strict.Problems
	if k.name == FaultFillDisk {
		ps.Absolute("path", p.Path)
	}
	if p.Key != "" && !canary.CleanName(p.Key) {
		ps.Add("key", p.Key, "give the key of one object, without empty parts, . and ..")
	}
	for _, f := range []struct {
		field string
		v     int64
	}{{"bytes", p.Bytes}, {"leave", p.Leave}, {"max", p.Max}} {
		if f.v < 0 {
			ps.Add(f.field, strconv.FormatInt(f.v, 10), "give 0 or more bytes")
		}
	}
	return p, errors.Join(ps...)
}

// Plan resolves an operation. It only reads.
func (s *store) Plan(ctx context.Context, op target.Operation) (target.Plan, error) {
	k, err := target.Named(operations(), op.Name, operationKind.title)
	if err != nil {
		return target.Plan{}, err
	}
	p, err := k.readParams(op.Params)
	if err != nil {
		return target.Plan{}, err
	}
	o := &operation{Operation: op, params: p, node: s.nodes[0]}
	if p.Node != "" {
		if o.node, err = s.node(p.Node); err != nil {
			return target.Plan{}, err
		}
	}
	var plan target.Plan
	if err := s.resolve(ctx, k, o, &plan); err != nil {
		return target.Plan{}, s.scrub(fmt.Errorf("plan %s: %w", op.Name, err))
	}
	return plan, nil
}

func (s *store) resolve(ctx context.Context, k operationKind, o *operation, plan *target.Plan) (err error) {
	o.rec = record{Undo: undoStart, Node: o.node.Name, Token: undo.Token(o.Whose(), o.Step)}
	if o.rec.Deployment, err = s.deployment(ctx, o.node); err != nil {
		return err
	}
	if err := k.plan(s, ctx, o, plan); err != nil {
		return err
	}
	plan.Undo, err = json.Marshal(o.rec)
	return err
}

// Do carries out a plan.
func (s *store) Do(ctx context.Context, op target.Operation, p target.Plan) (target.Effect, error) {
	k, err := target.Named(operations(), op.Name, operationKind.title)
	if err != nil {
		return target.Effect{}, err
	}
	o, err := s.operation(op, p.Undo)
	if err != nil {
		return target.Effect{}, fmt.Errorf("%s: the plan: %w", op.Name, err)
	}
	if o.params, err = k.readParams(op.Params); err != nil {
		return target.Effect{}, err
	}
	if err := s.allowed(ctx, o); err != nil {
		return target.Effect{}, s.scrub(fmt.Errorf("%s: %w", op.Name, err))
	}
	e, err := k.do(s, ctx, o)
	if err != nil {
		return e, s.scrub(fmt.Errorf("%s: %w", op.Name, err))
	}
	return e, nil
}

// operation is what a record describes, on behalf of the operation's conductor.
func (s *store) operation(op target.Operation, raw json.RawMessage) (*operation, error) {
	r, err := readRecord(raw)
	if err != nil {
		return nil, err
	}
	n, err := s.node(r.Node)
	if err != nil {
		return nil, err
	}
	m := s.machine(n)
	return &operation{Operation: op, rec: r, node: n, machine: m, fence: m.Fence(op)}, nil
}

// allowed refuses a node of another store, and a conductor that was replaced. It
// records the conductor on the node's machine.
func (s *store) allowed(ctx context.Context, o *operation) error {
	got, err := s.deployment(ctx, o.node)
	if err != nil {
		return err
	}
	if got != o.rec.Deployment {
		return fmt.Errorf("node %s belongs to deployment %s, the plan was made for %s: %w", o.node.Name, got, o.rec.Deployment, ErrFence)
	}
	return o.machine.Claim(ctx, o.Operation)
}

// Undo puts back what the record says.
func (s *store) Undo(ctx context.Context, op target.Operation, raw json.RawMessage) (map[string]string, error) {
	o, err := s.operation(op, raw)
	if err != nil {
		return nil, fmt.Errorf("undo record: %w", err)
	}
	var j undo.Journal
	if err = s.undo(ctx, o, &j); err != nil {
		err = s.scrub(fmt.Errorf("undo: %w", err))
	}
	return j.Details(), err
}

func (s *store) undo(ctx context.Context, o *operation, j *undo.Journal) error {
	if o.rec.Undo == undoNothing {
		return nil
	}
	got, err := s.deployment(ctx, o.node)
	if err != nil {
		return err
	}
	if got != o.rec.Deployment {
		return fmt.Errorf("node %s belongs to deployment %s, the record to %s: %w", o.node.Name, got, o.rec.Deployment, ErrFence)
	}
	if err := o.machine.ClaimToMend(ctx, o.Operation); err != nil {
		return err
	}
	switch o.rec.Undo {
	case undoStart:
		err = s.ensureRunning(ctx, o, j)
	case undoThaw:
		err = s.thaw(ctx, o, j)
	case undoFile:
		err = s.undoFill(ctx, o, j)
	case undoPolicy:
		err = s.undoReadOnly(ctx, o, j)
	case undoObject:
		err = s.putBack(ctx, o, j)
	default:
		err = undo.UnknownKind(o.rec.Undo)
	}
	if err != nil {
		return err // a timer stays armed: it is what is left
	}
	return o.machine.Disarm(ctx, o.rec.Token)
}

// readRecord takes records of newer versions too: fields that it does not know
// are ignored, a kind that it does not know is refused by whoever acts on it.
func readRecord(raw json.RawMessage) (record, error) {
	var r record
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &r); err != nil {
			return r, err
		}
	}
	if r.Undo == "" || r.Node == "" || r.Deployment == "" || !undo.IsToken(r.Token) {
		return r, errors.New("incomplete: it names no kind, node, deployment or token")
	}
	return r, nil
}

// part is a node as the operation hits it.
func (s *store) part(n *node, labels ...string) event.Part {
	l := map[string]string{"host": n.Host, "port": strconv.Itoa(int(n.Port)), "bucket": s.cfg.Bucket}
	for i := 0; i+1 < len(labels); i += 2 {
		l[labels[i]] = labels[i+1]
	}
	return event.Part{ID: "minio:" + n.Name, Kind: "minio-node", Labels: l}
}
