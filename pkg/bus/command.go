package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/event"
)

const subjectHalt = "drill.halt"

// Command stores a command for a drill, such as "abort", on
// drill.cmd.<drill>.<verb>. Whoever conducts the drill, now or later, reads it.
func (b *Bus) Command(ctx context.Context, drill, verb string, data []byte) error {
	if !event.IsDrillID(drill) || !token(verb) {
		return fmt.Errorf("command %q for drill %q: not a drill id and a single word", verb, drill)
	}
	m := nats.NewMsg("drill.cmd." + drill + "." + verb)
	m.Data = data
	_, err := b.publish(ctx, m, "")
	return err
}

// FollowCommands calls fn for each command the drill was given, oldest first,
// and then for each new one, until ctx ends or fn returns an error (Stop ends
// without one). With the drill "*" it follows the commands of all drills.
func (b *Bus) FollowCommands(ctx context.Context, drill string, fn func(verb string, data []byte) error) error {
	if drill != "*" && !event.IsDrillID(drill) {
		return fmt.Errorf("follow commands of drill %q: that is no drill id", drill)
	}
	return b.read(ctx, feed{stream: StreamCommands, filter: "drill.cmd." + drill + ".*"}, func(r record) error {
		return fn(r.Subject[strings.LastIndexByte(r.Subject, '.')+1:], r.Data)
	})
}

// Halt is the state of the one switch that stops all drills and blocks new ones.
type Halt struct {
	Halted bool   `json:"halted"`
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
	// At is when it was switched; SwitchHalt fills it in.
	At time.Time `json:"at"`
	// seq is where the state is stored: SwitchHalt compares with it.
	seq uint64
}

// String says who halted all drills, when and why.
func (h Halt) String() string {
	return fmt.Sprintf("by %s on %s: %s", h.By, h.At.Format(time.RFC3339), h.Reason)
}

// SetHalt is SwitchHalt for who does not ask how it was before.
func (b *Bus) SetHalt(ctx context.Context, h Halt) error {
	_, _, err := b.SwitchHalt(ctx, h)
	return err
}

// SwitchHalt switches halt on or off for everybody, and returns the state that it
// replaced. A switch that is there already stays as it is, with its reason, and is
// returned with switched false: of two that halt at the same time, one does.
func (b *Bus) SwitchHalt(ctx context.Context, h Halt) (before Halt, switched bool, err error) {
	if h.At.IsZero() {
		h.At = b.id.Clock.Now().Wall
	}
	data, err := json.Marshal(h)
	if err != nil {
		return Halt{}, false, fmt.Errorf("set the halt switch: %w", err)
	}
	for {
		if before, err = b.HaltState(ctx); err != nil || before.Halted == h.Halted {
			return before, false, err
		}
		err = b.replaceHalt(ctx, before.seq, data)
		if !errors.Is(err, ErrConflict) {
			return before, err == nil, err
		}
	}
}

// replaceHalt stores the switch's state if the last one is still that at seq.
func (b *Bus) replaceHalt(ctx context.Context, seq uint64, data []byte) error {
	m := nats.NewMsg(subjectHalt)
	m.Data = data
	m.Header.Set("Content-Type", "application/json")
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10))
	_, err := b.publish(ctx, m, "")
	if isCode(err, codeWrongLastSequence) {
		return fmt.Errorf("set the halt switch: %w", ErrConflict)
	}
	return err
}

// HaltState returns the switch's state; the zero Halt if it was never used. An
// unreadable state counts as halted: what cannot be understood must not let
// faults through.
func (b *Bus) HaltState(ctx context.Context) (Halt, error) {
	r, err := b.get(ctx, StreamControl, getRequest{LastFor: subjectHalt})
	if errors.Is(err, errNoRecord) {
		return Halt{}, nil
	}
	if err != nil {
		return Halt{}, fmt.Errorf("read the halt switch: %w", err)
	}
	return readHalt(r), nil
}

// WatchHalt calls fn with the switch's state now, and then at each change, until
// ctx ends.
func (b *Bus) WatchHalt(ctx context.Context, fn func(Halt)) error {
	told := false
	return b.read(ctx, feed{
		stream: StreamControl, filter: subjectHalt, lastOnly: true,
		idle: func() error {
			if !told {
				fn(Halt{})
			}
			return nil
		},
	}, func(r record) error {
		told = true
		fn(readHalt(r))
		return nil
	})
}

func readHalt(r record) Halt {
	var h Halt
	if err := json.Unmarshal(r.Data, &h); err != nil {
		return Halt{Halted: true, By: "unknown", At: r.Time, seq: r.Seq,
			Reason: `the message on drill.halt is not {"halted": …, "by": …, "reason": …}`}
	}
	if h.At.IsZero() {
		h.At = r.Time
	}
	h.seq = r.Seq
	return h
}
