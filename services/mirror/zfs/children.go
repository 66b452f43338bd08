package zfs

import (
	"context"
	"fmt"
	"strings"
)

// Child is a file system below a dataset that is mounted, or is to be, in that one's tree:
// what a reading of the dataset does not hold.
type Child struct {
	Dataset string
	// Path is where in the tree, with '/' between the components and none at either end.
	Path string
}

// Children lists the children of a dataset, in the order of their names. Of what has a
// mount point that ZFS does not know ("legacy") nothing tells where it lies, nor of what lies
// below a dataset with such a one.
func (h *Host) Children(ctx context.Context, dataset string) ([]Child, error) {
	if err := checkDataset(dataset); err != nil {
		return nil, err
	}
	out, err := h.zfs(ctx, "list", "-H", "-r", "-t", "filesystem", "-s", "name", "-o", "name,canmount,mounted,mountpoint", dataset)
	if err != nil {
		return nil, fmt.Errorf("list the file systems below %s: %w", dataset, err)
	}
	all, err := parseChildren(dataset, string(out))
	if err != nil {
		return nil, fmt.Errorf("list the file systems below %s: %w", dataset, err)
	}
	return all, nil
}

func parseChildren(dataset, out string) (all []Child, err error) {
	root := ""
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 4)
		if len(f) != 4 {
			return nil, fmt.Errorf("zfs answers %q: want a name and three properties", line)
		}
		name, mounted, at := f[0], f[1] == "on" || f[2] == "yes", f[3]
		switch {
		case name == dataset:
			root = strings.TrimSuffix(at, "/") + "/"
		case root == "":
			return nil, fmt.Errorf("zfs answers %q before %q", name, dataset)
		case strings.Contains(name, "/"+readingPrefix) || !mounted:
		default:
			if path, in := strings.CutPrefix(at, root); in && path != "" {
				all = append(all, Child{Dataset: name, Path: path})
			}
		}
	}
	return all, nil
}
