package render

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

type suites struct {
	XMLName  xml.Name `xml:"testsuites"`
	Name     string   `xml:"name,attr"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Errors   int      `xml:"errors,attr"`
	Time     string   `xml:"time,attr"`
	Suites   []suite  `xml:"testsuite"`
}

type suite struct {
	Name       string     `xml:"name,attr"`
	Tests      int        `xml:"tests,attr"`
	Failures   int        `xml:"failures,attr"`
	Errors     int        `xml:"errors,attr"`
	Skipped    int        `xml:"skipped,attr"`
	Time       string     `xml:"time,attr"`
	Timestamp  string     `xml:"timestamp,attr,omitempty"`
	Properties []property `xml:"properties>property,omitempty"`
	Cases      []testcase `xml:"testcase"`
}

type property struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type testcase struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    string   `xml:"time,attr"`
	Failure *outcome `xml:"failure,omitempty"`
	Error   *outcome `xml:"error,omitempty"`
	Out     string   `xml:"system-out,omitempty"`
}

type outcome struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the report as JUnit XML: a suite a phase, or one for a settlement,
// with a case for every judgement and every property of a check. What failed is a failure; what could
// not be decided, and what is not valid, is an error.
func JUnit(r fold.Report) ([]byte, error) {
	all := suites{Name: r.ID, Time: seconds(r.Duration)}
	var each []suite
	for _, p := range r.Phases {
		each = append(each, phaseSuite(r, p))
	}
	if r.Settlement != nil {
		each = append(each, settlementSuite(r))
	}
	for _, s := range each {
		all.Tests, all.Failures, all.Errors = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors
		all.Suites = append(all.Suites, s)
	}
	b, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("report of drill %s as JUnit XML: %w", r.ID, err)
	}
	return append([]byte(xml.Header), append(b, '\n')...), nil
}

func phaseSuite(r fold.Report, p fold.Phase) suite {
	s := suite{Name: p.Name, Time: seconds(p.Duration), Properties: []property{{"drill", r.ID}, {"verdict", status(p.Verdict)}, {"title", clean(p.Title)}}}
	if !p.Started.IsZero() {
		s.Timestamp = p.Started.UTC().Format("2006-01-02T15:04:05")
	}
	class := r.Name + "." + p.Name
	for _, x := range p.Results {
		c := testcase{Class: class, Name: "objective: " + fold.Subject(x.Of), Time: "0", Out: clean(fmt.Sprintf("objective %s, achieved %s", x.Objective, x.Achieved))}
		if x.Of == verdict.OfRTO && len(p.Recovery) > 0 {
			c.Time = seconds(p.Recovery[0].Achieved.Hi)
		}
		c.judge(x.Verdict, x.Why)
		s.add(c)
	}
	s.checks(class, p.Checks)
	if len(s.Cases) == 0 {
		c := testcase{Class: class, Name: "phase", Time: "0"}
		c.judge(verdict.Inconclusive, "the phase has not been judged: it is "+p.State)
		s.add(c)
	}
	return s
}

// settlementSuite has a case for every step that was to be undone.
func settlementSuite(r fold.Report) suite {
	x := r.Settlement
	s := suite{Name: "settlement", Time: seconds(r.Duration), Timestamp: r.Accepted.UTC().Format("2006-01-02T15:04:05"),
		Properties: []property{{"drill", r.ID}, {"settles", r.Settles}, {"verdict", status(r.Verdict)}, {"title", clean(r.Title)}}}
	class := r.Name + ".settlement"
	for _, u := range x.Undos {
		c := testcase{Class: class, Name: "undo: " + u.Step, Time: seconds(u.Took), Out: clean(fmt.Sprintf("%s, tries: %d", u.Status, u.Tries))}
		switch {
		case u.Status == "done":
			c.judge(verdict.Pass, "")
		case r.State == fold.StateRunning:
			c.judge(verdict.Inconclusive, "the settlement is running")
		default:
			c.judge(verdict.Fail, u.Step+" is still in effect"+suffixIf(strings.Join(u.Reasons, "\n"), "\n%s"))
		}
		s.add(c)
	}
	for _, k := range x.Results {
		c := testcase{Class: class, Name: "objective: " + fold.Subject(k.Of), Time: "0", Out: clean(fmt.Sprintf("objective %s, achieved %s", k.Objective, k.Achieved))}
		c.judge(k.Verdict, k.Why)
		s.add(c)
	}
	return s
}

// checks adds a case for every property that was judged.
func (s *suite) checks(class string, ks []fold.CheckRun) {
	for _, k := range ks {
		for _, q := range k.Properties {
			if q.Result == event.ResultInfo {
				continue
			}
			c := testcase{Class: class, Name: fmt.Sprintf("check (%s): %s: %s", k.When, k.Check, q.Name), Time: seconds(k.Took), Out: clean("found " + q.Found)}
			why := q.Found + suffixIf(q.Wanted, "; wanted %s") + suffixIf(strings.Join(q.Samples, "\n"), "\n%s")
			switch q.Result {
			case event.ResultPass:
			case event.ResultFail:
				c.judge(verdict.Fail, why)
			default:
				c.judge(verdict.Inconclusive, why)
			}
			s.add(c)
		}
	}
}

func (c *testcase) judge(v verdict.Verdict, why string) {
	c.Name = clean(c.Name)
	o := &outcome{Message: clean(strings.SplitN(why, "\n", 2)[0]), Type: string(v), Text: clean(why)}
	switch v {
	case verdict.Pass:
	case verdict.Fail:
		c.Failure = o
	default:
		c.Error = o
	}
}

func (s *suite) add(c testcase) {
	s.Tests++
	if c.Failure != nil {
		s.Failures++
	}
	if c.Error != nil {
		s.Errors++
	}
	s.Cases = append(s.Cases, c)
}

func seconds(ns int64) string { return fmt.Sprintf("%.3f", float64(max(0, ns))/1e9) }

// clean drops what XML 1.0 cannot hold.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\t' || c == '\n' || c == '\r' || c >= 0x20 && c <= 0xd7ff || c >= 0xe000 && c <= 0xfffd || c >= 0x10000 {
			return c
		}
		return '\uFFFD'
	}, s)
}
