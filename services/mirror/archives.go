package mirror

import (
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
)

// What mirrors of snapshots write is theirs alone: an archive that another mirror thins out,
// and a dataset that another one receives into, can be brought back by nobody.

// overArchive finds that of two mirrors one deletes the archive that the other writes.
func (m numbered) overArchive(other numbered) []drill.Problem {
	files, archive := m, other
	if m.Snapshots != nil {
		files, archive = other, m
	}
	field, written := "to", files.To
	switch {
	case !archive.to.IsBucket() || copies(files.Mirror):
		return nil
	case location.Overlap(files.to, archive.to):
	case files.Mode == drill.MirrorTwoWay && location.Overlap(files.from, archive.to):
		field, written = "from", files.From
	default:
		return nil
	}
	if m.Snapshots != nil {
		return []drill.Problem{m.problem("to", m.To, fmt.Sprintf(
			"mirror %s deletes in %s what it has not brought there, and so this archive: give them places that are apart", other.Name, written))}
	}
	return []drill.Problem{m.problem(field, written, fmt.Sprintf(
		"mirror %s keeps the archive of %s in %s, and this would delete it: give them places that are apart", other.Name, other.From, other.To))}
}

// intoOne finds that two mirrors bring snapshots to one place, or each to where the other
// has them from.
func (m numbered) intoOne(other numbered) []drill.Problem {
	fix := ""
	switch {
	case m.to.Scheme == location.ZFS && m.to == other.to && m.Snapshots.ToVia == other.Snapshots.ToVia:
		fix = fmt.Sprintf("mirror %s brings the snapshots of %s to the same dataset, which is a copy of one only: name another dataset", other.Name, other.From)
	case m.to.Scheme == location.ZFS && m.feeds(other) && other.feeds(m):
		fix = fmt.Sprintf("mirror %s goes the other way, and a dataset that snapshots are brought to takes no others: leave one of them out", other.Name)
	case m.to.IsBucket() && other.to.IsBucket() && (m.mayShare(other) || other.mayShare(m)):
		fix = fmt.Sprintf("mirror %s writes the archive of %s to %s, and an archive is one dataset's: give each a prefix of its own", other.Name, other.From, other.To)
	}
	if fix == "" {
		return nil
	}
	return []drill.Problem{m.problem("to", m.To, fix)}
}

// feeds reports whether another mirror takes its snapshots where this one brings its own.
func (m numbered) feeds(other numbered) bool {
	return m.to == other.from && m.Snapshots.ToVia == other.Snapshots.FromVia
}

// mayShare reports whether an archive of this mirror is, or may be, one of another mirror's
// that writes to the same place or below it.
func (m numbered) mayShare(other numbered) bool {
	at := m.to
	at.Prefix = other.to.Prefix
	below, ok := strings.CutPrefix(other.to.Prefix, m.to.Prefix)
	switch {
	case !ok || !location.Overlap(at, other.to):
		return false
	case !m.Snapshots.Recursive:
		return below == ""
	case below == "":
		// The archives of several datasets lie side by side, and in no archive.
		return !other.Snapshots.Recursive || location.Overlap(m.from, other.from)
	}
	name, _, _ := strings.Cut(below, "/")
	dataset := location.Location{Scheme: location.ZFS, Path: snapshots.DatasetOf(location.Location{Prefix: name + "/"})}
	return location.Overlap(m.from, dataset) && strings.HasPrefix(dataset.Path+"/", m.from.Path+"/")
}

func (m numbered) field(name string) string {
	return fmt.Sprintf("spec.mirrors[%d].%s", m.number, name)
}

func (m numbered) problem(field, value, fix string) drill.Problem {
	return drill.Problem{Field: m.field(field), Value: value, Fix: fix}
}
