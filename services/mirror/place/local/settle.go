package local

import (
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"golang.org/x/sys/unix"
)

// settle gives a temporary node its name, if nothing has that but what may be
// overwritten.
func (p *Place) settle(d dir, t temp, name string, have entry.Entry) error {
	if !plan.Present(have) {
		return p.moveNew(d, t.name, name)
	}
	seen, err := d.expect(name, have)
	if err != nil {
		return err
	}
	switch err = p.flagged(d, t.name, name, unix.RENAME_EXCHANGE); {
	case gone(err):
		return changed("what was to be overwritten is gone")
	case unsupported(err):
		// Without an exchange there is a moment in which a change is not seen.
		return d.rename(t.name, name, 0)
	case err != nil:
		return err
	}
	out, err := d.lstat(t.name)
	if err == nil && sameNode(&out, &seen) {
		_ = d.unlink(t.name) // What stays is swept.
		return nil
	}
	return errors.Join(changed("what was to be overwritten was replaced at the last moment"), err, d.putBack(t, name))
}

// putBack undoes an exchange.
func (d dir) putBack(t temp, name string) error {
	var mine unix.Stat_t
	if err := fstat(t.fd, &mine); err != nil {
		return err
	}
	if err := d.rename(t.name, name, unix.RENAME_EXCHANGE); err != nil && !gone(err) {
		return fmt.Errorf("put back what had the name, which is called %q now: %w", t.name, err)
	} else if err != nil {
		// What was written here was removed meanwhile, not what it replaced.
		return d.moveBack(t.name, name)
	}
	out, err := d.lstat(t.name)
	if err == nil && out.Ino != mine.Ino {
		// The name was taken once more: the newest stays.
		if err = d.rename(t.name, name, unix.RENAME_EXCHANGE); err == nil {
			err = d.unlink(t.name)
		}
	}
	return err
}

// moveNew renames only if nothing has the new name.
func (p *Place) moveNew(d dir, from, to string) error {
	err := p.flagged(d, from, to, unix.RENAME_NOREPLACE)
	if unsupported(err) {
		// A second name is never made in place of another one.
		if err = retry(func() error { return unix.Linkat(d.fd, from, d.fd, to, 0) }); err == nil {
			return d.unlink(from)
		}
		if err != unix.EEXIST {
			if _, err = d.expect(to, entry.Entry{}); err != nil {
				return err
			}
			err = d.rename(from, to, 0)
		}
	}
	if err == unix.EEXIST {
		return changed("something took the name meanwhile")
	}
	return err
}

// moveBack gives something its name again, unless the name was taken: then that
// is what replaced it.
func (d dir) moveBack(from, to string) error {
	switch err := d.rename(from, to, unix.RENAME_NOREPLACE); {
	case err == unix.EEXIST:
		return d.unlink(from)
	case err != nil:
		return fmt.Errorf("put back what had the name, which is called %q now: %w", from, err)
	}
	return nil
}

// flagged renames with a flag of renameat2(2), where there is such a thing.
func (p *Place) flagged(d dir, from, to string, flag uint) error {
	if p.plain {
		return unix.EINVAL
	}
	return d.rename(from, to, flag)
}
