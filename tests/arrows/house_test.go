package arrows

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxMain = 60
	maxFile = 600
)

// longFiles lists files that are allowed to be longer, each with its reason.
func longFiles() map[string]string { return map[string]string{} }

// ownContexts lists files that make a context of their own, each with its reason.
func ownContexts() map[string]string {
	return map[string]string{
		"pkg/target/postgres/connect.go": "pgconn watches every other context in a goroutine; the connection's deadline follows the caller's",
	}
}

// source is one Go file of the repository.
type source struct {
	path  string
	lines int
	set   *token.FileSet
	file  *ast.File
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// tests reports whether the file's code runs in tests: it is one, or a suite for them.
func (s source) tests() bool {
	return s.test() || slices.ContainsFunc(s.file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing"` })
}

// at is a place in the file, for messages.
func (s source) at(p token.Pos) string { return fmt.Sprintf("%s:%d", s.path, s.set.Position(p).Line) }

// walk calls fn for each file of the repository, with its path from the root.
func walk(t *testing.T, fn func(path string, raw []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() && (rel == ".git" || rel == "out" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		fn(filepath.ToSlash(rel), raw)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	walk(t, func(path string, raw []byte) {
		if filepath.Ext(path) != ".go" {
			return
		}
		s := source{path: path, lines: strings.Count(string(raw), "\n"), set: token.NewFileSet()}
		var err error
		if s.file, err = parser.ParseFile(s.set, path, raw, parser.ParseComments); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	})
	if len(out) < 20 {
		t.Fatalf("only %d Go files were found", len(out))
	}
	return out
}

func TestTopLevel(t *testing.T) {
	required := []string{".ci", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "deploy", "docker-compose.yml",
		"docs", "go.work", "helm", "pkg", "schemas", "services", "tests"}
	// What git or a build leaves beside them.
	allowed := []string{".git", ".gitignore", ".dockerignore", "go.work.sum", "out"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
		if !slices.Contains(required, e.Name()) && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s does not belong to the top level", e.Name())
		}
	}
	for _, name := range required {
		if !slices.Contains(have, name) {
			t.Errorf("%s is missing at the top level", name)
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	long := longFiles()
	for _, s := range sources(t) {
		if s.file.Name.Name == "main" && filepath.Base(s.path) == "main.go" && s.lines >= maxMain {
			t.Errorf("%s has %d lines: a main stays under %d and calls a package that can be tested", s.path, s.lines, maxMain)
		}
		_, listed := long[s.path]
		if s.lines > maxFile && !listed {
			t.Errorf("%s has %d lines: split it, or list it with a reason", s.path, s.lines)
		}
		if s.lines <= maxFile && listed {
			t.Errorf("%s is short enough by now: take it off the list", s.path)
		}
		delete(long, s.path)
	}
	for path := range long {
		t.Errorf("%s is on the list and does not exist", path)
	}
}

func TestPackageNamesSayWhatTheyHold(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "tools"}
	for _, s := range sources(t) {
		if name := strings.TrimSuffix(s.file.Name.Name, "_test"); slices.Contains(vague, name) {
			t.Errorf("%s: package %s says nothing about what it holds", s.path, name)
		}
	}
}

func TestNothingHappensAtImport(t *testing.T) {
	silent := []string{`"embed"`, `"time/tzdata"`}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: func init: pass the value to whoever needs it", s.at(f.Pos()))
			}
		}
		for _, i := range s.file.Imports {
			if i.Name != nil && i.Name.Name == "_" && !slices.Contains(silent, i.Path.Value) {
				t.Errorf("%s: import of %s for its side effect", s.at(i.Pos()), i.Path.Value)
			}
		}
	}
}

func TestCallsThatAreKeptToTheirPlace(t *testing.T) {
	core := func(p string) bool {
		return strings.HasPrefix(p, "pkg/drill/") || strings.HasPrefix(p, "pkg/verdict/") || strings.HasPrefix(p, "pkg/event/")
	}
	for _, s := range sources(t) {
		test := s.test() || strings.HasPrefix(s.path, "tests/")
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch call := x.Name + "." + sel.Sel.Name; call {
			case "context.Background", "context.TODO":
				if !test && !strings.HasPrefix(s.path, "pkg/run/") && ownContexts()[s.path] == "" {
					t.Errorf("%s: %s: take the caller's context", s.at(n.Pos()), call)
				}
			case "time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.Tick", "time.NewTimer", "time.NewTicker":
				if !s.test() && core(s.path) {
					t.Errorf("%s: %s: the core is told the time", s.at(n.Pos()), call)
				}
			case "t.Skip", "t.Skipf", "t.SkipNow", "b.Skip", "b.Skipf", "b.SkipNow", "tb.Skip", "tb.Skipf", "tb.SkipNow":
				if s.tests() {
					t.Errorf("%s: %s: a test whose server is missing fails", s.at(n.Pos()), call)
				}
			}
			return true
		})
	}
}

func TestTextsHoldNothingThatIsNotTheirs(t *testing.T) {
	// The needles are put together so that this file does not hold them itself.
	needles := map[string]string{
		"/wo" + "rk/": "a path of one machine",
		"/ro" + "ot/": "a path of one machine",
		"/far" + "m/": "a path of one machine",
		"TO" + "DO":   "work that is not done: do it, or open an issue",
		"FIX" + "ME":  "work that is not done: do it, or open an issue",
	}
	extensions := []string{".go", ".md", ".yaml", ".yml", ".json", ".mod", ".tmpl", ".html", ".sql", ".sh", ""}
	walk(t, func(path string, raw []byte) {
		if !slices.Contains(extensions, filepath.Ext(path)) || path == "tests/arrows/house_test.go" || slices.Contains(raw, 0) {
			return
		}
		for needle, why := range needles {
			if i := strings.Index(string(raw), needle); i >= 0 {
				t.Errorf("%s:%d holds %q: %s", path, strings.Count(string(raw[:i]), "\n")+1, needle, why)
			}
		}
	})
}
