package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// documents are a Store that keeps nothing else, and that fails after some changes, as if
// the process had been killed.
type documents struct {
	forgetful
	all map[string][]byte
	// changed are the names of what was saved or removed; left is how often that still
	// succeeds, if it is not negative.
	changed []string
	left    int
}

var errKilled = errors.New("killed")

func (d *documents) change(name string) error {
	if d.left == 0 {
		return errKilled
	}
	d.left--
	d.changed = append(d.changed, name)
	return nil
}

func (d *documents) Load(name string, v any) (bool, error) {
	raw, ok := d.all[name]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(raw, v)
}

func (d *documents) Save(name string, v any) error {
	if err := d.change(name); err != nil {
		return err
	}
	raw, err := json.Marshal(v)
	d.all[name] = raw
	return err
}

func (d *documents) Remove(name string) error {
	if err := d.change(name); err != nil {
		return err
	}
	delete(d.all, name)
	return nil
}

func newDocuments() *documents { return &documents{all: map[string][]byte{}, left: -1} }

// What one upload brings costs no writing of the others.
func TestEachUploadIsSavedByItself(t *testing.T) {
	d := newDocuments()
	s := &uploads{store: d}
	var all []*upload
	for i := range 3 {
		u, err := s.begin(plan.Dest, "id", entry.Entry{Path: fmt.Sprint(i), Size: 40}, fmt.Append(nil, "token", i), 10, time.Now())
		must(t, err)
		all = append(all, u)
	}
	d.changed = nil
	must(t, s.put(all[1], 2, [][]byte{[]byte("x"), []byte("y")}))
	if want := []string{all[1].partsName()}; !slices.Equal(d.changed, want) {
		t.Errorf("%q were written, want %q", d.changed, want)
	}
	for _, u := range all {
		must(t, s.end(u))
	}
	if len(d.all) != 1 || string(d.all[UploadsName]) != "[]" {
		t.Errorf("at the end it holds %s", d.all)
	}
}

// Uploads that were remembered by an earlier version, all in one document, go on.
func TestUploadsOfAnEarlierVersion(t *testing.T) {
	d := newDocuments()
	e := entry.Entry{Path: "f", Size: 30, Mode: 0o644}
	old := &upload{Token: []byte("token"), Size: 10, Parts: [][]byte{[]byte("x"), nil, []byte("z")}}
	s := &uploads{store: d}
	begun, err := s.begin(plan.Dest, "", e, old.Token, 10, time.Now())
	must(t, err)
	old.Entry, old.To = begun.Entry, begun.To
	must(t, d.Save(UploadsName, []*upload{old}))
	for range 2 { // also once it is written as it is now
		s = &uploads{store: d}
		must(t, s.load())
		if len(s.all) != 1 || len(s.all[0].Parts) != 3 || string(s.all[0].Parts[0]) != "x" || s.all[0].Parts[1] != nil {
			t.Fatalf("it remembers %+v", s.all)
		}
		must(t, s.save())
	}
}

// Whenever the process is killed, what was said to be remembered is, and no part is taken
// for one of another upload.
func TestUploadsSurviveAKill(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDocuments()
		s := &uploads{store: d}
		// sure is what must be remembered, by token; ended are those that may be, and may
		// have lost their parts.
		sure, ended := map[string][][]byte{}, map[string]bool{}
		d.left = rapid.IntRange(0, 30).Draw(t, "killed after")
		for n := range 20 {
			var err error
			switch do := rapid.IntRange(0, 4).Draw(t, "do"); {
			case do == 0 || len(s.all) == 0:
				token := fmt.Sprint("token", n)
				count := rapid.IntRange(1, 5).Draw(t, "parts")
				_, err = s.begin(plan.Dest, "id", entry.Entry{Path: "f", Size: int64(10 * count)}, []byte(token), 10, time.Now())
				if ended[token] = err != nil; err == nil {
					sure[token] = make([][]byte, count)
				}
			case do == 1:
				u := rapid.SampledFrom(s.all).Draw(t, "upload")
				ended[string(u.Token)] = true
				delete(sure, string(u.Token))
				err = s.end(u)
			default:
				u := rapid.SampledFrom(s.all).Draw(t, "upload")
				at := rapid.IntRange(1, len(u.Parts)).Draw(t, "part")
				part := fmt.Appendf(nil, "%s/%d", u.Token, at)
				if err = s.put(u, at, [][]byte{part}); err == nil {
					sure[string(u.Token)][at-1] = part
				}
			}
			if err != nil {
				break
			}
		}
		d.left = -1
		next := &uploads{store: d}
		if err := next.load(); err != nil {
			t.Fatal(err)
		}
		for _, u := range next.all {
			token := string(u.Token)
			want, ok := sure[token]
			if !ok && !ended[token] {
				t.Fatalf("%s was never begun", token)
			}
			delete(sure, token)
			for i, part := range u.Parts {
				if part != nil && string(part) != fmt.Sprintf("%s/%d", token, i+1) {
					t.Fatalf("part %d of %s is %q", i+1, token, part)
				}
				if ok && want[i] != nil && !bytes.Equal(part, want[i]) {
					t.Fatalf("part %d of %s is lost", i+1, token)
				}
			}
		}
		if len(sure) > 0 {
			t.Fatalf("forgotten: %q", sure)
		}
	})
}

// moved is a place under the name of another one.
type moved struct{ *spy }

func (m moved) Traits() place.Traits {
	t := m.spy.Traits()
	t.Identity = "another place"
	return t
}

// An upload in a place that is no longer the mirror's cannot be freed by it: it says where
// what remains, and goes on with nothing that is not there.
func TestAnUploadInAnotherPlaceIsReported(t *testing.T) {
	for _, gone := range []bool{false, true} {
		h := newHalves(t, plan.Mirror)
		h.large(1)
		h.interrupt()
		was := h.to.Traits().Identity
		if gone {
			h.remove("d/large")
		}
		var to place.Place = moved{h.to}
		h.job.Places[plan.Dest], h.job.AcceptPlaces = to, true
		h.to.took()
		r := h.whole()
		if n := h.starts(); !gone && n != 1 {
			t.Errorf("%d uploads were begun", n)
		}
		if len(r.LeftUploads) != 1 || r.LeftUploads[0].Key != "d/large" || r.LeftUploads[0].Place != was || !strings.Contains(r.LeftUploads[0].String(), was) {
			t.Errorf("left: %+v", r.LeftUploads)
		}
		if n, m := h.under(), h.remembered(); n != 1 || m != 0 {
			t.Errorf("%d uploads remain, and %d are remembered", n, m)
		}
	}
}
