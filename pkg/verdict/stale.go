package verdict

import (
	"cmp"
	"fmt"
	"slices"
)

// StaleReads counts the reader's ok reads that missed a write acknowledged
// before they began. lanes are the phase's, in any order; the reader may be
// among them. A read shows the newest canary alone, so what it proves is that
// the newest write was there: older ones may be gone, which only the ledger tells.
//
// The writes are those of the pooled lane of the probe that reader.Reads names,
// of the reader's epoch; drivers read that lane's canaries on either lane.
// Without a name it is the only pooled write lane of the same target and epoch.
//
// When nothing can be said, n is -1 and why a clause that says the reason;
// otherwise why is empty. The lanes are not changed and need not be valid.
func StaleReads(reader Lane, lanes []Lane) (n int64, why string) {
	source, why := readSource(reader, lanes)
	if why != "" {
		return -1, why
	}
	if !slices.ContainsFunc(reader.Attempts, func(a Attempt) bool { return a.Outcome == OK }) {
		return -1, "no read was ok"
	}
	acked := make([]Attempt, 0, len(source.Attempts))
	for _, a := range source.Attempts {
		if a.Outcome == OK {
			acked = append(acked, a)
		}
	}
	slices.SortStableFunc(acked, func(x, y Attempt) int { return cmp.Compare(x.Completed, y.Completed) })
	newest := make([]int64, len(acked))
	for i, a := range acked {
		newest[i] = a.Seq
		if i > 0 {
			newest[i] = max(a.Seq, newest[i-1])
		}
	}
	for _, r := range reader.Attempts {
		if r.Outcome != OK {
			continue
		}
		i, _ := slices.BinarySearchFunc(acked, r.Started, func(a Attempt, t int64) int { return cmp.Compare(a.Completed, t) })
		if i > 0 && r.Observed < newest[i-1] {
			n++
		}
	}
	return n, ""
}

// readSource is the write lane whose canaries the reader read, or why it is not
// known.
func readSource(reader Lane, lanes []Lane) (*Lane, string) {
	var source *Lane
	for i := range lanes {
		l := &lanes[i]
		if l.Kind != kindWrite || l.Name != lanePooled || l.Epoch != reader.Epoch {
			continue
		}
		if reader.Reads != "" && l.Probe != reader.Reads || reader.Reads == "" && l.Target != reader.Target {
			continue
		}
		if source != nil {
			return nil, fmt.Sprintf("it is not known whether the writes of %s or those of %s were read", source.Probe, l.Probe)
		}
		source = l
	}
	switch {
	case source != nil:
		return source, ""
	case reader.Reads != "":
		return nil, fmt.Sprintf("the writes of %s, which were read, are not known", reader.Reads)
	}
	return nil, "it is not known whose writes were read"
}
