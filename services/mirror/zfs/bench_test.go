package zfs

import (
	"fmt"
	"testing"
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
