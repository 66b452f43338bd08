package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// recordTo is where real drills are recorded as test data, from this folder:
//
//	go test . -run 'LosesNothing|FindsTheLoss|AbortPutsBack' -record ../../services/reporter/fold/testdata/recorded
//
// What a release has recorded stays: every later one must read it. A new recording
// gets a folder of its own.
var recordTo = flag.String("record", "", "folder in which the histories of real drills are recorded, for later versions to read")

// record keeps a drill's exported events and the public keys that verify them.
func record(t *testing.T, s *allinone.Stack, from, name string) {
	t.Helper()
	if *recordTo == "" {
		return
	}
	events, err := os.ReadFile(filepath.Join(from, "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(events); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	ring, err := json.MarshalIndent(s.Keyring, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(*recordTo, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, raw := range map[string][]byte{"events.jsonl.gz": packed.Bytes(), keys.KeyringFile: append(ring, '\n')} {
		if err := os.WriteFile(filepath.Join(dir, file), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
