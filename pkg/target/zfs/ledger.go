package zfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/target"
)

// eachCanary calls f for each canary at or below a directory of the dataset, in order
// of their names. One that is not there is empty.
func eachCanary(ctx context.Context, root *os.Root, at string, f func(name string) error) error {
	if _, err := root.Stat(at); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fs.WalkDir(root.FS(), at, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() || strings.HasSuffix(name, unnamed) {
			return err
		}
		return f(name)
	})
}

// tooDamaged reports whether a read's error is ZFS's word that it has no whole copy.
func tooDamaged(err error) bool {
	return errors.Is(err, errDamaged) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADMSG)
}

// readWhole reads a canary of a ledger. damaged says that it is not what was written;
// err, that this cannot be told.
func (p *pool) readWhole(root *os.Root, ledger, name string) (size int64, damaged, err error) {
	body, err := readFile(root, name)
	if err == nil {
		var seq int64
		if seq, err = readCanary(ledger, body); err == nil && canaryName(p.cfg.Prefix, ledger, seq) != name {
			err = fmt.Errorf("it is canary %d: %w", seq, errDamaged)
		}
	}
	if tooDamaged(err) {
		return int64(len(body)), err, nil
	}
	return int64(len(body)), nil, err
}

// ReadLedger lists the canaries and reads each in full: one that is there and cannot
// be read whole is lost. There are no duplicates among files.
func (p *pool) ReadLedger(ctx context.Context, spec target.ProbeSpec, upTo int64) (target.Held, error) {
	held := target.Held{Duplicates: map[int64]int64{}}
	ledger := spec.Ledger()
	if !cleanName(ledger) {
		return held, fmt.Errorf("read ledger %q: it cannot be a directory", ledger)
	}
	var whole []int64
	err := p.onDataset(ctx, func(root *os.Root) error {
		return eachCanary(ctx, root, p.cfg.Prefix+"/"+ledger, func(name string) error {
			seq, ok := seqOf(p.cfg.Prefix, ledger, name)
			if !ok || seq > upTo {
				return nil
			}
			_, damaged, err := p.readWhole(root, ledger, name)
			switch {
			case err != nil:
				return err
			case damaged != nil:
				p.log.Warn("a canary cannot be read whole", "file", name, "reason", damaged)
			default:
				whole = append(whole, seq)
			}
			return nil
		})
	})
	if err != nil {
		return held, fmt.Errorf("read ledger %s: %w", ledger, err)
	}
	slices.Sort(whole) // later ones come first
	for _, seq := range whole {
		held.Present.Add(seq)
	}
	return held, nil
}

// onDataset calls f with the dataset's root, while the pool answers: one that has
// stopped says of every file that it cannot be read.
func (p *pool) onDataset(ctx context.Context, f func(*os.Root) error) error {
	s, err := p.look(ctx)
	if err != nil {
		return err
	}
	if s.state != online && s.state != degraded {
		return fmt.Errorf("pool %s is %s: what it holds cannot be told", p.cfg.Pool, s.state)
	}
	root, err := p.openDirectory()
	if err != nil {
		return err
	}
	return errors.Join(f(root), root.Close())
}

// DropLedgers removes the drills' canaries.
func (p *pool) DropLedgers(ctx context.Context, drills ...string) error {
	root, err := p.openDirectory()
	if err != nil {
		return fmt.Errorf("drop ledgers: %w", err)
	}
	var errs []error
	for _, drill := range drills {
		if !cleanName(drill) || strings.Contains(drill, "/") {
			errs = append(errs, fmt.Errorf("drop the ledgers of %q: it is no drill's name", drill))
		} else if err := root.RemoveAll(path.Join(p.cfg.Prefix, drill)); err != nil {
			errs = append(errs, fmt.Errorf("drop the ledgers of %s: %w", drill, err))
		}
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
	}
	return errors.Join(append(errs, root.Close())...)
}
