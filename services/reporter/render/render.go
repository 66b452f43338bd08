package render

import "github.com/firedrill/firedrill/services/reporter/fold"

// The files of a published report.
const (
	FileJSON     = "report.json"
	FileMarkdown = "report.md"
	FileHTML     = "report.html"
	FileJUnit    = "report.xml"
)

// All renders the report in every format, by file name.
func All(r fold.Report) (map[string][]byte, error) {
	j, err := r.JSON()
	if err != nil {
		return nil, err
	}
	h, err := HTML(r)
	if err != nil {
		return nil, err
	}
	x, err := JUnit(r)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{FileJSON: j, FileMarkdown: Markdown(r), FileHTML: h, FileJUnit: x}, nil
}
