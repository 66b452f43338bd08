package tree

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// name is the entry's path, byte for byte.
func (e Entry) name() string {
	if len(e.Raw) > 0 {
		return string(e.Raw)
	}
	return e.Path
}

func (e *Entry) setName(p string) { e.Path, e.Raw = text(p) }

func (e *Entry) setTarget(t string) { e.Target, e.TargetRaw = text(t) }

// text splits a name that JSON cannot carry into a readable form and its bytes.
func text(s string) (string, []byte) {
	if utf8.ValidString(s) {
		return s, nil
	}
	return strings.ToValidUTF8(s, "\uFFFD"), []byte(s)
}

func (e Entry) equal(o Entry) bool {
	return e.name() == o.name() && e.Type == o.Type && e.Size == o.Size && e.Mode == o.Mode && e.MTime == o.MTime &&
		e.Blake3 == o.Blake3 && e.Target == o.Target && string(e.TargetRaw) == string(o.TargetRaw)
}

// writeManifest writes one JSON object a line, sorted by path, and returns the
// hex BLAKE3 of the file's bytes.
func writeManifest(path string, entries []Entry) (root string, err error) {
	h := blake3.New()
	err = replaceFile(path, func(w io.Writer) error {
		enc := json.NewEncoder(io.MultiWriter(w, h))
		for _, e := range entries {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("write the manifest: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// replaceFile writes a file that appears whole or not at all. It is on the disk when
// this returns.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*.tmp")
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	if err = errors.Join(write(w), w.Flush(), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(p string) error {
	d, err := os.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadManifest reads a manifest and its root hash back.
func ReadManifest(path string) (entries []Entry, root string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("read the manifest: %w", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	for line := 1; dec.More(); line++ {
		var e Entry
		if err := dec.Decode(&e); err != nil {
			return nil, "", fmt.Errorf("read the manifest %s, entry %d: %w", path, line, err)
		}
		entries = append(entries, e)
	}
	sum := blake3.Sum256(raw)
	return entries, hex.EncodeToString(sum[:]), nil
}

// hashAll notes every node of r.src with what it holds.
func (r *run) hashAll(ctx context.Context, nodes []node) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan node)
	var wg sync.WaitGroup
	for range r.workers() {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for n := range work {
				if err := r.hashOne(ctx, n, buf); err != nil {
					cancel(fmt.Errorf("%s: %w", n.path, err))
				}
			}
		})
	}
	for _, n := range nodes {
		select {
		case work <- n:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

func (r *run) hashOne(ctx context.Context, n node, buf []byte) error {
	e := Entry{Type: n.kind}
	switch n.kind {
	case TypeFile:
		f, err := openPlain(r.src, n.path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // opened for reading
		// What was synced can be dropped from the cache, so that the disk is read.
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("drop the cache: %w", err)
		}
		h := blake3.New()
		e.Size, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{&ctxReader{ctx, f}}, buf)
		if err != nil {
			return err
		}
		e.Blake3 = hex.EncodeToString(h.Sum(nil))
	case TypeSymlink:
		t, err := r.src.Readlink(n.path)
		if err != nil {
			return err
		}
		e.setTarget(t)
	}
	r.note(n, e)
	return nil
}
