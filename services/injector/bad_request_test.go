package injector

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// badRequest is a request that must be rejected, with these problems among others.
type badRequest struct {
	name string
	raw  []byte
	want []string
}

// badRequests are the parser's table of bad drills, and what only the drivers know.
func badRequests(t *testing.T) []badRequest {
	t.Helper()
	files, err := filepath.Glob("../../pkg/drill/testdata/bad/*")
	if err != nil {
		t.Fatal(err)
	}
	out := []badRequest{
		{"not-a-drill", []byte("hello"), []string{"1:1: a drill is a mapping that begins with apiVersion, kind, metadata and spec; this is text"}},
		{"empty", nil, []string{"1:1: the text is empty: begin it with apiVersion: firedrill/v1"}},
		{"unknown-driver", []byte(strings.Replace(fakeDrill, "driver: fake", "driver: oracle", 1)), []string{`6:31: spec.targets[0].driver: "oracle": there is no such driver: known is only fake`}},
		{"unknown-fault", []byte(strings.Replace(fakeDrill, "fault: break", "fault: smash", 1)), []string{`11:48: spec.phases[0].faults[0].fault: "smash": the driver of target t has no such fault: known is only break`}},
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(f) == ".want" {
			continue
		}
		words := raw
		if base, ok := strings.CutSuffix(f, ".json"); ok {
			if words, err = os.ReadFile(base + ".want"); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, badRequest{strings.ReplaceAll(filepath.Base(f), ".", "-"), raw, wanted(words)})
	}
	return out
}

// wanted are the problems that a file of the table expects, one a line.
func wanted(words []byte) []string {
	var out []string
	for line := range strings.Lines(string(words)) {
		if want, ok := strings.CutPrefix(strings.TrimPrefix(line, "# "), "want "); ok {
			out = append(out, strings.TrimSuffix(want, "\n"))
		}
	}
	return out
}

// TestBadRequestsAreAnswered: each on the bus, once, with every field and fix.
func TestBadRequestsAreAnswered(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.inject("i1", d, time.Second)
	cases := badRequests(t)
	if len(cases) < 100 {
		t.Fatalf("only %d bad requests in the table", len(cases))
	}
	for _, c := range cases {
		if _, err := r.bus.Publish(t.Context(), "drill.req.me."+c.name, c.raw, ""); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	r.accepted(fakeDrill) // they are worked on in order, so all the bad ones are done
	for _, c := range cases {
		answers := r.answers(c.name)
		if len(answers) != 1 {
			t.Errorf("%s: answered %d times: %s", c.name, len(answers), answers)
			continue
		}
		checkRejection(t, c, answers[0])
	}
}

// answers are all that was published to a request's asker.
func (r *rig) answers(name string) (out [][]byte) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 15*time.Second)
	defer cancel()
	err := r.bus.ResultsOf(ctx, "me", name, time.Time{}, func(raw []byte) error {
		out = append(out, bytes.Clone(raw))
		return nil
	})
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	return out
}

func checkRejection(t *testing.T, c badRequest, raw []byte) {
	t.Helper()
	var res Result
	if err := json.Unmarshal(raw, &res); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	if res.State != "rejected" || len(res.Problems) == 0 || len(c.want) == 0 {
		t.Errorf("%s: %s; want %q", c.name, raw, c.want)
	}
	var got []string
	for _, p := range res.Problems {
		got = append(got, p.Error())
		if p.Fix == "" {
			t.Errorf("%s: without a fix: %+v", c.name, p)
		}
	}
	for _, want := range c.want {
		if !slices.Contains(got, want) {
			t.Errorf("%s: %q is not among\n  %s", c.name, want, strings.Join(got, "\n  "))
		}
	}
	if bytes.Contains(raw, []byte("hunter2")) {
		t.Errorf("%s: the answer gives a secret away: %s", c.name, raw)
	}
}
