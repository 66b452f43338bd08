package event_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/schemas"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compile makes validators of all committed schemas, by $id.
func compile(t testing.TB) func(id string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	files, err := fs.Glob(schemas.FS, "v1/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := fs.ReadFile(schemas.FS, f)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if err := c.AddResource(event.SchemaBase+f, doc); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
	}
	return func(id string) *jsonschema.Schema {
		t.Helper()
		s, err := c.Compile(id)
		if err != nil {
			t.Fatalf("schema %s: %v", id, err)
		}
		return s
	}
}

func validate(t testing.TB, s *jsonschema.Schema, raw []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return s.Validate(doc)
}

// example returns the golden event of a type, as it would be stored.
func example(t testing.TB, kind event.Type) []byte {
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

func exampleKeyring(t testing.TB) event.Keyring {
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

func TestGoldenExamples(t *testing.T) {
	schema, ring := compile(t), exampleKeyring(t)
	envelope := schema(event.SchemaBase + "v1/envelope.json")
	var history [][]byte
	for _, i := range event.Table() {
		raw := example(t, i.Type)
		history = append(history, raw)
		e, err := event.Open(raw, ring)
		if err != nil {
			t.Errorf("%s: %v", i.Type, err)
			continue
		}
		p, err := event.Decode(e)
		if err != nil {
			t.Errorf("%s: %v", i.Type, err)
			continue
		}
		if reflect.TypeOf(p).Elem() != i.PayloadType() {
			t.Errorf("%s decodes to %T", i.Type, p)
		}
		if again, err := json.Marshal(p); err != nil || !bytes.Equal(again, e.Data) {
			t.Errorf("%s: the payload changes when written again (%v):\n%s\n%s", i.Type, err, again, e.Data)
		}
		if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s: the event changes when written again (%v):\n%s\n%s", i.Type, err, again, raw)
		}
		if err := validate(t, envelope, raw); err != nil {
			t.Errorf("%s: envelope: %v", i.Type, err)
		}
		if err := validate(t, schema(e.DataSchema), e.Data); err != nil {
			t.Errorf("%s: payload: %v", i.Type, err)
		}
	}
	if v := event.VerifyHistory(history, ring); !v.Whole() || !v.Complete || v.Unknown != 0 {
		t.Errorf("the examples do not form one whole chain: %+v", v)
	}
	raw, _ := schemas.Example("keyring")
	if err := validate(t, schema(event.SchemaBase+"v1/keyring.json"), raw); err != nil {
		t.Errorf("keyring: %v", err)
	}
}

func TestEnvelopeSchemaRefusesWhatOpenRefuses(t *testing.T) {
	envelope, ring := compile(t)(event.SchemaBase+"v1/envelope.json"), exampleKeyring(t)
	good := string(example(t, event.TypeFaultInjected))
	for _, c := range []struct{ old, new string }{
		{`"specversion":"1.0"`, `"specversion":"0.3"`},
		{`"type":"fault.injected"`, `"type":"Fault"`},
		{`"subject":"pg-failover-17"`, `"subject":"a.b"`},
		{`"source":"/firedrill/injector/injector-1"`, `"source":"injector"`},
		{`"datacontenttype":"application/json"`, `"datacontenttype":"text/plain"`},
		{`"clock":"boot-5f1d0c2a"`, `"clock":""`},
		{`"mono":"`, `"mono":"x`},
		{`"chainindex":17`, `"chainindex":0`},
		{`"chainindex":17`, `"chainindex":2147483648`},
		{`"prevhash":"`, `"prevhash":"0`},
		{`"signer":"U`, `"signer":"A`},
		{`"signature":"`, `"signature":"AA`},
		{`"data":{`, `"data":[],"x":{`},
		{`"time":"2026`, `"time":"26`},
		{`"traceparent":"00-`, `"traceparent":"`},
		{`"id":"pg-failover-17.017",`, ``},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("the example has no %s", c.old)
		}
		if err := validate(t, envelope, []byte(bad)); err == nil {
			t.Errorf("the schema takes %s in place of %s", c.new, c.old)
		}
		if _, err := event.Open([]byte(bad), ring); err == nil {
			t.Errorf("Open takes %s in place of %s", c.new, c.old)
		}
	}
}

// Schemas are derived from the types, so no payload that Go can write may fail
// its schema; and each field that Go always writes is required.
func TestPayloadsFitTheirSchemas(t *testing.T) {
	schema := compile(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, i := range event.Table() {
		s := schema(i.Schema())
		for range 40 {
			p := reflect.New(i.PayloadType())
			fill(rnd, p.Elem(), 0)
			raw, err := json.Marshal(p.Interface())
			if err != nil {
				t.Fatalf("%s: %v", i.Type, err)
			}
			if err := validate(t, s, raw); err != nil {
				t.Fatalf("%s: %v\n%s", i.Type, err, raw)
			}
			back := i.New()
			if err := json.Unmarshal(raw, back); err != nil {
				t.Fatalf("%s: %v\n%s", i.Type, err, raw)
			}
			if again, err := json.Marshal(back); err != nil || !bytes.Equal(again, raw) {
				t.Fatalf("%s: changed on the way (%v):\n%s\n%s", i.Type, err, raw, again)
			}
		}
		zero, err := json.Marshal(i.New())
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, zero); err != nil {
			t.Errorf("%s: the empty payload: %v", i.Type, err)
		}
		refusesLess(t, i, s, zero)
	}
}

// refusesLess removes each field of a payload with nothing but required fields.
func refusesLess(t *testing.T, i event.Info, s *jsonschema.Schema, raw []byte) {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	for name, was := range fields {
		delete(fields, name)
		less, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, less); err == nil {
			t.Errorf("%s: the schema does not miss %s", i.Type, name)
		}
		fields[name] = was
	}
	fields["a_later_field"] = true
	more, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, s, more); err != nil {
		t.Errorf("%s: a field of a later version is refused: %v", i.Type, err)
	}
}

// fill sets a value at random, lists and maps sometimes to nothing.
func fill(rnd *rand.Rand, v reflect.Value, depth int) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(rnd.Int64N(4e9), rnd.Int64N(1e9)).UTC()))
		return
	}
	if v.Type() == reflect.TypeFor[json.RawMessage]() {
		v.SetBytes([]byte([]string{`{}`, `{"a":[1,"b",null]}`, `[]`, `"text"`, `7`}[rnd.IntN(5)]))
		return
	}
	if v.Type() == reflect.TypeFor[event.Duration]() {
		v.SetInt(rnd.Int64() >> rnd.IntN(63))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString([]string{"", "a", "pg/a", "<&> \" \\ é 🔥", "two\nlines"}[rnd.IntN(5)])
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(rnd.Uint64()) >> rnd.IntN(63))
	case reflect.Int32:
		v.SetInt(int64(int32(rnd.Uint32())))
	case reflect.Uint64:
		v.SetUint(rnd.Uint64() >> rnd.IntN(63))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rnd, v.Field(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rnd, v.Index(i), depth+1)
		}
	case reflect.Slice:
		n := rnd.IntN(4) - 1
		if n < 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rnd, v.Index(i), depth+1)
		}
	case reflect.Map:
		if rnd.IntN(3) == 0 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range rnd.IntN(3) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(rnd, k, depth+1)
			fill(rnd, e, depth+1)
			v.SetMapIndex(k, e)
		}
	default:
		panic("fill: a payload has a field of type " + v.Type().String())
	}
}

func TestUnknownTypesAndVersionsAreKept(t *testing.T) {
	for _, e := range []event.Event{
		{Type: "moon.landed", DataSchema: event.SchemaBase + "v1/moon.landed.json", Data: json.RawMessage(`{"x":1}`)},
		{Type: event.TypeFaultInjected, DataSchema: event.SchemaBase + "v2/fault.injected.json", Data: json.RawMessage(`{"x":1}`)},
	} {
		p, err := event.Decode(e)
		if u, ok := p.(*event.Unknown); err != nil || !ok || string(u.Raw) != `{"x":1}` {
			t.Errorf("%s of %s: got %T, %v", e.Type, e.DataSchema, p, err)
		}
	}
	e := event.Event{ID: "e7", Type: event.TypeLeaseTaken, DataSchema: event.SchemaBase + "v1/lease.taken.json", Data: json.RawMessage(`{"epoch":"one"}`)}
	if _, err := event.Decode(e); err == nil || !strings.Contains(err.Error(), "e7") || !strings.Contains(err.Error(), "lease.taken") {
		t.Errorf("a payload of another shape: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	ring := exampleKeyring(f)
	for _, i := range event.Table() {
		f.Add(example(f, i.Type))
	}
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"type":"lease.taken","dataschema":"` + event.SchemaBase + `v1/lease.taken.json","data":null,"mono":"9","time":"x"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if e, err := event.Open(raw, ring); err == nil {
			if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, raw) {
				t.Fatalf("an opened event is not canonical (%v): %s", err, raw)
			}
		}
		// Decode must stand what Open would have kept away from it.
		var e event.Event
		if json.Unmarshal(raw, &e) != nil {
			return
		}
		p, err := event.Decode(e)
		if err != nil {
			return
		}
		first, err := json.Marshal(p)
		if err != nil {
			if _, unknown := p.(*event.Unknown); !unknown {
				t.Fatalf("a decoded %s cannot be written: %v", e.Type, err)
			}
			return
		}
		if _, unknown := p.(*event.Unknown); unknown {
			return
		}
		info, _ := event.Lookup(e.Type)
		back := info.New()
		if err := json.Unmarshal(first, back); err != nil {
			t.Fatalf("its own JSON is refused: %v\n%s", err, first)
		}
		if second, err := json.Marshal(back); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("not stable (%v):\n%s\n%s", err, first, second)
		}
	})
}
