package fleet_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

func drawItem(t *rapid.T) engine.Item {
	it := engine.Item{Single: rapid.Bool().Draw(t, "single"), DryRun: rapid.Bool().Draw(t, "dry"), Ordered: rapid.Bool().Draw(t, "ordered"), Names: rapid.Bool().Draw(t, "names")}
	for i := range rapid.IntRange(1, 3).Draw(t, "actions") {
		path := rapid.StringN(1, 20, 40).Draw(t, "path")
		it.Actions = append(it.Actions, plan.Action{
			Op: plan.Put, Key: path, To: plan.Side(i % 2), Source: entry.Entry{Path: path, Size: rapid.Int64Min(0).Draw(t, "size")},
		})
	}
	if rapid.Bool().Draw(t, "bin") {
		it.Bin = place.Bin{Run: rapid.StringMatching("[a-z0-9-]{1,20}").Draw(t, "run"), At: time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), 0).UTC()}
	}
	if rapid.Bool().Draw(t, "parts") {
		it.Parts = &engine.PartRange{
			Token: rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "token"), Size: rapid.Int64Min(0).Draw(t, "part size"),
			First: rapid.IntRange(1, 10_000).Draw(t, "first"), Count: rapid.IntRange(1, 10_000).Draw(t, "count"),
		}
	}
	return it
}

func TestItemsArriveAsTheyWereSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		it := drawItem(t)
		places := [2]string{"one", rapid.String().Draw(t, "place")}
		got, at, err := fleet.DecodeItem(fleet.EncodeItem(it, places))
		if err != nil || at != places || !reflect.DeepEqual(got, it) {
			t.Fatalf("%+v for %q, %v; want %+v", got, at, err, it)
		}
		dones := make([]engine.Done, len(it.Actions))
		for i, a := range it.Actions {
			dones[i].Action = a
			if rapid.Bool().Draw(t, "failed") {
				dones[i].Err = &fleet.RemoteError{Text: "why"}
			} else if it.Parts != nil {
				dones[i].Parts = rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 5), 1, 5).Draw(t, "parts")
			}
		}
		back, err := fleet.DecodeDones(fleet.EncodeDones(dones))
		if err != nil || !reflect.DeepEqual(back, dones) {
			t.Fatalf("%+v, %v; want %+v", back, err, dones)
		}
	})
}

// What a planner has to know of a failure it learns from another process, too.
func TestWhatAFailureIsArrives(t *testing.T) {
	for _, is := range []error{place.ErrChanged, place.ErrNoUpload, place.ErrRefused} {
		back, err := fleet.DecodeDones(fleet.EncodeDones([]engine.Done{{Err: fmt.Errorf("put it: %w", is)}}))
		if err != nil || !errors.Is(back[0].Err, is) || back[0].Err.Error() != "put it: "+is.Error() {
			t.Errorf("%v arrives as %+v, %v", is, back, err)
		}
	}
	back, err := fleet.DecodeDones(fleet.EncodeDones([]engine.Done{{Err: place.ErrReadOnly}}))
	if err != nil || !engine.Refused(back[0].Err) {
		t.Errorf("a place that is read-only arrives as %+v, %v", back, err)
	}
}

// What an older process does not know must not look to it as if it did.
func TestResultsWithoutPartsAreAsTheyWere(t *testing.T) {
	plain := fleet.EncodeDones([]engine.Done{{Err: errors.New("x")}})
	parts := fleet.EncodeDones([]engine.Done{{Parts: [][]byte{[]byte("x")}}})
	if plain[0] != 2 || parts[0] != 3 {
		t.Errorf("the forms are %d and %d", plain[0], parts[0])
	}
}

func FuzzDecode(f *testing.F) {
	a := plan.Action{Op: plan.Put, Key: "f", To: plan.Dest, Source: entry.Entry{Path: "f", Size: 7}}
	it := engine.Item{Actions: []plan.Action{a}}
	f.Add(fleet.EncodeItem(it, [2]string{"a", "b"}))
	it.Parts = &engine.PartRange{Token: []byte("t"), Size: 5, First: 1, Count: 2}
	f.Add(fleet.EncodeItem(it, [2]string{}))
	f.Add(fleet.EncodeDones([]engine.Done{{Action: a}}))
	f.Add(fleet.EncodeDones([]engine.Done{{Action: a, Parts: [][]byte{[]byte("p"), nil}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if it, places, err := fleet.DecodeItem(b); err == nil {
			again := fleet.EncodeItem(it, places)
			if got, _, err := fleet.DecodeItem(again); err != nil || !bytes.Equal(fleet.EncodeItem(got, places), again) {
				t.Errorf("%+v becomes %+v, %v", it, got, err)
			}
		}
		if dones, err := fleet.DecodeDones(b); err == nil {
			if _, err := fleet.DecodeDones(fleet.EncodeDones(dones)); err != nil {
				t.Errorf("%+v: %v", dones, err)
			}
		}
	})
}
