package render

import (
	"fmt"

	"github.com/firedrill/firedrill/services/reporter/fold"
)

// The files of a published report.
const (
	FileJSON     = "report.json"
	FileMarkdown = "report.md"
	FileHTML     = "report.html"
	FileJUnit    = "report.xml"
)

// File renders the report as one of its files.
func File(r fold.Report, name string) ([]byte, error) {
	switch name {
	case FileJSON:
		return r.JSON()
	case FileMarkdown:
		return Markdown(r), nil
	case FileHTML:
		return HTML(r)
	case FileJUnit:
		return JUnit(r)
	}
	return nil, fmt.Errorf("file %.40q: use %s, %s, %s or %s", name, FileJSON, FileMarkdown, FileHTML, FileJUnit)
}

// All renders the report in every format, by file name.
func All(r fold.Report) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range []string{FileJSON, FileMarkdown, FileHTML, FileJUnit} {
		b, err := File(r, name)
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	return files, nil
}
