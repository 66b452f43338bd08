package proof_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// starters are names at which a shard begins, so that small trees have several.
var starters = func() (out []string) {
	for i := 0; len(out) < 12; i++ {
		if name := fmt.Sprintf("s%05d", i); proof.StartsShard(name) {
			out = append(out, name)
		}
	}
	return out
}()

func drawEntry(t *rapid.T) entry.Entry {
	names := rapid.OneOf(rapid.SampledFrom(starters), rapid.StringMatching(`[a-t]{1,3}`), rapid.SampledFrom([]string{"é", "\xff\x01", `q"\`, "a%2Fb", "<&>\u2028", strings.Repeat("l", 300)}))
	e := entry.Entry{
		Path: strings.Join(rapid.SliceOfN(names, 1, 3).Draw(t, "path"), "/"),
		Kind: entry.Kind(rapid.SampledFrom([]byte{0, 0, 0, 1, 2, 3, 4, 5, 6}).Draw(t, "kind")), Lone: entry.Lone(rapid.SampledFrom([]byte{0, 0, 1, 2, 3}).Draw(t, "lone")),
		Size:  rapid.Int64Range(0, 1<<40).Draw(t, "size"),
		Mode:  rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
		UID:   rapid.Uint32().Draw(t, "uid"),
		GID:   rapid.Uint32().Draw(t, "gid"),
		MTime: rapid.Int64().Draw(t, "mtime"),
	}
	switch e.Kind {
	case entry.Symlink:
		e.Target = rapid.SampledFrom([]string{"t", "../é", "\xfe", `q"\ `, "line\nbreak\x00\u2028"}).Draw(t, "target")
	case entry.BlockDevice:
		e.Device = rapid.Uint64().Draw(t, "device")
	}
	if rapid.Bool().Draw(t, "xattrs") {
		e.Xattrs = map[string][]byte{"user.b": {0, 255}, "user.a": {}}
	}
	has := entry.Has(rapid.IntRange(0, 15).Draw(t, "has"))
	e.Sum.Has = has
	if has&entry.HasBLAKE3 != 0 {
		e.Sum.BLAKE3 = blake3.Sum256([]byte(e.Path))
	}
	if has&entry.HasCRC32C != 0 {
		e.Sum.CRC32C = rapid.Uint32().Draw(t, "crc")
	}
	if has&entry.HasETag != 0 {
		e.Sum.ETag = rapid.StringMatching(`[0-9a-f]{4}(-[0-9])?`).Draw(t, "etag")
	}
	if has&entry.HasPartSize != 0 {
		e.Sum.PartSize = rapid.Int64Range(1, 1<<30).Draw(t, "part")
	}
	return e
}

func drawEntries(t *rapid.T) []entry.Entry {
	list := rapid.SliceOfN(rapid.Custom(drawEntry), 0, 40).Draw(t, "entries")
	for _, name := range starters[:rapid.IntRange(0, len(starters)).Draw(t, "shards")] {
		list = append(list, entry.Entry{Path: name, Size: 1})
	}
	return sorted(list)
}

func sorted(list []entry.Entry) []entry.Entry {
	slices.SortStableFunc(list, func(a, b entry.Entry) int { return entry.Compare(a.Key(), b.Key()) })
	return slices.CompactFunc(list, func(a, b entry.Entry) bool { return a.Key() == b.Key() })
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func write(t fataler, list []entry.Entry) ([]byte, proof.Root) {
	t.Helper()
	var b bytes.Buffer
	w, err := proof.NewWriter(&b)
	if err != nil {
		t.Fatalf("NewWriter: %v", err)
	}
	for _, e := range list {
		if err := w.Add(e); err != nil {
			t.Fatalf("Add(%q): %v", e.Path, err)
		}
	}
	root, err := w.Close()
	if err != nil {
		t.Fatalf("Close: %v", err)
	}
	return b.Bytes(), root
}

func read(r io.Reader) (list []entry.Entry, root proof.Root, err error) {
	reader := proof.NewReader(r)
	for e, err := range reader.Entries() {
		if err != nil {
			if _, ok := reader.Root(); ok {
				err = fmt.Errorf("there is a root behind an error: %w", err)
			}
			return list, root, err
		}
		list = append(list, e)
	}
	root, ok := reader.Root()
	if !ok {
		err = errors.New("no root and no error")
	}
	return list, root, err
}

func open(t fataler, file []byte) *proof.Manifest {
	t.Helper()
	m, err := proof.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return m
}

// unpack gives the lines, each with its line feed.
func unpack(t fataler, file []byte) []string {
	t.Helper()
	dec, err := proof.NewDecoder()
	if err != nil {
		t.Fatalf("zstd: %v", err)
	}
	defer dec.Close()
	raw, err := dec.DecodeAll(file, nil)
	if err != nil {
		t.Fatalf("zstd: %v", err)
	}
	lines := strings.SplitAfter(string(raw), "\n")
	return lines[:len(lines)-1]
}

func pack(t fataler, text string) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatalf("zstd: %v", err)
	}
	return enc.EncodeAll([]byte(text), nil)
}

// What is written is read, the same by every way, and the root is what the format
// says it is.
func TestManifestsAreReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawEntries(t)
		file, root := write(t, want)
		for name, r := range map[string]io.Reader{
			"whole":    bytes.NewReader(file),
			"by bytes": iotest.OneByteReader(bytes.NewReader(file)),
			"repacked": bytes.NewReader(pack(t, strings.Join(unpack(t, file), ""))),
		} {
			got, gotRoot, err := read(r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if gotRoot != root {
				t.Fatalf("%s: the root is %v, not %v", name, gotRoot, root)
			}
			same(t, got, want)
		}
		m := open(t, file)
		var got []entry.Entry
		for e, err := range m.Entries() {
			if err != nil {
				t.Fatalf("Entries: %v", err)
			}
			got = append(got, e)
		}
		same(t, got, want)
		if m.Root() != root || root != naiveRoot(t, file, want) {
			t.Fatalf("roots: opened %v, written %v, by the book %v", m.Root(), root, naiveRoot(t, file, want))
		}
	})
}

func same(t fataler, got, want []entry.Entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d entries, not %d", len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("entry %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func hash(parts ...[]byte) []byte {
	h := blake3.Sum256(bytes.Join(parts, nil))
	return h[:]
}

func num(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// book computes hashes in the plainest way from the package's description.
func book(leaves [][]byte) []byte {
	switch len(leaves) {
	case 0:
		return make([]byte, 32)
	case 1:
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	return hash([]byte{1}, book(leaves[:k]), book(leaves[k:]))
}

func bookShard(lines []string) []byte {
	var leaves [][]byte
	for _, l := range lines {
		leaves = append(leaves, hash([]byte{0}, []byte(strings.TrimSuffix(l, "\n"))))
	}
	return hash([]byte{2}, num(int64(len(lines))), book(leaves))
}

func bookRoot(shards [][]byte, entries, size int64) proof.Root {
	r := proof.Root{Shards: int64(len(shards)), Entries: entries, Bytes: size}
	copy(r.Hash[:], hash([]byte{3}, []byte("firedrill-manifest/1"), num(r.Shards), num(entries), num(size), book(shards)))
	return r
}

func naiveRoot(t fataler, file []byte, list []entry.Entry) proof.Root {
	t.Helper()
	var shards [][]byte
	var lines []string
	end := func() {
		if len(lines) > 0 {
			shards = append(shards, bookShard(lines))
		}
		lines = nil
	}
	size, i := int64(0), 0
	for _, l := range unpack(t, file) {
		if !strings.HasPrefix(l, `{"key"`) {
			continue
		}
		if proof.StartsShard(list[i].Key()) {
			end()
		}
		size += list[i].Size
		i++
		lines = append(lines, l)
	}
	end()
	return bookRoot(shards, int64(i), size)
}

// Whoever takes a line away, or puts it elsewhere, is found, and so is the place.
func TestDroppedDuplicatedAndReorderedLinesAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawEntries(t)
		if len(list) < 2 {
			return
		}
		file, _ := write(t, list)
		lines := unpack(t, file)
		i := rapid.IntRange(0, len(lines)-1).Draw(t, "line")
		j := rapid.IntRange(0, len(lines)-1).Draw(t, "other")
		bad := slices.Clone(lines)
		switch rapid.SampledFrom([]string{"drop", "duplicate", "swap", "cut"}).Draw(t, "how") {
		case "drop":
			bad = slices.Delete(bad, i, i+1)
		case "duplicate":
			bad = slices.Insert(bad, j, lines[i])
		case "swap":
			bad[i], bad[j] = bad[j], bad[i]
		case "cut":
			bad = bad[:i]
		}
		if slices.Equal(bad, lines) {
			return
		}
		demandCorrupt(t, pack(t, strings.Join(bad, "")))
	})
}

// Any byte of any line; the places of frames in the index are for Open to check.
func TestAFlippedByteOfALineIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file, root := write(t, drawEntries(t))
		text := []byte(strings.Join(unpack(t, file), ""))
		i := rapid.IntRange(0, len(text)-1).Draw(t, "byte")
		text[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		_, got, err := read(bytes.NewReader(pack(t, string(text))))
		line := text[bytes.LastIndexByte(text[:i], '\n')+1:]
		if place := bytes.Index(line, []byte(`"at":`)); bytes.HasPrefix(line, []byte(`{"index":`)) && place >= 0 && err == nil && got == root {
			return
		}
		if !errors.Is(err, proof.ErrCorrupt) {
			t.Fatalf("byte %d, now %q, in %q: %v", i, text[i], line, err)
		}
	})
}

// Any byte of the file as it lies on the disk: whatever comes out of it without an
// error is what was written.
func TestAFlippedByteOfTheFileIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawEntries(t)
		file, root := write(t, want)
		i := rapid.IntRange(0, len(file)-1).Draw(t, "byte")
		file[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		if got, gotRoot, err := read(bytes.NewReader(file)); err == nil {
			same(t, got, want)
			if gotRoot != root {
				t.Fatalf("another root")
			}
		} else if !errors.Is(err, proof.ErrCorrupt) {
			t.Fatalf("the error is no ErrCorrupt: %v", err)
		}
		m, err := proof.Open(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			if !errors.Is(err, proof.ErrCorrupt) {
				t.Fatalf("the error is no ErrCorrupt: %v", err)
			}
			return
		}
		var got []entry.Entry
		for e, err := range m.Entries() {
			if err != nil {
				return
			}
			got = append(got, e)
		}
		same(t, got, want)
		if m.Root() != root {
			t.Fatalf("another root")
		}
	})
}

// Shards are frames, so that a file is easily cut and pasted.
func TestDroppedDuplicatedAndReorderedShardsAreFound(t *testing.T) {
	var list []entry.Entry
	for _, name := range starters {
		list = append(list, entry.Entry{Path: name}, entry.Entry{Path: name + "x"})
	}
	file, _ := write(t, sorted(list))
	frames := open(t, file).Frames()
	if len(frames) < len(starters) {
		t.Fatalf("%d shards", len(frames))
	}
	frame := func(i int) []byte { return file[frames[i][0] : frames[i][0]+frames[i][1]] }
	rest := file[frames[len(frames)-1][0]+frames[len(frames)-1][1]:]
	build := func(order ...int) []byte {
		out := slices.Clone(file[:frames[0][0]])
		for _, i := range order {
			out = append(out, frame(i)...)
		}
		return append(out, rest...)
	}
	all := make([]int, len(frames))
	for i := range all {
		all[i] = i
	}
	if _, _, err := read(bytes.NewReader(build(all...))); err != nil {
		t.Fatalf("the shards as they were: %v", err)
	}
	for i := range all {
		demandCorrupt(t, build(slices.Delete(slices.Clone(all), i, i+1)...))
		demandCorrupt(t, build(slices.Insert(slices.Clone(all), i, i)...))
		if i > 0 {
			swapped := slices.Clone(all)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			demandCorrupt(t, build(swapped...))
		}
	}
}

func demandCorrupt(t fataler, file []byte) {
	t.Helper()
	_, _, err := read(bytes.NewReader(file))
	var where *proof.CorruptError
	if !errors.Is(err, proof.ErrCorrupt) || !errors.As(err, &where) {
		t.Fatalf("got %v", err)
	}
}

func TestErrorsNameShardAndLine(t *testing.T) {
	var list []entry.Entry
	for _, name := range starters {
		list = append(list, entry.Entry{Path: name}, entry.Entry{Path: name + "x"})
	}
	file, _ := write(t, sorted(list))
	lines := unpack(t, file)
	// header, two entries, seal, two entries, seal; a shard each.
	lines[5] = strings.Replace(lines[5], `"uid":0`, `"uid":-1`, 1)
	_, _, err := read(bytes.NewReader(pack(t, strings.Join(lines, ""))))
	var where *proof.CorruptError
	if !errors.As(err, &where) || where.Shard != 1 || where.Line != 2 {
		t.Errorf("got %+v", err)
	}
}

func TestTheWriterRefuses(t *testing.T) {
	for name, list := range map[string][]entry.Entry{
		"order":     {{Path: "b"}, {Path: "a"}},
		"twice":     {{Path: "a"}, {Path: "a", Kind: entry.Fifo}},
		"kind":      {{Path: "a", Kind: 99}},
		"size":      {{Path: "a", Size: -1}},
		"long line": {{Path: "a", Xattrs: map[string][]byte{"x": make([]byte, 1<<20)}}},
		"xattr":     {{Path: "a", Xattrs: map[string][]byte{"\xff": nil}}},
		"etag":      {{Path: "a", Sum: entry.Sum{Has: entry.HasETag, ETag: "\xff"}}},
	} {
		w, err := proof.NewWriter(io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			err = w.Add(e)
		}
		if !errors.Is(err, proof.ErrOrder) && !errors.Is(err, proof.ErrEntry) {
			t.Errorf("%s: Add: %v", name, err)
		}
		if _, again := w.Close(); again == nil {
			t.Errorf("%s: the manifest was closed in spite of the error", name)
		}
	}
	w, err := proof.NewWriter(fullDisk{})
	if err == nil {
		_, err = w.Close()
	}
	if err == nil {
		t.Error("a full disk is no error")
	}
}

// TestAnAbandonedManifest: what is written beside its writer has ended when it was given
// up, and nothing can make a manifest of it.
func TestAnAbandonedManifest(t *testing.T) {
	file := &slow{begun: make(chan struct{}), goOn: make(chan struct{})}
	w, err := proof.NewWriter(file)
	if err != nil {
		t.Fatal(err)
	}
	file.holds.Store(true)
	// More than one block, which is then packed and written, and less than two of one shard.
	for i, added := 0, 0; added < 500; i++ {
		e := entry.Entry{Path: fmt.Sprintf("%05d", i), Sum: entry.Sum{Has: entry.HasBLAKE3}}
		if proof.StartsShard(e.Path) {
			continue
		}
		binary.LittleEndian.PutUint64(e.Sum.BLAKE3[:], uint64(i)*0x9e3779b97f4a7c15)
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
		added++
	}
	<-file.begun
	go close(file.goOn)
	w.Abandon()
	if file.writing.Load() {
		t.Error("it still writes")
	}
	length := file.Len()
	if err := w.Add(entry.Entry{Path: "a"}); err == nil {
		t.Error("it goes on")
	}
	if _, err := w.Close(); err == nil {
		t.Error("it can be closed")
	}
	w.Abandon()
	if file.Len() != length {
		t.Errorf("%d bytes were written after the end", file.Len()-length)
	}
}

// slow is a file that tells when it is written to, and then waits.
type slow struct {
	bytes.Buffer
	holds, writing atomic.Bool
	once           sync.Once
	begun, goOn    chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	if s.holds.Load() && len(p) > 1<<10 { // a frame's header is written by whoever begins it
		s.writing.Store(true)
		s.once.Do(func() { close(s.begun) })
		<-s.goOn
		defer s.writing.Store(false)
	}
	return s.Buffer.Write(p)
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// The manifest is for humans with a shell as well.
func TestZstdcatAndJQReadAManifest(t *testing.T) {
	for _, tool := range []string{"zstdcat", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("there is no %s here: %v", tool, err)
		}
	}
	file, root := write(t, []entry.Entry{{Path: "a", Size: 5, Mode: 0o640, MTime: 1}, {Path: "b\xff", Kind: entry.Symlink, Target: "a"}})
	run := func(script string) string {
		cmd := exec.Command("sh", "-c", script)
		cmd.Stdin = bytes.NewReader(file)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := run(`zstdcat | jq -r 'select(.key) | "\(.key) \(.kind) \(.mode) \(.mtime)"'`); got != "a file 640 1970-01-01T00:00:00.000000001Z\nb%FF symlink 0 1970-01-01T00:00:00Z" {
		t.Errorf("got %s", got)
	}
	var back proof.Root
	if err := json.Unmarshal([]byte(run(`zstdcat | jq -c 'select(.root).root'`)), &back); err != nil || back != root {
		t.Errorf("the root is %v, not %v: %v", back, root, err)
	}
}

func FuzzReader(f *testing.F) {
	file, _ := write(f, []entry.Entry{{Path: "a"}, {Path: "d", Kind: entry.Dir}, {Path: starters[0], Sum: entry.Sum{Has: entry.HasETag, ETag: "x"}}})
	f.Add([]byte(strings.Join(unpack(f, file), "")), true)
	f.Add(file, false)
	f.Add([]byte("{\"manifest\":\"firedrill-manifest/1\"}\n{\"key\":"), true)
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		if packed { // so that the fuzzer sees the lines
			data = pack(t, string(data))
		}
		list, root, err := read(bytes.NewReader(data))
		if m, err := proof.Open(bytes.NewReader(data), int64(len(data))); err == nil {
			for _, err := range m.Entries() {
				if err != nil {
					break
				}
			}
		}
		if err != nil {
			if !errors.Is(err, proof.ErrCorrupt) {
				t.Fatalf("the error is no ErrCorrupt: %v", err)
			}
			return
		}
		// Whatever is accepted is what the writer makes of it.
		if _, again := write(t, list); again != root {
			t.Fatalf("root %v, written again %v", root, again)
		}
	})
}

// Verifying reads a manifest twice at the same time, in two goroutines.
func TestAManifestIsReadAnyNumberOfTimes(t *testing.T) {
	var list []entry.Entry
	for _, name := range slices.Sorted(slices.Values(starters)) {
		list = append(list, entry.Entry{Path: name, Kind: entry.Dir})
	}
	file, _ := write(t, list)
	entries := open(t, file).Entries()
	inner := 0
	for range 2 {
		n := 0
		for _, err := range entries {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if n == 1 {
				for range entries {
					inner++
				}
			}
		}
		if n != len(list) {
			t.Errorf("read %d of %d entries", n, len(list))
		}
	}
	if inner != 2*len(list) {
		t.Errorf("the reading within the reading gave %d of %d entries", inner, 2*len(list))
	}
}
