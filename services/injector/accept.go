package injector

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/telemetry"
)

// Result is the answer to a request, published on drill.res.<who>.<name>.
type Result struct {
	// State is accepted or rejected; the reporter later adds finished.
	State string `json:"state"`
	Drill string `json:"drill,omitempty"`
	// Problems say what has to be mended in a rejected request.
	Problems drill.Problems   `json:"problems,omitempty"`
	Reason   string           `json:"reason,omitempty"`
	Request  event.RequestRef `json:"request"`
}

// serveRequests turns stored requests into drills, one at a time, so that two
// requests for one target cannot both be accepted.
func (s *service) serveRequests(ctx context.Context) error {
	return s.Bus.Work(ctx, "injector-requests", bus.WorkOptions{Concurrency: 1}, s.handleRequest)
}

func (s *service) handleRequest(ctx context.Context, m bus.Message) error {
	ref := event.RequestRef{Subject: m.Subject, Sequence: m.Seq, MsgID: m.Header.Get("Nats-Msg-Id"), TraceParent: telemetry.TraceParent(telemetry.Extract(ctx, m.Header))}
	who, name, err := requestSubject(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	d, err := s.readDrill(m.Data)
	if err == nil {
		// A redelivered request must not be refused because of its own drill.
		id := drill.ID(d.Metadata.Name, m.Seq)
		if st, err := s.state(ctx, id); err == nil && st.ID == id && st.Request.Sequence == m.Seq {
			return s.Bus.PublishResult(ctx, who, name, Result{State: "accepted", Drill: id, Request: ref})
		}
		err = s.admissible(ctx, d)
	}
	if err != nil {
		var refused *refusal
		if !errors.As(err, &refused) {
			return err // not the request's fault: try again later
		}
		s.Log.Info("request rejected", "subject", m.Subject, "sequence", m.Seq, "problems", len(refused.problems), "reason", refused.reason)
		return s.Bus.PublishResult(ctx, who, name, Result{State: "rejected", Problems: refused.problems, Reason: refused.reason, Request: ref})
	}
	id := drill.ID(d.Metadata.Name, m.Seq)
	if err := s.accept(ctx, id, who, ref, d); err != nil {
		return err
	}
	return s.Bus.PublishResult(ctx, who, name, Result{State: "accepted", Drill: id, Request: ref})
}

// accept writes the drill's first event. A redelivered request finds it there.
func (s *service) accept(ctx context.Context, id, who string, ref event.RequestRef, d drill.Drill) error {
	spec, hash, err := drill.JSON(d)
	if err != nil {
		return bus.Poison(fmt.Errorf("drill %s: %w", id, err))
	}
	seed := d.Spec.Seed
	if seed == 0 {
		sum := sha256.Sum256([]byte("seed/" + id))
		seed = int64(binary.BigEndian.Uint64(sum[:8]) >> 1)
	}
	ctx = telemetry.DrillContext(ctx, id)
	_, err = s.Bus.AppendAt(ctx, id, bus.Tail{}, event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{
		Requester: who, Request: ref, Spec: spec, SpecHash: hash, Seed: seed,
	}})
	if errors.Is(err, bus.ErrConflict) {
		return nil // accepted by an earlier delivery of this very request
	}
	if err == nil {
		s.Log.Info("drill accepted", "drill", id, "requester", who)
	}
	return err
}

// refusal says that a request can never be accepted as it stands.
type refusal struct {
	problems drill.Problems
	reason   string
}

func (r *refusal) Error() string {
	if r.reason != "" {
		return r.reason
	}
	return r.problems.Error()
}

// readDrill parses and checks a request's body. Its errors are refusals.
func (s *service) readDrill(data []byte) (drill.Drill, error) {
	d, err := ReadDrill(data, s.Registry)
	if err != nil {
		return d, &refusal{problems: drill.AsProblems(err)}
	}
	return d, nil
}

// admissible checks what depends on the moment: the kill switch, and that no
// other drill has one of the targets.
func (s *service) admissible(ctx context.Context, d drill.Drill) error {
	halt, err := s.Bus.HaltState(ctx)
	if err != nil {
		return fmt.Errorf("is firedrill halted? %w", err)
	}
	if halt.Halted {
		return &refusal{reason: fmt.Sprintf("all drills are halted by %s (%s): release with `firedrill halt --release`", halt.By, halt.Reason)}
	}
	list, err := s.Bus.List(ctx)
	if err != nil {
		return fmt.Errorf("which drills are running? %w", err)
	}
	for _, other := range list {
		if other.Finished != nil {
			continue
		}
		st, err := s.state(ctx, other.Drill)
		if err != nil {
			return err
		}
		if t := sharedTarget(d, st.Drill); t != "" && st.Finished == nil {
			return &refusal{reason: fmt.Sprintf("target %q is under drill %s: wait for it or `firedrill abort %s`", t, other.Drill, other.Drill)}
		}
	}
	return nil
}

func (s *service) state(ctx context.Context, id string) (drill.State, error) {
	history, err := s.Bus.History(ctx, id)
	if err != nil {
		return drill.State{}, fmt.Errorf("history of %s: %w", id, err)
	}
	return fold(history), nil
}

// fold applies the verified events of a history.
func fold(history []bus.Stored) drill.State {
	var st drill.State
	for _, h := range history {
		if h.Trust == nil {
			st = drill.Apply(st, h.Event)
		}
	}
	return st
}

// sharedTarget names a target of d that other drills too: the same driver with
// the same configuration, whatever it is called.
func sharedTarget(d, other drill.Drill) string {
	for _, a := range d.Spec.Targets {
		for _, b := range other.Spec.Targets {
			if a.Driver == b.Driver && string(a.Config) == string(b.Config) {
				return a.Name
			}
		}
	}
	return ""
}

func requestSubject(subject string) (who, name string, err error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 || parts[2] == "" || parts[3] == "" {
		return "", "", fmt.Errorf("request subject %q: publish to drill.req.<who>.<name>, two tokens after drill.req", subject)
	}
	return parts[2], parts[3], nil
}
