package contract

import (
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/fold/foldtest"
)

// TestTheCoreReadsRecordedHistories: a drill that an earlier release began could be
// gone on with from any of its events, and what it ended with is still its end.
func TestTheCoreReadsRecordedHistories(t *testing.T) {
	for _, r := range foldtest.Recordings(t, "../../services/reporter/fold") {
		t.Run(r.Name, func(t *testing.T) {
			events := opened(t, r)
			var s drill.State
			for i, e := range events {
				s = drill.Apply(s, e)
				if s.Program == nil {
					t.Fatalf("after event %d, %s, there is no program: the accepted drill cannot be read", i+1, e.Type)
				}
				move := drill.Next(s, event.Reading{Wall: e.Time, Clock: e.Clock, Mono: int64(e.Mono)})
				if over := s.Finished != nil; over != (move.Kind == drill.MoveEnd) {
					t.Fatalf("after event %d, %s: finished %v, and next comes %s", i+1, e.Type, over, move.Kind)
				}
			}
			if s.Finished == nil || len(s.Debts) > 0 || len(s.Finished.Outstanding) > 0 {
				t.Errorf("at the end: finished %+v, still owed %+v", s.Finished, s.Debts)
			}
			if complete := s.Abort == nil; complete != s.Finished.Complete || complete != (s.Position() == len(s.Program)) {
				t.Errorf("complete %v, aborted %v, at step %d of %d", s.Finished.Complete, s.Abort, s.Position(), len(s.Program))
			}
		})
	}
}

// opened are the events of a recorded history.
func opened(t *testing.T, r foldtest.Recording) []event.Event {
	t.Helper()
	var out []event.Event
	for _, o := range event.OpenAll(r.Raws, r.Ring) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		out = append(out, o.Event)
	}
	return out
}
