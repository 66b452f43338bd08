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
	"reflect"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/schemagen"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// message is what has a schema.
type message struct {
	name string
	of   reflect.Type
	opts []schemagen.Option
}

func messages() []message {
	return []message{
		{"mirror-request", reflect.TypeFor[fleet.Request](), []schemagen.Option{schemagen.Titled("A request for a run of a mirror: mirror.req.<who>.<mirror>"), schemagen.Closed()}},
		{"mirror-event", reflect.TypeFor[fleet.Event](), []schemagen.Option{
			schemagen.Titled("What is told of a mirror's run: mirror.evt.<mirror>.<kind>"),
			schemagen.About("The subject's last token is the kind of event; asyncapi.yaml says what each of them has."),
		}},
		{"mirror-cancel", reflect.TypeFor[fleet.Cancel](), []schemagen.Option{schemagen.Titled("A command that calls a mirror's run off: mirror.cmd.<mirror>.cancel")}},
	}
}

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
	const module = "github.com/firedrill/firedrill/"
	sources := map[string]string{}
	for _, dir := range []string{"pkg/drill", "pkg/event", "services/mirror/fleet", "services/mirror/job", "services/mirror/outcome", "services/mirror/proof", "services/mirror/runlog"} {
		sources[dir] = module + dir
	}
	comments, err := schemagen.ReadComments(sources)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range messages() {
		want, err := schemagen.Schema(schemagen.SchemaID(m.name), m.of, append(m.opts, schemagen.WithComments(comments))...)
		if err != nil {
			return err
		}
		path := "schemas/" + schemagen.SchemaFile(m.name)
		if !check {
			errs = append(errs, os.WriteFile(path, want, 0o644))
		} else if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			errs = append(errs, fmt.Errorf("%s is out of date: run `make fix`", path))
		}
	}
	return errors.Join(errs...)
}
