package targettest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/joined"
	"github.com/firedrill/firedrill/pkg/target"
)

// surveyOf surveys a configuration for every fault of the harness, and checks that this
// only reads.
func (s suite) surveyOf(t *testing.T, ctx context.Context, config json.RawMessage) (target.Survey, error) {
	t.Helper()
	tg, err := s.Driver.Open(t.Context(), target.Config{Name: "surveyed", Raw: config, Clock: clock.System()})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = tg.Close() })
	var ops []target.Operation
	for _, f := range s.Faults {
		ops = append(ops, s.operation(f, "survey"))
	}
	before, err := s.Snapshot(ctx)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	sv, surveyed := tg.Injector.Survey(ctx, ops)
	after, err := s.Snapshot(ctx)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	if before != after {
		t.Errorf("the survey touched the target:\nbefore %s\nafter  %s", before, after)
	}
	if surveyed != nil {
		s.noSecrets(t, "the survey's error", surveyed.Error())
	}
	return sv, surveyed
}

func (s suite) survey(t *testing.T) {
	t.Run("a healthy target stands nothing in the way", func(t *testing.T) {
		ctx := s.ctx(t)
		sv, err := s.surveyOf(t, ctx, s.Config)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Faults {
			p, err := s.open(t).Injector.Plan(ctx, s.operation(f, "survey"))
			if err != nil {
				t.Fatalf("plan %s: %v", f.Name, err)
			}
			for _, part := range p.Parts {
				s.isSurveyed(t, f.Name, part, sv.Parts)
			}
		}
	})
	t.Run("a plan refuses what its undo could not do", func(t *testing.T) {
		if len(s.Faults) > 0 && len(s.Blocked) == 0 {
			t.Error("no Blocked: give a configuration with which a fault could not be undone")
		}
		for _, b := range s.Blocked {
			t.Run(b.Name, func(t *testing.T) { s.blocked(t, b) })
		}
	})
}

// isSurveyed checks that what a plan hits, every pattern that protects it would find.
func (s suite) isSurveyed(t *testing.T, fault string, hit event.Part, all []event.Part) {
	t.Helper()
	patterns := []string{hit.ID}
	for k, v := range hit.Labels {
		patterns = append(patterns, k+"="+v)
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(all, func(part event.Part) bool { _, ok := part.Match(p); return ok }) {
			t.Errorf("the survey knows nothing of %s, which %s hits", p, fault)
		}
	}
}

// Argument is what a blocked configuration gives its commands as an argument: that may be
// a secret, so no finding has it.
const Argument = "an-argument-of-a-command"

func (s suite) blocked(t *testing.T, b Bad) {
	if err := s.Driver.Check(b.Config); err != nil {
		t.Fatalf("it is no configuration at all: %v", err)
	}
	_, err := s.surveyOf(t, s.ctx(t), b.Config)
	if err == nil {
		t.Fatal("a drill may begin with it")
	}
	if !slices.ContainsFunc(slices.Collect(joined.Leaves(err)), func(err error) bool {
		e, ok := errors.AsType[*target.FieldError](err)
		return ok && e.Fix != "" && strings.HasPrefix(e.Field, b.Field)
	}) {
		t.Errorf("no FieldError with a fix names %s: %v", b.Field, err)
	}
	if strings.Contains(err.Error(), Argument) {
		t.Errorf("it tells a command's arguments: %v", err)
	}
}
