package event

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// DataContentType is the media type of every payload.
const DataContentType = "application/json"

// NoHash stands in PrevHash of a drill's first event.
const NoHash = "0000000000000000000000000000000000000000000000000000000000000000"

// Reasons why Open refuses bytes. An *OpenError wraps one of them.
var (
	// ErrMalformed means that the bytes are no event in its one canonical form.
	ErrMalformed = errors.New("not a well-formed event")
	// ErrNotAllowed means that the signer or the service may not write this.
	ErrNotAllowed = errors.New("not allowed to write this event")
	// ErrSignature means that the signature does not fit the bytes.
	ErrSignature = errors.New("signature does not match")
)

// OpenError says why Open refused an event.
type OpenError struct {
	// ID and Type are as claimed by the bytes; empty when they could not be read.
	ID   string
	Type Type
	// Kind is ErrMalformed, ErrNotAllowed or ErrSignature.
	Kind error
	// Detail says what was wrong, without the event's content.
	Detail string
}

// Error describes the refusal.
func (e *OpenError) Error() string {
	who := "event"
	if e.ID != "" {
		who = fmt.Sprintf("event %q of type %q", clip(e.ID, 64), clip(string(e.Type), 64))
	}
	return fmt.Sprintf("%s: %v: %s", who, e.Kind, e.Detail)
}

// Unwrap returns Kind.
func (e *OpenError) Unwrap() error { return e.Kind }

// Origin is who writes an event, when, and at which place of a drill's chain.
type Origin struct {
	// ID must be unique over all events.
	ID       string
	Service  string
	Instance string
	Drill    string
	At       Reading
	// TraceParent is a W3C traceparent, or empty.
	TraceParent string
	// Index is the event's place in the chain, from 1; PrevHash the hash of the
	// event before it, or NoHash for the first.
	Index    int32
	PrevHash string
}

// Compose makes an unsigned event of a draft. The draft's Data must be the
// payload type that the table lists for its type (a value or a pointer).
func Compose(d Draft, o Origin) (Event, error) {
	info, ok := Lookup(d.Type)
	if !ok {
		return Event{}, fmt.Errorf("compose event: type %q is not in the table of types", d.Type)
	}
	t := reflect.TypeOf(d.Data)
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != info.PayloadType() {
		return Event{}, fmt.Errorf("compose event of type %s: the payload is a %v, want %v", d.Type, t, info.PayloadType())
	}
	data, err := json.Marshal(d.Data)
	if err != nil {
		return Event{}, fmt.Errorf("compose event of type %s: payload: %w", d.Type, err)
	}
	if string(data) == "null" {
		return Event{}, fmt.Errorf("compose event of type %s: the payload is a nil pointer", d.Type)
	}
	return Event{
		SpecVersion:     SpecVersion,
		ID:              o.ID,
		Source:          SourceOf(o.Service, o.Instance),
		Type:            d.Type,
		Subject:         o.Drill,
		Time:            o.At.Wall.UTC().Round(0),
		DataContentType: DataContentType,
		DataSchema:      info.Schema(),
		TraceParent:     o.TraceParent,
		Clock:           o.At.Clock,
		Mono:            Nanos(o.At.Mono),
		ChainIndex:      o.Index,
		PrevHash:        o.PrevHash,
		Data:            data,
	}, nil
}

// Seal signs e and returns its bytes as they are stored: one JSON object whose
// last field is the signature over the same bytes without that field. Signer
// and Signature of e are overwritten. It refuses what Open would refuse, short
// of the keyring.
func Seal(e Event, s Signer) ([]byte, error) {
	if s == nil {
		return nil, fmt.Errorf("seal event %s of type %s: no signer; give the service its nkey seed", e.ID, e.Type)
	}
	e.Signer = s.Public()
	e.Signature = ""
	raw, err := canonical(e)
	if err != nil {
		return nil, fmt.Errorf("seal event %s of type %s: %w", e.ID, e.Type, err)
	}
	signed := append(raw[:len(raw)-len(emptySignature):len(raw)-len(emptySignature)], '}')
	if fault := checkEnvelope(e); fault != "" {
		return nil, fmt.Errorf("seal event %s of type %s: %w: %s", e.ID, e.Type, ErrMalformed, fault)
	}
	if fault := checkWriter(e); fault != "" {
		return nil, fmt.Errorf("seal event %s of type %s: %w: %s", e.ID, e.Type, ErrNotAllowed, fault)
	}
	sig, err := s.Sign(signed)
	if err != nil {
		return nil, fmt.Errorf("seal event %s of type %s: sign: %w", e.ID, e.Type, err)
	}
	if len(sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("seal event %s of type %s: the signer returned %d bytes, want %d", e.ID, e.Type, len(sig), ed25519.SignatureSize)
	}
	out := make([]byte, 0, len(signed)+len(signatureHead)+signatureChars+len(signatureTail))
	out = append(out, signed[:len(signed)-1]...)
	out = append(out, signatureHead...)
	out = base64.RawURLEncoding.AppendEncode(out, sig)
	return append(out, signatureTail...), nil
}

// The signature field, as it ends every event.
const (
	signatureHead  = `,"signature":"`
	signatureTail  = `"}`
	emptySignature = signatureHead + signatureTail
	signatureChars = 86
)

// canonical marshals e to the only form that Open accepts. Text that JSON
// cannot carry unchanged (invalid UTF-8) is an error, because the signature
// would not survive the next marshalling.
func canonical(e Event) ([]byte, error) {
	first, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	var back Event
	if err := json.Unmarshal(first, &back); err != nil {
		return nil, err
	}
	second, err := json.Marshal(back)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, fmt.Errorf("%w: a field holds invalid UTF-8", ErrMalformed)
	}
	return first, nil
}

// Hash is the hex SHA-256 of an event's whole bytes as stored: what the next
// event carries as PrevHash.
func Hash(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// Open reads stored bytes and proves that they are an event which a service of
// the keyring wrote. The bytes must be the canonical form exactly, so that one
// event has one representation and one hash: unknown, duplicate or reordered
// envelope fields are refused. A type that this build does not know is allowed.
//
// Open looks at one event only. Whether it belongs at its place of a drill's
// history is for VerifyHistory. On error the Event is what could be read, for
// display, and must not be trusted. It never panics, whatever raw holds.
func Open(raw []byte, k Keyring) (Event, error) {
	var e Event
	refuse := func(kind error, format string, args ...any) (Event, error) {
		return e, &OpenError{ID: e.ID, Type: e.Type, Kind: kind, Detail: fmt.Sprintf(format, args...)}
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		e = Event{}
		return refuse(ErrMalformed, "not JSON of an event: %s", clip(err.Error(), 200))
	}
	again, err := json.Marshal(e)
	if err != nil || !bytes.Equal(again, raw) {
		return refuse(ErrMalformed, "not in canonical form: unknown, duplicate or reordered fields, or another spelling of the same JSON")
	}
	if fault := checkEnvelope(e); fault != "" {
		return refuse(ErrMalformed, "%s", fault)
	}
	if fault := checkWriter(e); fault != "" {
		return refuse(ErrNotAllowed, "%s", fault)
	}
	if !k.Allows(e.Service(), e.Signer) {
		return refuse(ErrNotAllowed, "key %s is not one of the %s's keys in the keyring", clip(e.Signer, 60), e.Service())
	}
	if fault := checkSignature(raw, e); fault != "" {
		return refuse(ErrSignature, "%s", fault)
	}
	return e, nil
}

func checkSignature(raw []byte, e Event) string {
	if len(e.Signature) != signatureChars {
		return fmt.Sprintf("the signature has %d characters, want %d", len(e.Signature), signatureChars)
	}
	field := signatureHead + e.Signature + signatureTail
	if !bytes.HasSuffix(raw, []byte(field)) {
		return "the signature is not the last field"
	}
	// Strict: the unused bits of the last character must be zero, or one
	// signature would have several spellings.
	sig, err := base64.RawURLEncoding.Strict().DecodeString(e.Signature)
	if err != nil {
		return "the signature is not base64url"
	}
	key, err := publicKey(e.Signer)
	if err != nil {
		return err.Error()
	}
	signed := make([]byte, 0, len(raw))
	signed = append(append(signed, raw[:len(raw)-len(field)]...), '}')
	if !ed25519.Verify(key, signed, sig) {
		return "the bytes were altered, or signed by another key"
	}
	return ""
}

const (
	nkeyUserPrefix = 20 << 3
	nkeyRawLen     = 1 + ed25519.PublicKeySize + 2
)

// publicKey decodes a public user nkey: base32 of prefix, key and CRC-16. It is
// here, and not taken from the nkeys module, to keep this package importable
// without it.
func publicKey(nkey string) (ed25519.PublicKey, error) {
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(nkey)
	if err != nil || len(b) != nkeyRawLen || b[0] != nkeyUserPrefix {
		return nil, errors.New("the signer is not a public user nkey (U…)")
	}
	body, sum := b[:nkeyRawLen-2], uint16(b[nkeyRawLen-2])|uint16(b[nkeyRawLen-1])<<8
	if crc16(body) != sum {
		return nil, errors.New("the signer's nkey has a wrong checksum")
	}
	return ed25519.PublicKey(body[1:]), nil
}

// crc16 is CRC-16/XMODEM, as nkeys use it.
func crc16(data []byte) uint16 {
	var crc uint16
	for _, b := range data {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// checkEnvelope returns what is wrong with the envelope's fields, or "".
func checkEnvelope(e Event) string {
	_, offset := e.Time.Zone()
	switch {
	case e.SpecVersion != SpecVersion:
		return fmt.Sprintf("specversion is %q, want %q", clip(e.SpecVersion, 20), SpecVersion)
	case !isToken(e.ID):
		return "id must be 1 to 128 letters, digits, dots, colons, dashes or underscores"
	case e.Service() == "" || !isToken(e.Instance()):
		return fmt.Sprintf("source %q is not /firedrill/<service>/<instance>", clip(e.Source, 80))
	case !isType(e.Type):
		return fmt.Sprintf("type %q is not two or more lower-case words joined by dots", clip(string(e.Type), 80))
	case !IsDrillID(e.Subject):
		return fmt.Sprintf("subject %q is not a drill's id", clip(e.Subject, 80))
	case e.Time.IsZero() || offset != 0:
		return "time must be set, and in UTC"
	case e.Time.Year() < 1970 || e.Time.Year() > 9999:
		return "time must lie between the years 1970 and 9999"
	case e.DataContentType != DataContentType:
		return fmt.Sprintf("datacontenttype is %q, want %q", clip(e.DataContentType, 40), DataContentType)
	case !schemaFits(e):
		return fmt.Sprintf("dataschema %q does not belong to type %s", clip(e.DataSchema, 120), e.Type)
	case e.TraceParent != "" && !isTraceParent(e.TraceParent):
		return "traceparent is not of the W3C form"
	case !isToken(e.Clock):
		return "clock must name the monotonic clock"
	case e.ChainIndex < 1:
		return fmt.Sprintf("chainindex is %d, want 1 or more", e.ChainIndex)
	case !isHash(e.PrevHash) || (e.ChainIndex == 1) != (e.PrevHash == NoHash):
		return "prevhash must be 64 lower-case hex digits, zeros for the first event and only for it"
	case len(e.Data) == 0 || e.Data[0] != '{':
		return "data must be a JSON object"
	}
	return ""
}

// checkWriter returns why the source's service may not write the type, or "".
func checkWriter(e Event) string {
	if !slices.Contains(Services(), e.Service()) {
		return fmt.Sprintf("%q is not one of firedrill's services", clip(e.Service(), 40))
	}
	if info, ok := Lookup(e.Type); ok && info.Service != e.Service() {
		return fmt.Sprintf("only the %s writes %s, not the %s", info.Service, e.Type, e.Service())
	}
	return ""
}

func schemaFits(e Event) bool {
	rest, ok := strings.CutPrefix(e.DataSchema, SchemaBase)
	if !ok {
		return false
	}
	version, name, ok := strings.Cut(rest, "/")
	return ok && isToken(version) && name == string(e.Type)+".json"
}

// IsDrillID reports whether s can be a drill's id: one NATS subject token of 1
// to 100 letters, digits, dashes or underscores.
func IsDrillID(s string) bool {
	return len(s) <= 100 && isToken(s) && !strings.ContainsAny(s, ".:")
}

func isToken(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '_', c == '.', c == ':':
		default:
			return false
		}
	}
	return true
}

func isType(t Type) bool {
	if len(t) > 80 {
		return false
	}
	words := strings.Split(string(t), ".")
	for _, w := range words {
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return false
		}
	}
	return len(words) > 1
}

func isHash(s string) bool { return len(s) == len(NoHash) && isLowerHex(s) }

func isLowerHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func isTraceParent(s string) bool {
	p := strings.Split(s, "-")
	return len(p) == 4 && len(p[0]) == 2 && len(p[1]) == 32 && len(p[2]) == 16 && len(p[3]) == 2 &&
		isLowerHex(p[0]+p[1]+p[2]+p[3])
}
