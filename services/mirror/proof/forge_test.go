package proof_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// forgery is a file whose hashes all fit, made of shards of lines as they are given.
// What the index says may be altered.
func forgery(t fataler, shards [][]string, alter func(index []map[string]any)) []byte {
	t.Helper()
	return forge{shards: shards, alter: alter}.file(t)
}

type forge struct {
	shards [][]string
	// loose are lines between the last shard and the index.
	loose []string
	alter func(index []map[string]any)
	// claimed are the shards whose hashes stand in index and root, if not nil.
	claimed [][]string
}

func (f forge) file(t fataler) []byte {
	t.Helper()
	file := pack(t, "{\"manifest\":\"firedrill-manifest/1\"}\n")
	var hashes [][]byte
	var index []map[string]any
	entries := int64(len(f.loose))
	for i, lines := range f.shards {
		h := bookShard(lines)
		claimed := h
		if f.claimed != nil {
			claimed = bookShard(f.claimed[i])
		}
		hashes = append(hashes, claimed)
		entries += int64(len(lines))
		seal := fmt.Sprintf("{\"shard\":{\"number\":%d,\"entries\":%d,\"hash\":\"%x\"}}\n", i, len(lines), h)
		frame := pack(t, strings.Join(lines, "")+seal)
		first := ""
		if len(lines) > 0 {
			first, _, _ = strings.Cut(strings.TrimPrefix(lines[0], `{"key":"`), `"`)
		}
		index = append(index, map[string]any{"number": i, "entries": len(lines), "hash": fmt.Sprintf("%x", claimed), "first": first, "at": len(file), "length": len(frame)})
		file = append(file, frame...)
	}
	if f.alter != nil {
		f.alter(index)
	}
	var tail strings.Builder
	tail.WriteString(strings.Join(f.loose, ""))
	for _, l := range index {
		fmt.Fprintf(&tail, "{\"index\":{\"number\":%v,\"entries\":%v,\"hash\":\"%v\",\"first\":\"%v\",\"at\":%v,\"length\":%v}}\n", l["number"], l["entries"], l["hash"], l["first"], l["at"], l["length"])
	}
	root, err := json.Marshal(map[string]proof.Root{"root": bookRoot(hashes, entries, 0)})
	if err != nil {
		t.Fatalf("%v", err)
	}
	at := len(file)
	file = append(file, pack(t, tail.String()+string(root)+"\n")...)
	file = append(file, 0x5d, 0x2a, 0x4d, 0x18, 16, 0, 0, 0)
	file = binary.LittleEndian.AppendUint64(file, uint64(at))
	return append(file, "fdmanif1"...)
}

// lineOf is the canonical line of an entry with the key.
func lineOf(key string) string {
	return `{"key":"` + key + `","kind":"file","size":0,"mode":"0","uid":0,"gid":0,"mtime":"1970-01-01T00:00:00Z"}` + "\n"
}

// One tree has one manifest: another that is whole in itself is none.
func TestAForgedManifestIsRefusedThoughItsHashesFit(t *testing.T) {
	s, u := starters[0], starters[1]
	good := [][]string{{lineOf("a"), lineOf("b")}, {lineOf(s), lineOf(s + "x")}, {lineOf(u)}}
	if _, _, err := read(bytes.NewReader(forgery(t, good, nil))); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	if _, err := all(forgery(t, good, nil)); err != nil {
		t.Fatalf("the good one, opened: %v", err)
	}
	for name, shards := range map[string][][]string{
		"order":       {{lineOf("b"), lineOf("a")}},
		"twice":       {{lineOf("a"), lineOf("a")}},
		"cut early":   {{lineOf("a")}, {lineOf("b")}},
		"cut late":    {{lineOf("a"), lineOf(s)}},
		"empty shard": {{lineOf("a")}, {}},
		"spaces":      {{strings.Replace(lineOf("a"), ":", ": ", 1)}},
		"field":       {{strings.Replace(lineOf("a"), "}", `,"x":1}`, 1)}},
		"no field":    {{strings.Replace(lineOf("a"), `"uid":0,`, "", 1)}},
		"mode":        {{strings.Replace(lineOf("a"), `"0"`, `"00"`, 1)}},
		"time":        {{strings.Replace(lineOf("a"), `00Z`, `00.0Z`, 1)}},
		"path64":      {{strings.Replace(lineOf("a"), `"a"`, `"a","path64":"YQ=="`, 1)}},
		"kind of key": {{lineOf("a/")}},
		"long":        {{strings.Replace(lineOf("a"), "}", `,"xattrs":{"x":"`+strings.Repeat("A", 2<<20)+`"}}`, 1)}},
	} {
		if _, _, err := read(bytes.NewReader(forgery(t, shards, nil))); !errors.Is(err, proof.ErrCorrupt) {
			t.Errorf("%s: read: %v", name, err)
		}
		if _, err := all(forgery(t, shards, nil)); !errors.Is(err, proof.ErrCorrupt) {
			t.Errorf("%s: opened: %v", name, err)
		}
	}
	for name, alter := range map[string]func(index []map[string]any){
		"place":      func(x []map[string]any) { x[0]["at"], x[0]["length"] = x[1]["at"], x[1]["length"] },
		"overlap":    func(x []map[string]any) { x[1]["at"] = x[0]["at"] },
		"negative":   func(x []map[string]any) { x[1]["at"] = -1 },
		"far":        func(x []map[string]any) { x[2]["length"] = 1 << 40 },
		"overflow":   func(x []map[string]any) { x[2]["at"], x[2]["length"] = 1<<62, 1<<62 },
		"hash":       func(x []map[string]any) { x[1]["hash"] = x[0]["hash"] },
		"first":      func(x []map[string]any) { x[0]["first"] = "0" },
		"number":     func(x []map[string]any) { x[1]["number"] = 7 },
		"entries":    func(x []map[string]any) { x[1]["entries"] = 7 },
		"same first": func(x []map[string]any) { x[2]["first"] = x[1]["first"] },
		"swapped": func(x []map[string]any) {
			for _, field := range []string{"at", "length", "hash", "first", "entries"} {
				x[1][field], x[2][field] = x[2][field], x[1][field]
			}
		},
	} {
		if _, err := all(forgery(t, good, alter)); !errors.Is(err, proof.ErrCorrupt) {
			t.Errorf("index: %s: opened: %v", name, err)
		}
	}
	for name, f := range map[string]forge{
		"not sealed":  {shards: good, loose: []string{lineOf(starters[2])}},
		"empty shard": {shards: [][]string{{lineOf("a")}, {}}, alter: func(x []map[string]any) { x[1]["first"] = "a" }},
		"content":     {shards: [][]string{{lineOf("a"), strings.Replace(lineOf("b"), `"uid":0`, `"uid":5`, 1)}}, claimed: good[:1]},
	} {
		if _, _, err := read(bytes.NewReader(f.file(t))); !errors.Is(err, proof.ErrCorrupt) {
			t.Errorf("%s: read: %v", name, err)
		}
		if _, err := all(f.file(t)); name != "not sealed" && !errors.Is(err, proof.ErrCorrupt) {
			t.Errorf("%s: opened: %v", name, err)
		}
	}
	demandCorrupt(t, append(forgery(t, good, nil), pack(t, "more\n")...))
	file := forgery(t, good, nil)
	for _, at := range []uint64{0, 1, uint64(len(file)), 1 << 63, 1<<64 - 1} {
		binary.LittleEndian.PutUint64(file[len(file)-16:], at)
		if _, err := all(file); !errors.Is(err, proof.ErrCorrupt) {
			t.Errorf("the index at %d: %v", at, err)
		}
	}
}

// all opens a manifest and reads every shard.
func all(file []byte) (list []entry.Entry, err error) {
	m, err := proof.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	for e, err := range m.Entries() {
		if err != nil {
			return list, err
		}
		list = append(list, e)
	}
	return list, nil
}
