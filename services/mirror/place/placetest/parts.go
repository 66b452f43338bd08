package placetest

import (
	"slices"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// partSize is the least that S3 takes.
const partSize = 5 << 20

// partsOf writes the parts of a content, and gives what has to be stored of them.
func (s *suite) partsOf(p place.Parts, token []byte, content string) [][]byte {
	s.Helper()
	pieces := slices.Collect(slices.Chunk([]byte(content), partSize))
	parts := make([][]byte, len(pieces))
	for i, piece := range slices.Backward(pieces) {
		part, err := p.PutPart(s.Context(), token, i+1, strings.NewReader(string(piece)), int64(len(piece)))
		if err != nil {
			s.Fatalf("PutPart %d: %v", i+1, err)
		}
		parts[i] = part
	}
	return parts
}

func (s *suite) start(p place.Parts, w place.Write) []byte {
	s.Helper()
	token, err := p.StartParts(s.Context(), w, partSize)
	if err != nil {
		s.Fatalf("StartParts: %v", err)
	}
	return token
}

func (s *suite) abort(p place.Parts, token []byte) {
	s.Helper()
	if err := p.AbortParts(s.Context(), token); err != nil {
		s.Errorf("AbortParts: %v", err)
	}
}

func (s *suite) parts() {
	p, ok := s.Place.(place.Parts)
	if !ok || !s.traits.Parts {
		return
	}
	content := pattern(2*partSize + 12345)
	w := s.file("d/large", content)
	w.Open = nil
	token := s.start(p, w)
	if _, err := p.PutPart(s.Context(), token, 2, strings.NewReader("torn"), partSize); err == nil {
		s.Error("a part whose reader ended too early was taken")
	}
	s.partsOf(p, token, content)
	parts := s.partsOf(p, token, content) // Each may be repeated.
	s.files(nil)
	if got, err := p.FinishParts(s.Context(), w, token, parts[:2]); err == nil {
		s.Errorf("without its last part it became %+v", got)
	}
	s.files(nil)
	s.abort(p, token)
	token = s.start(p, w)
	parts = s.partsOf(p, token, content)
	got, err := p.FinishParts(s.Context(), w, token, parts)
	if err != nil {
		s.Fatalf("FinishParts: %v", err)
	}
	s.same("FinishParts gave", got, withSums(w.Entry, content))
	s.listed(got)
	s.files(map[string]string{"d/large": content})

	token = s.start(p, s.file("aborted", content))
	s.partsOf(p, token, content[:partSize])
	s.abort(p, token)
	s.abort(p, token)
	s.files(map[string]string{"d/large": content})
}

func (s *suite) partsUnseen() {
	p, ok := s.Place.(place.Parts)
	if !ok || !s.traits.Parts {
		return
	}
	content := pattern(partSize + 1)
	stale := s.put(s.file("stale", "seen"))
	for path, have := range map[string]entry.Entry{"new": {}, "stale": stale} {
		w := s.file(path, content)
		w.Have = have
		token := s.start(p, w)
		parts := s.partsOf(p, token, content)
		s.WriteBehind(path, "theirs")
		_, err := p.FinishParts(s.Context(), w, token, parts)
		s.wants("it changed meanwhile", err, place.ErrChanged)
		s.abort(p, token)
	}
	s.files(map[string]string{"new": "theirs", "stale": "theirs"})
}
