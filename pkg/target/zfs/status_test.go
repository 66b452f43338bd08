package zfs

import (
	"errors"
	"strings"
	"testing"
)

// What OpenZFS 2.1 and zfs-fuse 0.7 print.
const (
	openScrubbing = `  pool: tank
 state: ONLINE
  scan: scrub in progress since Sun Nov 22 01:00:01 2026
	1.42T scanned at 1.2G/s, 700G issued at 600M/s, 1.50T total
	0B repaired, 46.67% done, 00:22:12 to go
config:

	NAME                            STATE     READ WRITE CKSUM
	tank                            ONLINE       0     0     0
	  mirror-0                      ONLINE       0     0     0
	    ata-DISK_1-part1            ONLINE       0     0     0
	    ata-DISK_2-part1            ONLINE       0     0     0
	logs	
	  mirror-1                      ONLINE       0     0     0
	    nvme0n1                     ONLINE       0     0     0
	    nvme1n1p1                   ONLINE       0     0     0
	cache
	  nvme0n1p2                     ONLINE       0     0     0
	spares
	  ata-DISK_3-part1              AVAIL   

errors: No known data errors
`
	openLost = `  pool: tank
 state: ONLINE
status: One or more devices has experienced an error resulting in data
	corruption.  Applications may be affected.
action: Restore the file in question if possible.  Otherwise restore the
	entire pool from backup.
   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-8A
  scan: scrub repaired 128K in 00:00:01 with 2 errors on Sun Nov 22 01:10:02 2026
config:

	NAME        STATE     READ WRITE CKSUM
	tank        ONLINE       0     0     0
	  mirror-0  ONLINE       0     0     2
	    sda     ONLINE       0     0    14
	    sdb     ONLINE       0     0 1.20K

errors: 2 data errors, use '-v' for a list
`
	fuseResilvering = `  pool: tank
 state: ONLINE
status: One or more devices is currently being resilvered.  The pool will
	continue to function, possibly in a degraded state.
action: Wait for the resilver to complete.
 scrub: resilver in progress for 0h0m, 34.46% done, 0h0m to go
config:

	NAME                 STATE     READ WRITE CKSUM
	tank                 ONLINE       0     0     0
	  mirror-0           ONLINE       0     0     0
	    shm/lab/tank-0   ONLINE       0     0     0  4.77M resilvered
	    shm/lab/tank-1   ONLINE       0     0     0
	  shm/lab/single     ONLINE       0     0     0

errors: No known data errors
fault: firedrill-0123456789abcdef
damage: /dev/shm/lab/tank-0 4599808:4096
`
	fuseScrubbed = `  pool: tank
 state: ONLINE
 scrub: scrub completed after 0h0m with 0 errors on Sat Nov 21 20:52:38 2026
config:

	NAME                 STATE     READ WRITE CKSUM
	tank                 ONLINE       0     0     0
	  mirror-0           ONLINE       0     0     0
	    shm/lab/tank-0   ONLINE       0     0     0  4K repaired
	    shm/lab/tank-1   ONLINE       0     0     0

errors: No known data errors
`
)

func parsed(t *testing.T, text string) status {
	t.Helper()
	s, err := parseStatus(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatusOfWhatIsUnderWay(t *testing.T) {
	open, fuse := parsed(t, openScrubbing), parsed(t, fuseResilvering)
	if !strings.HasPrefix(open.running(), "scrub in progress") || len(open.problems()) > 0 || open.resilvering() {
		t.Errorf("a scrub is no problem: %q, %v", open.running(), open.problems())
	}
	if got := fuse.problems(); len(got) != 2 || !strings.Contains(got[0], "resilver in progress") || !strings.Contains(got[1], "4599808:4096") {
		t.Errorf("problems of a pool that resilvers, with damage: %q", got)
	}
	for name, s := range map[string]status{"a scrub": open, "a resilver": fuse} {
		if err := s.unfit("/dev/shm/lab/tank-0"); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "in progress") {
			t.Errorf("broken during %s: %v", name, err)
		}
		if _, ok := s.scrubbed(); ok {
			t.Errorf("%s under way counts as one that ended", name)
		}
	}
}

func TestStatusOfWhatIsLost(t *testing.T) {
	s := parsed(t, openLost)
	want := []string{"mirror-0 has", "sda has", "sdb has read, write and checksum errors: 0, 0, 1.20K", "2 data errors"}
	got := s.problems()
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
	if n, ok := s.scrubbed(); n != 2 || !ok {
		t.Errorf("%d errors, %v", n, ok)
	}
}

func TestDisksByTheirPaths(t *testing.T) {
	open, fuse := parsed(t, openScrubbing), parsed(t, fuseResilvering)
	for _, c := range []struct {
		s      status
		path   string
		others int
		found  bool
	}{
		{open, "/dev/disk/by-id/ata-DISK_2-part1", 1, true},
		{open, "/dev/nvme0n1p1", 1, true}, // of a disk that ZFS has partitioned
		{open, "/dev/nvme1n1p1", 1, true},
		{open, "/dev/nvme0n1p2", 0, true}, // the cache has no mirror
		{open, "/srv/nvme0n1p1", 0, false},
		{open, "/dev/sdz", 0, false},
		{fuse, "/dev/shm/lab/tank-1", 1, true},
		{fuse, "/dev/shm/lab/single", 0, true},
		{fuse, "/dev/shm/other/tank-1", 0, false},
	} {
		v, others, err := c.s.leaf(c.path)
		if (err == nil) != c.found || len(others) != c.others || c.found && !v.is(c.path) {
			t.Errorf("%s: %+v, %d others, %v", c.path, v, len(others), err)
		}
	}
	s := parsed(t, fuseScrubbed)
	if n, ok := s.scrubbed(); n != 0 || !ok || len(s.problems()) > 0 || s.unfit("/dev/shm/lab/tank-0") != nil {
		t.Errorf("a pool that is well: %d, %v, %q, %v", n, ok, s.problems(), s.unfit("/dev/shm/lab/tank-0"))
	}
	if err := s.unfit("/dev/shm/lab/tank-2"); !errors.Is(err, ErrUnfit) {
		t.Errorf("a disk that the pool does not have: %v", err)
	}
}

// FuzzParseStatus: whatever zpool prints, a pool is well only if it says so.
func FuzzParseStatus(f *testing.F) {
	for _, s := range []string{openScrubbing, openLost, fuseResilvering, fuseScrubbed, "", "config:\n\t\t\n", "cannot open 'tank': no such pool"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStatus(text)
		if err == nil && len(s.problems()) == 0 && !strings.Contains(text, noDataLost) {
			t.Errorf("well by %q", text)
		}
		for _, v := range s.vdevs {
			if _, others, err := s.leaf("/dev/" + v.name); err == nil && len(others) >= len(s.vdevs) {
				t.Errorf("%s has %d others of %d", v.name, len(others), len(s.vdevs))
			}
		}
		_ = s.unfit("/dev/sda")
	})
}
