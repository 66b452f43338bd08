package event

import "fmt"

// Ranges is a set of sequence numbers as ascending, disjoint, inclusive pairs:
// [[1,500],[502,900]]. It keeps ledgers of any length small in events.
type Ranges [][2]int64

// Add appends seq, which must not be below the set's last member minus one run;
// callers add in ascending order. Adding the last member again changes nothing.
func (r *Ranges) Add(seq int64) {
	if n := len(*r); n > 0 {
		last := &(*r)[n-1]
		switch {
		case seq == last[1]+1:
			last[1] = seq
			return
		case seq >= last[0] && seq <= last[1]:
			return
		}
	}
	*r = append(*r, [2]int64{seq, seq})
}

// Len is the number of members.
func (r Ranges) Len() int64 {
	var n int64
	for _, p := range r {
		n += p[1] - p[0] + 1
	}
	return n
}

// Has reports whether seq is a member.
func (r Ranges) Has(seq int64) bool {
	lo, hi := 0, len(r)
	for lo < hi {
		m := (lo + hi) / 2
		switch {
		case seq < r[m][0]:
			hi = m
		case seq > r[m][1]:
			lo = m + 1
		default:
			return true
		}
	}
	return false
}

// Minus returns the members of r that are not in o.
func (r Ranges) Minus(o Ranges) Ranges {
	var out Ranges
	j := 0
	for _, p := range r {
		lo := p[0]
		for j < len(o) && o[j][1] < lo {
			j++
		}
		for k := j; k < len(o) && o[k][0] <= p[1]; k++ {
			if o[k][0] > lo {
				out = append(out, [2]int64{lo, o[k][0] - 1})
			}
			lo = max(lo, o[k][1]+1)
		}
		if lo <= p[1] {
			out = append(out, [2]int64{lo, p[1]})
		}
	}
	return out
}

// And returns the members of both sets.
func (r Ranges) And(o Ranges) Ranges { return r.Minus(r.Minus(o)) }

// Validate reports the first pair that is out of order.
func (r Ranges) Validate() error {
	for i, p := range r {
		if p[0] > p[1] || (i > 0 && p[0] <= r[i-1][1]) {
			return fmt.Errorf("ranges: pair %d [%d,%d] is not ascending and disjoint", i, p[0], p[1])
		}
	}
	return nil
}
