package drill

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"github.com/firedrill/firedrill/pkg/lazy"

	"go.yaml.in/yaml/v3"
)

var (
	yamlLine      = lazy.Regexp(`^yaml: (?:line (\d+): )?(?s:(.*))$`)
	unknownAnchor = lazy.Regexp(`unknown anchor '(.*)' referenced`)
	looksJSON     = lazy.Regexp(`^\s*\{\s*"`)
)

// addSyntax notes an error of the YAML reader. All its texts are fixed ones but
// that of an unknown anchor, which could be a secret that begins with *.
func addSyntax(raw []byte, err error, f *findings) {
	if looksJSON().Match(raw) {
		var syntax *json.SyntaxError
		if jerr := json.Unmarshal(raw, &struct{}{}); errors.As(jerr, &syntax) {
			f.addAt(positionOf(raw, int(syntax.Offset)-1), "", "", "this is not well-formed JSON: "+syntax.Error())
			return
		}
	}
	if m := unknownAnchor().FindStringSubmatch(err.Error()); m != nil {
		f.addAt(positionOf(raw, max(bytes.Index(raw, []byte("*"+m[1])), 0)), "", "",
			"aliases are not read: write the value out, or put a text that begins with * into quotes")
		return
	}
	line, what := readSyntax(err)
	f.addAt(position{offendingLine(raw, line, what), 1}, "", "", "this is not well-formed YAML: "+what+
		"; look at the indentation, colons, brackets and quotes around this line")
}

// readSyntax takes the YAML reader's error apart. Its line is where the block, list
// or quotation began that it was reading, or the line before that.
func readSyntax(err error) (line int, what string) {
	line, what = 1, err.Error()
	if m := yamlLine().FindStringSubmatch(what); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
		what = m[2]
	}
	return line, what
}

// maxReread bounds how much text is read again to find a mistake, in bytes: whoever
// sends broken requests must not get an injector to read for long.
const maxReread = 4 * MaxSize

// offendingLine finds the line that cannot be read. The reader only tells where the
// block around it began, perhaps pages before. But a text that ends before the
// mistake can be read, or fails in another way: so it is the first of the lines up to
// where the reader came, with all of which the text fails alike. began is the
// reader's own line, what its words.
func offendingLine(raw []byte, began int, what string) int {
	fed := &oneByOne{raw: raw}
	dec := yaml.NewDecoder(fed)
	for dec.Decode(&yaml.Node{}) == nil {
	}
	line := positionOf(raw, fed.at).line
	// The reader looks ahead, so it may have come to the next line.
	for spent := 0; line > began; line-- {
		before := raw[:lineStart(raw, line)]
		if spent += len(before); spent > maxReread {
			return began
		}
		if !failsAlike(before, what) {
			return line
		}
	}
	return line
}

// failsAlike reports whether a text cannot be read for the given reason.
func failsAlike(raw []byte, what string) bool {
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	for {
		err := dec.Decode(&yaml.Node{})
		if err == nil {
			continue
		}
		_, is := readSyntax(err)
		return !errors.Is(err, io.EOF) && is == what
	}
}

// lineStart is the offset of a line, which counts from 1.
func lineStart(raw []byte, line int) int {
	at := 0
	for ; line > 1; line-- {
		at += bytes.IndexByte(raw[at:], '\n') + 1
	}
	return at
}

// oneByOne hands out a text byte by byte, so that at tells how far its reader came.
type oneByOne struct {
	raw []byte
	at  int
}

func (o *oneByOne) Read(p []byte) (int, error) {
	if o.at == len(o.raw) || len(p) == 0 {
		return 0, io.EOF
	}
	p[0] = o.raw[o.at]
	o.at++
	return 1, nil
}
