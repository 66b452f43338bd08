package schemagen

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/firedrill/firedrill/pkg/event"
)

//go:embed asyncapi.yaml.tmpl
var asyncTemplate embed.FS

// asyncAPI writes the AsyncAPI 3.0 document: the subjects, and on each the
// messages of the table of types.
func asyncAPI() ([]byte, error) {
	t, err := template.New("asyncapi.yaml.tmpl").Funcs(template.FuncMap{
		"id": messageID, "title": title, "quote": func(s string) string { return fmt.Sprintf("%q", s) },
	}).ParseFS(asyncTemplate, "asyncapi.yaml.tmpl")
	if err != nil {
		return nil, fmt.Errorf("asyncapi.yaml: %w", err)
	}
	type service struct {
		Name  string
		Types []event.Info
	}
	data := struct {
		Version, ContentType string
		Types                []event.Info
		Services             []service
	}{Version: Version, ContentType: event.ContentType, Types: event.Table()}
	for _, name := range event.Services() {
		s := service{Name: name}
		for _, i := range data.Types {
			if i.Service == name {
				s.Types = append(s.Types, i)
			}
		}
		data.Services = append(data.Services, s)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("asyncapi.yaml: %w", err)
	}
	return b.Bytes(), nil
}

// messageID makes a key of a type: fault.injected is FaultInjected.
func messageID(t event.Type) string {
	var b strings.Builder
	for w := range strings.SplitSeq(string(t), ".") {
		b.WriteString(title(w))
	}
	return b.String()
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
