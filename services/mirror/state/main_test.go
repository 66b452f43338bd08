package state_test

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		fmt.Fprintln(os.Stderr, victim(dir, os.Getenv(victimSeed)))
		os.Exit(1)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = cmp.Or(code, 1)
	}
	os.Exit(code)
}

// opened opens a state, and closes it after the test.
func opened(t testing.TB, dir string) *state.Store {
	t.Helper()
	s, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must(t interface {
	Helper()
	Fatal(...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// left is what a run of a mirror from a directory to a bucket leaves at a key. Its
// hashes are as random as real ones.
func left(key string, version int64) plan.Past {
	rng := rand.New(rand.NewPCG(uint64(version), uint64(len(key))))
	at := 1_700_000_000_000_000_000 + rng.Int64N(1<<50)
	e := entry.Entry{
		Path: key, Size: version, Mode: 0o644, UID: 1000, GID: 1000, MTime: at,
		Change: entry.Change{FS: entry.FSID{1, 2, 3}, Inode: uint64(version), CTime: at},
		Sum:    entry.Sum{Has: entry.HasBLAKE3 | entry.HasCRC32C, CRC32C: rng.Uint32()},
	}
	for i := range e.Sum.BLAKE3 {
		e.Sum.BLAKE3[i] = byte(rng.Uint32())
	}
	object := e
	object.Change = entry.Change{}
	object.Sum.Has |= entry.HasETag
	object.Sum.ETag = fmt.Sprintf("%016x%016x", rng.Uint64(), rng.Uint64())
	return plan.Past{Key: key, Source: e, Dest: object}
}

// collect gives all of a stream, which must be sorted strictly.
func collect(seq iter.Seq2[plan.Past, error]) (map[string]plan.Past, error) {
	all := map[string]plan.Past{}
	last := ""
	for p, err := range seq {
		if err != nil {
			return all, err
		}
		if p.Key <= last {
			return all, errors.New("not sorted by key: " + p.Key + " behind " + last)
		}
		all[p.Key], last = p, p.Key
	}
	return all, nil
}

// holds checks what a state holds.
func holds(t interface {
	Helper()
	Fatalf(string, ...any)
}, s *state.Store, want map[string]plan.Past) {
	t.Helper()
	got, err := collect(s.Past())
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the state holds %d records %.20q, want %d %.20q", len(got), slices.Sorted(maps.Keys(got)), len(want), slices.Sorted(maps.Keys(want)))
	}
}
