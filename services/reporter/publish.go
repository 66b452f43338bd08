package reporter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// FileEvents is the file with the messages that the report was folded from.
const FileEvents = "events.jsonl"

// appendTries bounds how often a report is folded anew because something was
// still written into the finished drill.
const appendTries = 20

// Result is the answer to a request when its drill is over, on
// drill.res.<who>.<name>.
type Result struct {
	// State is finished.
	State   string          `json:"state"`
	Drill   string          `json:"drill"`
	Verdict verdict.Verdict `json:"verdict"`
	// Complete is false when the drill was cut short.
	Complete bool             `json:"complete"`
	Summary  []string         `json:"summary"`
	Phases   []PhaseResult    `json:"phases"`
	Request  event.RequestRef `json:"request"`
	// Files maps each file of the report to the hex SHA-256 of its bytes.
	Files map[string]string `json:"files"`
}

// PhaseResult is a phase's line of a Result.
type PhaseResult struct {
	Name     string          `json:"name"`
	Verdict  verdict.Verdict `json:"verdict"`
	Achieved string          `json:"achieved,omitempty"`
}

// history is a drill's stored messages with what is needed to append to them.
// Each message is verified by the bus and decoded by it; neither is done again.
type history struct {
	drill     string
	keys      event.Keyring
	intake    fold.Intake
	tail      bus.Tail
	published *event.ReportPublished
	// closing is the stored event that holds published.
	closing  []byte
	finished bool
	// aborting is true once the drill was aborted.
	aborting bool
}

func (s *service) newHistory(drill string) *history { return &history{drill: drill, keys: s.Keyring} }

// add takes in what the bus read: the next message after the ones before.
func (h *history) add(s bus.Stored) {
	h.tail = s.Tail()
	if s.Trust != nil {
		// The bus sets aside more than bad signatures: what lies on a foreign subject,
		// or does not continue the chain. The report's own proof tells these apart
		// from the bytes alone, as whoever verifies the exported file must.
		h.intake.Add(event.OpenMessage(s.Raw, h.keys), nil)
		return
	}
	h.intake.Add(event.Opened{Raw: s.Raw, Event: s.Event, Hash: s.Tail().Hash}, s.Payload)
	switch p := s.Payload.(type) {
	case *event.AbortRequested:
		h.aborting = true
	case *event.DrillFinished:
		h.finished = true
	case *event.ReportPublished:
		h.published, h.closing = p, s.Raw
	}
}

// refresh reads what was stored since. A drill without a message stays empty.
func (h *history) refresh(ctx context.Context, b *bus.Bus) error {
	var more []bus.Stored
	var err error
	if h.intake.Len() == 0 {
		more, err = b.History(ctx, h.drill)
	} else {
		more, err = b.HistoryAfter(ctx, h.drill, h.tail)
	}
	// What was read before an error is kept: a reader that is cut short each time
	// must get on all the same.
	for _, m := range more {
		h.add(m)
	}
	if err != nil && !errors.Is(err, bus.ErrNoDrill) {
		return fmt.Errorf("read drill %s: %w", h.drill, err)
	}
	return nil
}

// handleFinished reports one finished drill. It may be handed the same drill any
// number of times, by several reporters at once: the compare-and-set of
// report.published lets exactly one of them publish.
func (s *service) handleFinished(ctx context.Context, m bus.Message) error {
	stored, err := m.Event()
	if err != nil {
		s.Log.Warn("a drill.finished that no service signed is ignored", "subject", m.Subject, "sequence", m.Seq, "error", err)
		return nil
	}
	id := stored.Event.Subject
	h, err := s.settled(ctx, id)
	if err != nil {
		return fmt.Errorf("read finished drill %s: %w", id, err)
	}
	for range appendTries {
		if !h.finished {
			s.Log.Warn("a drill.finished outside its drill's chain is ignored", "drill", id, "sequence", m.Seq)
			return nil
		}
		done, err := s.publish(ctx, h)
		if done || err != nil {
			return err
		}
		if err := h.refresh(ctx, s.Bus); err != nil {
			return err
		}
	}
	return fmt.Errorf("report drill %s: events were still being written after %d tries", id, appendTries)
}

// publish folds, writes and announces. It is false when the drill moved on
// meanwhile.
func (s *service) publish(ctx context.Context, h *history) (bool, error) {
	report, files, err := compose(&h.intake)
	if err != nil {
		return false, bus.Poison(fmt.Errorf("report drill %s: %w", h.drill, err))
	}
	hashes := hashesOf(files)
	if h.published != nil {
		return true, s.repeat(ctx, report, files, h.published, h.closing)
	}
	if err := s.write(h.drill, files); err != nil {
		return false, err
	}
	closing, err := s.Bus.AppendAt(ctx, h.drill, h.tail, event.Draft{Type: event.TypeReportPublished, Data: event.ReportPublished{
		Verdict: string(report.Verdict), Files: hashes, Of: report.Verification.Of,
	}})
	if errors.Is(err, bus.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("append report.published to drill %s: %w", h.drill, err)
	}
	if err := s.close(h.drill, files, closing[0].Raw); err != nil {
		return false, err // tried again: the history is closed, the file is made good
	}
	s.Log.Info("report published", "drill", h.drill, "verdict", string(report.Verdict), "issues", len(report.Issues))
	if err := s.emitTrace(ctx, report); err != nil {
		s.Log.Warn("the drill's trace could not be exported", "drill", h.drill, "error", err)
	}
	return true, s.announce(ctx, report, hashes)
}

// repeat makes good what the one who published may have died before: the files
// here, and the answer. A report that this version would write otherwise stays
// as it was published.
func (s *service) repeat(ctx context.Context, r fold.Report, files map[string][]byte, p *event.ReportPublished, closing []byte) error {
	if maps.Equal(hashesOf(files), p.Files) {
		if err := s.write(r.ID, files); err != nil {
			return err
		}
		if err := s.close(r.ID, files, closing); err != nil {
			return err
		}
	}
	r.Verdict = verdict.Verdict(p.Verdict)
	return s.announce(ctx, r, p.Files)
}

// close completes the exported history with the event that closes it, so that
// the file can be verified by itself. Its hash in report.published is that of the
// lines before.
func (s *service) close(drill string, files map[string][]byte, closing []byte) error {
	whole := bytes.NewBuffer(bytes.Clone(files[FileEvents]))
	if err := fold.Export(whole, [][]byte{closing}); err != nil {
		return err
	}
	return s.write(drill, map[string][]byte{FileEvents: whole.Bytes()})
}

// compose folds the messages and renders every file of the report.
func compose(n *fold.Intake) (fold.Report, map[string][]byte, error) {
	report, err := n.Report()
	if err != nil {
		return fold.Report{}, nil, err
	}
	files, err := render.All(report)
	if err != nil {
		return fold.Report{}, nil, err
	}
	if files[FileEvents], err = exported(n); err != nil {
		return fold.Report{}, nil, err
	}
	return report, files, nil
}

// exported is FileEvents.
func exported(n *fold.Intake) ([]byte, error) {
	var events bytes.Buffer
	if err := fold.Export(&events, n.Folded()); err != nil {
		return nil, err
	}
	return events.Bytes(), nil
}

func hashesOf(files map[string][]byte) map[string]string {
	out := map[string]string{}
	for name, data := range files {
		sum := sha256.Sum256(data)
		out[name] = hex.EncodeToString(sum[:])
	}
	return out
}

// announce answers the request. The message id is the drill's, so that an answer
// that is given again after a crash is stored once.
func (s *service) announce(ctx context.Context, r fold.Report, files map[string]string) error {
	who, name, ok := bus.ReadRequestSubject(r.Request.Subject)
	if !ok {
		who, name = r.Requester, r.Name
	}
	out := Result{State: fold.StateFinished, Drill: r.ID, Verdict: r.Verdict, Complete: r.Complete, Summary: r.Summary, Phases: []PhaseResult{}, Request: r.Request, Files: files}
	for _, p := range r.Phases {
		line := PhaseResult{Name: p.Name, Verdict: p.Verdict}
		if i := slices.IndexFunc(p.Results, func(x fold.Result) bool { return x.Of == verdict.OfRTO }); i >= 0 {
			line.Achieved = p.Results[i].Achieved
		}
		out.Phases = append(out.Phases, line)
	}
	data, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("result of drill %s: %w", r.ID, err)
	}
	if _, err := s.Bus.Publish(ctx, "drill.res."+who+"."+name, data, "result-"+r.ID); err != nil {
		return fmt.Errorf("announce the report of drill %s: %w", r.ID, err)
	}
	return nil
}
