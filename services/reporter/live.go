package reporter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// errUnknownDrill means that no drill has the id, at least not yet.
var errUnknownDrill = errors.New("no such drill: it was not accepted yet, or was rejected; the answer to the request lies on drill.res.<who>.<name>")

// Status is a drill's live state.
type Status struct {
	Drill string `json:"drill"`
	Title string `json:"title"`
	// State is running, finished or published.
	State string `json:"state"`
	// Verdict is what follows from the phases judged so far; empty without any.
	Verdict verdict.Verdict `json:"verdict"`
	// Phase is the open phase.
	Phase   string        `json:"phase,omitempty"`
	Phases  []PhaseStatus `json:"phases"`
	Summary []string      `json:"summary"`
	Issues  []fold.Issue  `json:"issues"`
	Events  int           `json:"events"`
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

// Line is a drill in a list.
type Line struct {
	Drill     string `json:"drill"`
	Title     string `json:"title"`
	Requester string `json:"requester"`
	Accepted  string `json:"accepted"`
	// State is running, finished or published.
	State   string `json:"state"`
	Verdict string `json:"verdict,omitempty"`
}

// maxCached bounds the cache of published drills' reports.
const maxCached = 32

// cache keeps what was rendered of published drills, which never change.
type cache struct {
	mu sync.Mutex
	m  map[string]rendered
}

type rendered struct {
	report    fold.Report
	files     map[string][]byte
	published bool
}

func (c *cache) get(drill string) (rendered, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.m[drill]
	return r, ok
}

func (c *cache) put(drill string, r rendered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]rendered{}
	}
	for other := range c.m {
		if len(c.m) < maxCached {
			break
		}
		delete(c.m, other)
	}
	c.m[drill] = r
}

// render folds a drill as it is now.
func (s *service) render(ctx context.Context, drill string) (rendered, error) {
	if !event.IsDrillID(drill) {
		return rendered{}, fmt.Errorf("drill %.60q: %w", drill, errUnknownDrill)
	}
	if r, ok := s.cache.get(drill); ok {
		return r, nil
	}
	stored, err := s.Bus.History(ctx, drill)
	if err != nil && !errors.Is(err, bus.ErrNoDrill) {
		return rendered{}, fmt.Errorf("read drill %s: %w", drill, err)
	}
	h := newHistory(drill, stored)
	report, files, err := s.compose(h.raws)
	if errors.Is(err, fold.ErrNoDrill) {
		return rendered{}, fmt.Errorf("drill %s: %w", drill, errUnknownDrill)
	}
	if err != nil {
		return rendered{}, fmt.Errorf("report drill %s: %w", drill, err)
	}
	r := rendered{report, files, h.published != nil}
	if r.published {
		s.cache.put(drill, r)
	}
	return r, nil
}

func statusOf(r rendered) Status {
	rep := r.report
	out := Status{Drill: rep.ID, Title: rep.Title, State: rep.State, Verdict: rep.Verdict, Summary: rep.Summary, Issues: rep.Issues, Events: rep.Verification.Events, Phases: []PhaseStatus{}}
	if r.published {
		out.State = "published"
	}
	for _, p := range rep.Phases {
		line := PhaseStatus{Name: p.Name, Title: p.Title, State: p.State, Verdict: p.Verdict, Recovery: p.Recovery}
		if len(p.Recovery) > 0 {
			line.Achieved = fold.Show(p.Recovery[len(p.Recovery)-1].Achieved)
		}
		if p.State == fold.StateRunning {
			out.Phase = p.Name
		}
		out.Phases = append(out.Phases, line)
	}
	return out
}

// list describes every drill, the latest first.
func (s *service) list(ctx context.Context) ([]Line, error) {
	all, err := s.Bus.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Line, 0, len(all))
	for i := len(all) - 1; i >= 0; i-- {
		l := Line{Drill: all[i].Drill, Title: all[i].Drill, State: fold.StateRunning}
		if p, ok := all[i].Accepted.Payload.(*event.DrillAccepted); ok {
			l.Requester = p.Requester
			l.Title = titleOf(p.Spec, l.Title)
		}
		l.Accepted = fold.ShowTime(all[i].Accepted.Event.Time)
		if all[i].Finished != nil {
			l.State = fold.StateFinished
		}
		if all[i].Published != nil {
			l.State = "published"
			if p, ok := all[i].Published.Payload.(*event.ReportPublished); ok {
				l.Verdict = p.Verdict
			}
		}
		out = append(out, l)
	}
	return out, nil
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

// endpoints are the reporter's part of the API: status, list and report.
func (s *service) endpoints() map[string]bus.Endpoint {
	return map[string]bus.Endpoint{
		"status": func(ctx context.Context, data []byte) ([]byte, error) {
			q, err := readQuestion(data)
			if err != nil {
				return nil, err
			}
			r, err := s.render(ctx, q.Drill)
			if err != nil {
				return nil, err
			}
			return json.Marshal(statusOf(r))
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
			r, err := s.render(ctx, q.Drill)
			if err != nil {
				return nil, err
			}
			return r.files[file], nil
		},
	}
}
