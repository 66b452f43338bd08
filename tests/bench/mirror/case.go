// Package mirror races firedrill's mirror against rclone and mc: the same work on
// the same MinIO, each run a process of its own, taking turns within one go, and
// no run counts whose result was not looked at.
package mirror

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Work is what a contestant has to do in a case.
type Work string

// The kinds of work. None of them lets anybody delete anything.
const (
	// Upload copies a tree into an empty bucket.
	Upload Work = "upload"
	// Unchanged is the same call again, when nothing was touched.
	Unchanged Work = "unchanged"
	// Changed is the same call again, after one file in a hundred was rewritten.
	Changed Work = "changed"
	// Download copies what the same contestant has uploaded into an empty directory.
	Download Work = "download"
	// CheckHash compares both sides by their hashes, without fetching objects.
	CheckHash Work = "check-hash"
	// CheckContent compares both sides by reading all objects.
	CheckContent Work = "check-content"
)

// Set is a tree of files of one size with random content.
type Set struct {
	Name        string
	Files, Dirs int
	// Size is that of each file, in bytes.
	Size int64
}

// Server is a kind of MinIO server.
type Server struct {
	Name      string
	Disk, TLS bool
}

// Case is one race.
type Case struct {
	Name, Title string
	Set         Set
	Work        Work
	// Look is firedrill's --check: whether it trusts its state or lists the bucket.
	Look string
	// Floors are how many times faster than each contestant firedrill should be;
	// where a contestant has none, it is 1: never slower.
	Floors map[string]float64
	// CPU is how many times less processor time it should take than each of them;
	// 0 is no promise.
	CPU float64
	// PlainOnly keeps the floors to plain HTTP: without TLS the others hash each
	// body for its signature, with TLS they do not.
	PlainOnly bool
	// Writes keeps the floors of the wall time to servers in memory: one disk makes
	// all alike.
	Writes bool
	// RSS are the bounds of firedrill's memory in MiB, by what is bounded.
	RSS map[string]float64
	// Without says why a contestant does not take part.
	Without map[string]string
	// Hashed marks cases in which "mc + hash" takes part as well: with large files it
	// is hashing that counts, and mc alone does less of it.
	Hashed bool
	// Million marks cases that take long and run only where they are asked for.
	Million bool
}

// Floor is how many times faster than the contestant firedrill should be on s.
func (c Case) Floor(s Server, contestant string) float64 {
	f, promised := c.Floors[contestant]
	if !promised || c.PlainOnly && s.TLS || c.Writes && s.Disk {
		return 1
	}
	return f
}

// takes reports whether a contestant takes part.
func (c Case) takes(name string) bool {
	return c.Without[name] == "" && (c.Hashed || name != nameMCHash)
}

// shares reports whether all contestants work on one bucket that firedrill, or
// else the first of them, has filled: filling one for each would take too long.
func (c Case) shares() bool { return c.Million && c.Work != Upload }

// Servers are all kinds of servers.
func Servers() []Server {
	return []Server{
		{Name: "ram"}, {Name: "ram-tls", TLS: true},
		{Name: "disk", Disk: true}, {Name: "disk-tls", Disk: true, TLS: true},
	}
}

// sets are the trees, or much smaller ones, which only show that all of it works.
type sets struct{ small, huge, large, million Set }

func newSets(quick bool) sets {
	if quick {
		return sets{
			small:   Set{"small", 500, 5, 4 << 10},
			huge:    Set{"huge", 1, 1, 256 << 20},
			large:   Set{"large", 8, 2, 8 << 20},
			million: Set{"million", 5000, 10, 1 << 10},
		}
	}
	return sets{
		small:   Set{"small", 20_000, 200, 4 << 10},
		huge:    Set{"huge", 1, 1, 2 << 30},
		large:   Set{"large", 200, 4, 8 << 20},
		million: Set{"million", 1_000_000, 1000, 1 << 10},
	}
}

// Cases are all cases, those of one set together, in the order in which they run.
func Cases(quick bool) []Case {
	s := newSets(quick)
	return slices.Concat(smallCases(s.small), largeCases(s), millionCases(s.million))
}

func smallCases(set Set) []Case {
	const d, b, m = nameRclone, nameBest, nameMC
	noHash := map[string]string{m: "mc compares sizes and times only"}
	return []Case{
		{Name: "small-upload", Title: "first upload", Set: set, Work: Upload, Writes: true, Floors: map[string]float64{d: 4, b: 2, m: 3.5}, CPU: 5},
		{Name: "small-unchanged", Title: "no change, by state", Set: set, Work: Unchanged, Look: "state", Floors: map[string]float64{b: 15, m: 20}},
		{Name: "small-unchanged-listing", Title: "no change, full listing", Set: set, Work: Unchanged, Look: "listing"},
		{Name: "small-changed", Title: "1 % changed", Set: set, Work: Changed, Look: "state", Floors: map[string]float64{b: 5, m: 6}},
		{Name: "small-download", Title: "download", Set: set, Work: Download, Floors: map[string]float64{b: 1.4, m: 2.2}},
		{Name: "small-check-hash", Title: "check by hash", Set: set, Work: CheckHash, Floors: map[string]float64{d: 1.7, b: 1.7}, Without: noHash},
		{Name: "small-check-content", Title: "check by reading all", Set: set, Work: CheckContent, Without: noHash},
	}
}

func largeCases(s sets) []Case {
	const b, m = nameBest, nameMC
	return []Case{
		{Name: "huge-upload", Title: "first upload", Set: s.huge, Work: Upload, Hashed: true, Writes: true, PlainOnly: true, Floors: map[string]float64{b: 1.8, m: 1.5}},
		{Name: "huge-download", Title: "download", Set: s.huge, Work: Download, Hashed: true},
		{Name: "large-upload", Title: "first upload", Set: s.large, Work: Upload, Hashed: true, Writes: true, PlainOnly: true, Floors: map[string]float64{b: 2, m: 1.5}},
		{Name: "large-download", Title: "download", Set: s.large, Work: Download, Hashed: true},
	}
}

func millionCases(set Set) []Case {
	const d, b, m = nameRclone, nameBest, nameMC
	long := "minutes for each run: see the upload of fewer files"
	head := map[string]string{d: "minutes for each run: a HEAD for every object"}
	planner := map[string]float64{"planner": 64}
	return []Case{
		{Name: "million-upload", Title: "first upload", Set: set, Work: Upload, Million: true,
			RSS: map[string]float64{"worker": 96}, Without: map[string]string{d: long, b: long, m: long}},
		{Name: "million-unchanged", Title: "no change, by state", Set: set, Work: Unchanged, Look: "state", Million: true,
			Floors: map[string]float64{b: 15, m: 20}, RSS: planner, Without: head},
		{Name: "million-unchanged-listing", Title: "no change, full listing", Set: set, Work: Unchanged, Look: "listing", Million: true,
			Floors: map[string]float64{b: 2, m: 3}, RSS: planner, Without: head},
	}
}

// Describe names the set for people.
func (s Set) Describe() string {
	size := fmt.Sprintf("%d KiB", s.Size>>10)
	switch {
	case s.Size >= 1<<30:
		size = fmt.Sprintf("%d GiB", s.Size>>30)
	case s.Size >= 1<<20:
		size = fmt.Sprintf("%d MiB", s.Size>>20)
	}
	if s.Files == 1 {
		return "one file of " + size
	}
	return fmt.Sprintf("%s files of %s", thousands(s.Files), size)
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// choose gives those of all whose names fit one of the patterns of a comma-separated
// list, in the order of all; every pattern has to fit something.
func choose[T any](all []T, name func(T) string, list, what string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	var out []T
	patterns := strings.Split(list, ",")
	fits := func(pattern string, v T) bool {
		ok, err := path.Match(pattern, name(v))
		return ok && err == nil
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(all, func(v T) bool { return fits(p, v) }) {
			var names []string
			for _, v := range all {
				names = append(names, name(v))
			}
			return nil, fmt.Errorf("there is no %s %q; there are %s", what, p, strings.Join(names, ", "))
		}
	}
	for _, v := range all {
		if slices.ContainsFunc(patterns, func(p string) bool { return fits(p, v) }) {
			out = append(out, v)
		}
	}
	return out, nil
}
