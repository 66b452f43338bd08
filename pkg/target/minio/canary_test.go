package minio

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/target"
)

func TestCanariesSortDownwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seq := rapid.Int64Range(0, math.MaxInt64)
		a, b := seq.Draw(t, "a"), seq.Draw(t, "b")
		x, y := canaryKey("p", "d/n/pooled/1", a), canaryKey("p", "d/n/pooled/1", b)
		if strings.Compare(x, y) != cmp.Compare(b, a) {
			t.Fatalf("%d lies at %s, %d at %s", a, x, b, y)
		}
		if got, ok := seqOf("p", "d/n/pooled/1", x); !ok || got != a || !cleanKey(x) {
			t.Fatalf("%s is canary %d, %t", x, got, ok)
		}
		if _, ok := seqOf("p", "d/n/pooled/11", x); ok {
			t.Fatal("another claim's key is taken")
		}
	})
}

func TestDamagedCanariesShow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seq, size := rapid.Int64Range(0, math.MaxInt64).Draw(t, "seq"), rapid.IntRange(1, 5000).Draw(t, "size")
		body := canaryBody("d/n/pooled/1", seq, size)
		if got, err := readCanary("d/n/pooled/1", body); err != nil || got != seq {
			t.Fatalf("%d, %v", got, err)
		}
		if len(body) < size && size > 200 || len(body) > maxBody {
			t.Fatalf("%d bytes, want about %d", len(body), size)
		}
		if _, err := readCanary("d/n/pooled/2", body); !errors.Is(err, errDamaged) {
			t.Fatalf("as another ledger's: %v", err)
		}
		at := rapid.IntRange(0, len(body)-1).Draw(t, "at")
		if _, err := readCanary("d/n/pooled/1", body[:at]); !errors.Is(err, errDamaged) {
			t.Fatalf("cut to %d bytes: %v", at, err)
		}
		body[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		if _, err := readCanary("d/n/pooled/1", body); !errors.Is(err, errDamaged) {
			t.Fatalf("changed at %d: %v", at, err)
		}
	})
}

func FuzzReadCanary(f *testing.F) {
	f.Add([]byte(""))
	f.Add(canaryBody("l", 7, 100))
	f.Add(canaryBody("other", 7, 1))
	f.Fuzz(func(t *testing.T, body []byte) {
		if seq, err := readCanary("l", body); err != nil && (seq != 0 || !errors.Is(err, errDamaged)) {
			t.Fatalf("%d, %v", seq, err)
		}
	})
}

func TestKeysStayInTheirBucket(t *testing.T) {
	for _, key := range []string{"", ".", "..", "/a", "a/", "a//b", "a/../b", "../a", "a/./b", "a\\b", "a\x00b", "a\nb"} {
		if cleanKey(key) {
			t.Errorf("%q is taken", key)
		}
	}
	for _, key := range []string{"a", "a/b", "a/..b", "a b", "ä/ö"} {
		if !cleanKey(key) {
			t.Errorf("%q is refused", key)
		}
	}
}

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
	if _, err := readRecord(json.RawMessage(`{"undo":"new","node":"a","deployment":"x","token":"` + token("d", "s") + `","since":"a newer version"}`)); err != nil {
		t.Errorf("a newer version's: %v", err)
	}
}

func TestFatesWithoutAnAnswer(t *testing.T) {
	if got := fateOf(errors.New("the connection ended")); got != target.Unknown {
		t.Errorf("no answer is %c", got)
	}
}
