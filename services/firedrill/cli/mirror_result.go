package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

func isMirrorArgument(err error) bool {
	return errors.Is(err, job.ErrSpec) || errors.Is(err, location.ErrLocation) ||
		errors.Is(err, filter.ErrRule) || errors.Is(err, engine.ErrJob)
}

// each prints one action of a dry run, and counts it.
func (p *mirrorPrinter) each(d engine.Done) {
	p.count(d)
	if p.json {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	a := d.Action
	switch {
	case d.Err != nil:
		fmt.Fprintf(p.out, "%-10s %s %q: %v\n", "cannot", a.Op, a.Key, d.Err)
	case a.Op == plan.Keep || a.Op == plan.Conflict:
		fmt.Fprintf(p.out, "%-10s %q: %s\n", a.Op, a.Key, a.Reason)
	case a.Op == plan.Unholdable:
		fmt.Fprintf(p.out, "%-10s %q: %v\n", a.Op, a.Key, a.Err)
	default:
		fmt.Fprintf(p.out, "%-10s %q on the %s\n", a.Op, a.Key, a.To)
	}
}

// codeOf is the exit code of an error: one that has none is the caller's mistake.
func codeOf(err error) int {
	if code, ok := errors.AsType[*exitError](err); ok {
		return code.code
	}
	return run.BadArguments
}

// result prints what a run came to, and returns err, which says how it ended.
func (p *mirrorPrinter) result(m drill.Mirror, dry bool, r job.Result, err error) error {
	code, coded := errors.AsType[*exitError](err)
	stopped := err != nil && !(coded && code.err == nil)
	if p.json {
		out := asJSON(m, dry, r)
		if stopped {
			out.Error, out.Whole = err.Error(), false
		}
		if werr := writeJSON(p.out, out); werr != nil {
			return failure(werr)
		}
		if err != nil {
			return &exitError{code: codeOf(err)}
		}
		return nil
	}
	how := ""
	switch {
	case !stopped:
	case codeOf(err) == run.Interrupted && !r.Began.IsZero():
		how = "interrupted"
	case none(r.Report):
		return err // nothing came of it
	default:
		how = "stopped"
	}
	p.report(m, dry, r, how)
	return err
}

// none reports whether nothing came of a run.
func none(r engine.Report) bool {
	for _, n := range r.Done {
		if n > 0 {
			return false
		}
	}
	return r.Failed == 0
}

// report prints what a run came to. how says how it ended before its end; "" if it did not.
func (p *mirrorPrinter) report(m drill.Mirror, dry bool, r job.Result, how string) {
	did, took := counts(r.Report), r.Ended.Sub(r.Began).Round(time.Millisecond)
	switch {
	case none(r.Report) && how != "":
		did = "nothing was done yet"
	case dry:
		did = "would have: " + did
	}
	if how == "" {
		fmt.Fprintf(p.out, "%s: %s in %s\n", mirrorTitle(m), did, took)
	} else {
		fmt.Fprintf(p.out, "%s: %s after %s: %s\n", mirrorTitle(m), how, took, did)
	}
	if how == "" && none(r.Report) && r.Seen == [2]int64{} && len(r.Refusals) == 0 {
		fmt.Fprintln(p.out, "  nothing    neither place holds anything that takes part: are they mounted, and named right, and does the filter leave something?")
	}
	few := r.Failures[:min(len(r.Failures), fewFindings)]
	for _, f := range few {
		fmt.Fprintf(p.out, "  failed     %s %q: %v\n", f.Op, f.Key, f.Err)
	}
	p.more(r.Failed, len(few), "failures (--json lists the first thousand)")
	if !dry {
		for _, c := range r.Conflicts {
			if c.Twin != "" { // Written out, they would look the same.
				fmt.Fprintf(p.out, "  conflict   %+q and %+q: %s: %s\n", c.Key, c.Twin, c.Reason, c.Reason.Fix())
				continue
			}
			fmt.Fprintf(p.out, "  conflict   %q: %s: %s\n", c.Key, c.Reason, c.Reason.Fix())
		}
		for _, u := range r.Unholdable {
			fmt.Fprintf(p.out, "  unholdable %q: %v\n", u.Key, u.Err)
		}
	}
	for _, e := range r.Errors {
		fmt.Fprintf(p.out, "  unread     %v\n", e)
	}
	p.more(r.Faults, len(r.Errors), "errors of scans and listings")
	p.reportKept(r)
	for _, u := range r.LeftUploads {
		fmt.Fprintf(p.out, "  left       %s\n", u)
	}
	if r.Root.Root.Entries > 0 {
		fmt.Fprintf(p.out, "  manifest   %d entries, %s, root %s\n", r.Root.Root.Entries, size(r.Root.Root.Bytes), r.Root.Root.Hash)
	}
}

// reportKept says why what only the destination has was not removed.
func (p *mirrorPrinter) reportKept(r job.Result) {
	for _, k := range []struct {
		reason plan.Reason
		why    string
	}{
		{plan.KeepMode, "only there: this mode removes nothing"},
		{plan.KeepMissing, "missing for the first time: a later run removes it, if it is still missing then"},
		{plan.KeepUnlisted, "the other side could not be read in full"},
		{plan.KeepOccupied, "something in it stays"},
		{plan.KeepYoung, string(plan.KeepYoung)},
	} {
		if n := p.kept[k.reason]; n > 0 {
			fmt.Fprintf(p.out, "  kept       %d: %s\n", n, k.why)
		}
	}
	for _, text := range refusals(r.Refusals) {
		fmt.Fprintf(p.out, "  kept       %d: %s\n", p.kept[plan.KeepGuarded], text)
	}
	if r.HeldBack > 0 {
		fmt.Fprintf(p.out, "  kept       %d: to be removed, held back as something before them failed\n", r.HeldBack)
	}
}

// refusals say why nothing was removed, and what to do about it here.
func refusals(all []plan.Refusal) (out []string) {
	// More may be removed only where nothing else forbids it.
	look := ": look at it with --dry-run; if this is meant, allow it for one run with --may-delete"
	if slices.ContainsFunc(all, func(g plan.Refusal) bool { return g.Guard != plan.GuardNumber && g.Guard != plan.GuardPercent }) {
		look = ", once nothing else is in the way"
	}
	for _, g := range all {
		out = append(out, refusal(g, look))
	}
	return out
}

// refusal is one of refusals; look is what to do about too much.
func refusal(g plan.Refusal, look string) string {
	switch g.Guard {
	case plan.GuardIdentity:
		side, _, _ := strings.Cut(g.Value, " ")
		return fmt.Sprintf("the %s is not the place that the mirror was set up with: see whether the right one is mounted; if it was replaced or restored on purpose, run once with --accept-places", side)
	case plan.GuardNumber, plan.GuardPercent:
		return fmt.Sprintf("%s would be removed, %s may be%s", g.Value, g.Limit, look)
	case plan.GuardVersioned:
		return "two-way removes nothing while the destination keeps no versions: turn on the bucket's versioning, or remove it on both sides by hand"
	}
	return fmt.Sprintf("nothing is removed because of %s: %s", g.Value, g.Fix)
}

func (p *mirrorPrinter) more(all int64, shown int, what string) {
	if n := all - int64(shown); n > 0 {
		fmt.Fprintf(p.out, "  and %d more %s\n", n, what)
	}
}

// counts says in words what a run did.
func counts(r engine.Report) string {
	var parts []string
	for _, o := range []struct {
		op   plan.Op
		text string
	}{
		{plan.Put, "copied"}, {plan.MakeDir, "directories made"}, {plan.Meta, "attributes set"}, {plan.Delete, "deleted"},
		{plan.Keep, "kept"}, {plan.Conflict, "in conflict"}, {plan.Unholdable, "not holdable"}, {plan.Equal, "equal already"},
	} {
		n := r.Done[o.op]
		switch {
		case n == 0:
		case o.op == plan.Put:
			parts = append(parts, fmt.Sprintf("%d %s (%s)", n, o.text, size(r.Bytes[plan.Put])))
		case o.op == plan.Equal && r.Believed > 0:
			parts = append(parts, believed(r, n))
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, o.text))
		}
	}
	if r.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d FAILED", r.Failed))
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// believed says of how many entries nobody looked whether they are still there.
func believed(r engine.Report, equal int64) string {
	text := fmt.Sprintf("%d believed equal (the destination was not listed)", r.Believed)
	if !r.Listed.IsZero() {
		text = fmt.Sprintf("%d believed equal (the destination was listed %s ago)", r.Believed, r.Began.Sub(r.Listed).Round(time.Second))
	}
	if seen := equal - r.Believed; seen > 0 {
		text = fmt.Sprintf("%d equal already, %s", seen, text)
	}
	return text
}

// verified prints what checks have shown; list names every finding. err says why some
// were not made.
func (p *mirrorPrinter) verified(all []job.Verified, list bool, err error) error {
	good := true
	for _, v := range all {
		good = good && v.Verified()
	}
	switch {
	case p.json && err != nil && len(all) == 0:
		return err // which is a document of its own
	case p.json && err != nil:
		code := codeOf(err)
		if werr := writeJSON(p.out, unverifiedJSON{Error: err.Error(), ExitCode: code, Sides: asVerified(all...)}); werr != nil {
			return failure(errors.Join(werr, err))
		}
		return &exitError{code: code} // the document says why
	case p.json:
		if err := writeJSON(p.out, asVerified(all...)); err != nil {
			return failure(err)
		}
	default:
		for _, v := range all {
			fmt.Fprintf(p.out, "%s: %s\n", v.Place, v.Result)
			p.findings(v, list)
		}
	}
	if err == nil && !good {
		return &exitError{code: run.Fail}
	}
	return err
}

// fewFindings is how many of each sort are printed where they were not asked for.
const fewFindings = 20

func (p *mirrorPrinter) findings(v job.Verified, list bool) {
	p.sorts(list, []findings{
		{"missing", v.Verdict.Missing}, {"extra", v.Verdict.Extra}, {"different", v.Verdict.Different},
		{"metadata", v.Verdict.MetadataOnly}, {"unchecked", v.Verdict.Unchecked}, {"low", v.Verdict.Low}, {"unreadable", v.Unreadable},
	})
}

// findings are those of one sort.
type findings struct {
	name string
	of   proof.Findings
}

func (p *mirrorPrinter) sorts(list bool, sorts []findings) {
	for _, f := range sorts {
		shown := f.of.First
		if !list {
			shown = shown[:min(len(shown), fewFindings)]
		}
		for _, one := range shown {
			detail := one.Detail
			if detail != "" {
				detail = ": " + detail
			}
			fmt.Fprintf(p.out, "  %-10s %q%s\n", f.name, one.Key, detail)
		}
		p.more(f.of.Count, len(shown), f.name)
	}
}

// audited prints what an audit has shown. err says why it did not come to its end.
func (p *mirrorPrinter) audited(a job.Audited, err error) error {
	if a.Sides[plan.Source].Place == "" && err != nil {
		return err // nothing came of it
	}
	if p.json {
		out := asAudited(a)
		if err != nil {
			out.Error, out.Clean = err.Error(), false
		}
		if werr := writeJSON(p.out, out); werr != nil {
			return failure(werr)
		}
		if code, ok := errors.AsType[*exitError](err); ok {
			err = &exitError{code: code.code} // the document says why
		}
	} else {
		p.auditText(a)
	}
	if err == nil && !a.Clean() {
		return &exitError{code: run.Fail}
	}
	return err
}

func (p *mirrorPrinter) auditText(a job.Audited) {
	for _, v := range a.Sides {
		if v.Place == "" {
			continue // It was not come so far.
		}
		repaired := ""
		if n := a.Repaired(v); n > 0 {
			repaired = fmt.Sprintf("%d repaired; before that ", n)
		}
		fmt.Fprintf(p.out, "%s: %s%s\n", v.Place, repaired, v.Result)
		p.findings(v, false)
	}
	fmt.Fprintf(p.out, "both sides: %d of %d contents read on both and equal\n", a.Checked, a.Contents)
	p.sorts(false, []findings{{"apart", a.Apart}, {"unchecked", a.Unchecked}})
	for _, r := range a.Rotten {
		what := "damaged without having been touched"
		switch {
		case r.Repaired:
			what = "was damaged; replaced from the other side and read again"
		case r.Err != nil:
			what = fmt.Sprintf("damaged, and not repaired: %v", r.Err)
		}
		fmt.Fprintf(p.out, "  rotten     %q on the %s: %s\n", r.Key, r.Side, what)
	}
	different := int64(0)
	for _, v := range a.Sides {
		different += v.Verdict.Different.Count
	}
	if different > int64(len(a.Rotten)) {
		fmt.Fprintln(p.out, "  what is different and not called rotten was edited: the next `mirror sync` sees to it, and no audit does")
	}
}
