package zfs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/zeebo/blake3"
	"golang.org/x/time/rate"

	"github.com/firedrill/firedrill/services/mirror/pace"
)

// Hash is a BLAKE3 hash.
type Hash [32]byte

// String is the hash in hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText makes JSON hold the hash as String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads String's text.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a BLAKE3 hash of %d characters: want %d", len(text), hex.EncodedLen(len(h)))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// Stream is what passed through of one stream.
type Stream struct {
	Bytes  int64 `json:"bytes"`
	BLAKE3 Hash  `json:"blake3"`
}

// Progress is how far something is that goes through streams.
type Progress struct {
	// Snapshot is the full name of the one whose stream is under way, Number its place,
	// from 1, of Of.
	Snapshot   string
	Number, Of int
	// Bytes of the stream have passed, of Total, which is 0 where nobody knows it
	// before its end.
	Bytes, Total int64
}

// watch makes of a watcher one that counts the bytes of what p describes; nil of nil.
func (p Progress) watch(watcher func(Progress)) func(int64) {
	if watcher == nil {
		return nil
	}
	return func(n int64) {
		p.Bytes = n
		watcher(p)
	}
}

// meter counts and hashes what is written through it, no faster than allowed.
type meter struct {
	ctx     context.Context
	to      io.Writer
	limiter *rate.Limiter
	hash    *blake3.Hasher
	bytes   int64
	// watch, if not nil, is told of the bytes.
	watch func(int64)
}

// newMeter lets bytesPerSecond through, or all if that is 0. ctx ends its waiting.
func newMeter(ctx context.Context, to io.Writer, bytesPerSecond int64, watch func(int64)) *meter {
	return &meter{ctx: ctx, to: to, hash: blake3.New(), limiter: pace.NewLimit(bytesPerSecond), watch: watch}
}

// Write implements io.Writer.
func (m *meter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		part := p[done:]
		if m.limiter != nil {
			part = part[:min(len(part), m.limiter.Burst())]
			if err := m.limiter.WaitN(m.ctx, len(part)); err != nil {
				return done, err
			}
		}
		n, err := m.to.Write(part)
		_, _ = m.hash.Write(part[:n]) // it never fails
		m.bytes += int64(n)
		done += n
		if m.watch != nil {
			m.watch(m.bytes)
		}
		if err != nil {
			return done, err
		}
	}
	return len(p), nil
}

func (m *meter) stream() Stream {
	s := Stream{Bytes: m.bytes}
	m.hash.Sum(s.BLAKE3[:0])
	return s
}

// sendArgv is the command that sends a snapshot, whole if from is nil.
func sendArgv(from *Snapshot, to Snapshot) []string {
	if from == nil {
		return []string{"zfs", "send", to.String()}
	}
	// Both names are given whole: a dataset may have been renamed.
	return []string{"zfs", "send", "-i", from.String(), to.String()}
}

// transfer runs a send into a receive. Where one fails the other is ended, and what
// it then says is left out.
func transfer(ctx context.Context, source, target *Host, send, receive []string, bytesPerSecond int64, watch func(int64)) (Stream, error) {
	sending, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w, err := widePipe()
	if err != nil {
		return Stream{}, err
	}
	m := newMeter(sending, w, bytesPerSecond, watch)
	var sender sync.WaitGroup
	var sent error
	sender.Go(func() {
		sent = source.run(sending, nil, m, send...)
		// Where it failed, the receiver's input breaks off: it discards what it has.
		_ = w.Close()
	})
	received := target.run(ctx, r, nil, receive...)
	if received != nil {
		cancel(errReceiverEnded)
	}
	// A sender that writes to it fails then.
	_ = r.Close()
	sender.Wait()
	switch {
	case ctx.Err() != nil:
		return Stream{}, context.Cause(ctx)
	case sent != nil && (received == nil || !errors.Is(sent, errReceiverEnded)):
		return Stream{}, errors.Join(sent, received)
	case received != nil:
		return Stream{}, received
	}
	return m.stream(), nil
}

// errReceiverEnded is why a sender finds nobody to write to.
var errReceiverEnded = errors.New("the receiving command has ended")
