package state

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Whoever reads beside a commit sees just what the state holds afterwards, however much
// of it was carried over as it was.
func TestCommitReadShowsWhatIsRemembered(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, err := open(t.TempDir(), sizes{sort: 1 << 20, fan: 4, block: 8})
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		for range rapid.IntRange(1, 4).Draw(rt, "commits") {
			first, n := rapid.IntRange(0, 300).Draw(rt, "first"), rapid.IntRange(0, 400).Draw(rt, "notes")
			for i := range n {
				key := fmt.Sprintf("k%04d", first+i)
				if rapid.IntRange(0, 9).Draw(rt, "forget") == 0 {
					err = s.Forget(key)
				} else {
					err = s.Note(plan.Past{Key: key, Source: entry.Entry{Path: key, Size: int64(n)}})
				}
				if err != nil {
					rt.Fatal(err)
				}
			}
			var seen []plan.Past
			err = s.CommitRead(func(past iter.Seq2[plan.Past, error]) (err error) {
				seen, err = collect(past)
				return err
			})
			if err != nil {
				rt.Fatal(err)
			}
			if held, err := collect(s.Past()); err != nil || n > 0 && !reflect.DeepEqual(seen, held) {
				rt.Fatalf("%v: saw %d, and holds %d", err, len(seen), len(held))
			}
		}
	})
}

func collect(past iter.Seq2[plan.Past, error]) (all []plan.Past, err error) {
	for p, err := range past {
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// What a reader refuses is not committed, and can be tried again.
func TestCommitReadFailsWithItsReader(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 5000 {
		key := fmt.Sprintf("k%04d", i)
		if err := s.Note(plan.Past{Key: key, Source: entry.Entry{Path: key, Size: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	refused := errors.New("refused")
	err = s.CommitRead(func(past iter.Seq2[plan.Past, error]) error {
		for range past {
			return refused
		}
		return nil
	})
	if !errors.Is(err, refused) || !s.Empty() {
		t.Fatalf("%v, and empty is %t", err, s.Empty())
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if all, err := collect(s.Past()); err != nil || len(all) != 5000 {
		t.Fatalf("%d, %v", len(all), err)
	}
}

// A reader learns that the writing failed, and the error of the commit is that one.
func TestCommitReadTellsItsReaderOfAFailure(t *testing.T) {
	defer goleak.VerifyNone(t)
	broken := errors.New("broken")
	var told error
	b := newBeside(func(past iter.Seq2[plan.Past, error]) error {
		_, told = collect(past)
		return told
	})
	b.add(&plan.Past{Key: "k"})
	if err := b.end(broken); !errors.Is(err, broken) {
		t.Fatalf("%v", err)
	} else if errors.Is(err, errCutOff) {
		t.Fatalf("%v names what follows from it", err)
	}
	if !errors.Is(told, errCutOff) {
		t.Fatalf("the reader was told %v", told)
	}
}

// TestBesideFillsBatchesAgain: a reader sees each record as it was, in no more memory than
// that of the batches that are on their way.
func TestBesideFillsBatchesAgain(t *testing.T) {
	const n = 40 * besideBatch
	rooms := map[*plan.Past]int{}
	next := 0
	b := newBeside(func(past iter.Seq2[plan.Past, error]) error {
		for p, err := range past {
			if err != nil {
				return err
			}
			if p.Key != fmt.Sprintf("k%06d", next) || p.Source.Size != int64(next) {
				return fmt.Errorf("record %d is %+v", next, p)
			}
			next++
		}
		return nil
	})
	for i := range n {
		b.add(&plan.Past{Key: fmt.Sprintf("k%06d", i), Source: entry.Entry{Size: int64(i)}})
		if len(b.batch) == 1 {
			rooms[&b.batch[0]]++
		}
	}
	if err := b.end(nil); err != nil || next != n {
		t.Fatalf("%d of %d records were read: %v", next, n, err)
	}
	if len(rooms) > besideAhead+2 {
		t.Errorf("%d batches were made of %d on their way", len(rooms), besideAhead+2)
	}
}
