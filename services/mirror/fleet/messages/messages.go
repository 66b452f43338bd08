// Package messages derives the published contract of the mirror's messages from the Go
// types.
package messages

import (
	"reflect"

	"github.com/firedrill/firedrill/pkg/schemagen"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// Schemas derives the JSON Schemas of the mirror's messages: by name, the files' contents.
// src is the repository's root, for the comments.
func Schemas(src string) (map[string][]byte, error) {
	const module = "github.com/firedrill/firedrill/"
	sources := map[string]string{}
	for _, dir := range []string{"pkg/drill", "pkg/event", "services/mirror/fleet", "services/mirror/job", "services/mirror/outcome", "services/mirror/proof", "services/mirror/runlog"} {
		sources[src+"/"+dir] = module + dir
	}
	comments, err := schemagen.ReadComments(sources)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for name, m := range map[string]struct {
		of   reflect.Type
		opts []schemagen.Option
	}{
		"mirror-request": {reflect.TypeFor[fleet.Request](), []schemagen.Option{schemagen.Titled("A request for a run of a mirror, on mirror.req.WHO.MIRROR"), schemagen.Closed()}},
		"mirror-event": {reflect.TypeFor[fleet.Event](), []schemagen.Option{
			schemagen.Titled("What is told of a mirror's run, on mirror.evt.MIRROR.KIND"),
			schemagen.About("The subject's last token is the kind of event; asyncapi.yaml says what each of them has."),
		}},
		"mirror-cancel": {reflect.TypeFor[fleet.Cancel](), []schemagen.Option{schemagen.Titled("A command that calls a mirror's run off, on mirror.cmd.MIRROR.cancel")}},
	} {
		if out[name], err = schemagen.Schema(schemagen.SchemaID(name), m.of, append(m.opts, schemagen.WithComments(comments))...); err != nil {
			return nil, err
		}
	}
	return out, nil
}
