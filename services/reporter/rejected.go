package reporter

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// rejection is the answer to a request that became no drill, as the injector put
// it on drill.res.<who>.<name>.
type rejection struct {
	Drill    string         `json:"drill"`
	State    string         `json:"state"`
	Reason   string         `json:"reason,omitempty"`
	Problems drill.Problems `json:"problems,omitempty"`
}

// rejected finds out whether the request that a drill's id stands for was
// rejected; nil when it was not, or not yet.
func (s *service) rejected(ctx context.Context, id string) (*rejection, error) {
	_, number, _ := strings.Cut(id[max(strings.LastIndexByte(id, '-'), 0):], "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || seq == 0 {
		return nil, nil
	}
	asked, err := s.Bus.RequestAt(ctx, seq)
	if errors.Is(err, bus.ErrNoRequest) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, name, err := drill.CheckRequest(asked.Data)
	if err != nil || drill.ID(name, seq) != id {
		return nil, nil
	}
	// The name in the subject need not be the drill's.
	who, called, _ := bus.ReadRequestSubject(asked.Subject)
	if who == "" {
		return nil, nil // nobody was answered
	}
	answers, err := s.Bus.ResultsOf(ctx, who, called)
	if err != nil {
		return nil, err
	}
	for _, raw := range answers {
		var a struct {
			rejection
			Request event.RequestRef `json:"request"`
		}
		if json.Unmarshal(raw, &a) == nil && a.Request.Sequence == seq && a.State == "rejected" {
			a.Drill = id
			return &a.rejection, nil
		}
	}
	return nil, nil
}
