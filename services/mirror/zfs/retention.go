package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Keep is how many snapshots stay: the newest one of each of the last so many hours,
// days, weeks and months that have any. Periods are those of UTC, weeks begin on
// Monday, and one snapshot may stand for several periods.
type Keep struct {
	Hourly  int `json:"hourly,omitempty"`
	Daily   int `json:"daily,omitempty"`
	Weekly  int `json:"weekly,omitempty"`
	Monthly int `json:"monthly,omitempty"`
}

// Validate refuses a policy that keeps nothing, as an empty one does.
func (k Keep) Validate() error {
	if k.Hourly < 0 || k.Daily < 0 || k.Weekly < 0 || k.Monthly < 0 {
		return errors.New("keep: no number may be negative")
	}
	if k == (Keep{}) {
		return errors.New("keep: it keeps nothing: give hourly, daily, weekly or monthly a number")
	}
	return nil
}

// ParseKeep reads a policy such as "hourly=24,daily=7,weekly=4,monthly=12", of which
// any may be left out, but not all.
func ParseKeep(text string) (Keep, error) {
	var k Keep
	counts := map[string]*int{"hourly": &k.Hourly, "daily": &k.Daily, "weekly": &k.Weekly, "monthly": &k.Monthly}
	for one := range strings.SplitSeq(text, ",") {
		class, value, _ := strings.Cut(one, "=")
		count := counts[class]
		if count == nil {
			return Keep{}, fmt.Errorf("keep %q: write hourly, daily, weekly or monthly, each once, as in hourly=24,daily=7", one)
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return Keep{}, fmt.Errorf("keep %q: write how many stay, as in %s=7", one, class)
		}
		*count = n
		delete(counts, class)
	}
	return k, k.Validate()
}

// Expired are the snapshots, in the order that they come in, that the policy lets
// go. It never lets go the newest, one that is held, one whose guid is in common,
// which another side needs to go on from, or one that is there for a reading.
func (k Keep) Expired(snapshots []Snapshot, common ...uint64) []Snapshot {
	// One that goes when its reading ends must not stand for its hour.
	newestFirst := sendable(snapshots)
	slices.SortStableFunc(newestFirst, func(a, b Snapshot) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return inOrder(b, a)
	})
	stay := map[uint64]bool{}
	for i, s := range newestFirst {
		if i == 0 || s.Holds > 0 || slices.Contains(common, s.GUID) {
			stay[s.GUID] = true
		}
	}
	for _, class := range []struct {
		count  int
		period func(time.Time) [2]int
	}{
		{k.Hourly, hourOf}, {k.Daily, dayOf}, {k.Weekly, weekOf}, {k.Monthly, monthOf},
	} {
		seen := map[[2]int]bool{}
		for _, s := range newestFirst {
			if len(seen) >= class.count {
				break
			}
			if period := class.period(s.Created.UTC()); !seen[period] {
				seen[period], stay[s.GUID] = true, true
			}
		}
	}
	return slices.DeleteFunc(sendable(snapshots), func(s Snapshot) bool { return stay[s.GUID] })
}

func hourOf(t time.Time) [2]int { return [2]int{t.Year(), t.YearDay()*24 + t.Hour()} }

func dayOf(t time.Time) [2]int { return [2]int{t.Year(), t.YearDay()} }

func weekOf(t time.Time) [2]int {
	year, week := t.ISOWeek()
	return [2]int{year, week}
}

func monthOf(t time.Time) [2]int { return [2]int{t.Year(), int(t.Month())} }

// PruneOptions say which snapshots of a dataset go.
type PruneOptions struct {
	Keep Keep
	// Prefix is what the names of the snapshots begin with that the policy is for;
	// others neither go nor count. "" is all.
	Prefix string
	// Taken limits the policy to what Take named, and Job, unless it is "", to what that
	// job took here.
	Taken bool
	Job   string
	// Common are guids that another side needs to go on from, such as that of
	// Replicated.Common where it is not this side that holds it.
	Common []uint64
	// DryRun only says what would go, and as an error what could not.
	DryRun bool
}

// named says whether a policy for a prefix, or for what Take named only, is for a name.
func named(snapshot, prefix string, taken bool) bool {
	return strings.HasPrefix(snapshot, prefix) && (!taken || takenName().MatchString(snapshot))
}

// expired are those of a dataset's snapshots that go.
func (o PruneOptions) expired(all []Snapshot) []Snapshot {
	under := slices.DeleteFunc(slices.Clone(all), func(s Snapshot) bool {
		return !named(s.Name, o.Prefix, o.Taken) || o.Job != "" && s.Job != o.Job
	})
	return o.Keep.Expired(under, o.Common...)
}

// Prune destroys the snapshots of a dataset that the policy lets go, oldest first,
// and returns those that went. One that somebody holds or clones meanwhile stays;
// the error, which wraps ErrBusy or ErrCloned, says so, and the others have gone.
func (h *Host) Prune(ctx context.Context, dataset string, o PruneOptions) ([]Snapshot, error) {
	if err := o.Keep.Validate(); err != nil {
		return nil, fmt.Errorf("prune %s: %w", dataset, err)
	}
	all, err := h.Snapshots(ctx, dataset)
	if err != nil {
		return nil, err
	}
	expired := o.expired(all)
	if o.DryRun {
		return h.uncloned(ctx, dataset, expired)
	}
	var gone []Snapshot
	var errs []error
	for _, s := range expired {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("prune %s: %w", dataset, context.Cause(ctx)))
			break
		}
		if err := h.Destroy(ctx, s); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, s)
	}
	return gone, errors.Join(errs...)
}

// uncloned are those of a dataset's snapshots of which no clones are made. The error says
// of the others, as Destroy would, that they cannot go.
func (h *Host) uncloned(ctx context.Context, dataset string, snapshots []Snapshot) (free []Snapshot, err error) {
	if len(snapshots) == 0 {
		return nil, nil
	}
	// A clone lies in the pool of its snapshot. zfs-fuse has no property that lists them.
	pool, _, _ := strings.Cut(dataset, "/")
	out, err := h.zfs(ctx, "list", "-H", "-r", "-t", "filesystem,volume", "-o", "origin", pool)
	if err != nil {
		return snapshots, fmt.Errorf("look for clones in %s: %w", pool, err)
	}
	origins := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		origins[strings.TrimSuffix(line, "\n")] = true
	}
	var errs []error
	for _, s := range snapshots {
		if origins[s.String()] {
			errs = append(errs, fmt.Errorf("destroy snapshot %s: %w", s, ErrCloned))
			continue
		}
		free = append(free, s)
	}
	return free, errors.Join(errs...)
}
