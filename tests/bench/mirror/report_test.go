package mirror

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/run"
)

func caseNamed(t *testing.T, name string) Case {
	t.Helper()
	for _, c := range Cases(false) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no case %s", name)
	return Case{}
}

// runsOf are three rounds of a contestant, whose median wall time is wall.
func runsOf(name, server, contestant string, wall, cpu, rss float64) []Run {
	var out []Run
	for i, factor := range []float64{1.5, 1, 0.9} {
		out = append(out, Run{Server: server, Case: name, Contestant: contestant, Round: i + 1, Usage: Usage{Wall: wall * factor, CPU: cpu * factor, RSS: rss}})
	}
	return out
}

func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(0, 1e6), 1, 20).Draw(t, "values")
		before := slices.Clone(values)
		s := spreadOf(values)
		if !slices.Equal(before, values) {
			t.Fatal("it changed its input")
		}
		if s.Min != slices.Min(values) || s.Max != slices.Max(values) {
			t.Fatalf("%v of %v", s, values)
		}
		below, above := 0, 0
		for _, v := range values {
			if v < s.Median {
				below++
			}
			if v > s.Median {
				above++
			}
		}
		if below > len(values)/2 || above > len(values)/2 {
			t.Fatalf("%v is not the median of %v", s.Median, values)
		}
	})
	if s := spreadOf([]float64{4, 1, 2, 3}); s.Median != 2.5 {
		t.Errorf("the median of 1 to 4 is %v", s.Median)
	}
}

func TestFloors(t *testing.T) {
	ram, tls, disk := Server{Name: "ram"}, Server{Name: "ram-tls", TLS: true}, Server{Name: "disk", Disk: true}
	for _, c := range []struct {
		name       string
		server     Server
		contestant string
		want       float64
	}{
		{"small-upload", ram, nameRclone, 4}, {"small-upload", ram, nameBest, 2}, {"small-upload", ram, nameMC, 3.5},
		{"small-upload", tls, nameMC, 3.5}, {"small-upload", disk, nameMC, 1},
		{"small-unchanged", disk, nameBest, 15}, {"small-unchanged", disk, nameMC, 20}, {"small-unchanged", ram, nameRclone, 1},
		{"small-unchanged-listing", ram, nameBest, 1}, {"small-changed", tls, nameBest, 5}, {"small-changed", ram, nameMC, 6},
		{"huge-upload", ram, nameBest, 1.8}, {"huge-upload", tls, nameBest, 1}, {"large-upload", ram, nameMC, 1.5},
		{"small-download", disk, nameMC, 2.2}, {"small-check-hash", ram, nameRclone, 1.7},
		{"million-unchanged-listing", ram, nameBest, 2}, {"million-unchanged-listing", ram, nameMC, 3},
		// The same work is a peer of its own: never slower, whatever the floor against mc.
		{"large-upload", ram, nameMCHash, 1}, {"large-upload", tls, nameMCHash, 1}, {"huge-upload", ram, nameMC, 1.5},
	} {
		if got := caseNamed(t, c.name).Floor(c.server, c.contestant); got != c.want {
			t.Errorf("%s on %s against %s: floor %v, want %v", c.name, c.server.Name, c.contestant, got, c.want)
		}
	}
}

func TestCasesOfOneSetStandTogether(t *testing.T) {
	for _, quick := range []bool{false, true} {
		seen, last := map[Set]bool{}, Set{}
		for _, c := range Cases(quick) {
			if c.Set != last && seen[c.Set] {
				t.Errorf("%s: its set would be written again", c.Name)
			}
			seen[c.Set], last = true, c.Set
		}
	}
}

func TestVerdicts(t *testing.T) {
	c := caseNamed(t, "small-upload")
	runs := slices.Concat(
		runsOf(c.Name, "ram", nameFiredrill, 2, 1, 40), runsOf(c.Name, "ram", nameRclone, 8, 5, 90), runsOf(c.Name, "ram", nameBest, 3.9, 4.9, 95),
		runsOf(c.Name, "disk", nameFiredrill, 2, 1, 40), runsOf(c.Name, "disk", nameBest, 2.1, 9, 40),
	)
	runs = append(runs, Run{Server: "ram", Case: c.Name, Contestant: nameMC, Round: 1, Failure: "it fell"})
	rows := Rows(Cases(false), Servers(), runs)
	if len(rows) != 2 || rows[0].Server.Name != "ram" || rows[1].Server.Name != "disk" {
		t.Fatalf("rows %+v", rows)
	}
	var got []string
	for _, r := range rows {
		for _, v := range r.Verdicts() {
			got = append(got, fmt.Sprintf("%s %.2f of %g: %t", v.Name, v.Value, v.Goal, v.Reached()))
		}
	}
	want := []string{
		"mirror/ram/small-upload/wall-vs-rclone 4.00 of 4: true", "mirror/ram/small-upload/cpu-vs-rclone 5.00 of 5: true",
		"mirror/ram/small-upload/wall-vs-rclone-best 1.95 of 2: false", "mirror/ram/small-upload/cpu-vs-rclone-best 4.90 of 5: false",
		"mirror/disk/small-upload/wall-vs-rclone-best 1.05 of 1: true", "mirror/disk/small-upload/cpu-vs-rclone-best 9.00 of 5: true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMCAndHashesRaceLargeFilesOnly(t *testing.T) {
	for _, quick := range []bool{false, true} {
		var got []string
		for _, c := range Cases(quick) {
			if c.takes(nameMCHash) {
				got = append(got, c.Name)
			}
			if c.takes(nameMC) != (c.Without[nameMC] == "") {
				t.Errorf("%s: mc takes part: %t", c.Name, c.takes(nameMC))
			}
		}
		if want := []string{"huge-upload", "huge-download", "large-upload", "large-download"}; !slices.Equal(got, want) {
			t.Errorf("it takes part in %v, want %v", got, want)
		}
	}
}

func TestNormalRacesOnlyWhereItIsNamed(t *testing.T) {
	for list, want := range map[string][]string{
		"":           {nameFiredrill, nameRclone, nameBest, nameMC, nameMCHash},
		"firedrill*": {nameFiredrill, nameNormal},
	} {
		o, err := settings{contestants: list}.options(io.Discard)
		must(t, err)
		var got []string
		for _, r := range o.Runners {
			got = append(got, r.Name())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q races %v, want %v", list, got, want)
		}
	}
}

func TestVerdictsWhenFiredrillFails(t *testing.T) {
	c := caseNamed(t, "million-unchanged")
	runs := slices.Concat(runsOf(c.Name, "ram", nameFiredrill, 1, 1, 63), runsOf(c.Name, "ram", nameBest, 30, 1, 63))
	row := Rows(Cases(false), Servers(), runs)[0]
	v := row.Verdicts()
	if len(v) != 2 || !v[0].Reached() || v[1].Name != "mirror/ram/million-unchanged/planner-rss" || v[1].Value != 63 || !v[1].Reached() {
		t.Errorf("got %+v", v)
	}
	runs[1].Failure = "it fell"
	v = Rows(Cases(false), Servers(), runs)[0].Verdicts()
	if len(v) != 1 || v[0].Reached() {
		t.Errorf("after a failure got %+v", v)
	}
}

func exampleRecord() Record {
	c := "small-upload"
	return Record{
		Machine: Machine{Cores: 2, MemoryGiB: 23.4, Kernel: "6.1", Arch: "amd64", Rounds: 3, Programs: map[string]string{"mc": "v0.1"}},
		Runs: slices.Concat(
			runsOf(c, "ram", nameFiredrill, 2, 0.5, 40), runsOf(c, "ram", nameRclone, 8, 5, 90), runsOf(c, "ram", nameMC, 6.99, 5, 30),
			[]Run{{Server: "ram", Case: c, Contestant: nameBest, Round: 1, Failure: "it <fell>\nand | broke"}},
			runsOf("million-upload", "ram", nameFiredrill, 100, 50, 97.2),
		),
	}
}

func TestRecordIsReadAsWritten(t *testing.T) {
	want := exampleRecord()
	var b bytes.Buffer
	must(t, writeMachine(&b, want.Machine))
	for _, r := range want.Runs {
		must(t, writeRun(&b, r))
	}
	got, err := ReadRecord(bytes.NewReader(b.Bytes()))
	must(t, err)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	lines := strings.SplitAfter(b.String(), "\n")
	for what, text := range map[string]string{
		"empty": "", "no machine": strings.Join(lines[1:], ""), "no run": lines[0], "two machines": lines[0] + b.String(),
		"torn": b.String()[:b.Len()-5], "neither": lines[0] + "{}\n",
	} {
		if _, err := ReadRecord(strings.NewReader(text)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add([]byte(`{"machine":{"cores":2}}` + "\n" + `{"run":{"case":"small-upload","server":"ram","contestant":"mc","wall_s":1e308}}`))
	f.Add([]byte(`{"machine":{}}` + "\n" + `{"run":{"case":"million-upload","server":"ram","contestant":"firedrill","wall_s":-1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		record, err := ReadRecord(bytes.NewReader(raw))
		if err != nil {
			return
		}
		rows := Rows(Cases(record.Machine.Quick), Servers(), record.Runs)
		if err := errors.Join(writeReport(io.Discard, record.Machine, rows), writeChart(io.Discard, rows)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReport(t *testing.T) {
	record := exampleRecord()
	var b strings.Builder
	must(t, writeReport(&b, record.Machine, Rows(Cases(false), Servers(), record.Runs)))
	for _, want := range []string{
		"2 cores (amd64), 23 GiB of memory, Linux 6.1; 3 rounds. mc: v0.1.\n",
		"3 of 5 floors and bounds were reached.\n",
		"- mirror/ram/million-upload/worker-rss: 97.2 MiB, floor 96\n",
		"- mirror/ram/small-upload/wall-vs-mc: 3.5 x, floor 3.5\n",
		"- small-upload, ram, rclone-best: FAILED: it <fell> and | broke\n",
		"## 20,000 files of 4 KiB\n",
		"| first upload | ram | 2.00 (1.80-3.00) / 0.500 / 40 | 8.00 (7.20-12.00) / 5.00 / 90 | FAILED | 6.99 (6.29-10.48) / 5.00 / 30 | " +
			"4.00x (floor 4) reached<br>CPU 10.0x (floor 5) reached | - | 3.50x (floor 3.5) **MISSED**<br>CPU 10.0x (floor 5) reached | - |\n",
		"| first upload | ram | 100.00 (90.00-150.00) / 50.00 / 97 | - | - | - | - | - | - | 97 MiB (at most 96) **MISSED** |\n",
		"- first upload: mc takes no part: minutes for each run",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, b.String())
		}
	}
}

// A record from before it took part, or of other cases, is shown as if it did not exist.
func TestReportShowsMCAndHashesWhereTheyTookPart(t *testing.T) {
	record := exampleRecord()
	for _, name := range []string{"large-upload", "large-download"} {
		record.Runs = slices.Concat(record.Runs, runsOf(name, "ram-tls", nameFiredrill, 4, 2, 40), runsOf(name, "ram-tls", nameMC, 3, 1, 30))
	}
	without := reportAndChart(t, record)
	if strings.Contains(without, "mc + hash |") || strings.Contains(without, "vs mc + hash") {
		t.Errorf("nobody raced as mc + hash:\n%s", without)
	}
	record.Runs = append(record.Runs, runsOf("large-upload", "ram-tls", nameMCHash, 5, 3, 50)...)
	with := reportAndChart(t, record)
	for _, want := range []string{
		"| Case | Server | firedrill | rclone | rclone best | mc | vs rclone | vs rclone best | vs mc | Bounds |\n|---|---|---|---|---|---|---|---|---|---|\n| first upload | ram | 2.00",
		"| Case | Server | firedrill | rclone | rclone best | mc | mc + hash | vs rclone | vs rclone best | vs mc | vs mc + hash | Bounds |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
		"| first upload | ram-tls | 4.00 (3.60-6.00) / 2.00 / 40 | - | - | 3.00 (2.70-4.50) / 1.00 / 30 | 5.00 (4.50-7.50) / 3.00 / 50 | - | - | 0.75x (floor 1) **MISSED** | 1.25x (floor 1) reached | - |\n",
		"- mirror/ram-tls/large-upload/wall-vs-mc: 0.75 x, floor 1\n",
		"| - | - | 0.75x (floor 1) **MISSED** | - | - |\n",
		`<text x="322" y="42">vs mc + hash</text>`,
		`fill="#009e73"><title>mc + hash 1.25x</title>`,
	} {
		if !strings.Contains(with, want) {
			t.Errorf("the report and its chart have no %q:\n%s", want, with)
		}
	}
}

func reportAndChart(t *testing.T, record Record) string {
	t.Helper()
	var b strings.Builder
	rows := Rows(Cases(false), Servers(), record.Runs)
	must(t, errors.Join(writeReport(&b, record.Machine, rows), writeChart(&b, rows)))
	return b.String()
}

func TestChartIsWellFormed(t *testing.T) {
	record := exampleRecord()
	for name, rows := range map[string][]Row{"some": Rows(Cases(false), Servers(), record.Runs), "none": nil} {
		var b bytes.Buffer
		must(t, writeChart(&b, rows))
		dots, d := 0, xml.NewDecoder(&b)
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
				dots++
			}
		}
		// Three of the legend, and two contestants beside firedrill did not fail.
		if want := 3 + 2*min(len(rows), 1); dots != want {
			t.Errorf("%s: %d dots, want %d", name, dots, want)
		}
	}
}

func TestChoose(t *testing.T) {
	self := func(s string) string { return s }
	all := []string{"small-upload", "small-download", "huge-upload"}
	for list, want := range map[string][]string{
		"": all, "*-upload": {"small-upload", "huge-upload"}, "huge-upload,small-*": all,
	} {
		got, err := choose(all, self, list, "case")
		must(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("%q chooses %v", list, got)
		}
	}
	for _, list := range []string{"smal", "small-upload,", "[", "huge-upload,nothing"} {
		if got, err := choose(all, self, list, "case"); err == nil {
			t.Errorf("%q chooses %v", list, got)
		}
	}
}

func TestNoSecretIsAnArgument(t *testing.T) {
	for _, r := range Contestants() {
		for _, w := range []Work{Upload, Unchanged, Changed, Download, CheckHash, CheckContent} {
			var args, env []string
			for _, s := range r.Steps(Task{Work: w, Look: "state", Endpoint: "https://127.0.0.1:1", Bucket: "b", Tree: "/t", Dest: "/d", State: "/s", AccessKey: "somebody", SecretKey: "hunter2"}) {
				args, env = append(args, s.Args...), append(env, s.Env...)
			}
			if strings.Contains(strings.Join(args, " "), "hunter2") {
				t.Errorf("%s %s has the secret among its arguments, where all users of the machine see it", r.Name(), w)
			}
			if !strings.Contains(strings.Join(env, " "), "hunter2") {
				t.Errorf("%s %s does not get the secret", r.Name(), w)
			}
		}
	}
}

func TestCommandMistakes(t *testing.T) {
	empty := t.TempDir()
	for want, args := range map[string][]string{
		"has no program firedrill, rclone, mc": {"-bin", empty},
		"there is no case":                     {"-bin", empty, "-only", "million-upload"},
		"there is no contestant":               {"-contestants", "s5cmd"},
		"there is no server":                   {"-servers", "ram,tape"},
		"-runs of 1 or more":                   {"-runs", "0"},
		"it takes flags only":                  {"small-upload"},
	} {
		var errs strings.Builder
		code := Command(t.Context(), args, nil, io.Discard, &errs)
		if code != run.BadArguments || !strings.Contains(errs.String(), want) {
			t.Errorf("%v: code %d, %s", args, code, errs.String())
		}
	}
	var errs strings.Builder
	if code := Command(t.Context(), []string{"-render", "-out", empty, "-docs", empty}, nil, io.Discard, &errs); code != run.Fail || !strings.Contains(errs.String(), "race first") {
		t.Errorf("code %d, %s", code, errs.String())
	}
}
