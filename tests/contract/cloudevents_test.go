// Package contract checks firedrill's events against the CloudEvents SDK of the
// CNCF, which knows nothing of firedrill.
package contract

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/schemas"
)

// stored returns the golden event of a type as its bytes lie in the stream.
func stored(t *testing.T, kind event.Type) []byte {
	t.Helper()
	pretty, ok := schemas.Example(string(kind))
	if !ok {
		t.Fatalf("%s has no golden example", kind)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, pretty); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func keyring(t *testing.T) event.Keyring {
	t.Helper()
	raw, ok := schemas.Example("keyring")
	if !ok {
		t.Fatal("the examples have no keyring")
	}
	var k event.Keyring
	if err := json.Unmarshal(raw, &k); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSDKReadsEveryEvent(t *testing.T) {
	for _, i := range event.Table() {
		raw := stored(t, i.Type)
		ours, err := event.Open(raw, keyring(t))
		if err != nil {
			t.Fatalf("%s: %v", i.Type, err)
		}
		theirs := cloudevents.New()
		if err := json.Unmarshal(raw, &theirs); err != nil {
			t.Errorf("%s: the SDK cannot read it: %v", i.Type, err)
			continue
		}
		if err := theirs.Validate(); err != nil {
			t.Errorf("%s: the SDK finds it invalid: %v", i.Type, err)
		}
		compareAttributes(t, ours, theirs)
		compareExtensions(t, ours, theirs)
	}
}

func compareAttributes(t *testing.T, ours event.Event, theirs cloudevents.Event) {
	t.Helper()
	for _, c := range []struct{ name, got, want string }{
		{"specversion", theirs.SpecVersion(), event.SpecVersion},
		{"id", theirs.ID(), ours.ID},
		{"source", theirs.Source(), ours.Source},
		{"type", theirs.Type(), string(ours.Type)},
		{"subject", theirs.Subject(), ours.Subject},
		{"time", theirs.Time().Format(time.RFC3339Nano), ours.Time.Format(time.RFC3339Nano)},
		{"datacontenttype", theirs.DataContentType(), ours.DataContentType},
		{"dataschema", theirs.DataSchema(), ours.DataSchema},
		{"data", string(theirs.Data()), string(ours.Data)},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s: the SDK reads %q, want %q", ours.Type, c.name, c.got, c.want)
		}
	}
}

func compareExtensions(t *testing.T, ours event.Event, theirs cloudevents.Event) {
	t.Helper()
	mono, err := json.Marshal(ours.Mono)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"traceparent": ours.TraceParent,
		"clock":       ours.Clock,
		"mono":        strings.Trim(string(mono), `"`),
		"chainindex":  ours.ChainIndex,
		"prevhash":    ours.PrevHash,
		"signer":      ours.Signer,
		"signature":   ours.Signature,
	}
	got := theirs.Extensions()
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s: extension %s: the SDK reads %v (%T), want %v (%T)", ours.Type, name, got[name], got[name], v, v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: the SDK reads %d extensions, want %d: %v", ours.Type, len(got), len(want), got)
	}
}

// A CloudEvents tool on the way may write the event anew. Its bytes are then
// others, so that the signature no longer holds, but nothing of it is lost: put
// into canonical form again, it verifies.
func TestEventSurvivesTheSDK(t *testing.T) {
	for _, i := range event.Table() {
		raw := stored(t, i.Type)
		theirs := cloudevents.New()
		if err := json.Unmarshal(raw, &theirs); err != nil {
			t.Fatalf("%s: %v", i.Type, err)
		}
		written, err := json.Marshal(theirs)
		if err != nil {
			t.Fatalf("%s: the SDK cannot write it: %v", i.Type, err)
		}
		var ours event.Event
		if err := json.Unmarshal(written, &ours); err != nil {
			t.Errorf("%s: what the SDK wrote is not ours: %v\n%s", i.Type, err, written)
			continue
		}
		again, err := json.Marshal(ours)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, raw) {
			t.Errorf("%s: the SDK changed it:\n%s\n%s", i.Type, again, raw)
		}
		if _, err := event.Open(again, keyring(t)); err != nil {
			t.Errorf("%s: it does not verify any more: %v", i.Type, err)
		}
	}
}

func TestExtensionNamesAreAllowed(t *testing.T) {
	raw := stored(t, event.TypeFaultInjected)
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	for name := range fields {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(name) > 20 {
			t.Errorf("attribute %q: CloudEvents asks for up to 20 lower-case letters and digits", name)
		}
	}
}
