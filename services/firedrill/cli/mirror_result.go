package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

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
	return r.Failed+r.NotTried == 0
}

// report prints what a run came to. how says how it ended before its end; "" if it did not.
func (p *mirrorPrinter) report(m drill.Mirror, dry bool, r job.Result, how string) {
	p.flushDry()
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
	if how == "" && r.Seen[plan.Source] == 0 && r.Faults == 0 && len(r.Refusals) == 0 {
		fmt.Fprintf(p.out, "  nothing    %s, and named right, and does the filter leave something?\n", holdsNothing(r))
	}
	p.reportNotes(m, dry, r)
	p.failed(r.Report)
	if !dry {
		for _, c := range r.Conflicts {
			if c.Twin != "" { // Written out, they would look the same.
				fmt.Fprintf(p.out, "  conflict   %+q and %+q: %s: %s\n", c.Key, c.Twin, c.Reason, c.Reason.Fix())
				continue
			}
			fmt.Fprintf(p.out, "  conflict   %s: %s: %s\n", entry.Quote(c.Key), c.Reason, c.Reason.Fix())
		}
		for _, u := range r.Unholdable {
			fmt.Fprintf(p.out, "  unholdable %s: %v\n", entry.Quote(u.Key), u.Err)
		}
	}
	for _, e := range r.Errors {
		fmt.Fprintf(p.out, "  unread     %v\n", e)
	}
	p.more(r.Faults, len(r.Errors), "errors of scans and listings")
	p.reportKept(m, r)
	p.reportDeleted(m, dry, r.Done[plan.Delete])
	for _, u := range r.LeftUploads {
		fmt.Fprintf(p.out, "  left       %s\n", u)
	}
	if r.Root.Root.Entries > 0 {
		of := ""
		if r.Seen == [2]int64{} {
			of = " of earlier runs, none of which took part in this one"
		}
		fmt.Fprintf(p.out, "  manifest   %s%s, %s, root %s\n", fold.Plural(r.Root.Root.Entries, "entry"), of, size(r.Root.Root.Bytes), r.Root.Root.Hash)
	}
}

// holdsNothing says of which places nothing was seen.
func holdsNothing(r job.Result) string {
	if r.Seen[plan.Dest] == 0 && r.Check != engine.CheckState {
		return "neither place holds anything that takes part: are they mounted"
	}
	return "the source holds nothing that takes part: is it mounted"
}

// failed says what failed: what did so for one reason in one line,
// and the most frequent first.
func (p *mirrorPrinter) failed(r engine.Report) {
	shown := int64(0)
	causes := slices.SortedStableFunc(slices.Values(r.Causes), func(a, b engine.Cause) int { return cmp.Compare(b.Count, a.Count) })
	for _, c := range causes[:min(len(causes), fewFindings)] {
		fmt.Fprintf(p.out, "  failed     %s\n", &c)
		shown += c.Count
	}
	p.more(r.Failed-shown, 0, "failures (--json lists the first thousand)")
	if r.NotTried > 0 {
		fmt.Fprintf(p.out, "  not tried  %s, as all before it was refused\n", fold.Plural(r.NotTried, "entry"))
	}
}

// reportNotes says what went well and may not be what was meant.
func (p *mirrorPrinter) reportNotes(m drill.Mirror, dry bool, r job.Result) {
	if r.New {
		fmt.Fprintf(p.out, "  new        %s\n", newPlace(m, dry))
	}
	if r.Replaced > 0 {
		did := "was"
		if dry {
			did = "would be"
		}
		fmt.Fprintf(p.out, "  replaced   %s that no run is known to have put there: what lay at the destination under that name %s overwritten\n", fold.Plural(r.Replaced, "entry"), did)
	}
	if r.Disowned > 0 {
		were, later := "were not", "a run as root sets them"
		if dry {
			were = "would not be"
		}
		if m.Mode == drill.MirrorTwoWay { // both sides are then what they were left as
			later = "set them by hand as root, or run two-way mirrors as root from the first run on"
		}
		fmt.Fprintf(p.out, "  owners     of %s %s set, as this process may not (CAP_CHOWN): %s\n", fold.Plural(r.Disowned, "entry"), were, later)
	}
	for side, n := range r.Mended {
		if n == 0 {
			continue
		}
		were := "were set by the rules, after the copy"
		if dry {
			were = "would be set by the rules, after the copy"
		}
		fmt.Fprintf(p.out, "  rules      the permissions of %s of the %s %s\n", fold.Plural(n, "entry"), plan.Side(side), were)
	}
	for _, name := range r.Untried {
		fmt.Fprintf(p.out, "  untried    whether these credentials may write to %s: a dry run writes nothing\n", name)
	}
	if r.Unasked != "" {
		fmt.Fprintf(p.out, "  unasked    ZFS does not tell what was written between two runs, so that times do: %s\n", r.Unasked)
	}
	if r.Check == engine.CheckAudit {
		fmt.Fprintf(p.out, "  read       %s\n", compared(m, r))
	}
	if r.Unread > 0 {
		fmt.Fprintf(p.out, "  unchecked  %s equal by size and time, and never read: `sync --check audit` reads and compares them\n", fold.Plural(r.Unread, "file"))
	}
}

// compared says what an auditing run has read to compare it, and what it believed.
func compared(m drill.Mirror, r job.Result) string {
	text := fmt.Sprintf("%s of the source and %d of the destination, to compare them", fold.Plural(r.Compared[plan.Source], "content"), r.Compared[plan.Dest])
	var stores []string
	for side, at := range []string{plan.Source: m.From, plan.Dest: m.To} {
		if l, err := location.Parse(at); err == nil && l.IsBucket() {
			stores = append(stores, "the "+plan.Side(side).String())
		}
	}
	if len(stores) == 0 {
		return text
	}
	return text + fmt.Sprintf("; the hashes that are stored in %s were believed, and what they are of was not read: `mirror audit` reads it", strings.Join(stores, " and in "))
}

// newPlace says that there was no destination: that may be a slip in its name.
func newPlace(m drill.Mirror, dry bool) string {
	switch bucket := !strings.HasPrefix(m.To, location.Dir+":"); {
	case bucket && dry:
		return fmt.Sprintf("nothing lies at %s yet", m.To)
	case bucket:
		return fmt.Sprintf("nothing lay at %s before", m.To)
	case dry:
		return fmt.Sprintf("%s does not exist: the run would make it", m.To)
	}
	return fmt.Sprintf("%s did not exist: it was made", m.To)
}

// missing says when what the other side has no more is removed.
func missing(m drill.Mirror) string {
	from := plan.Source.String()
	if m.Mode == drill.MirrorTwoWay {
		from = "other side"
	}
	return fmt.Sprintf("gone from the %s: removed once %d runs in a row have found it gone (dry runs do not count)", from, cmp.Or(m.Deletes.Scans, plan.DefaultScans))
}

// reportKept says why what only the destination has was not removed.
func (p *mirrorPrinter) reportKept(m drill.Mirror, r job.Result) {
	for _, k := range []struct {
		reason plan.Reason
		why    string
	}{
		{plan.KeepMode, "only there: this mode removes nothing"},
		{plan.KeepMissing, missing(m)},
		{plan.KeepUnlisted, "the other side could not be read in full"},
		{plan.KeepAway, string(plan.KeepAway)},
		{plan.KeepOccupied, "something in it stays"},
		{plan.KeepClaimed, string(plan.KeepClaimed) + ": give the mirror, or the archive, another place"},
		{plan.KeepYoung, string(plan.KeepYoung)},
	} {
		if n := p.kept[k.reason]; n > 0 && (k.reason != plan.KeepAway || !slices.ContainsFunc(r.Refusals, notMounted)) {
			fmt.Fprintf(p.out, "  kept       %d: %s\n", n, k.why)
		}
	}
	for i, text := range refusals(r.Refusals) {
		switch {
		case notMounted(r.Refusals[i]): // of other entries
			text = fmt.Sprintf("%d: %s", r.Refusals[i].Deletes, text)
		case i > 0:
			text = "and: " + text // of the same entries
		case !tooMuch(r.Refusals[0]): // which has numbers of its own
			text = fmt.Sprintf("%d: %s", p.kept[plan.KeepGuarded], text)
		}
		fmt.Fprintf(p.out, "  kept       %s\n", text)
	}
	if r.HeldBack > 0 {
		fmt.Fprintf(p.out, "  kept       %d: to be removed, held back as something before them failed\n", r.HeldBack)
	}
}

// refusals say why nothing was removed, and what to do about it here.
func refusals(all []plan.Refusal) (out []string) {
	last, most := -1, int64(0)
	for i, g := range all {
		if tooMuch(g) {
			last, most = i, max(most, g.Deletes)
		}
	}
	for i, g := range all {
		look := ""
		switch {
		case i != last: // of several one says what to do
		case slices.ContainsFunc(all, func(g plan.Refusal) bool { return !tooMuch(g) && !notMounted(g) }):
			look = ", once nothing else is in the way" // More may be removed only then.
		default:
			look = fmt.Sprintf(": look at it with --dry-run; if this is meant, allow it for one run with --may-delete %d", most)
		}
		out = append(out, refusal(g, look))
	}
	return out
}

// tooMuch reports whether only how much is to be removed is in the way.
func tooMuch(g plan.Refusal) bool {
	return g.Guard == plan.GuardNumber || g.Guard == plan.GuardPercent
}

// notMounted reports whether no more is kept than what lay in other file systems.
func notMounted(g plan.Refusal) bool { return g.Guard == plan.GuardMount }

// refusal is one of refusals; look is what to do about too much.
func refusal(g plan.Refusal, look string) string {
	switch g.Guard {
	case plan.GuardIdentity:
		side, _, _ := strings.Cut(g.Value, " ")
		return fmt.Sprintf("the %s is not the place that the mirror was set up with: see whether the right one is mounted; if it was replaced or restored on purpose, run once with --accept-places", side)
	case plan.GuardMount:
		return fmt.Sprintf("%s: see whether the right one is mounted; if it was unmounted, replaced or removed on purpose, run once with --accept-places", g.Value)
	case plan.GuardNumber, plan.GuardPercent:
		return fmt.Sprintf("%s would be removed, %s may be%s", g.Value, g.Limit, look)
	case plan.GuardVersioned:
		return "two-way removes nothing while the destination keeps no versions: turn on the bucket's versioning, keep what is deleted (--keep-deleted, in the inventory keepDeleted), or remove it on both sides by hand"
	}
	return fmt.Sprintf("nothing is removed because of %s: %s", g.Value, g.Fix)
}

func (p *mirrorPrinter) more(all int64, shown int, what string) {
	if n := all - int64(shown); n > 0 {
		fmt.Fprintf(p.out, "  and %d more %s\n", n, what)
	}
}

// counts says in words what a run did. What it kept is told with why.
func counts(r engine.Report) string {
	var parts []string
	for _, o := range []struct {
		op   plan.Op
		text string
	}{
		{plan.Put, "copied"}, {plan.MakeDir, "directories made"}, {plan.Meta, "attributes set"}, {plan.Delete, "deleted"},
		{plan.Conflict, "in conflict"}, {plan.Unholdable, "not holdable"}, {plan.Equal, "equal already"},
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

// compared prints what a comparison has shown. err says why it did not come to its end.
func (p *mirrorPrinter) compared(c job.Compared, err error) error {
	if c.Audited != nil {
		return p.audited(*c.Audited, err)
	}
	return p.verified(c.Shown, c.What == drill.MirrorDrift, err)
}

// verified prints what checks have shown; list names every finding. err says why some
// were not made.
func (p *mirrorPrinter) verified(all []job.Verified, list bool, err error) error {
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
			p.tookPart(v)
			p.findings(v, list)
			if v.Unreadable.Count > 0 {
				p.advise("what cannot be read may be damaged: `mirror audit` tells, and `mirror audit --repair` mends what it can")
			}
		}
	}
	c := job.Compared{Comparison: job.Comparison{What: drill.MirrorVerify}, Shown: all}
	if list {
		c.What = drill.MirrorDrift
	}
	if err == nil && !c.Good() {
		return &exitError{code: run.Fail}
	}
	return err
}

// fewFindings is how many of each sort are printed where they were not asked for.
const fewFindings = 20

// findings prints what was found; list says that it is what was asked for.
func (p *mirrorPrinter) findings(v job.Verified, list bool) {
	metadata, kept, waiting := v.Verdict.MetadataOnly, v.Verdict.Kept, v.Verdict.Waiting
	if metadata.Count > 0 && metadata.Count == v.Verdict.Owners && v.Disowning {
		fmt.Fprintf(p.out, "  metadata   %s of another owner or group, and nothing else: this process may not set them (CAP_CHOWN), and a run as root does; --json names them\n",
			fold.Plural(metadata.Count, "entry"))
		metadata = proof.Findings{}
	}
	if !list {
		kept, waiting = proof.Findings{}, proof.Findings{} // The counts are told.
	}
	p.sorts(list, []findings{
		{"missing", v.Verdict.Missing}, {"extra", v.Verdict.Extra}, {"different", v.Verdict.Different},
		{"metadata", metadata}, {"unchecked", without(v.Verdict.Unchecked, v.Unreadable, v.Verdict.Unread)}, {"low", v.Verdict.Low}, {"unreadable", v.Unreadable},
		{"kept", kept}, {"waiting", waiting},
	})
	if v.Verdict.Missing.Count > 0 {
		p.advise(ifMissing(v))
	}
}

// without leaves out of findings what other ones tell of, and better: so many of them. The
// others may be more.
func without(all, other proof.Findings, both int64) proof.Findings {
	told := map[string]bool{}
	for _, f := range other.First {
		told[f.Key] = true
	}
	var rest proof.Findings
	for _, f := range all.First {
		if !told[f.Key] {
			rest.First = append(rest.First, f)
		}
	}
	rest.Count = all.Count - both
	return rest
}

// advise prints what to do about what was found.
func (p *mirrorPrinter) advise(text string) { fmt.Fprintf(p.out, "  %-10s %s\n", "to do", text) }

// ifMissing says what becomes of what is missing on a side.
func ifMissing(v job.Verified) string {
	switch {
	case v.Mode == plan.TwoWay:
		return "the next `mirror sync` takes what is missing for deleted here, and is to delete it on the other side in the end: to keep it, copy it back from there before"
	case v.Side == plan.Dest:
		return "the next `mirror sync` copies what is missing again, as far as the source has it"
	case v.Mode == plan.Mirror:
		return "what was deleted on purpose the next `mirror sync` takes note of, and a later one deletes at the destination; what was not, copy back from there before"
	}
	return "what was deleted on purpose the next `mirror sync` takes note of, and the destination keeps it; what was not, copy back from there"
}

// tookPart says what of a place and of the manifest was compared, unless that is all.
func (p *mirrorPrinter) tookPart(v job.Verified) {
	if v.Inconclusive() {
		fmt.Fprintf(p.out, "  nothing    %s\n", whyNothing(v))
	}
	if len(v.Filter) > 0 {
		fmt.Fprintf(p.out, "  filter     %s in force, which left out %s here (of a directory, all that is in it is one), and %s of the manifest's %d\n",
			fold.Plural(len(v.Filter), "rule"), fold.Plural(v.LeftOut.Names, "name"), fold.Plural(v.LeftOut.Entries, "entry"), v.Entries)
	}
}

// whyNothing says why nothing was checked.
func whyNothing(v job.Verified) string {
	switch {
	case v.Entries == 0:
		return "the last run found nothing that both sides should hold, and there is nothing here: is the right place mounted, and named right?"
	case v.Elsewhere > 0:
		return "all that the last runs copied is gone from here and kept at the destination only: is the right place mounted?"
	case v.Gone > 0:
		return "all that the last runs copied is gone from here and waits for deletion on the other side: is the right place mounted?"
	}
	return fmt.Sprintf("none of the %s of the manifest takes part by the filter", fold.Plural(v.Entries, "entry"))
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
			fmt.Fprintf(p.out, "  %-10s %s%s\n", f.name, entry.Quote(one.Key), detail)
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
			out.Error, out.ExitCode, out.Clean = err.Error(), codeOf(err), false
		}
		if werr := writeJSON(p.out, out); werr != nil {
			return failure(werr)
		}
		if code, ok := errors.AsType[*exitError](err); ok {
			err = &exitError{code: code.code} // the document says why
		}
	} else {
		p.auditText(a)
		if err == nil {
			p.afterAudit(a)
		}
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
		p.tookPart(v)
		p.findings(v, false)
	}
	if a.Contents > 0 {
		fmt.Fprintf(p.out, "both sides: %d of %d contents read on both and equal\n", a.Checked, a.Contents)
	} else {
		fmt.Fprintln(p.out, "both sides: nothing was compared: there is no content that both should hold")
	}
	p.sorts(false, []findings{{"apart", a.Apart}, {"unchecked", a.Unchecked}})
	for _, r := range a.Rotten {
		what := "damaged without having been touched"
		switch {
		case r.Repaired:
			what = "was damaged; replaced from the other side and read again"
		case r.Err != nil:
			what = fmt.Sprintf("damaged, and not repaired: %v", r.Err)
		}
		fmt.Fprintf(p.out, "  rotten     %s on the %s: %s\n", entry.Quote(r.Key), r.Side, what)
	}
}

// afterAudit says what to do about what an audit has found.
func (p *mirrorPrinter) afterAudit(a job.Audited) {
	twoWay := a.Sides[plan.Dest].Mode == plan.TwoWay
	var untried [2]bool
	for _, r := range a.Rotten {
		untried[r.Side] = untried[r.Side] || !r.Repaired && r.Err == nil
	}
	switch {
	case untried[plan.Source] && !twoWay:
		p.advise("`mirror audit --repair` replaces what has rotted in the destination with what the source holds undamaged, and with --repair-source as well the reverse")
	case untried[plan.Source] || untried[plan.Dest]:
		p.advise("`mirror audit --repair` replaces what has rotted with what the other side holds undamaged")
	}
	switch {
	case a.Edited() == 0:
	case twoWay:
		p.advise("what is different and not called rotten was edited: the next `mirror sync` carries it, but for what was edited on both sides, which is a conflict that it names and you resolve")
	case a.Sides[plan.Dest].Unedited:
		p.advise("what is different and not called rotten was edited: with overwrite: unedited the next `mirror sync` names it and leaves it alone where that was at the destination")
	default:
		p.advise("what is different and not called rotten was edited: the next `mirror sync` makes the destination like the source again, and no audit does")
	}
}
