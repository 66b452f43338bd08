package zfs

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// TestCheckAllFindsEachDamage, in several parts of one point, and what it means for
// those that build on it.
func TestCheckAllFindsEachDamage(t *testing.T) {
	t.Parallel()
	source, s := on(t, "source"), store(t)
	h := &history{machine: source, dataset: source.fresh(t), bulk: partSize + 1<<20}
	h.step(t)
	h.bulk = 0
	h.step(t)
	h.step(t)
	a, points := saved(t, h, s)
	var last Progress
	c, err := a.CheckAll(t.Context(), func(p Progress) { last = p })
	must(t, err)
	if !c.Whole() || c.Points != 3 || c.Parts != 4 || c.Bytes != points[0].Stored()+points[1].Stored()+points[2].Stored() {
		t.Errorf("%+v", c)
	}
	if want := (Progress{points[2].Name(), 3, 3, points[2].Stream.Bytes, points[2].Stream.Bytes}); last != want {
		t.Errorf("told of %+v, want %+v", last, want)
	}

	for number := range points[0].Parts {
		rewrite(t, s, points[0].partKey(number), func(b []byte) []byte { b[len(b)/3] ^= 4; return b })
	}
	must(t, s.Delete(t.Context(), []string{points[2].partKey(0)}))
	c, err = a.CheckAll(t.Context(), nil)
	must(t, err)
	if c.Whole() || len(c.Damaged) != 3 {
		t.Fatalf("%+v", c)
	}
	for i, want := range []struct {
		parts []string
		says  string
	}{
		{[]string{points[0].partKey(0), points[0].partKey(1)}, "damaged"},
		{nil, "it builds on " + points[0].Name()},
		{[]string{points[2].partKey(0)}, "it builds on " + points[1].Name()},
	} {
		d := c.Damaged[i]
		var parts []string
		for _, err := range d.Errs {
			if part, ok := errors.AsType[*PartError](err); ok {
				parts = append(parts, part.Key)
			}
		}
		if d.Point.GUID != points[i].GUID || !slices.Equal(parts, want.parts) || !strings.Contains(errors.Join(d.Errs...).Error(), want.says) {
			t.Errorf("%s: %v", d.Point.Name(), d.Errs)
		}
	}
	rewrite(t, s, points[0].key(), func(b []byte) []byte { return b[1:] })
	c, err = a.CheckAll(t.Context(), nil)
	must(t, err)
	if len(c.Indexes) != 1 || len(c.Damaged) != 2 {
		t.Fatalf("%+v", c)
	}
	for _, d := range c.Damaged {
		wants(t, errors.Join(d.Errs...), ErrNotExist)
	}
}

// TestCheckAllTellsDamageFromFailure: what could not be looked at is not damaged.
func TestCheckAllTellsDamageFromFailure(t *testing.T) {
	t.Parallel()
	h, s := grow(t, on(t, "source"), 1), store(t)
	saved(t, h, s)
	_, err := NewArchive(unreachable{s}).CheckAll(t.Context(), nil)
	wants(t, err, bucket.ErrUnreachable)
}

// unreachable is a store that lists, and then is gone.
type unreachable struct{ Store }

func (u unreachable) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Object, error) {
	if strings.HasPrefix(key, partPrefix) {
		return nil, bucket.Object{}, bucket.ErrUnreachable
	}
	return u.Store.Get(ctx, key, off, n)
}

func TestChoose(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	points := []Point{
		{GUID: 1, Dataset: "p/d", Snapshot: "a", Created: at}, {GUID: 2, From: 1, Dataset: "p/d", Snapshot: "b"},
		{GUID: 3, From: 9, Dataset: "p/d", Snapshot: "c"}, {GUID: 4, From: 2, Dataset: "p/e", Snapshot: "a"}, {GUID: 5, From: 3, Dataset: "p/d", Snapshot: "f"},
	}
	for name, want := range map[string]uint64{"": 4, "b": 2, "p/d@a": 1, "p/e@a": 4, "3": 3, "c": 3} {
		if p, err := Choose(points, name); err != nil || p.GUID != want {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
	for name, want := range map[string]error{"a": ErrName, "z": ErrNotExist, "6": ErrNotExist} {
		if _, err := Choose(points, name); !errors.Is(err, want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := Choose(points[2:3], ""); !errors.Is(err, ErrNotExist) {
		t.Errorf("nothing that can be restored: %v", err)
	}
}
