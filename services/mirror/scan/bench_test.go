package scan_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/scan"
)

// BenchmarkWalk compares walks of 100,000 files, in directories as wide as those
// of mail spools and as narrow as those of source trees.
func BenchmarkWalk(b *testing.B) {
	for _, wide := range []int{100_000, 1000, 10} {
		dir := b.TempDir()
		const files = 100_000
		makeWide(b, dir, files, wide)
		root, err := os.OpenRoot(dir)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		for _, c := range []struct {
			name string
			walk func() (int, error)
		}{
			{"scan", func() (int, error) { return countScan(b, root) }},
			{"WalkDir", func() (int, error) { return countWalkDir(dir) }},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, wide), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if n, err := c.walk(); n != files || err != nil {
						b.Fatalf("%d files, %v", n, err)
					}
				}
				b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
			})
		}
	}
}

func countScan(b *testing.B, root *os.Root) (n int, err error) {
	for e, err := range scan.Walk(b.Context(), root, scan.Options{}) {
		if err != nil {
			return n, err
		}
		if e.Kind == entry.File {
			n++
		}
	}
	return n, nil
}

func countWalkDir(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if _, err := d.Info(); err != nil {
			return err
		}
		if d.Type().IsRegular() {
			n++
		}
		return nil
	})
	return n, err
}

// makeWide makes files, so many in each directory.
func makeWide(tb testing.TB, dir string, files, wide int) {
	tb.Helper()
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%06d", i/wide))
		if i%wide == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				tb.Fatal(err)
			}
		}
		f, err := os.OpenFile(filepath.Join(sub, fmt.Sprintf("file-%08d.txt", i*7919%files)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			tb.Fatal(err)
		}
		_ = f.Close()
	}
}
