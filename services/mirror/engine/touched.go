package engine

import (
	"fmt"
	"iter"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// past is what the last run left. Files that were touched since are dirty in it, and
// remembered as that before anything is decided: what this run does not come to look at,
// or fails with, some later one reads.
func (r *run) past() iter.Seq2[plan.Past, error] {
	if r.Touched == nil {
		return r.Store.Past()
	}
	return func(yield func(plan.Past, error) bool) {
		for p, err := range r.Store.Past() {
			if err == nil && p.Source.Kind == entry.File && plan.Present(p.Source) && !p.Dirty[plan.Source] && r.Touched(p.Source) {
				p.Dirty[plan.Source] = true
				if failed := r.noteDirty(p); failed != nil {
					r.fail(failed)
				}
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

func (r *run) noteDirty(p plan.Past) error {
	if r.DryRun {
		return nil
	}
	if err := r.mark(); err != nil {
		return err
	}
	r.mu.Lock()
	r.report.Changed = true
	r.mu.Unlock()
	if err := r.Store.Note(p); err != nil {
		return fmt.Errorf("remember %q: %w", p.Key, err)
	}
	return nil
}
