package mirror

import (
	"path/filepath"
	"testing"
)

// How much faster is measured by bench-mirror, on a machine that does nothing else.
func TestMoreWorkersAreFaster(t *testing.T) {
	bin, self := programs(t)
	dir := t.TempDir()
	got, err := Scale{
		Bin: bin, Self: self, Dir: dir, Data: filepath.Join(dir, "minio"), Say: t.Logf,
		Files: 40, Items: 1, Workers: []int{1, 3}, Rounds: 1, DelayMS: 40,
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if one, three := got[0].PerSecond[0], got[1].PerSecond[0]; three < 1.3*one {
		t.Errorf("one worker copies %.0f bytes a second, three copy %.0f", one, three)
	}
}
