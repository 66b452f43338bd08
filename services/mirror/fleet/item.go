// Package fleet runs the inventory's mirrors when they are asked for or when it is
// time, and spreads their work over all mirror processes of an installation.
//
// One process plans a run and remembers it; the items of work travel over a work
// queue of JetStream to whoever has hands free, and what became of them travels
// back. Whatever process ends, another one goes on: a run is planned anew from what
// is remembered, and an item is carried out by conditions, so that doing it twice
// does no harm. A lease keeps others from planning the same mirror meanwhile, and the
// workers from carrying out what somebody planned who has lost it. All processes see
// the same file systems, or mirror buckets only: an item names its places, and who
// finds others under their names leaves it to somebody else.
package fleet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// errItem says that a message is no item, or no result of one.
var errItem = errors.New("not an item of a mirror's work")

// The first byte of both messages, so that an older process never misreads them.
// Results of parts are in a form of their own: who asks for none can be an older one.
const (
	itemVersion  = 2
	partsVersion = 3
)

const (
	flagOrdered = 1 << iota
	flagDryRun
	flagSingle
	flagParts
	flagNames
	flagBin
	allFlags = flagOrdered | flagDryRun | flagSingle | flagParts | flagNames | flagBin
)

// maxErrorText is how much of an error's text travels, in bytes.
const maxErrorText = 400

// The errors of which the planner has to know what they are.
const (
	errorNone = iota
	errorPlain
	errorHeldBack
	errorChanged
	errorNoUpload
	errorRefused
)

// encodeItem writes an item without what only the planner needs, and for which two
// places it is meant.
func encodeItem(it engine.Item, places [2]string) []byte {
	flags := byte(0)
	if it.Ordered {
		flags |= flagOrdered
	}
	if it.DryRun {
		flags |= flagDryRun
	}
	if it.Single {
		flags |= flagSingle
	}
	if it.Parts != nil {
		flags |= flagParts
	}
	if it.Names {
		flags |= flagNames
	}
	if it.Bin != (place.Bin{}) { // An older process, which would delete for good, refuses it.
		flags |= flagBin
	}
	b := []byte{itemVersion, flags}
	for _, id := range places {
		b = appendText(b, id)
	}
	if it.Parts != nil {
		b = appendRange(b, it.Parts)
	}
	if flags&flagBin != 0 {
		b = appendText(b, it.Bin.String())
	}
	b = binary.AppendUvarint(b, uint64(len(it.Actions)))
	var enc wire.Encoder
	for _, a := range it.Actions {
		a.Past = plan.Past{}
		b = enc.AppendAction(b, a)
	}
	return b
}

func decodeItem(b []byte) (it engine.Item, places [2]string, err error) {
	if len(b) < 2 || b[0] != itemVersion || b[1]&^allFlags != 0 {
		return it, places, errItem
	}
	flags := b[1]
	it.Ordered, it.DryRun, it.Single, it.Names = flags&flagOrdered != 0, flags&flagDryRun != 0, flags&flagSingle != 0, flags&flagNames != 0
	b = b[2:]
	for side := range places {
		if places[side], b, err = readText(b); err != nil {
			return it, places, err
		}
	}
	if flags&flagParts != 0 {
		if it.Parts, b, err = readRange(b); err != nil {
			return it, places, err
		}
	}
	if flags&flagBin != 0 {
		if it.Bin, b, err = readBin(b); err != nil {
			return it, places, err
		}
	}
	n, b, err := count(b)
	if err != nil {
		return it, places, err
	}
	var dec wire.Decoder
	for range n {
		var a plan.Action
		if a, b, err = dec.ReadAction(b); err != nil {
			return it, places, fmt.Errorf("%w: %w", errItem, err)
		}
		if a.To > plan.Dest || !a.Op.Changes() {
			return it, places, fmt.Errorf("%w: %s on side %d", errItem, a.Op, a.To)
		}
		it.Actions = append(it.Actions, a)
	}
	if len(b) > 0 {
		return it, places, errItem
	}
	return it, places, nil
}

func readBin(b []byte) (place.Bin, []byte, error) {
	name, b, err := readText(b)
	bin, ok := place.ParseBin(name)
	if err == nil && !ok {
		err = errItem
	}
	return bin, b, err
}

func appendRange(b []byte, p *engine.PartRange) []byte {
	b = appendText(b, string(p.Token))
	b = binary.AppendUvarint(b, uint64(p.Size))
	b = binary.AppendUvarint(b, uint64(p.First))
	return binary.AppendUvarint(b, uint64(p.Count))
}

// readRange reads which parts an item is about. Whether its file has them is seen
// where they are put.
func readRange(b []byte) (*engine.PartRange, []byte, error) {
	token, b, err := readText(b)
	if err != nil {
		return nil, nil, err
	}
	var numbers [3]int64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > math.MaxInt64 {
			return nil, nil, errItem
		}
		numbers[i], b = int64(n), b[size:]
	}
	if max(numbers[1], numbers[2]) > maxParts {
		return nil, nil, errItem
	}
	return &engine.PartRange{Token: []byte(token), Size: numbers[0], First: int(numbers[1]), Count: int(numbers[2])}, b, nil
}

// maxParts is more than the parts that any upload has.
const maxParts = 1 << 20

// count reads the number of what follows. Nothing is shorter than a byte.
func count(b []byte) (int, []byte, error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)) {
		return 0, nil, errItem
	}
	return int(n), b[size:], nil
}

func appendText(b []byte, text string) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

func readText(b []byte) (text string, rest []byte, err error) {
	size, rest, err := count(b)
	if err != nil || size > len(rest) {
		return "", nil, errItem
	}
	return string(rest[:size]), rest[size:], nil
}

func encodeDones(dones []engine.Done) []byte {
	version := byte(itemVersion)
	if slices.ContainsFunc(dones, func(d engine.Done) bool { return len(d.Parts) > 0 }) {
		version = partsVersion
	}
	b := binary.AppendUvarint([]byte{version}, uint64(len(dones)))
	var enc wire.Encoder
	for _, d := range dones {
		b = appendError(b, d.Err)
		b = enc.AppendAction(b, d.Action)
		if version == partsVersion {
			b = appendParts(b, d.Parts)
		}
	}
	return b
}

func appendParts(b []byte, parts [][]byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(parts)))
	for _, part := range parts {
		b = appendText(b, string(part))
	}
	return b
}

func readParts(b []byte) (parts [][]byte, rest []byte, err error) {
	n, b, err := count(b)
	if err != nil {
		return nil, nil, err
	}
	for range n {
		var part string
		if part, b, err = readText(b); err != nil {
			return nil, nil, err
		}
		parts = append(parts, []byte(part))
	}
	return parts, b, nil
}

func appendError(b []byte, err error) []byte {
	kind, text := byte(errorNone), ""
	switch {
	case err == nil:
	case errors.Is(err, engine.ErrHeldBack):
		kind = errorHeldBack
	case errors.Is(err, place.ErrChanged):
		kind, text = errorChanged, err.Error()
	case errors.Is(err, place.ErrNoUpload):
		kind, text = errorNoUpload, err.Error()
	case engine.Refused(err):
		kind, text = errorRefused, err.Error()
	default:
		kind, text = errorPlain, err.Error()
	}
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + " …"
	}
	return appendText(append(b, kind), text)
}

func readError(b []byte) (err error, rest []byte, bad error) {
	if len(b) == 0 {
		return nil, nil, errItem
	}
	kind := b[0]
	text, rest, bad := readText(b[1:])
	if bad != nil {
		return nil, nil, bad
	}
	switch kind {
	case errorNone:
		return nil, rest, nil
	case errorPlain:
		return &RemoteError{Text: text}, rest, nil
	case errorHeldBack:
		return engine.ErrHeldBack, rest, nil
	case errorChanged:
		return &RemoteError{Text: text, Is: place.ErrChanged}, rest, nil
	case errorNoUpload:
		return &RemoteError{Text: text, Is: place.ErrNoUpload}, rest, nil
	case errorRefused:
		return &RemoteError{Text: text, Is: place.ErrRefused}, rest, nil
	}
	return nil, nil, errItem
}

// RemoteError is what went wrong with an action in another process.
type RemoteError struct {
	Text string
	// Is is the error that it is, where the planner has to know; or nil.
	Is error
}

// Error is what the other process said.
func (e *RemoteError) Error() string { return e.Text }

// Unwrap gives what the error is.
func (e *RemoteError) Unwrap() error { return e.Is }

func decodeDones(b []byte) ([]engine.Done, error) {
	if len(b) < 1 || b[0] != itemVersion && b[0] != partsVersion {
		return nil, errItem
	}
	withParts := b[0] == partsVersion
	n, b, err := count(b[1:])
	if err != nil {
		return nil, err
	}
	var dones []engine.Done
	var dec wire.Decoder
	for range n {
		var d engine.Done
		if d.Err, b, err = readError(b); err != nil {
			return nil, err
		}
		if d.Action, b, err = dec.ReadAction(b); err != nil {
			return nil, fmt.Errorf("%w: %w", errItem, err)
		}
		if withParts {
			if d.Parts, b, err = readParts(b); err != nil {
				return nil, err
			}
		}
		dones = append(dones, d)
	}
	if len(b) > 0 {
		return nil, errItem
	}
	return dones, nil
}
