// Package job runs a mirror as its operator described it: it opens the two
// locations, plans and copies, writes the manifest with its signed root, and
// verifies.
package job

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
)

// ErrSpec is what every [*SpecError] is.
var ErrSpec = errors.New("the mirror cannot be run as it is described")

// SpecError names what about a mirror is wrong.
type SpecError struct {
	// Mirror is its name, Field where in it.
	Mirror, Field string
	Problem, Fix  string
}

// Error describes the fault.
func (e *SpecError) Error() string {
	return fmt.Sprintf("mirror %s: %s: %s; %s", e.Mirror, e.Field, e.Problem, e.Fix)
}

// Unwrap returns ErrSpec.
func (e *SpecError) Unwrap() error { return ErrSpec }

// spec is a drill.Mirror, understood.
type spec struct {
	drill.Mirror
	at     [2]location.Location
	mode   plan.Mode
	filter *filter.Filter
	// rights are the rules for permissions, by side.
	rights [2][]right
}

func parse(m drill.Mirror) (spec, error) {
	s := spec{Mirror: m}
	if s.Name == "" {
		s.Name = AdHoc(m)
	}
	if m.Snapshots != nil {
		return s, &SpecError{s.Name, "snapshots", "this brings over files", "leave it out, or have package snapshots run the mirror"}
	}
	for side, text := range []string{m.From, m.To} {
		l, err := location.Parse(text)
		if err != nil {
			return s, &SpecError{s.Name, [...]string{"from", "to"}[side], err.Error(), "write a location"}
		}
		s.at[side] = l
	}
	if location.Overlap(s.at[plan.Source], s.at[plan.Dest]) {
		return s, &SpecError{s.Name, "to", fmt.Sprintf("%s and %s lie within each other", m.From, m.To), "name places that are apart"}
	}
	switch m.Mode {
	case "", drill.MirrorCopy:
		s.mode = plan.Copy
	case drill.MirrorMirror:
		s.mode = plan.Mirror
	case drill.MirrorTwoWay:
		s.mode = plan.TwoWay
	default:
		return s, &SpecError{s.Name, "mode", fmt.Sprintf("%q is none", m.Mode), "use copy, mirror or two-way"}
	}
	switch {
	case !slices.Contains([]string{"", drill.OverwriteAlways, drill.OverwriteUnedited}, m.Overwrite):
		return s, &SpecError{s.Name, "overwrite", fmt.Sprintf("%q is none", m.Overwrite), "use always or unedited"}
	case m.Overwrite == drill.OverwriteUnedited && s.mode != plan.Copy:
		return s, &SpecError{s.Name, "overwrite", "only a copy may be told to leave alone what was edited", "use mode copy; two-way reports what was changed on both sides"}
	}
	if to := s.at[plan.Dest]; to.Scheme == location.ZFS {
		return s, &SpecError{s.Name, "to", "a dataset is read through snapshots and cannot be written so", "write to its mount point with dir:"}
	}
	if from := s.at[plan.Source]; from.Scheme == location.ZFS && s.mode == plan.TwoWay {
		return s, &SpecError{s.Name, "from", "a snapshot cannot be written to", "use dir: with the dataset's mount point for two-way"}
	}
	var err error
	if s.filter, err = filter.Parse(m.Filter); err != nil {
		return s, &SpecError{s.Name, "filter", err.Error(), "mend the rule"}
	}
	if err := checkLimits(s.Name, m); err != nil {
		return s, err
	}
	if s.rights, err = parseRights(s.Name, m.Permissions); err != nil {
		return s, err
	}
	for _, u := range unruled(m, s.at[plan.Source], s.at[plan.Dest]) {
		return s, &SpecError{s.Name, u.field, u.why, u.fix}
	}
	return s, nil
}

func checkLimits(name string, m drill.Mirror) error {
	d := m.Deletes
	switch {
	case m.KeepDeleted < 0:
		return &SpecError{name, "keepDeleted", fmt.Sprintf("%s is no time", m.KeepDeleted), "write how long what was deleted can be brought back, such as 168h, or leave it out"}
	case m.KeepDeleted > 0 && (m.Mode == "" || m.Mode == drill.MirrorCopy):
		return &SpecError{name, "keepDeleted", "a copy deletes nothing", "leave it out, or use mode mirror or two-way"}
	case m.BytesPerSecond < 0:
		return &SpecError{name, "bytesPerSecond", fmt.Sprintf("%d is no speed", m.BytesPerSecond), "write bytes per second, or 0 for no limit"}
	case d.Most < 0:
		return &SpecError{name, "deletes.most", fmt.Sprintf("%d is no number of entries", d.Most), "write how many a run may delete, or leave it out"}
	case !(d.MostPercent >= 0 && d.MostPercent <= 100): // NaN too
		return &SpecError{name, "deletes.mostPercent", fmt.Sprintf("%v is no share", d.MostPercent), "write 0 to 100"}
	case d.Scans < 0 || d.Scans > math.MaxUint8:
		return &SpecError{name, "deletes.scans", fmt.Sprintf("%d cannot be counted", d.Scans), "write 1 to 255, or leave it out"}
	}
	return nil
}

// AdHoc names a mirror that nobody named: between the same places it is the same.
func AdHoc(m drill.Mirror) string {
	sum := sha256.New()
	for _, s := range []string{m.From, m.To} {
		fmt.Fprintf(sum, "%d:%s", len(s), s)
	}
	return "adhoc-" + hex.EncodeToString(sum.Sum(nil)[:8])
}
