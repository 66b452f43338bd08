// Package event is the contract between the services: the CloudEvents
// envelope, the typed payload of every event, the one table of types, and the
// sealing (signature and hash chain) that makes a drill's history tamper-evident.
//
// It imports only the standard library and the schemas, so that any tool can
// read firedrill's events without pulling in NATS.
package event

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SpecVersion is the CloudEvents version of every envelope.
const SpecVersion = "1.0"

// ContentType is the media type of a whole event as it lies in the stream
// (CloudEvents structured mode, JSON format).
const ContentType = "application/cloudevents+json"

// SchemaBase is the prefix of every dataschema URI: <SchemaBase><version>/<type>.json.
const SchemaBase = "https://github.com/firedrill/firedrill/schemas/"

// Event is one CloudEvents 1.0 envelope with firedrill's extension attributes.
// Extension names are lower-case letters and digits, as the specification asks.
// Signature stays the last field: Seal and Open rely on it.
type Event struct {
	SpecVersion string `json:"specversion"`
	// ID is unique over all events; it is also the message's Nats-Msg-Id.
	ID string `json:"id"`
	// Source is "/firedrill/<service>/<instance>".
	Source string `json:"source"`
	Type   Type   `json:"type"`
	// Subject is the drill's id.
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	DataSchema      string    `json:"dataschema"`
	TraceParent     string    `json:"traceparent,omitempty"`
	// Clock names the monotonic clock that Mono was read on; readings compare
	// only within one clock (see Reading).
	Clock string `json:"clock"`
	Mono  Nanos  `json:"mono"`
	// ChainIndex counts the drill's events from 1.
	ChainIndex int32 `json:"chainindex"`
	// PrevHash is the hex SHA-256 of the previous event's bytes as stored, or
	// 64 zeros for the drill's first event.
	PrevHash string `json:"prevhash"`
	// Signer is the public nkey of the service that wrote the event.
	Signer string          `json:"signer"`
	Data   json.RawMessage `json:"data"`
	// Signature is the base64url (unpadded) Ed25519 signature over the event's
	// bytes without this field.
	Signature string `json:"signature"`
}

// Service returns the writing service's name, or "" if Source has another form.
func (e Event) Service() string {
	parts := strings.Split(e.Source, "/")
	if len(parts) < 4 || parts[0] != "" || parts[1] != "firedrill" {
		return ""
	}
	return parts[2]
}

// Instance returns the writing process's instance name, or "".
func (e Event) Instance() string {
	parts := strings.SplitN(e.Source, "/", 4)
	if len(parts) < 4 || parts[0] != "" || parts[1] != "firedrill" {
		return ""
	}
	return parts[3]
}

// At returns when the event was written, on the writer's clocks.
func (e Event) At() Reading {
	return Reading{Clock: e.Clock, Mono: int64(e.Mono), Wall: e.Time}
}

// SourceOf builds the Source attribute of a service's instance.
func SourceOf(service, instance string) string {
	return "/firedrill/" + service + "/" + instance
}

// Draft is an event before it has a place in the stream: what a service wants
// to say. The bus adds identity, time, chain and signature.
type Draft struct {
	Type Type
	Data any
}

// Reading is one moment on one machine: the wall clock for people, the
// monotonic clock for arithmetic. Two readings may be subtracted only if Clock
// is equal; otherwise an Offset between the two clocks is needed.
type Reading struct {
	// Clock identifies the monotonic clock: a machine's boot. Processes of one
	// boot share it.
	Clock string `json:"clock"`
	// Mono is nanoseconds on that clock.
	Mono int64     `json:"mono_ns"`
	Wall time.Time `json:"wall"`
}

// IsZero reports whether the reading was never taken.
func (r Reading) IsZero() bool { return r.Clock == "" && r.Mono == 0 && r.Wall.IsZero() }

// Nanos is a 64-bit nanosecond count that travels as a decimal string, because
// CloudEvents integers have 32 bits.
type Nanos int64

// MarshalJSON writes the decimal string.
func (n Nanos) MarshalJSON() ([]byte, error) {
	return []byte(`"` + strconv.FormatInt(int64(n), 10) + `"`), nil
}

// UnmarshalJSON reads the decimal string.
func (n *Nanos) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("nanoseconds must be a decimal string: %w", err)
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("nanoseconds %q: not a 64-bit decimal number", s)
	}
	*n = Nanos(v)
	return nil
}

// Duration is a time.Duration that travels as a Go duration string ("1m30s").
type Duration time.Duration

// D returns the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String formats like time.Duration, but without the parts at the end that are zero: 168h,
// as people write it, and not 168h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalJSON writes a duration string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads a duration string such as "30s" or "5m".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("a duration is a string such as \"30s\", not %s", clip(string(b), 40))
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("duration %q: use a number with a unit, such as 500ms, 30s, 5m or 2h", clip(s, 40))
	}
	*d = Duration(v)
	return nil
}

// Interval is a measured quantity that is known to lie in [Lo, Hi]. Open means
// that there is no known upper end (right-censored: "at least Lo").
type Interval struct {
	Lo   int64 `json:"lo_ns"`
	Hi   int64 `json:"hi_ns"`
	Open bool  `json:"open,omitempty"`
}

// Width is Hi-Lo, in nanoseconds; meaningless when Open.
func (i Interval) Width() int64 { return i.Hi - i.Lo }

// Mid is the midpoint, in nanoseconds; meaningless when Open.
func (i Interval) Mid() int64 { return i.Lo + (i.Hi-i.Lo)/2 }

// Contains reports whether v lies in the interval, ends included.
func (i Interval) Contains(v int64) bool { return v >= i.Lo && (i.Open || v <= i.Hi) }

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
