package mirror

import (
	"path/filepath"
	"testing"
)

// How much faster that makes it is measured by bench-mirror, on a machine that does
// nothing else.
func TestAllWorkersTakePartInARun(t *testing.T) {
	bin, self := programs(t)
	dir := t.TempDir()
	got, err := Scale{
		Bin: bin, Self: self, Dir: dir, Data: filepath.Join(dir, "minio"), Say: t.Logf,
		Files: 40, Items: 1, Workers: []int{1, 3}, Rounds: 1, DelayMS: 40,
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got {
		if len(m.Items) != m.Workers {
			t.Errorf("of %d workers these carried out items: %v", m.Workers, m.Items)
		}
	}
}
