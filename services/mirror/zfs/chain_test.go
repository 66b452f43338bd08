package zfs

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestCompareIsWhatReceiveWants: sending what it says onto what is left when Ahead
// is gone makes the target's newest the source's.
func TestCompareIsWhatReceiveWants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		guids := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 30), 0, 12, rapid.ID).Draw(t, "guids")
		side := func(name string) (out []Snapshot) {
			for i, g := range guids {
				if rapid.Bool().Draw(t, name) {
					out = append(out, Snapshot{Name: "s", GUID: g, TXG: uint64(i + 1)})
				}
			}
			return out
		}
		source, target := side("source"), side("target")
		c := Compare(source, target)
		after := target[:len(target)-len(c.Ahead)]
		if c.Common == nil {
			if len(after) > 0 || !slices.Equal(c.Send, source) {
				t.Fatalf("%+v of %+v and %+v", c, source, target)
			}
			for _, s := range target {
				if slices.ContainsFunc(source, func(o Snapshot) bool { return o.GUID == s.GUID }) {
					t.Fatalf("%d is common", s.GUID)
				}
			}
			return
		}
		if after[len(after)-1].GUID != c.Common.GUID {
			t.Fatalf("%+v is not the target's newest, of %+v and %+v", c.Common, source, target)
		}
		if at := slices.Index(source, *c.Common); !slices.Equal(source[at+1:], c.Send) {
			t.Fatalf("send %+v after %d of %+v", c.Send, at, source)
		}
		for _, s := range append(slices.Clone(c.Send), c.Ahead...) {
			if slices.Contains(c.Send, s) && slices.Contains(c.Ahead, s) {
				t.Fatalf("%d is on both sides", s.GUID)
			}
		}
	})
}

func TestParseSnapshotsRefusesNonsense(t *testing.T) {
	t.Parallel()
	const good = "d@a\tguid\t1\t-\nd@a\tcreatetxg\t2\t-\nd@a\tcreation\t3\t-\nd@a\tuserrefs\t0\t-\nd@a\tfiredrill:job\tj\tinherited from d\n"
	found, now, err := parseSnapshots("d", []byte(good+"d\treferenced\t7\t-\nd/e\treferenced\t8\t-\nd@a\treferenced\t6\t-\n"))
	if err != nil || len(found) != 1 || found[0].GUID != 1 || found[0].Job != "" || found[0].Refers != 6 || now != 7 {
		t.Fatalf("%+v, %d, %v", found, now, err)
	}
	for _, bad := range []string{
		"d@a\tguid\t1\n", "d@a\tguid\tone\t-\n", strings.Replace(good, "guid\t1", "guid\t0", 1), "d@a\tuserrefs\t-1x\t-\n",
		strings.Replace(good, "createtxg", "createtxx", 1), "d@a\tcreation\t\t-\n",
		"d\treferenced\t1K\t-\n", "d@a\treferenced\t1K\t-\n",
	} {
		if found, _, err := parseSnapshots("d", []byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, found)
		}
	}
}

func FuzzParseSnapshots(f *testing.F) {
	f.Add([]byte("d@a\tguid\t1\t-\nd@a\tcreatetxg\t2\t-\nd/e@b\tguid\t1\t-\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		found, _, err := parseSnapshots("d", out)
		if err == nil && !slices.IsSortedFunc(found, inOrder) {
			t.Fatalf("%+v", found)
		}
	})
}

func TestReasons(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		"cannot receive incremental stream: destination tank/t has been modified\nsince most recent snapshot\n":                ErrTouched,
		"cannot receive incremental stream: most recent snapshot of tank/b does not\nmatch incremental source\n":               ErrDiverged,
		"cannot destroy 'tank/a@s': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\n":              ErrCloned,
		"cannot destroy 'tank/a': dataset is busy\n":                                                                           ErrBusy,
		"cannot open 'tank/x': dataset does not exist\n":                                                                       ErrNotExist,
		"cannot receive new filesystem stream: destination has snapshots (eg. tank/b@s2)\nmust destroy them to overwrite it\n": ErrNoCommon,
		"cannot receive new filesystem stream: destination 'tank/b' exists\nmust specify -F to overwrite it\n":                 ErrNoCommon,
		"something else": nil,
	} {
		if got := reasonOf(text); !errors.Is(got, want) {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"tank": true, "tank/a.b/c:d-e_f": true, "tank/with space": true,
		"": false, "-r": false, "1tank": false, "tank/": false, "tank//a": false, "tank@a": false, "tank#b": false, "tank/a\nb": false,
		"tank/" + strings.Repeat("a", 300): false,
	} {
		if err := checkDataset(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}
