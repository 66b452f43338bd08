package reporter

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// errUnknownDrill means that no drill has the id, at least not yet.
var errUnknownDrill = errors.New("no such drill, or it was not accepted yet")

// States of a drill beyond those of its report.
const (
	// StateAborting is a running drill's that was aborted and is being put back.
	StateAborting = "aborting"
	// StatePublished is a finished drill's whose report is out.
	StatePublished = "published"
	// StateRejected is that of a request that became no drill.
	StateRejected = "rejected"
)

// Status is a drill's live state.
type Status struct {
	Drill string `json:"drill"`
	Title string `json:"title"`
	// Settles is the earlier drill whose undos this one carries out, if it does.
	Settles string `json:"settles,omitempty"`
	// State is running, aborting, finished or published.
	State string `json:"state"`
	// Verdict is what follows from the phases judged so far; empty without any.
	Verdict verdict.Verdict `json:"verdict"`
	// Phase is the open phase.
	Phase   string        `json:"phase,omitempty"`
	Phases  []PhaseStatus `json:"phases"`
	Summary []string      `json:"summary"`
	Issues  []fold.Issue  `json:"issues"`
	// Events counts what the report is folded from, so not report.published.
	Events int `json:"events"`
	// Reports are where the report can be had over HTTP, by format.
	Reports map[string]string `json:"reports,omitempty"`
}

// PhaseStatus is a phase's line of a Status.
type PhaseStatus struct {
	Name    string          `json:"name"`
	Title   string          `json:"title"`
	State   string          `json:"state"`
	Verdict verdict.Verdict `json:"verdict"`
	// Achieved is the recovery time so far, for people.
	Achieved string          `json:"achieved,omitempty"`
	Recovery []fold.Recovery `json:"recovery"`
}

// Line is a drill in a list, or a request that was rejected.
type Line struct {
	Drill     string `json:"drill"`
	Title     string `json:"title"`
	Requester string `json:"requester"`
	// Accepted is when the drill was accepted; when the request was made, of one that
	// was rejected.
	Accepted string `json:"accepted"`
	// State is running, aborting, finished, published or rejected.
	State   string `json:"state"`
	Verdict string `json:"verdict,omitempty"`
	// Rejection says why there is no drill, where State is rejected.
	Rejection *Rejection `json:"rejection,omitempty"`
}

// maxShelved bounds the drills whose messages or reports are kept in memory.
const maxShelved = 32

// shelf keeps what was read, folded and rendered of the drills that were asked for
// last, so that a page which is looked at every second costs the new events only.
type shelf struct {
	mu sync.Mutex
	m  map[string]*shelved
	// clock counts uses, to find what was not used for longest.
	clock int64
}

// shelved is one drill on the shelf. Its lock is held while it is refreshed, so
// that readers who come at once share the work.
type shelved struct {
	used int64

	mu sync.Mutex
	// history is nil once the drill is published: it will not change any more.
	history *history
	last    folded
	// of is the number of messages that last was folded from.
	of int
	// files are those of last that were asked for, by name.
	files map[string][]byte
}

type folded struct {
	report    fold.Report
	published bool
}

// take returns the drill's place on the shelf, and makes one if there is none.
func (c *shelf) take(drill string, fresh func() *history) *shelved {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	if d, ok := c.m[drill]; ok {
		d.used = c.clock
		return d
	}
	if c.m == nil {
		c.m = map[string]*shelved{}
	}
	if len(c.m) >= maxShelved {
		oldest := ""
		for name, d := range c.m {
			if oldest == "" || d.used < c.m[oldest].used {
				oldest = name
			}
		}
		delete(c.m, oldest)
	}
	d := &shelved{used: c.clock, history: fresh()}
	c.m[drill] = d
	return d
}

// drop takes a drill off the shelf.
func (c *shelf) drop(drill string, d *shelved) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m[drill] == d {
		delete(c.m, drill)
	}
}

// folded reports on a drill as it is now. Only events that were stored since the
// last time are read, verified and decoded; without any, the last report is given.
func (s *service) folded(ctx context.Context, drill string) (folded, error) {
	d, err := s.current(ctx, drill)
	if err != nil {
		return folded{}, err
	}
	defer d.mu.Unlock()
	return d.last, nil
}

// file is one file of a drill's report as it is now.
func (s *service) file(ctx context.Context, drill, name string) ([]byte, error) {
	d, err := s.current(ctx, drill)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	b, err := d.file(name)
	if err != nil {
		return nil, fmt.Errorf("%s of drill %s: %w", name, drill, err)
	}
	return b, nil
}

// current returns the drill's place on the shelf, locked, with the report of all
// messages that were stored before the call.
func (s *service) current(ctx context.Context, drill string) (*shelved, error) {
	d, err := s.refreshed(ctx, drill)
	if err != nil {
		return nil, err
	}
	if err := d.fold(); err != nil {
		d.mu.Unlock()
		if errors.Is(err, fold.ErrNoDrill) {
			err = errUnknownDrill
		}
		return nil, fmt.Errorf("report drill %s: %w", drill, err)
	}
	return d, nil
}

// fold brings the report up to the messages that were read. A published drill's
// messages are let go of; its export is kept instead.
func (d *shelved) fold() error {
	if d.history == nil || d.of == d.history.intake.Len() {
		return nil
	}
	h := d.history
	report, err := h.intake.Report()
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	if h.published != nil {
		if files[FileEvents], err = exported(&h.intake); err != nil {
			return err
		}
		d.history = nil
	}
	d.last, d.of, d.files = folded{report, h.published != nil}, h.intake.Len(), files
	return nil
}

// file is one file of the last report. Nothing is rendered that was not asked
// for, and nothing twice.
func (d *shelved) file(name string) (b []byte, err error) {
	if b, ok := d.files[name]; ok {
		return b, nil
	}
	if name == FileEvents {
		b, err = exported(&d.history.intake)
	} else {
		b, err = render.File(d.last.report, name)
	}
	if err == nil {
		d.files[name] = b
	}
	return b, err
}

// refreshed returns the drill's place on the shelf, locked, with all messages
// that were stored before the call.
func (s *service) refreshed(ctx context.Context, drill string) (*shelved, error) {
	if !event.IsDrillID(drill) {
		return nil, fmt.Errorf("drill %.60q: %w", drill, errUnknownDrill)
	}
	d := s.shelf.take(drill, func() *history { return s.newHistory(drill) })
	d.mu.Lock()
	if d.history == nil {
		return d, nil
	}
	err := d.history.refresh(ctx, s.Bus)
	if err == nil && d.history.intake.Len() == 0 {
		err = fmt.Errorf("drill %s: %w", drill, errUnknownDrill)
	}
	if err == nil {
		return d, nil
	}
	if d.history.intake.Len() == 0 {
		s.shelf.drop(drill, d) // whoever asks for drills that are none must not push out those that are
	}
	d.mu.Unlock()
	return nil, err
}

func statusOf(r folded) Status {
	rep := r.report
	out := Status{Drill: rep.ID, Title: rep.Title, Settles: rep.Settles, State: rep.State, Verdict: rep.Verdict, Summary: rep.Summary, Issues: rep.Issues, Events: rep.Verification.Events, Phases: []PhaseStatus{}}
	switch {
	case r.published:
		out.State = StatePublished
	case rep.State == fold.StateRunning && len(rep.Conduct.Aborts) > 0:
		out.State = StateAborting
	}
	for _, p := range rep.Phases {
		line := PhaseStatus{Name: p.Name, Title: p.Title, State: p.State, Verdict: p.Verdict, Recovery: p.Recovery}
		if len(p.Recovery) > 0 {
			line.Achieved = fold.ShowRecovery(p.Recovery[len(p.Recovery)-1])
		}
		if p.State == fold.StateRunning {
			out.Phase = p.Name
		}
		out.Phases = append(out.Phases, line)
	}
	return out
}

// list describes every drill and the latest requests that were rejected, the latest
// first.
func (s *service) list(ctx context.Context) ([]Line, error) {
	all, err := s.Bus.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Line, 0, len(all))
	for _, d := range slices.Backward(all) {
		l := lineOf(d)
		if d.Finished == nil && s.aborting(ctx, d.Drill) {
			l.State = StateAborting
		}
		out = append(out, l)
	}
	rejected, err := s.rejections(ctx, all)
	if err != nil {
		s.Log.Warn("rejected requests cannot be listed", "error", err)
	}
	for _, no := range rejected {
		out = append(out, Line{Drill: no.Drill, Title: no.Drill, Requester: no.Requester, Accepted: fold.ShowTime(no.Asked), State: no.State, Rejection: &no})
	}
	slices.SortStableFunc(out, func(a, b Line) int { return cmp.Compare(b.Accepted, a.Accepted) })
	return out, nil
}

func lineOf(d bus.Summary) Line {
	l := Line{Drill: d.Drill, Title: d.Drill, State: fold.StateRunning, Accepted: fold.ShowTime(d.Accepted.Event.Time)}
	if p, ok := d.Accepted.Payload.(*event.DrillAccepted); ok {
		l.Requester, l.Title = p.Requester, TitleOf(*p, d.Drill)
	}
	if d.Finished != nil {
		l.State = fold.StateFinished
	}
	if d.Published != nil {
		l.State = StatePublished
		if p, ok := d.Published.Payload.(*event.ReportPublished); ok {
			l.Verdict = p.Verdict
		}
	}
	return l
}

// aborting reports whether a drill that is not finished was aborted, as far as that
// can be read.
func (s *service) aborting(ctx context.Context, drill string) bool {
	d, err := s.refreshed(ctx, drill)
	if err != nil {
		s.Log.Debug("whether the drill is being aborted cannot be read", "drill", drill, "error", err)
		return false
	}
	defer d.mu.Unlock()
	return d.history != nil && d.history.aborting
}

// TitleOf is the title of the drill that an event begins; otherwise, where it has
// none.
func TitleOf(p event.DrillAccepted, otherwise string) string {
	title := titleOf(p.Spec, otherwise)
	if p.Settles != "" {
		return fold.SettlesTitle(p.Settles, title)
	}
	return title
}

func titleOf(spec json.RawMessage, otherwise string) string {
	var d struct {
		Metadata struct{ Name, Title string } `json:"metadata"`
	}
	if json.Unmarshal(spec, &d) != nil {
		return otherwise
	}
	if d.Metadata.Title != "" {
		return d.Metadata.Title
	}
	if d.Metadata.Name != "" {
		return d.Metadata.Name
	}
	return otherwise
}

// formatFile maps a format's name to its file.
func formatFile(format string) (string, bool) {
	switch format {
	case "json":
		return render.FileJSON, true
	case "md", "markdown":
		return render.FileMarkdown, true
	case "html":
		return render.FileHTML, true
	case "xml", "junit":
		return render.FileJUnit, true
	case "jsonl", "events":
		return FileEvents, true
	}
	return "", false
}

// Question is what the endpoints status and report are asked. A bare drill id,
// not in JSON, will do for both.
type Question struct {
	Drill string `json:"drill"`
	// Format is json, md, html, xml or jsonl (the events); empty means json.
	Format string `json:"format,omitempty"`
}

func readQuestion(data []byte) (Question, error) {
	var q Question
	if len(data) == 0 || data[0] != '{' {
		q.Drill = string(data)
	} else if err := json.Unmarshal(data, &q); err != nil {
		return q, fmt.Errorf(`the question is not JSON such as {"drill":"x-1","format":"md"}: %w`, err)
	}
	if q.Format == "" {
		q.Format = "json"
	}
	if q.Drill == "" {
		return q, errors.New(`drill: missing; send {"drill":"x-1"}`)
	}
	return q, nil
}

// status is a drill's Status as JSON, or the Rejection of a request that became none.
func (s *service) status(ctx context.Context, drill string) ([]byte, error) {
	r, err := s.folded(ctx, drill)
	if errors.Is(err, errUnknownDrill) {
		if no, e := s.rejected(ctx, drill); e != nil {
			return nil, e
		} else if no != nil {
			return json.Marshal(no)
		}
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(statusOf(r))
}

// endpoints are the reporter's part of the API: status, list and report.
// Answer answers a question of the API as a reporter would, of which none runs: only the
// store is there. Config needs Bus, Keyring and Log.
func Answer(ctx context.Context, c Config, endpoint string, data []byte) ([]byte, error) {
	f, ok := (&service{Config: c}).endpoints()[endpoint]
	if !ok {
		return nil, fmt.Errorf("%s: there is no such question", endpoint)
	}
	return f(ctx, data)
}

func (s *service) endpoints() map[string]bus.Endpoint {
	return map[string]bus.Endpoint{
		"status": func(ctx context.Context, data []byte) ([]byte, error) {
			q, err := readQuestion(data)
			if err != nil {
				return nil, err
			}
			return s.status(ctx, q.Drill)
		},
		"list": func(ctx context.Context, _ []byte) ([]byte, error) {
			l, err := s.list(ctx)
			if err != nil {
				return nil, err
			}
			return json.Marshal(l)
		},
		"report": func(ctx context.Context, data []byte) ([]byte, error) {
			q, err := readQuestion(data)
			if err != nil {
				return nil, err
			}
			file, ok := formatFile(q.Format)
			if !ok {
				return nil, fmt.Errorf("format: %.20q: use json, md, html, xml or jsonl", q.Format)
			}
			return s.file(ctx, q.Drill, file)
		},
	}
}
