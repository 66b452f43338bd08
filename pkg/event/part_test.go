package event

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPartsMatchPatterns(t *testing.T) {
	p := Part{ID: "minio:a", Labels: map[string]string{"host": "h1", "key": AnyEnd, "url": "http://h/9"}}
	disk := Part{ID: "disk:a:" + AnyEnd}
	for pattern, want := range map[string]bool{
		"minio:a": true, "minio:*": true, "minio:b": false, "minio": false, "": false, "*": true, "*a": true, "min*b": false,
		"host=h1": true, "host=h?": true, "host=h2": false, "h1": false, "host=[gh][^2-9]": true, "host=[a-g]1": false, `host=\h1`: true,
		"key=orders/7": true, "key=orders/*": true, "key=": true, "ke*": true, "kex=1": false, "k[a-f]y=?": true,
		"url=*": true, "url=http:??h?9": true, "url=http:/*": true, "url=*/8": false, "[": true,
	} {
		if _, got := p.Match(pattern); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
	for pattern, want := range map[string]bool{
		"disk:a:/srv": true, "disk:a:*": true, "disk:*": true, "*/srv": true, "disk:?:/srv": true, "disk:b:/srv": false, "disk:a": false, "disk:b:*": false,
	} {
		if _, got := disk.Match(pattern); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
	if by, _ := p.Match("host=*"); by != "host=h1" {
		t.Errorf("by %q", by)
	}
}

// TestASurveyForeseesWhatAPatternMatches: what a pattern matches in the end, it could
// match in the survey, where only the beginning was known; and a text matches itself.
func TestASurveyForeseesWhatAPatternMatches(t *testing.T) {
	sign := rapid.StringOf(rapid.SampledFrom([]rune("ab/:é*?[]^-\\")))
	rapid.Check(t, func(t *rapid.T) {
		pattern := sign.Draw(t, "pattern")
		text := []rune(rapid.StringOf(rapid.SampledFrom([]rune("ab/:é"))).Draw(t, "text"))
		known := string(text[:rapid.IntRange(0, len(text)).Draw(t, "known")])
		_, hit := Part{ID: string(text)}.Match(pattern)
		if _, could := (Part{ID: known + AnyEnd}).Match(pattern); hit && !could {
			t.Fatalf("%q hits %q, and the survey's %q does not show it", pattern, string(text), known+AnyEnd)
		}
		for _, p := range []string{string(text), known + "*", "*" + known + "*", strings.Repeat("?", len(text))} {
			if _, ok := (Part{ID: string(text)}).Match(p); !ok {
				t.Fatalf("%q does not match %q", p, string(text))
			}
		}
	})
}
