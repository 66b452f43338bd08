package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// large is a content that is read ahead.
func large() []byte {
	content := make([]byte, readAhead+12_345)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(content)
	return content
}

// patchy gives a content in pieces of all sizes, with pauses of nothing, and notes
// whether it is read when it is its owner's again.
type patchy struct {
	io.Reader
	rng    *rand.Rand
	closed atomic.Bool
	after  atomic.Bool
}

func newPatchy(r io.Reader) *patchy { return &patchy{Reader: r, rng: rand.New(rand.NewPCG(1, 2))} }

func (p *patchy) Read(b []byte) (int, error) {
	if p.closed.Load() {
		p.after.Store(true)
	}
	return p.Reader.Read(b[:p.rng.IntN(len(b)+1)])
}

func (p *patchy) Close() error {
	p.closed.Store(true)
	return nil
}

// putLarge puts a file of the size of content from another reader.
func putLarge(t *testing.T, p *Place, size int, from io.Reader) error {
	t.Helper()
	w := file("f", "")
	w.Entry.Size = int64(size)
	r := newPatchy(from)
	w.Open = func(context.Context) (io.ReadCloser, error) { return r, nil }
	_, err := p.Put(t.Context(), w)
	if r.after.Load() {
		t.Error("the source was read after it was closed")
	}
	return err
}

func TestWhatIsReadAheadIsWrittenAsItIs(t *testing.T) {
	dir := t.TempDir()
	content := large()
	must(t, putLarge(t, open(t, dir, Options{}), len(content), bytes.NewReader(content)))
	got, err := os.ReadFile(filepath.Join(dir, "f"))
	must(t, err)
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes, and not those of the source", len(got))
	}
}

func TestWhatIsReadAheadAndFails(t *testing.T) {
	content := large()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		from io.Reader
		want error
	}{
		"at once":      {iotest.ErrReader(broken), broken},
		"in the midst": {io.MultiReader(bytes.NewReader(content[:readAhead/2]), iotest.ErrReader(broken)), broken},
		"at the end":   {io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broken)), broken},
		"early":        {bytes.NewReader(content[:len(content)-1]), place.ErrChanged},
		"late":         {bytes.NewReader(append(content[:len(content):len(content)], 1)), place.ErrChanged},
		"never":        {io.MultiReader(bytes.NewReader(content[:readAhead/2]), idle{}), io.ErrNoProgress},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, dir, Options{})
			wants(t, "Put", putLarge(t, p, len(content), c.from), c.want)
			if got := all(t, p); len(got) > 0 {
				t.Errorf("it holds %v", got)
			}
			if left := litter(t, dir); len(left) > 0 {
				t.Errorf("%q is left", left)
			}
		})
	}
}

// Somebody else fills the disk after it was seen that there is room.
func TestADiskThatFillsUpInTheMidst(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	mountSized(t, dir, "48m")
	p := open(t, dir, Options{})
	content := large()
	theirs := readerFunc(func([]byte) (int, error) {
		if err := os.WriteFile(filepath.Join(dir, "theirs"), content[:20<<20], 0o644); err != nil {
			return 0, err
		}
		return 0, io.EOF
	})
	from := io.MultiReader(bytes.NewReader(content[:readAhead/4]), theirs, bytes.NewReader(content[readAhead/4:]))
	wants(t, "Put", putLarge(t, p, len(content), from), unix.ENOSPC)
	if left := litter(t, dir); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	if got := all(t, p); len(got) != 1 || got["theirs"].Size != 20<<20 {
		t.Errorf("it holds %v", got)
	}
}

// TestReadingDoesNotWaitForWriting reads as far ahead as there is memory, and no further,
// while nothing is written.
func TestReadingDoesNotWaitForWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		c := new(Place).chunks(readerFunc(func(b []byte) (int, error) {
			reads++
			return len(b), nil
		}), readAhead)
		for n := range 3 {
			synctest.Wait()
			if want := aheadBuffers + max(0, n-1); reads != want {
				t.Errorf("when %d buffers were used %d were read, want %d", n, reads, want)
			}
			if b, err := c.next(); len(b) != bufferSize || err != nil {
				t.Errorf("next gave %d bytes and %v", len(b), err)
			}
		}
		c.end()
	})
}

// A panic in another goroutine than its caller's would end the process.
func TestASourceThatPanicsWhileItIsReadAhead(t *testing.T) {
	content := large()
	from := io.MultiReader(bytes.NewReader(content[:readAhead/2]), readerFunc(func([]byte) (int, error) { panic("no such thing") }))
	err := putLarge(t, open(t, t.TempDir(), Options{}), len(content), from)
	if err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("got %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
