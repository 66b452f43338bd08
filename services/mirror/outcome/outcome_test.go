package outcome_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/outcome"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

func compared(what string, change func(*job.Verified)) job.Compared {
	v := job.Verified{Place: "dir:/b", Side: plan.Dest}
	v.Verdict = proof.Verdict{Level: proof.L2, Asked: proof.L2, Checked: 3}
	v.Verdict.At[proof.L2] = 3
	change(&v)
	return job.Compared{Comparison: job.Comparison{What: what, Level: proof.L2}, Shown: []job.Verified{v}}
}

// What is an alarm, and what is only not good.
func TestWhatDiffers(t *testing.T) {
	for name, c := range map[string]struct {
		change        func(*job.Verified)
		what          string
		good, differs bool
		words         string
	}{
		"nothing":              {func(*job.Verified) {}, drill.MirrorVerify, true, false, "verify at L2: destination: 3 checked"},
		"missing":              {func(v *job.Verified) { v.Verdict.Missing.Add("a", "") }, drill.MirrorVerify, false, true, "verify at L2: destination: 3 checked, 1 missing"},
		"a mode, verified":     {func(v *job.Verified) { v.Verdict.MetadataOnly.Add("a", "") }, drill.MirrorVerify, true, true, "verify at L2: destination: 3 checked, 1 with other attributes"},
		"a mode, drift":        {func(v *job.Verified) { v.Verdict.MetadataOnly.Add("a", "") }, drill.MirrorDrift, false, true, "drift at L2: destination: 3 checked, 1 with other attributes"},
		"an owner nobody sets": {func(v *job.Verified) { v.Verdict.MetadataOnly.Add("a", ""); v.Verdict.Owners, v.Disowning = 1, true }, drill.MirrorDrift, true, false, "drift at L2: destination: 3 checked, 1 with other attributes"},
		"not read yet":         {func(v *job.Verified) { v.Verdict.Low.Add("a", "never read"); v.Verdict.Level = proof.L1 }, drill.MirrorVerify, false, false, "verify at L1: destination: 3 checked, 1 checked at a lower level only"},
		"nothing there":        {func(v *job.Verified) { v.Verdict = proof.Verdict{Asked: proof.L2} }, drill.MirrorVerify, false, true, "verify at L2: nothing was checked"},
		"unreadable":           {func(v *job.Verified) { v.Verdict.Unchecked.Add("a", ""); v.Unreadable.Add("a", "") }, drill.MirrorVerify, false, true, "verify at L2: destination: 3 checked, 1 unchecked, 1 could not be read"},
	} {
		o := outcome.Of(compared(c.what, c.change), proof.Root{}, time.Second, 20)
		if o.Good != c.good || o.Differs != c.differs || o.Words() != c.words {
			t.Errorf("%s: good %v, differs %v: %s", name, o.Good, o.Differs, o.Words())
		}
		if back := o.Compared(); back.Good() != c.good || back.Differs() != c.differs {
			t.Errorf("%s: read again it is %+v", name, back)
		}
	}
}

// Two sides are two counts, and what an audit found is of neither.
func TestWordsNameTheSides(t *testing.T) {
	c := compared(drill.MirrorAudit, func(v *job.Verified) { v.Verdict.Missing.Add("a", "") })
	source := c.Shown[0]
	source.Side, source.Verdict.Missing = plan.Source, proof.Findings{}
	c.Shown = []job.Verified{source, c.Shown[0]}
	c.Audited = &job.Audited{Sides: [2]job.Verified{source, c.Shown[1]}, Rotten: []job.Rot{{Key: "b"}}}
	if got := outcome.Of(c, proof.Root{}, time.Second, 20).Words(); got != "audit at L2: source: 3 checked; destination: 3 checked, 1 missing; 1 rotten" {
		t.Errorf("it says %s", got)
	}
}

// However long names are, and however many findings, it fits into a message.
func TestAnOutcomeFitsIntoAMessage(t *testing.T) {
	c := compared(drill.MirrorAudit, func(v *job.Verified) {
		for i := range 1000 {
			key := strings.Repeat("\x1b", 800) + fmt.Sprint(i)
			for _, f := range []*proof.Findings{&v.Verdict.Missing, &v.Verdict.Extra, &v.Verdict.Different, &v.Verdict.Unchecked, &v.Verdict.Low, &v.Unreadable, &v.Verdict.Kept} {
				f.Add(key, strings.Repeat("x", 100))
			}
		}
	})
	c.Audited = &job.Audited{}
	c.Audited.Sides[plan.Dest] = c.Shown[0]
	for i := range 3000 {
		c.Audited.Rotten = append(c.Audited.Rotten, job.Rot{Key: strings.Repeat("k", 1000) + fmt.Sprint(i)})
	}
	o := outcome.Of(c, proof.Root{}, time.Second, 20)
	raw, err := json.Marshal(o)
	if err != nil || len(raw) > 400<<10 || len(raw) < 50<<10 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if o.Counts.Missing != 1000 || o.Counts.Rotten != 3000 || o.Sides[0].Missing.Count != 1000 || len(o.Sides[0].Missing.First) > 20 {
		t.Errorf("counts: %+v, %d listed", o.Counts, len(o.Sides[0].Missing.First))
	}
	if len(c.Shown[0].Verdict.Missing.First) != 1000 {
		t.Error("what was found is cut, too")
	}
}
