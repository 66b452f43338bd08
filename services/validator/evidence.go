package validator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

const (
	// maxItem is how much of one piece of evidence is kept.
	maxItem = 64 << 10
	// maxEvidence is how much one event may hold, encoded: below NATS's usual
	// limit of 1 MiB for a message.
	maxEvidence = 512 << 10
	// maxItems and maxName keep even empty items below that.
	maxItems = 100
	maxName  = 200
	// evidenceTime bounds the collecting at one target.
	evidenceTime = time.Minute
)

// onTrouble keeps what a person would look at, once for each phase and cause.
func (c Config) onTrouble(ctx context.Context, m bus.Message) error {
	st, err := m.Event()
	if err != nil {
		return bus.Poison(err)
	}
	step, trouble := troubleIn(st.Payload)
	if !trouble {
		return nil
	}
	id, cause := st.Event.Subject, string(st.Event.Type)
	v, err := c.load(ctx, id)
	if err != nil {
		return err
	}
	phase, err := v.phase(step)
	if err != nil {
		return bus.Poison(err)
	}
	if v.published {
		return nil
	}
	var mu sync.Mutex
	var errs []error
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, name := range targets(phase) {
		key := evidenceKey{phase.Name, cause, name}
		if v.evidence[key] {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			items := c.collect(ctx, v.drill, name)
			if ctx.Err() != nil || len(items) == 0 {
				return
			}
			err := c.say(ctx, id, func(v view) bool { return v.evidence[key] },
				event.Draft{Type: event.TypeEvidenceCollected, Data: event.EvidenceCollected{
					Phase: phase.Name, Target: name, Cause: cause, Items: trim(items),
				}})
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// troubleIn tells whether an event calls for evidence, and about which step.
func troubleIn(payload any) (step string, trouble bool) {
	switch p := payload.(type) {
	case *event.RecoveryMissing:
		return p.Step, true
	case *event.SteadyViolated:
		return p.Step, true
	case *event.FaultFailed:
		return p.Step, true
	case *event.ActionFailed:
		return p.Step, true
	case *event.UndoFailed:
		return p.Step, true
	case *event.ChecksCompleted:
		return p.Step, !p.Passed
	}
	return "", false
}

// targets are all that a phase has to do with, sorted.
func targets(p drill.Phase) []string {
	set := map[string]bool{}
	for _, x := range p.Probes {
		set[x.Target] = true
	}
	for _, x := range p.Faults {
		set[x.Target] = true
	}
	for _, xs := range [][]drill.Action{p.Recovery, p.Restore.Actions} {
		for _, x := range xs {
			set[x.Target] = true
		}
	}
	for _, xs := range [][]drill.Check{p.Checks, p.Restore.Checks} {
		for _, x := range xs {
			set[x.Target] = true
		}
	}
	out := make([]string, 0, len(set))
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// collect gets what it can; what it cannot get is an item as well.
func (c Config) collect(ctx context.Context, d drill.Drill, name string) []event.Artifact {
	t, err := c.openTarget(ctx, d, name)
	if err != nil {
		return []event.Artifact{{Name: "not collected", Text: err.Error()}}
	}
	defer func() {
		if err := t.Release(ctx); err != nil {
			c.Log.WarnContext(ctx, "a target did not close cleanly", "target", name, "error", err)
		}
	}()
	if t.Evidence == nil {
		return nil
	}
	type collected struct {
		items []event.Artifact
		err   error
	}
	// The driver's error comes along with what it got, so it is no error here.
	got, err := target.Call(ctx, evidenceTime, "collect evidence", func(ctx context.Context) (collected, error) {
		items, err := t.Evidence.Collect(ctx)
		return collected{items, err}, nil
	}, nil)
	if err := errors.Join(err, got.err); err != nil {
		got.items = append(got.items, event.Artifact{Name: "not collected", Text: err.Error()})
	}
	return got.items
}

// trim keeps the end of each item, where logs are newest, and halves the longest
// ones until all of them fit an event.
func trim(items []event.Artifact) []event.Artifact {
	if n := len(items) - maxItems; n > 0 {
		items = append(slices.Clone(items[:maxItems]), event.Artifact{Name: "left out", Text: fmt.Sprintf("%d more items", n)})
	}
	out := make([]event.Artifact, len(items))
	for limit := maxItem; ; limit /= 2 {
		size := 0
		for i, it := range items {
			out[i] = event.Artifact{Name: head(it.Name, maxName), Text: strings.ToValidUTF8(it.Text, "\uFFFD"), Truncated: it.Truncated}
			if len(out[i].Text) > limit {
				out[i].Text, out[i].Truncated = tail(out[i].Text, limit), true
			}
			size += encoded(out[i])
		}
		if size <= maxEvidence || limit == 0 {
			return out
		}
	}
}

func encoded(a event.Artifact) int {
	raw, err := json.Marshal(a)
	if err != nil {
		return maxEvidence // cannot be: the fields are strings
	}
	return len(raw) + 1
}

// tail is the last n bytes at most, from the start of a character.
func tail(s string, n int) string {
	s = s[len(s)-n:]
	for i := range min(utf8.UTFMax, len(s)) {
		if utf8.RuneStart(s[i]) {
			return s[i:]
		}
	}
	return s
}

// head is the first n bytes at most, with a mark where something is left out.
func head(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
