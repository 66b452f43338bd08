package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
)

// jsonList prints one JSON object that begins with a list, whose items are printed as they
// come: there may be any number of them.
type jsonList struct {
	out  io.Writer
	name string
	n    int64
	// err is why the list could not be printed.
	err error
}

func (l *jsonList) add(item any) {
	begin := fmt.Sprintf("{\n  %q: [", l.name)
	if l.n++; l.n > 1 {
		begin = ","
	}
	l.print(begin+"\n    ", item)
}

// close prints what follows the list, and why it came to an end, and gives what is to be
// exited with. An error before there was any item is for the caller to print.
func (l *jsonList) close(rest map[string]any, err error) error {
	if err != nil {
		if l.n == 0 {
			return err
		}
		rest = maps.Clone(rest)
		if rest == nil {
			rest = map[string]any{}
		}
		rest["error"] = err.Error()
		err = &exitError{code: codeOf(err)}
	}
	if failed := l.end(rest); failed != nil {
		return failure(failed)
	}
	return err
}

// end prints what follows the list.
func (l *jsonList) end(rest map[string]any) error {
	if l.n == 0 {
		l.write(fmt.Sprintf("{\n  %q: [", l.name))
	} else {
		l.write("\n  ")
	}
	l.write("]")
	for _, field := range slices.Sorted(maps.Keys(rest)) {
		l.print(fmt.Sprintf(",\n  %q: ", field), rest[field])
	}
	l.write("\n}\n")
	return l.err
}

func (l *jsonList) print(before string, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("    ", "  ")
	if err := enc.Encode(v); err != nil && l.err == nil {
		l.err = fmt.Errorf("writing JSON: %w", err)
	}
	l.write(before + string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))))
}

func (l *jsonList) write(text string) {
	if l.err != nil {
		return
	}
	if _, err := io.WriteString(l.out, text); err != nil {
		l.err = fmt.Errorf("writing JSON: %w", err)
	}
}
