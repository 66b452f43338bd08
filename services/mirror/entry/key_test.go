package entry_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"pgregory.net/rapid"
)

// pieces are what escapes could be confused by, in any combination.
var pieces = []string{
	"%", "%25", "%2", "5", "0A", "%0A", "%FF", "%ff", "%5F", "%2E", "%5C", "%20", "%{", "}", "{", "%{}", "%00",
	".", "..", " ", "\t", "\n", "\\", "__XLDIR__", "_XLDIR__", "xl.meta", "a", "-", "!", "~", "0", "é", "e\u0301",
	"\u0080", "\u0085", "\ufffd", "\ufffe", "\uffff", "\U0001F525", "\x7f", "\x80", "\xff", "\xc3", "\xed\xa0\x80",
}

// names generates what Linux takes as the name of a file.
func names() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.Bool().Draw(t, "pieces") {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 5).Draw(t, "name"), "")
		}
		return string(rapid.SliceOfN(rapid.Byte(), 1, 60).Draw(t, "name"))
	}).Filter(isName)
}

func isName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && !strings.ContainsAny(s, "/\x00")
}

func paths() *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(names(), 1, 4), func(s []string) string { return strings.Join(s, "/") })
}

// minioTakes are MinIO's rules for the names of objects, as its handlers have them.
func minioTakes(key string) bool {
	if !utf8.ValidString(key) || strings.Contains(key, "//") || strings.HasPrefix(key, "/") ||
		strings.ContainsRune(key, 0) || strings.HasSuffix(key, "__XLDIR__") || len(key) > 1024 {
		return false
	}
	for _, s := range strings.FieldsFunc(key, func(r rune) bool { return r == '/' || r == '\\' }) {
		if core := strings.Trim(s, " \t\n\v\f\r"); core == "." || core == ".." {
			return false
		}
	}
	return true
}

// foreign reports whether a path has a component that may stand for a segment
// that no name escapes to.
func foreign(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool {
		return strings.HasPrefix(s, "%{") && strings.HasSuffix(s, "}")
	})
}

// A key is told as the path that people have in their directory.
func TestQuote(t *testing.T) {
	for key, want := range map[string]string{
		"a/b": `"a/b"`, "d/": `"d/"`, "new%0Aline": `"new\nline"`, "caf%E9/": `"caf\xe9/"`, "a%20b": `"a%20b"`, `"q"`: `"\"q\""`,
		"./": `"./"`, "a//b": `"a/%{}/b"`, "\xff": `"\xff"`, "%2E%2E": `"%{%252E%252E}"`,
	} {
		if got := entry.Quote(key); got != want {
			t.Errorf("%q is told as %s, want %s", key, got, want)
		}
	}
}

func TestEveryPathComesBackFromItsKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := entry.Entry{Path: paths().Draw(t, "path"), Kind: rapid.SampledFrom([]entry.Kind{entry.File, entry.Dir}).Draw(t, "kind")}
		key := e.Key()
		if !utf8.ValidString(key) || strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7f }) && !foreign(e.Path) {
			t.Fatalf("key %q of %q cannot be in a request or a listing", key, e.Path)
		}
		if !foreign(e.Path) && !minioTakes(key) && len(key) <= 1024 {
			t.Fatalf("MinIO does not take the key %q of %q", key, e.Path)
		}
		if len(key) > 1024 {
			return
		}
		path, dir, err := entry.UnescapeKey(key)
		if err != nil || path != e.Path || dir != (e.Kind == entry.Dir) {
			t.Fatalf("%q became the key %q, which became %q, directory %t, %v", e.Path, key, path, dir, err)
		}
		if escaped, err := entry.EscapePath(e.Path); e.Kind == entry.File && (escaped != key || err != nil && e.Check() == nil) {
			t.Fatalf("EscapePath(%q) = %q, %v and Key is %q", e.Path, escaped, err, key)
		}
	})
}

func TestEveryKeyComesBackFromItsPath(t *testing.T) {
	segment := rapid.OneOf(
		rapid.Map(rapid.SliceOfN(rapid.SampledFrom(append(pieces, "/", "//", "\x00", "")), 0, 5), func(s []string) string { return strings.Join(s, "") }),
		rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		keepsItsKey(t, strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(t, "key"), "/"))
	})
}

type fataler interface{ Fatalf(string, ...any) }

// keepsItsKey tests one key of any kind.
func keepsItsKey(t fataler, key string) {
	path, dir, err := entry.UnescapeKey(key)
	if err != nil {
		// A foreign segment grows threefold and by three bytes at most.
		if !errors.Is(err, entry.ErrName) || 3*len(key)+3 <= 255 && utf8.ValidString(key) {
			t.Fatalf("UnescapeKey(%q): %v", key, err)
		}
		return
	}
	for name := range strings.SplitSeq(path, "/") {
		if key != "" && !isName(name) {
			t.Fatalf("UnescapeKey(%q) = %q, of which %q is no name", key, path, name)
		}
	}
	e := entry.Entry{Path: path}
	if dir {
		e.Kind = entry.Dir
	}
	if back := e.Key(); back != key {
		t.Fatalf("the key %q became %q, which became %q", key, path, back)
	}
}

func FuzzUnescapeKey(f *testing.F) {
	for _, key := range []string{"", "/", "a//b", "/lead", "a/../b", "a/", "a//", "%0A", "\n", "%{}", "%{%25{}}", "%25FF", "..\\.", "\xff"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) { keepsItsKey(t, key) })
}

func FuzzEscapePath(f *testing.F) {
	for _, path := range []string{"a", "a/b", "\xff", "%{}", "a/%{}", "%{..}", "x__XLDIR__", " .", "%0A", "a//b", "../a", "/a"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		key, err := entry.EscapePath(path)
		if err != nil {
			return
		}
		back, dir, err := entry.UnescapeKey(key)
		if err != nil || back != path || dir != (path == "") {
			t.Fatalf("%q became %q, which became %q, directory %t, %v", path, key, back, dir, err)
		}
	})
}

func TestOrdinaryNamesAreTheirOwnKeys(t *testing.T) {
	for _, path := range []string{
		"report.pdf", "100%.txt", "50%25", "50%off", "a%20b.html", "http%3A%2F%2Fhost", "%2f%3a", "%{name}.spec", "%{}x",
		"caf\u00e9", "cafe\u0301", "日本語/ファイル", ".hidden", "...", "a..b", " lead", "trail ", "- . -",
		"__XLDIR__x", "xl.meta", "a:b*c?d\"e|f<g>", "~", "tab-free", "\U0001F525", "\ufffd", "a/b/c.d",
	} {
		if key, err := entry.EscapePath(path); key != path || err != nil {
			t.Errorf("EscapePath(%q) = %q, %v", path, key, err)
		}
		if back, dir, err := entry.UnescapeKey(path); back != path || dir || err != nil {
			t.Errorf("UnescapeKey(%q) = %q, %t, %v", path, back, dir, err)
		}
	}
}

// The format is what lies in people's buckets: it must not move.
func TestEscapesStayAsTheyAre(t *testing.T) {
	for path, want := range map[string]string{
		"a\nb": "a%0Ab", "\xff": "%FF", "caf\xe9": "caf%E9", "dev\\x2d": "dev%5Cx2d", " .": " %2E", "..\t": "%2E%2E%09",
		"d__XLDIR__": "d%5F_XLDIR__", "%0A": "%250A", "%250A": "%25250A", "\u0085": "%C2%85", "\uffff": "%EF%BF%BF",
		"a/%{}/b": "a//b", "%{}/lead": "/lead", "a/%{..}/b": "a/../b", "a/%{.}": "a/.", "%{a\nb}": "a\nb", "%{%2500}": "%{%2500}",
		"%{%250A}": "%{%25250A}", "a/%{}": "a/%{}", "%{a\\b}": "a\\b", "%{%00}": "\x00",
	} {
		if key := (entry.Entry{Path: path}).Key(); key != want {
			t.Errorf("the key of %q is %q, not %q", path, key, want)
		}
	}
	for path, want := range map[string]string{"": "", "a": "a/", "a/%{}": "a//", "%{}": "/", "a/b\n": "a/b%0A/"} {
		if key := (entry.Entry{Path: path, Kind: entry.Dir}).Key(); key != want {
			t.Errorf("the key of the directory %q is %q, not %q", path, key, want)
		}
	}
}

func TestWhatCannotBeHeldIsNamed(t *testing.T) {
	long := strings.Repeat("x", 246)
	deep := strings.TrimSuffix(strings.Repeat("12345678/", 114), "/") // 1,025 bytes
	for _, c := range []struct {
		e    entry.Entry
		held bool
	}{
		{entry.Entry{Path: strings.Repeat("x", 255)}, true},
		{entry.Entry{Path: strings.Repeat("\xff", 85)}, true},
		{entry.Entry{Path: strings.Repeat("\xff", 86)}, false},
		{entry.Entry{Path: strings.Repeat("\xff", 86) + "/a"}, false},
		{entry.Entry{Path: long, Kind: entry.Dir}, true},
		{entry.Entry{Path: long + "x", Kind: entry.Dir}, false},
		{entry.Entry{Path: long + "x/a"}, true},
		{entry.Entry{Path: deep}, false},
		{entry.Entry{Path: deep[1:]}, true},
		{entry.Entry{Path: deep[1:], Kind: entry.Dir}, false},
		{entry.Entry{Path: "", Kind: entry.Dir}, true},
		{entry.Entry{Path: "a//b"}, false}, {entry.Entry{Path: "/a"}, false}, {entry.Entry{Path: "a/"}, false},
		{entry.Entry{Path: "a/./b"}, false}, {entry.Entry{Path: ".."}, false}, {entry.Entry{Path: "a\x00"}, false},
	} {
		err := c.e.Check()
		if named, ok := errors.AsType[*entry.NameError](err); c.held && err != nil || !c.held && (!ok || named.Name != c.e.Path || !errors.Is(err, entry.ErrName)) {
			t.Errorf("Check of %s %.30q: %v", c.e.Kind, c.e.Path, err)
		}
		if _, perr := entry.EscapePath(c.e.Path); c.e.Kind == entry.File && (perr == nil) != c.held {
			t.Errorf("EscapePath(%.30q): %v", c.e.Path, perr)
		}
	}
	for _, key := range []string{strings.Repeat("x", 256), strings.Repeat("x/", 513), "\xff"} {
		if path, _, err := entry.UnescapeKey(key); !errors.Is(err, entry.ErrName) {
			t.Errorf("UnescapeKey(%.30q) = %.30q, %v", key, path, err)
		}
	}
}

func TestErrorsQuoteNames(t *testing.T) {
	_, err := entry.EscapePath("a\x1b[2J\n//b")
	if err == nil || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("the error reaches a terminal as %q", err)
	}
}

// node is a directory of a tree that a test made up; a nil child is a file.
type node map[string]node

func trees(depth int) *rapid.Generator[node] {
	return rapid.Custom(func(t *rapid.T) node {
		n := node{}
		for _, name := range rapid.SliceOfNDistinct(names(), 0, 5, rapid.ID).Draw(t, "names") {
			if depth > 0 && rapid.Bool().Draw(t, "dir") {
				n[name] = trees(depth-1).Draw(t, "tree")
			} else {
				n[name] = nil
			}
		}
		return n
	})
}

// walk goes depth first and sorts only within each directory, as a scan does.
func (n node) walk(path string, keys *[]string) {
	var children []entry.Entry
	for name, child := range n {
		e := entry.Entry{Path: name}
		if child != nil {
			e.Kind = entry.Dir
		}
		children = append(children, e)
	}
	slices.SortFunc(children, func(a, b entry.Entry) int { return entry.Compare(a.Key(), b.Key()) })
	for _, c := range children {
		name := c.Path
		if path != "" {
			c.Path = path + "/" + name
		}
		*keys = append(*keys, c.Key())
		n[name].walk(c.Path, keys)
	}
}

func TestWalkingDepthFirstGivesTheOrderOfKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := []string{entry.Entry{Kind: entry.Dir}.Key()}
		trees(3).Draw(t, "tree").walk("", &keys)
		for i := range keys[1:] {
			if entry.Compare(keys[i], keys[i+1]) >= 0 {
				t.Fatalf("%q was walked before %q", keys[i], keys[i+1])
			}
		}
	})
}

func TestFoldFindsNamesThatCollide(t *testing.T) {
	nfc, nfd := "caf\u00e9", "cafe\u0301"
	if nfc == nfd || entry.Fold(nfc) != entry.Fold(nfd) {
		t.Errorf("%q and %q fold to %q and %q", nfc, nfd, entry.Fold(nfc), entry.Fold(nfd))
	}
	if got := entry.Fold("a%E9"); got != "a%E9" {
		t.Errorf("an escape folds to %q", got)
	}
}

func TestPlainKeysCostNoMemory(t *testing.T) {
	e := entry.Entry{Path: "some/ordinary/path.txt"}
	if n := testing.AllocsPerRun(100, func() { _ = e.Key() }); n != 0 {
		t.Errorf("Key allocates %v times", n)
	}
}

func BenchmarkKey(b *testing.B) {
	for _, path := range []string{"some/ordinary/path.txt", "some/päth/\xff.txt"} {
		b.Run(fmt.Sprintf("%q", path), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = entry.Entry{Path: path}.Key()
			}
		})
	}
}
