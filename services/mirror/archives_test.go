package mirror_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror"
)

func archive(name, from, to string) drill.Mirror {
	return drill.Mirror{Name: name, From: from, To: to, Snapshots: &drill.MirrorSnapshots{Keep: "daily=7"}}
}

func recursive(name, from, to string) drill.Mirror {
	m := archive(name, from, to)
	m.Snapshots.Recursive = true
	return m
}

func via(m drill.Mirror, from, to string) drill.Mirror {
	m.Snapshots.FromVia, m.Snapshots.ToVia = from, to
	return m
}

// TestWhatMirrorsOfSnapshotsShare: whichever of the two stands first in the inventory.
func TestWhatMirrorsOfSnapshotsShare(t *testing.T) {
	files := func(from, to, mode string) drill.Mirror {
		return drill.Mirror{Name: "files", From: from, To: to, Mode: mode}
	}
	for name, c := range map[string]struct {
		one, two drill.Mirror
		// first and then are in the fixes where two stands last, and where it stands first.
		first, then string
	}{
		"an archive in what is mirrored": {
			files("dir:/a", "s3:lab/bkt/arc", drill.MirrorMirror), archive("snaps", "zfs:tank/r", "s3:lab/bkt/arc/zfs"),
			"mirror files deletes in s3:lab/bkt/arc what", "mirror snaps keeps the archive of zfs:tank/r in s3:lab/bkt/arc/zfs, and this would delete it",
		},
		"a mirror into an archive": {
			files("dir:/a", "s3:lab/bkt/arc/zfs", drill.MirrorMirror), archive("snaps", "zfs:tank/r", "s3:lab/bkt/arc"),
			"mirror files deletes in s3:lab/bkt/arc/zfs what", "this would delete it",
		},
		"an archive at the other end of two ways": {
			files("s3:lab/bkt/arc", "dir:/a", drill.MirrorTwoWay), archive("snaps", "zfs:tank/r", "s3:lab/bkt/arc"),
			"mirror files deletes in s3:lab/bkt/arc what", "this would delete it",
		},
		"an archive that is read":     {files("s3:lab/bkt/arc", "dir:/a", drill.MirrorMirror), archive("snaps", "zfs:tank/r", "s3:lab/bkt/arc"), "", ""},
		"a copy, which deletes none":  {files("dir:/a", "s3:lab/bkt", drill.MirrorCopy), archive("snaps", "zfs:tank/r", "s3:lab/bkt/arc"), "", ""},
		"an archive beside":           {files("dir:/a", "s3:lab/bkt/arc", drill.MirrorMirror), archive("snaps", "zfs:tank/r", "s3:lab/bkt/arcs"), "", ""},
		"a dataset":                   {files("dir:/a", "dir:/back/r", drill.MirrorMirror), archive("snaps", "zfs:tank/r", "zfs:back/r"), "", ""},
		"one dataset of two":          {archive("one", "zfs:tank/r", "zfs:back/r"), archive("two", "zfs:tank/s", "zfs:back/r"), "mirror one brings the snapshots of zfs:tank/r to the same dataset", "mirror two brings"},
		"one dataset, twice":          {archive("one", "zfs:tank/r", "zfs:back/r"), archive("two", "zfs:tank/r", "zfs:back/r"), "to the same dataset", "to the same dataset"},
		"a dataset of another one":    {archive("one", "zfs:tank/r", "zfs:back/r"), archive("two", "zfs:tank/s", "zfs:back/r/s"), "", ""},
		"a name on two machines":      {via(archive("one", "zfs:tank/r", "zfs:back/r"), "", "ssh a"), via(archive("two", "zfs:tank/s", "zfs:back/r"), "", "ssh b"), "", ""},
		"the other way":               {archive("one", "zfs:tank/r", "zfs:back/r"), archive("two", "zfs:back/r", "zfs:tank/r"), "goes the other way", "goes the other way"},
		"on to a third":               {archive("one", "zfs:tank/r", "zfs:back/r"), archive("two", "zfs:back/r", "zfs:far/r"), "", ""},
		"one archive of two datasets": {archive("one", "zfs:tank/r", "s3:lab/bkt/arc"), archive("two", "zfs:tank/s", "s3:lab/bkt/arc"), "mirror one writes the archive of zfs:tank/r to s3:lab/bkt/arc", "mirror two writes"},
		"archives apart":              {archive("one", "zfs:tank/r", "s3:lab/bkt/r"), archive("two", "zfs:tank/s", "s3:lab/bkt/s"), "", ""},
		"archives side by side":       {recursive("one", "zfs:tank/r", "s3:lab/bkt/arc"), recursive("two", "zfs:tank/s", "s3:lab/bkt/arc"), "", ""},
		"archives of the same":        {recursive("one", "zfs:tank", "s3:lab/bkt/arc"), recursive("two", "zfs:tank/s", "s3:lab/bkt/arc"), "an archive is one dataset's", "an archive is one dataset's"},
		"several and one in a place":  {recursive("one", "zfs:tank/r", "s3:lab/bkt/arc"), archive("two", "zfs:tank/s", "s3:lab/bkt/arc"), "an archive is one dataset's", "an archive is one dataset's"},
		"one that is one of several":  {recursive("one", "zfs:tank", "s3:lab/bkt/arc"), archive("two", "zfs:tank/s", "s3:lab/bkt/arc/tank=s"), "an archive is one dataset's", "an archive is one dataset's"},
		"one below several":           {recursive("one", "zfs:tank/r", "s3:lab/bkt/arc"), archive("two", "zfs:tank/s", "s3:lab/bkt/arc/tank=s"), "", ""},
		"into a dataset and a bucket": {archive("one", "zfs:tank/r", "s3:lab/bkt/arc"), archive("two", "zfs:tank/r", "zfs:back/r"), "", ""},
	} {
		for _, o := range []struct {
			ms   []drill.Mirror
			want string
		}{{[]drill.Mirror{c.one, c.two}, c.first}, {[]drill.Mirror{c.two, c.one}, c.then}} {
			var inv drill.Inventory
			inv.Spec.Mirrors, inv.Spec.Stores = o.ms, []drill.Store{{Name: "lab", Endpoint: "http://127.0.0.1:9000"}}
			got := mirror.CheckInventory(inv)
			if (len(got) > 0) != (o.want != "") || len(got) > 1 {
				t.Errorf("%s: %+v", name, got)
			} else if o.want != "" && (!strings.Contains(got[0].Fix, o.want) || !strings.HasPrefix(got[0].Field, "spec.mirrors[1].")) {
				t.Errorf("%s: %+v", name, got[0])
			}
		}
	}
}

// TestPlacesHaveOneName: by which stores, and through which links, they are named.
func TestPlacesHaveOneName(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	for _, err := range []error{os.MkdirAll(real, 0o755), os.Symlink("real", link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		one, other string // endpoints
		a, b       drill.Mirror
		field, fix string
	}{
		"a slash at the end":             {"http://h:9000", "http://h:9000/", drill.Mirror{From: "dir:/a", To: "s3:one/bkt/p"}, drill.Mirror{From: "dir:/b", To: "s3:other/bkt/p"}, "spec.mirrors[1].to", "mirror a writes to s3:one/bkt/p"},
		"the case":                       {"http://Host.Example:9000", "HTTP://host.example:9000", drill.Mirror{From: "dir:/a", To: "s3:one/bkt/p"}, drill.Mirror{From: "dir:/b", To: "s3:other/bkt/p/q"}, "spec.mirrors[1].to", "mirror a writes to"},
		"the usual port":                 {"https://h", "https://h:443", drill.Mirror{From: "dir:/a", To: "s3:one/bkt"}, drill.Mirror{From: "dir:/b", To: "s3:other/bkt"}, "spec.mirrors[1].to", "mirror a writes to"},
		"another port":                   {"https://h", "https://h:80", drill.Mirror{From: "dir:/a", To: "s3:one/bkt"}, drill.Mirror{From: "dir:/b", To: "s3:other/bkt"}, "", ""},
		"another scheme":                 {"http://h:9000", "https://h:9000", drill.Mirror{From: "dir:/a", To: "s3:one/bkt"}, drill.Mirror{From: "dir:/b", To: "s3:other/bkt"}, "", ""},
		"an archive":                     {"http://h", "http://h:80", drill.Mirror{From: "dir:/a", To: "s3:one/bkt"}, archive("", "zfs:tank/r", "s3:other/bkt/arc"), "spec.mirrors[1].to", "this archive"},
		"within one mirror":              {"http://h", "http://h/", drill.Mirror{From: "s3:one/bkt", To: "s3:other/bkt/p"}, drill.Mirror{From: "dir:/b", To: "dir:/c"}, "spec.mirrors[0].to", "lie within each other"},
		"a link":                         {"http://h", "http://i", drill.Mirror{From: "dir:/a", To: "dir:" + real}, drill.Mirror{From: "dir:/b", To: "dir:" + link}, "spec.mirrors[1].to", "mirror a writes to dir:" + real},
		"a link above what is not there": {"http://h", "http://i", drill.Mirror{From: "dir:/a", To: "dir:" + real + "/x/y"}, drill.Mirror{From: "dir:/b", To: "dir:" + link + "/x"}, "spec.mirrors[1].to", "mirror a writes to"},
		"a link into the source":         {"http://h", "http://i", drill.Mirror{From: "dir:" + real, To: "dir:" + link + "/x"}, drill.Mirror{From: "dir:/b", To: "dir:/c"}, "spec.mirrors[0].to", "lie within each other"},
	} {
		var inv drill.Inventory
		inv.Spec.Stores = []drill.Store{{Name: "one", Endpoint: c.one}, {Name: "other", Endpoint: c.other}}
		c.a.Name, c.b.Name = "a", "b"
		c.a.Mode = drill.MirrorMirror
		if c.b.Snapshots == nil {
			c.b.Mode = drill.MirrorMirror
		}
		inv.Spec.Mirrors = []drill.Mirror{c.a, c.b}
		got := mirror.CheckInventory(inv)
		if (len(got) > 0) != (c.fix != "") || len(got) > 1 {
			t.Errorf("%s: %+v", name, got)
		} else if c.fix != "" && (got[0].Field != c.field || !strings.Contains(got[0].Fix, c.fix)) {
			t.Errorf("%s: %+v", name, got[0])
		}
	}
}
