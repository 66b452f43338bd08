package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// Owners that nobody but root can set are one line, where nothing else differs: JSON has
// each.
func TestOwnersThatCannotBeSetAreOneLine(t *testing.T) {
	of := func(owners int64, disowning bool) []job.Verified {
		v := job.Verified{Place: "dir:/dst", Disowning: disowning}
		v.Verdict = proof.Verdict{Level: proof.L1, Asked: proof.L1, Checked: 2, Owners: owners}
		v.Verdict.MetadataOnly.Add("a", "belongs to 1:1, not 0:0")
		v.Verdict.MetadataOnly.Add("b", "belongs to 1:1, not 0:0")
		return []job.Verified{v}
	}
	const each, one = `metadata   "a": belongs to 1:1`, "metadata   2 entries of another owner or group, and nothing else"
	for _, c := range []struct {
		of         []job.Verified
		list, json bool
		want, not  string
	}{
		{of(2, true), false, false, one, each},
		{of(2, true), true, false, one, each},
		{of(1, true), false, false, each, one},
		{of(2, false), false, false, each, one},
		{of(2, true), false, true, `"ownersOnly": 2`, one},
		{of(2, true), false, true, `"detail": "belongs to 1:1, not 0:0"`, one},
	} {
		var out bytes.Buffer
		a := &app{Streams: Streams{Out: &out}}
		err := a.mirrorPrinter(&mirrorOptions{json: c.json}).verified(c.of, c.list, nil)
		if err != nil || !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), c.not) {
			t.Errorf("%+v: %v, printed\n%s", c, err, &out)
		}
	}
}

// An audit that did not come to its end says of no side what it did not see, and how it ends.
func TestAnAuditThatWasCutOffSaysHowFarItCame(t *testing.T) {
	var audited job.Audited
	audited.Sides[0] = job.Verified{Place: "dir:/src"}
	var out bytes.Buffer
	a := &app{Streams: Streams{Out: &out}}
	err := a.mirrorPrinter(&mirrorOptions{json: true}).audited(audited, &exitError{code: run.Interrupted, err: errors.New("interrupted")})
	if codeOf(err) != run.Interrupted || !strings.Contains(out.String(), `"exitCode": 130`) || strings.Count(out.String(), `"place"`) != 1 {
		t.Errorf("%v, printed\n%s", err, &out)
	}
}
