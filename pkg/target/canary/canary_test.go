package canary_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/target/canary"
)

const ledger = "drill/probe/pooled/1"

// bodies are the ways in which a canary is filled.
func bodies() map[string]func(string, int64, int) []byte {
	return map[string]func(string, int64, int) []byte{"text": canary.Body, "dense": canary.DenseBody}
}

func TestDamagedCanariesShow(t *testing.T) {
	for name, body := range bodies() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				seq, size := rapid.Int64Range(0, math.MaxInt64).Draw(t, "seq"), rapid.IntRange(1, 5000).Draw(t, "size")
				good := body(ledger, seq, size)
				if got, err := canary.Read(ledger, good); err != nil || got != seq {
					t.Fatalf("%d, %v", got, err)
				}
				if len(good) < size || len(good) > size+200 {
					t.Fatalf("%d bytes, want %d", len(good), size)
				}
				if _, err := canary.Read("drill/probe/pooled/2", good); !errors.Is(err, canary.ErrDamaged) {
					t.Fatalf("as another ledger's: %v", err)
				}
				at := rapid.IntRange(0, len(good)-1).Draw(t, "at")
				if _, err := canary.Read(ledger, good[:at]); !errors.Is(err, canary.ErrDamaged) {
					t.Fatalf("cut to %d bytes: %v", at, err)
				}
				good[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
				if _, err := canary.Read(ledger, good); !errors.Is(err, canary.ErrDamaged) {
					t.Fatalf("changed at %d: %v", at, err)
				}
			})
		})
	}
}

// TestMixturesShow: a part of each of two canaries, as a torn write leaves it.
func TestMixturesShow(t *testing.T) {
	for name, body := range bodies() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				seq := rapid.Int64Range(0, math.MaxInt64-1).Draw(t, "seq")
				size := rapid.IntRange(500, 5000).Draw(t, "size")
				a, b := body(ledger, seq, size), body(ledger, seq+1, size)
				at := rapid.IntRange(1, min(len(a), len(b))-1).Draw(t, "at")
				mixed := append(bytes.Clone(a[:at]), b[at:]...)
				if bytes.Equal(mixed, a) || bytes.Equal(mixed, b) {
					return // they are the same so far, or from there on
				}
				if _, err := canary.Read(ledger, mixed); !errors.Is(err, canary.ErrDamaged) {
					t.Fatalf("mixed at %d: %v", at, err)
				}
			})
		})
	}
}

func TestOnlyDenseBodiesDoNotCompress(t *testing.T) {
	for name, body := range bodies() {
		b := body(ledger, 7, 64<<10)
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		// The hash at the end is hexadecimal, and so half as large.
		if dense := packed.Len() > len(b)-100; dense != (name == "dense") {
			t.Errorf("%s: %d bytes become %d", name, len(b), packed.Len())
		}
	}
}

// TestFormatsStay: an upgrade amid a drill must not make losses of canaries.
func TestFormatsStay(t *testing.T) {
	for name, want := range map[string]string{
		"text":  "5158bd8d3f4b35ce31cd921119c381d880322392350db5137ae80c0f6196ef04",
		"dense": "4f78e04b8d8b376639478e5484b972260b5b7c3a23f9943cb947d820b24828f4",
	} {
		if sum := sha256.Sum256(bodies()[name](ledger, 7, 1<<10)); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s: another body than in older versions", name)
		}
	}
	if got := canary.Tree("firedrill").Name(ledger, 7); got != "firedrill/"+ledger+"/9223372036854775/800" {
		t.Errorf("another name than in older versions: %s", got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(""))
	f.Add(canary.Body("l", 7, 100))
	f.Add(canary.DenseBody("l", 7, 100))
	f.Add(canary.Body("other", 7, 1))
	f.Fuzz(func(t *testing.T, body []byte) {
		if seq, err := canary.Read("l", body); err != nil && (seq != 0 || !errors.Is(err, canary.ErrDamaged)) {
			t.Fatalf("%d, %v", seq, err)
		}
	})
}
