// Package strict reads what a driver is given, its configuration and the
// parameters of its operations, and reports every mistake in it as a
// *target.FieldError that names the field and says what to do.
package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/meant"
	"github.com/firedrill/firedrill/pkg/target"
)

// Decode reads raw into the struct that into points at; nothing is read from an
// empty raw. Unlike encoding/json it reports every mistake, each with its path, and
// takes no unknown field. A mistaken value is not in the error: it may be a secret.
func Decode(raw json.RawMessage, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	var errs []error
	walk("", raw, reflect.ValueOf(into).Elem(), &errs)
	return errors.Join(errs...)
}

func walk(path string, raw json.RawMessage, v reflect.Value, errs *[]error) {
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		walkStruct(path, raw, v, errs)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		walk(path, raw, v.Elem(), errs)
	case reflect.Slice:
		var items []json.RawMessage
		if err := json.Unmarshal(raw, &items); err != nil {
			mistake(errs, path, raw, "give a list")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
		for i, item := range items {
			walk(path+"["+strconv.Itoa(i)+"]", item, v.Index(i), errs)
		}
	default:
		if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
			mistake(errs, path, raw, "give "+kindName(v))
		}
	}
}

func walkStruct(path string, raw json.RawMessage, v reflect.Value, errs *[]error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		mistake(errs, path, raw, "give a mapping of fields")
		return
	}
	known := map[string]reflect.Value{}
	var names []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		known[name] = v.Field(i)
		names = append(names, name)
	}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		at := join(path, k)
		f, ok := known[k]
		if !ok {
			*errs = append(*errs, &target.FieldError{Field: at, Fix: "unknown field; known here are " + strings.Join(names, ", ")})
			continue
		}
		walk(at, fields[k], f, errs)
	}
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

// mistake leaves the value out: it stands where a secret might have been put.
func mistake(errs *[]error, path string, raw json.RawMessage, fix string) {
	if path == "" {
		path = "config"
	}
	*errs = append(*errs, &target.FieldError{Field: path, Fix: fmt.Sprintf("%s, not %s", fix, jsonKind(raw))})
}

func jsonKind(raw json.RawMessage) string {
	switch b := bytes.TrimSpace(raw); {
	case len(b) == 0:
		return "nothing"
	case b[0] == '{':
		return "a mapping"
	case b[0] == '[':
		return "a list"
	case b[0] == '"':
		return "text"
	case b[0] == 't' || b[0] == 'f':
		return "true or false"
	case b[0] == '-' || b[0] >= '0' && b[0] <= '9':
		return "this number"
	}
	return "broken JSON"
}

func kindName(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint16:
		return "a whole number in range"
	case reflect.Map:
		return "a mapping"
	}
	return "text"
}

// DecodeAllowed is Decode for a struct that several operations share, of which each
// takes some fields: every other one is refused, as if there were none but the allowed.
func DecodeAllowed(raw json.RawMessage, into any, allowed []string) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return Decode(raw, into)
	}
	var errs []error
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(allowed, f) {
			fix := "it takes none"
			if len(allowed) > 0 {
				fix = meant.Fix(f, allowed)
			}
			errs = append(errs, &target.FieldError{Field: f, Fix: "unknown here; " + fix})
			delete(fields, f)
		}
	}
	rest, err := json.Marshal(fields)
	return errors.Join(append(errs, err, Decode(rest, into))...)
}
