package entry_test

import (
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"pgregory.net/rapid"
)

// What was made earlier stays as it was, however much is made after it.
func TestTextsStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var texts entry.Texts
		var got, want []string
		for range rapid.IntRange(1, 40).Draw(t, "texts") {
			begin := strings.Repeat(rapid.SampledFrom([]string{"", "a", "dir", "\xff/"}).Draw(t, "begin"), rapid.IntRange(0, 90).Draw(t, "times"))
			rest := rapid.SliceOfN(rapid.Byte(), 0, 90).Draw(t, "rest")
			if rapid.Bool().Draw(t, "path") {
				got, want = append(got, texts.Path(begin, string(rest))), append(want, strings.TrimPrefix(begin+"/"+string(rest), "/"))
			} else {
				got, want = append(got, texts.Join(begin, rest)), append(want, begin+string(rest))
			}
			clear(rest) // it is the caller's
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("text %d is %q, want %q", i, got[i], want[i])
			}
		}
	})
}

func TestTextsTakeFewAllocations(t *testing.T) {
	name := []byte("f0001234.bin")
	n := testing.AllocsPerRun(100, func() {
		var texts entry.Texts
		for range 200 {
			texts.Join("d0012/", name)
			texts.Path("d0012", "f0001234.bin")
		}
	})
	if n > 20 {
		t.Errorf("400 texts take %v allocations", n)
	}
}
