package fold_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/fold/foldtest"
)

var update = flag.Bool("update", false, "write the recorded histories' reports instead of comparing with them")

// TestRecordedHistoriesGiveTheirReports: byte for byte what was published with them,
// or what a later version was seen to make of them and accepted.
func TestRecordedHistoriesGiveTheirReports(t *testing.T) {
	want := map[string]verdict.Verdict{"pass": verdict.Pass, "fail": verdict.Fail, "aborted": verdict.Invalid}
	for _, rec := range foldtest.Recordings(t, ".") {
		if v := event.VerifyHistory(rec.Raws, rec.Ring); !v.Whole() || !v.Complete || v.Unknown > 0 {
			t.Errorf("%s is not whole: %+v", rec.Name, v)
		}
		r, err := fold.Fold(rec.Raws, rec.Ring)
		if err != nil {
			t.Fatalf("%s: %v", rec.Name, err)
		}
		if v, ok := want[rec.Name]; ok && r.Verdict != v {
			t.Errorf("%s: verdict %s, want %s", rec.Name, r.Verdict, v)
		}
		if r.State != fold.StateFinished || !r.Verification.Whole || len(r.Outstanding) > 0 {
			t.Errorf("%s: state %s, outstanding %q, verification %+v", rec.Name, r.State, r.Outstanding, r.Verification)
		}
		got, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join(rec.Dir, "report.json")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		recorded, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, recorded) {
			t.Errorf("%s is not what its history gives now: %s; look at the change and run go test ./fold -run Recorded -update", golden, firstDifference(got, recorded))
		}
	}
}

// firstDifference names the first line that differs.
func firstDifference(got, want []byte) string {
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(g), len(w)) {
		if !bytes.Equal(g[i], w[i]) {
			return fmt.Sprintf("line %d is %q, was %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, were %d", len(g), len(w))
}

// TestEveryAlterationOfARecordedHistoryIsFound: at each line, each thing that can be
// done to one.
func TestEveryAlterationOfARecordedHistoryIsFound(t *testing.T) {
	all := foldtest.Recordings(t, ".")
	for i, rec := range all {
		other := all[(i+1)%len(all)]
		// Signatures are verified once, and again only for what was changed.
		history := event.OpenAll(rec.Raws, rec.Ring)
		stranger := event.OpenMessage(other.Raws[1], rec.Ring)
		neighbour := event.OpenMessage(other.Raws[1], rec.Ring.Merge(other.Ring))
		found := func(what string, line int, altered []event.Opened) {
			t.Helper()
			if v := event.VerifyOpened(altered); v.Whole() && v.Complete {
				t.Errorf("%s: line %d %s: not found", rec.Name, line+1, what)
			}
		}
		for n := range history {
			rest := history[n+1:]
			with := func(instead ...event.Opened) []event.Opened {
				return slices.Concat(history[:n], instead, rest)
			}
			found("dropped", n, with())
			found("twice", n, with(history[n], history[n]))
			found("after one that no key of the keyring signed", n, with(stranger, history[n]))
			found("after another drill's", n, with(neighbour, history[n]))
			if len(rest) > 0 {
				found("swapped with the next", n, slices.Concat(history[:n], []event.Opened{rest[0], history[n]}, rest[1:]))
			}
			for what, raw := range flipped(t, history[n].Raw) {
				found(what, n, with(event.OpenMessage(raw, rec.Ring)))
			}
		}
		found("after which one of no key stands", len(history)-1, append(slices.Clone(history), stranger))
		found("after which another drill's stands", len(history)-1, append(slices.Clone(history), neighbour))
	}
}

// flipped alters one byte of an event's payload: the one in its middle, whatever it
// is, and a digit, so that it stays an event that can be read.
func flipped(t *testing.T, raw []byte) map[string][]byte {
	t.Helper()
	from := bytes.Index(raw, []byte(`"data":`)) + len(`"data":`)
	to := bytes.LastIndex(raw, []byte(`,"signature":`))
	if from < len(`"data":`) || to <= from {
		t.Fatalf("no payload in %s", raw)
	}
	middle := bytes.Clone(raw)
	middle[(from+to)/2] ^= 1
	out := map[string][]byte{"with a byte of its payload flipped": middle}
	if i := bytes.IndexAny(raw[from:to], "0123456789"); i >= 0 {
		digit := bytes.Clone(raw)
		digit[from+i] = '0' + (digit[from+i]-'0'+1)%10
		out["with a digit of its payload changed"] = digit
	}
	return out
}
