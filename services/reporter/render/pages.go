package render

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"

	"github.com/firedrill/firedrill/services/reporter/fold"
)

//go:embed index.html.tmpl
var indexTemplate string

//go:embed login.html.tmpl
var loginTemplate string

//go:embed notice.html.tmpl
var noticeTemplate string

// Entry is a drill in the list, or a request that became none, with Why.
type Entry struct {
	ID, Title, State, Verdict, Requester, When, Why string
}

// Index writes the page that lists the drills. halted says who halted all of them
// and why, and is empty when nobody did.
func Index(entries []Entry, halted string) ([]byte, error) {
	return small("index", indexTemplate, struct {
		CSS     template.CSS
		Entries []Entry
		Halted  string
	}{template.CSS(reportCSS), entries, halted})
}

// Login writes the form that asks for the token. next is the path to go on to,
// problem what was wrong with the last try.
func Login(next, problem string) ([]byte, error) {
	return small("login", loginTemplate, struct {
		CSS           template.CSS
		Next, Problem string
	}{template.CSS(reportCSS), next, problem})
}

// Notice writes a page that says what is wrong and leads back to the list.
func Notice(text string) ([]byte, error) {
	return small("notice", noticeTemplate, struct {
		CSS  template.CSS
		Text string
	}{template.CSS(reportCSS), text})
}

// small writes one of the pages that are no reports.
func small(name, text string, data any) ([]byte, error) {
	t, err := template.New(name).Funcs(template.FuncMap{"class": classOf, "requester": fold.ShowRequester}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse the template of the page %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("page %s as HTML: %w", name, err)
	}
	return b.Bytes(), nil
}
