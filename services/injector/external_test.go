package injector

import (
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// TestANoteReadsNoHistory as long as its drill has a conductor here. That it does not
// is seen by a history that would refuse the note, and does once it is asked.
func TestANoteReadsNoHistory(t *testing.T) {
	r := newRig(t)
	b := r.connect(event.Injector, "i1")
	_, err := b.Append(t.Context(), "d-1", event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Requester: "me", Spec: []byte("{}")}},
		event.Draft{Type: event.TypeDrillFinished, Data: event.DrillFinished{Complete: true}})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{Config: Config{Bus: b, Log: r.log()}, drills: map[string]running{"d-1": {conducted: true}}}
	note := bus.Message{Subject: "drill.ext.d-1", Data: []byte(`{"from":"alertmanager","note":"PostgresDown is firing"}`)}
	if err := s.handleExternal(t.Context(), note); err != nil {
		t.Errorf("the history was asked: %v", err)
	}
	delete(s.drills, "d-1")
	if err := s.handleExternal(t.Context(), note); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("a note for a finished drill: %v", err)
	}
	history, err := r.bus.History(t.Context(), "d-1")
	if err != nil || len(history) != 3 || history[2].Event.Type != event.TypeExternalNoted {
		t.Errorf("history %v, %v", types(history), err)
	}
}
