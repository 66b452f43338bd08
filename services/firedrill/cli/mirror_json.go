package cli

import (
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/outcome"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// syncJSON is the result of a run as JSON: its parts are one object.
type syncJSON struct {
	ranJSON
	doneJSON
	undoneJSON
	notedJSON
}

// ranJSON is which run it was.
type ranJSON struct {
	Name    string    `json:"name,omitempty"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Mode    string    `json:"mode"`
	DryRun  bool      `json:"dryRun,omitempty"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	Whole   bool      `json:"whole"`
	// Error is why the run could not go on.
	Error string `json:"error,omitempty"`
}

// doneJSON is what it did, and what it went by.
type doneJSON struct {
	Done map[string]int64 `json:"done"`
	// Believed counts those of the equal ones that nobody looked at in this run,
	// Listed says when the destination was last listed in full.
	Believed int64     `json:"believed,omitempty"`
	Listed   time.Time `json:"listed,omitzero"`
	Bytes    int64     `json:"bytes"`
}

// undoneJSON is what it left undone.
type undoneJSON struct {
	// Problems counts all that was left undone, as `mirror status` does: FailedSum of it
	// failed, ErrorSum are errors of scans and listings; Done counts conflicts and what
	// cannot be held. Lists of single ones end after the first thousand.
	Problems  int64   `json:"problems"`
	Failed    []keyed `json:"failed,omitempty"`
	FailedSum int64   `json:"failedCount"`
	// Causes are what the failures have in common, NotTried counts what was not tried as all
	// before it was refused. Untried are the buckets of a dry run into which nothing was
	// written to see whether that is allowed.
	Causes     []causeJSON `json:"causes,omitempty"`
	NotTried   int64       `json:"notTried,omitempty"`
	Untried    []string    `json:"untried,omitempty"`
	Conflicts  []keyed     `json:"conflicts,omitempty"`
	Unholdable []keyed     `json:"unholdable,omitempty"`
	Refusals   []string    `json:"refusals,omitempty"`
	Errors     []string    `json:"errors,omitempty"`
	ErrorSum   int64       `json:"errorsCount"`
	HeldBack   int64       `json:"heldBack,omitempty"`
	// Left are uploads of earlier runs that nobody frees, as they are in a place that is
	// no longer the mirror's.
	Left []string `json:"leftUploads,omitempty"`
}

// notedJSON is what went well and may not be what was meant, and what both sides hold.
type notedJSON struct {
	// Mended counts whose permissions were set by the rules, MendedSource what of it is at the
	// source, or, of a dry run, would be.
	Mended       int64 `json:"permissionsSet,omitempty"`
	MendedSource int64 `json:"sourcePermissionsSet,omitempty"`
	// Replaced counts what was put over an entry that no run is known to have put there.
	Replaced int64 `json:"replaced,omitempty"`
	// Disowned counts what keeps another owner, as this process may not change owners,
	// Unchecked what was taken for equal and never read. New says that there was no
	// destination before.
	Disowned  int64 `json:"ownersNotSet,omitempty"`
	Unchecked int64 `json:"unchecked,omitempty"`
	// Compared counts, by side, the contents that a run which audits has read to compare them.
	Compared map[string]int64 `json:"compared,omitempty"`
	New      bool             `json:"newDestination,omitempty"`
	// Unasked is why ZFS did not tell what was written in a dataset, so that times did.
	Unasked string `json:"unasked,omitempty"`
	// Aside names what was deleted and is kept, as the run of `mirror deleted`; Pruned counts
	// the runs of which it is kept no longer.
	Aside  string        `json:"deletedAs,omitempty"`
	Pruned int           `json:"pruned,omitempty"`
	Root   *proof.Signed `json:"root,omitempty"`
}

type keyed struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

type causeJSON struct {
	Op    string   `json:"op"`
	Why   string   `json:"why"`
	Count int64    `json:"count"`
	Keys  []string `json:"keys"`
}

func asJSON(m drill.Mirror, dry bool, r job.Result) syncJSON {
	out := syncJSON{
		ranJSON: ranJSON{
			Name: m.Name, From: m.From, To: m.To, Mode: modeOf(m.Mode), DryRun: dry, Began: r.Began, Seconds: r.Ended.Sub(r.Began).Seconds(), Whole: r.Whole(),
		},
		doneJSON: doneJSON{Done: map[string]int64{}, Believed: r.Believed, Listed: r.Listed, Bytes: r.Bytes[plan.Put]},
		undoneJSON: undoneJSON{
			Problems: runlog.Left(&r.Report), FailedSum: r.Failed, NotTried: r.NotTried, Untried: r.Untried, Refusals: refusals(r.Refusals),
			ErrorSum: r.Faults, HeldBack: r.HeldBack,
		},
		notedJSON: notedJSON{Mended: r.Mended[plan.Source] + r.Mended[plan.Dest], MendedSource: r.Mended[plan.Source], Replaced: r.Replaced, Disowned: r.Disowned, Unchecked: r.Unread, New: r.New, Unasked: r.Unasked, Pruned: r.Pruned},
	}
	if r.Done[plan.Delete] > 0 && !dry {
		out.Aside = r.Aside
	}
	if r.Check == engine.CheckAudit {
		out.Compared = map[string]int64{plan.Source.String(): r.Compared[plan.Source], plan.Dest.String(): r.Compared[plan.Dest]}
	}
	for op, n := range r.Done {
		out.Done[op.String()] = n
	}
	for _, c := range r.Causes {
		out.Causes = append(out.Causes, causeJSON{c.Op.String(), c.Why, c.Count, c.Keys})
	}
	for _, f := range r.Failures {
		out.Failed = append(out.Failed, keyed{f.Key, f.Op.String() + ": " + f.Err.Error()})
	}
	for _, c := range r.Conflicts {
		out.Conflicts = append(out.Conflicts, keyed{c.Key, string(c.Reason) + ": " + c.Reason.Fix()})
	}
	for _, u := range r.Unholdable {
		out.Unholdable = append(out.Unholdable, keyed{u.Key, u.Err.Error()})
	}
	for _, u := range r.LeftUploads {
		out.Left = append(out.Left, u.String())
	}
	for _, e := range r.Errors {
		out.Errors = append(out.Errors, e.Error())
	}
	if r.Root.Root.Entries > 0 {
		out.Root = &r.Root
	}
	return out
}

// unverifiedJSON is printed in place of the sides where not all could be checked. It
// begins as every error does.
type unverifiedJSON struct {
	Error    string `json:"error"`
	ExitCode int    `json:"exitCode"`
	// Sides are those that were checked before.
	Sides []outcome.Side `json:"sides"`
}

func asVerified(all ...job.Verified) []outcome.Side {
	out := []outcome.Side{}
	for _, v := range all {
		out = append(out, outcome.SideOf(v))
	}
	return out
}

// auditedJSON is what an audit has shown.
type auditedJSON struct {
	outcome.Audit
	Sides []outcome.Side `json:"sides"`
	// Error says why it did not come to its end, and with which code it exits.
	Error    string `json:"error,omitempty"`
	ExitCode int    `json:"exitCode,omitempty"`
}

func asAudited(a job.Audited) auditedJSON {
	out := auditedJSON{Audit: outcome.AuditOf(a), Sides: []outcome.Side{}}
	for _, v := range a.Sides {
		if v.Place == "" {
			continue // It was not come so far.
		}
		one := outcome.SideOf(v)
		one.Repaired = a.Repaired(v)
		out.Sides = append(out.Sides, one)
	}
	return out
}
