package schemagen

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Comments holds the doc comments of Go types and struct fields, each in one
// line, under "importpath.Type" and "importpath.Type.Field".
type Comments map[string]string

// ReadComments reads the comments of the packages in dirs, each given with its
// import path.
func ReadComments(dirs map[string]string) (Comments, error) {
	out := Comments{}
	for dir, path := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("read the comments of %s: %w; run from the repository's root or give it with -src", path, err)
		}
		for _, e := range entries {
			name := e.Name()
			if e.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.ParseComments)
			if err != nil {
				return nil, fmt.Errorf("read the comments of %s: %w", path, err)
			}
			out.add(f, path)
		}
	}
	return out, nil
}

func (c Comments) add(f *ast.File, path string) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, s := range g.Specs {
			spec := s.(*ast.TypeSpec)
			key := path + "." + spec.Name.Name
			doc := spec.Doc
			if doc == nil {
				doc = g.Doc
			}
			c[key] = oneLine(doc)
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range st.Fields.List {
				for _, n := range field.Names {
					c[key+"."+n.Name] = oneLine(field.Doc)
				}
			}
		}
	}
}

func oneLine(g *ast.CommentGroup) string {
	if g == nil {
		return ""
	}
	return strings.Join(strings.Fields(g.Text()), " ")
}

// lookup serves jsonschema.Reflector.LookupComment: the comment of a type or
// one of its fields, worded for readers who do not see the Go name.
func (c Comments) lookup(t reflect.Type, field string) string {
	key := t.PkgPath() + "." + t.Name()
	if field != "" {
		// A field of an embedded struct has its comment there.
		if t.Kind() == reflect.Struct {
			for _, f := range flatFields(t) {
				if f.Name == field {
					key = f.owner.PkgPath() + "." + f.owner.Name()
				}
			}
		}
		key += "." + field
	}
	name := t.Name()
	if field != "" {
		name = field
	}
	return sentence(c[key], name)
}

// keepsName begins what makes no sentence without the name before it: a comment for
// several fields, or a verb that needs its subject.
var keepsName = []string{"and ", "has ", "have ", "was ", "were ", "is, ", "are, ", "then "}

// sentence turns a Go comment into one for readers who do not see the Go name, as far as
// what is left of it is a sentence.
func sentence(doc, name string) string {
	rest, ok := strings.CutPrefix(doc, name+" ")
	if !ok {
		return doc
	}
	for _, verb := range []string{"is ", "are "} {
		if after, ok := strings.CutPrefix(rest, verb); ok {
			rest = after
			break
		}
	}
	if slices.ContainsFunc(keepsName, func(begins string) bool { return strings.HasPrefix(rest, begins) }) {
		return doc
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}
