// Command mirrorschema writes the JSON Schemas of the mirror's messages, or with -check
// fails when the committed ones are out of date. Run it from the repository's root.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/schemagen"
	"github.com/firedrill/firedrill/services/mirror/fleet/messages"
)

func main() {
	run.Main(func(_ context.Context, args []string, _ io.Reader, _, errs io.Writer) int {
		fs := flag.NewFlagSet("mirrorschema", flag.ContinueOnError)
		check := fs.Bool("check", false, "compare, and write nothing")
		if fs.Parse(args) != nil {
			return run.BadArguments
		}
		if err := generate(*check); err != nil {
			fmt.Fprintln(errs, "mirrorschema:", err)
			return run.Fail
		}
		return run.OK
	})
}

func generate(check bool) error {
	all, err := messages.Schemas(".")
	if err != nil {
		return err
	}
	var errs []error
	for name, want := range all {
		path := "schemas/" + schemagen.SchemaFile(name)
		if !check {
			errs = append(errs, os.WriteFile(path, want, 0o644))
		} else if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			errs = append(errs, fmt.Errorf("%s is out of date: run `make fix`", path))
		}
	}
	return errors.Join(errs...)
}
