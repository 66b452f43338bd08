package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// ErrCancelled is the cause of a run that was called off.
var ErrCancelled = runlog.ErrCancelled

// Cancel is the body of mirror.cmd.<mirror>.cancel.
type Cancel struct {
	// Run is the run that is called off; "" calls off the one that is under way when
	// the command is stored.
	Run string `json:"run,omitempty"`
	// By says who calls it off.
	By string `json:"by,omitempty"`
}

// byMost bounds what is said of who calls a run off, in bytes: anybody may write it.
const byMost = 64

// cause is that of a run that a command ends.
func (c Cancel) cause() error {
	if c.By == "" {
		return fmt.Errorf("%w by a command that does not say whose it is", ErrCancelled)
	}
	by := c.By
	if len(by) > byMost {
		by = strings.ToValidUTF8(by[:byMost], "") + "…"
	}
	return fmt.Errorf("%w by %q", ErrCancelled, by)
}

// calls are the commands that call off a run. Each try of a request is a run of its
// own: who calls one off means all of them.
type calls struct {
	run    string
	cancel context.CancelCauseFunc
	// begun is where it is stored that the run began, last the last command that
	// names no run; each is looked at after the other was set, whichever comes first.
	begun atomic.Uint64
	last  atomic.Pointer[nameless]
}

// nameless is a command that names no run, and where it is stored.
type nameless struct {
	Cancel
	seq uint64
}

// begin says where it is stored that the run began.
func (c *calls) begin(seq uint64) {
	c.begun.Store(seq)
	c.end()
}

// end ends the run if it had begun when it was called off without a name: commands
// before that meant another one.
func (c *calls) end() {
	if begun, last := c.begun.Load(), c.last.Load(); begun > 0 && last != nil && last.seq > begun {
		c.cancel(last.cause())
	}
}

// take looks at one command.
func (c *calls) take(rec bus.Record) {
	var body Cancel
	if rec.Kind != "cancel" || len(rec.Data) > 0 && json.Unmarshal(rec.Data, &body) != nil {
		return // nothing that this version knows
	}
	switch {
	case body.Run == "":
		c.last.Store(&nameless{body, rec.Seq})
		c.end()
	case requestOf(body.Run) == requestOf(c.run):
		c.cancel(body.cause())
	}
}

// requestOf is what the runs of one request have in common; see runOf.
func requestOf(run string) string {
	request, _, _ := strings.Cut(run, "-")
	return request
}

// awaitCancel ends a run when that is asked for behind a sequence.
func (r *runner) awaitCancel(ctx context.Context, mirror string, after uint64, c *calls) {
	err := r.Bus.FollowMirrorCommands(ctx, mirror, after, func(rec bus.Record) error {
		c.take(rec)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		r.Log.Warn("a run cannot be called off any more", "mirror", mirror, "error", err)
	}
}
