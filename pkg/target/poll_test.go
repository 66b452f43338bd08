package target_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

func TestPoll(t *testing.T) {
	broken := errors.New("broken")
	calls := 0
	for name, c := range map[string]struct {
		limit time.Duration
		f     func(context.Context) (bool, string, error)
		calls int
		want  error
		says  string
	}{
		"in the end": {time.Minute, func(context.Context) (bool, string, error) { return calls == 3, "not yet", nil }, 3, nil, ""},
		"fails":      {time.Minute, func(context.Context) (bool, string, error) { return false, "", broken }, 1, broken, "broken"},
		"fails over the time": {300 * time.Millisecond, func(ctx context.Context) (bool, string, error) {
			if calls == 1 {
				return false, "still 2 of 3", nil
			}
			<-ctx.Done()
			return false, "", broken
		}, 2, broken, "for the nodes: still 2 of 3: broken"},
		"over the time": {time.Millisecond, func(ctx context.Context) (bool, string, error) { <-ctx.Done(); return false, "still 2 of 3", nil }, 1, context.DeadlineExceeded, "for the nodes: still 2 of 3"},
	} {
		t.Run(name, func(t *testing.T) {
			calls = 0
			err := target.Poll(t.Context(), c.limit, time.Millisecond, "the nodes", func(ctx context.Context) (bool, string, error) {
				calls++
				return c.f(ctx)
			})
			if !errors.Is(err, c.want) || calls < c.calls || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%d calls, %v", calls, err)
			}
		})
	}
}

func TestJudgeAndNamed(t *testing.T) {
	if p := target.Judge("a", true, "f", "w"); p.Result != event.ResultPass || p.Found != "f" || p.Wanted != "w" {
		t.Errorf("%+v", p)
	}
	if p := target.Judge("a", false, "f", "w"); p.Result != event.ResultFail {
		t.Errorf("%+v", p)
	}
	self := func(s string) string { return s }
	if k, err := target.Named([]string{"kill", "freeze"}, "freeze", self); k != "freeze" || err != nil {
		t.Errorf("%q, %v", k, err)
	}
	if _, err := target.Named([]string{"kill"}, "frieze", self); !errors.Is(err, target.ErrUnsupported) || !strings.Contains(err.Error(), `"frieze"`) {
		t.Errorf("%v", err)
	}
}
