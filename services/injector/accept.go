package injector

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

// serveRequests turns stored requests into drills, one after the other.
func (s *service) serveRequests(ctx context.Context) error {
	return s.Bus.Work(ctx, "injector-requests", bus.WorkOptions{Concurrency: 1}, s.handleRequest)
}

func (s *service) handleRequest(ctx context.Context, m bus.Message) error {
	ref := event.RequestRef{Subject: m.Subject, Sequence: m.Seq, MsgID: m.Header.Get("Nats-Msg-Id"), TraceParent: telemetry.TraceParent(telemetry.Extract(ctx, m.Header))}
	who, name, err := requestSubject(m.Subject)
	if err != nil {
		return bus.Poison(err)
	}
	id, err := s.accept(ctx, who, ref, m.Data)
	if err != nil {
		var refused *refusal
		if !errors.As(err, &refused) {
			return err // not the request's fault: try again later
		}
		s.Log.Info("request rejected", "subject", m.Subject, "sequence", m.Seq, "problems", len(refused.problems), "reason", refused.reason)
		return s.Bus.PublishResult(ctx, who, name, Result{State: "rejected", Problems: refused.problems, Reason: refused.reason, Request: ref})
	}
	return s.Bus.PublishResult(ctx, who, name, Result{State: "accepted", Drill: id, Request: ref})
}

// readRequest turns a request into the first event of its drill. Its errors are
// refusals, or the bus's.
func (s *service) readRequest(ctx context.Context, kind, id string, data []byte) (event.DrillAccepted, error) {
	if kind == drill.UndoKind {
		return s.settlement(ctx, data)
	}
	d, err := ReadDrill(data, s.Registry, s.Inventory)
	if err != nil {
		return event.DrillAccepted{}, &refusal{problems: drill.AsProblems(err)}
	}
	spec, hash, err := drill.JSON(d)
	if err != nil {
		return event.DrillAccepted{}, bus.Poison(fmt.Errorf("drill %s: %w", id, err))
	}
	seed := d.Spec.Seed
	if seed == 0 {
		sum := sha256.Sum256([]byte("seed/" + id))
		seed = int64(binary.BigEndian.Uint64(sum[:8]) >> 1)
	}
	return event.DrillAccepted{Spec: spec, SpecHash: hash, Seed: seed}, nil
}

// accept makes the request a drill and returns its id. A redelivered request finds
// its drill there, and is refused neither on account of that drill nor of what
// has changed since.
func (s *service) accept(ctx context.Context, who string, ref event.RequestRef, data []byte) (string, error) {
	kind, name, err := drill.CheckRequest(data)
	if err != nil {
		return "", &refusal{problems: drill.AsProblems(err)}
	}
	id := drill.ID(name, ref.Sequence)
	if _, err := s.Bus.History(ctx, id); !errors.Is(err, bus.ErrNoDrill) {
		return id, err
	}
	first, err := s.readRequest(ctx, kind, id, data)
	if err != nil {
		return "", err
	}
	first.Requester, first.Request = who, ref
	if err := s.admissible(ctx, first); err != nil {
		return "", err
	}
	// Noted before it is stored: it may be over before this returns.
	s.mu.Lock()
	s.drills[id] = running{spec: first.Spec}
	s.mu.Unlock()
	_, err = s.Bus.AppendAt(telemetry.DrillContext(ctx, id), id, bus.Tail{}, event.Draft{Type: event.TypeDrillAccepted, Data: first})
	if errors.Is(err, bus.ErrConflict) {
		return id, nil
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.drills[id].conducted {
			delete(s.drills, id)
		}
		return "", err
	}
	s.Log.Info("drill accepted", "drill", id, "requester", who)
	return id, nil
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

// admissible checks what depends on the moment: the kill switch, and that no
// drill known to be under way has the very same target. That spares the requester
// a drill that ends at once; the claim on the system, when the drill is planned, is
// what keeps two drills apart.
func (s *service) admissible(ctx context.Context, first event.DrillAccepted) error {
	halt, err := s.Bus.HaltState(ctx)
	if err != nil {
		return fmt.Errorf("is firedrill halted? %w", err)
	}
	if halt.Halted && first.Settles == "" {
		return &refusal{reason: fmt.Sprintf("all drills are halted by %s (%s): release with `firedrill halt --release`", halt.By, halt.Reason)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, other := range s.drills {
		if t := sharedTarget(first.Spec, other.spec); t != "" {
			return &refusal{reason: fmt.Sprintf("target %q is under drill %s: wait for it or `firedrill abort %s`", t, id, id)}
		}
	}
	return nil
}

// sharedTarget names a target of one drill that the other has too: the same driver
// with the same configuration, whatever it is called.
func sharedTarget(spec, other json.RawMessage) string {
	var a, b drill.Drill
	if json.Unmarshal(spec, &a) != nil || json.Unmarshal(other, &b) != nil {
		return ""
	}
	for _, t := range a.Spec.Targets {
		if slices.ContainsFunc(b.Spec.Targets, func(o drill.Target) bool { return o.Driver == t.Driver && string(o.Config) == string(t.Config) }) {
			return t.Name
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
