package fold_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

var signers = sync.OnceValue(func() map[string]event.Signer {
	s, _ := synthetic.Keys()
	return s
})

// opened are the events of a good history, opened once for all that is made of them.
func opened(t testing.TB, raws [][]byte) []event.Event {
	t.Helper()
	out := make([]event.Event, len(raws))
	for i, raw := range raws {
		e, err := event.Open(raw, ring())
		if err != nil {
			t.Fatal(err)
		}
		out[i] = e
	}
	return out
}

// mutate breaks payloads and seals them again, so that the signatures hold and
// the fold has to cope with what a faulty service could really write.
func mutate(t *testing.T, events []event.Event, rnd *rand.Rand) [][]byte {
	t.Helper()
	signers := signers()
	var out [][]byte
	prev, index := event.NoHash, int32(0)
	for i, e := range events {
		if i > 0 {
			switch rnd.IntN(40) {
			case 0:
				continue // lost before it was stored
			case 1, 2, 3, 4:
				e.Data = mutateJSON(t, e.Data, rnd)
			case 5:
				e.Mono = event.Nanos(rnd.Uint64())
			case 6:
				e.Clock = "boot-another"
			}
		}
		index++
		e.ChainIndex, e.PrevHash = index, prev
		sealed, err := event.Seal(e, signers[e.Service()])
		if err != nil {
			continue // Seal refuses what could not be stored
		}
		out, prev = append(out, sealed), event.Hash(sealed)
	}
	return out
}

// mutateJSON changes one or more values of a document.
func mutateJSON(t *testing.T, data []byte, rnd *rand.Rand) []byte {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(change(v, rnd))
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 || out[0] != '{' {
		return data
	}
	return out
}

func change(v any, rnd *rand.Rand) any {
	if rnd.IntN(12) == 0 {
		switch v.(type) {
		case json.Number:
			return []json.Number{"0", "-1", "9223372036854775807", "-9223372036854775808", "1e9"}[rnd.IntN(5)]
		case string:
			return []string{"", "x", "9223372036854775807", "kill/restore/x", "a/b/c/d/e", "kfus", strings.Repeat("k", 40)}[rnd.IntN(7)]
		case bool:
			return rnd.IntN(2) == 0
		case []any:
			return []any{}
		}
	}
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			if rnd.IntN(15) == 0 {
				delete(x, k)
			} else {
				x[k] = change(x[k], rnd)
			}
		}
	case []any:
		for i := range x {
			if rnd.IntN(20) == 0 {
				x[i] = change(x[i], rnd)
			}
		}
	}
	return v
}

func foldsWhole(t *testing.T, raws [][]byte) {
	t.Helper()
	r, err := fold.Fold(raws, ring())
	if err != nil {
		return
	}
	if _, err := r.JSON(); err != nil {
		t.Errorf("the report cannot be written: %v", err)
	}
	if len(r.Summary) == 0 {
		t.Error("the report has no summary")
	}
	for _, p := range r.Phases {
		if p.Verdict == verdict.Pass || p.Verdict == "" {
			continue
		}
		if len(p.Results) == 0 {
			t.Errorf("phase %s is %s and does not say why", p.Name, p.Verdict)
		}
	}
	if r.State == fold.StateFinished && r.Verdict != verdict.Pass && len(r.Issues) == 0 {
		t.Errorf("the drill is %s and there is no issue", r.Verdict)
	}
}

// TestMutatedHistories folds many broken histories: each is folded, says what is
// wrong with it, and none panics.
func TestMutatedHistories(t *testing.T) {
	events := opened(t, kill(func(p *synthetic.Phase) { p.TakeoverAt, p.Lost, p.Flap = time.Second, 3, 3*time.Second }))
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		foldsWhole(t, mutate(t, events, rnd))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestMutatedSettlements does the same to drills that settle another one.
func TestMutatedSettlements(t *testing.T) {
	for _, name := range []string{"settled", "unsettled"} {
		events := opened(t, synthetic.Variants()[name].History())
		for seed := range uint64(60) {
			foldsWhole(t, mutate(t, events, rand.New(rand.NewPCG(seed, 3))))
			if t.Failed() {
				t.Fatalf("%s, seed %d", name, seed)
			}
		}
	}
}

// FuzzFold feeds arbitrary lines as a history's messages, mixed with good ones.
func FuzzFold(f *testing.F) {
	raws := synthetic.Variants()["aborted"].History()
	f.Add(uint64(1), []byte("{}"))
	f.Add(uint64(2), raws[3])
	f.Add(uint64(3), []byte(`{"specversion":"1.0"}`+"\n"+`"Zm9v"`))
	events := opened(f, raws)
	f.Fuzz(func(t *testing.T, seed uint64, line []byte) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		with := mutate(t, events, rnd)
		at := rnd.IntN(len(with) + 1)
		with = append(with[:at:at], append(bytes.Split(line, []byte("\n")), with[at:]...)...)
		foldsWhole(t, with)
		if imported, err := fold.Import(bytes.NewReader(line)); err == nil {
			foldsWhole(t, imported)
		}
	})
}
