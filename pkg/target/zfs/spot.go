package zfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lazy"
)

// What one fault may damage at most, in bytes and in places.
const (
	maxDamage = 1 << 20
	maxSpots  = 128
)

// spot is a place on a disk that a fault damages: one block.
type spot struct {
	// At is where it begins on the disk, Bytes the room it takes, and Holds how much
	// of that is data. What comes after is covered by no checksum of ZFS's.
	At    int64 `json:"at"`
	Bytes int64 `json:"bytes"`
	Holds int64 `json:"holds"`
	// Sum is the SHA-256 of all of it before the fault, Damaged after.
	Sum     string `json:"sum"`
	Damaged string `json:"damaged"`
	// File is whose block it is, from the dataset's root.
	File string `json:"file"`
}

var sumForm = lazy.Regexp(`^[0-9a-f]{64}$`)

// valid reports whether a fault may have planned it: between the labels, in sectors.
func (s spot) valid() bool {
	return s.At >= labelsBefore && s.At%sector == 0 && s.Bytes > 0 && s.Bytes%sector == 0 && s.Bytes <= maxDamage &&
		s.Holds > 0 && s.Holds <= s.Bytes && sumForm().MatchString(s.Sum) && sumForm().MatchString(s.Damaged)
}

// arg is how scripts take a spot, with the sum that it has once it is damaged.
func (s spot) arg() string { return fmt.Sprintf("%d:%d:%s", s.At, s.Bytes, s.Damaged) }

func spotArgs(spots []spot) []string {
	out := make([]string, len(spots))
	for i, s := range spots {
		out[i] = s.arg()
	}
	return out
}

// damage inverts what a spot holds. No checksum of ZFS's can be that of both.
func (s spot) damage(raw []byte) []byte {
	out := slices.Clone(raw)
	for i := range min(int(s.Holds), len(out)) {
		out[i] ^= 0xff
	}
	return out
}

func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// spotScript defines get, which prints bytes of a file or disk, and still, which tells
// whether a spot is as the fault left it: 0 if so, 1 if not, 2 if it cannot be read.
// What the kernel remembers of a disk is not what ZFS has written to it since.
const spotScript = `get() {
  set -- "$1" $(($2)) $(($3)) 512 fullblock
  [ $(($2 % 4096 + $3 % 4096)) != 0 ] || set -- "$1" "$2" "$3" 4096 fullblock
  [ ! -b "$1" ] || set -- "$1" "$2" "$3" "$4" direct
  dd if="$1" bs="$4" skip=$(($2 / $4)) count=$((($3 + $4 - 1) / $4)) iflag="$5" status=none
}
still() {
  set -- "$1" "${2%%:*}" "${2#*:}"
  is=$({ { get "$1" "$2" "${3%%:*}" || echo unreadable >&3; } | sha256sum; } 3>&1)
  case "$is" in *unreadable*) return 2 ;; esac
  [ "${is%% *}" = "${3#*:}" ]
}
`

// readScript prints the spots of a disk, one after the other.
const readScript = spotScript + `vdev=$1; shift; for s; do n=${s#*:}; get "$vdev" "${s%%:*}" "${n%%:*}" || exit 1; done`

// readSpots reads places of a disk, past ZFS.
func (p *pool) readSpots(ctx context.Context, vdev string, spots []spot) ([][]byte, error) {
	raw, err := p.host.Run(ctx, control.Command{What: "read " + vdev, Script: prelude + readScript, Args: append([]string{vdev}, spotArgs(spots)...)})
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	out := make([][]byte, len(spots))
	for i, s := range spots {
		if int64(len(raw)) < s.Bytes {
			return nil, fmt.Errorf("pool %s: %s ends before %d", p.cfg.Pool, vdev, s.At+s.Bytes)
		}
		out[i], raw = raw[:s.Bytes], raw[s.Bytes:]
	}
	return out, nil
}

// contentScript prints parts of files of the dataset: of each its name, offset, and
// bytes.
const contentScript = spotScript + `root=$(zfs get -H -o value mountpoint -- "$1") && cd -- "$root" && shift || exit 1
while [ $# -gt 0 ]; do get "./$1" "$2" "$3" || exit 1; shift 3; done`

// part is what a block holds of a file, as a reader gets it.
type part struct {
	block
	file file
}

// size is how much of the file the block holds: the last one may be filled up.
func (p part) size() int64 { return min(p.length, p.file.size-p.offset) }

// contents reads parts of files through ZFS.
func (p *pool) contents(ctx context.Context, parts []part) ([][]byte, error) {
	args := []string{p.cfg.Dataset}
	for _, x := range parts {
		args = append(args, x.file.name, strconv.FormatInt(x.offset, 10), strconv.FormatInt(x.size(), 10))
	}
	raw, err := p.host.Run(ctx, control.Command{What: "read files of " + p.cfg.Dataset, Script: prelude + contentScript, Args: args})
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	out := make([][]byte, len(parts))
	for i, x := range parts {
		if int64(len(raw)) < x.size() {
			return nil, fmt.Errorf("%s in %s was written to meanwhile: plan again", x.file.name, p.cfg.Dataset)
		}
		out[i], raw = raw[:x.size()], raw[x.size():]
	}
	return out, nil
}

// spots are where parts of files lie on a disk. Each is proven to: the disk holds
// there what the file does, and so does every other disk of the mirror, so that ZFS
// can repair it. Parts that are compressed or encrypted cannot be proven, and are
// left out.
func (p *pool) spots(ctx context.Context, vdev string, l label, parts []part) ([]spot, error) {
	var all []spot
	var plain []part
	for _, x := range parts {
		s := spot{At: labelsBefore + x.at, Bytes: x.takes, Holds: x.holds, File: x.file.name}
		if x.fits(l) && x.holds == x.length && x.size() > 0 {
			all, plain = append(all, s), append(plain, x)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	want, err := p.contents(ctx, plain)
	if err != nil {
		return nil, err
	}
	here, err := p.readSpots(ctx, vdev, all)
	if err != nil {
		return nil, err
	}
	var there [][][]byte
	for _, other := range l.others() {
		raw, err := p.readSpots(ctx, other, all)
		if err != nil {
			return nil, fmt.Errorf("the other side of the mirror: %w", err)
		}
		there = append(there, raw)
	}
	var out []spot
	for i, s := range all {
		same := bytes.HasPrefix(here[i], want[i])
		for _, raw := range there {
			same = same && bytes.Equal(raw[i][:s.Holds], here[i][:s.Holds])
		}
		if same {
			s.Sum, s.Damaged = sumOf(here[i]), sumOf(s.damage(here[i]))
			out = append(out, s)
		}
	}
	return out, nil
}

// errForeign says that what was to be damaged is not there any more.
var errForeign = errors.New("the disk does not hold what was planned to be damaged any more; plan again")
