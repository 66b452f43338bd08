package targettest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/target"
)

func (s suite) operation(f Fault, step string) target.Operation {
	return target.Operation{Drill: drill, Step: step, Name: f.Name, Params: f.Params, Limit: 5 * time.Minute, Fence: 1}
}

// plan plans a fault, and checks what every plan must hold.
func (s suite) plan(t *testing.T, ctx context.Context, tg *target.Target, op target.Operation) target.Plan {
	t.Helper()
	before, err := s.Snapshot(ctx)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	p, err := tg.Injector.Plan(ctx, op)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	after, err := s.Snapshot(ctx)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	if before != after {
		t.Errorf("the plan touched the target:\nbefore %s\nafter  %s", before, after)
	}
	if len(p.Parts) == 0 || len(p.Does) == 0 || len(p.Undo) == 0 || p.Undoes == "" {
		t.Errorf("an incomplete plan: %+v", p)
	}
	for _, part := range p.Parts {
		if part.ID == "" || part.Kind == "" {
			t.Errorf("an unnamed part: %+v", part)
		}
	}
	s.noSecrets(t, "plan", fmt.Sprint(p.Does, p.Undoes, p.Parts))
	s.noSecrets(t, "undo record", string(p.Undo))
	return p
}

func (s suite) fault(t *testing.T, f Fault) {
	t.Run("do and undo", func(t *testing.T) { s.doAndUndo(t, f) })
	t.Run("undo without do", func(t *testing.T) {
		tg, ctx := s.open(t), s.ctx(t)
		op := s.operation(f, "undone-only")
		p := s.plan(t, ctx, tg, op)
		s.undo(t, ctx, tg, op, p)
		s.expectHealthy(t)
	})
	if f.DeadMan {
		t.Run("dead man", func(t *testing.T) { s.deadMan(t, f) })
	}
}

func (s suite) doAndUndo(t *testing.T, f Fault) {
	tg, ctx := s.open(t), s.ctx(t)
	op := s.operation(f, "do-and-undo")
	identity := s.sameIdentity(t, ctx)
	p := s.plan(t, ctx, tg, op)
	if f.DeadMan != (p.DeadMan > 0) || p.DeadMan > op.Limit {
		t.Errorf("dead-man timer after %v, limit %v, wanted one: %v", p.DeadMan, op.Limit, f.DeadMan)
	}
	probes := s.openLanes(t, ctx, tg, "under-"+f.Name)
	e, err := tg.Injector.Do(ctx, op, p)
	if err != nil {
		t.Fatalf("do: %v", err)
	}
	if !e.Proof.Proven || e.Proof.How == "" || len(e.Proof.Observations) == 0 {
		t.Errorf("not proven: %+v", e.Proof)
	}
	if e.Began.IsZero() || e.Ended.Mono < e.Began.Mono || e.Began.Clock == "" {
		t.Errorf("readings: began %+v, ended %+v", e.Began, e.Ended)
	}
	t.Logf("fault took %v; %v", time.Duration(e.Ended.Mono-e.Began.Mono), e.Proof.Observations)
	if err := f.Broken(ctx); err != nil {
		t.Errorf("the effect does not show: %v", err)
	}
	if f.Outage {
		s.outage(t, probes, f.Name == s.Hang)
	}
	if got := s.sameIdentity(t, ctx); got != identity {
		t.Errorf("the system is %q under the fault, and was %q", got, identity)
	}
	// Whoever takes over knows nothing but the record, and may find it undone.
	began := time.Now()
	fresh := s.open(t)
	s.undo(t, ctx, fresh, op, p)
	s.expectHealthy(t)
	t.Logf("undone in %v", time.Since(began))
	s.undo(t, ctx, s.open(t), op, p)
	s.expectHealthy(t)
	for lane, probe := range probes {
		eventually(t, ctx, "lane "+lane+" to work again", func(ctx context.Context) error { return tryOK(ctx, probe) })
	}
}

func (s suite) undo(t *testing.T, ctx context.Context, tg *target.Target, op target.Operation, p target.Plan) {
	t.Helper()
	details, err := tg.Injector.Undo(ctx, op, p.Undo)
	if err != nil {
		t.Fatalf("undo: %v\n%v", err, details)
	}
	s.noSecrets(t, "undo", fmt.Sprint(details))
	t.Logf("undo: %s", strings.ReplaceAll(fmt.Sprint(details), "step.", "\n  step."))
}

// deadMan injects a fault and walks away. Where the machine is too slow to look before
// the timer ends, it is done again with a longer one.
func (s suite) deadMan(t *testing.T, f Fault) {
	for hold := time.Second; !s.deadManAfter(t, f, hold); hold *= 2 {
		t.Logf("nobody could look within %v", hold)
	}
}

func (s suite) deadManAfter(t *testing.T, f Fault, hold time.Duration) (seen bool) {
	tg, ctx := s.open(t), s.ctx(t)
	op := s.operation(f, fmt.Sprintf("dead-man-%v", hold))
	op.Hold = hold
	p := s.plan(t, ctx, tg, op)
	if p.DeadMan < op.Hold || p.DeadMan > 10*time.Second {
		t.Fatalf("a fault held for %v has a dead-man timer of %v", op.Hold, p.DeadMan)
	}
	armed := time.Now()
	if _, err := tg.Injector.Do(ctx, op, p); err != nil {
		t.Fatalf("do: %v", err)
	}
	err := f.Broken(ctx)
	seen = err == nil || time.Since(armed) < hold
	if seen && err != nil {
		t.Errorf("the effect does not show: %v", err)
	}
	began := time.Now()
	s.expectHealthy(t)
	t.Logf("healthy by itself %v after the fault", time.Since(began))
	s.undo(t, ctx, s.open(t), op, p)
	s.expectHealthy(t)
	return seen
}
