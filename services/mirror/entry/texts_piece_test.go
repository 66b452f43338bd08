package entry

import "testing"

// A string that is kept must not keep more than a small piece.
func TestTextsKeepPiecesSmall(t *testing.T) {
	var texts Texts
	for range 1000 {
		texts.Path("d0012", "f0001234.bin")
		texts.Join("d0012/", []byte("f0001234.bin"))
		if n := texts.piece.Cap(); n > mostPiece {
			t.Fatalf("a piece has %d bytes, at most %d are wanted", n, mostPiece)
		}
	}
}
