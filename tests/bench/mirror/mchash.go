package mirror

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// mcHash is mc, and then rclone's hashes of the local files: together they know of each
// file what firedrill does, by the same hash.
type mcHash struct{ mc }

func (mcHash) Name() string { return nameMCHash }

func (h mcHash) Programs() []string { return append(h.mc.Programs(), "rclone") }

func (h mcHash) Steps(t Task) []Step {
	local := t.Tree
	if t.Work == Download {
		local = t.Dest
	}
	return append(h.mc.Steps(t), Step{
		Program: "rclone", Args: []string{"hashsum", "blake3", "--output-file", t.State, local},
		Env: []string{"RCLONE_CONFIG=/dev/null"},
	})
}

// Prove looks at the hashes, and removes them: the next run has to make its own.
func (mcHash) Prove(t Task, tree *Tree) error {
	raw, err := os.ReadFile(t.State)
	if err != nil {
		return fmt.Errorf("%w: there is no file of hashes", ErrWrong)
	}
	if err := os.Remove(t.State); err != nil {
		return err
	}
	found := 0
	for line := range bytes.Lines(raw) {
		hash, name, _ := bytes.Cut(bytes.TrimSpace(line), []byte("  "))
		want, ok := tree.Sums[filepath.ToSlash(string(name))]
		if !ok || string(hash) != hex.EncodeToString(want.BLAKE3[:]) {
			return fmt.Errorf("%w: %q is no file's BLAKE3", ErrWrong, line)
		}
		found++
	}
	if found != len(tree.Sums) {
		return fmt.Errorf("%w: there are hashes of %d of %d files", ErrWrong, found, len(tree.Sums))
	}
	return nil
}
