package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// The faults and actions.
const (
	FaultKill           = "kill"
	FaultFreeze         = "freeze"
	FaultStop           = "stop"
	FaultRefuse         = "refuse"
	FaultFillDisk       = "fill-disk"
	FaultCutReplication = "cut-replication"
	ActionPromote       = "promote"
	ActionRedirect      = "redirect"
	ActionFailback      = "failback"
)

// params are the parameters of any fault or action; each operation allows some.
type params struct {
	Node   string   `json:"node"`
	Mode   string   `json:"mode"`
	Users  []string `json:"users"`
	Path   string   `json:"path"`
	Bytes  int64    `json:"bytes"`
	Leave  int64    `json:"leave"`
	Max    int64    `json:"max"`
	Relay  string   `json:"relay"`
	Method string   `json:"method"`
}

// record is an undo record. It tells a fresh process what to put back where.
type record struct {
	// Undo is home, thaw, hba, file or relay.
	Undo string `json:"undo"`
	Node string `json:"node,omitempty"`
	// SystemID fences the undo: another cluster is refused.
	SystemID string `json:"system_id"`
	// Home is the node that is the primary when all is well.
	Home string `json:"home"`
	// Token marks what the fault leaves: lines, files, timers.
	Token  string `json:"token"`
	Path   string `json:"path,omitempty"`
	Relay  string `json:"relay,omitempty"`
	Method string `json:"method,omitempty"`
	// Before are the nodes that did their part when the drill's operations were
	// planned; an undo leaves every other one alone. null, from an older version,
	// means all nodes.
	Before []string `json:"before"`
	// Opens says that undoing it, also by its dead-man timer, lets a primary take
	// commits again. A promotion elsewhere disarms the timer.
	Opens bool `json:"opens,omitempty"`
}

// The kinds of undo.
const (
	undoHome  = "home"
	undoThaw  = "thaw"
	undoHBA   = "hba"
	undoFile  = "file"
	undoRelay = "relay"
)

// operation is a fault or action under way.
type operation struct {
	target.Operation
	params params
	rec    record
	node   *node
}

// operationKind is one row of the table of operations.
type operationKind struct {
	name   string
	action bool
	doc    string
	// allowed are the fields of params that it takes.
	allowed []string
	plan    func(*servers, context.Context, *operation, []view, *target.Plan) error
	do      func(*servers, context.Context, *operation) (target.Effect, error)
}

func (k operationKind) title() string { return k.name }

func operations() []operationKind {
	return []operationKind{
		{name: FaultKill, allowed: []string{"node"}, plan: (*servers).planKill, do: (*servers).kill,
			doc: "SIGKILL the whole server at one moment. params: node (the acting primary)."},
		{name: FaultFreeze, allowed: []string{"node"}, plan: (*servers).planFreeze, do: (*servers).freeze,
			doc: "SIGSTOP the whole server: connections stay open and nothing answers. params: node (the acting primary)."},
		{name: FaultStop, allowed: []string{"node", "mode"}, plan: (*servers).planStop, do: (*servers).stop,
			doc: "Stop the server in order. params: node (the acting primary), mode: fast (default) or immediate."},
		{name: FaultRefuse, allowed: []string{"node", "users"}, plan: (*servers).planRefuse, do: (*servers).refuse,
			doc: "Refuse clients by a line in pg_hba.conf and end their sessions. params: node (the acting primary), users (all that can log in, but for the admin)."},
		{name: FaultFillDisk, allowed: []string{"node", "path", "bytes", "leave", "max"}, plan: (*servers).planFill, do: (*servers).fill,
			doc: "Fill a small file system, or put a file of some size there. params: path (a directory), bytes (needed on the system's file system), leave (bytes to leave free; this or bytes is needed on the data's file system), max (refuse to write more; 4 GiB), node (the acting primary)."},
		{name: FaultCutReplication, allowed: []string{"node", "relay"}, plan: (*servers).planCut, do: (*servers).cut,
			doc: "Cut replication, by pg_hba.conf, or by pausing the relay with the control URL in params.relay. params: node (the acting primary), relay."},
		{name: ActionPromote, action: true, allowed: []string{"node"}, plan: (*servers).planPromote, do: (*servers).promoteAction,
			doc: "Promote a standby. params: node (the standby that received most)."},
		{name: ActionRedirect, action: true, allowed: []string{"node"}, plan: (*servers).planRedirect, do: (*servers).redirectAction,
			doc: "Lead clients to a node. params: node (the primary on the highest timeline that answers)."},
		{name: ActionFailback, action: true, allowed: []string{"method"}, plan: (*servers).planFailback, do: (*servers).failbackAction,
			doc: "Bring every node back to its home role: keep the old log, rebuild, catch up, switch over. params: method: rewind or basebackup (the configuration's)."},
	}
}

// NodeNames lists the nodes of a configuration, which params.node is one of. It
// gives none unless each has a name: what is wrong there is said by Check.
func (Driver) NodeNames(config json.RawMessage) []string {
	var c struct {
		Nodes []struct {
			Name string `json:"name"`
		} `json:"nodes"`
	}
	if json.Unmarshal(config, &c) != nil {
		return nil
	}
	var names []string
	for _, n := range c.Nodes {
		if n.Name == "" {
			return nil
		}
		names = append(names, n.Name)
	}
	return names
}

// readParams reads and checks an operation's parameters.
func (k operationKind) readParams(raw json.RawMessage) (params, error) {
	var p params
	if err := strict.DecodeAllowed(raw, &p, k.allowed); err != nil {
		return p, err
	}
	var ps strict.Problems
	if p.Mode != "" {
		ps.OneOf("mode", p.Mode, "fast", "immediate")
	}
	if p.Method != "" {
		ps.OneOf("method", p.Method, MethodRewind, MethodBaseBackup)
	}
	if k.name == FaultFillDisk {
		ps.Absolute("path", p.Path)
	}
	for field, v := range map[string]int64{"bytes": p.Bytes, "leave": p.Leave, "max": p.Max} {
		if v < 0 {
			ps.Add(field, fmt.Sprint(v), "give 0 or more bytes")
		}
	}
	if p.Relay != "" {
		checkURL(&ps, "relay", p.Relay)
	}
	return p, errors.Join(ps...)
}

// lookLimit bounds how long a plan waits for one node's answer.
const lookLimit = 2 * time.Second

// Plan resolves an operation. It only reads.
func (s *servers) Plan(ctx context.Context, op target.Operation) (target.Plan, error) {
	k, err := target.Named(operations(), op.Name, operationKind.title)
	if err != nil {
		return target.Plan{}, err
	}
	p, err := k.readParams(op.Params)
	if err != nil {
		return target.Plan{}, err
	}
	views, err := s.look(ctx, lookLimit)
	if err != nil {
		return target.Plan{}, s.scrub(fmt.Errorf("plan %s: %w", op.Name, err))
	}
	id, err := systemID(views)
	if err != nil {
		return target.Plan{}, fmt.Errorf("plan %s: %w", op.Name, err)
	}
	o := &operation{Operation: op, params: p, rec: record{
		Undo: undoHome, SystemID: id, Home: s.home().Name, Token: undo.Token(op.Whose(), op.Step),
	}}
	if o.rec.Before, err = s.before(ctx, op.Whose(), views); err != nil {
		return target.Plan{}, s.scrub(fmt.Errorf("plan %s: %w", op.Name, err))
	}
	var plan target.Plan
	if err := k.plan(s, ctx, o, views, &plan); err != nil {
		return target.Plan{}, s.scrub(fmt.Errorf("plan %s: %w", op.Name, err))
	}
	if plan.Undo, err = json.Marshal(o.rec); err != nil {
		return target.Plan{}, fmt.Errorf("plan %s: %w", op.Name, err)
	}
	if plan.Undoes == "" {
		plan.Undoes = s.homeSentence()
	}
	return plan, nil
}

// Do carries out a plan.
func (s *servers) Do(ctx context.Context, op target.Operation, p target.Plan) (target.Effect, error) {
	k, err := target.Named(operations(), op.Name, operationKind.title)
	if err != nil {
		return target.Effect{}, err
	}
	o := &operation{Operation: op}
	if o.params, err = k.readParams(op.Params); err != nil {
		return target.Effect{}, err
	}
	if o.rec, err = readRecord(p.Undo); err != nil {
		return target.Effect{}, fmt.Errorf("%s: the plan: %w", op.Name, err)
	}
	if o.rec.Node != "" {
		if o.node, err = s.node(o.rec.Node); err != nil {
			return target.Effect{}, err
		}
	}
	if o.node == nil && !k.action {
		return target.Effect{}, fmt.Errorf("%s: the plan names no node", op.Name)
	}
	ctx = s.withConductor(ctx, op, o.rec)
	if err := s.allowed(ctx, o, k.action); err != nil {
		return target.Effect{}, s.scrub(fmt.Errorf("%s: %w", op.Name, err))
	}
	e, err := k.do(s, ctx, o)
	if err != nil {
		return e, s.scrub(fmt.Errorf("%s: %w", op.Name, err))
	}
	return e, nil
}

// allowed refuses a node of another cluster, and a conductor that was replaced. An
// action claims all that it acts on itself.
func (s *servers) allowed(ctx context.Context, o *operation, action bool) error {
	if o.node == nil {
		return nil
	}
	claimed := make(chan error, 1)
	go func() {
		if action {
			claimed <- nil
			return
		}
		claimed <- s.claim(ctx, []*node{o.node})
	}()
	return errors.Join(s.fenceNode(ctx, o.node, o.rec.SystemID), <-claimed)
}

// Undo puts back what the record says.
func (s *servers) Undo(ctx context.Context, op target.Operation, raw json.RawMessage) (map[string]string, error) {
	r, err := readRecord(raw)
	if err != nil {
		return nil, fmt.Errorf("undo record: %w", err)
	}
	ctx = s.withConductor(ctx, op, r)
	if n, err := s.node(r.Node); err == nil {
		if err := s.claimToMend(ctx, []*node{n}); err != nil {
			return nil, s.scrub(fmt.Errorf("undo: %w", err))
		}
	}
	var j undo.Journal
	switch r.Undo {
	case undoHome:
		err = s.converge(ctx, r, &j)
	case undoThaw:
		err = s.thaw(ctx, r, &j)
	case undoHBA:
		err = s.undoRefusal(ctx, r, &j)
	case undoFile:
		err = s.undoFill(ctx, r, &j)
	case undoRelay:
		err = s.undoRelayCut(ctx, r, &j)
	default:
		err = undo.UnknownKind(r.Undo)
	}
	if err != nil {
		return j.Details(), s.scrub(fmt.Errorf("undo: %w", err))
	}
	return j.Details(), nil
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
	if r.Undo == "" || r.SystemID == "" || r.Home == "" || !undo.IsToken(r.Token) {
		return r, errors.New("incomplete: it names no kind, system identifier, home or token")
	}
	return r, nil
}

// fenceNode refuses a node that belongs to another cluster than planned.
func (s *servers) fenceNode(ctx context.Context, n *node, want string) error {
	got, err := s.systemIDOfFiles(ctx, n)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("node %s has system identifier %s, the plan was made for %s: %w", n.Name, got, want, ErrFence)
	}
	return nil
}

// choose resolves params.node, or the acting primary, into the operation.
func (s *servers) choose(o *operation, views []view) error {
	if o.params.Node != "" {
		n, err := s.node(o.params.Node)
		o.node = n
		if n != nil {
			o.rec.Node = n.Name
		}
		return err
	}
	v := acting(views)
	if v == nil {
		return noPrimary(views)
	}
	o.node, o.rec.Node = v.node, v.node.Name
	return nil
}

// noPrimary says that no node is a primary that answers, and why those that run do not.
func noPrimary(views []view) error {
	var silent []error
	for _, v := range views {
		if v.Running() && !v.Answers && v.SQLError != nil {
			silent = append(silent, fmt.Errorf("node %s runs and does not answer: %w", v.node.Name, v.SQLError))
		}
	}
	if len(silent) == 0 {
		return errors.New("no node is a primary that answers; name one in params.node")
	}
	return fmt.Errorf("no node is a primary that answers; mend this, or name one in params.node: %w", errors.Join(silent...))
}

func viewOf(views []view, n *node) view {
	for _, v := range views {
		if v.node == n {
			return v
		}
	}
	return view{node: n}
}

func part(n *node, role string) event.Part {
	return event.Part{ID: "pg:" + n.Name, Kind: "postgres-node", Labels: map[string]string{
		"role": role, "host": n.Host, "port": fmt.Sprint(n.Port),
	}}
}

func relayPart(control string) event.Part {
	return event.Part{ID: "relay:" + control, Kind: "relay", Labels: map[string]string{"role": "replication"}}
}

func (s *servers) servicePart() event.Part {
	return event.Part{ID: "service:" + s.cfg.Service.String(), Kind: "endpoint", Labels: map[string]string{"kind": s.cfg.Endpoint.Kind}}
}

// timerToken is the path of an operation's dead-man timer.
func (s *servers) timerToken(r record) string {
	if r.Opens {
		return filepath.Join(s.cfg.Failback.EvidenceDir, r.Token+opensSuffix(r.Node))
	}
	return filepath.Join(s.cfg.Failback.EvidenceDir, r.Token+".timer")
}

func (s *servers) homeSentence() string {
	return fmt.Sprintf("bring every node back to its home role: %s the primary behind the endpoint, the others streaming from it", s.home().Name)
}
