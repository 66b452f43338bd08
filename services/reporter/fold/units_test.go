package fold_test

import (
	"testing"

	"github.com/firedrill/firedrill/services/reporter/fold"
)

func TestShowUnits(t *testing.T) {
	for text, want := range map[string]string{
		"objective 5m0s; p/fault/x: stable after 1.1044s to 1.1313s":                     "objective 5 min; p/fault/x: stable after 1.1 s – 1.14 s",
		"not stable within the measured window, so after > 1.3842s":                      "not stable within the measured window, so after ≥ 1.38 s",
		"jitter is 5.6ms, at most 5ms is allowed":                                        "jitter is 5.6 ms, at most 5 ms is allowed",
		"down for 10.003s, longer than 10s (12µs) 1h0m0s 90s":                            "down for 10.003 s, longer than 10 s (12 µs) 60 min 90 s",
		"both were over 400ms after it at the latest":                                    "both were over 400 ms after it at the latest",
		"phase soak-30s, 7710490312542400483 rows, 3 of 4, file 5m.txt, 0/303D800, 99 %": "phase soak-30s, 7710490312542400483 rows, 3 of 4, file 5m.txt, 0/303D800, 99 %",
		"99999999999999999999s":                                                          "99999999999999999999s",
		"":                                                                               "",
	} {
		if got := fold.ShowUnits(text); got != want {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
}
