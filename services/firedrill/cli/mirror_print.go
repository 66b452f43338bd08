package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// mirrorPrinter writes what a mirror does: progress on a terminal, results for
// people or as JSON.
type mirrorPrinter struct {
	out, err io.Writer
	json     bool
	live     bool
	looked   int64
	last     time.Time
	drawn    bool
	// perSecond smooths the speed that is shown.
	before    engine.Progress
	perSecond float64
}

func (a *app) mirrorPrinter(o *mirrorOptions) *mirrorPrinter {
	return &mirrorPrinter{out: a.Out, err: a.Err, json: o.json, live: !o.quiet && terminal(a.Err)}
}

func isMirrorArgument(err error) bool {
	return errors.Is(err, job.ErrSpec) || errors.Is(err, location.ErrLocation) ||
		errors.Is(err, filter.ErrRule) || errors.Is(err, engine.ErrJob)
}

// progress draws one line.
func (p *mirrorPrinter) progress(g engine.Progress) {
	if !p.live {
		return
	}
	if span := g.At.Sub(p.before.At).Seconds(); span > 0 && !p.before.At.IsZero() {
		now := float64(g.DoneBytes-p.before.DoneBytes) / span
		p.perSecond += (now - p.perSecond) / 4
	}
	p.before = g
	share := 0.0
	if g.Actions > 0 {
		share = float64(g.DoneActions) / float64(g.Actions)
	}
	text := fmt.Sprintf("%s %d of %d, %s of %s, %s/s", bar(share), g.DoneActions, g.Actions,
		size(g.DoneBytes), size(g.Bytes), size(int64(p.perSecond)))
	switch left, ok := g.ETA(); {
	case ok:
		text += ", " + left.Round(time.Second).String() + " left"
	case !g.Planned:
		text += fmt.Sprintf(", still looking (%d seen)", g.Seen)
	}
	p.draw(text)
}

const barWidth = 24

func bar(share float64) string {
	n := int(share*barWidth + 0.5)
	return "[" + strings.Repeat("#", n) + strings.Repeat("-", barWidth-n) + "]"
}

// seen counts what a check has looked at.
func (p *mirrorPrinter) seen(side plan.Side, _ entry.Entry) {
	p.looked++
	if p.live && p.looked%256 == 0 && time.Since(p.last) > 200*time.Millisecond {
		p.last = time.Now()
		p.draw(fmt.Sprintf("%d looked at, now in the %s", p.looked, side))
	}
}

func (p *mirrorPrinter) draw(text string) {
	p.drawn = true
	fmt.Fprintf(p.err, "\r%s\x1b[K", text)
}

// clear takes the line away.
func (p *mirrorPrinter) clear() {
	if p.drawn {
		fmt.Fprint(p.err, "\r\x1b[K")
	}
}

// each prints one action of a dry run.
func (p *mirrorPrinter) each(d engine.Done) {
	if p.json {
		return
	}
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

// syncJSON is the result of a run as JSON.
type syncJSON struct {
	Name       string           `json:"name"`
	DryRun     bool             `json:"dryRun,omitempty"`
	Began      time.Time        `json:"began"`
	Seconds    float64          `json:"seconds"`
	Whole      bool             `json:"whole"`
	Done       map[string]int64 `json:"done"`
	Bytes      int64            `json:"bytes"`
	Failed     []keyed          `json:"failed,omitempty"`
	FailedSum  int64            `json:"failedCount"`
	Conflicts  []keyed          `json:"conflicts,omitempty"`
	Unholdable []keyed          `json:"unholdable,omitempty"`
	Refusals   []string         `json:"refusals,omitempty"`
	Errors     []string         `json:"errors,omitempty"`
	HeldBack   int64            `json:"heldBack,omitempty"`
	Mended     int64            `json:"permissionsSet,omitempty"`
	Root       *proof.Signed    `json:"root,omitempty"`
}

type keyed struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

// result prints what a run came to.
func (p *mirrorPrinter) result(m drill.Mirror, dry bool, r job.Result) error {
	if r.Began.IsZero() {
		return nil // it never began
	}
	if p.json {
		return json.NewEncoder(p.out).Encode(asJSON(m, dry, r))
	}
	verb := ""
	if dry {
		verb = "would have: "
	}
	fmt.Fprintf(p.out, "%s -> %s: %s%s in %s\n", m.From, m.To, verb, counts(r.Report), r.Ended.Sub(r.Began).Round(time.Millisecond))
	for _, f := range r.Failures {
		fmt.Fprintf(p.out, "  failed     %s %q: %v\n", f.Op, f.Key, f.Err)
	}
	p.more(r.Failed, len(r.Failures), "failures")
	if !dry {
		for _, c := range r.Conflicts {
			fmt.Fprintf(p.out, "  conflict   %q: %s\n", c.Key, c.Reason)
		}
		for _, u := range r.Unholdable {
			fmt.Fprintf(p.out, "  unholdable %q: %v\n", u.Key, u.Err)
		}
	}
	for _, e := range r.Errors {
		fmt.Fprintf(p.out, "  unread     %v\n", e)
	}
	p.more(r.Faults, len(r.Errors), "errors of scans and listings")
	for _, g := range r.Refusals {
		fmt.Fprintf(p.out, "  kept       %s\n", g)
	}
	if r.HeldBack > 0 {
		fmt.Fprintf(p.out, "  kept       %d that were to be deleted: something before them failed\n", r.HeldBack)
	}
	if r.Root.Root.Entries > 0 {
		fmt.Fprintf(p.out, "  manifest   %d entries, %s, root %s\n", r.Root.Root.Entries, size(r.Root.Root.Bytes), r.Root.Root.Hash)
	}
	return nil
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

func asJSON(m drill.Mirror, dry bool, r job.Result) syncJSON {
	out := syncJSON{
		Name: m.Name, DryRun: dry, Began: r.Began, Seconds: r.Ended.Sub(r.Began).Seconds(), Whole: r.Whole(),
		Done: map[string]int64{}, Bytes: r.Bytes[plan.Put], FailedSum: r.Failed, HeldBack: r.HeldBack, Mended: r.Mended,
	}
	if out.Name == "" {
		out.Name = job.AdHoc(m)
	}
	for op, n := range r.Done {
		out.Done[op.String()] = n
	}
	for _, f := range r.Failures {
		out.Failed = append(out.Failed, keyed{f.Key, f.Op.String() + ": " + f.Err.Error()})
	}
	for _, c := range r.Conflicts {
		out.Conflicts = append(out.Conflicts, keyed{c.Key, string(c.Reason)})
	}
	for _, u := range r.Unholdable {
		out.Unholdable = append(out.Unholdable, keyed{u.Key, u.Err.Error()})
	}
	for _, g := range r.Refusals {
		out.Refusals = append(out.Refusals, g.String())
	}
	for _, e := range r.Errors {
		out.Errors = append(out.Errors, e.Error())
	}
	if r.Root.Root.Entries > 0 {
		out.Root = &r.Root
	}
	return out
}

// verified prints what checks have shown; list names every finding.
func (p *mirrorPrinter) verified(m drill.Mirror, all []job.Verified, list bool) error {
	good := true
	for _, v := range all {
		good = good && v.Verified()
	}
	if p.json {
		if err := json.NewEncoder(p.out).Encode(all); err != nil {
			return err
		}
	} else {
		for _, v := range all {
			fmt.Fprintf(p.out, "%s: %s\n", v.Place, v.Verdict)
			p.findings(v, list)
		}
	}
	if !good {
		return &exitError{code: run.Fail}
	}
	return nil
}

// fewFindings is how many of each sort are printed where they were not asked for.
const fewFindings = 20

func (p *mirrorPrinter) findings(v job.Verified, list bool) {
	for _, f := range []struct {
		name string
		of   proof.Findings
	}{
		{"missing", v.Verdict.Missing}, {"extra", v.Verdict.Extra}, {"different", v.Verdict.Different},
		{"metadata", v.Verdict.MetadataOnly}, {"unchecked", v.Verdict.Unchecked}, {"unreadable", v.Unreadable},
	} {
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

// audit prints what an audit has shown.
func (p *mirrorPrinter) audit(m drill.Mirror, a job.Audited) error {
	if p.json {
		type rot struct {
			Key      string `json:"key"`
			Side     string `json:"side"`
			Detail   string `json:"detail"`
			Repaired bool   `json:"repaired"`
			Error    string `json:"error,omitempty"`
		}
		out := struct {
			Clean  bool            `json:"clean"`
			Sides  [2]job.Verified `json:"sides"`
			Rotten []rot           `json:"rotten"`
		}{Clean: a.Clean(), Sides: a.Sides, Rotten: []rot{}}
		for _, r := range a.Rotten {
			one := rot{r.Key, r.Side.String(), r.Detail, r.Repaired, ""}
			if r.Err != nil {
				one.Error = r.Err.Error()
			}
			out.Rotten = append(out.Rotten, one)
		}
		if err := json.NewEncoder(p.out).Encode(out); err != nil {
			return err
		}
	} else {
		p.auditText(a)
	}
	if !a.Clean() {
		return &exitError{code: run.Fail}
	}
	return nil
}

func (p *mirrorPrinter) auditText(a job.Audited) {
	for _, v := range a.Sides {
		fmt.Fprintf(p.out, "%s: %s\n", v.Place, v.Verdict)
		p.findings(v, false)
	}
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
}

func (p *mirrorPrinter) status(s job.Status) error {
	fmt.Fprintf(p.out, "%s: %s -> %s\n", s.Name, s.From, s.To)
	if !s.Known {
		fmt.Fprintln(p.out, "  no run has come to its end yet")
		return nil
	}
	if !s.Facts.Listed.IsZero() {
		fmt.Fprintf(p.out, "  destination last listed in full: %s\n", s.Facts.Listed.UTC().Format(time.RFC3339))
	}
	if s.Root != nil && s.Root.Root.Entries > 0 {
		fmt.Fprintf(p.out, "  manifest: %d entries, %s, root %s\n  %s", s.Root.Root.Entries, size(s.Root.Root.Bytes), s.Root.Root.Hash, s.Root.Subject)
		if s.Root.Signer != "" {
			fmt.Fprintf(p.out, ", signed by %s", s.Root.Signer)
		}
		fmt.Fprintln(p.out)
	}
	return nil
}

// size is a number of bytes for people.
func size(n int64) string {
	f, unit := float64(n), 0
	for f >= 1024 && unit < 5 {
		f, unit = f/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[unit-1])
}
