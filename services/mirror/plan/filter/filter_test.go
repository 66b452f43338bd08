package filter_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
)

func parse(t interface{ Fatal(...any) }, rules ...string) *filter.Filter {
	f, err := filter.Parse(rules)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		rules    string
		in, out  string // paths; those with a trailing slash are directories
		describe string
	}{
		{"", "a a/ a/b", "", "no rule includes all"},
		{"- *.tmp", "a tmp a.tmp/ a.tmp/b", "a.tmp d/a.tmp .tmp", "any depth, no directory"},
		{"- /a", "b/a a/ a/b", "a", "anchored"},
		{"- /a/", "a b/a/ b/a/c ab/", "a/ a/b a/b/ a/b/c", "a directory with all below"},
		{"- cache/", "cache xcache/ xcache/f", "cache/ cache/x d/cache/ d/cache/x/y", "a directory at any depth"},
		{"- /d/**", "d e/d/x dd/x", "d/ d/x d/x/y", "** crosses names"},
		{"- /d/*", "d/ d/x/ d/x/y", "d/x d/.x", "* does not"},
		{"- a?c", "ac a/c abbc", "abc x/abc aéc", "? is one character"},
		{"- [a-cx].[!0-9]", "d.a a.5 a.", "a.a c.x x.é", "sets"},
		{`- \*\[`, "a[ *", "*[", "escapes"},
		{"+ *.jpg\n- **", "a.jpg d/a.jpg d/ d/e/", "a.txt d/a.txt", "what may hold something is walked"},
		{"+ /d/*.jpg\n- **", "d/ d/a.jpg", "e/ d/e/ d/e/a.jpg a.jpg", "what cannot is not"},
		{"- /d/x/\n+ /d/**\n- **", "d/ d/y d/y/z d/y/", "d/x/ d/x/y e e/", "the first rule decides"},
		{"- **/x/**", "a/ a/b x/ x/y", "a/x/ a/x/y", "the slash behind ** is one, as in rclone"},
		{"- /\xff*", "\xfe", "\xff \xff\xfe", "bytes that are no UTF-8"},
		{"- ..?\n- .*x", "a ..", "... .ax", "names of dots"},
		{"# comment\n; another\n\n  - a  ", "b", "a", "comments and blanks"},
	} {
		f := parse(t, strings.Split(c.rules, "\n")...)
		check := func(paths string, want bool) {
			for p := range strings.FieldsSeq(paths) {
				path, dir := strings.CutSuffix(p, "/")
				kind := entry.File
				if dir {
					kind = entry.Dir
				}
				if got := f.Match(path, kind); got != want {
					t.Errorf("%s: rules %q: Match(%q) = %v", c.describe, c.rules, p, got)
				}
			}
		}
		check(c.in, true)
		check(c.out, false)
		if !f.Match("", entry.Dir) {
			t.Errorf("rules %q exclude the root", c.rules)
		}
	}
}

func TestParseErrorsSayWhatToWrite(t *testing.T) {
	for line, field := range map[string]string{
		"*.tmp": "sign", "-": "sign", "-x": "sign", "! x": "sign",
		"- /": "pattern", "- //a": "pattern", "- a//b": "pattern", "- [a": "pattern", "- a]": "pattern", "- []": "pattern",
		"- [z-a]": "pattern", "- [a/b]": "pattern", "- {a,b}": "pattern", `- a\`: "pattern",
		"- /a/../b": "pattern", "- ./a": "pattern", "- a/.": "pattern", "- ../": "pattern", `- \.\.`: "pattern",
		"+ " + strings.Repeat("x", 2000): "pattern",
	} {
		_, err := filter.Parse([]string{"- fine", line})
		var e *filter.RuleError
		if !errors.Is(err, filter.ErrRule) || !errors.As(err, &e) {
			t.Errorf("%q: got %v", line, err)
			continue
		}
		if e.Line != 2 || e.Field != field || e.Value != line || e.Problem == "" || e.Fix == "" {
			t.Errorf("%q: got %+v", line, e)
		}
	}
}

// oracle translates a pattern to a regular expression, in the plainest way.
func oracle(pattern string) *regexp.Regexp {
	var b strings.Builder
	body, anchored := strings.CutPrefix(pattern, "/")
	b.WriteString("(?s)^")
	if !anchored {
		b.WriteString("(?:.*/)?")
	}
	for body != "" {
		switch {
		case strings.HasPrefix(body, "**"):
			b.WriteString(".*")
			body = body[1:]
		case body[0] == '*':
			b.WriteString("[^/]*")
		case body[0] == '?':
			b.WriteString("[^/]")
		default:
			b.WriteString(regexp.QuoteMeta(body[:1]))
		}
		body = body[1:]
	}
	if strings.HasSuffix(pattern, "/") {
		b.WriteString(".*")
	}
	return regexp.MustCompile(b.String() + "$")
}

var (
	patterns = rapid.StringMatching(`/?[ab*?]{1,4}(/[ab*?]{1,4}){0,2}/?`)
	paths    = rapid.StringMatching(`[ab]{1,3}(/[ab]{1,3}){0,3}`)
)

func TestFilesMatchAsTheRegularExpression(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, path := patterns.Draw(t, "pattern"), paths.Draw(t, "path")
		if got, want := !parse(t, "- "+p).Match(path, entry.File), oracle(p).MatchString(path); got != want {
			t.Fatalf("pattern %q, path %q: %v, want %v", p, path, got, want)
		}
	})
}

// A walk that passes an excluded directory by must miss nothing.
func TestNothingBelowAnExcludedDirectoryTakesPart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []string
		for range rapid.IntRange(1, 4).Draw(t, "rules") {
			rules = append(rules, rapid.SampledFrom([]string{"+ ", "- "}).Draw(t, "sign")+patterns.Draw(t, "pattern"))
		}
		f, dir := parse(t, rules...), paths.Draw(t, "dir")
		if f.Match(dir, entry.Dir) {
			return
		}
		below := dir + "/" + paths.Draw(t, "below")
		for _, kind := range []entry.Kind{entry.File, entry.Dir, entry.Symlink} {
			if f.Match(below, kind) {
				t.Fatalf("rules %q exclude %q and include %q (%v)", rules, dir, below, kind)
			}
		}
	})
}

// And "- **" behind a list of includes walks no further than it has to.
func TestADirectoryThatCanHoldNothingIsExcluded(t *testing.T) {
	f := parse(t, "+ /data/*/keep/*.db", "- **")
	for dir, want := range map[string]bool{"data": true, "data/x": true, "data/x/keep": true, "data/x/other": false, "etc": false, "data/x/keep/y": false} {
		if got := f.Match(dir, entry.Dir); got != want {
			t.Errorf("Match(%q) = %v", dir, got)
		}
	}
}

// Whatever a path is to several patterns, one of the samples is just that.
func TestSamplesStandForAllPaths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var filters []filter.Placed
		for range rapid.IntRange(1, 3).Draw(t, "filters") {
			filters = append(filters, filter.Placed{Filter: parse(t, "- "+patterns.Draw(t, "pattern")), Dir: rapid.SampledFrom([]string{"", "a", "b/ab"}).Draw(t, "dir")})
		}
		is := func(path string) (out string) {
			for _, f := range filters {
				full := strings.TrimPrefix(f.Dir+"/"+path, "/")
				out += fmt.Sprint(f.Match(full, entry.File), f.Match(full, entry.Dir))
			}
			return out
		}
		samples, all := filter.Samples(10_000, filters...)
		path := paths.Draw(t, "path")
		if !all || !slices.ContainsFunc(samples, func(s string) bool { return is(s) == is(path) }) {
			t.Fatalf("%q is %s to %+v, and none of %q is that", path, is(path), filters, samples)
		}
	})
}

// Samples are paths, and it is said where there are too many.
func TestSamplesArePaths(t *testing.T) {
	samples, all := filter.Samples(1000, filter.Placed{Filter: parse(t, "- .*", "- *.key", "- /a/b?/", "- [!a-y]/**", "- /*/x*")})
	for _, s := range samples {
		for name := range strings.SplitSeq(s, "/") {
			if name == "" || name == "." || name == ".." || strings.ContainsRune(name, 0) {
				t.Errorf("%q is among them", s)
			}
		}
	}
	if !all || !slices.Contains(samples, "0.key") {
		t.Errorf("of all (%v) they are %q", all, samples)
	}
	for _, pattern := range []string{"- " + strings.Repeat("a?", 12) + "*b" + strings.Repeat("?", 12), "- \xff*"} {
		if _, all := filter.Samples(1000, filter.Placed{Filter: parse(t, pattern)}); all {
			t.Errorf("%q: it says that these are all", pattern)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"- *.tmp", "+ /a/**/b?/[a-z]", `- \[`, "- [^]", "- ***", "+ \xff[\xff-\xfe]", "- **/"} {
		f.Add(s, "a/b.tmp")
	}
	f.Fuzz(func(t *testing.T, rules, path string) {
		lines := strings.Split(rules, "\n")
		got, err := filter.Parse(lines)
		if err != nil {
			var e *filter.RuleError
			if !errors.As(err, &e) || e.Line < 1 || e.Line > len(lines) || e.Fix == "" {
				t.Fatalf("got %#v", err)
			}
			return
		}
		names := slices.DeleteFunc(strings.Split(path, "/"), func(n string) bool { return n == "" })
		for i := range names {
			dir := strings.Join(names[:i], "/")
			if !got.Match(dir, entry.Dir) && got.Match(strings.Join(names, "/"), entry.File) {
				t.Fatalf("rules %q exclude %q and include what is below, %q", rules, dir, names)
			}
		}
	})
}

// Backtracking would need years for this one.
func TestManyStarsAreMatchedInLinearTime(t *testing.T) {
	f := parse(t, "- "+strings.Repeat("**a*", 60)+"b")
	if !f.Match(strings.Repeat("a", 4000), entry.File) {
		t.Error("matches without a b")
	}
}

func BenchmarkMatch(b *testing.B) {
	f := parse(b, "- *.tmp", "- /var/cache/", "+ /srv/**", "- node_modules/", "- *.swp")
	for b.Loop() {
		f.Match("home/user/projects/service/internal/handler_test.go", entry.File)
	}
}

func TestBelow(t *testing.T) {
	for _, dir := range []string{"a", "a/b c", "*", `[x]?{y}\z`, "\xff"} {
		f := parse(t, filter.Below(dir))
		if f.Match(dir, entry.Dir) || f.Match(dir+"/x", entry.File) || f.Match(dir+"/x/y", entry.Dir) {
			t.Errorf("%q does not leave out %q", filter.Below(dir), dir)
		}
		if !f.Match(dir+"x", entry.Dir) || !f.Match("x"+dir, entry.Dir) || !f.Match("x/"+dir, entry.Dir) {
			t.Errorf("%q leaves out more", filter.Below(dir))
		}
	}
}
