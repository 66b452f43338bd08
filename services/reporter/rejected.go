package reporter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// Rejection is a request that became no drill, with the answer that the injector put
// on drill.res.<who>.<name>.
type Rejection struct {
	// Drill is the id that the drill would have had.
	Drill string `json:"drill"`
	// State is rejected.
	State     string `json:"state"`
	Requester string `json:"requester"`
	// Asked is when the request was stored.
	Asked    time.Time      `json:"asked"`
	Reason   string         `json:"reason,omitempty"`
	Problems drill.Problems `json:"problems,omitempty"`
}

// Why says on one line why the request was rejected.
func (r Rejection) Why() string {
	switch n := len(r.Problems); {
	case r.Reason != "":
		return r.Reason
	case n == 0:
		return "no reason is given"
	case n == 1:
		return r.Problems[0].Error()
	default:
		return fmt.Sprintf("%s (the first of %d problems)", r.Problems[0].Error(), n)
	}
}

const (
	// maxRejected is how many rejected requests are listed, the latest ones.
	maxRejected = 20
	// maxLooked is how many requests are looked at to find them.
	maxLooked = 200
)

// rejected finds out whether the request that a drill's id stands for was
// rejected; nil when it was not, or not yet.
func (s *service) rejected(ctx context.Context, id string) (*Rejection, error) {
	_, number, _ := strings.Cut(id[max(strings.LastIndexByte(id, '-'), 0):], "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || seq == 0 {
		return nil, nil
	}
	no, err := newAnswers(s.Bus).rejection(ctx, seq)
	if errors.Is(err, bus.ErrNoRequest) || no != nil && no.Drill != id {
		return nil, nil
	}
	return no, err
}

// rejections are the latest rejected requests, the latest first. drills are all
// drills there are: what lies between their requests and after them became none.
func (s *service) rejections(ctx context.Context, drills []bus.Summary) ([]Rejection, error) {
	became := map[uint64]bool{}
	known := uint64(1)
	for _, d := range drills {
		if p, ok := d.Accepted.Payload.(*event.DrillAccepted); ok {
			became[p.Request.Sequence] = true
			known = max(known, p.Request.Sequence)
		}
	}
	last, err := s.lastRequest(ctx, known)
	if err != nil {
		return nil, err
	}
	var out []Rejection
	given := newAnswers(s.Bus)
	for seq := last; seq > 0 && last-seq < maxLooked && len(out) < maxRejected; seq-- {
		if became[seq] {
			continue
		}
		no, err := given.rejection(ctx, seq)
		if errors.Is(err, bus.ErrNoRequest) {
			break // too old: the stream has let go of it
		}
		if err != nil {
			return out, err
		}
		if no != nil {
			out = append(out, *no)
		}
	}
	return out, nil
}

// lastRequest finds the sequence of the last request, from one that is stored; 0 when
// that one is not, or not any more. The stream has no gaps, because only age removes
// requests: steps that double get past the last one, and halving them leads to it.
func (s *service) lastRequest(ctx context.Context, known uint64) (uint64, error) {
	stored := func(seq uint64) (bool, error) {
		_, err := s.Bus.RequestAt(ctx, seq)
		if errors.Is(err, bus.ErrNoRequest) {
			return false, nil
		}
		return err == nil, err
	}
	if ok, err := stored(known); !ok || err != nil {
		return 0, err
	}
	last, step := known, uint64(1)
	for grows := true; step > 0; {
		ok, err := stored(last + step)
		if err != nil {
			return 0, err
		}
		if ok {
			last += step
		}
		if grows = grows && ok; grows {
			step *= 2
		} else {
			step /= 2
		}
	}
	return last, nil
}

// answers reads what requests were answered, each requester's once.
type answers struct {
	bus *bus.Bus
	to  map[string][][]byte
}

func newAnswers(b *bus.Bus) answers { return answers{bus: b, to: map[string][][]byte{}} }

// rejection is the request at a sequence, if it was rejected; nil when it became a
// drill or has no answer yet. bus.ErrNoRequest says that there is none.
func (a answers) rejection(ctx context.Context, seq uint64) (*Rejection, error) {
	asked, err := a.bus.RequestAt(ctx, seq)
	if err != nil {
		return nil, err
	}
	// The name in the subject need not be the drill's.
	who, called, _ := bus.ReadRequestSubject(asked.Subject)
	if who == "" {
		return nil, nil // nobody was answered
	}
	given, known := a.to[who+"."+called]
	if !known {
		err := a.bus.ResultsOf(ctx, who, called, time.Time{}, func(raw []byte) error {
			given = append(given, raw)
			return nil
		})
		if err != nil {
			return nil, err
		}
		a.to[who+"."+called] = given
	}
	for _, raw := range given {
		var r struct {
			Rejection
			Request event.RequestRef `json:"request"`
		}
		if json.Unmarshal(raw, &r) == nil && r.Request.Sequence == seq && r.State == StateRejected {
			r.Drill, r.Requester, r.Asked = wouldBe(asked, called), who, asked.Stored
			return &r.Rejection, nil
		}
	}
	return nil, nil
}

// wouldBe is the id of the drill that a request asked for. One that gives its drill no
// name that can be read goes by the name in its subject.
func wouldBe(asked bus.Request, called string) string {
	_, name, _ := drill.CheckRequest(asked.Data)
	if id := drill.ID(name, asked.Seq); name != "" && event.IsDrillID(id) {
		return id
	}
	return drill.ID(called, asked.Seq)
}
