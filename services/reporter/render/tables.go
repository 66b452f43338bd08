package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// The report's tables, the same in Markdown and in HTML.
var (
	recoveryHead     = []string{"Phase", "Fault", "Target RTO", "Achieved", "First success", "Status"}
	splitHead        = []string{"Phase", "Fault", "Detect", "Fail over", "Restore service", "Stay stable, verify data"}
	availabilityHead = []string{"Phase", "Service", "Lane", "Availability", "Min availability (1 s)", "Latency P95", "P95 of successes", "Attempts", "Downtime", "Downtime after the window"}
	ledgerHead       = []string{"Phase", "Checked", "Lane", "Acknowledged", "Lost", "Recovery point", "Recovered", "Phantom", "Duplicate", "Lost numbers"}
	resultHead       = []string{"Judged", "Objective", "Achieved", "Status", "Why"}
	faultHead        = []string{"Fault", "Target", "Operation", "Parts", "When", "Took", "Status", "Proof of effect"}
	actionHead       = []string{"Step", "Operation", "When", "Took", "Status", "Details"}
	outageHead       = []string{"Lane", "Stretch", "Began", "Ended", "Length", "Attempts", "Cause"}
	errorHead        = []string{"Lanes", "Error"}
	steadyHead       = []string{"When", "Status", "Watched for", "Reasons"}
	checkHead        = []string{"Check", "When", "Property", "Result", "Found", "Wanted", "Samples"}
	copyHead         = []string{"Copy", "From", "To", "Status", "Why", "Files", "Bytes", "Verified", "Root"}
	observerHead     = []string{"Lane", "Attempts made", "Scheduling jitter P99", "Skipped", "Stale reads"}
	conductHead      = []string{"What", "Who", "When", "Why"}
	settledHead      = []string{"Step", "Target", "Operation", "When", "Tries", "Took", "Status", "Details"}
	planHead         = []string{"Step", "Operation", "Parts", "Does", "Undo", "Dead man"}
)

// What the two tables count, which is not the same.
const (
	availabilityNote = "Counted are the scheduled attempts of the measured window, from the steady state to the stable service, and its downtime. What came after it, with the checks and the restore, is under “Downtime after the window” alone."
	ledgerNote       = "Counted are all writes up to the reading of the ledger, also those before the measured window and the extra attempts while the service was down: a few more or fewer than the table above has."
)

// errorTitle stands above the texts that errorRows lists.
const errorTitle = "What the failed attempts met, in full"

func recoveryRows(r fold.Report) [][]string {
	var rows [][]string
	for _, p := range r.Phases {
		target := fold.Never
		if p.Objective.RTO > 0 {
			target = fold.ShowDuration(p.Objective.RTO)
		}
		if len(p.Recovery) == 0 {
			rows = append(rows, []string{p.Title, fold.Never, target, fold.Never, fold.Never, orRunning(p)})
		}
		for _, x := range p.Recovery {
			rows = append(rows, []string{p.Title, x.Name, target, achieved(x), fold.Show(x.FirstSuccess), status(x.Status)})
		}
	}
	return rows
}

func achieved(x fold.Recovery) string {
	s := fold.ShowRecovery(x)
	if x.NeverFailed && !x.Achieved.Open {
		s += " (no attempt failed)"
	}
	if x.Censored {
		s += " (cut off by the next fault)"
	}
	for _, l := range x.Slow {
		s += fmt.Sprintf("\n%s/%s was too slow until then: P95 %s, limit %s, baseline %s", l.Probe, l.Lane, fold.ShowLatency(l.P95), fold.ShowLatency(l.Limit), fold.ShowLatency(l.Baseline))
	}
	return s
}

func splitRows(r fold.Report) [][]string {
	var rows [][]string
	for _, p := range r.Phases {
		for _, x := range p.Recovery {
			s := x.Splits
			rows = append(rows, []string{p.Title, x.Name, fold.ShowFigure(s.Detect), fold.ShowFigure(s.Failover), fold.ShowFigure(s.Restore), fold.ShowFigure(s.Verify)})
		}
	}
	return rows
}

func availabilityRows(r fold.Report) [][]string {
	var rows [][]string
	for _, p := range r.Phases {
		for _, l := range p.Availability {
			rows = append(rows, []string{p.Title, service(l), l.Lane + suffixIf(l.Observer, " (%s)"), fold.ShowPercent(l.LaneResult.Availability), fold.ShowPercent(l.MinAvailability),
				fold.ShowLatency(l.Latency.P95), fold.ShowLatency(l.LatencyOK.P95), fold.ShowCount(l.Scheduled), fold.Show(l.Downtime), fold.ShowFigure(l.After)})
		}
	}
	return rows
}

func service(l fold.LaneRow) string {
	if l.Target == "" {
		return l.Probe
	}
	return l.Target + ": " + l.Probe
}

func ledgerRows(r fold.Report) [][]string {
	var rows [][]string
	for _, p := range r.Phases {
		for _, l := range p.Ledgers {
			when := l.Step[strings.LastIndex(l.Step, "/")+1:]
			rows = append(rows, []string{p.Title, when, l.Probe + "/" + l.Lane + suffixIf(l.Observer, " (%s)"), fold.ShowCount(l.Acked), fold.ShowCount(l.LostCount), recoveryPoint(l.RPA),
				fold.ShowCount(l.RecoveredCount), fold.ShowCount(l.PhantomCount), fold.ShowCount(l.DuplicateCount), fold.ShowRanges(l.Lost, 5)})
		}
	}
	return rows
}

// recoveryPoint shows how far before the fault the data end; of writes that were
// all made after it, nothing can be said.
func recoveryPoint(i event.Interval) string {
	if i.Open && i.Lo == 0 {
		return fold.Never
	}
	return fold.Show(i)
}

func resultRows(rs []fold.Result) [][]string {
	var rows [][]string
	for _, x := range rs {
		rows = append(rows, []string{fold.Subject(x.Of), x.Objective, x.Achieved, status(x.Verdict), x.Why})
	}
	return rows
}

// offset writes a moment as a distance from the fault.
func offset(ns int64) string {
	if ns < 0 {
		return "−" + fold.ShowDuration(-ns)
	}
	return "+" + fold.ShowDuration(ns)
}

func offsets(i event.Interval) string {
	if i.Open {
		return "not seen"
	}
	lo, hi := offset(i.Lo), offset(i.Hi)
	if lo == hi {
		return lo
	}
	return lo + " – " + hi
}

func faultRows(p fold.Phase) [][]string {
	var rows [][]string
	for _, f := range p.Faults {
		proof := f.Proof.How
		if !f.Proof.Proven {
			proof = "none" + suffixIf(proof, ": %s")
		}
		state := f.Status + suffixIf(f.Reason, ": %s")
		rows = append(rows, []string{f.Name, f.Target, f.Operation, parts(f.Parts), fold.ShowTime(f.At), fold.ShowDuration(f.To - f.From), state, proof})
	}
	return rows
}

func settledRows(s *fold.Settlement) [][]string {
	var rows [][]string
	for _, u := range s.Undos {
		took := fold.Never
		if u.Status == "done" {
			took = fold.ShowDuration(u.Took)
		}
		why := strings.Join(slices.Compact(slices.Clone(u.Reasons)), "; ")
		rows = append(rows, []string{u.Step, orNone(u.Target), orNone(u.Operation), fold.ShowTime(u.At), number(int64(u.Tries)), took, u.Status, details(u.Details, why)})
	}
	return rows
}

func steadyRows(p fold.Phase) [][]string {
	var rows [][]string
	for _, s := range p.Steady {
		watched := fold.Never
		if s.Window > 0 {
			watched = fold.ShowDuration(s.Window)
		}
		rows = append(rows, []string{s.When, s.Status, watched, fold.ShowUnits(orDash(steadyReasons(s)))})
	}
	return rows
}

// steadyReasons adds what was before the window that was steady.
func steadyReasons(s fold.Steady) []string {
	if s.Earlier == nil {
		return s.Reasons
	}
	return append(slices.Clone(s.Reasons), fmt.Sprintf("before that, and before the fault, the service was down for %s", fold.Show(*s.Earlier)))
}

func checkRows(cs []fold.CheckRun) [][]string {
	var rows [][]string
	for _, c := range cs {
		for _, q := range c.Properties {
			rows = append(rows, []string{c.Check, c.When, q.Name, q.Result, q.Found, orNone(q.Wanted), lines(q.Samples)})
		}
	}
	return rows
}

// maxSample bounds a sample in a table, in characters; report.json has it whole.
const maxSample = 160

// lines writes samples, one a line.
func lines(samples []string) string {
	var out []string
	for _, s := range samples {
		out = append(out, fold.CutText(strings.Join(strings.Fields(s), " "), maxSample))
	}
	return orNone(strings.Join(out, "\n"))
}

func copyRows(p fold.Phase) [][]string {
	var rows [][]string
	for _, c := range p.Copies {
		from, to := c.From, c.To
		if c.Mirror != "" {
			from, to = "mirror "+c.Mirror, fold.Never
		}
		rows = append(rows, []string{c.Step, from, to, c.Status, orNone(c.Reason), fold.ShowCount(c.Files), fold.ShowCount(c.Bytes), orNone(c.Verified), orNone(c.Root)})
	}
	return rows
}

func observerRows(p fold.Phase) [][]string {
	var rows [][]string
	for _, l := range p.Availability {
		rows = append(rows, []string{l.Probe + "/" + l.Lane + suffixIf(l.Observer, " (%s)"), fold.ShowPercent(100 * l.RateShare), fold.ShowLatency(l.JitterP99), fold.ShowCount(l.Skipped), staleReads(l.StaleReads)})
	}
	return rows
}

// staleReads shows a lane's stale reads; that cannot always be said.
func staleReads(n int64) string {
	if n < 0 {
		return fold.Never
	}
	return fold.ShowCount(n)
}

func conductRows(r fold.Report) [][]string {
	rows := [][]string{{"request", fold.ShowRequester(r.Requester), fold.ShowTime(r.Accepted), fmt.Sprintf("%s, sequence %d", r.Request.Subject, r.Request.Sequence)}}
	if r.Settles != "" {
		rows = append(rows, []string{"settles", r.Settles, fold.Never, "its undos that had failed are tried again"})
	}
	for _, l := range r.Conduct.Leases {
		rows = append(rows, []string{fmt.Sprintf("injector, epoch %d", l.Epoch), l.Holder, fold.ShowTime(l.At), fold.ShowUnits(orNone(l.Reason))})
	}
	for _, o := range r.Conduct.Observers {
		rows = append(rows, []string{fmt.Sprintf("observer, claim %d", o.Epoch), o.Instance, fold.ShowTime(o.At), fold.Never})
	}
	for _, a := range r.Conduct.Approvals {
		rows = append(rows, []string{"approval", a, fold.Never, fold.Never})
	}
	for _, a := range r.Conduct.Aborts {
		rows = append(rows, []string{"abort (" + a.Cause + ")", a.By, fold.ShowTime(a.At), fold.ShowUnits(orNone(a.Reason))})
	}
	for _, c := range r.Conduct.Clocks {
		rows = append(rows, []string{"clock " + c.Name, fold.Never, fold.Never, fmt.Sprintf("offset %s ± %s", offset(c.Offset), fold.ShowDuration(c.Error))})
	}
	for _, n := range r.External {
		rows = append(rows, []string{"note", n.From, fold.ShowTime(n.At), n.Note})
	}
	return rows
}

func planRows(r fold.Report) [][]string {
	var rows [][]string
	if r.Plan == nil {
		return nil
	}
	for _, s := range r.Plan.Steps {
		dead := fold.Never
		if s.DeadMan > 0 {
			dead = fold.ShowDuration(int64(s.DeadMan))
		}
		does := strings.Join(s.Does, "; ") + suffixIf(s.Problem, " (problem: %s)")
		rows = append(rows, []string{s.Step, s.Operation, parts(s.Parts), orNone(does), orNone(s.Undo), dead})
	}
	return rows
}

func verificationRows(r fold.Report) [][]string {
	v := r.Verification
	whole := "every event is signed by its service and chained to the one before"
	if !v.Whole {
		whole = "no: see the findings"
	}
	unknown := "none"
	if len(v.Unknown) > 0 {
		var kinds []string
		for _, k := range slices.Sorted(maps.Keys(v.Unknown)) {
			kinds = append(kinds, fmt.Sprintf("%s (%d)", k, v.Unknown[k]))
		}
		unknown = strings.Join(kinds, ", ")
	}
	return [][]string{
		{"History whole", whole},
		{"Events", fmt.Sprintf("%d, of which %d trusted%s", v.Events, v.Trusted, notCounted(r))},
		{"Folded up to", fmt.Sprintf("chain index %d, SHA-256 %s", v.Of, orNone(v.Hash))},
		{"Events of unknown types", unknown},
	}
}

// notCounted names the event that the history has more than the report.
func notCounted(r fold.Report) string {
	if r.State == fold.StateRunning {
		return ", so far"
	}
	return "; report.published, which closes the history, comes after them: “firedrill verify” counts it too"
}

// definitions explain the figures that the report has.
func definitions(r fold.Report) [][2]string {
	if r.Settlement != nil {
		return [][2]string{
			{"Settlement", "a drill that injects nothing and undoes what an earlier one had left. It passes when nothing is left and the restore checks, where there are any, passed."},
			{"owed", "no undo of the step was tried."},
			{"INVALID", "the history is not whole, so that it proves nothing."},
		}
	}
	return [][2]string{
		{"Interval", "a figure is known to lie between the two ends; “≥” means that the end was not seen. It passes if its upper end is within the objective, fails if its lower end is beyond it, and is inconclusive in between."},
		{"Achieved recovery time", "from the fault to the first success from which on the service was stable, over the slowest lane."},
		{"Stable", fmt.Sprintf("for the phase's whole stable window no attempt of the lane failed, and of those that succeeded the 95th percentile of the latency (P95) was at most twice the baseline, or the baseline and %s where that is more. The baseline is the lane's P95 of successes before the first fault. An attempt that fails later starts the stretch anew. “Slow, not stable yet” means that attempts succeed, but not yet within that limit.", fold.ShowDuration(int64(verdict.LatencySlack)))},
		{"Detect, fail over, restore service, stay stable, verify data", "from the fault to the first recovery action (without one: to the first failed attempt); from there to the end of the last one (without one: to the first success); from there to the stable service; from there to the end of the data checks, which begin after the stable window."},
		{"Measured window", "from the begin of the steady state's window to a second after the service was seen to be stable, or to what cut the watching short; never into the restore."},
		{"Availability", "attempts that succeeded within their deadline, of all that were scheduled in the measured window; a slot that the observer skipped counts as bad. The minimum is the worst second's."},
		{"Downtime", "without service within the measured window; that after the window, up to the end of the phase, is given apart: it is mostly the way back's, and no objective judges it. The upper ends hold the time in which nobody watched, in the row of the observer before it. The lower ends leave out what an attempt that succeeded may have been served in, which an outage's length, from its begin to its end, does not."},
		{"Latency", "from the moment an attempt was scheduled, so that a hang is not hidden; a failed attempt counts as endless (+∞)."},
		{"Lost writes", "acknowledged to the client and not present afterwards. Acknowledged are all of the lane, from its first attempt, before the measured window, to the reading of the ledger, with the extra attempts that were made besides the schedule while the service was down; “Attempts” are the scheduled ones of the measured window alone. Recovered: not acknowledged and yet present. Phantom: present and never attempted."},
		{"Recovery point", "how far before the fault the surviving data ends. Without losses its upper end is the time since the last acknowledged write."},
		{"Put back", "every step that had an effect was undone, and the restore checks passed. “Undone; not checked”: no restore checks were completed."},
		{"INVALID", "the measurement, not the system, failed: no proof of the fault, a late observer, a drill cut short, or a history that is not whole. What was timed proves nothing then, and neither does that nothing was lost; writes that were counted as lost are, and FAIL."},
	}
}

func specText(r fold.Report) string {
	var b bytes.Buffer
	if len(r.Spec) == 0 || json.Indent(&b, r.Spec, "", "  ") != nil {
		return "(not readable)"
	}
	return b.String()
}

func clock(t time.Time) string {
	if t.IsZero() {
		return fold.Never
	}
	return t.UTC().Format("15:04:05")
}
