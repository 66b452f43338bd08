package zfs

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"
)

func writeNoise(path string, n int, seed uint64) error {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = random.Read(b)
	return os.WriteFile(path, b, 0o600)
}

func samplePoint() Point {
	return Point{
		Version: 1, Dataset: "tank/a", Snapshot: "s1", Created: time.Unix(1_700_000_000, 0).UTC(), GUID: 1<<64 - 1, From: 7,
		Stream: Stream{Bytes: 20 << 20, BLAKE3: Hash{1}}, Compression: "zstd", Upload: "abcdefgh23",
		Parts: []Part{{Size: partSize, CRC32C: 1, BLAKE3: Hash{2}}, {Size: 1, CRC32C: 2, BLAKE3: Hash{3}}},
	}
}

// TestWhatIsInAnArchive: by its name alone, as the archive gives it.
func TestWhatIsInAnArchive(t *testing.T) {
	p := samplePoint()
	for key, want := range map[string]bool{
		p.key(): true, p.partKey(0): true, p.partKey(9_999_999): true, "a/b/" + p.key(): true, "tank=r/" + p.partKey(3): true,
		"x" + p.key(): false, "x" + p.partKey(0): false, p.key() + "/x": false, p.partKey(1) + ".json": false, "points/a.json": false, "parts/1": false,
		"points/": false, "parts/00/000001": false, "": false, "000001": false,
	} {
		if InArchive(key) != want {
			t.Errorf("%q is in an archive: %v", key, !want)
		}
	}
}

func TestIndexIsRefused(t *testing.T) {
	t.Parallel()
	good, err := samplePoint().encode()
	must(t, err)
	if _, err := decodePoint(good); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Point){
		"no guid":            func(p *Point) { p.GUID = 0 },
		"to itself":          func(p *Point) { p.From = p.GUID },
		"a dataset":          func(p *Point) { p.Dataset = "-r" },
		"a snapshot":         func(p *Point) { p.Snapshot = "a@b" },
		"an upload":          func(p *Point) { p.Upload = "../../../points" },
		"no parts":           func(p *Point) { p.Parts = nil },
		"a short part":       func(p *Point) { p.Parts[0].Size-- },
		"a long part":        func(p *Point) { p.Parts[1].Size = partSize + 1 },
		"an empty part":      func(p *Point) { p.Parts[1].Size = 0 },
		"an empty stream":    func(p *Point) { p.Stream.Bytes = 0 },
		"another version":    func(p *Point) { p.Version = 2 },
		"another compressor": func(p *Point) { p.Compression = "xz" },
	} {
		p := samplePoint()
		change(&p)
		raw, err := p.encode()
		must(t, err)
		if _, err := decodePoint(raw); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range len(good) - 1 {
		if _, err := decodePoint(good[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, err := decodePoint(append(good, '{')); !errors.Is(err, ErrCorrupt) {
		t.Errorf("more after it: %v", err)
	}
}

func FuzzDecodePoint(f *testing.F) {
	good, err := samplePoint().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := decodePoint(raw)
		if err != nil {
			return
		}
		again, err := p.encode()
		if err != nil {
			return // a time that JSON cannot hold
		}
		back, err := decodePoint(again)
		if err != nil || back.key() != p.key() || back.Stored() != p.Stored() {
			t.Fatalf("%+v: %v, then %+v", p, err, back)
		}
		if !strings.HasPrefix(p.partKey(0), partPrefix) || strings.Contains(p.partKey(0), "..") {
			t.Fatalf("part key %q", p.partKey(0))
		}
	})
}

func TestPath(t *testing.T) {
	t.Parallel()
	points := []Point{{GUID: 1}, {GUID: 2, From: 1}, {GUID: 3, From: 2}, {GUID: 4, From: 1}, {GUID: 5, From: 9}, {GUID: 6, From: 7}, {GUID: 7, From: 6}}
	for guid, want := range map[uint64][]uint64{1: {1}, 3: {1, 2, 3}, 4: {1, 4}} {
		path, err := Path(points, guid)
		must(t, err)
		for i, p := range path {
			if len(path) != len(want) || p.GUID != want[i] {
				t.Errorf("to %d: %+v", guid, path)
			}
		}
	}
	if got, want := depths(points), map[uint64]int{1: 1, 2: 2, 3: 3, 4: 2}; !maps.Equal(got, want) {
		t.Errorf("depths %v, want %v", got, want)
	}
	for guid, want := range map[uint64]error{5: ErrNotExist, 6: ErrCorrupt, 8: ErrNotExist} {
		if _, err := Path(points, guid); !errors.Is(err, want) {
			t.Errorf("to %d: %v", guid, err)
		}
	}
}

// TestSealedReaderGivesNoEnd: what is given of a wrong stream lacks its last bytes,
// however it is read.
func TestSealedReaderGivesNoEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		content := rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "content")
		want := Stream{Bytes: int64(len(content)), BLAKE3: blake3.Sum256(content)}
		var from io.Reader = bytes.NewReader(content)
		switch rapid.SampledFrom([]string{"whole", "half", "byte", "data with EOF"}).Draw(t, "reader") {
		case "half":
			from = iotest.HalfReader(from)
		case "byte":
			from = iotest.OneByteReader(from)
		case "data with EOF":
			from = iotest.DataErrReader(from)
		}
		wrong := rapid.SampledFrom([]string{"", "hash", "longer", "shorter", "broken"}).Draw(t, "wrong")
		errBroken := errors.New("broken")
		switch wrong {
		case "hash":
			want.BLAKE3[0]++
		case "longer":
			want.Bytes++
		case "shorter":
			want.Bytes--
		case "broken":
			from = io.MultiReader(from, iotest.ErrReader(errBroken))
		}
		got, err := io.ReadAll(newSealedReader(from, want))
		if wrong == "" {
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d of %d bytes, %v", len(got), len(content), err)
			}
			return
		}
		if err == nil || !bytes.HasPrefix(content, got) || len(got) > max(0, len(content)-seal+1) {
			t.Fatalf("%s: %d of %d bytes, %v", wrong, len(got), len(content), err)
		}
	})
}
