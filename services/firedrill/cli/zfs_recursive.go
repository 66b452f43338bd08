package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
)

// each does something with every one of several datasets, whatever becomes of the
// others. do prints its result with p, and returns why it failed; JSON is one document
// with all of them.
func (p *zfsPrinter) each(ctx context.Context, datasets []string, do func(dataset string) (printed, err error)) error {
	results := []any{}
	p.several = &results
	var errs, prints []error
	for _, dataset := range datasets {
		printed, err := do(dataset)
		prints, errs = append(prints, printed), append(errs, err)
		if ctx.Err() != nil {
			break // the rest would say the same
		}
	}
	err := worst(errs)
	if p.json {
		p.said = true
		prints = append(prints, writeJSON(p.out, struct {
			Datasets []any  `json:"datasets"`
			Error    string `json:"error,omitempty"`
		}{results, errorText(err)}))
	}
	return p.end(errors.Join(prints...), err)
}

// worst is one error of all, with the code of the worst: one that it was interrupted says
// more than one that something failed, and that more than a mistake of the caller's.
func worst(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	code := run.BadArguments
	for _, candidate := range []int{run.Fail, run.Crash, run.Interrupted} {
		if slices.ContainsFunc(errs, func(err error) bool { return codeOf(err) == candidate }) {
			code = candidate
		}
	}
	return &exitError{code: code, err: errors.Join(errs...)}
}

// folderOfArchives refuses a place that is the archive of one dataset.
func (a *app) folderOfArchives(ctx context.Context, where location.Location) error {
	archive, done, err := a.openArchive(ctx, where, true)
	if err != nil {
		return err
	}
	defer done()
	return zfsExit(snapshots.MayHoldArchives(ctx, archive, where))
}
