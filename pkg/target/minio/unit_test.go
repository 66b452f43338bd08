package minio

import (
	"encoding/json"
	"errors"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

func TestSampleIsAConfiguration(t *testing.T) {
	var c any
	if err := yaml.Unmarshal([]byte(Driver{}.Describe().Sample), &c); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := (Driver{}).Check(b); err != nil {
		t.Error(err)
	}
}

func TestNodeNames(t *testing.T) {
	for config, want := range map[string]int{`{"nodes":[{"name":"a"},{"name":"b"}]}`: 2, `{"nodes":[{"name":"a"},{}]}`: 0, `[`: 0} {
		if got := (Driver{}).NodeNames(json.RawMessage(config)); len(got) != want {
			t.Errorf("%s: %v", config, got)
		}
	}
}

func TestRecordsOfNobodyAreRefused(t *testing.T) {
	for _, r := range []string{``, `{}`, `null`, `[]`, `{"undo":"start","node":"a","deployment":"x","token":"firedrill-/../../etc"}`} {
		if _, err := readRecord(json.RawMessage(r)); err == nil {
			t.Errorf("%q is taken", r)
		}
	}
	if _, err := readRecord(json.RawMessage(`{"undo":"new","node":"a","deployment":"x","token":"` + undo.Token("d", "s") + `","since":"a newer version"}`)); err != nil {
		t.Errorf("a newer version's: %v", err)
	}
}

func TestFatesWithoutAnAnswer(t *testing.T) {
	if got := fateOf(errors.New("the connection ended")); got != target.Unknown {
		t.Errorf("no answer is %c", got)
	}
}
