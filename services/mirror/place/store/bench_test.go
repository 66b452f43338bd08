package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// processorTime is what this process used, the server's not.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverTime is what the server used, in the kernel's ticks of 10 ms.
func serverTime(b *testing.B) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", server(b).PID()))
	must(b, err)
	_, text, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(text)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	must(b, errors.Join(err1, err2))
	return time.Duration(user+system) * 10 * time.Millisecond
}

// small is n new files of 4 KiB in directories of 100 each.
func small(n int) []place.Write {
	ws := make([]place.Write, n)
	for i := range ws {
		content := bytes.Repeat([]byte(fmt.Sprintf("%08d", i)), 512)
		e := entry.Entry{Path: fmt.Sprintf("d%04d/f%06d", i/100, i), Size: int64(len(content)), Mode: 0o644, UID: 1000, GID: 1000, MTime: 1_700_000_000_123_456_789}
		e.Sum.BLAKE3, e.Sum.Has = blake3.Sum256(content), entry.HasBLAKE3
		ws[i] = place.Write{Entry: e, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content)), nil
		}}
	}
	return ws
}

// putAll writes in batches of which some are under way at once.
func putAll(b *testing.B, p *Place, ws []place.Write, atOnce int) []entry.Entry {
	var all sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	have := make([]entry.Entry, len(ws))
	at := 0
	for chunk := range slices.Chunk(ws, p.Traits().Batch) {
		turns <- struct{}{}
		from := at
		at += len(chunk)
		all.Go(func() {
			defer func() { <-turns }()
			for i, o := range p.PutBatch(b.Context(), chunk) {
				if o.Err != nil {
					b.Error(o.Err)
					return
				}
				have[from+i] = o.Entry
			}
		})
	}
	all.Wait()
	return have
}

// BenchmarkPutBatch writes 20,000 files of 4 KiB, as new ones and over those that
// are there, with and without a look at what they overwrite; and as package bucket
// does it alone.
func BenchmarkPutBatch(b *testing.B) {
	const n = 20_000
	run := func(name string, exclusive, over bool, write func(*testing.B, *Place, []place.Write)) {
		b.Run(name, func(b *testing.B) {
			var cpu, theirs time.Duration
			for range b.N {
				b.StopTimer()
				ws := small(n)
				p := opened(b, newBucket(b, server(b), minio.MakeBucketOptions{}), Options{Exclusive: exclusive})
				if over {
					for i, e := range putAll(b, p, ws, 2) {
						ws[i].Have = e
					}
				}
				b.StartTimer()
				before, theirsBefore := processorTime(b), serverTime(b)
				write(b, p, ws)
				cpu += processorTime(b) - before
				theirs += serverTime(b) - theirsBefore
			}
			b.ReportMetric(float64(cpu)/float64(b.N)/1e6, "cpu-ms/op")
			b.ReportMetric(float64(theirs)/float64(b.N)/1e6, "server-ms/op")
		})
	}
	place := func(b *testing.B, p *Place, ws []place.Write) { putAll(b, p, ws, 2) }
	run("bucket", true, false, putBare)
	run("new", false, false, place)
	run("new exclusive", true, false, place)
	run("over", false, true, place)
	run("over exclusive", true, true, place)
}

// putBare writes as putAll does, without a place.
func putBare(b *testing.B, p *Place, ws []place.Write) {
	var all sync.WaitGroup
	turns := make(chan struct{}, 2)
	for chunk := range slices.Chunk(ws, p.Traits().Batch) {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			items := make([]bucket.BatchItem, len(chunk))
			for i, w := range chunk {
				items[i] = bucket.BatchItem{
					Key: w.Entry.Key(), Size: w.Entry.Size, Meta: w.Entry.Meta(), MTime: time.Unix(0, w.Entry.MTime),
					Open: func() (io.ReadCloser, error) { return w.Open(b.Context()) },
				}
			}
			if _, err := p.b.PutBatch(b.Context(), items); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
}

// BenchmarkEntries lists 20,000 files with and without attributes.
func BenchmarkEntries(b *testing.B) {
	p := opened(b, newBucket(b, server(b), minio.MakeBucketOptions{}), Options{})
	putAll(b, p, small(20_000), 2)
	for _, names := range []bool{false, true} {
		b.Run(fmt.Sprintf("names=%v", names), func(b *testing.B) {
			b.ReportAllocs()
			before := processorTime(b)
			for range b.N {
				for _, err := range p.Entries(b.Context(), place.ListOptions{Names: names}) {
					must(b, err)
				}
			}
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}
