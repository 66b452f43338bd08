package zfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// Config describes a pool, the dataset in which its canaries live, and what a drill
// may break.
type Config struct {
	Pool string `json:"pool"`
	// Dataset is where the canaries live. It should be of their own.
	Dataset string `json:"dataset"`
	// Directory is where firedrill's machine sees the root of the dataset: its
	// mountpoint, or that of its export by NFS. Probes write and read below it.
	Directory string `json:"directory"`
	// Prefix is the directory of the canaries in the dataset; "firedrill" if left
	// out. It is made when missing.
	Prefix string `json:"prefix"`
	// BreakableVdevs are the disks, partitions or files of the pool that a drill may
	// break, by their paths on the pool's machine. No other one is written to or
	// taken away.
	BreakableVdevs []string `json:"breakableVdevs"`
	// BreakableFiles are files and directories of the dataset, beside the canaries,
	// of which a drill may damage blocks, relative to the dataset's root.
	BreakableFiles []string `json:"breakableFiles"`
	// StateDir, on the pool's machine, keeps firedrill's own small state: timers, and
	// what is broken. It lies outside the pool.
	StateDir string         `json:"stateDir"`
	Control  control.Config `json:"control"`
}

const defaultPrefix = "firedrill"

// What names may be: they are arguments of commands, and words of their output.
var (
	poolName    = lazy.Regexp(`^[A-Za-z][-A-Za-z0-9_.:]{0,254}$`)
	datasetName = lazy.Regexp(`^[A-Za-z][-A-Za-z0-9_.:]*(/[-A-Za-z0-9_.:]+)*$`)
	vdevPath    = lazy.Regexp(`^(/[-A-Za-z0-9_.:+@=]+)+$`)
)

// maxDataset is how long a dataset's name may be.
const maxDataset = 255

// parseConfig reads and checks a configuration without touching anything.
func parseConfig(raw json.RawMessage) (Config, error) {
	var c Config
	if err := strict.Decode(raw, &c); err != nil {
		return c, err
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	var p strict.Problems
	c.check(&p)
	return c, errors.Join(p...)
}

func (c Config) check(p *strict.Problems) {
	if !poolName().MatchString(c.Pool) {
		p.Add("pool", c.Pool, "give the pool's name, as zpool list shows it")
	}
	switch {
	case !datasetName().MatchString(c.Dataset) || len(c.Dataset) > maxDataset || path.Clean(c.Dataset) != c.Dataset:
		p.Add("dataset", c.Dataset, "give the dataset of the canaries, such as tank/firedrill")
	case !strict.Within(c.Dataset, c.Pool):
		p.Add("dataset", c.Dataset, "choose a dataset of the pool "+c.Pool)
	}
	p.Absolute("directory", c.Directory)
	if !canary.CleanName(c.Prefix) {
		p.Add("prefix", c.Prefix, "give a relative path without empty parts, . and ..")
	}
	p.Absolute("stateDir", c.StateDir)
	if strict.Within(c.StateDir, c.Directory) {
		p.Add("stateDir", c.StateDir, "choose a directory outside the dataset: it must be there when the pool is not")
	}
	if len(c.BreakableVdevs) == 0 {
		p.Add("breakableVdevs", "", "missing: list the disks or files of the pool that a drill may break, by their paths")
	}
	for i, v := range c.BreakableVdevs {
		at := fmt.Sprintf("breakableVdevs[%d]", i)
		if !vdevPath().MatchString(v) || path.Clean(v) != v {
			p.Add(at, v, "give the absolute path of a disk, partition or file of the pool, of letters, digits and -_.:+@=")
		} else if slices.Contains(c.BreakableVdevs[:i], v) {
			p.Add(at, v, "listed twice")
		}
	}
	for i, f := range c.BreakableFiles {
		if !canary.CleanName(f) {
			p.Add(fmt.Sprintf("breakableFiles[%d]", i), f, "give a path relative to the dataset's root, without empty parts, . and ..; a drill may damage every file there")
		}
	}
	p.Place("control", c.Control)
}
