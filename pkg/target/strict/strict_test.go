package strict_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

type config struct {
	Name  string           `json:"name"`
	Port  uint16           `json:"port"`
	On    *bool            `json:"on"`
	Key   target.SecretRef `json:"key"`
	Parts []config         `json:"parts"`
}

func TestEveryMistakeIsNamed(t *testing.T) {
	var c config
	err := strict.Decode(json.RawMessage(`{"name":1,"port":70000,"key":"hunter2","parts":[{},{"on":"yes"},[]],"nmae":"x"}`), &c)
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, field := range []string{"name: ", "port: ", "key: ", "parts[1].on: ", "parts[2]: ", "nmae: "} {
		if !strings.Contains("\n"+err.Error(), "\n"+field) {
			t.Errorf("%s is not named in:\n%v", field, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a value shows: %v", err)
	}
	if e, ok := errors.AsType[*target.FieldError](err); !ok || e.Fix == "" {
		t.Errorf("not a FieldError: %v", err)
	}
}

func TestDecodeReadsWhatJSONWouldRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.Custom(func(t *rapid.T) config {
			on := rapid.Bool().Draw(t, "on")
			return config{Name: rapid.String().Draw(t, "name"), Port: rapid.Uint16().Draw(t, "port"), On: &on, Key: target.SecretRef{Env: rapid.String().Draw(t, "env")}}
		})
		want := gen.Draw(t, "config")
		want.Parts = rapid.SliceOfN(gen, 1, 3).Draw(t, "parts")
		raw, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got config
		if err := strict.Decode(raw, &got); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(got)
		if err != nil || string(again) != string(raw) {
			t.Fatalf("%s, want %s (%v)", again, raw, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"parts":[null,{"key":{"env":1}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var c config
		if err := strict.Decode(raw, &c); err != nil && !errors.As(err, new(*target.FieldError)) {
			t.Fatalf("not a FieldError: %v", err)
		}
	})
}

// TestDecodeAllowed: what other operations take is as unknown here as what none takes.
func TestDecodeAllowed(t *testing.T) {
	for raw, want := range map[string]string{
		``: "", `{}`: "", `{"node":"a"}`: "", `[]`: "config: give a mapping of fields, not a list",
		`{"node":"a","bytes":2}`: "bytes: unknown here; known are node, mode",
		`{"nod":"a"}`:            `nod: unknown here; did you mean "node"?`,
		`{"noode":"a"}`:          `noode: unknown here; did you mean "node"?`,
		`{"nude":"a"}`:           `nude: unknown here; did you mean "node"?`,
		`{"Mode":"a"}`:           `Mode: unknown here; did you mean "mode"?`,
		`{"node":1}`:             "node: give text, not this number",
	} {
		var p struct {
			Node  string `json:"node"`
			Mode  string `json:"mode"`
			Bytes int    `json:"bytes"`
		}
		err := strict.DecodeAllowed(json.RawMessage(raw), &p, []string{"node", "mode"})
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %s", raw, err, want)
		}
	}
	for want, allowed := range map[string][]string{
		"x: unknown here; it takes none":      nil,
		"x: unknown here; known is only node": {"node"},
	} {
		if err := strict.DecodeAllowed(json.RawMessage(`{"x":1}`), new(struct{}), allowed); err == nil || err.Error() != want {
			t.Errorf("%v are allowed: %v, want %s", allowed, err, want)
		}
	}
}

func TestProblems(t *testing.T) {
	var p strict.Problems
	p.Need("a", "x", "")
	p.OneOf("a", "x", "x", "y")
	p.Port("a", 1)
	p.Secret("a", target.SecretRef{Env: "A"})
	p.Place("a", control.Config{})
	p.Absolute("a", "/x/y")
	if len(p) != 0 {
		t.Fatalf("what is right is refused: %v", p)
	}
	p.Need("a", "", "what it is")
	p.OneOf("a", "z", "x", "y")
	p.Port("a", 0)
	p.Secret("a", target.SecretRef{Env: "A", File: "B"})
	p.Place("a", control.Config{Kind: "pigeon"})
	for _, path := range []string{"", "/", "x", "/x/../y", "/x/"} {
		p.Absolute("a", path)
	}
	if len(p) != 10 {
		t.Errorf("%d of 10 mistakes: %v", len(p), p)
	}
	if !strict.Within("/a/b", "/a") || !strict.Within("/a", "/a") || strict.Within("/ab", "/a") {
		t.Error("Within")
	}
}

// TestGatherLooksAtOnce, and gives the findings in the order of the looks.
func TestGatherLooksAtOnce(t *testing.T) {
	second := make(chan struct{})
	found := strict.Gather(
		func(p *strict.Problems) { <-second; p.Add("a", "", "first"); p.Add("b", "", "also first") },
		func(*strict.Problems) {},
		func(p *strict.Problems) { p.Add("c", "", "second"); close(second) },
	)
	if got, want := errors.Join(found...).Error(), "a: first\nb: also first\nc: second"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if found := strict.Gather(); len(found) != 0 {
		t.Errorf("nothing was looked at: %v", found)
	}
}

// TestScrubbedKeepsTheFields of what needed no scrubbing.
func TestScrubbedKeepsTheFields(t *testing.T) {
	var p strict.Problems
	p.Add("a", "", "mend it")
	p = append(p, nil, errors.New("a secret"))
	err := p.Scrubbed(func(err error) error {
		if err != nil && strings.Contains(err.Error(), "secret") {
			return errors.New("***")
		}
		return err
	})
	if f, ok := errors.AsType[*target.FieldError](err); err == nil || err.Error() != "a: mend it\n***" || !ok || f.Field != "a" {
		t.Errorf("%v", err)
	}
	if err := strict.Problems(nil).Scrubbed(func(err error) error { return err }); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}
