package zfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// ErrUnfit is returned for a pool that a drill must not break: it has no redundancy
// to spare, or is being mended.
var ErrUnfit = errors.New("the pool is not fit to be broken")

// What zpool status says of what is well.
const (
	online     = "ONLINE"
	degraded   = "DEGRADED"
	offline    = "OFFLINE"
	noDataLost = "No known data errors"
)

// status is what zpool status says of one pool.
type status struct {
	// text is all of it, for people.
	text  string
	state string
	// scan is about the latest scrub or resilver: zfs-fuse calls it scrub.
	scan   string
	errors string
	vdevs  []vdev
	// fault is the token of the fault that is outstanding on the pool; damage is what
	// it has damaged and nothing has repaired.
	fault  string
	damage []string
}

// vdev is a line of a pool's tree, in the tree's order: the pool itself, a mirror,
// a disk.
type vdev struct {
	name  string
	depth int
	state string
	// counts are the numbers of read, write and checksum errors, as text: large ones
	// are rounded. It is empty where none are kept, as for a spare.
	counts []string
}

// clean reports whether no error is counted.
func (v vdev) clean() bool {
	for _, n := range v.counts {
		if n != "0" {
			return false
		}
	}
	return true
}

func (v vdev) String() string { return v.name + " " + v.state + " " + strings.Join(v.counts, " ") }

// keyLine is a line that begins a part of the status. All others begin with a tab.
var keyLine = lazy.Regexp(`^ *([a-z]+): *(.*)$`)

// parseStatus reads what zpool status prints for one pool, and the script of look.
func parseStatus(text string) (status, error) {
	s := status{text: text}
	parts := map[string][]string{}
	key := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		m := keyLine().FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "\t") && key == "config":
			s.addVdev(line)
		case strings.HasPrefix(line, "\t") && key != "":
			parts[key] = append(parts[key], strings.TrimSpace(line))
		case m != nil && m[1] == "fault":
			s.fault = m[2]
		case m != nil && m[1] == "damage":
			s.damage = append(s.damage, m[2])
		case m != nil:
			key = m[1]
			parts[key] = append(parts[key], m[2])
		}
	}
	part := func(keys ...string) string {
		for _, k := range keys {
			if words := parts[k]; len(words) > 0 {
				return strings.TrimSpace(strings.Join(words, " "))
			}
		}
		return ""
	}
	s.state, s.scan, s.errors = part("state"), part("scan", "scrub"), part("errors")
	if s.state == "" || len(s.vdevs) == 0 {
		return s, fmt.Errorf("zpool status says nothing that is understood: %q", clip(text, 300))
	}
	return s, nil
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// addVdev reads a line of the tree. Each level is set in by two blanks.
func (s *status) addVdev(line string) {
	line = strings.TrimPrefix(line, "\t")
	words := strings.Fields(line)
	if len(words) < 2 || words[0] == "NAME" {
		return // the head of the table, or of a list of logs, caches or spares
	}
	v := vdev{name: words[0], depth: (len(line) - len(strings.TrimLeft(line, " "))) / 2, state: words[1]}
	if len(words) >= 5 {
		v.counts = words[2:5]
	}
	s.vdevs = append(s.vdevs, v)
}

// running is the scrub or resilver that is under way; "" without one.
func (s status) running() string {
	if strings.Contains(s.scan, "in progress") || strings.Contains(s.scan, "paused") {
		return s.scan
	}
	return ""
}

// resilvering reports whether a disk does not hold yet all that the rest of its mirror
// does.
func (s status) resilvering() bool {
	return s.running() != "" && strings.HasPrefix(s.scan, "resilver")
}

// scanErrors is how a finished scan tells of what it could not repair.
var scanErrors = lazy.Regexp(`with (\d+) errors?`)

// scrubbed reports whether the latest scan was a scrub that went to the end, and how
// many errors it could not repair.
func (s status) scrubbed() (errors int64, ok bool) {
	m := scanErrors().FindStringSubmatch(s.scan)
	if m == nil || !strings.HasPrefix(s.scan, "scrub ") || s.running() != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return n, err == nil
}

// problems says what of the pool is not well; nothing if all is.
func (s status) problems() []string {
	var out []string
	if s.state != online {
		out = append(out, "the pool is "+s.state)
	}
	for _, v := range s.vdevs {
		switch {
		case v.state == "AVAIL": // a spare
		case v.state != online:
			out = append(out, v.name+" is "+v.state)
		case !v.clean():
			out = append(out, fmt.Sprintf("%s has read, write and checksum errors: %s", v.name, strings.Join(v.counts, ", ")))
		}
	}
	if s.errors != noDataLost {
		out = append(out, s.errors)
	}
	if s.resilvering() {
		out = append(out, s.scan)
	}
	for _, d := range s.damage {
		out = append(out, "the damage of a fault is not repaired: "+d)
	}
	return out
}

// is reports whether a vdev's path is shown by this name: whole, without /dev, or only
// the end of it, which of a disk that ZFS has partitioned is without the partition.
func (v vdev) is(p string) bool {
	if v.name == p || "/dev/"+v.name == p {
		return true
	}
	if strings.Contains(v.name, "/") || !strings.HasPrefix(p, "/dev/") {
		return false
	}
	return slices.Contains([]string{v.name, v.name + "-part1", v.name + "p1", v.name + "1"}, path.Base(p))
}

// leaf finds a disk of the pool by its path, and the others of its mirror.
func (s status) leaf(path string) (found vdev, others []vdev, err error) {
	at, parent := -1, -1
	for i, v := range s.vdevs {
		if !v.is(path) {
			continue
		}
		if at >= 0 {
			return vdev{}, nil, fmt.Errorf("%s may be %s or %s of the pool: give the path that zpool status shows", path, s.vdevs[at].name, v.name)
		}
		at = i
	}
	if at < 0 {
		return vdev{}, nil, fmt.Errorf("%s is no disk of the pool", path)
	}
	found = s.vdevs[at]
	for i := at; i >= 0 && parent < 0; i-- {
		if s.vdevs[i].depth < found.depth {
			parent = i
		}
	}
	if parent < 0 || !strings.HasPrefix(s.vdevs[parent].name, "mirror") {
		return found, nil, nil
	}
	for i := parent + 1; i < len(s.vdevs) && s.vdevs[i].depth >= found.depth; i++ {
		if i != at && s.vdevs[i].depth == found.depth {
			others = append(others, s.vdevs[i])
		}
	}
	return found, others, nil
}

// unfit says why a drill must not break a disk of the pool as it is.
func (s status) unfit(path string) error {
	if r := s.running(); r != "" {
		return fmt.Errorf("%w: %s; wait until it is over", ErrUnfit, r)
	}
	if s.fault != "" {
		return fmt.Errorf("%w: another fault, %s, is not undone yet", ErrUnfit, s.fault)
	}
	if p := s.problems(); len(p) > 0 {
		return fmt.Errorf("%w: %s; mend it first (zpool status, zpool clear)", ErrUnfit, strings.Join(p, "; "))
	}
	_, others, err := s.leaf(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	if len(others) == 0 {
		return fmt.Errorf("%w: nothing mirrors %s, so what is broken there is lost", ErrUnfit, path)
	}
	return nil
}

// lookScript prints the pool's status, then which fault is outstanding, if one is, and
// the spots that are still as it left them.
const lookScript = spotScript + `zpool status -- "$1" || exit 1
[ ! -e "$2" ] || { read -r token && echo "fault: $token" && while read -r vdev spot; do
  still "$vdev" "$spot"; case $? in 0) echo "damage: $vdev ${spot%:*}" ;; 1) ;; *) exit 1 ;; esac
done; } <"$2"`

// look asks the pool how it is.
func (p *pool) look(ctx context.Context) (status, error) {
	out, err := p.run(ctx, "look at the pool", lookScript, p.cfg.Pool, p.marker().File)
	if err != nil {
		return status{}, err
	}
	s, err := parseStatus(out)
	if err != nil {
		return s, fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	return s, nil
}
