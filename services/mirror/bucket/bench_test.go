package bucket

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

// processorTime is what this process used, the server's not.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measured runs a benchmark's loop and reports the processor time of each run.
func measured(b *testing.B, run func()) {
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
}

// BenchmarkList lists 20,000 keys as this package does, and as minio-go does.
func BenchmarkList(b *testing.B) {
	const n = 20_000
	c := makeBucket(b, server(b, false), minio.MakeBucketOptions{})
	ours, theirs := open(b, c), admin(b, c)
	fill(b, ours, n)
	count := func(b *testing.B, got int) {
		if got != n {
			b.Fatalf("%d keys, want %d", got, n)
		}
	}
	with := func(o ListOptions) func(*testing.B) {
		return func(b *testing.B) {
			measured(b, func() {
				got := 0
				for _, err := range ours.List(b.Context(), o) {
					must(b, err)
					got++
				}
				count(b, got)
			})
		}
	}
	b.Run("ours", with(ListOptions{}))
	b.Run("minio-go", func(b *testing.B) {
		measured(b, func() {
			got := 0
			for o := range theirs.ListObjects(b.Context(), c.Bucket, minio.ListObjectsOptions{Recursive: true}) {
				must(b, o.Err)
				got++
			}
			count(b, got)
		})
	})
	b.Run("ours with metadata", with(ListOptions{Metadata: true}))
}

// BenchmarkScan reads one page of 1,000 keys as this package does, and as
// encoding/xml does.
func BenchmarkScan(b *testing.B) {
	var text strings.Builder
	text.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>false</IsTruncated>`)
	for i := range 1000 {
		fmt.Fprintf(&text, `<Contents><Key>d%02d/file+%05d</Key><LastModified>2026-11-21T10:11:12.123Z</LastModified><ETag>&#34;d41d8cd98f00b204e9800998ecf8427e&#34;</ETag><Size>4096</Size><StorageClass>STANDARD</StorageClass></Contents>`, i/100, i)
	}
	text.WriteString(`<EncodingType>url</EncodingType></ListBucketResult>`)
	p := new(page)
	p.body.WriteString(text.String())
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			must(b, p.scan(pageRequest{}))
		}
	})
	b.Run("encoding/xml", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r reference
			must(b, xml.Unmarshal(p.body.Bytes(), &r))
		}
	})
}

// BenchmarkWrite writes 2,000 objects of 4 KiB, in batches of which two are under
// way, and one by one, 32 at a time.
func BenchmarkWrite(b *testing.B) {
	const n, workers = 2000, 32
	text := string(randomBytes(4 << 10))
	t := fresh(b)
	meta := map[string]string{"Mtime": "1.000000000", "Firedrill": "mode=644&uid=0&gid=0"}
	items := make([]BatchItem, n)
	for i := range items {
		items[i] = item("d/"+strconv.Itoa(1e6+i), text, meta)
	}
	b.Run("batches", func(b *testing.B) {
		measured(b, func() {
			var all sync.WaitGroup
			two := make(chan struct{}, 2)
			for chunk := range slices.Chunk(items, 500) {
				two <- struct{}{}
				all.Go(func() {
					defer func() { <-two }()
					if _, err := t.PutBatch(b.Context(), chunk); err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
		})
	})
	b.Run("alone", func(b *testing.B) {
		measured(b, func() {
			var all sync.WaitGroup
			next := make(chan BatchItem)
			for range workers {
				all.Go(func() {
					for it := range next {
						if _, err := t.Put(b.Context(), it.Key, strings.NewReader(text), it.Size, PutOptions{Meta: it.Meta}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for _, it := range items {
				next <- it
			}
			close(next)
			all.Wait()
		})
	})
}
