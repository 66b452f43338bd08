package schemagen

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/nats-io/nkeys"
)

// ExamplesDir holds the golden examples, below the schemas directory.
const ExamplesDir = "examples"

// ExampleKeyring is the keyring under which the examples verify.
const ExampleKeyring = ExamplesDir + "/keyring.json"

// exampleDrill is the drill that the examples tell of.
const exampleDrill = "pg-failover-17"

// exampleOrigin is when its first event was written; its clock reads 2h then.
func exampleOrigin() time.Time { return time.Date(2026, time.March, 14, 9, 30, 0, 0, time.UTC) }

// ExampleFile is the path of a type's example below the schemas directory.
func ExampleFile(t event.Type) string { return ExamplesDir + "/" + string(t) + ".json" }

// exampleSigner signs with a key that is made from the service's name. Such a
// key is worth nothing, and that is its purpose: everybody can make it again.
type exampleSigner struct {
	pair   nkeys.KeyPair
	public string
}

func newExampleSigner(service string) (exampleSigner, error) {
	seed := sha256.Sum256([]byte("firedrill example " + service))
	pair, err := nkeys.FromRawSeed(nkeys.PrefixByteUser, seed[:])
	if err != nil {
		return exampleSigner{}, fmt.Errorf("key for the examples of %s: %w", service, err)
	}
	public, err := pair.PublicKey()
	return exampleSigner{pair, public}, err
}

// Public is the public nkey.
func (s exampleSigner) Public() string { return s.public }

// Sign signs with Ed25519, which is deterministic.
func (s exampleSigner) Sign(data []byte) ([]byte, error) { return s.pair.Sign(data) }

// Examples returns one event of each type, truly signed and chained in the
// order of the table, and the keyring that verifies them. Each is indented:
// without its white space it is byte by byte the event as it would be stored.
func Examples() (map[string][]byte, error) {
	out := map[string][]byte{}
	ring := event.Keyring{}
	signers := map[string]exampleSigner{}
	for _, service := range event.Services() {
		s, err := newExampleSigner(service)
		if err != nil {
			return nil, err
		}
		signers[service], ring[service] = s, []string{s.public}
	}
	payloads := examplePayloads()
	prev := event.NoHash
	for i, info := range event.Table() {
		payload, ok := payloads[info.Type]
		if !ok {
			return nil, fmt.Errorf("example of %s: it has none; add one to examplePayloads", info.Type)
		}
		e, err := event.Compose(event.Draft{Type: info.Type, Data: payload}, event.Origin{
			ID: fmt.Sprintf("%s.%03d", exampleDrill, i+1), Service: info.Service, Instance: info.Service + "-1", Drill: exampleDrill,
			At:          exampleReading(time.Duration(i) * 1500 * time.Millisecond),
			TraceParent: "00-" + "4bf92f3577b34da6a3ce929d0e0e4736" + fmt.Sprintf("-%016x-01", i+1),
			Index:       int32(i + 1), PrevHash: prev,
		})
		if err != nil {
			return nil, fmt.Errorf("example: %w", err)
		}
		raw, err := event.Seal(e, signers[info.Service])
		if err != nil {
			return nil, fmt.Errorf("example: %w", err)
		}
		prev = event.Hash(raw)
		if out[ExampleFile(info.Type)], err = indent(raw); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(ring)
	if err != nil {
		return nil, err
	}
	out[ExampleKeyring], err = indent(raw)
	return out, err
}

// exampleReading reads the example's clock some time after its first event.
func exampleReading(after time.Duration) event.Reading {
	return event.Reading{Clock: "boot-5f1d0c2a", Mono: int64(2*time.Hour + after), Wall: exampleOrigin().Add(after)}
}

func indent(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
