package zfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// jobProperty is the user property that says which job made something.
const jobProperty = "firedrill:job"

// Snapshot is one snapshot of a dataset.
type Snapshot struct {
	Dataset, Name string
	// GUID is the same wherever the snapshot was received, and no other's.
	GUID uint64
	// TXG orders the snapshots of a dataset, on one machine, by when they came to be
	// there.
	TXG uint64
	// Created is when it was taken on the machine where it was first, in seconds.
	Created time.Time
	// Refers is how many bytes it refers to.
	Refers int64
	// Holds is how many holds keep it from being destroyed.
	Holds int
	// Job is the job that took it, if firedrill took it here; else "".
	Job string
}

// String is its full name.
func (s Snapshot) String() string { return s.Dataset + "@" + s.Name }

// Snapshots lists the snapshots of a dataset, oldest first, without those of the
// datasets below it. The error wraps ErrNotExist if there is no such dataset.
func (h *Host) Snapshots(ctx context.Context, dataset string) ([]Snapshot, error) {
	found, _, err := h.list(ctx, dataset)
	return found, err
}

// snapshotProperties are those that a Snapshot is made of.
const snapshotProperties = "guid,createtxg,creation,referenced,userrefs," + jobProperty

// list is Snapshots, and gives how many bytes the dataset itself refers to now: no longer
// as many as its newest snapshot, and it was written to since.
func (h *Host) list(ctx context.Context, dataset string) (found []Snapshot, now int64, err error) {
	if err := checkDataset(dataset); err != nil {
		return nil, 0, err
	}
	// zfs-fuse lists guids shortened; only get gives them whole.
	out, err := h.zfs(ctx, "get", "-Hp", "-r", "-d", "1", "-o", "name,property,value,source", snapshotProperties, dataset)
	if err == nil {
		found, now, err = parseSnapshots(dataset, out)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list the snapshots of %s: %w", dataset, err)
	}
	return found, now, nil
}

// Datasets lists a dataset and all file systems and volumes below it, each after the one
// that it lies in, without those that are there for a reading only. The error wraps
// ErrNotExist if there is no such dataset.
func (h *Host) Datasets(ctx context.Context, root string) ([]string, error) {
	if err := checkDataset(root); err != nil {
		return nil, err
	}
	out, err := h.zfs(ctx, "list", "-H", "-r", "-t", "filesystem,volume", "-o", "name", root)
	if err != nil {
		return nil, fmt.Errorf("list the datasets below %s: %w", root, err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSuffix(line, "\n")
		if strings.Contains(name, "/"+readingPrefix) {
			continue
		}
		if name != root && !strings.HasPrefix(name, root+"/") {
			return nil, fmt.Errorf("list the datasets below %s: zfs answers %q", root, name)
		}
		all = append(all, name)
	}
	slices.Sort(all) // a name comes before those that it begins
	return all, nil
}

// parseSnapshots reads the lines of zfs get; now is how many bytes the dataset itself
// refers to, if it is among them.
func parseSnapshots(dataset string, out []byte) (all []Snapshot, now int64, err error) {
	byName := map[string]*Snapshot{}
	for line := range bytes.Lines(out) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), "\t")
		if len(f) != 4 {
			return nil, 0, fmt.Errorf("zfs answers %q: want a name, a property, its value and its source", line)
		}
		of, name, ok := strings.Cut(f[0], "@")
		if of == dataset && !ok && f[1] == "referenced" {
			if now, err = strconv.ParseInt(f[2], 10, 64); err != nil {
				return nil, 0, fmt.Errorf("zfs answers %q: %w", line, err)
			}
		}
		if !ok || of != dataset {
			continue // the dataset itself, or one below it
		}
		s := byName[name]
		if s == nil {
			s = &Snapshot{Dataset: dataset, Name: name}
			byName[name] = s
		}
		if err := s.set(f[1], f[2], f[3]); err != nil {
			return nil, 0, fmt.Errorf("zfs answers %q: %w", line, err)
		}
	}
	for name, s := range byName {
		if s.GUID == 0 || s.TXG == 0 {
			return nil, 0, fmt.Errorf("zfs answers without the guid or the createtxg of %s@%s", dataset, name)
		}
		all = append(all, *s)
	}
	slices.SortFunc(all, inOrder)
	return all, now, nil
}

// inOrder sorts by age. Snapshots that one command took have one txg.
func inOrder(a, b Snapshot) int {
	return cmp.Or(cmp.Compare(a.TXG, b.TXG), cmp.Compare(a.Name, b.Name))
}

func (s *Snapshot) set(property, value, source string) (err error) {
	switch property {
	case "guid":
		s.GUID, err = strconv.ParseUint(value, 10, 64)
	case "createtxg":
		s.TXG, err = strconv.ParseUint(value, 10, 64)
	case "creation":
		var seconds int64
		seconds, err = strconv.ParseInt(value, 10, 64)
		s.Created = time.Unix(seconds, 0).UTC()
	case "referenced":
		s.Refers, err = strconv.ParseInt(value, 10, 64)
	case "userrefs":
		s.Holds, err = strconv.Atoi(value)
	case jobProperty:
		// A dataset's own is inherited by its snapshots.
		if source == "local" {
			s.Job = value
		}
	}
	return err
}

// Snapshot takes a snapshot and marks it as the job's.
func (h *Host) Snapshot(ctx context.Context, dataset, name, job string) (Snapshot, error) {
	if err := errors.Join(checkDataset(dataset), checkSnapshot(name), checkJob(job)); err != nil {
		return Snapshot{}, err
	}
	if _, err := h.zfs(ctx, "snapshot", "-o", jobProperty+"="+job, dataset+"@"+name); err != nil {
		return Snapshot{}, fmt.Errorf("take snapshot %s@%s: %w", dataset, name, err)
	}
	return h.look(ctx, dataset, name)
}

func checkSnapshot(name string) error {
	if len(name) > maxName || !snapshotName().MatchString(name) {
		return fmt.Errorf("snapshot %q: %w: use letters, digits, and -_.: between them", name, ErrName)
	}
	return nil
}

// look asks for one snapshot.
func (h *Host) look(ctx context.Context, dataset, name string) (Snapshot, error) {
	out, err := h.zfs(ctx, "get", "-Hp", "-o", "name,property,value,source", snapshotProperties, dataset+"@"+name)
	if err != nil {
		return Snapshot{}, fmt.Errorf("look at snapshot %s@%s: %w", dataset, name, err)
	}
	found, _, err := parseSnapshots(dataset, out)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("zfs answers with %d snapshots", len(found))
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("look at snapshot %s@%s: %w", dataset, name, err)
	}
	return found[0], nil
}

// mayGo makes sure that a name stands for the snapshot that was seen under it, and
// that nobody holds it.
func (h *Host) mayGo(ctx context.Context, s Snapshot) error {
	now, err := h.look(ctx, s.Dataset, s.Name)
	if err != nil {
		return err
	}
	switch {
	case now.GUID != s.GUID:
		return fmt.Errorf("%w: its guid was %d and is %d: another took its name", ErrNotExist, s.GUID, now.GUID)
	case now.Holds > 0:
		// ZFS only says that it is busy, which most often passes.
		return fmt.Errorf("%w: it has %d holds; release them, or wait until their owners do", ErrBusy, now.Holds)
	}
	return nil
}

// Destroy destroys a snapshot, if it is still the one that was seen. One that is
// gone is fine. Held ones are ErrBusy, those with clones ErrCloned.
func (h *Host) Destroy(ctx context.Context, s Snapshot) error {
	err := h.mayGo(ctx, s)
	if err == nil {
		err = h.destroy(ctx, s.String())
	}
	if err != nil && !errors.Is(err, ErrNotExist) {
		return fmt.Errorf("destroy snapshot %s: %w", s, err)
	}
	return nil
}

// destroy destroys one dataset or snapshot and nothing with it.
func (h *Host) destroy(ctx context.Context, name string) error {
	return h.retry(ctx, func() error {
		_, err := h.zfs(ctx, "destroy", name)
		return err
	})
}

// holdTag names a job's holds.
func holdTag(job string) string { return "firedrill:" + job }

// Hold keeps a snapshot from being destroyed by anybody until the job releases it.
// Holding it twice is fine.
func (h *Host) Hold(ctx context.Context, s Snapshot, job string) error {
	if err := checkJob(job); err != nil {
		return err
	}
	_, err := h.zfs(ctx, "hold", holdTag(job), s.String())
	if err != nil && !strings.Contains(err.Error(), "tag already exists") {
		return fmt.Errorf("hold %s: %w", s, err)
	}
	return nil
}

// Release lets go what Hold held; a snapshot that the job does not hold, or that is
// gone, is fine.
func (h *Host) Release(ctx context.Context, s Snapshot, job string) error {
	if err := checkJob(job); err != nil {
		return err
	}
	_, err := h.zfs(ctx, "release", holdTag(job), s.String())
	if err != nil && !errors.Is(err, ErrNotExist) && !strings.Contains(err.Error(), "no such tag") {
		return fmt.Errorf("release %s: %w", s, err)
	}
	return nil
}

// held are those that somebody holds.
func held(snapshots []Snapshot) (out []Snapshot) {
	for _, s := range snapshots {
		if s.Holds > 0 {
			out = append(out, s)
		}
	}
	return out
}

// holdOnly releases the job's holds on all but one.
func holdOnly(ctx context.Context, h *Host, snapshots []Snapshot, keep Snapshot, job string) error {
	for _, s := range snapshots {
		if s.GUID != keep.GUID {
			if err := h.Release(ctx, s, job); err != nil {
				return err
			}
		}
	}
	return nil
}

// property reads one property of a dataset.
func (h *Host) property(ctx context.Context, dataset, name string) (string, error) {
	out, err := h.zfs(ctx, "get", "-Hp", "-o", "value", name, dataset)
	if err != nil {
		return "", fmt.Errorf("look at %s of %s: %w", name, dataset, err)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
