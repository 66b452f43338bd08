// Package verdict turns attempts and ledgers into outage windows, achieved
// recovery times and points, and verdicts. It is pure: the same input gives the
// same output, on any machine, at any time, so an auditor can recompute every
// figure from a drill's events.
//
// All times are nanoseconds on one monotonic clock, the observer's. Every
// measured figure is an interval that contains the truth.
package verdict

import (
	"cmp"
	"fmt"

	"github.com/firedrill/firedrill/pkg/event"
)

// Verdict is the judgement of a phase or a drill.
type Verdict string

// The verdicts, from best to worst for a drill's total.
const (
	Pass         Verdict = "PASS"
	Fail         Verdict = "FAIL"
	Inconclusive Verdict = "INCONCLUSIVE"
	// Invalid says that the measurement, not the system, failed.
	Invalid Verdict = "INVALID"
)

// Outcome of an attempt.
type Outcome byte

// The outcomes, with the letters of event.ProbeBatch.
const (
	OK      Outcome = 'k'
	Failed  Outcome = 'f'
	Unknown Outcome = 'u'
	Skipped Outcome = 's'
	// Unsent was held back by the probe, with nothing sent: bad to its users, and no
	// evidence.
	Unsent Outcome = 'n'
)

// Attempt is one attempt of a lane. A skipped slot has Started and Completed
// equal to Scheduled.
type Attempt struct {
	Seq       int64
	Scheduled int64
	Started   int64
	Completed int64
	// Asked is how long after Started it asked, once it had a connection.
	Asked int64
	// Observed is, for read lanes, the highest canary seen.
	Observed int64
	// Deadline is the D that was in force for it; 0 stands for the lane's.
	Deadline int64
	Outcome  Outcome
	// Extra says that it was made besides the schedule, because the service was
	// down. It is evidence like any other, and no slot: availability, rate, latency
	// and jitter leave it out, which would else depend on how often was asked.
	Extra bool
	// Connected says that it asked by a connection that was begun no earlier than it
	// was (assumption 5). Those of all lanes but pooled ones do, said or not.
	Connected bool
	// unanswered says that nobody answered it, late that it asked too late for that to
	// show anything (assumption 3).
	unanswered, late bool
}

// Bad reports whether the attempt counts as down: anything but OK.
func (a Attempt) Bad() bool { return a.Outcome != OK }

// shows reports whether an attempt is evidence of anything (assumption 3).
func (a Attempt) shows() bool { return a.Outcome != Skipped && a.Outcome != Unsent && !a.late }

// judged is the attempt of a lane with a deadline, with what follows of that or, where it
// had one of its own, of that one.
func (a Attempt) judged(deadline int64) Attempt {
	deadline = cmp.Or(a.Deadline, deadline)
	a.unanswered = a.Outcome == Unknown || a.Outcome == Failed && a.Completed-a.Started >= deadline
	a.late = a.unanswered && a.Asked > deadline/4
	return a
}

// Shows reports whether an attempt of the lane is evidence of how the service was: one that
// was skipped or held back is not, nor is one that nobody answered and that asked too late
// for that to show anything.
func (l Lane) Shows(a Attempt) bool { return a.judged(l.Deadline).shows() }

// speaks reports whether an attempt of a lane speaks for the service, and not only for
// the connection that it met (assumption 5).
func (a Attempt) speaks(lane string) bool { return lane != lanePooled || a.Connected }

// answered is how long the answer took, without what came before it was asked for.
func (a Attempt) answered() int64 { return a.Completed - a.Started - a.Asked }

// Lane is all that one lane of one probe did during a phase, ordered by Seq and
// by Scheduled.
type Lane struct {
	// Phase and Target are as in event.ProbeBatch, for people; they decide nothing.
	Phase  string
	Target string
	// Clock names the monotonic clock of the times.
	Clock string
	Probe string
	// Kind is write or read.
	Kind string
	// Name is pooled or fresh.
	Name  string
	Epoch int64
	// Deadline is D: an ok attempt that took longer, from its schedule, misses it. It is
	// the largest that was in force, which it is raised to once the baseline is known.
	Deadline int64
	// Reads is as in event.ProbeBatch: for read lanes, the probe whose pooled
	// lane's canaries Observed numbers. StaleReads says what empty means.
	Reads    string
	Attempts []Attempt
}

// ID names the lane among those of a phase: "probe/lane".
func (l Lane) ID() string { return l.Probe + "/" + l.Name }

// FaultTime is a fault's [f0,f1], already on the observer's clock and widened
// by the error of the clock comparison.
type FaultTime struct {
	Step   string
	F0, F1 int64
	Proven bool
	How    string
}

// Input is all that a phase's measurement is made from.
type Input struct {
	Lanes  []Lane
	Faults []FaultTime
	// Outside are lanes without an attempt in the window, such as those of an
	// observer that was replaced before it: only their ledgers are compared.
	Outside []Lane
	// Foreign are lanes on another clock than the measurement's, such as those of an
	// observer on another machine: only the numbers of their ledgers are compared, for
	// their times cannot be.
	Foreign []Lane
	// BaselineFrom to the first fault is the baseline; From to Until is the
	// window that is measured (steady state to the end of settling, before any
	// restore begins).
	From, Until int64
	// StableWindow is W.
	StableWindow int64
	// RTO is the objective; 0 means none.
	RTO int64
	// Availability is the objective in percent; 0 means none.
	Availability float64
	// RPORecords and RPOTime are objectives; nil means not judged.
	RPORecords *int64
	RPOTime    *int64
	// Ledgers are the lanes' ledgers as found by checks; empty when none was read.
	Ledgers []Ledger
	// Invalidities are reasons known elsewhere (an observer or injector replaced
	// in mid-measurement): any makes the phase INVALID.
	Invalidities []string
}

// Ledger pairs a write lane with what the target was found to hold of it.
type Ledger struct {
	Probe, Lane string
	Epoch       int64
	// UpTo is the cut: only attempts up to it are compared.
	UpTo       int64
	Present    event.Ranges
	Duplicates map[int64]int64
}

// Outage is one window without service on a lane.
type Outage struct {
	Probe string `json:"probe"`
	Lane  string `json:"lane"`
	// Start and End are the moments as intervals on the observer's clock.
	Start event.Interval `json:"start"`
	End   event.Interval `json:"end"`
	// Length is End minus Start.
	Length event.Interval `json:"length"`
	// FirstBad and LastBad are sequence numbers.
	FirstBad int64 `json:"first_bad"`
	LastBad  int64 `json:"last_bad"`
	// Fault is the step of the fault it follows; empty when none preceded it.
	Fault string `json:"fault,omitempty"`
}

// Latency are percentiles in nanoseconds, from the schedule (no coordinated
// omission). -1 stands for +inf: so many attempts failed that the percentile is
// a failure.
type Latency struct {
	P50 int64 `json:"p50_ns"`
	P95 int64 `json:"p95_ns"`
	P99 int64 `json:"p99_ns"`
	Max int64 `json:"max_ns"`
}

// LaneResult is what one lane showed.
type LaneResult struct {
	Probe     string `json:"probe"`
	Kind      string `json:"kind"`
	Lane      string `json:"lane"`
	Epoch     int64  `json:"epoch"`
	Scheduled int64  `json:"scheduled"`
	OK        int64  `json:"ok"`
	Failed    int64  `json:"failed"`
	Unknown   int64  `json:"unknown"`
	Skipped   int64  `json:"skipped"`
	// Unsent are the attempts that the probe held back.
	Unsent int64 `json:"unsent,omitempty"`
	// MetDeadline counts ok attempts within D of their schedule.
	MetDeadline int64 `json:"met_deadline"`
	// Availability is MetDeadline/Scheduled in percent.
	Availability float64 `json:"availability"`
	// MinAvailability is the worst one-second bucket's, in percent.
	MinAvailability float64 `json:"min_availability"`
	Latency         Latency `json:"latency"`
	LatencyOK       Latency `json:"latency_ok_only"`
	// Baseline is the ok-only latency before the first fault.
	Baseline Latency  `json:"baseline"`
	Outages  []Outage `json:"outages,omitempty"`
	Flaps    int      `json:"flaps"`
	// Downtime is the sum of the outages' lengths.
	Downtime event.Interval `json:"downtime"`
	// RateShare is achieved/scheduled attempts; JitterP99 is started-scheduled.
	RateShare float64 `json:"rate_share"`
	JitterP99 int64   `json:"jitter_p99_ns"`
	// StaleReads are the ok reads that missed a canary acknowledged before they
	// began; -1 when that cannot be said: no read was ok, or nobody knows which
	// canaries were read.
	StaleReads int64 `json:"stale_reads,omitempty"`
}

// FaultResult is the achieved recovery after one fault.
type FaultResult struct {
	Step string `json:"step"`
	// TTFS is the time to the first success, TTStable to the first ok of the
	// stable stretch, each from the fault; over all lanes, the slowest decides.
	TTFS     event.Interval `json:"ttfs"`
	TTStable event.Interval `json:"ttstable"`
	// NeverFailed is true when no lane saw a bad attempt; TTStable is then
	// [0, largest ok-to-ok gap around the fault].
	NeverFailed bool `json:"never_failed,omitempty"`
	// Censored is true when the next fault came before stability.
	Censored bool `json:"censored,omitempty"`
	// Decisive names the lane that decided, "probe/lane".
	Decisive string `json:"decisive,omitempty"`
	// Slow are the lanes whose latency alone put TTStable off: they answered, and
	// all else was over before they did so in time.
	Slow []Slowness `json:"slow,omitempty"`
}

// Slowness is what kept a lane unstable although its attempts succeeded. All
// figures are nanoseconds.
type Slowness struct {
	Probe string `json:"probe"`
	Lane  string `json:"lane"`
	// Baseline is the lane's 95th percentile of successes before the first fault,
	// Limit the highest one that counts as recovered.
	Baseline int64 `json:"baseline_p95_ns"`
	Limit    int64 `json:"limit_p95_ns"`
	// P95 is the highest 95th percentile of a stable window that an ok attempt
	// after the fault, and after the lane's last bad one, would else have begun.
	P95    int64 `json:"p95_ns"`
	Window int64 `json:"window_ns"`
}

// LedgerResult compares one lane's acknowledgements with what was found.
type LedgerResult struct {
	Probe string `json:"probe"`
	Lane  string `json:"lane"`
	Epoch int64  `json:"epoch"`
	Acked int64  `json:"acked"`
	// Lost was acknowledged and is not present.
	Lost event.Ranges `json:"lost,omitempty"`
	// Recovered was unknown or failed to the client and is present.
	Recovered event.Ranges `json:"recovered,omitempty"`
	// Phantom is present and was never attempted.
	Phantom event.Ranges `json:"phantom,omitempty"`
	// Duplicate was found more than once.
	Duplicate event.Ranges `json:"duplicate,omitempty"`
	// RPA is the achieved recovery point in time: with losses
	// [f0 - c(first lost), f1 - a(last acked survivor before it)]; without,
	// [0, f1 - a(last acked before the fault)].
	RPA event.Interval `json:"rpa"`
}

// Judgement is one judged line: what was wanted, what was found, and why.
type Judgement struct {
	// Of is rto, rpo-records, rpo-time, availability, validity.
	Of      string  `json:"of"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`
}

// Problem is one thing that makes a measurement INVALID.
type Problem struct {
	// Probe, Lane and Epoch name the lane that it is about; of the whole
	// measurement, they are empty.
	Probe string `json:"probe,omitempty"`
	Lane  string `json:"lane,omitempty"`
	Epoch int64  `json:"epoch,omitempty"`
	// Kind is what it comes from; empty where that is none of the Kinds.
	Kind ProblemKind `json:"kind,omitempty"`
	Text string      `json:"text"`
}

// ProblemKind is what a problem comes from, for those who handle some differently.
type ProblemKind string

// The kinds.
const (
	// KindEdge: a lane's attempts begin too late, or end too early.
	KindEdge ProblemKind = "edge"
	// KindSchedule: the observer did not keep its schedule.
	KindSchedule ProblemKind = "schedule"
	// KindUnproven: a fault was not shown to have taken effect.
	KindUnproven ProblemKind = "unproven"
)

// String names the lane and the problem.
func (p Problem) String() string {
	if p.Probe == "" {
		return p.Text
	}
	return fmt.Sprintf("lane %s/%s: %s", p.Probe, p.Lane, p.Text)
}

// Measurement is a phase's result.
type Measurement struct {
	Verdict Verdict `json:"verdict"`
	// Problems are those that the measurement itself found, beyond the
	// invalidities it was given.
	Problems   []Problem      `json:"problems,omitempty"`
	Judgements []Judgement    `json:"judgements"`
	Faults     []FaultResult  `json:"faults"`
	Lanes      []LaneResult   `json:"lanes"`
	Ledgers    []LedgerResult `json:"ledgers,omitempty"`
	// RPA is the achieved recovery point over all ledgers; nil when none was compared.
	RPA *event.Interval `json:"rpa,omitempty"`
	// Downtime is the union over lanes of all outages.
	Downtime event.Interval `json:"downtime"`
}
