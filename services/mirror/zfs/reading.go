package zfs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// readingPrefix begins the names of the snapshots and clones that are there only to
// be read, and are never replicated.
const readingPrefix = "firedrill-read-"

// cleanUp bounds putting things back after the context of the work has ended.
const cleanUp = time.Minute

// Reading is a dataset as it was at one moment, mounted read-only. It is a clone of
// a snapshot: zfs-fuse has no .zfs directory to read one in.
type Reading struct {
	// Path is where it is mounted, on the machine of the Host.
	Path string
	// FS says which dataset it is of: the same for every reading of it, and for no
	// other. A file's inode is the dataset's own.
	FS entry.FSID
	// Snapshot is the moment.
	Snapshot Snapshot

	host  *Host
	clone string
	kept  bool
}

// ReadOptions say how a dataset is read.
type ReadOptions struct {
	// Job marks what is made, so that Sweep finds what a crash left.
	Job string
	// Dir is the absolute path of the directory to mount it below.
	Dir string
}

// Read takes a snapshot of a dataset and mounts it. The caller closes it; on error
// nothing is left.
func (h *Host) Read(ctx context.Context, dataset string, o ReadOptions) (_ *Reading, err error) {
	if err := errors.Join(checkDataset(dataset), checkJob(o.Job)); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("read %s: the directory %q to mount it below must be absolute", dataset, o.Dir)
	}
	id, err := h.FSID(ctx, dataset)
	if err != nil {
		return nil, err
	}
	name := readingPrefix + o.Job + "-" + strings.ToLower(rand.Text()[:12])
	r := &Reading{Path: filepath.Join(o.Dir, name), FS: id, host: h, clone: dataset + "/" + name}
	if r.Snapshot, err = h.Snapshot(ctx, dataset, name, o.Job); err != nil {
		// Looking at it may have failed after it was taken.
		r.Snapshot = Snapshot{Dataset: dataset, Name: name}
	} else {
		err = r.mount(ctx, o.Job)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", dataset, err), r.Close(ctx))
	}
	return r, nil
}

func (r *Reading) mount(ctx context.Context, job string) error {
	// With noauto a clone that a crash leaves is not mounted at the next boot.
	if _, err := r.host.zfs(ctx, "clone", "-o", "readonly=on", "-o", "canmount=noauto", "-o", "mountpoint="+r.Path,
		"-o", jobProperty+"="+job, r.Snapshot.String(), r.clone); err != nil {
		return err
	}
	// zfs-fuse has mounted it all the same.
	mounted, err := r.host.property(ctx, r.clone, "mounted")
	if err == nil && mounted != "yes" {
		_, err = r.host.zfs(ctx, "mount", r.clone)
	}
	return err
}

// Keep lets the snapshot stay when the reading is closed, so that [Host.Changes] can
// compare a later one with it. It stays until a Sweep of the job is told to keep another
// one; whoever destroys it before does no harm.
func (r *Reading) Keep() { r.kept = true }

// Close unmounts and removes what Read made and Keep does not keep, also when ctx has
// ended. It may be called again.
func (r *Reading) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	made := []string{r.clone, r.Snapshot.String()}
	if r.kept {
		made = made[:1]
	}
	for _, name := range made {
		if err := r.host.destroy(ctx, name); err != nil && !errors.Is(err, ErrNotExist) {
			return fmt.Errorf("end the reading of %s: %w", r.Snapshot.Dataset, err)
		}
	}
	return removeMountpoint(r.Path)
}

// removeMountpoint removes the empty directory that ZFS leaves. Of another machine
// there is none here.
func removeMountpoint(path string) error {
	if !strings.HasPrefix(filepath.Base(path), readingPrefix) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mount point: %w", err)
	}
	return nil
}

// IsReplica reports whether a dataset is kept as it was received, as replication leaves its
// targets: a snapshot that is taken there keeps the next one from being received.
func (h *Host) IsReplica(ctx context.Context, dataset string) (bool, error) {
	have, err := h.property(ctx, dataset, "readonly")
	return have == "on", err
}

// FSID is the identity of a dataset as a file system: the same after a reboot, and
// in each of its readings.
func (h *Host) FSID(ctx context.Context, dataset string) (entry.FSID, error) {
	var id entry.FSID
	if err := checkDataset(dataset); err != nil {
		return id, err
	}
	value, err := h.property(ctx, dataset, "guid")
	if err != nil {
		return id, err
	}
	guid, err := strconv.ParseUint(value, 10, 64)
	if err != nil || guid == 0 {
		return id, fmt.Errorf("the guid of %s is %q: want a number", dataset, value)
	}
	copy(id[:8], "zfs-guid")
	binary.BigEndian.PutUint64(id[8:], guid)
	return id, nil
}

// Swept is what a Sweep found.
type Swept struct {
	// Removed are the names of what it removed.
	Removed []string
	// Kept is the snapshot that it was told to keep; nil if that is not there.
	Kept *Snapshot
}

// Sweep removes what readings of a dataset by the job have left, because they crashed or
// were to keep it, but for the snapshot with the guid keep; 0 is none. No reading of the
// job may be open: the caller has the job to itself. Snapshots that somebody holds, or
// made clones of, are left to them.
func (h *Host) Sweep(ctx context.Context, dataset, job string, keep uint64) (swept Swept, err error) {
	if err := errors.Join(checkDataset(dataset), checkJob(job)); err != nil {
		return swept, err
	}
	clones, err := h.leftClones(ctx, dataset, job)
	if err != nil {
		return swept, fmt.Errorf("sweep %s: %w", dataset, err)
	}
	snapshots, err := h.Snapshots(ctx, dataset)
	if err != nil {
		return swept, err
	}
	for _, c := range clones {
		if err := h.destroy(ctx, c.name); err != nil && !errors.Is(err, ErrNotExist) {
			return swept, fmt.Errorf("sweep %s: %w", dataset, err)
		}
		swept.Removed = append(swept.Removed, c.name)
		if err := removeMountpoint(c.mountpoint); err != nil {
			return swept, fmt.Errorf("sweep %s: %w", dataset, err)
		}
	}
	for _, s := range snapshots {
		if s.Job != job || !strings.HasPrefix(s.Name, readingPrefix) {
			continue
		}
		if s.GUID == keep {
			swept.Kept = &s
			continue
		}
		err := h.Destroy(ctx, s)
		if errors.Is(err, ErrBusy) || errors.Is(err, ErrCloned) {
			continue
		}
		if err != nil {
			return swept, err
		}
		swept.Removed = append(swept.Removed, s.String())
	}
	return swept, nil
}

// leftClone is a clone that only a crash can have left.
type leftClone struct{ name, mountpoint string }

// leftClones finds the job's clones. What is destroyed then is a dataset, so all
// has to fit: where it is, its name, its mark and what it was made of.
func (h *Host) leftClones(ctx context.Context, dataset, job string) ([]leftClone, error) {
	out, err := h.zfs(ctx, "get", "-Hp", "-r", "-d", "1", "-o", "name,property,value,source",
		"origin,mountpoint,"+jobProperty, dataset)
	if err != nil {
		return nil, err
	}
	type signs struct{ origin, job bool }
	seen := map[string]signs{}
	mountpoints := map[string]string{}
	for line := range bytes.Lines(out) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), "\t")
		if len(f) != 4 || !strings.HasPrefix(f[0], dataset+"/"+readingPrefix) {
			continue
		}
		s := seen[f[0]]
		switch f[1] {
		case "origin":
			s.origin = strings.HasPrefix(f[2], dataset+"@"+readingPrefix)
		case "mountpoint":
			mountpoints[f[0]] = f[2]
		case jobProperty:
			s.job = f[2] == job && f[3] == "local"
		}
		seen[f[0]] = s
	}
	var left []leftClone
	for name, s := range seen {
		if s.origin && s.job {
			left = append(left, leftClone{name, mountpoints[name]})
		}
	}
	slices.SortFunc(left, func(a, b leftClone) int { return strings.Compare(a.name, b.name) })
	return left, nil
}
