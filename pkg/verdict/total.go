package verdict

// Total is the drill's verdict over its phases. A FAIL anywhere is a FAIL: what
// one phase proved wrong stays wrong, however badly another was measured. Then
// INVALID beats INCONCLUSIVE beats PASS. Without phases it is INVALID: nothing
// was measured.
func Total(phases []Measurement) Verdict {
	if len(phases) == 0 {
		return Invalid
	}
	total := Pass
	for _, p := range phases {
		total = worse(total, known(p.Verdict))
	}
	return total
}

// known takes a verdict that nobody gave, such as "", for INVALID.
func known(v Verdict) Verdict {
	switch v {
	case Pass, Fail, Inconclusive:
		return v
	}
	return Invalid
}
