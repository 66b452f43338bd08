package zfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// The faults and actions.
const (
	FaultCorruptVdev = "corrupt-vdev"
	FaultOfflineVdev = "offline-vdev"
	ActionScrub      = "scrub"
	ActionOnline     = "online"
)

// ErrFence is returned for a pool other than the planned one.
var ErrFence = errors.New("not the pool that was planned for")

// params are the parameters of any fault or action; each operation allows some.
type params struct {
	Vdev string `json:"vdev"`
	File string `json:"file"`
	// Canaries is how many canaries are damaged at most.
	Canaries int64 `json:"canaries"`
}

const (
	defaultCanaries = 8
	maxCanaries     = 64
)

// record is an undo record. It tells a fresh process what to put back where.
type record struct {
	// Undo is scrub, online or nothing.
	Undo string `json:"undo"`
	Pool string `json:"pool"`
	// GUID is the pool's, and fences the undo: another pool is refused.
	GUID string `json:"guid"`
	// Token marks what the fault leaves: a timer, and the marker's first line.
	Token string `json:"token"`
	Vdev  string `json:"vdev"`
	// Spots are what a fault damages.
	Spots []spot `json:"spots,omitempty"`
}

// The kinds of undo.
const (
	undoScrub   = "scrub"
	undoOnline  = "online"
	undoNothing = "nothing"
)

// operation is a fault or action under way.
type operation struct {
	target.Operation
	params params
	rec    record
	fence  control.Fence
}

// operationKind is one row of the table of operations.
type operationKind struct {
	name   string
	action bool
	doc    string
	// allowed are the fields of params that it takes.
	allowed []string
	plan    func(*pool, context.Context, *operation, *target.Plan) error
	do      func(*pool, context.Context, *operation) (target.Effect, error)
}

func (k operationKind) title() string { return k.name }

func operations() []operationKind {
	return []operationKind{
		{name: FaultCorruptVdev, allowed: []string{"vdev", "file", "canaries"}, plan: (*pool).planCorrupt, do: (*pool).corrupt,
			doc: "Invert blocks of canaries on one disk of a mirror behind ZFS's back. params: canaries (how many at most, chosen by the seed; 8), file (below the target's breakableFiles, instead of canaries), vdev (the first of the target's breakableVdevs)."},
		{name: FaultOfflineVdev, allowed: []string{"vdev"}, plan: (*pool).planOffline, do: (*pool).offline,
			doc: "Take one disk of a mirror away from the pool, by zpool offline. params: vdev (the first of the target's breakableVdevs)."},
		{name: ActionScrub, action: true, allowed: []string{"vdev"}, plan: (*pool).planScrub, do: (*pool).scrub,
			doc: "Scrub the pool and wait until it is over, then clear the disk's count of errors if everything was repaired. params: vdev (the first of the target's breakableVdevs)."},
		{name: ActionOnline, action: true, allowed: []string{"vdev"}, plan: (*pool).planOnline, do: (*pool).online,
			doc: "Bring a disk back by zpool online unless it is, and wait until it is resilvered. params: vdev (the first of the target's breakableVdevs)."},
	}
}

// readParams reads and checks an operation's parameters.
func (k operationKind) readParams(raw json.RawMessage) (params, error) {
	var p params
	if err := strict.DecodeAllowed(raw, &p, k.allowed); err != nil {
		return p, err
	}
	var ps strict.Problems
	if p.File != "" && !canary.CleanName(p.File) {
		ps.Add("file", p.File, "give the path of one file from the dataset's root, without empty parts, . and ..")
	}
	if p.File != "" && p.Canaries != 0 {
		ps.Add("canaries", strconv.FormatInt(p.Canaries, 10), "leave it out, or file")
	}
	if p.Canaries < 0 || p.Canaries > maxCanaries {
		ps.Add("canaries", strconv.FormatInt(p.Canaries, 10), fmt.Sprintf("give 1 to %d, or leave it out", maxCanaries))
	}
	if p.Canaries == 0 {
		p.Canaries = defaultCanaries
	}
	return p, errors.Join(ps...)
}

// Plan resolves an operation. It only reads.
func (p *pool) Plan(ctx context.Context, op target.Operation) (target.Plan, error) {
	k, err := target.Named(operations(), op.Name, operationKind.title)
	if err != nil {
		return target.Plan{}, err
	}
	o := &operation{Operation: op}
	if o.params, err = k.readParams(op.Params); err != nil {
		return target.Plan{}, err
	}
	vdev, err := p.breakable(o.params.Vdev)
	if err != nil {
		return target.Plan{}, err
	}
	var plan target.Plan
	if err := p.resolve(ctx, k, o, vdev, &plan); err != nil {
		return target.Plan{}, fmt.Errorf("plan %s: %w", op.Name, err)
	}
	return plan, nil
}

// breakable is a disk by its path, if a drill may break it.
func (p *pool) breakable(vdev string) (string, error) {
	switch {
	case vdev == "":
		return p.cfg.BreakableVdevs[0], nil
	case !slices.Contains(p.cfg.BreakableVdevs, vdev):
		return "", &target.FieldError{Field: "params.vdev", Value: vdev, Fix: "use one of the target's breakableVdevs: " + strings.Join(p.cfg.BreakableVdevs, ", ")}
	}
	return vdev, nil
}

func (p *pool) resolve(ctx context.Context, k operationKind, o *operation, vdev string, plan *target.Plan) error {
	guid, err := p.guid(ctx)
	if err != nil {
		return err
	}
	o.rec = record{Undo: undoNothing, Pool: p.cfg.Pool, GUID: guid, Token: undo.Token(o.Whose(), o.Step), Vdev: vdev}
	plan.Parts = []event.Part{p.part(vdev)}
	if err := k.plan(p, ctx, o, plan); err != nil {
		return err
	}
	plan.Undo, err = json.Marshal(o.rec)
	return err
}

// Do carries out a plan.
func (p *pool) Do(ctx context.Context, op target.Operation, plan target.Plan) (target.Effect, error) {
	k, err := target.Named(operations(), op.Name, operationKind.title)
	if err != nil {
		return target.Effect{}, err
	}
	o, err := p.operation(op, plan.Undo)
	if err != nil {
		return target.Effect{}, fmt.Errorf("%s: the plan: %w", op.Name, err)
	}
	if o.params, err = k.readParams(op.Params); err != nil {
		return target.Effect{}, err
	}
	if err := p.allowed(ctx, o); err != nil {
		return target.Effect{}, fmt.Errorf("%s: %w", op.Name, err)
	}
	e, err := k.do(p, ctx, o)
	if err != nil {
		return e, fmt.Errorf("%s: %w", op.Name, err)
	}
	return e, nil
}

// operation is what a record describes, on behalf of the operation's conductor.
func (p *pool) operation(op target.Operation, raw json.RawMessage) (*operation, error) {
	r, err := readRecord(raw)
	if err != nil {
		return nil, err
	}
	if r.Pool != p.cfg.Pool {
		return nil, fmt.Errorf("it is for pool %s, not for %s: %w", r.Pool, p.cfg.Pool, ErrFence)
	}
	if _, err := p.breakable(r.Vdev); err != nil {
		return nil, err
	}
	return &operation{Operation: op, rec: r, fence: p.machine().Fence(op)}, nil
}

// allowed refuses another pool under the same name, and a conductor that was
// replaced. It records the conductor on the pool's machine.
func (p *pool) allowed(ctx context.Context, o *operation) error {
	if err := p.same(ctx, o.rec); err != nil {
		return err
	}
	return p.machine().Claim(ctx, o.Operation)
}

func (p *pool) same(ctx context.Context, r record) error {
	guid, err := p.guid(ctx)
	if err == nil && guid != r.GUID {
		err = fmt.Errorf("pool %s is %s, the plan was made for %s: %w", p.cfg.Pool, guid, r.GUID, ErrFence)
	}
	return err
}

// Undo puts back what the record says.
func (p *pool) Undo(ctx context.Context, op target.Operation, raw json.RawMessage) (map[string]string, error) {
	o, err := p.operation(op, raw)
	if err != nil {
		return nil, fmt.Errorf("undo record: %w", err)
	}
	var j undo.Journal
	if err = p.undo(ctx, o, &j); err != nil {
		err = fmt.Errorf("undo: %w", err)
	}
	return j.Details(), err
}

func (p *pool) undo(ctx context.Context, o *operation, j *undo.Journal) error {
	if o.rec.Undo == undoNothing {
		return nil
	}
	if o.rec.Undo != undoScrub && o.rec.Undo != undoOnline {
		return undo.UnknownKind(o.rec.Undo)
	}
	if err := p.same(ctx, o.rec); err != nil {
		return err
	}
	if err := p.machine().ClaimToMend(ctx, o.Operation); err != nil {
		return err
	}
	if err := p.runMend(ctx, o, o.rec.Undo, j); err != nil {
		return err // a timer stays armed: it is what is left
	}
	return p.machine().Disarm(ctx, o.rec.Token)
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
	if r.Undo == "" || r.Pool == "" || r.GUID == "" || r.Vdev == "" || !undo.IsToken(r.Token) {
		return r, errors.New("incomplete: it names no kind, pool, vdev or token")
	}
	if r.Undo == undoScrub && len(r.Spots) == 0 {
		return r, errors.New("incomplete: it names nothing that was damaged")
	}
	for _, s := range r.Spots {
		if !s.valid() {
			return r, fmt.Errorf("it names %d bytes at %d, which a fault does not damage", s.Bytes, s.At)
		}
	}
	return r, nil
}
