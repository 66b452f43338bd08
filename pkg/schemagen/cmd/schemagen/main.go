// Command schemagen writes the schemas, the AsyncAPI document, the examples and
// the catalogue page from the Go types; with -check it only compares, and with -release
// it freezes the schemas for a release.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/firedrill/firedrill/pkg/schemagen"
)

func main() {
	src := flag.String("src", ".", "the repository's root, for the comments of the Go types and the catalogue page")
	out := flag.String("out", "schemas", "the directory of the schemas")
	check := flag.Bool("check", false, "write nothing; fail and name each file that differs")
	release := flag.String("release", "", "freeze the schemas, which must be up to date, for this release, such as v1.0: they never change again")
	flag.Parse()
	if *check && *release != "" {
		fmt.Fprintln(os.Stderr, "schemagen: -check writes nothing and -release does: give one of them")
		os.Exit(254)
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "schemagen: unexpected argument %q\n", flag.Arg(0))
		os.Exit(254)
	}
	if err := run(*src, *out, *check, *release); err != nil {
		fmt.Fprintf(os.Stderr, "schemagen: %v\n", err)
		os.Exit(1)
	}
}

func run(src, out string, check bool, release string) error {
	files, err := schemagen.Generate(src)
	if err != nil {
		return err
	}
	t := schemagen.Targets{Schemas: out, Page: filepath.Join(src, schemagen.CataloguePage)}
	switch {
	case check:
		return schemagen.Check(files, t)
	case release != "":
		return schemagen.Freeze(release, files, t)
	}
	return schemagen.Write(files, t)
}
