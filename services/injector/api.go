package injector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// Checked is the answer of the validate and plan endpoints.
type Checked struct {
	Valid    bool           `json:"valid"`
	Problems drill.Problems `json:"problems,omitempty"`
	// Steps is the plan, for the plan endpoint.
	Steps []event.PlannedStep `json:"steps,omitempty"`
	// Guards are those that bind the drill, its own and the inventory's, for the plan
	// endpoint.
	Guards *drill.Guards `json:"guards,omitempty"`
	// BlastRadius is how many parts a fault of the plan hits, at most.
	BlastRadius int `json:"blast_radius,omitempty"`
	// Problem is why the drill would not begin, apart from what the steps say.
	Problem string `json:"problem,omitempty"`
}

// AbortRequest is what the abort endpoint and drill.cmd.<drill>.abort take.
type AbortRequest struct {
	Drill  string `json:"drill,omitempty"`
	By     string `json:"by"`
	Reason string `json:"reason"`
	// Cause is operator unless a service says otherwise.
	Cause string `json:"cause,omitempty"`
}

// ApproveRequest is what drill.cmd.<drill>.approve takes.
type ApproveRequest struct {
	Drill string `json:"drill,omitempty"`
	By    string `json:"by"`
}

// answerTime is what an answer may take, so that it still reaches who waits for it.
const answerTime = bus.CallWait - 5*time.Second

// serveAPI answers request/reply calls; `nats micro` discovers them.
func (s *service) serveAPI(ctx context.Context) error {
	check := func(verb string) bus.Endpoint {
		return func(ctx context.Context, data []byte) ([]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, answerTime)
			defer cancel()
			return json.Marshal(Check(ctx, s.Config, verb, data))
		}
	}
	return s.Bus.Serve(ctx, "injector", map[string]bus.Endpoint{
		VerbValidate: check(VerbValidate), VerbPlan: check(VerbPlan),
		"abort":   s.commandEndpoint("abort"),
		"approve": s.commandEndpoint("approve"),
	})
}

// serveClock answers observers on other machines that relate their clock to
// this one's.
func (s *service) serveClock(ctx context.Context) error {
	return s.Bus.Serve(ctx, "clock", map[string]bus.Endpoint{
		"clock." + s.Bus.Identity().Instance: func(context.Context, []byte) ([]byte, error) {
			return json.Marshal(s.Clock.Now())
		},
	})
}

// What Check does with a drill that it could read.
const (
	VerbValidate = "validate"
	VerbPlan     = "plan"
)

// Check reads a drill with the inventory and, for VerbPlan, resolves it against
// its targets. It touches nothing. c needs no Bus.
func Check(ctx context.Context, c Config, verb string, data []byte) Checked {
	d, err := readDrill(data, c.Registry, c.Inventory, c.Log)
	out := Checked{Valid: err == nil, Problems: drill.AsProblems(err)}
	if err == nil && verb == VerbPlan {
		planned, radius := planDrill(ctx, c, d)
		out.Steps, out.Problem = planned.Steps, planned.Problem
		out.Guards, out.BlastRadius = &d.Spec.Guards, radius
	}
	return out
}

// planDrill resolves what a drill would hit and do, and its blast radius as the
// drill would store it. It only reads.
func planDrill(ctx context.Context, c Config, d drill.Drill) (drill.Planned, int) {
	c.Bus = nil // nothing is claimed
	e := newEffects(c, "plan", c.Log)
	defer e.close(ctx)
	now := c.Clock.Now()
	st := drill.State{ID: "plan", Drill: d, Program: drill.Compile(d), Accepted: now, Seed: d.Spec.Seed}
	planned, _ := e.run(ctx, st, drill.Move{Kind: drill.MovePlan}, now, nil).(drill.Planned)
	var surveyed drill.Surveyed
	if ctx.Err() == nil {
		surveyed, _ = e.run(ctx, st, drill.Move{Kind: drill.MoveSurvey}, now, nil).(drill.Surveyed)
	} else {
		surveyed.Problem = "no time was left for the survey: planning alone took " + c.Clock.Now().Wall.Sub(now.Wall).Round(time.Second).String()
	}
	planned.Problem = strings.Trim(planned.Problem+"\n"+surveyed.Problem, "\n")
	drafts, err := drill.Decide(st, planned)
	if err != nil || len(drafts) == 0 {
		return planned, 0
	}
	stored, _ := drafts[0].Data.(event.DrillPlanned)
	return planned, stored.BlastRadius
}

// commandEndpoint stores a command: whoever conducts the drill hears it, now or
// after a restart.
func (s *service) commandEndpoint(verb string) bus.Endpoint {
	return func(ctx context.Context, data []byte) ([]byte, error) {
		var to struct {
			Drill string `json:"drill"`
		}
		if err := json.Unmarshal(data, &to); err != nil || to.Drill == "" || strings.ContainsAny(to.Drill, ".*> \t\r\n") {
			return nil, fmt.Errorf("drill: %q: name the drill to %s, as `firedrill list` shows it", to.Drill, verb)
		}
		if _, err := readCommand(verb, data); err != nil {
			return nil, err
		}
		st, err := stateOf(ctx, s.Bus, to.Drill)
		switch {
		case errors.Is(err, bus.ErrNoDrill):
			return nil, fmt.Errorf("drill: %q: no such drill; `firedrill list` shows them", to.Drill)
		case err != nil:
			return nil, err
		case st.Finished != nil:
			return nil, fmt.Errorf("drill: %q: it has finished already", to.Drill)
		case verb == "approve" && st.Approval != "requested":
			// An approval is of a plan that can be read, not of whatever comes.
			return nil, fmt.Errorf("drill: %q: it does not wait for approval", to.Drill)
		}
		if err := s.Bus.Command(ctx, to.Drill, verb, data); err != nil {
			return nil, err
		}
		return []byte(`{"stored":true}`), nil
	}
}

// readCommand turns a stored command into a decision's input.
func readCommand(verb string, data []byte) (drill.Command, error) {
	switch verb {
	case "abort":
		var r AbortRequest
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf(`abort: %w: send {"by": "...", "reason": "..."}`, err)
		}
		if r.By == "" || r.Reason == "" {
			return nil, errors.New("abort: by, reason: both are needed, for the report")
		}
		if r.Cause == "" {
			r.Cause = drill.CauseOperator
		}
		return drill.Abort{By: r.By, Reason: r.Reason, Cause: r.Cause}, nil
	case "approve":
		var r ApproveRequest
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf(`approve: %w: send {"by": "..."}`, err)
		}
		if r.By == "" {
			return nil, errors.New("approve: by: say who approves, for the report")
		}
		return drill.Approve{By: r.By}, nil
	}
	return nil, fmt.Errorf("command %q: known are abort and approve", verb)
}

// maxNote bounds what an outside system may put into a drill's history.
const maxNote = 16 << 10

// followExternal lets outside systems put notes into a drill's timeline by
// publishing {"from","note","data"} on drill.ext.<drill>.
func (s *service) followExternal(ctx context.Context) error {
	return s.Bus.Work(ctx, "injector-external", bus.WorkOptions{Concurrency: 1}, s.handleExternal)
}

func (s *service) handleExternal(ctx context.Context, m bus.Message) error {
	id := strings.TrimPrefix(m.Subject, "drill.ext.")
	var note event.ExternalNoted
	if err := json.Unmarshal(m.Data, &note); err != nil || note.From == "" || note.Note == "" || len(m.Data) > maxNote {
		return bus.Poison(fmt.Errorf(`%s: send {"from": "...", "note": "..."} of at most %d bytes`, m.Subject, maxNote))
	}
	// Every unfinished drill has a conductor here, so the history is only asked about
	// one that has come or gone just now: an alert that fires again and again must not
	// have it read each time.
	if !s.conducts(id) {
		st, err := stateOf(ctx, s.Bus, id)
		if err != nil && !errors.Is(err, bus.ErrNoDrill) {
			return err
		}
		if err != nil || st.Finished != nil {
			return bus.Poison(fmt.Errorf("%s: drill %q is not running", m.Subject, id))
		}
	}
	_, err := s.Bus.Append(ctx, id, event.Draft{Type: event.TypeExternalNoted, Data: note})
	return err
}
