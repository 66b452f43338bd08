package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// What a judgement is of.
const (
	OfValidity     = "validity"
	OfRTO          = "rto"
	OfRPORecords   = "rpo-records"
	OfRPOTime      = "rpo-time"
	OfAvailability = "availability"
)

// judge fills in the judgements and the verdict: INVALID if the measurement is,
// else the worst judgement. The other judgements stand even then, for people.
func (m *measuring) judge() {
	m.checkLanes()
	j := &m.out.Judgements
	if m.invalid() {
		whys := slices.Clone(m.in.Invalidities)
		for _, p := range m.out.Problems {
			whys = append(whys, p.String())
		}
		*j = append(*j, Judgement{Of: OfValidity, Verdict: Invalid, Why: strings.Join(whys, "; ")})
	} else {
		*j = append(*j, Judgement{Of: OfValidity, Verdict: Pass, Why: "the observer kept its schedule and every fault is proven"})
	}
	if m.in.RTO > 0 {
		*j = append(*j, m.judgeRTO())
	}
	if m.in.RPORecords != nil {
		*j = append(*j, m.judgeRecords())
	}
	if m.in.RPOTime != nil {
		*j = append(*j, m.judgeRPOTime())
	}
	if m.in.Availability > 0 {
		*j = append(*j, m.judgeAvailability())
	}
	if len(*j) == 1 {
		*j = append(*j, Judgement{Of: OfRTO, Verdict: Inconclusive, Why: "the phase has no objective"})
	}
	m.out.Verdict = Pass
	for _, x := range *j {
		m.out.Verdict = worse(m.out.Verdict, x.Verdict)
	}
	if m.invalid() {
		m.out.Verdict = Invalid
	}
}

// worse returns the one that decides: FAIL, then INVALID, INCONCLUSIVE, PASS.
func worse(x, y Verdict) Verdict {
	for _, v := range []Verdict{Fail, Invalid, Inconclusive} {
		if x == v || y == v {
			return v
		}
	}
	return Pass
}

// against compares an achieved interval with an objective.
func against(i event.Interval, objective int64) Verdict {
	switch {
	case i.Lo > objective:
		return Fail
	case !i.Open && i.Hi <= objective:
		return Pass
	}
	return Inconclusive
}

// Show writes an interval of nanoseconds for people: "1.2s to 1.3s", or "> 1.2s"
// when it is open. The lower end is rounded down and the upper end up, so that what
// is shown still contains the truth.
func Show(i event.Interval) string {
	lo := i.Lo - ((i.Lo%grain)+grain)%grain
	if i.Open {
		return "> " + time.Duration(lo).String()
	}
	hi := i.Hi + ((-i.Hi%grain)+grain)%grain
	return time.Duration(lo).String() + " to " + time.Duration(hi).String()
}

// grain is how finely Show writes, in nanoseconds.
const grain = int64(100 * time.Microsecond)

func (m *measuring) judgeRTO() Judgement {
	out := Judgement{Of: OfRTO, Verdict: Pass}
	var whys []string
	if len(m.out.Faults) == 0 {
		out.Verdict, whys = Inconclusive, append(whys, "no fault was injected")
	}
	for i, f := range m.out.Faults {
		v, why := against(f.TTStable, m.in.RTO), ""
		switch whole, ok := m.chain(i); {
		case !f.Censored:
			why = fmt.Sprintf("%s: stable after %s", f.Step, Show(f.TTStable))
			if f.TTStable.Open {
				why = fmt.Sprintf("%s: not stable within the measured window, so after %s", f.Step, Show(f.TTStable))
			}
		case ok && whole <= m.in.RTO:
			v = Pass
			why = fmt.Sprintf("%s: the next fault came before stability, but both were over %s after it at the latest", f.Step, show(whole))
		default:
			why = fmt.Sprintf("%s: stable after %s; the next fault came first", f.Step, Show(f.TTStable))
		}
		out.Verdict = worse(out.Verdict, v)
		whys = append(whys, why)
		if len(f.Slow) > 0 {
			whys = append(whys, "until then too slow: "+joinSlow(f.Slow))
		}
	}
	out.Why = fmt.Sprintf("objective %s; %s", show(m.in.RTO), strings.Join(whys, "; "))
	return out
}

// String says which lane was slow, how slow, and what counts as recovered.
func (s Slowness) String() string {
	return fmt.Sprintf("%s/%s (p95 over %s up to %s, at most %s is stable, baseline %s)",
		s.Probe, s.Lane, show(s.Window), show(s.P95), show(s.Limit), show(s.Baseline))
}

func joinSlow(all []Slowness) string {
	var out []string
	for _, s := range all {
		out = append(out, s.String())
	}
	return strings.Join(out, ", ")
}

// chain bounds a censored fault's recovery by that of the fault which ended the
// chain: when all of them were over, this one was.
func (m *measuring) chain(i int) (int64, bool) {
	for j := i + 1; j < len(m.out.Faults); j++ {
		if s := m.out.Faults[j].TTStable; !s.Open {
			return m.faults[j].F0 + s.Hi - m.faults[i].F0, true
		}
	}
	return 0, false
}

// judgeRecords counts lost records: over all lanes, each with the most that any
// of its ledgers missed.
func (m *measuring) judgeRecords() Judgement {
	type book struct {
		probe, lane string
		epoch       int64
	}
	lost := map[book]int64{}
	for _, l := range m.out.Ledgers {
		id := book{l.Probe, l.Lane, l.Epoch}
		lost[id] = max(lost[id], l.Lost.Len())
	}
	var sum int64
	for _, n := range lost {
		sum += n
	}
	want := *m.in.RPORecords
	out := Judgement{Of: OfRPORecords, Verdict: Pass, Why: fmt.Sprintf("objective %d lost; %d acknowledged writes are not there", want, sum)}
	switch missing := m.unread(); {
	case sum > want:
		out.Verdict = Fail
	case missing != "":
		out.Verdict = Inconclusive
		out.Why += "; " + missing
	}
	return out
}

func (m *measuring) judgeRPOTime() Judgement {
	want := *m.in.RPOTime
	if missing := m.unread(); m.out.RPA == nil {
		return Judgement{Of: OfRPOTime, Verdict: Inconclusive, Why: fmt.Sprintf("objective %s; %s", show(want), missing)}
	}
	worst := *m.out.RPA
	out := Judgement{Of: OfRPOTime, Verdict: against(worst, want), Why: fmt.Sprintf("objective %s; achieved %s", show(want), Show(worst))}
	if missing := m.unread(); missing != "" && out.Verdict == Pass {
		out.Verdict = Inconclusive
		out.Why += "; " + missing
	}
	return out
}

// unread names the write lanes of which no ledger was compared, or "".
func (m *measuring) unread() string {
	read, claims := map[LaneKey]bool{}, map[int64]bool{}
	for _, l := range m.out.Ledgers {
		read[LaneKey{l.Probe, kindWrite, l.Lane, l.Epoch}] = true
	}
	for _, l := range m.in.Lanes {
		claims[l.Epoch] = true
	}
	var without []string
	for _, l := range m.in.Lanes {
		if l.Kind != kindWrite || read[LaneKey{l.Probe, kindWrite, l.Name, l.Epoch}] {
			continue
		}
		id := l.ID()
		if len(claims) > 1 {
			id += fmt.Sprintf(" of the observer's claim %d", l.Epoch)
		}
		without = append(without, id)
	}
	switch {
	case len(without) > 0:
		return "no ledger was read of " + strings.Join(without, ", ")
	case len(read) == 0:
		return "no ledger was read"
	}
	return ""
}

func (m *measuring) judgeAvailability() Judgement {
	want := m.in.Availability
	if len(m.out.Lanes) == 0 {
		return Judgement{Of: OfAvailability, Verdict: Inconclusive, Why: "no lane was measured"}
	}
	worst := m.out.Lanes[0]
	for _, l := range m.out.Lanes {
		if l.Availability < worst.Availability {
			worst = l
		}
	}
	out := Judgement{Of: OfAvailability, Verdict: Pass,
		Why: fmt.Sprintf("objective %g %%; the worst lane, %s/%s, met its deadline in %.3f %% of %d slots", want, worst.Probe, worst.Lane, worst.Availability, worst.Scheduled)}
	if worst.Availability < want {
		out.Verdict = Fail
	}
	return out
}
