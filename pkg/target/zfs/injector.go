package zfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
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

func operationNamed(name string) (operationKind, error) {
	for _, k := range operations() {
		if k.name == name {
			return k, nil
		}
	}
	return operationKind{}, fmt.Errorf("operation %q: %w; see the driver's README", name, target.ErrUnsupported)
}

// readParams reads and checks an operation's parameters.
func (k operationKind) readParams(raw json.RawMessage) (params, error) {
	var p params
	if err := strict.Decode(raw, &p); err != nil {
		return p, err
	}
	if err := strict.OnlyAllowed(raw, k.allowed); err != nil {
		return p, err
	}
	var ps strict.Problems
	if p.File != "" && !cleanName(p.File) {
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
	k, err := operationNamed(op.Name)
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
	o.rec = record{Undo: undoNothing, Pool: p.cfg.Pool, GUID: guid, Token: token(o.Drill, o.Step), Vdev: vdev}
	plan.Parts = []event.Part{{ID: "zfs:" + p.cfg.Pool + ":" + vdev, Kind: "zfs-vdev", Labels: map[string]string{"pool": p.cfg.Pool, "dataset": p.cfg.Dataset, "vdev": vdev}}}
	if err := k.plan(p, ctx, o, plan); err != nil {
		return err
	}
	plan.Undo, err = json.Marshal(o.rec)
	return err
}

// Do carries out a plan.
func (p *pool) Do(ctx context.Context, op target.Operation, plan target.Plan) (target.Effect, error) {
	k, err := operationNamed(op.Name)
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
func (p *pool) operation(op target.Operation, undo json.RawMessage) (*operation, error) {
	r, err := readRecord(undo)
	if err != nil {
		return nil, err
	}
	if r.Pool != p.cfg.Pool {
		return nil, fmt.Errorf("it is for pool %s, not for %s: %w", r.Pool, p.cfg.Pool, ErrFence)
	}
	if _, err := p.breakable(r.Vdev); err != nil {
		return nil, err
	}
	return &operation{Operation: op, rec: r, fence: control.Fence{Dir: p.cfg.StateDir, Name: op.Drill, Epoch: op.Fence}}, nil
}

// allowed refuses another pool under the same name, and a conductor that was
// replaced. It records the conductor on the pool's machine.
func (p *pool) allowed(ctx context.Context, o *operation) error {
	if err := p.same(ctx, o.rec); err != nil {
		return err
	}
	return p.claim(ctx, o)
}

func (p *pool) same(ctx context.Context, r record) error {
	guid, err := p.guid(ctx)
	if err == nil && guid != r.GUID {
		err = fmt.Errorf("pool %s is %s, the plan was made for %s: %w", p.cfg.Pool, guid, r.GUID, ErrFence)
	}
	return err
}

func (p *pool) claim(ctx context.Context, o *operation) error {
	if o.fence.Name == "" && o.fence.Epoch == 0 {
		return nil // a caller without a drill
	}
	err := p.host.Fence(ctx, o.fence)
	if err == nil {
		return nil
	}
	if !errors.As(err, new(*control.FencedError)) {
		err = fmt.Errorf("%w; make the pool's machine reachable (control), and let firedrill write to %s there", err, p.cfg.StateDir)
	}
	return fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
}

// claimToMend is claim for what puts things back: a machine that cannot record the
// claim is mended all the same, as long as no newer conductor is known there.
func (p *pool) claimToMend(ctx context.Context, o *operation) error {
	err := p.claim(ctx, o)
	if err == nil || errors.As(err, new(*control.FencedError)) {
		return err
	}
	if known := p.host.FenceCheck(ctx, o.fence); known != nil {
		return errors.Join(err, fmt.Errorf("pool %s: %w", p.cfg.Pool, known))
	}
	return nil
}

// Undo puts back what the record says.
func (p *pool) Undo(ctx context.Context, op target.Operation, undo json.RawMessage) (map[string]string, error) {
	o, err := p.operation(op, undo)
	if err != nil {
		return nil, fmt.Errorf("undo record: %w", err)
	}
	var j journal
	if err = p.undo(ctx, o, &j); err != nil {
		err = fmt.Errorf("undo: %w", err)
	}
	return j.details(), err
}

func (p *pool) undo(ctx context.Context, o *operation, j *journal) error {
	if o.rec.Undo == undoNothing {
		return nil
	}
	if o.rec.Undo != undoScrub && o.rec.Undo != undoOnline {
		return fmt.Errorf("kind %q: %w; was it written by a newer firedrill?", o.rec.Undo, target.ErrUnsupported)
	}
	if err := p.same(ctx, o.rec); err != nil {
		return err
	}
	if err := p.claimToMend(ctx, o); err != nil {
		return err
	}
	if err := p.runMend(ctx, o, o.rec.Undo, j); err != nil {
		return err // a timer stays armed: it is what is left
	}
	if err := p.host.Disarm(ctx, p.timer(o.rec)); err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	return nil
}

// tokenForm is what token makes. Tokens become names of files.
var tokenForm = regexp.MustCompile(`^firedrill-[0-9a-f]{16}$`)

// readRecord takes records of newer versions too: fields that it does not know
// are ignored, a kind that it does not know is refused by whoever acts on it.
func readRecord(raw json.RawMessage) (record, error) {
	var r record
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &r); err != nil {
			return r, err
		}
	}
	if r.Undo == "" || r.Pool == "" || r.GUID == "" || r.Vdev == "" || !tokenForm.MatchString(r.Token) {
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

// token marks what a step leaves behind. It is derived from the step, so that a
// fresh process finds it.
func token(drill, step string) string {
	h := sha256.Sum256([]byte(drill + "\n" + step))
	return "firedrill-" + hex.EncodeToString(h[:8])
}

// marker is the file that tells which fault is outstanding on the pool: its token,
// then what it damaged. There is one at a time, so that no two faults together hit
// both sides of a mirror.
func (p *pool) marker() string { return path.Join(p.cfg.StateDir, "zfs-"+p.cfg.Pool+".fault") }

// timer is the path of an operation's dead-man timer.
func (p *pool) timer(r record) string { return path.Join(p.cfg.StateDir, r.Token+".timer") }

// deadManGrace is how long after a fault's hold the target acts by itself, and
// deadManDefault for how long it waits without a hold or a limit.
const (
	deadManGrace   = time.Second
	deadManDefault = 15 * time.Minute
)

// deadMan is when the target must undo the operation by itself.
func (o *operation) deadMan() time.Duration {
	switch d := o.Hold + max(deadManGrace, o.Hold/10); {
	case o.Hold > 0 && o.Limit > 0:
		return min(d, o.Limit)
	case o.Hold > 0:
		return d
	case o.Limit > 0:
		return o.Limit
	}
	return deadManDefault
}

// journal collects what was done, for people, in order.
type journal struct{ lines []string }

func (j *journal) add(line string) { j.lines = append(j.lines, line) }

func (j *journal) details() map[string]string {
	out := map[string]string{}
	for i, l := range j.lines {
		out[fmt.Sprintf("step.%02d", i+1)] = l
	}
	if len(out) == 0 {
		out["step.01"] = "nothing was to be done"
	}
	return out
}
