package fold

import (
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lazy"
)

// goDuration is a duration as Go prints it, such as 5m0s or 1.2049s, where it
// stands as a word of its own; goSpan is one of them, "> 1.2s" or "1.2s to 1.3s".
const goDuration = `(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?(?:h|m|s|ms|µs|ns)`

var goSpan = lazy.Regexp(`(^|[\s(])(> )?(` + goDuration + `)( to (` + goDuration + `))?($|[\s),;:]|\.(?:\s|$))`)

// ShowUnits writes the durations in a text that another part of firedrill made as
// the report writes its own: "5 min" for 5m0s, "1.2 s – 1.24 s" for "1.2s to
// 1.2349s", "≥ 1.38 s" for "> 1.3842s". A text without any comes back as it was.
func ShowUnits(text string) string {
	var out strings.Builder
	for {
		m := goSpan().FindStringSubmatchIndex(text)
		if m == nil {
			return out.String() + text
		}
		part := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return text[m[2*i]:m[2*i+1]]
		}
		out.WriteString(text[:m[3]] + showSpan(part(3), part(5), part(2) != ""))
		// What ends one duration may stand before the next.
		text = text[m[12]:]
	}
}

// showSpan writes the durations from and, if there is one, to.
func showSpan(from, to string, open bool) string {
	lo, err := time.ParseDuration(from)
	hi, errTo := lo, error(nil)
	if to != "" {
		hi, errTo = time.ParseDuration(to)
	}
	switch {
	case err != nil || errTo != nil: // too long for a duration
		return strings.TrimSuffix(from+" to "+to, " to ")
	case open && to == "", to != "":
		return Show(event.Interval{Lo: int64(lo), Hi: int64(hi), Open: open})
	}
	return ShowDuration(int64(lo))
}
