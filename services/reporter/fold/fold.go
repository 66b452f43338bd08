package fold

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// ErrNoDrill means that the messages hold no trusted drill.accepted, so there is
// nothing to report on.
var ErrNoDrill = errors.New("no trusted drill.accepted among the messages; check the drill's id and the keyring")

// Fold turns a drill's raw messages, in the order of the stream, into its
// report. Messages that no service of the keyring signed are counted and
// otherwise ignored; report.published and whatever follows it is left out, so a
// published report can be folded again and comes out the same.
//
// A drill that is still running gives a report with State running, whose
// verdicts are provisional. Fold fails only with ErrNoDrill: whatever else is
// wrong with a history is said in the report. It never panics and keeps nothing.
func Fold(raws [][]byte, keys event.Keyring) (Report, error) {
	return OpenIntake(raws, keys).Report()
}

// report judges what was gathered.
func (h *history) report() Report {
	r := h.head()
	if r.Settles != "" {
		r.Settlement = foldSettlement(h)
		r.Verdict = r.Settlement.verdict(h)
	} else {
		for _, name := range h.phaseNames() {
			r.Phases = append(r.Phases, foldPhase(h, name))
		}
		r.Verdict = h.total(r.Phases)
	}
	r.Issues, r.ActionItems = issues(h, r)
	r.Summary = summarise(r)
	r.Agenda = agenda(r)
	return r
}

// JSON is the report as report.json holds it: indented, with a final newline,
// the same bytes for the same report.
func (r Report) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("report of drill %s as JSON: %w", r.ID, err)
	}
	return append(b, '\n'), nil
}

// head fills in what concerns the drill as a whole.
func (h *history) head() Report {
	d, a := h.drill, h.accepted
	r := Report{
		Format: FormatVersion, ID: h.first.event.Subject, Name: d.Metadata.Name, Title: d.Metadata.Title,
		Description: d.Spec.Description, Labels: d.Metadata.Labels, State: StateRunning,
		Requester: a.Requester, Request: a.Request, Participants: d.Spec.Participants,
		Accepted: h.first.event.Time, Ended: h.last.event.Time, Phases: []Phase{},
		Conduct: h.conduct, External: h.notes, Verification: h.verification,
		Plan: h.planned, SpecHash: a.SpecHash, Seed: a.Seed,
	}
	if json.Valid(a.Spec) {
		r.Spec = a.Spec
	}
	if r.Name == "" {
		r.Name = r.ID
	}
	if r.Title == "" {
		r.Title = r.Name
	}
	if r.Settles = a.Settles; r.Settles != "" {
		r.Title, r.Description = SettlesTitle(r.Settles, r.Title), "It injects nothing: it undoes what that drill had left."
	}
	if r.Participants == nil {
		r.Participants = []string{}
	}
	if r.Conduct.Leases == nil {
		r.Conduct.Leases = []Lease{}
	}
	if r.Conduct.Observers == nil {
		r.Conduct.Observers = []Observer{}
	}
	r.Conduct.Clocks = h.clockRows()
	if len(r.Verification.Unknown) == 0 {
		r.Verification.Unknown = nil
	}
	if h.finished != nil {
		r.State, r.Complete, r.Reason = StateFinished, h.finished.Complete, h.finished.Reason
		r.Outstanding = slices.Clone(h.finished.Outstanding)
		r.Ended = h.finishedAt.event.Time
	}
	r.Duration = int64(r.Ended.Sub(r.Accepted))
	return r
}

// total is the drill's verdict. While it runs, only phases that were judged
// count, and without any there is none yet.
func (h *history) total(phases []Phase) verdict.Verdict {
	if !h.sound {
		return verdict.Invalid
	}
	var judged []verdict.Measurement
	for _, p := range phases {
		if p.Verdict != "" {
			judged = append(judged, verdict.Measurement{Verdict: p.Verdict})
		}
	}
	if len(judged) == 0 && h.finished == nil {
		return ""
	}
	v := verdict.Total(judged)
	switch {
	case v == verdict.Pass && h.finished != nil && len(h.finished.Outstanding) > 0:
		return verdict.Fail
	case v == verdict.Pass && h.finished != nil && !h.finished.Complete:
		return verdict.Inconclusive // cut short after everything that was measured had passed
	}
	return v
}
