package zfs

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/scan"
)

// size is what the benchmarks move; half of it compresses.
const size = 128 << 20

func big(b *testing.B) (machine, string, Snapshot) {
	b.Helper()
	m := on(b, "source")
	dataset := m.fresh(b)
	must(b, writeNoise(m.path(dataset)+"/noise", size/2, 1))
	sh(b, "sh", "-c", fmt.Sprintf("yes firedrill | head -c %d >%s/text", size/2, m.path(dataset)))
	s, err := m.Snapshot(b.Context(), dataset, "s", "job")
	must(b, err)
	return m, dataset, s
}

func BenchmarkReplicate(b *testing.B) {
	m, dataset, _ := big(b)
	target := on(b, "target")
	b.SetBytes(size)
	for b.Loop() {
		r := Replication{Source: m.Host, Target: target.Host, From: dataset, To: target.freshName(b), Job: "job"}
		done, err := r.Run(b.Context())
		must(b, err)
		must(b, target.discard(b.Context(), r.To, []Snapshot{done.Steps[0].To}))
	}
}

func BenchmarkSave(b *testing.B) {
	m, dataset, _ := big(b)
	b.SetBytes(size)
	for b.Loop() {
		_, err := NewArchive(store(b)).Save(b.Context(), m.Host, dataset, SaveOptions{Job: "job"})
		must(b, err)
	}
}

func BenchmarkCheck(b *testing.B) {
	m, dataset, s := big(b)
	a := NewArchive(store(b))
	_, err := a.Save(b.Context(), m.Host, dataset, SaveOptions{Job: "job"})
	must(b, err)
	b.SetBytes(size)
	for b.Loop() {
		must(b, a.Check(b.Context(), s.GUID))
	}
}

func BenchmarkRestore(b *testing.B) {
	m, dataset, s := big(b)
	target := on(b, "target")
	a := NewArchive(store(b))
	_, err := a.Save(b.Context(), m.Host, dataset, SaveOptions{Job: "job"})
	must(b, err)
	b.SetBytes(size)
	for b.Loop() {
		to := target.freshName(b)
		received, err := a.Restore(b.Context(), target.Host, to, s.GUID, RestoreOptions{})
		must(b, err)
		must(b, target.discard(b.Context(), to, received))
	}
}

// BenchmarkChanges compares asking what was written with walking all there is: of 20,000
// files, of which one in a hundred was written, and with one large file besides.
func BenchmarkChanges(b *testing.B) {
	const files = 20_000
	m := on(b, "source")
	dataset := m.fresh(b)
	m.do(b, "set", "atime=off", dataset)
	write := func(i int, what string) {
		path := filepath.Join(m.path(dataset), fmt.Sprintf("d%d", i%100), fmt.Sprintf("f%d", i))
		must(b, os.MkdirAll(filepath.Dir(path), 0o755))
		must(b, os.WriteFile(path, bytes.Repeat([]byte(what), 4096/len(what)), 0o644))
	}
	for i := range files {
		write(i, "before__")
	}
	read := func() *Reading {
		r, err := m.Read(b.Context(), dataset, ReadOptions{Job: "job", Dir: m.readings()})
		must(b, err)
		return r
	}
	first := read()
	first.Keep()
	must(b, first.Close(b.Context()))
	measure := func(name string) {
		b.Run("read/"+name, func(b *testing.B) {
			for b.Loop() {
				must(b, read().Close(b.Context()))
			}
		})
		r := read()
		b.Run("walk/"+name, func(b *testing.B) {
			for b.Loop() {
				root, err := os.OpenRoot(r.Path)
				must(b, err)
				for _, err := range scan.Walk(b.Context(), root, scan.Options{FS: r.FS}) {
					must(b, err)
				}
				must(b, root.Close())
			}
		})
		b.Run("changes/"+name, func(b *testing.B) {
			for b.Loop() {
				c, err := m.Changes(b.Context(), first.Snapshot, r.Snapshot, math.MaxInt64)
				must(b, err)
				b.ReportMetric(float64(len(c.Files)), "written")
				b.ReportMetric(float64(len(c.Touched)), "touched")
			}
		})
		must(b, r.Close(b.Context()))
	}
	measure("none")
	for i := 0; i < files; i += 100 {
		write(i, "after___")
	}
	measure("1%")
	must(b, writeNoise(m.path(dataset)+"/large", 256<<20, 1))
	measure("256MiB")
}
