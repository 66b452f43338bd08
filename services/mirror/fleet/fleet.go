package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// Config is what a mirror process needs to take part. All fields but the numbers are
// required.
type Config struct {
	Bus       *bus.Bus
	Log       *slog.Logger
	Inventory drill.Inventory
	// Env is where runs are remembered and by what they are signed; its Stores are
	// replaced by the inventory's.
	Env job.Env
	// Runs is how many runs this process plans at once, Items how many items it
	// carries out at once; 0 means DefaultRuns and engine.DefaultItems.
	Runs, Items int
	// Lease is how long a process that plans a run may be silent before another one
	// takes its mirror over; 0 means DefaultLease. It is the same in all processes.
	Lease time.Duration
	// SplitAbove is the size in bytes above which the parts of one file are spread over
	// the processes; 0 means engine.DefaultSplit.
	SplitAbove int64
}

// waitingRuns is how many requests a process takes at once: those that have to wait
// for a location must not keep others from running.
const waitingRuns = 16

// DefaultRuns is how many runs a process plans at once.
const DefaultRuns = 2

// ErrUnknown says that the inventory of a process has no such mirror.
var ErrUnknown = errors.New("the inventory has no mirror of that name")

// Run takes part until ctx ends, and returns nil then. It may run in any number of
// processes with the same inventory: they share runs and work.
func Run(ctx context.Context, c Config) error {
	c = c.complete()
	w := &worker{Config: c, readers: newReaders(), open: map[string]*opened{}}
	defer w.closeAll(context.WithoutCancel(ctx))
	r := newRunner(c)
	queues := []struct {
		name string
		n    int
		fn   func(context.Context, bus.Message) error
	}{
		{bus.MirrorRequests, waitingRuns, r.onRequest},
		{bus.MirrorTicks, 1, r.onTick},
		{bus.MirrorWork, c.Items, w.onWork},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { c.schedule(ctx) })
	wg.Go(func() { w.readers.tell(ctx, c) })
	errs := make([]error, len(queues))
	for i, q := range queues {
		wg.Go(func() {
			defer cancel()
			err := c.Bus.Work(ctx, q.name, bus.WorkOptions{Concurrency: q.n}, q.fn)
			if ctx.Err() == nil {
				errs[i] = fmt.Errorf("mirror: work on %s: %w", q.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// complete fills in what was left out.
func (c Config) complete() Config {
	c.Env.Stores = c.Inventory.Spec.Stores
	c.Env.OwnKeys = c.Inventory.Spec.InlineTargets
	if c.Runs == 0 {
		c.Runs = DefaultRuns
	}
	if c.Items == 0 {
		c.Items = engine.DefaultItems
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	return c
}

// scheduleAgain is how long after a failure the server is told again.
const scheduleAgain = 5 * time.Second

// schedule tells the server when mirrors run by themselves, and does not rest until it
// has heard so. Each process says the same.
func (c Config) schedule(ctx context.Context) {
	for _, m := range c.Inventory.Spec.Mirrors {
		for {
			err := c.Bus.ScheduleMirror(ctx, m.Name, cadence(m))
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			c.Log.Warn("a mirror is not scheduled yet", "mirror", m.Name, "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(scheduleAgain):
			}
		}
	}
}

// cadence is a mirror's schedule as NATS writes it; "" if it only runs when asked.
func cadence(m drill.Mirror) string {
	switch {
	case m.Every > 0:
		return "@every " + m.Every.D().String()
	case m.Daily != "":
		return fmt.Sprintf("0 %s %s * * *", m.Daily[3:], m.Daily[:2])
	}
	return ""
}

// Request is the body of mirror.req.<who>.<mirror>; an empty message is the zero
// value.
type Request struct {
	// Check is auto, state, listing or audit; auto if left out.
	Check string `json:"check,omitempty"`
	// DryRun does nothing but say what would be done.
	DryRun bool `json:"dryRun,omitempty"`
}

// maxRequest is how long a request may be, in bytes.
const maxRequest = 64 << 10

func parseRequest(data []byte) (r Request, check engine.Check, err error) {
	if len(data) > maxRequest {
		return r, 0, fmt.Errorf("the request has %d bytes: at most %d are read", len(data), maxRequest)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return r, engine.CheckAuto, nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, 0, fmt.Errorf("the request is not as it should be: %w; write {} or {\"check\": \"listing\", \"dryRun\": true}", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return r, 0, errors.New("the request goes on behind its end: send one JSON object")
	}
	check, err = engine.ParseCheck(r.Check)
	if err != nil {
		err = fmt.Errorf("check: %w", err)
	}
	return r, check, err
}

// onTick turns a tick of the clock into a request, unless the one before is not worked
// off yet, by whatever process: a mirror that takes longer than its schedule gives it
// must not take the places of the others.
func (r *runner) onTick(ctx context.Context, m bus.Message) error {
	name, err := bus.ReadMirrorTick(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	if _, ok := r.Inventory.FindMirror(name); !ok {
		// It was scheduled by an inventory that is no more.
		return r.Bus.ScheduleMirror(ctx, name, "")
	}
	if pending, err := r.pending(ctx, name); pending || err != nil {
		return err
	}
	subject, err := bus.MirrorRequest{Who: scheduler, Mirror: name}.Subject()
	if err != nil {
		return bus.Poison(err)
	}
	_, err = r.Bus.Publish(ctx, subject, []byte("{}"), "tick/"+name+"/"+strconv.FormatUint(m.Seq, 10))
	return err
}

// scheduler asks for the runs of mirrors that are due.
const scheduler = "schedule"

// pending reports whether the last scheduled request for a mirror waits or is being
// worked off. Requests that another one's long run keeps from being counted as worked
// off are known by how they ended.
func (r *runner) pending(ctx context.Context, mirror string) (bool, error) {
	last, waits, err := r.Bus.MirrorRequested(ctx, scheduler, mirror)
	if err != nil || !waits {
		return false, err
	}
	for _, kind := range []string{KindFinished, KindFailed, KindCancelled, KindRejected} {
		rec, known, err := r.Bus.LastMirrorEvent(ctx, mirror, kind)
		if err != nil {
			return false, err
		}
		var e Event
		if !known || json.Unmarshal(rec.Data, &e) != nil {
			continue
		}
		if seq, err := strconv.ParseUint(requestOf(e.Run), 10, 64); err == nil && seq >= last {
			return false, nil // it has ended, or a later one has
		}
	}
	return true, nil
}

// Kinds of events on mirror.evt.<mirror>.<kind>.
const (
	KindStarted   = "started"
	KindProgress  = "progress"
	KindStalled   = "stalled"
	KindFinished  = "finished"
	KindFailed    = "failed"
	KindCancelled = "cancelled"
	KindRejected  = "rejected"
)

// Event is what is published of a run.
type Event struct {
	Mirror string    `json:"mirror"`
	Run    string    `json:"run"`
	At     time.Time `json:"at"`
	// By says who asked.
	By string `json:"by,omitempty"`
	// Reason says why it was rejected, failed or is stalled.
	Reason string `json:"reason,omitempty"`
	// Progress goes with progress and stalled.
	Progress *Progress `json:"progress,omitempty"`
	// Result goes with finished.
	Result *Result `json:"result,omitempty"`
	// Log is what is known by then of the mirror's runs; it goes with what ends one.
	Log *runlog.Log `json:"log,omitempty"`
}

// Progress is how far a run is.
type Progress struct {
	// Planned says that all is planned: until then the rest is what is known so far.
	Planned     bool  `json:"planned"`
	Seen        int64 `json:"seen"`
	Actions     int64 `json:"actions"`
	DoneActions int64 `json:"doneActions"`
	Bytes       int64 `json:"bytes"`
	DoneBytes   int64 `json:"doneBytes"`
	Failed      int64 `json:"failed"`
	// LeftSeconds is how long it will still take at the mean speed so far; left out
	// where nothing tells.
	LeftSeconds *float64 `json:"leftSeconds,omitempty"`
}

// Result is what a run came to.
type Result struct {
	Whole   bool             `json:"whole"`
	DryRun  bool             `json:"dryRun,omitempty"`
	Seconds float64          `json:"seconds"`
	Done    map[string]int64 `json:"done"`
	// Believed counts those of the equal ones that nobody looked at in this run.
	Believed int64 `json:"believed,omitempty"`
	Bytes    int64 `json:"bytes"`
	Failed   int64 `json:"failed"`
	// NotTried counts what was not tried as a place had refused very many before it.
	NotTried int64 `json:"notTried,omitempty"`
	HeldBack int64 `json:"heldBack"`
	// Problems are the first of what went wrong, in words.
	Problems []string `json:"problems,omitempty"`
	// From, To and Mode are the mirror's, as the process describes it that planned the run.
	From string `json:"from"`
	To   string `json:"to"`
	Mode string `json:"mode,omitempty"`
	// NewDestination says that there was no destination before, or there is none where
	// nothing is done; Replaced counts what was put over an entry that no run had put there.
	NewDestination bool  `json:"newDestination,omitempty"`
	Replaced       int64 `json:"replaced,omitempty"`
	// PermissionsSet counts the entries whose permissions were set by the mirror's rules,
	// OwnersNotSet what keeps another owner, as the process that wrote it may not change
	// owners.
	PermissionsSet int64 `json:"permissionsSet,omitempty"`
	OwnersNotSet   int64 `json:"ownersNotSet,omitempty"`
	// Unchecked counts what was taken for equal and never read.
	Unchecked int64 `json:"unchecked,omitempty"`
	// Untried are the buckets of a dry run into which nothing was written to see whether
	// that is allowed.
	Untried []string `json:"untried,omitempty"`
	// Unasked is why ZFS did not tell what was written in a dataset, so that times did.
	Unasked string `json:"unasked,omitempty"`
	// Root stands for what both sides hold, Entries counts them.
	Root    string `json:"root,omitempty"`
	Entries int64  `json:"entries"`
}
