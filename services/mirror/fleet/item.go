// Package fleet runs the inventory's mirrors when they are asked for or when it is
// time, and spreads their work over all mirror processes of an installation.
//
// One process plans a run and remembers it; the items of work travel over a work
// queue of JetStream to whoever has hands free, and what became of them travels
// back. Whatever process ends, another one goes on: a run is planned anew from what
// is remembered, and an item is carried out by conditions, so that doing it twice
// does no harm. All processes see the same file systems, or mirror buckets only.
package fleet

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// errItem says that a message is no item, or no result of one.
var errItem = errors.New("not an item of a mirror's work")

// The first byte of both messages, so that an older process never misreads them.
const itemVersion = 1

const (
	flagOrdered = 1 << iota
	flagDryRun
)

// encodeItem writes an item without what only the planner needs.
func encodeItem(it engine.Item) []byte {
	flags := byte(0)
	if it.Ordered {
		flags |= flagOrdered
	}
	if it.DryRun {
		flags |= flagDryRun
	}
	b := []byte{itemVersion, flags}
	b = binary.AppendUvarint(b, uint64(len(it.Actions)))
	var enc wire.Encoder
	for _, a := range it.Actions {
		a.Past = plan.Past{}
		b = enc.AppendAction(b, a)
	}
	return b
}

func decodeItem(b []byte) (it engine.Item, err error) {
	if len(b) < 2 || b[0] != itemVersion || b[1]&^(flagOrdered|flagDryRun) != 0 {
		return it, errItem
	}
	it.Ordered, it.DryRun = b[1]&flagOrdered != 0, b[1]&flagDryRun != 0
	n, b, err := count(b[2:])
	if err != nil {
		return it, err
	}
	var dec wire.Decoder
	for range n {
		var a plan.Action
		if a, b, err = dec.ReadAction(b); err != nil {
			return it, fmt.Errorf("%w: %w", errItem, err)
		}
		it.Actions = append(it.Actions, a)
	}
	if len(b) > 0 {
		return it, errItem
	}
	return it, nil
}

// count reads the number of what follows. Nothing is shorter than a byte.
func count(b []byte) (int, []byte, error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)) {
		return 0, nil, errItem
	}
	return int(n), b[size:], nil
}

func encodeDones(dones []engine.Done) []byte {
	b := binary.AppendUvarint([]byte{itemVersion}, uint64(len(dones)))
	var enc wire.Encoder
	for _, d := range dones {
		text := ""
		if d.Err != nil {
			text = d.Err.Error()
		}
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
		b = enc.AppendAction(b, d.Action)
	}
	return b
}

// RemoteError is what went wrong with an action in another process.
type RemoteError struct{ Text string }

// Error is what the other process said.
func (e *RemoteError) Error() string { return e.Text }

func decodeDones(b []byte) ([]engine.Done, error) {
	if len(b) < 1 || b[0] != itemVersion {
		return nil, errItem
	}
	n, b, err := count(b[1:])
	if err != nil {
		return nil, err
	}
	var dones []engine.Done
	var dec wire.Decoder
	for range n {
		var d engine.Done
		size, rest, err := count(b)
		if err != nil || size > len(rest) {
			return nil, errItem
		}
		if size > 0 {
			d.Err = &RemoteError{string(rest[:size])}
		}
		if d.Action, b, err = dec.ReadAction(rest[size:]); err != nil {
			return nil, fmt.Errorf("%w: %w", errItem, err)
		}
		dones = append(dones, d)
	}
	if len(b) > 0 {
		return nil, errItem
	}
	return dones, nil
}
