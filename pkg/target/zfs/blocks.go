package zfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/pkg/target/canary"
)

// What every vdev keeps for itself, in bytes: two labels and room to boot from before
// the data, two more labels after it. Blocks are counted from the first data on.
const (
	labelsBefore = 4 << 20
	sector       = 512
)

// label is what a vdev says of itself: the pool it belongs to, and its mirror.
type label struct {
	pool string // its guid
	// top is the number of the mirror in the pool, size how much data it takes.
	top    int64
	size   int64
	mirror bool
	// self is the vdev's own guid, paths are by the guids of all disks of the mirror.
	self  string
	paths map[string]string
}

// others are the paths of the mirror's other disks.
func (l label) others() []string {
	var out []string
	for guid, path := range l.paths {
		if guid != l.self {
			out = append(out, path)
		}
	}
	return out
}

// labelLine is a name and a value of a label as zdb prints it, set in by four blanks
// for each level.
var labelLine = lazy.Regexp(`^( *)([a-z_]+(?:\[\d+\])?)[:=] ?(.*)$`)

// parseLabel reads the first whole label that zdb -l prints.
func parseLabel(text string) (label, error) {
	l := label{paths: map[string]string{}}
	var in [8]string // the names of the levels above
	guid := ""
	for line := range strings.Lines(text) {
		m := labelLine().FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if strings.HasPrefix(line, "LABEL ") && l.self != "" {
			break
		}
		depth := 0
		if m != nil {
			depth = len(m[1]) / 4
		}
		if m == nil || depth < 1 || depth >= len(in) {
			continue
		}
		in[depth] = m[2]
		value := strings.Trim(m[3], "'")
		n, _ := strconv.ParseInt(value, 10, 64) // what is no number is not asked for as one
		child := depth == 3 && in[1] == "vdev_tree" && strings.HasPrefix(in[2], "children[")
		switch name := m[2]; {
		case depth == 1 && name == "pool_guid":
			l.pool = value
		case depth == 1 && name == "guid":
			l.self = value
		case depth == 2 && in[1] == "vdev_tree" && name == "type":
			l.mirror = value == "mirror"
		case depth == 2 && in[1] == "vdev_tree" && name == "id":
			l.top = n
		case depth == 2 && in[1] == "vdev_tree" && name == "asize":
			l.size = n
		case child && name == "guid":
			guid = value
		case child && name == "path":
			l.paths[guid] = value
		}
	}
	if l.pool == "" || l.self == "" || l.size <= 0 {
		return l, fmt.Errorf("no label that is understood: %q", clip(text, 200))
	}
	return l, nil
}

// label reads the label of a disk, which is there whether the pool runs or not.
func (p *pool) label(ctx context.Context, vdev string) (label, error) {
	out, err := p.run(ctx, "read the label of "+vdev, `zdb -l -- "$1"`, vdev)
	if err != nil && out == "" {
		return label{}, err
	}
	l, err := parseLabel(out)
	if err != nil {
		return l, fmt.Errorf("vdev %s: %w", vdev, err)
	}
	return l, nil
}

// ownLabel is label for a disk that a drill may break: it is of this pool, and one
// of a mirror.
func (p *pool) ownLabel(ctx context.Context, vdev, guid string) (label, error) {
	l, err := p.label(ctx, vdev)
	switch {
	case err != nil:
		return l, err
	case l.pool != guid:
		return l, fmt.Errorf("%s belongs to pool %s, not to %s, which is %s: %w", vdev, l.pool, p.cfg.Pool, guid, ErrFence)
	case !l.mirror || len(l.paths) < 2 || l.paths[l.self] == "":
		return l, fmt.Errorf("%w: by its label %s is in no mirror", ErrUnfit, vdev)
	}
	return l, nil
}

// block is where a part of a file lies.
type block struct {
	// object is the file's number, offset where the part begins in it.
	object, offset int64
	// top is the mirror's number, at where the block begins after the labels.
	top, at int64
	// takes is how much room it takes there, holds how much of that is data: what
	// zpool calls physical, after compression. length is what it is before.
	takes, holds, length int64
}

var (
	objectLine = lazy.Regexp(`^ +(\d+) +\d+ +\S+ +\S+ `)
	blockLine  = lazy.Regexp(`^ *([0-9a-f]+) +L0 ([0-9a-f]+):([0-9a-f]+):([0-9a-f]+) (?:[0-9a-f]+:[0-9a-f]+:[0-9a-f]+ )*([0-9a-f]+)L/([0-9a-f]+)P `)
)

// parseBlocks reads which blocks of data zdb -ddddd finds of files.
func parseBlocks(text string) ([]block, error) {
	var out []block
	object := int64(-1)
	for line := range strings.Lines(text) {
		if m := objectLine().FindStringSubmatch(line); m != nil {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("object %q: %w", m[1], err)
			}
			if object = n; !strings.Contains(line, "ZFS plain file") {
				object = -1
			}
			continue
		}
		m := blockLine().FindStringSubmatch(line)
		if m == nil || object < 0 {
			continue
		}
		b := block{object: object}
		for i, into := range []*int64{&b.offset, &b.top, &b.at, &b.takes, &b.length, &b.holds} {
			n, err := strconv.ParseInt(m[i+1], 16, 64)
			if err != nil {
				return nil, fmt.Errorf("block %q: %w", strings.TrimSpace(line), err)
			}
			*into = n
		}
		out = append(out, b)
	}
	return out, nil
}

// fits reports whether a block lies whole in the data of the mirror that a label
// tells of, so that nothing else can be hit.
func (b block) fits(l label) bool {
	return b.top == l.top && b.at >= 0 && b.takes > 0 && b.holds > 0 && b.holds <= b.takes && b.takes <= l.size &&
		b.at <= l.size-b.takes && b.at%sector == 0 && b.takes%sector == 0
}

// file is a file of the dataset that a drill may damage.
type file struct {
	object, size int64
	// name is its path from the dataset's root.
	name string
}

// filesScript prints number, size and path of regular files of the dataset, at or
// below a path from its root. Those that certainly lie where they stay are preferred.
const filesScript = `[ "$(zfs get -H -o value mounted -- "$1")" = yes ] || { echo "dataset $1 is not mounted" >&2; exit 1; }
root=$(zfs get -H -o value mountpoint -- "$1") && cd -- "$root" || exit 1
[ -e "./$2" ] || exit 0
case $(readlink -f -- "./$2") in "$(pwd -P)"/*) ;; *) echo "$2 leads out of the dataset" >&2; exit 1 ;; esac
list() { at=$1 most=$2; shift 2; find "./$at" -xdev -type f -size +0 ! -name '*.new' "$@" -printf '%i %s %p\n' | head -n "$most"; }
old=$(list "$2" "$3" ! -newermt '35 seconds ago')
[ -z "$old" ] || { printf '%s\n' "$old"; exit 0; }
list "$2" "$3"`

// errNoFiles says that there is nothing to damage yet.
var errNoFiles = errors.New("there is no file of a size that could be damaged")

// files lists the files at or below a path of the dataset that are not too large.
func (p *pool) files(ctx context.Context, at string) ([]file, error) {
	const most = 1000
	out, err := p.run(ctx, "list files of "+p.cfg.Dataset, filesScript, p.cfg.Dataset, at, strconv.Itoa(most))
	if err != nil {
		return nil, err
	}
	var all []file
	for line := range strings.Lines(out) {
		words := strings.SplitN(strings.TrimRight(line, "\n"), " ", 3)
		name, ok := strings.CutPrefix(words[len(words)-1], "./")
		if len(words) != 3 || !ok {
			continue // a name with a line break: not one of ours
		}
		object, err := strconv.ParseInt(words[0], 10, 64)
		size, serr := strconv.ParseInt(words[1], 10, 64)
		if err = errors.Join(err, serr); err != nil {
			return nil, fmt.Errorf("files of %s: %q: %w", p.cfg.Dataset, line, err)
		}
		if size <= maxDamage && canary.CleanName(name) {
			all = append(all, file{object, size, path.Clean(name)})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s in %s: %w", at, p.cfg.Dataset, errNoFiles)
	}
	return all, nil
}

// blocks finds the blocks of files on the disks: those that ZFS has written there.
func (p *pool) blocks(ctx context.Context, files []file) ([]block, error) {
	// zdb ends at the first file that is not on the disks yet. Files get their numbers
	// in turn, so the older ones have been told of by then.
	args := []string{p.cfg.Dataset}
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b file) int { return cmp.Compare(a.object, b.object) }) {
		args = append(args, strconv.FormatInt(f.object, 10))
	}
	out, err := p.run(ctx, "find the blocks of files", `zdb -ddddd -- "$@"`, args...)
	all, perr := parseBlocks(out)
	if perr != nil || err != nil && len(all) == 0 && ctx.Err() != nil {
		return nil, errors.Join(err, perr)
	}
	return all, nil
}
