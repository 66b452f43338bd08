package zfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
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
	return errors.Is(err, canary.ErrDamaged) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADMSG)
}

// readWhole reads a canary. damaged says that it is not what was written;
// err, that this cannot be told.
func (p *pool) readWhole(root *os.Root, name string) (size int64, damaged, err error) {
	body, err := readFile(root, name)
	if err == nil {
		_, err = p.tree().Verify(name, body)
	}
	if tooDamaged(err) {
		return int64(len(body)), err, nil
	}
	return int64(len(body)), nil, err
}

// ReadLedger lists the canaries and reads each in full: one that is there and cannot
// be read whole is lost. There are no duplicates among files.
func (p *pool) ReadLedger(ctx context.Context, spec target.ProbeSpec, upTo int64) (target.Held, error) {
	ledger := spec.Ledger()
	if !canary.CleanName(ledger) {
		return target.Held{}, fmt.Errorf("read ledger %q: it cannot be a directory", ledger)
	}
	whole := map[int64]int64{}
	err := p.onDataset(ctx, func(root *os.Root) error {
		return eachCanary(ctx, root, p.tree().Ledger(ledger), func(name string) error {
			seq, ok := p.tree().Seq(ledger, name)
			if !ok || seq > upTo {
				return nil
			}
			_, damaged, err := p.readWhole(root, name)
			switch {
			case err != nil:
				return err
			case damaged != nil:
				p.log.Warn("a canary cannot be read whole", "file", name, "reason", damaged)
			default:
				whole[seq] = 1
			}
			return nil
		})
	})
	if err != nil {
		return target.Held{}, fmt.Errorf("read ledger %s: %w", ledger, err)
	}
	return canary.Held(whole), nil
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
		if !canary.CleanPart(drill) {
			errs = append(errs, fmt.Errorf("drop the ledgers of %q: it is no drill's name", drill))
		} else if err := root.RemoveAll(p.tree().Drill(drill)); err != nil {
			errs = append(errs, fmt.Errorf("drop the ledgers of %s: %w", drill, err))
		}
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
	}
	return errors.Join(append(errs, root.Close())...)
}
