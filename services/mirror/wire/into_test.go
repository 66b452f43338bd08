package wire_test

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// What PastInto reads does not depend on what was there before, and stays when the next
// is read.
func TestPastIntoForgetsWhatWasThere(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{})
	var want []plan.Past
	for i := range 40 {
		p := mirrored(i, rng)
		switch i % 4 {
		case 0:
			p.Missing, p.Dirty = [2]uint8{3, 4}, [2]bool{true, true}
		case 1:
			p.Source.Kind, p.Source.Target = entry.Symlink, "there"
			p.Source.Xattrs = map[string][]byte{"user.a": []byte("b")}
		case 2:
			p.Dest = entry.Entry{}
		}
		want = append(want, p)
	}
	var w wire.Encoder
	var raw []byte
	for _, p := range want {
		raw = w.AppendPast(raw, p)
	}
	var r wire.Decoder
	var p plan.Past
	var got []plan.Past
	for len(raw) > 0 {
		var err error
		if raw, err = r.PastInto(&p, raw); err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if _, err := new(wire.Decoder).PastInto(&p, []byte{0}); err == nil || !reflect.DeepEqual(p, plan.Past{}) {
		t.Errorf("of damaged bytes: %v, and %+v is left", err, p)
	}
}
