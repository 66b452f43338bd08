package zfs

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/target/undo"
)

const (
	fuseLabel = `--------------------------------------------
LABEL 0
--------------------------------------------
    version: 23
    name: 'tank'
    pool_guid: 14223681623722647661
    guid: 15720367015114444159
    vdev_tree:
        type: 'mirror'
        id: 0
        guid: 16649887879622654416
        ashift: 12
        asize: 129499136
        children[0]:
            type: 'file'
            id: 0
            guid: 15720367015114444159
            path: '/dev/shm/lab/tank-0'
        children[1]:
            type: 'file'
            id: 1
            guid: 17881858990448380670
            path: '/dev/shm/lab/tank-1'
    features_for_read:
        com.delphix:hole_birth
--------------------------------------------
LABEL 1
--------------------------------------------
    pool_guid: 1
    guid: 2
`
	fuseBlocks = `Dataset tank/firedrill [ZPL], ID 30, cr_txg 7, 524K, 9 objects, rootbp DVA[0]=<0:117000:1000>

    Object  lvl   iblk   dblk  dsize  lsize   %full  type
         6    1    16K     1K     4K     1K  100.00  ZFS plain file
	path	/canaries/c1
Indirect blocks:
               0 L0 0:63000:1000 400L/400P F=1 B=10/10

		segment [0000000000000000, 0000000000000400) size    1K

    Object  lvl   iblk   dblk  dsize  lsize   %full  type
         9    2    16K   128K   392K   384K  100.00  ZFS plain file
Indirect blocks:
               0 L1  0:c6000:1000 4000L/400P F=3 B=10/10
               0  L0 0:66000:20000 20000L/20000P F=1 B=10/10
           20000  L0 1:86000:20000 0:86000:20000 20000L/1f000P F=1 B=10/10
           40000  L0 EMBEDDED et=0 200L/2dP B=10

    Object  lvl   iblk   dblk  dsize  lsize   %full  type
        10    1    16K    512   512     512   100.00  ZFS directory
               0 L0 0:1000:1000 200L/200P F=1 B=10/10
`
	openBlocks = `    Object  lvl   iblk   dblk  dsize  dnsize  lsize   %full  type
         7    1   128K     1K     1K     512     1K  100.00  ZFS plain file
               0 L0 0:14a00:400 400L/400P F=1 B=55/55 cksum=0:0:0:0
`
)

func TestLabelTellsThePoolAndTheMirror(t *testing.T) {
	l, err := parseLabel(fuseLabel)
	want := label{pool: "14223681623722647661", self: "15720367015114444159", size: 129499136, mirror: true,
		paths: map[string]string{"15720367015114444159": "/dev/shm/lab/tank-0", "17881858990448380670": "/dev/shm/lab/tank-1"}}
	if err != nil || !reflect.DeepEqual(l, want) || !slices.Equal(l.others(), []string{"/dev/shm/lab/tank-1"}) {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := parseLabel("failed to unpack label 0"); err == nil {
		t.Error("no label is one")
	}
}

func TestBlocksOfPlainFilesOnly(t *testing.T) {
	got, err := parseBlocks(fuseBlocks)
	want := []block{
		{object: 6, top: 0, at: 0x63000, takes: 0x1000, holds: 0x400, length: 0x400},
		{object: 9, top: 0, at: 0x66000, takes: 0x20000, holds: 0x20000, length: 0x20000},
		{object: 9, offset: 0x20000, top: 1, at: 0x86000, takes: 0x20000, holds: 0x1f000, length: 0x20000},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = parseBlocks(openBlocks)
	if err != nil || !slices.Equal(got, []block{{object: 7, at: 0x14a00, takes: 0x400, holds: 0x400, length: 0x400}}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParseLabelAndBlocks(f *testing.F) {
	for _, s := range []string{fuseLabel, fuseBlocks, openBlocks, ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if l, err := parseLabel(text); err == nil && (l.size <= 0 || l.pool == "" || l.self == "") {
			t.Errorf("half a label: %+v", l)
		}
		blocks, err := parseBlocks(text)
		for _, b := range blocks {
			if err == nil && b.object < 0 {
				t.Errorf("a block of no file: %+v", b)
			}
		}
	})
}

// TestNothingButDataIsHit: a block that fits, however odd its numbers, leaves the labels
// of its disk alone, and so does a record that is taken.
func TestNothingButDataIsHit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 1<<30), rapid.Int64Range(-10, 300))
		size := rapid.Int64Range(1, 1<<50).Draw(t, "size")
		b := block{top: rapid.Int64Range(0, 1).Draw(t, "top"), at: number.Draw(t, "at"), takes: number.Draw(t, "takes"), holds: number.Draw(t, "holds")}
		if rapid.Bool().Draw(t, "sectors") {
			b.at, b.takes = b.at/sector*sector, b.takes/sector*sector
		}
		if !b.fits(label{size: size}) {
			return
		}
		from := labelsBefore + b.at
		if b.top != 0 || from < labelsBefore || from+b.takes > labelsBefore+size || from+b.takes <= from || b.holds > b.takes {
			t.Fatalf("%+v fits into %d", b, size)
		}
		if s := (spot{At: from, Bytes: b.takes, Holds: b.holds, Sum: sumOf(nil), Damaged: sumOf(nil)}); s.valid() != (b.takes <= maxDamage) {
			t.Fatalf("%+v: valid is %v", s, s.valid())
		}
	})
}

// TestDamageChangesAllThatABlockHolds, and nothing after it.
func TestDamageChangesAllThatABlockHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was := rapid.SliceOfN(rapid.Byte(), 1, 2000).Draw(t, "was")
		s := spot{Bytes: int64(len(was)), Holds: int64(rapid.IntRange(1, len(was)).Draw(t, "holds"))}
		now := s.damage(was)
		for i := range was {
			if (was[i] != now[i]) != (int64(i) < s.Holds) {
				t.Fatalf("byte %d of %d, of which %d hold data: %x became %x", i, len(was), s.Holds, was[i], now[i])
			}
		}
		if !bytes.Equal(s.damage(now), was) {
			t.Fatal("twice is not as before")
		}
	})
}

func TestRecordsThatCannotBeOnesAreRefused(t *testing.T) {
	good := record{Undo: undoScrub, Pool: "tank", GUID: "1", Token: undo.Token("a", "b"), Vdev: "/dev/sda",
		Spots: []spot{{At: labelsBefore, Bytes: 512, Holds: 1, Sum: sumOf(nil), Damaged: sumOf([]byte("x"))}}}
	if _, err := readRecord(raw(t, good)); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(*record){
		"a label":    func(r *record) { r.Spots[0].At = 0 },
		"no sector":  func(r *record) { r.Spots[0].At++ },
		"too much":   func(r *record) { r.Spots[0].Bytes = 2 * maxDamage },
		"no sum":     func(r *record) { r.Spots[0].Damaged = "$(reboot)" },
		"nothing":    func(r *record) { r.Spots = nil },
		"no pool":    func(r *record) { r.Pool = "" },
		"a token":    func(r *record) { r.Token = "../x" },
		"no vdev":    func(r *record) { r.Vdev = "" },
		"no such op": func(r *record) { r.Undo = "" },
	} {
		bad := good
		bad.Spots = slices.Clone(good.Spots)
		f(&bad)
		if _, err := readRecord(raw(t, bad)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestMountsAreKnownByTheirDevice(t *testing.T) {
	const table = `30 1 0:27 / / rw,relatime - ext4 /dev/vda1 rw
71 43 0:42 / /tank rw,relatime shared:2 - fuse.zfs tank rw,user_id=0
73 71 0:43 / /tank/a\040b rw,relatime shared:3 - zfs tank/firedrill rw
`
	for minor, want := range map[uint32]string{27: "ext4 /dev/vda1", 42: "fuse.zfs tank", 43: "zfs tank/firedrill", 44: "unknown nowhere"} {
		if kind, source := mountOf(table, 0, minor); fmt.Sprint(kind, " ", source) != want {
			t.Errorf("device 0:%d is %s %s, want %s", minor, kind, source, want)
		}
	}
}
