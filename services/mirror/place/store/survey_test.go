package store

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/place"
)

// TestSurvey looks at random keys of random trees, in which directories' names begin
// with each other's: MinIO's listings from a key on end too early there.
func TestSurvey(t *testing.T) {
	names := []string{"a", "a-x", "a.b", "a.b.c", "b", "b c", "bb"}
	inside := 0
	for seed := range uint64(16) {
		unexpected := seed%4 > 1 // all of them
		r := rand.New(rand.NewPCG(seed, 0))
		path := func() string {
			key := fmt.Sprint(names[r.IntN(len(names))], r.IntN(4))
			for range r.IntN(4) {
				key = names[r.IntN(len(names))] + "/" + key
			}
			return key
		}
		_, p := fresh(t, minio.MakeBucketOptions{}, Options{Exclusive: true})
		there := map[string]bool{}
		var ws []place.Write
		add := func(key string) {
			for at := range key {
				if key[at] == '/' && there[key[:at]] {
					return
				}
			}
			for other := range there {
				if other == key || strings.HasPrefix(other, key+"/") {
					return
				}
			}
			there[key] = true
			ws = append(ws, file(key, "text"))
		}
		for range r.IntN(400) {
			add(path())
		}
		for i := range 300 {
			add(fmt.Sprint("a-x/many/", i))
		}
		for _, o := range p.PutBatch(t.Context(), ws) {
			must(t, o.Err)
		}
		var keys []wanted
		under := []string{"", "a/"}[seed%2]
		once := map[string]bool{}
		for range 2 + r.IntN(60) {
			key := under + path()
			if r.IntN(3) == 0 {
				key = strings.TrimRight(key, "0123") // the name of a directory
			}
			if !once[key] {
				once[key] = true
				keys = append(keys, wanted{key: key, fresh: unexpected || r.IntN(2) == 0})
			}
		}
		for i, f := range p.survey(t.Context(), keys) {
			w, below := keys[i], false
			for key := range there {
				below = below || strings.HasPrefix(key, w.key+"/")
			}
			if below && w.fresh && !f.there {
				inside++
			}
			if f.err != nil || f.there != there[w.key] || w.fresh && !f.there && below != (f.below != "") {
				t.Fatalf("seed %d: of %+v, that is there %v, with something below %v, it says %+v", seed, w, there[w.key], below, f)
			}
		}
	}
	if inside < 12 {
		t.Errorf("only %d of the keys had something below them", inside)
	}
}

// TestASurveyOfNothingIsCheap is what a first upload meets.
func TestASurveyOfNothingIsCheap(t *testing.T) {
	c := newBucket(t, server(t), minio.MakeBucketOptions{})
	var requests atomic.Int32
	p, err := Open(t.Context(), proxy(t, c, func(*http.Request) { requests.Add(1) }, nil), Options{})
	must(t, err)
	defer func() { must(t, p.Close()) }()
	keys := make([]wanted, 500)
	for i := range keys {
		keys[i] = wanted{fmt.Sprintf("new/%d/%d", i%7, i), true}
	}
	requests.Store(0)
	for _, f := range p.survey(t.Context(), keys) {
		if f.err != nil || f.there {
			t.Fatalf("got %+v", f)
		}
	}
	if n := requests.Load(); n > 1 {
		t.Errorf("%d requests", n)
	}
	// The next batch finds some of the directories.
	for i := range 21 {
		put(t, p, file(fmt.Sprintf("new/%d/%d", i%3, i), "text"))
	}
	for i := range keys {
		keys[i].key = fmt.Sprintf("new/%d/x%d", i%7, i)
	}
	requests.Store(0)
	p.survey(t.Context(), keys)
	if n := requests.Load(); n > 1+3 {
		t.Errorf("%d requests", n)
	}
}
