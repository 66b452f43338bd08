// Command reportschema writes the JSON Schema of report.json, or with -check
// fails when the committed one is out of date. Run it from the repository's root.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/schemagen"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

const path = "schemas/v1/report.json"

func main() {
	run.Main(func(_ context.Context, args []string, _ io.Reader, _, errs io.Writer) int {
		fs := flag.NewFlagSet("reportschema", flag.ContinueOnError)
		check := fs.Bool("check", false, "compare, and write nothing")
		if fs.Parse(args) != nil {
			return run.BadArguments
		}
		if err := generate(*check); err != nil {
			fmt.Fprintln(errs, "reportschema:", err)
			return run.Fail
		}
		return run.OK
	})
}

func generate(check bool) error {
	comments, err := schemagen.ReadComments(map[string]string{
		"services/reporter/fold": "github.com/firedrill/firedrill/services/reporter/fold",
		"pkg/event":              "github.com/firedrill/firedrill/pkg/event",
		"pkg/verdict":            "github.com/firedrill/firedrill/pkg/verdict",
	})
	if err != nil {
		return err
	}
	want, err := schemagen.Schema(event.SchemaBase+"v1/report.json", reflect.TypeFor[fold.Report](),
		schemagen.Titled("firedrill report"), schemagen.WithComments(comments))
	if err != nil {
		return err
	}
	if !check {
		return os.WriteFile(path, want, 0o644)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("%s is out of date: run `make fix`", path)
	}
	return nil
}
