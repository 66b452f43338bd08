package arrows

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Each command pays at its start for what is compiled at package level, whether it uses
// that or not: package lazy compiles at the first use.
func TestPatternsAreCompiledWhenTheyAreUsed(t *testing.T) {
	for _, s := range shipped(t) {
		if strings.HasPrefix(s.path, "pkg/lazy/") {
			continue
		}
		for _, call := range calls(s.file, "regexp") {
			if name := call.Fun.(*ast.SelectorExpr).Sel.Name; strings.Contains(name, "Compile") || strings.HasPrefix(name, "Match") {
				t.Errorf("%s: regexp.%s: use lazy.Regexp, or plain code", s.at(call.Pos()), name)
			}
		}
	}
}

// What is compiled when it is used would fail as late.
func TestPatternsCompile(t *testing.T) {
	texts := constants{}
	all := shipped(t)
	for _, s := range all {
		texts.collect(s)
	}
	seen := 0
	for _, s := range all {
		for _, call := range calls(s.file, "lazy") {
			seen++
			pattern, err := texts.value(path.Dir(s.path), call.Args[0])
			if err == nil {
				_, err = regexp.Compile(pattern)
			}
			if err != nil {
				t.Errorf("%s: %v", s.at(call.Pos()), err)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d patterns were found", seen)
	}
}

// shipped are the files that become part of a program.
func shipped(t *testing.T) (out []source) {
	t.Helper()
	for _, s := range sources(t) {
		if !s.test() && !strings.HasPrefix(s.path, "tests/") {
			out = append(out, s)
		}
	}
	return out
}

// calls are a file's calls of the functions of a package.
func calls(f *ast.File, pkg string) (out []*ast.CallExpr) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
				out = append(out, call)
			}
		}
		return true
	})
	return out
}

// constants are those that packages declare, by their folder and name.
type constants map[string]ast.Expr

func (c constants) collect(s source) {
	for _, d := range s.file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.CONST {
			continue
		}
		for _, spec := range decl.Specs {
			v := spec.(*ast.ValueSpec)
			for i := range v.Values {
				c[path.Join(path.Dir(s.path), v.Names[i].Name)] = v.Values[i]
			}
		}
	}
}

// value is the text that a constant expression of a package stands for.
func (c constants) value(folder string, e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return strconv.Unquote(e.Value)
	case *ast.BinaryExpr:
		left, err := c.value(folder, e.X)
		if err != nil {
			return "", err
		}
		right, err := c.value(folder, e.Y)
		return left + right, err
	case *ast.Ident:
		if known, ok := c[path.Join(folder, e.Name)]; ok {
			return c.value(folder, known)
		}
	}
	return "", fmt.Errorf("%T is no constant that this test understands: write the pattern out", e)
}
