// Package snapshots runs the mirrors that bring over a dataset's snapshots, as ZFS
// streams, and not the files that it holds: to another dataset, or into an archive. It
// says where what belongs to each dataset goes, and what holds are named.
package snapshots

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/zfs"
)

var (
	// ErrNested says that a target lies in what is brought over.
	ErrNested = errors.New("it would be copied into itself")
	// ErrPlace says that archives cannot lie where they were to.
	ErrPlace = errors.New("no place for the archives of several datasets")
)

// notInJob is what the names of holds do not have.
var notInJob = lazy.Regexp(`[^A-Za-z0-9]+`)

// shownOfJob is how much of a place's name the name of a hold shows.
const shownOfJob = 40

// Job names what is held for a place, such as a dataset that via reaches: legible in `zfs
// holds`, and no other place's. Where it comes from is no part of it, as holds are a
// dataset's own.
func Job(to, via string) string {
	sum := sha256.Sum256([]byte(via + "\x00" + to))
	shown := notInJob().ReplaceAllString(to, "-")
	return shown[:min(len(shown), shownOfJob)] + "-" + hex.EncodeToString(sum[:6])
}

// Below gives the name that a dataset, which is root or lies below it, has below another.
func Below(dataset, root, other string) string { return other + strings.TrimPrefix(dataset, root) }

// Apart refuses, with ErrNested, a target on the same machine that lies below what is
// brought over with all that is below it.
func Apart(from, to string) error {
	if strings.HasPrefix(to+"/", from+"/") {
		return fmt.Errorf("%s lies in %s: %w: name a target elsewhere", to, from, ErrNested)
	}
	return nil
}

// ArchiveOf is where a dataset's own archive lies, where that of several do: it is named
// like the dataset, with "=", which no name has, for "/". The error wraps ErrPlace.
func ArchiveOf(dataset string, where location.Location) (location.Location, error) {
	name := strings.ReplaceAll(dataset, "/", "=")
	if zfs.IsArchiveDir(name + "/") {
		return where, fmt.Errorf("%w: a pool named %s would be taken for a part of an archive: archive its datasets one by one, each to a prefix of its own", ErrPlace, name)
	}
	where.Prefix += name + "/"
	return where, nil
}

// DatasetOf is the dataset whose archive lies at a place where ArchiveOf has put it.
func DatasetOf(own location.Location) string {
	return strings.ReplaceAll(path.Base(own.Prefix), "=", "/")
}

// Top gives the dataset of several in which all others lie. The error wraps ErrPlace where
// none is.
func Top(datasets []string) (string, error) {
	top := slices.Min(datasets) // whatever lies in a dataset comes after it
	for _, d := range datasets {
		if d != top && !strings.HasPrefix(d, top+"/") {
			return "", fmt.Errorf("%w: %s and %s lie in no dataset that is archived there, too: restore them one by one", ErrPlace, top, d)
		}
	}
	return top, nil
}

// MayHoldArchives refuses, with ErrPlace, a place that is the archive of one dataset
// itself.
func MayHoldArchives(ctx context.Context, a *zfs.Archive, where location.Location) error {
	points, err := a.Points(ctx)
	if len(points) > 0 {
		return fmt.Errorf("%w: %s is the archive of %s: each dataset has one of its own below it: name another prefix", ErrPlace, where, points[0].Dataset)
	}
	return err
}

// task is a mirror, understood.
type task struct {
	drill.Mirror
	from             string
	to               location.Location
	keep, keepPoints *zfs.Keep
}

// Check finds what is wrong with a mirror that brings over snapshots, besides its
// locations' stores. The problems' fields are those of [drill.Mirror].
func Check(m drill.Mirror) []drill.Problem {
	_, problems := parse(m)
	return problems
}

func parse(m drill.Mirror) (t task, problems []drill.Problem) {
	t.Mirror = m
	add := func(field, value, fix string) {
		problems = append(problems, drill.Problem{Field: field, Value: value, Fix: fix})
	}
	from, ferr := location.Parse(m.From)
	to, terr := location.Parse(m.To)
	for _, side := range []struct {
		field string
		err   error
	}{{"from", ferr}, {"to", terr}} {
		if e, ok := errors.AsType[*location.SyntaxError](side.err); ok {
			add(side.field, e.Location, e.Fix)
		}
	}
	s := m.Snapshots
	switch {
	case len(problems) > 0:
		return t, problems
	case from.Scheme != location.ZFS:
		add("from", m.From, "snapshots are a dataset's: write zfs:pool/dataset, or leave snapshots out")
	case to.Scheme == location.Dir:
		add("to", m.To, "snapshots go to a dataset or into a bucket: write zfs:pool/dataset or s3:store/bucket/prefix")
	case to.Scheme == location.ZFS && s.FromVia == s.ToVia && from.Path == to.Path:
		add("to", m.To, "this is where the snapshots are: name another dataset, or its machine with toVia")
	case to.Scheme == location.ZFS && s.FromVia == s.ToVia && s.Recursive && Apart(from.Path, to.Path) != nil:
		add("to", m.To, "this lies below from, and would be copied into itself: name a dataset elsewhere")
	}
	if len(problems) > 0 {
		return t, problems
	}
	t.from, t.to = from.Path, to
	t.keep = policy("keep", s.Keep, add)
	t.keepPoints = policy("keepPoints", s.KeepPoints, add)
	switch {
	case s.WholeEvery < 0:
		add("snapshots.wholeEvery", s.WholeEvery.String(), "this is how often a point is whole, such as 168h")
	case to.IsBucket() && s.ToVia != "":
		add("snapshots.toVia", s.ToVia, "a bucket is reached by its store: leave this out")
	case !to.IsBucket() && (s.KeepPoints != "" || s.WholeEvery != 0):
		add("snapshots", "", "keepPoints and wholeEvery are for archives in buckets: leave them out")
	case t.keepPoints != nil && s.WholeEvery == 0:
		add("snapshots.keepPoints", s.KeepPoints, "each point needs all before it up to a whole one, so that none could go: give wholeEvery, such as 168h")
	}
	for _, other := range []struct {
		field string
		given bool
	}{
		{"mode", m.Mode != "" && m.Mode != drill.MirrorCopy}, {"filter", len(m.Filter) > 0}, {"xattrs", m.Xattrs}, {"keepDeleted", m.KeepDeleted != 0},
		{"privileged", m.Privileged}, {"oneFileSystem", m.OneFileSystem}, {"deletes", m.Deletes != drill.MirrorDeletes{}}, {"permissions", len(m.Permissions) > 0},
	} {
		if other.given {
			add(other.field, "", "snapshots are brought over as they are: leave this out, or leave snapshots out")
		}
	}
	return t, problems
}

func policy(field, text string, add func(field, value, fix string)) *zfs.Keep {
	if text == "" {
		return nil
	}
	k, err := zfs.ParseKeep(text)
	if err != nil {
		add("snapshots."+field, text, err.Error())
		return nil
	}
	return &k
}
