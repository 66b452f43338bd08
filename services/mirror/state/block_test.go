package state

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestABlockKnowsItsPlace(t *testing.T) {
	var out bytes.Buffer
	w := blockWriter{w: &out}
	for _, payload := range []string{"one", "two"} {
		if err := w.write(blockData, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(raw []byte) (got []string, err error) {
		r := newBlockReader(bytes.NewReader(raw), "file", 0, int64(len(raw)))
		for {
			_, payload, err := r.next()
			if err != nil {
				return got, err
			}
			got = append(got, string(payload))
		}
	}
	raw := out.Bytes()
	if got, err := read(raw); len(got) != 2 || got[0] != "one" || got[1] != "two" || !errors.Is(err, io.EOF) {
		t.Fatalf("got %q, %v", got, err)
	}
	one, two := raw[:len(raw)/2], raw[len(raw)/2:]
	for name, raw := range map[string][]byte{"swapped": append(bytes.Clone(two), one...), "the second alone": two, "the first twice": append(bytes.Clone(one), one...)} {
		if got, err := read(raw); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
