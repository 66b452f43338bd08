package mirror

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// chartFile is the name of the chart beside the report.
const chartFile = "mirror-bench.svg"

// writeReport writes the tables as Markdown.
func writeReport(w io.Writer, m Machine, rows []Row) error {
	var b strings.Builder
	b.WriteString("# The mirror against rclone and mc\n\n")
	b.WriteString("Written by `make bench-mirror`, which builds rclone and mc from their Go modules and runs all of this in one go; `out/bench/mirror/runs.jsonl` has each run.\n\n")
	if m.Quick {
		b.WriteString("**A quick run on small trees: it shows that the race works, and nothing about who is faster.**\n\n")
	}
	machineText(&b, m)
	summary(&b, rows)
	fmt.Fprintf(&b, "![How many times faster firedrill is in each case](%s)\n\n", chartFile)
	for len(rows) > 0 {
		set := rows[0].Case.Set
		n := slices.IndexFunc(rows, func(r Row) bool { return r.Case.Set != set })
		if n < 0 {
			n = len(rows)
		}
		table(&b, rows[:n])
		rows = rows[n:]
	}
	b.WriteString(rules)
	_, err := io.WriteString(w, b.String())
	return err
}

// rules are what a reader needs in order to trust, or doubt, the tables.
const rules = `## How it is measured
- Each run is a process of its own, measured from its start to its end with all that it starts. The contestants take turns, and who comes first changes with each round. The figures are medians with the range of the wall time, and the highest peak of memory.
- Server, client and measurement share the machine's cores. "ram" servers keep their data in memory, "disk" servers on a disk; "-tls" ones speak HTTPS. Source trees lie on the disk and are in the page cache; downloads go to where the server's data is. Before each run everything is written out, and twice as much memory as the files have is touched, and a gigabyte, as far as it is free, because a virtual machine's host may have taken it back.
- Content is random, and the same on every machine. A first upload goes to a new, empty bucket, without any state. The other cases work on a bucket that the same contestant filled; with a million files, which are tried on the plain server in memory only, all work on the one that firedrill filled.
- A run counts only if its result is right: after an upload another client lists the bucket and compares names, sizes and MD5 with the source, and reads once what has no MD5; a download is read and compared; where nothing changed, nothing may have been written; a check must have found one flipped bit, in a run that is not measured. None of the contestants deletes anything.
- "rclone" is called as it comes, "rclone best" with the flags that were fastest in each case: ` + "`--transfers 32 --checkers 32 --s3-no-head --s3-use-unsigned-payload=true`" + `, ` + "`--s3-chunk-size 32M --s3-upload-concurrency 4`" + ` for large files, ` + "`--update --use-server-modtime`" + ` where it looks for changes, ` + "`--fast-list`" + ` everywhere else, ` + "`--s3-no-head-object`" + ` for downloads and checks that read all. mc is called as ` + "`mc mirror --overwrite`" + `. firedrill keeps the defaults, one of which is that it runs as batch work (ADR 20).
- "mc + hash" is the same work with large files, where hashing is what counts (ADR 21): firedrill hashes all that it copies with BLAKE3, mc nothing but what TLS or a signature needs. It is the same call of mc, and then ` + "`rclone hashsum blake3`" + ` of the local files, an upload's source or what a download has written; both count as one run, with the sum of their times and the larger memory, and the hashes have to be right. It reads the files a second time, from the page cache, and lacks the CRC32C and the signed manifest that firedrill makes besides. Its floor is 1, beside those against mc alone.
- By state, firedrill does not look at the bucket, as the others do; with the full listing it does.
- Floors of first uploads hold for servers in memory, since one disk makes all alike, and those of large files for plain HTTP, where the others hash each body for its signature. Everywhere else the floor is 1: never slower.
- The memory of a process that starts a program counts as the program's at first: no figure is below about 17 MiB.
`

func machineText(b *strings.Builder, m Machine) {
	fmt.Fprintf(b, "%d cores (%s), %.0f GiB of memory, Linux %s; %d rounds.", m.Cores, m.Arch, m.MemoryGiB, m.Kernel, m.Rounds)
	for _, p := range slices.Sorted(maps.Keys(m.Programs)) {
		fmt.Fprintf(b, " %s: %s.", p, m.Programs[p])
	}
	b.WriteString("\n\n")
}

// summary counts the promises and names those that were not kept.
func summary(b *strings.Builder, rows []Row) {
	var missed []string
	all := 0
	for _, r := range rows {
		for name, s := range r.Scores {
			if s.Failure != "" {
				missed = append(missed, fmt.Sprintf("%s, %s, %s: FAILED: %s", r.Case.Name, r.Server.Name, name, oneLine(s.Failure)))
			}
		}
		for _, v := range r.Verdicts() {
			all++
			if !v.Reached() {
				missed = append(missed, fmt.Sprintf("%s: %.3g %s, floor %.3g", v.Name, v.Value, v.Unit, v.Goal))
			}
		}
	}
	if all == 0 {
		b.WriteString("firedrill took no part: there is nothing to compare with.\n\n")
	} else {
		kept := 0
		for _, r := range rows {
			for _, v := range r.Verdicts() {
				if v.Reached() {
					kept++
				}
			}
		}
		fmt.Fprintf(b, "%d of %d floors and bounds were reached.\n\n", kept, all)
	}
	slices.Sort(missed)
	for _, m := range missed {
		fmt.Fprintf(b, "- %s\n", m)
	}
	if len(missed) > 0 {
		b.WriteString("\n")
	}
}

// shown are the names of the contestants that rows are shown for, firedrill's first:
// those that take part everywhere, and of the others those that did.
func shown(rows []Row) []string {
	var names []string
	for _, c := range Contestants() {
		took := func(r Row) bool { _, took := r.Scores[c.Name()]; return took }
		if everywhere(c.Name()) || slices.ContainsFunc(rows, took) {
			names = append(names, c.Name())
		}
	}
	return names
}

// table shows rows of one set.
func table(b *strings.Builder, rows []Row) {
	fmt.Fprintf(b, "## %s\n", titled(rows[0].Case.Set.Describe()))
	b.WriteString("Wall s (range) / client's CPU s / peak MiB; then how many times faster firedrill is, with the floor.\n\n")
	b.WriteString("| Case | Server |")
	names := shown(rows)
	for _, name := range names {
		fmt.Fprintf(b, " %s |", label(name))
	}
	for _, name := range names[1:] {
		fmt.Fprintf(b, " vs %s |", label(name))
	}
	b.WriteString(" Bounds |\n|---|---|" + strings.Repeat("---|", 2*len(names)) + "\n")
	notes := map[string]bool{}
	for _, r := range rows {
		tableRow(b, names, r)
		for name, why := range r.Case.Without {
			notes[fmt.Sprintf("%s: %s takes no part: %s.", r.Case.Title, label(name), why)] = true
		}
	}
	b.WriteString("\n")
	for _, n := range slices.Sorted(maps.Keys(notes)) {
		fmt.Fprintf(b, "- %s\n", n)
	}
	if len(notes) > 0 {
		b.WriteString("\n")
	}
}

func tableRow(b *strings.Builder, names []string, r Row) {
	fmt.Fprintf(b, "| %s | %s |", r.Case.Title, r.Server.Name)
	for _, name := range names {
		s, took := r.Scores[name]
		fmt.Fprintf(b, " %s |", s.text(took))
	}
	verdicts := r.Verdicts()
	for _, name := range names[1:] {
		var cells []string
		for _, v := range verdicts {
			if v.Against == name {
				cells = append(cells, v.text())
			}
		}
		fmt.Fprintf(b, " %s |", orDash(cells))
	}
	var bounds []string
	for _, v := range verdicts {
		if v.Against == "" {
			bounds = append(bounds, v.text())
		}
	}
	fmt.Fprintf(b, " %s |\n", orDash(bounds))
}

func (s Score) text(took bool) string {
	switch {
	case !took:
		return "-"
	case s.Failure != "":
		return "FAILED"
	}
	return fmt.Sprintf("%s (%s-%s) / %s / %.0f", seconds(s.Wall.Median), seconds(s.Wall.Min), seconds(s.Wall.Max), seconds(s.CPU.Median), s.RSS.Max)
}

func (v Verdict) text() string {
	said := "reached"
	if !v.Reached() {
		said = "**MISSED**"
	}
	switch {
	case v.Better == "lower":
		return fmt.Sprintf("%.0f MiB (at most %.0f) %s", v.Value, v.Goal, said)
	case v.CPU:
		return fmt.Sprintf("CPU %.1fx (floor %.3g) %s", v.Value, v.Goal, said)
	}
	return fmt.Sprintf("%sx (floor %.3g) %s", times(v.Value), v.Goal, said)
}

// times shows a ratio so that one just below its floor is not rounded up to it.
func times(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func seconds(v float64) string {
	if v < 1 {
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func orDash(cells []string) string {
	if len(cells) == 0 {
		return "-"
	}
	return strings.Join(cells, "<br>")
}

// label is a contestant's name for people.
func label(name string) string {
	if name == nameMCHash {
		return "mc + hash"
	}
	return strings.ReplaceAll(name, "-", " ")
}

func titled(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// oneLine keeps a program's words from breaking a list, and short.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > 300 {
		s = string(runes[:300]) + "…"
	}
	return s
}
