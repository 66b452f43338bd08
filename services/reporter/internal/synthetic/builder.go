// Package synthetic builds drill histories for tests: signed, chained and
// deterministic, with attempts made from a known truth. The same scenario gives
// the same bytes on every machine.
package synthetic

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// ClockName is the monotonic clock of every process of the histories.
const ClockName = "boot-00f1edd1110000aa"

// monoBase is the clock's reading at the drill's start; it is not zero, so that
// a forgotten offset shows.
const monoBase = int64(86_400_000_000_000)

// Keys returns the services' signers and the keyring that trusts them. They are
// derived from the services' names and worth nothing elsewhere.
func Keys() (map[string]event.Signer, event.Keyring) {
	signers, ring := map[string]event.Signer{}, event.Keyring{}
	for _, s := range event.Services() {
		k := NewSigner(s)
		signers[s], ring[s] = k, []string{k.Public()}
	}
	return signers, ring
}

// Signer signs with a key made from a name.
type Signer struct {
	private ed25519.PrivateKey
	public  string
}

// NewSigner makes the signer of a name. The private key is kept as it is derived: an
// nkeys.KeyPair would derive it again for each signature.
func NewSigner(name string) Signer {
	seed := sha256.Sum256([]byte("synthetic/" + name))
	private := ed25519.NewKeyFromSeed(seed[:])
	public, err := nkeys.Encode(nkeys.PrefixByteUser, private.Public().(ed25519.PublicKey))
	if err != nil {
		panic(fmt.Sprintf("encode a public key: %v", err)) // the length is right by construction
	}
	return Signer{private, string(public)}
}

// Public is the public nkey.
func (s Signer) Public() string { return s.public }

// Sign signs.
func (s Signer) Sign(data []byte) ([]byte, error) { return ed25519.Sign(s.private, data), nil }

// Builder collects events with their times and turns them into a history.
type Builder struct {
	drill  string
	start  time.Time
	events []draft
}

type draft struct {
	at      time.Duration
	service string
	// instance is the writing process.
	instance string
	draft    event.Draft
}

// New returns a builder of a drill's history that starts at a fixed time.
func New(id string) *Builder {
	return &Builder{drill: id, start: time.Date(2026, 5, 4, 9, 30, 0, 0, time.UTC)}
}

// Reading is the moment at after the drill's start, on the observer's clock.
func (b *Builder) Reading(at time.Duration) event.Reading {
	return event.Reading{Clock: ClockName, Mono: monoBase + int64(at), Wall: b.start.Add(at)}
}

// Add puts in an event, written at a moment after the drill's start by the
// type's own service.
func (b *Builder) Add(at time.Duration, t event.Type, payload any) {
	info, ok := event.Lookup(t)
	if !ok {
		panic("no such type: " + string(t))
	}
	b.events = append(b.events, draft{at, info.Service, info.Service + "-1", event.Draft{Type: t, Data: payload}})
}

// Without takes out the events of some types, as if they had never been written.
func (b *Builder) Without(types ...event.Type) *Builder {
	b.events = slices.DeleteFunc(b.events, func(d draft) bool { return slices.Contains(types, d.draft.Type) })
	return b
}

// Change replaces each event's payload with what f makes of it.
func (b *Builder) Change(f func(payload any) any) {
	for i := range b.events {
		b.events[i].draft.Data = f(b.events[i].draft.Data)
	}
}

// accepted is a drill's opening event.
func accepted(d drill.Drill, requester string, sequence uint64) event.DrillAccepted {
	spec, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprintf("marshal a drill: %v", err))
	}
	sum := sha256.Sum256(spec)
	return event.DrillAccepted{
		Requester: requester, Spec: spec, SpecHash: hex.EncodeToString(sum[:]), Seed: 4711,
		Request: event.RequestRef{Subject: "drill.req." + requester + "." + d.Metadata.Name, Sequence: sequence,
			TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
}

// Accept opens the drill.
func (b *Builder) Accept(d drill.Drill, requester string) {
	b.Add(0, event.TypeDrillAccepted, accepted(d, requester, 7))
	b.Add(5*time.Millisecond, event.TypeLeaseTaken, event.LeaseTaken{Holder: "injector-1", Epoch: 1, TTL: event.Duration(15 * time.Second)})
	b.Add(20*time.Millisecond, event.TypeObserverClaimed, event.ObserverClaimed{Instance: "observer-1", Epoch: 1})
}

// Timed is an event before it is stored, and when it is to have been written.
type Timed struct {
	event.Draft
	At event.Reading
}

// Drafts returns the events in order, for publishing on a real bus.
func (b *Builder) Drafts() []Timed {
	out := make([]Timed, 0, len(b.events))
	for _, d := range b.sorted() {
		out = append(out, Timed{d.draft, b.Reading(d.at)})
	}
	return out
}

func (b *Builder) sorted() []draft {
	es := slices.Clone(b.events)
	slices.SortStableFunc(es, func(x, y draft) int { return cmp.Compare(x.at, y.at) })
	return es
}

// History seals the events, in order of time, into the bytes as they would be
// stored.
func (b *Builder) History() [][]byte {
	signers, _ := Keys()
	var raws [][]byte
	prev := event.NoHash
	for i, d := range b.sorted() {
		e, err := event.Compose(d.draft, event.Origin{
			ID: fmt.Sprintf("%s.%d", b.drill, i+1), Service: d.service, Instance: d.instance, Drill: b.drill,
			At: b.Reading(d.at), Index: int32(i + 1), PrevHash: prev,
		})
		if err != nil {
			panic(fmt.Sprintf("compose event %d: %v", i+1, err))
		}
		raw, err := event.Seal(e, signers[d.service])
		if err != nil {
			panic(fmt.Sprintf("seal event %d: %v", i+1, err))
		}
		raws, prev = append(raws, raw), event.Hash(raw)
	}
	return raws
}
