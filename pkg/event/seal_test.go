package event_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

// crew is one key for each service.
type crew struct {
	ring event.Keyring
	by   map[string]*keys.Signer
}

func newCrew(t testing.TB) crew {
	t.Helper()
	c := crew{ring: event.Keyring{}, by: map[string]*keys.Signer{}}
	for _, service := range event.Services() {
		k, err := keys.New()
		if err != nil {
			t.Fatal(err)
		}
		c.by[service] = k
		c.ring[service] = []string{k.Public()}
	}
	return c
}

var moment = event.Reading{Clock: "boot-1", Mono: 12345, Wall: time.Date(2026, 11, 21, 4, 5, 6, 789, time.UTC)}

func origin(service string, index int32, prev string) event.Origin {
	return event.Origin{
		ID: fmt.Sprintf("id-%d", index), Service: service, Instance: "i-1", Drill: "d", At: moment,
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Index: index, PrevHash: prev,
	}
}

func (c crew) seal(t testing.TB, d event.Draft, o event.Origin) []byte {
	t.Helper()
	e, err := event.Compose(d, o)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := event.Seal(e, c.by[o.Service])
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSealedOpens(t *testing.T) {
	c := newCrew(t)
	raw := c.seal(t, event.Draft{Type: event.TypePhaseStarted, Data: &event.PhaseStarted{Phase: "<p> & \u2028 ü"}}, origin(event.Injector, 1, event.NoHash))
	e, err := event.Open(raw, c.ring)
	if err != nil {
		t.Fatal(err)
	}
	if e.Service() != event.Injector || e.Instance() != "i-1" || e.Subject != "d" || e.ChainIndex != 1 || e.At() != moment {
		t.Errorf("opened %+v", e)
	}
	p, err := event.Decode(e)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.(*event.PhaseStarted).Phase; got != "<p> & \u2028 ü" {
		t.Errorf("phase is %q", got)
	}
	if !strings.HasSuffix(string(raw), `,"signature":"`+e.Signature+`"}`) {
		t.Errorf("the signature is not the last field: %s", raw)
	}
}

// TestSignedBytes pins the wire contract, for verifiers in other languages: the
// signature is over the bytes with the last field cut off.
func TestSignedBytes(t *testing.T) {
	c := newCrew(t)
	e, err := event.Compose(event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "p"}}, origin(event.Injector, 1, event.NoHash))
	if err != nil {
		t.Fatal(err)
	}
	s := &recorder{Signer: c.by[event.Injector]}
	raw, err := event.Seal(e, s)
	if err != nil {
		t.Fatal(err)
	}
	cut := strings.LastIndex(string(raw), `,"signature":"`)
	if want := string(raw[:cut]) + "}"; s.data != want {
		t.Errorf("signed\n%s\nwant\n%s", s.data, want)
	}
	if !json.Valid([]byte(s.data)) {
		t.Error("the signed bytes are no JSON")
	}
}

type recorder struct {
	event.Signer
	data string
}

func (r *recorder) Sign(data []byte) ([]byte, error) {
	r.data = string(data)
	return r.Signer.Sign(data)
}

// resign changes an event before it is signed, past Seal's own checks.
func (c crew) resign(t *testing.T, service string, change func(m map[string]any, order *[]string)) []byte {
	t.Helper()
	raw := c.seal(t, event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "p"}}, origin(event.Injector, 2, strings.Repeat("a", 64)))
	m := map[string]any{}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	m["signer"] = c.by[service].Public()
	order := []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "traceparent", "clock", "mono", "chainindex", "prevhash", "signer", "data"}
	change(m, &order)
	var b strings.Builder
	for i, k := range order {
		v, err := json.Marshal(m[k])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s%q:%s", map[bool]string{true: "{", false: ","}[i == 0], k, v)
	}
	return c.sign(t, service, b.String()+"}")
}

func (c crew) sign(t *testing.T, service, body string) []byte {
	t.Helper()
	sig, err := c.by[service].Sign([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(body[:len(body)-1] + `,"signature":"` + b64(sig) + `"}`)
}

func TestOpenRefuses(t *testing.T) {
	c := newCrew(t)
	field := func(k string, v any) func(map[string]any, *[]string) {
		return func(m map[string]any, _ *[]string) { m[k] = v }
	}
	cases := map[string]struct {
		service string
		change  func(map[string]any, *[]string)
		kind    error
	}{
		"specversion":        {event.Injector, field("specversion", "0.3"), event.ErrMalformed},
		"empty id":           {event.Injector, field("id", ""), event.ErrMalformed},
		"id with newline":    {event.Injector, field("id", "a\nb"), event.ErrMalformed},
		"source form":        {event.Injector, field("source", "/elsewhere/injector/i"), event.ErrMalformed},
		"source without":     {event.Injector, field("source", "/firedrill/injector/"), event.ErrMalformed},
		"unknown service":    {event.Injector, field("source", "/firedrill/janitor/i"), event.ErrNotAllowed},
		"type form":          {event.Injector, field("type", "Phase Started"), event.ErrMalformed},
		"type and schema":    {event.Injector, field("type", "phase.finished"), event.ErrMalformed},
		"subject wildcard":   {event.Injector, field("subject", "d.>"), event.ErrMalformed},
		"time zone":          {event.Injector, field("time", "2026-11-21T04:05:06+01:00"), event.ErrMalformed},
		"no time":            {event.Injector, field("time", "0001-01-01T00:00:00Z"), event.ErrMalformed},
		"content type":       {event.Injector, field("datacontenttype", "text/plain"), event.ErrMalformed},
		"foreign schema":     {event.Injector, field("dataschema", "https://example.org/phase.started.json"), event.ErrMalformed},
		"traceparent":        {event.Injector, field("traceparent", "00-zz-11-01"), event.ErrMalformed},
		"clock":              {event.Injector, field("clock", ""), event.ErrMalformed},
		"mono as number":     {event.Injector, field("mono", 12345), event.ErrMalformed},
		"mono spelling":      {event.Injector, field("mono", "0012345"), event.ErrMalformed},
		"chain index 0":      {event.Injector, field("chainindex", 0), event.ErrMalformed},
		"chain index huge":   {event.Injector, field("chainindex", 1<<40), event.ErrMalformed},
		"prevhash":           {event.Injector, field("prevhash", "abc"), event.ErrMalformed},
		"prevhash zeros":     {event.Injector, field("prevhash", event.NoHash), event.ErrMalformed},
		"prevhash upper":     {event.Injector, field("prevhash", strings.Repeat("A", 64)), event.ErrMalformed},
		"data a list":        {event.Injector, field("data", []int{1}), event.ErrMalformed},
		"data null":          {event.Injector, field("data", nil), event.ErrMalformed},
		"not the writer":     {event.Observer, field("source", "/firedrill/observer/i"), event.ErrNotAllowed},
		"other's key":        {event.Observer, func(map[string]any, *[]string) {}, event.ErrNotAllowed},
		"signer no key":      {event.Injector, field("signer", "UABC"), event.ErrNotAllowed},
		"unknown field":      {event.Injector, func(m map[string]any, o *[]string) { *o = append(*o, "extra"); m["extra"] = 1 }, event.ErrMalformed},
		"duplicate field":    {event.Injector, func(_ map[string]any, o *[]string) { *o = append([]string{"type"}, *o...) }, event.ErrMalformed},
		"reordered fields":   {event.Injector, func(_ map[string]any, o *[]string) { (*o)[0], (*o)[1] = (*o)[1], (*o)[0] }, event.ErrMalformed},
		"missing field":      {event.Injector, func(_ map[string]any, o *[]string) { *o = (*o)[1:] }, event.ErrMalformed},
		"field in uppercase": {event.Injector, func(m map[string]any, o *[]string) { (*o)[1] = "ID"; m["ID"] = m["id"] }, event.ErrMalformed},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := event.Open(c.resign(t, tc.service, tc.change), c.ring)
			var oe *event.OpenError
			if !errors.Is(err, tc.kind) || !errors.As(err, &oe) || oe.Detail == "" {
				t.Errorf("got %v, want %v", err, tc.kind)
			}
		})
	}
	same := c.resign(t, event.Injector, func(map[string]any, *[]string) {})
	if _, err := event.Open(same, c.ring); err != nil {
		t.Errorf("the unchanged event: %v", err)
	}
}

func TestOpenRefusesOtherSpellings(t *testing.T) {
	c := newCrew(t)
	raw := string(c.seal(t, event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "p"}}, origin(event.Injector, 1, event.NoHash)))
	for name, other := range map[string]string{
		"space":              strings.Replace(raw, `,"id"`, `, "id"`, 1),
		"newline at the end": raw + "\n",
		"escape":             strings.Replace(raw, `"id-1"`, `"id\u002d1"`, 1),
		"second signature":   strings.Replace(raw, `,"signature"`, `,"signature":"","signature"`, 1),
		"second object":      raw + raw,
		"array":              "[" + raw + "]",
		"unused bits":        raw[:len(raw)-3] + next(raw[len(raw)-3]) + raw[len(raw)-2:],
		"padding":            raw[:len(raw)-2] + `=="}`,
		"empty signature":    raw[:strings.LastIndex(raw, `:"`)] + `:""}`,
		"cut":                raw[:len(raw)/2],
		"empty":              "",
	} {
		if _, err := event.Open([]byte(other), c.ring); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := event.Open([]byte(raw), event.Keyring{}); !errors.Is(err, event.ErrNotAllowed) {
		t.Errorf("an empty keyring: %v, want ErrNotAllowed", err)
	}
}

// next is another base64 character whose first two bits are the same: a
// decoder that is not strict reads the same signature.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)^1])
}

func TestUnknownTypeIsKept(t *testing.T) {
	c := newCrew(t)
	raw := c.resign(t, event.Observer, func(m map[string]any, _ *[]string) {
		m["type"], m["source"] = "comet.seen", "/firedrill/observer/o-1"
		m["dataschema"] = event.SchemaBase + "v9/comet.seen.json"
	})
	e, err := event.Open(raw, c.ring)
	if err != nil {
		t.Fatal(err)
	}
	p, err := event.Decode(e)
	if _, ok := p.(*event.Unknown); !ok || err != nil {
		t.Errorf("payload %#v, %v", p, err)
	}
}

func TestSealRefuses(t *testing.T) {
	c := newCrew(t)
	d := event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "p"}}
	good, err := event.Compose(d, origin(event.Injector, 1, event.NoHash))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*event.Event){
		"invalid UTF-8":   func(e *event.Event) { e.Clock = "a\xff" },
		"wrong writer":    func(e *event.Event) { e.Source = event.SourceOf(event.Mirror, "m") },
		"no drill":        func(e *event.Event) { e.Subject = "" },
		"first with hash": func(e *event.Event) { e.PrevHash = strings.Repeat("b", 64) },
		"data no JSON":    func(e *event.Event) { e.Data = json.RawMessage(`{`) },
		"local time":      func(e *event.Event) { e.Time = e.Time.In(time.FixedZone("x", 3600)) },
	} {
		e := good
		change(&e)
		if _, err := event.Seal(e, c.by[event.Injector]); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if _, err := event.Seal(good, nil); err == nil {
		t.Error("no signer: sealed")
	}
	if _, err := event.Seal(good, brokenSigner{c.by[event.Injector]}); err == nil {
		t.Error("short signature: sealed")
	}
}

type brokenSigner struct{ event.Signer }

func (brokenSigner) Sign([]byte) ([]byte, error) { return []byte("short"), nil }

// FuzzOpen: never a panic, and whatever opens is exactly what its service signed.
func FuzzOpen(f *testing.F) {
	c := newCrew(f)
	raw := c.seal(f, event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "p"}}, origin(event.Injector, 1, event.NoHash))
	f.Add(raw)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"source":"/firedrill/injector/i","data":{},"signature":"` + strings.Repeat("A", 86) + `"}`))
	f.Add([]byte(strings.Repeat(`[`, 20000)))
	f.Add([]byte(strings.Repeat(`{"data":`, 5000)))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := event.Open(data, c.ring)
		if err == nil && string(data) != string(raw) {
			t.Errorf("opened bytes that nobody signed: %q", data)
		}
		_ = e.Service()
		event.VerifyHistory([][]byte{data, raw, data}, c.ring)
	})
}
