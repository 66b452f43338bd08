package injector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

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

// MessageID is the same for the same answer to the same request: one that is given
// again, because the server did not hear that the request was done, is not stored
// twice.
func (r Result) MessageID() string {
	return fmt.Sprintf("%s %s %d", r.State, r.Request.Subject, r.Request.Sequence)
}

// serveRequests turns stored requests into drills, one after the other.
func (s *service) serveRequests(ctx context.Context) error {
	return s.Bus.Work(ctx, "injector-requests", bus.WorkOptions{Concurrency: 1}, s.handleRequest)
}

func (s *service) handleRequest(ctx context.Context, m bus.Message) error {
	ref := event.RequestRef{Subject: m.Subject, Sequence: m.Seq, MsgID: m.Header.Get("Nats-Msg-Id"), TraceParent: telemetry.TraceParent(telemetry.Extract(ctx, m.Header))}
	who, name, ok := bus.ReadRequestSubject(m.Subject)
	if who == "" {
		return bus.Poison(fmt.Errorf("request subject %q: nobody can be answered; %s", m.Subject, requestForm))
	}
	if over, err := s.rejectedBefore(ctx, who, name, m.Seq, m.Stored); over || err != nil {
		return err
	}
	id, err := "", badSubject(m.Subject)
	if ok {
		id, err = s.accept(ctx, who, ref, m.Data)
	}
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

// rejectedBefore reports whether a request has its answer already: an injector
// ended before the server heard that it was done, the consumer was made anew and
// hands out all requests there are, or a dead letter is tried again. The last two
// look like a first delivery, so the stored answers are asked each time; they
// outlive the requests. What has changed since must not make a drill of what its
// requester knows to be rejected.
func (s *service) rejectedBefore(ctx context.Context, who, name string, seq uint64, stored time.Time) (rejected bool, err error) {
	// Only what is fresh can be told by the clocks to have few answers after it. The
	// servers that keep requests and answers may be some way apart.
	var since time.Time
	if age := time.Since(stored); age >= 0 && age < time.Minute {
		since = stored.Add(-time.Hour)
	}
	err = s.Bus.ResultsOf(ctx, who, name, since, func(raw []byte) error {
		var r Result
		if json.Unmarshal(raw, &r) != nil || r.Request.Sequence != seq {
			return nil
		}
		rejected = r.State == "rejected"
		return bus.Stop // the first answer is the one that counts
	})
	return rejected, err
}

// readRequest turns a request into the first event of its drill. Its errors are
// refusals, or the bus's.
func (s *service) readRequest(ctx context.Context, id string, r drill.Request) (event.DrillAccepted, error) {
	if r.Kind() == drill.UndoKind {
		return s.settlement(ctx, r)
	}
	d, err := r.Drill(s.Inventory, catalogue(s.Registry, s.Log))
	if err != nil {
		return event.DrillAccepted{}, &refusal{problems: drill.AsProblems(err)}
	}
	d = drill.WithDefaults(d)
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
	r := drill.ParseRequest(data)
	id := drill.ID(r.Name(), ref.Sequence)
	if _, err := s.Bus.First(ctx, id); !errors.Is(err, bus.ErrNoDrill) {
		return id, err
	}
	if s.Only != nil && !s.Only(ref.Subject, data, ref.MsgID) {
		return "", &refusal{reason: "this firedrill runs one drill of its own and takes no other requests: ask again when it has ended"}
	}
	first, err := s.readRequest(ctx, id, r)
	if err != nil {
		return "", err
	}
	first.Requester, first.Request = who, ref
	targets := targetsOf(first)
	if err := s.admissible(ctx, first, targets); err != nil {
		return "", err
	}
	// Noted before it is stored: it may be over before this returns.
	s.expect(id, targets)
	_, err = s.Bus.AppendAt(telemetry.DrillContext(ctx, id), id, bus.Tail{}, event.Draft{Type: event.TypeDrillAccepted, Data: first})
	if err != nil {
		s.forget(id)
	}
	switch {
	case errors.Is(err, bus.ErrConflict):
		return id, nil // another injector has accepted it meanwhile
	case err != nil:
		return "", err
	}
	s.Log.Info("drill accepted", "drill", id, "requester", who)
	return id, nil
}

const requestForm = "publish to drill.req.<who>.<name>: who asks and the drill's name, each one token"

// badSubject refuses a request whose subject has another form.
func badSubject(subject string) error {
	return &refusal{problems: drill.Problems{{Field: "subject", Value: subject, Fix: requestForm}}}
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
func (s *service) admissible(ctx context.Context, first event.DrillAccepted, targets []drill.Target) error {
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
		if t := sharedTarget(targets, other.targets); t != "" {
			return &refusal{reason: fmt.Sprintf("target %q is under drill %s: wait for it or `firedrill abort %s`", t, id, id)}
		}
	}
	return nil
}

// sharedTarget names a target of one drill that the other has too: the same driver
// with the same configuration, whatever it is called.
func sharedTarget(some, others []drill.Target) string {
	for _, t := range some {
		if slices.ContainsFunc(others, func(o drill.Target) bool { return o.Driver == t.Driver && bytes.Equal(o.Config, t.Config) }) {
			return t.Name
		}
	}
	return ""
}
