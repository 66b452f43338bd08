package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// In memory, so that the code is measured and not the disk: 20,000 files of 4 KiB
// in 100 directories.
const (
	benchFiles = 20_000
	benchDirs  = 100
	benchSize  = 4096
)

func shm(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firedrill-local-")
	must(b, err)
	b.Cleanup(func() { must(b, os.RemoveAll(dir)) })
	return dir
}

func benchPath(i int) string { return fmt.Sprintf("d%02d/f%05d", i%benchDirs, i) }

func BenchmarkPut(b *testing.B) {
	content := strings.Repeat("x", benchSize)
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			dir := shm(b)
			round := 0
			for b.Loop() {
				into := filepath.Join(dir, fmt.Sprint(round))
				must(b, os.Mkdir(into, 0o755))
				round++
				p, err := Open(b.Context(), into, Options{})
				must(b, err)
				putAll(b, p, workers, content)
				must(b, errors.Join(p.Finish(b.Context()), p.Close()))
				b.StopTimer()
				must(b, os.RemoveAll(into))
				b.StartTimer()
			}
			b.ReportMetric(float64(benchFiles*b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func putAll(b *testing.B, p *Place, workers int, content string) {
	b.Helper()
	var all sync.WaitGroup
	for first := range workers {
		all.Go(func() {
			for i := first; i < benchFiles; i += workers {
				if _, err := p.Put(b.Context(), file(benchPath(i), content)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkReplace is Put over what is there.
func BenchmarkReplace(b *testing.B) {
	p, err := Open(b.Context(), shm(b), Options{})
	must(b, err)
	defer func() { must(b, p.Close()) }()
	w := file("d/f", strings.Repeat("x", benchSize))
	w.Have = put(b, p, w)
	for b.Loop() {
		w.Have = put(b, p, w)
	}
}

// BenchmarkCopy is what to compare with: cp -a reads too, and syncs nothing.
func BenchmarkCopy(b *testing.B) {
	dir := shm(b)
	from, into := filepath.Join(dir, "from"), filepath.Join(dir, "into")
	for i := range benchFiles {
		path := filepath.Join(from, benchPath(i))
		must(b, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, benchSize), 0o644)))
	}
	for b.Loop() {
		must(b, exec.CommandContext(b.Context(), "cp", "-a", from, into).Run())
		b.StopTimer()
		must(b, os.RemoveAll(into))
		b.StartTimer()
	}
	b.ReportMetric(float64(benchFiles*b.N)/b.Elapsed().Seconds(), "files/s")
}
