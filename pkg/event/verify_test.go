package event_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/event"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// history makes a complete drill's history of n events.
func (c crew) history(t testing.TB, drill string, n int) [][]byte {
	t.Helper()
	var out [][]byte
	prev := event.NoHash
	for i := 1; i <= n; i++ {
		d := event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: fmt.Sprint(i)}}
		o := origin(event.Injector, int32(i), prev)
		switch {
		case i == n:
			d = event.Draft{Type: event.TypeReportPublished, Data: event.ReportPublished{Verdict: "pass"}}
			o.Service = event.Reporter
		case i%3 == 0:
			d = event.Draft{Type: event.TypeOutageStarted, Data: event.OutageStarted{Phase: fmt.Sprint(i)}}
			o.Service = event.Observer
		}
		o.Drill, o.ID = drill, fmt.Sprintf("%s-%d", drill, i)
		raw := c.seal(t, d, o)
		out = append(out, raw)
		prev = event.Hash(raw)
	}
	return out
}

func TestWholeHistory(t *testing.T) {
	c := newCrew(t)
	h := c.history(t, "d", 9)
	v := event.VerifyHistory(h, c.ring)
	if !v.Whole() || !v.Complete || v.Events != 9 || v.Messages != 9 || v.Drill != "d" || v.Head != event.Hash(h[8]) {
		t.Errorf("%+v", v)
	}
	if v := event.VerifyHistory(nil, c.ring); v.Whole() || v.Complete || v.Why == "" {
		t.Errorf("nothing: %+v", v)
	}
	if v := event.VerifyHistory(h[:8], c.ring); !v.Whole() || v.Complete || v.Why == "" {
		t.Errorf("cut off at the end: %+v", v)
	}
}

// TestFindingsNameTheirPlace checks the kind and the chain index of each.
func TestFindingsNameTheirPlace(t *testing.T) {
	c := newCrew(t)
	base := c.history(t, "d", 8)
	foreign := c.history(t, "other", 4)
	fork := c.seal(t, event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "fork"}}, origin(event.Injector, 3, event.Hash(base[1])))
	flip := func(h [][]byte, i int) [][]byte {
		h[i] = bytes.Clone(h[i])
		h[i][len(h[i])/2] ^= 1
		return h
	}
	for name, tc := range map[string]struct {
		change func(h [][]byte) [][]byte
		kind   string
		index  int32
	}{
		"altered":        {func(h [][]byte) [][]byte { return flip(h, 3) }, event.FindingAltered, 4},
		"first altered":  {func(h [][]byte) [][]byte { return flip(h, 0) }, event.FindingAltered, 1},
		"missing":        {func(h [][]byte) [][]byte { return slices.Delete(h, 4, 5) }, event.FindingMissing, 5},
		"first missing":  {func(h [][]byte) [][]byte { return h[1:] }, event.FindingMissing, 1},
		"swapped":        {func(h [][]byte) [][]byte { h[2], h[3] = h[3], h[2]; return h }, event.FindingReordered, 3},
		"unsigned":       {func(h [][]byte) [][]byte { return slices.Insert(h, 2, []byte(`{"a":1}`)) }, event.FindingForeign, 0},
		"other drill's":  {func(h [][]byte) [][]byte { return slices.Insert(h, 2, foreign[1]) }, event.FindingForeign, 0},
		"duplicate":      {func(h [][]byte) [][]byte { return slices.Insert(h, 6, h[2]) }, event.FindingDuplicate, 3},
		"fork":           {func(h [][]byte) [][]byte { return slices.Insert(h, 3, fork) }, event.FindingForked, 3},
		"replaced":       {func(h [][]byte) [][]byte { h[2] = fork; return h }, event.FindingAltered, 3},
		"junk at end":    {func(h [][]byte) [][]byte { return append(h, []byte("junk")) }, event.FindingForeign, 0},
		"report altered": {func(h [][]byte) [][]byte { h[7] = bytes.Replace(h[7], []byte("pass"), []byte("fail"), 1); return h }, event.FindingAltered, 8},
	} {
		t.Run(name, func(t *testing.T) {
			v := event.VerifyHistory(tc.change(slices.Clone(base)), c.ring)
			if len(v.Findings) != 1 || v.Findings[0].Kind != tc.kind || v.Findings[0].Index != tc.index {
				t.Errorf("findings %v, want one: %s at chain index %d", v.Findings, tc.kind, tc.index)
			}
			if v.Whole() {
				t.Error("the history counts as whole")
			}
		})
	}
}

// TestEveryMutationIsFound: no single change of a complete history stays unseen.
func TestEveryMutationIsFound(t *testing.T) {
	c := newCrew(t)
	h := c.history(t, "d", 12)
	stranger := newCrew(t).history(t, "d", 12)
	other := c.history(t, "other", 12)
	rapid.Check(t, func(r *rapid.T) {
		m := slices.Clone(h)
		i := rapid.IntRange(0, len(h)-1).Draw(r, "i")
		at := rapid.IntRange(0, len(h)).Draw(r, "at")
		switch kind := rapid.SampledFrom([]string{"flip", "delete", "swap", "insert", "duplicate", "cut", "grow"}).Draw(r, "kind"); kind {
		case "flip":
			m[i] = bytes.Clone(m[i])
			bit := rapid.IntRange(0, 8*len(m[i])-1).Draw(r, "bit")
			m[i][bit/8] ^= 1 << (bit % 8)
		case "delete":
			m = slices.Delete(m, i, i+1)
		case "swap":
			j := rapid.IntRange(0, len(h)-1).Filter(func(j int) bool { return j != i }).Draw(r, "j")
			m[i], m[j] = m[j], m[i]
		case "insert":
			foreign := rapid.SampledFrom([][]byte{stranger[i], other[i], []byte("{}"), nil, []byte(`null`)}).Draw(r, "foreign")
			m = slices.Insert(m, at, foreign)
		case "duplicate":
			m = slices.Insert(m, at, m[i])
		case "cut":
			m = m[:i]
		case "grow":
			m[i] = append(bytes.Clone(m[i]), ' ')
		}
		v := event.VerifyHistory(m, c.ring)
		if v.Whole() && v.Complete {
			r.Fatalf("the change went unseen: %+v", v)
		}
		if len(v.Findings) == 0 && v.Why == "" {
			r.Fatalf("neither a finding nor a reason: %+v", v)
		}
	})
}

// TestEveryBitCounts flips each bit of each event of a short history.
func TestEveryBitCounts(t *testing.T) {
	c := newCrew(t)
	h := c.history(t, "d", 3)
	for i := range h {
		clean := h[i]
		for bit := range 8 * len(clean) {
			h[i] = bytes.Clone(clean)
			h[i][bit/8] ^= 1 << (bit % 8)
			if v := event.VerifyHistory(h, c.ring); v.Whole() {
				t.Fatalf("event %d, bit %d: the change went unseen", i+1, bit)
			}
		}
		h[i] = clean
	}
}

// TestHugeClaimedIndexIsBounded: one validly signed event cannot make the
// verification run for ever.
func TestHugeClaimedIndexIsBounded(t *testing.T) {
	c := newCrew(t)
	h := c.history(t, "d", 3)
	far := origin(event.Injector, 1<<31-1, event.Hash(h[2]))
	h = append(h, c.seal(t, event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "far"}}, far))
	v := event.VerifyHistory(h, c.ring)
	if v.Whole() || len(v.Findings) > 20000 {
		t.Errorf("%d findings", len(v.Findings))
	}
}

// TestOpenAllKeepsTheOrder: whichever core opens a message, its result stands at
// its place, and is what Open says of it.
func TestOpenAllKeepsTheOrder(t *testing.T) {
	c := newCrew(t)
	h := c.history(t, "d", 70)
	for i := 3; i < len(h); i += 7 {
		h[i] = bytes.Replace(bytes.Clone(h[i]), []byte("phase"), []byte("phrase"), 1)
	}
	for _, n := range []int{0, 1, 15, 16, 17, len(h)} {
		got := event.OpenAll(h[:n], c.ring)
		if len(got) != n {
			t.Fatalf("%d messages opened of %d", len(got), n)
		}
		for i, o := range got {
			e, err := event.Open(h[i], c.ring)
			if !bytes.Equal(o.Raw, h[i]) || o.Hash != event.Hash(h[i]) || o.Event.ID != e.ID || (o.Err == nil) != (err == nil) {
				t.Errorf("message %d of %d: %s, %v; want %s, %v", i+1, n, o.Event.ID, o.Err, e.ID, err)
			}
		}
	}
}

// TestVerifyOpenedTrustsItsInput: it looks at the chain and at no signature, so
// that a reader which has verified them does not pay twice.
func TestVerifyOpenedTrustsItsInput(t *testing.T) {
	c := newCrew(t)
	h := c.history(t, "d", 12)
	if got, want := event.VerifyOpened(event.OpenAll(h, c.ring)), event.VerifyHistory(h, c.ring); !reflect.DeepEqual(got, want) || !got.Whole() {
		t.Errorf("opened first: %+v, want %+v", got, want)
	}
	bare := event.OpenAll(h, c.ring)
	for i := range bare {
		bare[i].Raw = nil // nothing is left to verify
	}
	if v := event.VerifyOpened(bare); !v.Whole() {
		t.Errorf("without the bytes: %+v", v)
	}
	if v := event.VerifyOpened(event.OpenAll(h, event.Keyring{})); v.Whole() || v.Events != 0 {
		t.Errorf("messages that nobody of the keyring signed: %+v", v)
	}
	cut := event.OpenAll(slices.Delete(slices.Clone(h), 4, 5), c.ring)
	if v := event.VerifyOpened(cut); len(v.Findings) != 1 || v.Findings[0].Kind != event.FindingMissing {
		t.Errorf("without event 5: %v", v.Findings)
	}
}

func BenchmarkOpenAll(b *testing.B) {
	c := newCrew(b)
	h := c.history(b, "d", 1000)
	for b.Loop() {
		event.OpenAll(h, c.ring)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(h)), "µs/event")
}

func BenchmarkVerifyOpened(b *testing.B) {
	c := newCrew(b)
	opened := event.OpenAll(c.history(b, "d", 1000), c.ring)
	for b.Loop() {
		event.VerifyOpened(opened)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(opened)), "µs/event")
}
